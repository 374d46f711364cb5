"""The step that removes smooth light between the orders."""

import logging

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.extract.frames import as_cubes, mean_image
from soss_background.extract.inter_order import fit_light, free_pixels
from soss_background.io.exposures import find_pwcpos, find_window
from soss_background.sky.traces import ORDERS, expected_trace
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import open_pastasoss

__all__ = ["InterOrderBackgroundStep"]

log = logging.getLogger(__name__)


class InterOrderBackgroundStep(SkyflatStep):
    """Remove smooth light that is left between the orders."""

    class_alias = "inter_order_background"

    spec = """
    degree = integer(default=3, min=1, max=5)  # Degree of the smoothing B-spline
    distance = float(default=30.0, min=0.0)  # Pixels nearer to the trace of an order are left out [pixels]
    smoothing = float(default=0.0, min=0.0)  # Standard deviation of a Gaussian that smooths the light [pixels; 0: none]
    each_integration = boolean(default=False)  # Fit every integration, instead of their mean
    skip = boolean(default=True)  # Skip this step, unless it runs alone
    suffix = string(default='interorder')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init):
        """
        Fit and remove the light.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure without its sky; a model is left unchanged unless the step is part of a
            pipeline.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            The exposure without that light.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or too few pixels lie between the orders.
        """
        exposure = self.prepare_output(self.open_exposure(init))
        name, window = exposure.meta.filename, find_window(exposure)
        pwcpos = find_pwcpos(exposure)
        with open_pastasoss(self, exposure) as reference:
            rows = [expected_trace(order, window, pwcpos, reference).row for order in ORDERS]
        free = free_pixels(window.shape, rows, self.distance) & ~window.reference_pixels()
        data, _, good = as_cubes(exposure)
        frames = np.where(good, data, np.nan) if self.each_integration else [mean_image(data, good)]
        try:
            settings = {"degree": self.degree, "smoothing": self.smoothing}
            light = np.array([fit_light(frame, free, **settings) for frame in frames])
        except ValueError as err:
            raise SkyflatError(f"{name}: {err}") from err
        removed = np.where(window.reference_pixels(), 0, light)
        exposure.data = (data - removed).reshape(exposure.data.shape)
        log.info("%s: %.3g DN/s between the orders removed (median)", name, np.median(light))
        return exposure
