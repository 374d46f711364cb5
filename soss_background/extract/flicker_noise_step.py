"""The step that subtracts the 1/f noise of single integrations."""

import logging
from typing import ClassVar

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.extract.field_sources import find_sources
from soss_background.extract.flicker_noise import Scene, fit_stripes
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order import free_pixels
from soss_background.numerics.integrations import usable_pixels
from soss_background.sky.traces import ORDERS, expected_trace
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import open_pastasoss

__all__ = ["FlickerNoiseStep"]

log = logging.getLogger(__name__)


class FlickerNoiseStep(SkyflatStep):
    """Subtract the 1/f noise of the integrations of a time series."""

    class_alias = "flicker_noise"

    input_suffixes: ClassVar = ("skyflatsubtract",)

    spec = """
    half_width = float(default=16.0, min=10.0, max=60.0)  # Pixels nearer to the trace of an order belong to it [pixels]
    suffix = string(default='flickernoise')  # Default suffix for output files
    """  # noqa: E501

    reference_file_types: ClassVar = ["pastasoss"]

    # The reference file is found when it is needed: there is a table instead.
    prefetch_references = False

    def process(self, init, mean=None):
        """
        Subtract the 1/f noise of each integration that differs from that of their mean.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The time series without its sky, before it is flat-fielded; a model is left unchanged
            unless the step is part of a pipeline.
        mean : ndarray of float, shape (ny, nx), optional
            Mean of all integrations of the exposure of which this is a segment, DN/s, without sky;
            NaN where it is unknown. By default that of the integrations given.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            The time series without the noise. In a pipeline, the time series as it was, with a
            status of SKIPPED, if the noise cannot be measured.

        Raises
        ------
        SkyflatError
            If a file cannot be read. If the step runs alone, also if there is a single integration,
            or too few pixels are between the orders.
        """
        exposure = self.open_exposure(init, change=True)
        frames = read_frames(exposure)
        if mean is None and len(frames.data) < 2:
            return self._skip(exposure, "one integration, which cannot be compared with others")
        try:
            scene = self._describe(exposure, frames, frames.average() if mean is None else mean)
        except ValueError as err:
            return self._skip(exposure, err)
        rms = [_clean(frames, scene, rows) for rows in frames.window.amplifiers()]
        exposure.meta.cal_step.clean_flicker_noise = "COMPLETE"
        log.info("%s: subtracted 1/f noise of %.3g DN/s rms", frames.name, max(rms))
        return exposure

    def _skip(self, exposure, reason):
        """Return the exposure as it is; raise SkyflatError if the step runs alone."""
        fault = f"{exposure.meta.filename}: 1/f noise not subtracted, {reason}"
        if self.parent is None:
            raise SkyflatError(fault)
        log.warning("%s", fault)
        exposure.meta.cal_step.clean_flicker_noise = "SKIPPED"
        return exposure

    def _describe(self, exposure, frames, mean):
        """Return what the integrations share; raise ValueError if no pixel is free."""
        window, (variance, count) = frames.window, _average_variance(frames)
        with open_pastasoss(self, exposure) as reference:
            rows = [expected_trace(order, window, frames.pwcpos, reference).row for order in ORDERS]
        outside = free_pixels(window.shape, rows, self.half_width)
        free = outside & ~window.reference_pixels()
        error = np.sqrt(variance / np.maximum(count, 1))
        settings = {"half_width": self.half_width, "free": free, "amplifiers": window.amplifiers()}
        free &= ~find_sources(mean, error, rows, **settings)
        return Scene(mean, variance, ~outside, free)


def _average_variance(frames):
    """Return the mean variance of one integration, (DN/s)^2, and the number of usable pixels."""
    shape = frames.window.shape
    total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=int)
    for planes in zip(frames.data, frames.err, frames.dq, strict=True):
        usable = usable_pixels(*planes)
        total[usable] += planes[1][usable] ** 2
        count += usable
    return total / np.where(count > 0, count, np.nan), count


def _clean(frames, scene, rows):
    """Subtract the stripes of an amplifier in place; return their rms, DN/s."""
    stripes = fit_stripes(
        lambda number: frames.image(number)[rows],
        len(frames.data),
        Scene(*(plane[rows] for plane in scene)),
    )
    reference = frames.window.reference_pixels()[rows]
    for number, integration in enumerate(frames.data):
        integration[rows] -= np.where(reference, 0, stripes.image(number))
    return np.sqrt(np.mean(stripes.level**2 + stripes.slope**2 / 3))
