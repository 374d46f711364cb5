"""The step that measures the encircled energy of a star."""

import logging
from functools import partial

import numpy as np
from astropy.table import Table

from soss_background.fluxcal.aperture import CORE, grow, replace_pixels
from soss_background.fluxcal.plots import draw_growth
from soss_background.fluxcal.psf import find_psf
from soss_background.fluxcal.star_step import StarStep

__all__ = ["EncircledEnergyStep"]

log = logging.getLogger(__name__)

# Part of the light that bad pixels of the core may be wrong by; more is no measurement.
_DOUBTFUL = 0.02


class EncircledEnergyStep(StarStep):
    """Measure the curve of growth of a single star in an image of NIRISS."""

    class_alias = "encircled_energy"

    spec = """
    radii = float_list(min=2, default=list(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15))  # Radii of the circles [pixels]
    sky_annulus = float_list(min=2, max=2, default=list(20, 25))  # Radii of the ring that tells the sky [pixels]
    replace = option('surface', 'median', 'none', default='surface')  # Beyond 5 pixels, bad pixels become what a polynomial surface through their neighbours tells, or the median of these; with 'median', pixels below the sky by more than n_sigma as well
    psf = string(default=None)  # Table of the encircled energy of the PSF, or a folder of such tables, to compare with
    suffix = string(default='ee')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init):
        """
        Measure the curve of growth.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The image, ``_rate`` or ``_cal``; unchanged.

        Returns
        -------
        table : `~astropy.table.Table`
            ``radius`` (pixels), ``radius_arcsec``, ``count_rate`` and ``error`` (DN/s; NaN where
            the circle is not all measured, or bad pixels of the core may be wrong by 2 per cent),
            ``encircled_energy`` (count rate relative to that of the largest circle measured, times
            the PSF's there if that is given). Where the star is, and its sky, is in ``meta``.

        Raises
        ------
        SkyflatError
            If the image cannot be used, or shows no star there.
        """
        radii = self.check_radii()
        star = self.find(init)
        psf = find_psf(self.psf, star.meta["FILTER"]) if self.psf else None
        wrong = self._find_wrong(star, max(radii))
        image, guess = star.image, np.zeros(star.image.shape)
        if self.replace == "none":
            image = np.where(star.bad & (star.distance > CORE), np.nan, image)
        elif wrong.any():
            image, guess = replace_pixels(image, star.bad, wrong, self.replace)
        doubt = self._doubt(star)
        settings = {"gain": self.gain, "time": star.time}
        rate, error = grow(
            image, np.maximum(guess, doubt), star.position, radii, star.sky, **settings
        )
        for index, radius in enumerate(radii):
            # Half a pixel's diagonal further, pixels are in the circle in part.
            inside = doubt[star.distance < radius + 0.71]
            if np.sqrt(np.sum(inside**2)) > _DOUBTFUL * rate[index]:
                rate[index] = error[index] = np.nan
        if radii[-1] > self.sky_annulus[0]:
            log.warning("Circles of more than %g pixels reach into the sky's", self.sky_annulus[0])
        if np.isnan(rate).any():
            log.warning(
                "%s: circles of %g pixels and more are not all measured",
                star.meta["EXPOSURE"], radii[np.isnan(rate)][0],
            )  # fmt: skip
        energy = np.ones(len(radii)) if psf is None else psf.energy(radii)
        known = np.flatnonzero(np.isfinite(rate * energy))
        table = Table({"radius": radii, "count_rate": rate, "error": error})
        last = known[-1] if known.size else -1
        table["encircled_energy"] = energy[last] * rate / rate[last]
        table["count_rate"].unit = table["error"].unit = "DN/s"
        table.meta = star.meta | {"NREPLACE": int(np.count_nonzero(wrong))}
        self.finish(table, partial(draw_growth, table=table, psf=psf))
        return table

    def _find_wrong(self, star, outer):
        """Find bad pixels beyond the core, and those in it that hold nothing, to be replaced."""
        ring = (star.distance > CORE) & (star.distance < outer + 1)
        wrong = star.bad & (ring | (star.distance <= CORE) & ~np.isfinite(star.image))
        if self.replace == "median":
            wrong |= ring & (star.image < star.sky.mean - self.n_sigma * star.sky.sigma)
        return wrong & (self.replace != "none")

    @staticmethod
    def _doubt(star):
        """Tell how wrong bad pixels of the core may be: a peak is not as its neighbours."""
        bad = star.bad & (star.distance <= CORE)
        told, _ = replace_pixels(star.image, star.bad, bad, "surface")
        off = np.nan_to_num(np.abs(star.image - told))
        return np.where(bad, np.maximum(off, np.abs(told - star.sky.mean)), 0)
