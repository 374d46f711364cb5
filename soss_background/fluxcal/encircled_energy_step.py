"""The step that measures the encircled energy of a star."""

import logging
from functools import partial
from typing import ClassVar

import numpy as np
from astropy.table import Table

from soss_background.fluxcal.aperture import curve_of_growth, find_doubtful, mend_star
from soss_background.fluxcal.plots import draw_growth
from soss_background.fluxcal.psf import check_sky_annulus, find_psf
from soss_background.fluxcal.star_step import StarStep

__all__ = ["EncircledEnergyStep"]

log = logging.getLogger(__name__)


class EncircledEnergyStep(StarStep):
    """Measure the curve of growth of a single star in a NIRISS image."""

    class_alias = "encircled_energy"

    named_files: ClassVar = ("psf",)

    spec = """
    radii = float_list(min=2, default=list(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15))  # Radii of the circles [pixels]
    sky_annulus = float_list(min=2, max=2, default=list(20, 25))  # Inner and outer radius of the sky annulus [pixels]
    replace = option('surface', 'median', 'none', default='surface')  # Replace bad pixels beyond 5 pixels by a quadratic surface fitted to their neighbours, or by their median; 'median' also replaces pixels below the sky by more than n_sigma
    psf = string(default=None)  # Table of the encircled energy of the PSF, or a folder of such tables, for comparison
    suffix = string(default='ee')  # Default suffix for output files
    """  # noqa: E501

    def measure(self, star):
        """
        Measure the curve of growth of a star.

        Parameters
        ----------
        star : `~soss_background.fluxcal.star_step.Star`
            The star; unchanged.

        Returns
        -------
        table : `~astropy.table.Table`
            ``radius`` (pixels), ``count_rate`` and ``error`` (DN/s; NaN where pixels of the circle
            have no value, or bad pixels of the core may change the count rate by more than 2 %),
            and ``encircled_energy`` (count rate relative to that of the largest measured circle,
            multiplied by the encircled energy of the PSF there, if a PSF is given).
        draw : callable
            Draws the table on axes.

        Raises
        ------
        SkyflatError
            If the PSF cannot be used, or was measured with another sky annulus.
        """
        radii = np.array(self.radii, dtype=float)
        psf = None
        if self.psf:
            psf = find_psf(self.psf, star.meta["FILTER"])
            check_sky_annulus(psf, star.meta)
        settings = {"outer": max(radii), "how": self.replace, "n_sigma": self.n_sigma}
        image, error, doubt, number = mend_star(
            star.image, star.bad, star.distance, star.sky, **settings
        )
        settings = {"gain": self.gain, "time": star.time}
        rate, error = curve_of_growth(image, error, star.position, radii, star.sky, **settings)
        doubtful = find_doubtful(rate, doubt, star.distance, radii)
        rate[doubtful] = error[doubtful] = np.nan
        if radii[-1] > self.sky_annulus[0]:
            log.warning(
                "Circles larger than %g pixels overlap the sky annulus", self.sky_annulus[0]
            )
        unknown = np.isnan(rate)
        if unknown.any():
            smallest, name = radii[unknown][0], star.meta["EXPOSURE"]
            log.warning("%s: some circles of %g pixels and more are not measured", name, smallest)
        energy = np.ones(len(radii)) if psf is None else psf.energy(radii)
        known = np.flatnonzero(np.isfinite(rate * energy))
        last = known[-1] if known.size else -1
        table = Table({"radius": radii, "count_rate": rate, "error": error})
        table["encircled_energy"] = energy[last] * rate / rate[last]
        table["count_rate"].unit = table["error"].unit = "DN/s"
        table.meta = star.meta | {"NREPLACE": number}
        return table, partial(draw_growth, table=table, psf=psf)
