"""Where the traces of a SOSS target are."""

import numpy as np
import pastasoss

from soss_background.detector import SUBSTRIP256

__all__ = ["trace_distance"]


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
    rows = window.y0 + np.arange(window.ny)[:, np.newaxis]
    columns = window.x0 + np.arange(window.nx)
    distance = np.full(window.shape, np.inf)
    for order in ("1", "2"):
        trace = pastasoss.get_soss_traces(pwcpos, order, interp=True)
        centre = SUBSTRIP256.y0 + np.interp(columns, trace.x, trace.y, left=np.inf, right=np.inf)
        distance = np.minimum(distance, np.abs(rows - centre))
    return distance
