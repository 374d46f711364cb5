"""The step that finds the traces of an exposure."""

import logging
from typing import ClassVar

import numpy as np
from astropy.table import Table, vstack
from jwst.datamodels import ModelContainer

from soss_background.datamodels.traces import SossTracesModel
from soss_background.errors import SkyflatError
from soss_background.extract.frames import read_frames
from soss_background.extract.trace_fit import fit_deviation, measure_slices
from soss_background.io.segments import average_segments
from soss_background.sky.traces import ORDERS, Trace, expected_trace
from soss_background.steps.base import SkyflatMixin, SkyflatStep
from soss_background.steps.crds_access import open_pastasoss

__all__ = ["TraceFitStep"]

log = logging.getLogger(__name__)

# Distances within which a fainter and a brighter order shift a centroid, pixels.
_NEAR, _BRIGHT_NEAR = 30, 45


class TraceFitStep(SkyflatStep):
    """Find the traces of a SOSS exposure."""

    class_alias = "trace_fit"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise", "interorder")

    spec = """
    n_slices = integer(default=100, min=1)  # Number of slices of each order along the dispersion
    slice_length = integer(default=15, min=1)  # Number of columns of a slice [pixels]
    slice_width = integer(default=60, min=40)  # Number of rows of a slice [pixels]
    n_mad = float(default=8.0, min=0.0)  # Number of median absolute deviations by which a trace must exceed the background of its slice
    degree = integer(default=5, min=0)  # Degree of the polynomial through the deviations from the expected trace
    n_sigma = float(default=4.0, min=0.0)  # Deviation from the polynomial above which slices are clipped [sigma]
    iterations = integer(default=5, min=0)  # Number of clipping iterations
    bad_pixels = string(default=None)  # Pixels to ignore: a FITS image, nonzero where bad, or a table (FITS, CSV, ECSV, text) of x and y, counted from 0
    suffix = string(default='sosstraces')  # Default suffix for output files
    """  # noqa: E501

    named_files: ClassVar = ("bad_pixels",)

    reference_file_types: ClassVar = ["pastasoss"]

    # The step gets the reference file when it needs it; a table replaces a missing file.
    prefetch_references = False

    def process(self, *inputs):
        """
        Find the traces of orders 1 and 2, and of order 3 where it is bright enough.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            Exposures without their sky, ``_rate``, ``_rateints`` or ``_calints``, and segments of
            time series in any order; unchanged. A pipeline gives the mean of all integrations of
            an exposure, an `~stdatamodels.jwst.datamodels.ImageModel`.

        Returns
        -------
        `~soss_background.SossTracesModel`
            The traces; for an order that is too faint, the expected trace. A
            `~jwst.datamodels.ModelContainer` of these for several exposures.

        Raises
        ------
        SkyflatError
            If a file cannot be read, no pixel is usable, or no order falls on its pixels.
        """
        if isinstance(self.parent, SkyflatMixin):
            return self.fit(*inputs)
        exposures = self.open_segments(*inputs)
        for segments in exposures:
            self.check_outputs(segments.name)
        results = [self.fit(average_segments(segments)[0]) for segments in exposures]
        return results[0] if len(results) == 1 else ModelContainer(results)

    def fit(self, exposure):
        """Return the `~soss_background.SossTracesModel` of the mean of all integrations."""
        frames = read_frames(exposure)
        name, window, pwcpos = frames.name, frames.window, frames.pwcpos
        mean = frames.image(0)
        if self.bad_pixels:
            mean[self.read_bad_pixels(window)] = np.nan
        model = SossTracesModel()
        model.update(exposure)
        with open_pastasoss(self, exposure) as reference:
            everywhere = {
                order: expected_trace(order, window, pwcpos, reference) for order in ORDERS
            }
        expected = {order: _cut_trace(trace, window) for order, trace in everywhere.items()}
        expected = {key: trace for key, trace in expected.items() if np.isfinite(trace.row).any()}
        if not expected:
            raise SkyflatError(f"{name}: no order falls on its pixels")
        traces, slices = [], []
        for order, trace in expected.items():
            mine, deviation = self._fit(mean, trace.row, _find_crowded(order, everywhere))
            _report(name, order, mine)
            traces.append(_tabulate(order, trace, deviation))
            mine["order"] = order
            slices.append(mine)
        model.traces = _as_array(vstack(traces), model.get_dtype("traces"))
        model.slices = _as_array(vstack(slices), model.get_dtype("slices"))
        return model

    def _fit(self, image, row, crowded):
        """Measure and fit an order; return its slices and its deviation from the expected trace."""
        slices = measure_slices(
            image,
            row,
            crowded,
            number=self.n_slices,
            length=self.slice_length,
            width=self.slice_width,
            n_mad=self.n_mad,
        )
        settings = {key: getattr(self, key) for key in ("degree", "n_sigma", "iterations")}
        fit = fit_deviation(slices, **settings)
        if fit is None:
            return slices, np.zeros(len(row))
        # A polynomial is constrained only by the slices that it was fitted to.
        ends = slices["column"][slices["used"]]
        return slices, fit(np.clip(np.arange(len(row)), ends.min(), ends.max()))


def _cut_trace(trace, window):
    """Return the trace inside a window, NaN outside."""
    inside = (trace.row >= 0) & (trace.row <= window.ny - 1)
    return Trace(*(np.where(inside, values, np.nan) for values in trace))


def _find_crowded(order, traces):
    """Find the columns in which another order is too near; brighter orders affect a wider range."""
    crowded = np.zeros(len(traces[order].row), dtype=bool)
    for other, trace in traces.items():
        reach = _NEAR if other > order else _BRIGHT_NEAR
        if other != order:
            crowded |= np.abs(trace.row - traces[order].row) < reach
    return crowded


def _report(name, order, slices):
    """Log how well a trace was found."""
    used = slices["used"]
    if not used.any():
        log.warning(
            "%s: order %d: %d of %d slices show it alone, too few: the expected trace is used",
            name, order, np.count_nonzero(slices["detected"]), len(slices),
        )  # fmt: skip
        return
    log.info(
        "%s: order %d: %d slices, %d detected, %d clipped, residuals %.3f pixels rms",
        name, order, len(slices), np.count_nonzero(slices["detected"]),
        np.count_nonzero(slices["detected"] & ~used), np.std(slices["residual"][used]),
    )  # fmt: skip


def _tabulate(order, trace, deviation):
    """Return a table of the columns of a trace."""
    columns = np.flatnonzero(np.isfinite(trace.row) & np.isfinite(trace.wavelength))
    names = ("column", "row", "expected", "wavelength")
    planes = (trace.row + deviation, trace.row, trace.wavelength)
    table = Table([columns, *(plane[columns] for plane in planes)], names=names)
    table["order"] = order
    return table


def _as_array(table, dtype):
    """Convert a table to the columns of a data model."""
    array = np.zeros(len(table), dtype=dtype)
    for column in dtype.names:
        array[column] = table[column]
    return array
