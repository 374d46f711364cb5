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
from soss_background.io.segments import SegmentLibrary, average_segments
from soss_background.numerics.integrations import usable_pixels
from soss_background.steps.base import SkyflatStep
from soss_background.steps.crds_access import expected_rows

__all__ = ["FlickerNoiseStep"]

log = logging.getLogger(__name__)


class FlickerNoiseStep(SkyflatStep):
    """Subtract the 1/f noise of the integrations of a time series."""

    class_alias = "flicker_noise"

    input_suffixes: ClassVar = ("skyflatsubtract",)

    spec = """
    half_width = float(default=16.0, min=10.0, max=60.0)  # Distance from a trace within which pixels belong to the target [pixels]
    suffix = string(default='flickernoise')  # Default suffix for output files
    """  # noqa: E501

    reference_file_types: ClassVar = ["pastasoss"]

    # The step gets the reference file when it needs it; a table replaces a missing file.
    prefetch_references = False

    def process(self, *inputs):
        """
        Subtract the 1/f noise of each integration that differs from that of their mean.

        The segments of an exposure are compared with the mean of all their integrations.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            Time series without their sky, before they are flat-fielded, and segments of them in
            any order; models are left unchanged unless the step is part of a pipeline. A pipeline
            may give the `~soss_background.io.segments.SegmentLibrary` of an exposure instead, and
            the mean of all its integrations, an
            `~stdatamodels.jwst.datamodels.ImageModel`.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.CubeModel` or `~stdatamodels.jwst.datamodels.ImageModel`
            A single time series without the noise. In a pipeline, the unchanged time series with a
            status of SKIPPED if the noise cannot be measured. Several time series or segments are a
            `~soss_background.io.segments.SegmentLibrary` of these, which reads and changes one at a
            time.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or a segment is given twice. If the step runs alone: also if
            the sky is not subtracted, there is only one integration, or there are too few pixels
            between the orders.
        """
        if isinstance(inputs[0], SegmentLibrary):
            return self._clean(*inputs)
        exposures = self.open_segments(*inputs)
        for segments in exposures:
            self.check_outputs(*segments.names)
        results = [
            self._clean(segments.library(), average_segments(segments)[0]) for segments in exposures
        ]
        return SegmentLibrary.join(results).unpacked()

    def _clean(self, library, mean):
        """Return a library of the segments of an exposure without their noise."""
        try:
            stripes = self._fit(library, mean)
        except SkyflatError:
            raise
        except ValueError as err:
            fault = f"{mean.meta.filename}: 1/f noise not subtracted, {err}"
            if self.parent is None:
                raise SkyflatError(fault) from err
            log.warning("%s", fault)
            return library.then(_mark_skipped)
        loaders = [
            partial(_load_clean, load, each)
            for load, each in zip(library.loaders, stripes, strict=True)
        ]
        return SegmentLibrary(library.names, loaders)

    def _fit(self, library, mean):
        """
        Measure the 1/f noise of an exposure.

        Parameters
        ----------
        library : `~soss_background.io.segments.SegmentLibrary`
            Its segments.
        mean : `~stdatamodels.jwst.datamodels.ImageModel`
            Mean of all integrations.

        Returns
        -------
        stripes : list of tuple
            For each segment, the `~soss_background.extract.flicker_noise.Stripes` of each
            amplifier.

        Raises
        ------
        ValueError
            If the noise cannot be measured.
        """
        _check_status(mean)
        measured = library.visit(partial(_measure, self._describe(mean)), "1/f noise")
        numbers, columns = zip(*measured, strict=True)
        _check_number(sum(numbers))
        window = find_window(mean)
        found = [
            find_stripes(parts, rows.stop - rows.start, window.column_blocks())
            for parts, rows in zip(zip(*columns, strict=True), window.amplifiers(), strict=True)
        ]
        rms = max(_rms(segments) for segments in found)
        log.info("%s: 1/f noise of %.3g DN/s rms", mean.meta.filename, rms)
        return list(zip(*found, strict=True))

    def _describe(self, mean):
        """Return the common planes of the integrations; raise ValueError if no pixel is free."""
        window, pwcpos = find_window(mean), find_pwcpos(mean)
        rows = expected_rows(self, mean, window, pwcpos)
        outside = free_pixels(window.shape, rows, self.half_width)
        free = outside & ~window.reference_pixels()
        image = np.where(usable_pixels(mean.data, mean.err, mean.dq), mean.data, np.nan)
        settings = {"half_width": self.half_width, "free": free, "amplifiers": window.amplifiers()}
        free &= ~find_sources(image, mean.err, rows, **settings)
        return Scene(image, mean.err**2, ~outside, free)


def _check_status(mean):
    """Raise ValueError unless the sky is subtracted; warn if the exposure is flat-fielded."""
    done = mean.meta.cal_step
    # The change of the flux scales the mean; a sky in the mean would follow a transit.
    if done.bkg_subtract != "COMPLETE":
        raise ValueError("its sky is not subtracted (S_BKDSUB is not COMPLETE)")
    if done.flat_field == "COMPLETE":
        log.warning(
            "%s: flat-fielded (S_FLAT is COMPLETE), so its 1/f noise is divided by the flat",
            mean.meta.filename,
        )


def _check_number(number):
    """Raise ValueError unless there are several integrations."""
    if number < 2:
        raise ValueError("one integration, which cannot be compared with others")


def _measure(scene, exposure):
    """Return the number of integrations, and the columns of each amplifier."""
    frames = read_frames(exposure)
    number, columns = len(frames.data), []
    for rows in frames.window.amplifiers():
        part = Scene(*(plane[rows] for plane in scene))
        columns.append(measure_columns(partial(_take, frames, rows), number, part))
    return number, columns


def _take(frames, rows, number):
    """Return some rows of the usable pixels of an integration."""
    return frames.image(number)[rows]


def _mark_skipped(exposure):
    """Record that no noise was subtracted from a segment; return it."""
    exposure.meta.cal_step.clean_flicker_noise = "SKIPPED"
    return exposure


def _load_clean(load, stripes):
    """Load a segment and subtract the stripes of each amplifier; return it."""
    exposure = load()
    frames = read_frames(exposure)
    reference = frames.window.reference_pixels()
    for rows, each in zip(frames.window.amplifiers(), stripes, strict=True):
        for number, integration in enumerate(frames.data):
            integration[rows] -= np.where(reference[rows], 0, each.image(number))
    exposure.meta.cal_step.clean_flicker_noise = "COMPLETE"
    return exposure


def _rms(segments):
    """Return the rms of the stripes of an amplifier in all segments, DN/s."""
    return np.sqrt(
        np.mean(np.concatenate([each.level**2 + each.slope**2 / 3 for each in segments]))
    )
