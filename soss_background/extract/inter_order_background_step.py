"""The step that subtracts smooth light between the orders."""

import logging
from functools import partial
from typing import ClassVar

import numpy as np
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order import fit_light, free_pixels
from soss_background.extract.units import find_unit
from soss_background.io.exposures import header_of
from soss_background.io.segments import SegmentLibrary, average_segments
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
    distance = float(default=30.0, min=0.0)  # Distance from a trace within which pixels are ignored [pixels]
    smoothing = float(default=0.0, min=0.0)  # Standard deviation of the Gaussian that smooths the fitted surface [pixels; 0: no smoothing]
    each_integration = boolean(default=False)  # Fit every integration instead of their mean
    save_light = boolean(default=False)  # Save the surface fitted to the mean of the integrations
    skip = boolean(default=True)  # Skip this step unless it runs alone
    suffix = string(default='interorder')  # Default suffix for output files
    """  # noqa: E501

    reference_file_types: ClassVar = ["pastasoss"]

    # The step gets the reference file when it needs it; a table replaces a missing file.
    prefetch_references = False

    def process(self, *inputs):
        """
        Fit and subtract smooth light between the orders.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            Exposures without their sky, and segments of time series in any order; models are left
            unchanged. A pipeline may give the `~soss_background.io.segments.SegmentLibrary` of an
            exposure instead, and the mean of all its integrations, an
            `~stdatamodels.jwst.datamodels.ImageModel`.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            A single exposure without the smooth light. Several exposures or segments are a
            `~soss_background.io.segments.SegmentLibrary` of these, whose ``fit`` is the light of
            the mean, shape (ny, nx), for a single exposure.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or there are too few pixels between the orders.
        """
        if isinstance(inputs[0], SegmentLibrary):
            return self._subtract(*inputs)
        exposures = self.open_segments(*inputs)
        self.check_output_file(exposures)
        for segments in exposures:
            self.check_outputs(*segments.names)
        results = [
            self._subtract(segments.library(), average_segments(segments)[0])
            for segments in exposures
        ]
        return SegmentLibrary.join(results).unpacked()

    def _subtract(self, library, mean):
        """Return a library of the segments of an exposure without the light; save the light."""
        frames = read_frames(mean)
        free = self._find_free(mean, frames)
        light = self._fit(frames, frames.image(0), free)
        log.info(
            "%s: %.3g %s between the orders (median)",
            frames.name, np.median(light), find_unit(header_of(mean)),
        )  # fmt: skip
        if self.save_light:
            image = datamodels.ImageModel(data=light)
            image.update(mean)
            self.save_model(image, suffix="interorderlight", force=True)
        return library.then(partial(self._change, light, free), light)

    def _change(self, light, free, exposure):
        """Subtract the light of the mean from a segment, or that of each integration; return it."""
        frames = read_frames(exposure)
        for number, integration in enumerate(frames.data):
            if self.each_integration:
                light = self._fit(frames, frames.image(number), free)
            integration -= light
        return exposure

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
