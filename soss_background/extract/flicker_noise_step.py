"""The step that subtracts the 1/f noise of single integrations."""

import logging
from functools import partial
from typing import ClassVar

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.extract.field_sources import find_sources
from soss_background.extract.flicker_noise import Scene, find_stripes, measure_columns
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order import free_pixels
from soss_background.io.exposures import find_pwcpos, find_window
from soss_background.io.library import as_image
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

    def process(self, init, stripes=None):
        """
        Subtract the 1/f noise of each integration that differs from that of their mean.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The time series without its sky, before it is flat-fielded; a model is left unchanged
            unless the step is part of a pipeline.
        stripes : dict, optional
            The noise of the exposure of which this is a segment, see `fit`; by default it is
            measured.

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
        if stripes is None:
            stripes = self.fit(as_image(exposure), lambda measure: [measure(exposure)])
        status = "SKIPPED"
        if stripes:
            _subtract(exposure, stripes[exposure.meta.filename])
            status = "COMPLETE"
        exposure.meta.cal_step.clean_flicker_noise = status
        return exposure

    def fit(self, mean, visit):
        """
        Measure the 1/f noise of an exposure, which may have several segments.

        Parameters
        ----------
        mean : `~stdatamodels.jwst.datamodels.ImageModel`
            Mean of all integrations, without sky.
        visit : callable
            Calls a function with each segment, and returns the list of results.

        Returns
        -------
        stripes : dict
            By the file name of each segment, the
            `~soss_background.extract.flicker_noise.Stripes` of each amplifier. Empty if the noise
            cannot be measured in a pipeline.
        """
        try:
            scene = self._describe(mean)
            measured = visit(partial(_measure, scene))
            _check_number(sum(number for _, number, _ in measured))
        except ValueError as err:
            fault = f"{mean.meta.filename}: 1/f noise not subtracted, {err}"
            if self.parent is None:
                raise SkyflatError(fault) from err
            log.warning("%s", fault)
            return {}
        names, _, columns = zip(*measured, strict=True)
        amplifiers = find_window(mean).amplifiers()
        found = [
            find_stripes(parts, rows.stop - rows.start)
            for parts, rows in zip(zip(*columns, strict=True), amplifiers, strict=True)
        ]
        rms = max(_rms(segments) for segments in found)
        log.info("%s: 1/f noise of %.3g DN/s rms", mean.meta.filename, rms)
        return dict(zip(names, zip(*found, strict=True), strict=True))

    def _describe(self, mean):
        """Return what the integrations share; raise ValueError if no pixel is free."""
        window, pwcpos = find_window(mean), find_pwcpos(mean)
        with open_pastasoss(self, mean) as reference:
            rows = [expected_trace(order, window, pwcpos, reference).row for order in ORDERS]
        outside = free_pixels(window.shape, rows, self.half_width)
        free = outside & ~window.reference_pixels()
        image = np.where(usable_pixels(mean.data, mean.err, mean.dq), mean.data, np.nan)
        settings = {"half_width": self.half_width, "free": free, "amplifiers": window.amplifiers()}
        free &= ~find_sources(image, mean.err, rows, **settings)
        return Scene(image, mean.err**2, ~outside, free)


def _check_number(number):
    """Raise ValueError unless there are several integrations."""
    if number < 2:
        raise ValueError("one integration, which cannot be compared with others")


def _measure(scene, exposure):
    """Return the name, the number of integrations, and the columns of each amplifier."""
    frames = read_frames(exposure)
    number, columns = len(frames.data), []
    for rows in frames.window.amplifiers():
        part = Scene(*(plane[rows] for plane in scene))
        columns.append(measure_columns(partial(_take, frames, rows), number, part))
    return frames.name, number, columns


def _take(frames, rows, number):
    """Return some rows of the usable pixels of an integration."""
    return frames.image(number)[rows]


def _subtract(exposure, stripes):
    """Subtract the stripes of each amplifier in place."""
    frames = read_frames(exposure)
    reference = frames.window.reference_pixels()
    for rows, each in zip(frames.window.amplifiers(), stripes, strict=True):
        for number, integration in enumerate(frames.data):
            integration[rows] -= np.where(reference[rows], 0, each.image(number))


def _rms(segments):
    """Return the rms of the stripes of an amplifier in all segments, DN/s."""
    return np.sqrt(
        np.mean(np.concatenate([each.level**2 + each.slope**2 / 3 for each in segments]))
    )
