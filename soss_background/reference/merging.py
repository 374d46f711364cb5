"""Average identical skies."""

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.sky.match import expand_levels, match_levels

__all__ = ["average_skies"]

_BAD = dqflags.pixel["DO_NOT_USE"]


def average_skies(planes, binned):
    """
    Average skies at the level of the first, weighted by their inverse variances.

    Parameters
    ----------
    planes : list of tuple of ndarray, shape (ny, nx)
        Sky, 1-sigma uncertainty and flags of each sky. A single sky is returned unchanged.
    binned : list of `~soss_background.sky.match.BinnedSky`
        The same skies in blocks.

    Returns
    -------
    sky, err, dq : ndarray, shape (ny, nx)
        The mean; its 1-sigma uncertainty, 0 where no sky has one; the flags of the averaged skies.
        Only values with an uncertainty and without DO_NOT_USE are averaged, or all values where
        there are none.
    """
    if len(planes) == 1:
        return planes[0]
    skies, errors, flags = (np.array(part) for part in zip(*planes, strict=True))
    for index in range(1, len(skies)):
        levels = match_levels(binned[0], binned[index])
        factor = expand_levels(levels, binned[index], skies[index].shape)
        skies[index] *= factor
        errors[index] *= factor
    known = np.isfinite(errors)
    good = (flags & _BAD == 0) & known
    good |= ~good.any(axis=0)
    weights = good * _weigh(errors)[:, np.newaxis, np.newaxis]
    weights /= weights.sum(axis=0)
    errors = np.where(known, errors, 0)
    return (
        np.sum(weights * skies, axis=0, dtype=np.float32),
        np.sqrt(np.sum((weights * errors) ** 2, axis=0, dtype=np.float32)),
        np.bitwise_or.reduce(np.where(good, flags, 0)),
    )


def _weigh(errors):
    """Return inverse variances of skies from their median errors; 1 if a sky has no errors."""
    known = [plane[np.isfinite(plane) & (plane > 0)] for plane in errors]
    if any(plane.size == 0 for plane in known):
        return np.ones(len(known))
    return np.array([np.median(plane) for plane in known]) ** -2.0
