"""Flux of the other orders in the aperture of an order."""

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.trace_fit import straighten

__all__ = ["estimate_contamination", "measure_wings"]

# Largest distance from a trace at which its wings are measured, largest distance of extrapolated
# wings, and smallest distance at which the power law is fitted, pixels.
_REACH, _FAR, _WING = 60, 200, 30
# Bins of rows to which the power law is fitted, limits of its exponent, and its default.
_BINS, _SLOPES, _SLOPE = 6, (-4.0, -1.5), -2.5


def measure_wings(image, row, others, flux):
    """
    Measure the wings of a trace in the cross-dispersion direction, also beyond the aperture.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates of the target, DN/s; NaN where there is no measurement.
    row : ndarray of float, shape (nx,)
        Row of the brightest trace in each column; NaN beyond it.
    others : sequence of ndarray, shape (nx,)
        Rows of the other orders.
    flux : ndarray of float, shape (nx,)
        Flux in the aperture, DN/s; NaN where it is unknown.

    Returns
    -------
    wings : ndarray of float, shape (401,) or None
        Flux of a pixel -200 to 200 pixels from the trace, as a fraction of that in the aperture:
        median of the columns with all other orders at least 120 pixels away, and a power law
        beyond 60 pixels. None if there is no such column.
    """
    free = np.isfinite(row) & (flux > 0)
    for other in others:
        free &= ~(np.abs(other - row) < 2 * _REACH)
    if not free.any():
        return None
    samples = straighten(image, np.where(free, row, np.nan), _REACH)[:, free] / flux[free]
    wings = nanmedian(samples, axis=1)
    # Rows beyond the detector are copied from the other side.
    wings = np.where(np.isfinite(wings), wings, wings[::-1])
    outer = _extend(np.nan_to_num(wings))
    return np.concatenate([outer[::-1], np.clip(np.nan_to_num(wings), 0, None), outer])


def _extend(wings):
    """Extrapolate wings by a power law, the same on both sides."""
    distance = np.arange(_WING + 1, _REACH + 1)
    level = (wings[_REACH + distance] + wings[_REACH - distance]) / 2
    # Means of several rows are less often negative by noise.
    distance, level = (each.reshape(_BINS, -1).mean(axis=1) for each in (distance, level))
    seen, slope = level > 0, _SLOPE
    if level.mean() <= 0:
        return np.zeros(_FAR - _REACH)
    if np.count_nonzero(seen) > _BINS // 2:
        slope = np.polyfit(np.log(distance[seen]), np.log(level[seen]), 1)[0]
    # A slower decline would be that of a background.
    power = np.clip(slope, *_SLOPES)
    far = np.arange(_REACH + 1, _FAR + 1)
    return level.mean() * far**power / np.mean(distance**power)


def estimate_contamination(rows, extractions, wings):
    """
    Estimate the fraction of the flux of each order that belongs to the other orders.

    The flux in an aperture is that of the order plus that of the wings of the others, which gives
    one linear equation per order in each column.

    Parameters
    ----------
    rows : dict of ndarray, shape (nx,)
        Row of the trace of each order in each column; NaN beyond it.
    extractions : dict
        The `~soss_background.extract.optimal.Extraction` of each order.
    wings : ndarray, shape (401,)
        See `measure_wings`; assumed to be the same for all orders.

    Returns
    -------
    contamination : dict of ndarray, shape (n,)
        Fraction of the median flux, in the columns of each aperture; NaN where the flux is unknown
        or not positive, or an order of unknown flux has wings in the aperture.
    """
    keys = list(extractions)
    number = len(rows[keys[0]])
    mixing = np.tile(np.eye(len(keys)), (number, 1, 1))
    flux = np.zeros((number, len(keys)))
    for i, key in enumerate(keys):
        extraction = extractions[key]
        columns = extraction.band.columns
        flux[columns, i] = np.nan_to_num(nanmedian(extraction.flux, axis=0))
        for j, other in enumerate(keys):
            if j != i:
                mixing[columns, i, j] = _leak(extraction, rows[other][columns], wings)
    # The equations omit orders of unknown flux.
    unknown = flux == 0
    missing = np.any(mixing * unknown[:, np.newaxis] > 0, axis=2)
    mixing = np.where(unknown[..., np.newaxis], np.eye(len(keys)), mixing)
    own = np.linalg.solve(mixing, flux[..., np.newaxis])[..., 0]
    contamination = {}
    for i, key in enumerate(keys):
        columns = extractions[key].band.columns
        mine = flux[columns, i]
        share = np.clip(1 - own[columns, i] / np.where(mine > 0, mine, 1), 0, 1)
        contamination[key] = np.where((mine > 0) & ~missing[columns, i], share, np.nan)
    return contamination


def _leak(extraction, row, wings):
    """Return the fraction of the flux of another order in an aperture, in each column."""
    distance = extraction.band.rows - np.nan_to_num(row, nan=np.inf)[:, np.newaxis]
    place = np.arange(-_FAR, _FAR + 1)
    seen = np.interp(distance.ravel(), place, wings, left=0, right=0).reshape(distance.shape)
    return np.sum(extraction.response * seen, axis=1)
