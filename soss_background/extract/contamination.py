"""How much light of the other orders is in the aperture of an order."""

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.trace_fit import straighten

__all__ = ["estimate_contamination", "measure_wings"]

# Rows on each side of a trace in which its wings are measured, and which must be free of others;
# how far they go, and from where on a power law tells them.
_REACH, _FAR, _WING = 60, 200, 30
# Bins of rows that tell the power, its limits, and what it is if they do not.
_BINS, _SLOPES, _SLOPE = 6, (-4.0, -1.5), -2.5


def measure_wings(image, row, others, flux):
    """
    Measure how the light of a trace falls off across it, beyond the aperture.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        The light of the target, DN/s; NaN where there is no measurement.
    row : ndarray of float, shape (nx,)
        Row of the brightest trace in each column; NaN beyond it.
    others : sequence of ndarray, shape (nx,)
        Rows of the other orders.
    flux : ndarray of float, shape (nx,)
        Light in the aperture, DN/s; NaN where it is not known.

    Returns
    -------
    wings : ndarray of float, shape (401,) or None
        Light at distances of -200 to 200 pixels relative to that of the aperture: the median of
        the columns in which the other orders are more than 120 pixels away, and beyond 60 pixels a
        power law through it. None if there is no such column.
    """
    free = np.isfinite(row) & (flux > 0)
    for other in others:
        free &= ~(np.abs(other - row) < 2 * _REACH)
    if not free.any():
        return None
    samples = straighten(image, np.where(free, row, np.nan), _REACH)[:, free] / flux[free]
    wings = nanmedian(samples, axis=1)
    # What the edge of the detector hides is as on the other side.
    wings = np.where(np.isfinite(wings), wings, wings[::-1])
    outer = _extend(np.nan_to_num(wings))
    return np.concatenate([outer[::-1], np.clip(np.nan_to_num(wings), 0, None), outer])


def _extend(wings):
    """Follow wings further out, alike on both sides."""
    distance = np.arange(_WING + 1, _REACH + 1)
    level = (wings[_REACH + distance] + wings[_REACH - distance]) / 2
    # Means of some rows, which noise does not make negative that easily.
    distance, level = (each.reshape(_BINS, -1).mean(axis=1) for each in (distance, level))
    seen, slope = level > 0, _SLOPE
    if level.mean() <= 0:
        return np.zeros(_FAR - _REACH)
    if np.count_nonzero(seen) > _BINS // 2:
        slope = np.polyfit(np.log(distance[seen]), np.log(level[seen]), 1)[0]
    # Light that falls off more slowly would be a background.
    power = np.clip(slope, *_SLOPES)
    far = np.arange(_REACH + 1, _FAR + 1)
    return level.mean() * far**power / np.mean(distance**power)


def estimate_contamination(rows, extractions, wings):
    """
    Estimate the part of the light of each order that is of the others.

    In each column, the light in an aperture is that of the order and what the wings of the others
    add to it: as many equations as orders.

    Parameters
    ----------
    rows : dict of ndarray, shape (nx,)
        Row of the trace of each order in each column; NaN beyond it.
    extractions : dict
        For each order its `~soss_background.extract.optimal.Extraction`.
    wings : ndarray, shape (401,)
        See `measure_wings`; all orders are taken to be alike.

    Returns
    -------
    contamination : dict of ndarray, shape (n,)
        Part of the mean flux of each order that is not its own, in the columns of its aperture; NaN
        where its flux, or that of an order whose wings are in the aperture, is not known, or not
        positive.
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
    # What is not known leaks nothing, and takes part in nothing.
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
    """Tell what an aperture counts of another order's light, column by column."""
    distance = extraction.band.rows - np.nan_to_num(row, nan=np.inf)[:, np.newaxis]
    place = np.arange(-_FAR, _FAR + 1)
    seen = np.interp(distance.ravel(), place, wings, left=0, right=0).reshape(distance.shape)
    return np.sum(extraction.response * seen, axis=1)
