"""Find how far the light of a target extends in an exposure of the sky."""

import numpy as np
from bottleneck import nanmedian

from soss_background.sky.traces import BRIGHT_TRACE, trace_excess

__all__ = ["target_reach"]

# Distance from the traces beyond which pixels have no light of the target, and edges of the two
# bins in which its wings are measured, pixels.
_FAR, _BINS = 800, (60, 120, 240)
# Percentile of the cells of a bin, since the wings of some columns are brighter; limits of the
# exponent of the wings.
_BRIGHT, _SLOPES = 75, (-4.0, -1.0)


def target_reach(cells, distance, fraction):
    """
    Return the distance from the traces at which the light of a target vanishes.

    A power law through the wings is extrapolated.

    Parameters
    ----------
    cells : ndarray of float, shape (my, mx)
        Means of cells of the exposure, DN/s; NaN where unknown.
    distance : ndarray of float, shape (my, mx)
        Distance of the cells from the traces, pixels, see `~soss_background.sky.traces`.
    fraction : float
        Brightness that is neglected, as a fraction of the sky.

    Returns
    -------
    reach : float
        The distance, pixels, at most 800; 0 if there is no target, no pixel far from it that shows
        the sky, or no cell in which its wings can be measured.
    """
    far = (distance > _FAR) & np.isfinite(cells)
    columns = far.any(axis=0)
    if not columns.any() or not trace_excess(cells, distance) > BRIGHT_TRACE:
        return 0.0
    cells, distance = cells[:, columns], distance[:, columns]
    sky = nanmedian(np.where(far[:, columns], cells, np.nan), axis=0)
    excess = cells / sky - 1
    bins = [
        excess[np.isfinite(excess) & (distance >= low) & (distance < high)]
        for low, high in zip(_BINS[:-1], _BINS[1:], strict=True)
    ]
    if not all(each.size for each in bins):
        return 0.0
    wings = [np.percentile(each, _BRIGHT) for each in bins]
    inner, outer = np.maximum(wings, fraction)
    centre = np.sqrt(_BINS[1] * _BINS[2])
    slope = np.clip(np.log(outer / inner) / np.log(_BINS[2] / _BINS[1]), *_SLOPES)
    return float(min(centre * (outer / fraction) ** (-1 / slope), _FAR))
