"""The step that subtracts smooth light between the orders."""

import logging
from typing import ClassVar

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order import fit_light, free_pixels
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import expected_rows

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

    # The step gets the reference file when it needs it; a table replaces a missing file.
    prefetch_references = False

    def process(self, init, light=None):
        """
        Fit and subtract smooth light between the orders.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure without its sky; a model is left unchanged unless the step is part of a
            pipeline.
        light : ndarray of float, shape (ny, nx), optional
            Smooth light of the whole exposure if this is one of its segments, DN/s, see `fit`; by
            default it is fitted to the mean of the integrations. Ignored if ``each_integration`` is
            set.

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
        free, medians = self._find_free(exposure, frames), []
        if light is None and not self.each_integration:
            light = self._fit(frames, frames.average(), free)
        for number, integration in enumerate(frames.data):
            if self.each_integration:
                light = self._fit(frames, frames.image(number), free)
            integration -= light
            medians.append(np.median(light))
        log.info(
            "%s: subtracted %.3g DN/s between the orders (median)", frames.name, np.median(medians)
        )
        return exposure

    def fit(self, exposure):
        """Return the smooth light of the mean of the integrations, shape (ny, nx), DN/s."""
        frames = read_frames(exposure)
        return self._fit(frames, frames.average(), self._find_free(exposure, frames))

    def _find_free(self, exposure, frames):
        """Return True for pixels between the orders."""
        window = frames.window
        rows = expected_rows(self, exposure, window, frames.pwcpos)
        return free_pixels(window.shape, rows, self.distance) & ~window.reference_pixels()

    def _fit(self, frames, image, free):
        """Return the smooth light of an image; 0 in reference pixels."""
        try:
            light = fit_light(image, free=free, degree=self.degree, smoothing=self.smoothing)
        except ValueError as err:
            raise SkyflatError(f"{frames.name}: {err}") from err
        return np.where(frames.window.reference_pixels(), 0, light)
