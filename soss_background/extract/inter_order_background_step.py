"""The step that subtracts smooth light between the orders."""

import logging
from functools import partial
from typing import ClassVar

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order import fit_light, free_pixels
from soss_background.sky.traces import ORDERS, expected_trace
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import open_pastasoss

__all__ = ["InterOrderBackgroundStep"]

log = logging.getLogger(__name__)


class InterOrderBackgroundStep(SkyflatStep):
    """Subtract residual smooth light between the orders."""

    class_alias = "inter_order_background"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise")

    spec = """
    degree = integer(default=3, min=1, max=5)  # Degree of the smoothing B-spline
    distance = float(default=30.0, min=0.0)  # Pixels nearer to the trace of an order are ignored [pixels]
    smoothing = float(default=0.0, min=0.0)  # Standard deviation of the Gaussian that smooths the light [pixels; 0: none]
    each_integration = boolean(default=False)  # Fit every integration instead of their mean
    skip = boolean(default=True)  # Skip this step unless it runs alone
    suffix = string(default='interorder')  # Default suffix for output files
    """  # noqa: E501

    reference_file_types: ClassVar = ["pastasoss"]

    # The reference file is found when it is needed: there is a table instead.
    prefetch_references = False

    def process(self, init):
        """
        Fit and subtract smooth light between the orders.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure without its sky; a model is left unchanged unless the step is part of a
            pipeline.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            The exposure without the smooth light.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or there are too few pixels between the orders.
        """
        exposure = self.open_exposure(init, change=True)
        frames = read_frames(exposure)
        window = frames.window
        with open_pastasoss(self, exposure) as reference:
            rows = [expected_trace(order, window, frames.pwcpos, reference).row for order in ORDERS]
        free = free_pixels(window.shape, rows, self.distance) & ~window.reference_pixels()
        try:
            median = self._subtract_light(frames, free)
        except ValueError as err:
            raise SkyflatError(f"{frames.name}: {err}") from err
        log.info("%s: subtracted %.3g DN/s between the orders (median)", frames.name, median)
        return exposure

    def _subtract_light(self, frames, free):
        """Subtract the light from all integrations in place; return its median."""
        fit = partial(fit_light, free=free, degree=self.degree, smoothing=self.smoothing)
        common = None if self.each_integration else fit(frames.mean)
        reference, medians = frames.window.reference_pixels(), []
        for number, integration in enumerate(frames.data):
            light = fit(frames.image(number)) if common is None else common
            integration -= np.where(reference, 0, light)
            medians.append(np.median(light))
        return np.median(medians)
