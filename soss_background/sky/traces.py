"""Where the traces of a SOSS target are expected."""

from typing import NamedTuple

import numpy as np
import pastasoss
from pastasoss.soss_traces import rotate

from soss_background.detector import SUBSTRIP256

__all__ = ["ORDERS", "Trace", "expected_trace", "third_order", "trace_distance"]

# Orders that SUBSTRIP256 holds.
ORDERS = (1, 2, 3)

# pastasoss knows no third order: columns and SUBSTRIP256 rows of its centre in a real frame of a
# hot star (program 1512), the position of the pupil wheel there (degrees), and the point about
# which traces turn.
_ORDER3_COLUMNS = np.arange(20.0, 861.0, 120.0)
_ORDER3_ROWS = np.array([145.0, 146.5, 149.5, 154.0, 160.5, 169.0, 181.5, 197.5])
_ORDER3_PWCPOS, _TURNING_POINT = 245.7787, (1887.0, 54.0)
_ORDER3_END = 880


class Trace(NamedTuple):
    """
    The trace of an order.

    Attributes
    ----------
    row : ndarray of float, shape (nx,)
        Row of the centre in every column of a window, pixels of the window, which it may leave; NaN
        beyond the trace.
    wavelength : ndarray of float, shape (nx,)
        Wavelength there, micron; NaN beyond the trace.
    """

    row: np.ndarray
    wavelength: np.ndarray


def expected_trace(order, window, pwcpos):
    """
    Tell where pastasoss expects the trace of a target.

    Parameters
    ----------
    order : {1, 2, 3}
        Spectral order. Of the third, pastasoss does not know: its rows are those of a real frame,
        turned with the pupil wheel, and its wavelengths a third of those of order 1 times 1.
    window : `~soss_background.detector.Window`
        The pixels.
    pwcpos : float
        Position of the pupil wheel, degrees.

    Returns
    -------
    trace : `Trace`
        Rows and wavelengths in every column of the window.
    """
    columns = window.x0 + np.arange(window.nx, dtype=float)
    known = pastasoss.get_soss_traces(pwcpos, "2" if order == 2 else "1", interp=True)
    ends = {"left": np.nan, "right": np.nan}
    wavelength = np.interp(columns, known.x, known.wavelength, **ends)
    if order == 3:
        # At any column, the product of order and wavelength is the same.
        wavelength = np.where(columns < _ORDER3_END, wavelength / 3, np.nan)
        row = np.where(columns < _ORDER3_END, third_order(columns, pwcpos), np.nan)
    else:
        row = np.interp(columns, known.x, known.y, **ends)
    return Trace(row + SUBSTRIP256.y0 - window.y0, wavelength)


def third_order(columns, pwcpos):
    """
    Tell where the third order is.

    Parameters
    ----------
    columns : ndarray of float
        Full-frame columns.
    pwcpos : float
        Position of the pupil wheel, degrees.

    Returns
    -------
    rows : ndarray of float
        SUBSTRIP256 rows of the centre, from a cubic through those of a real frame.
    """
    turn = pwcpos - _ORDER3_PWCPOS
    known = rotate(_ORDER3_COLUMNS, _ORDER3_ROWS, turn, _TURNING_POINT, interp=False)
    return np.polynomial.Polynomial.fit(*known, 3)(columns)


def trace_distance(window, pwcpos):
    """
    Measure how far pixels are from the target's first two orders.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        The pixels.
    pwcpos : float
        Position of the pupil wheel, degrees.

    Returns
    -------
    distance : ndarray of float, shape (ny, nx)
        Distance along the column from the nearest trace that pastasoss knows, pixels; infinite
        where a column has none.
    """
    rows = np.arange(window.ny)[:, np.newaxis]
    distance = np.full(window.shape, np.inf)
    for order in (1, 2):
        distance = np.fmin(distance, np.abs(rows - expected_trace(order, window, pwcpos).row))
    return distance
