"""The step that measures the surface brightness around a star."""

from functools import partial

import numpy as np
from astropy.table import Table

from soss_background.errors import SkyflatError
from soss_background.fluxcal.aperture import measure_annuli, replace_pixels
from soss_background.fluxcal.plots import draw_brightness
from soss_background.fluxcal.star_step import StarStep

__all__ = ["SurfaceBrightnessStep"]


class SurfaceBrightnessStep(StarStep):
    """Measure the surface brightness in annuli around a star in a NIRISS image."""

    class_alias = "surface_brightness"

    spec = """
    radii = float_list(min=1, default=list(5, 9, 13, 17, 21, 25))  # Mean radii of the annuli [pixels]
    half_width = float(default=2.0, min=0.1)  # Half width of the annuli [pixels]
    sky_annulus = float_list(min=2, max=2, default=list(27, 32))  # Inner and outer radius of the sky annulus [pixels]
    clip = boolean(default=True)  # Ignore pixels below the sky by more than n_sigma
    suffix = string(default='sb')  # Default suffix for output files
    """  # noqa: E501

    def check_parameters(self):
        """Raise SkyflatError unless the radii increase and the first annulus has a hole."""
        super().check_parameters()
        if self.radii[0] <= self.half_width:
            raise SkyflatError(
                f"half_width must be less than the first of radii, {self.radii[0]:g}"
            )

    def measure(self, star):
        """
        Measure the surface brightness around a star.

        Parameters
        ----------
        star : `~soss_background.fluxcal.star_step.Star`
            The star; unchanged.

        Returns
        -------
        table : `~astropy.table.Table`
            ``radius`` (pixels), ``surface_brightness`` and ``error`` (DN/s per pixel, without sky;
            NaN without good pixels), ``n_pixels`` and ``n_clipped``.
        draw : callable
            Draws the table on axes.
        """
        radii = np.array(self.radii, dtype=float)
        # The flux is steep: the mean of an annulus would be biased without some of its pixels.
        near = star.distance < radii[-1] + self.half_width + 1
        image, _ = replace_pixels(star.image, star.bad, star.bad & near)
        annuli = [(radius - self.half_width, radius + self.half_width) for radius in radii]
        settings = {"n_sigma": self.n_sigma if self.clip else np.inf}
        settings |= {"gain": self.gain, "time": star.time}
        brightness, error, number, clipped = measure_annuli(
            image, star.position, annuli, star.sky, **settings
        )
        table = Table({"radius": radii, "surface_brightness": brightness, "error": error})
        table["n_pixels"], table["n_clipped"] = number, clipped
        table["surface_brightness"].unit = table["error"].unit = "DN/(s pixel)"
        table.meta = star.meta
        return table, partial(draw_brightness, table=table)
