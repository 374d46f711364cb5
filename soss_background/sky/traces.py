"""Expected SOSS traces of a target.

Orders 1 and 2 come from a PASTASOSS reference file if available, else from a table created from the
same public data (``benchmarks/trace_table.py``).
"""

import functools
import json
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian
from numpy.polynomial import polynomial
from scipy.interpolate import CubicSpline

from soss_background.detector import FULL, PWCPOS, SOSS_BANDS, SUBSTRIP256

__all__ = [
    "BRIGHT_TRACE",
    "ORDERS",
    "Trace",
    "expected_trace",
    "trace_distance",
    "trace_excess",
]

# Excess above which an exposure shows a target, see `trace_excess`. In simulated blank sky it is
# below 0.015, even in crowded fields; a faint target (``target_flux`` = 5 in the simulator) has
# 0.5. Half and twice the value also separate them.
BRIGHT_TRACE = 0.1

# Distances (pixels) of pixels at a trace and next to it, and fewest columns with both.
_AT_TRACE, _BESIDE, _FEWEST_COLUMNS = 12, (30, 60), 16

# Orders that fall on SUBSTRIP256.
ORDERS = (1, 2, 3)

# Highest row of a trace on SUBSTRIP256, as in PASTASOSS.
_HIGHEST_ROW = 255

# PASTASOSS has no third order. Columns and SUBSTRIP256 rows of its centre in a real frame of a hot
# star (program 1512), the position of the pupil wheel there (degrees), the centre of rotation of
# the traces, and the column where the trace ends.
_ORDER3_COLUMNS = np.arange(20.0, 861.0, 120.0)
_ORDER3_ROWS = np.array([145.0, 146.5, 149.5, 154.0, 160.5, 169.0, 181.5, 197.5])
_ORDER3_PWCPOS, _ORDER3_ORIGIN = 245.7787, (1887.0, 54.0)
_ORDER3_END = 880
# Its wavelengths, micron, at the nominal position of the pupil wheel, every 120 columns: those
# of the SPECTRACE reference file 0023, whose columns count from 1. The Paschen lines of the real
# frame are then within 0.0004 micron, and their median error is 0.0001 instead of 0.0004 micron.
_ORDER3_NODES = np.arange(0.0, 961.0, 120.0)
_ORDER3_WAVELENGTHS = np.array(
    [0.9569, 0.91717, 0.87872, 0.84156, 0.80567, 0.77107, 0.73776, 0.70565, 0.67382]
)


class Trace(NamedTuple):
    """
    The trace of an order.

    Attributes
    ----------
    row : ndarray of float, shape (nx,)
        Row of the centre in every column of a window, in pixels of the window; it may lie outside.
        NaN beyond the trace.
    wavelength : ndarray of float, shape (nx,)
        Wavelength in every column, micron; NaN beyond the trace.
    """

    row: np.ndarray
    wavelength: np.ndarray


def expected_trace(order, window, pwcpos, reference=None):
    """
    Predict the trace of a target from the position of the pupil wheel.

    Parameters
    ----------
    order : {1, 2, 3}
        Spectral order. The rows of order 3 are those of a real frame, rotated with the pupil
        wheel; its wavelengths are those of a SPECTRACE reference file, which change with the wheel
        by a third of the change of order 1.
    window : `~soss_background.detector.Window`
        The pixels.
    pwcpos : float
        Position of the pupil wheel, degrees.
    reference : `~stdatamodels.jwst.datamodels.PastasossModel`, optional
        Reference file of the traces; by default the table of this package, whose wavelengths are
        constant outside the calibrated range of pupil wheel positions.

    Returns
    -------
    trace : Trace
        Rows and wavelengths in every column of the window.
    """
    columns = window.x0 + np.arange(window.nx, dtype=float)
    predict = _predict_from_table if reference is None else functools.partial(_predict, reference)
    known, rows, wavelengths = predict(2 if order == 2 else 1, pwcpos)
    wavelength = np.interp(columns, known, wavelengths, left=np.nan, right=np.nan)
    if order == 3:
        known, _, wavelengths = predict(1, PWCPOS)
        change = (wavelength - np.interp(columns, known, wavelengths)) / 3
        nominal = CubicSpline(_ORDER3_NODES, _ORDER3_WAVELENGTHS)(columns)
        wavelength = np.where(columns < _ORDER3_END, nominal + change, np.nan)
        row = np.where(columns < _ORDER3_END, _third_order(columns, pwcpos), np.nan)
    else:
        row = np.interp(columns, known, rows, left=np.nan, right=np.nan)
    return Trace(row + SUBSTRIP256.y0 - window.y0, wavelength)


def _predict(reference, order, pwcpos):
    """Return columns, SUBSTRIP256 rows and wavelengths of an order from a reference file."""
    # jwst is slow to import, so it is imported only when needed.
    from jwst.extract_1d.soss_extract.pastasoss import get_soss_traces

    low, high = reference.meta.pwcpos_bounds
    _, columns, rows, wavelengths = get_soss_traces(
        min(max(pwcpos, low), high), order, refmodel=reference
    )
    return columns, rows, wavelengths


def _predict_from_table(order, pwcpos):
    """Return columns, SUBSTRIP256 rows and wavelengths of an order from the table."""
    table = _read_table()[str(order)]
    nodes, offset = np.array(table["columns"]), pwcpos - PWCPOS
    columns = np.arange(nodes[0], nodes[-1] + 1)
    rows = CubicSpline(nodes, table["rows"])(columns)
    rows = _resample(columns, *_rotate(columns, rows, offset, table["origin"]))
    inside = rows <= _HIGHEST_ROW
    columns = columns[inside]
    held = np.clip(offset, *table["offsets"])
    along = polynomial.polyval(held, np.transpose(table["wavelength"]))
    wavelengths = polynomial.polyval(columns / FULL.nx, along)
    return columns, rows[inside], wavelengths


@functools.cache
def _read_table():
    """Read the table of traces."""
    return json.loads((files("soss_background.sky") / "soss_traces.json").read_text())


def _third_order(columns, pwcpos):
    """Return SUBSTRIP256 rows of order 3 from a cubic through those of a real frame."""
    turn = pwcpos - _ORDER3_PWCPOS
    known = _rotate(_ORDER3_COLUMNS, _ORDER3_ROWS, turn, _ORDER3_ORIGIN)
    return np.polynomial.Polynomial.fit(*known, 3)(columns)


def _rotate(columns, rows, angle, origin):
    """Rotate points by an angle in degrees about an origin (column, row)."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x, y = columns - origin[0], rows - origin[1]
    return cosine * x - sine * y + origin[0], sine * x + cosine * y + origin[1]


def _resample(columns, known, values):
    """Interpolate linearly, and extrapolate the outermost segments."""
    resampled = np.interp(columns, known, values)
    for end, beyond in (([0, 1], columns < known[0]), ([-2, -1], columns > known[-1])):
        (x0, x1), (y0, y1) = known[end], values[end]
        resampled[beyond] = y0 + (columns[beyond] - x0) * (y1 - y0) / (x1 - x0)
    return resampled


def trace_distance(window, pwcpos, reference=None, filter_name="CLEAR"):
    """Return the distance along columns from order 1 or 2 in pixels; infinite without a trace."""
    rows, (shortest, longest) = np.arange(window.ny)[:, np.newaxis], SOSS_BANDS[filter_name]
    distance = np.full(window.shape, np.inf)
    for order in (1, 2):
        trace = expected_trace(order, window, pwcpos, reference)
        seen = (trace.wavelength > shortest) & (trace.wavelength < longest)
        distance = np.fmin(distance, np.abs(rows - np.where(seen, trace.row, np.nan)))
    return distance


def trace_excess(sky, distance):
    """
    Compare a sky at the traces of a target with the sky next to them, in the same columns.

    Parameters
    ----------
    sky : ndarray of float, shape (ny, nx)
        Count rates of pixels or cells; NaN is unknown.
    distance : ndarray of float, shape (ny, nx)
        Distance from the traces in pixels, see `trace_distance`.

    Returns
    -------
    excess : float
        Ratio of the flux at the traces to that next to them, minus 1; NaN if too few columns have
        both.
    """
    near = (distance <= _BESIDE[1]).any(axis=1)
    sky, distance = sky[near], distance[near]
    at, beside = distance <= _AT_TRACE, (distance >= _BESIDE[0]) & (distance <= _BESIDE[1])
    known = np.isfinite(sky)
    columns = (at & known).any(axis=0) & (beside & known).any(axis=0)
    if np.count_nonzero(columns) < _FEWEST_COLUMNS:
        return np.nan
    flux, level = (
        nanmedian(np.where(place, sky, np.nan)[:, columns], axis=0) for place in (at, beside)
    )
    level = np.median(level)
    return float(np.median(flux) / level - 1) if level > 0 else np.nan
