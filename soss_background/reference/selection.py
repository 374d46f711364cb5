"""Select the skies of a library by their residuals with each other."""

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

__all__ = ["Selection", "select_skies"]

# Residual of an outlier relative to the median residual of the other skies.
_MUCH_WORSE = 3.0


class Selection(NamedTuple):
    """
    The skies of a library.

    Attributes
    ----------
    groups : list of list of int
        The skies of each template; the first one represents them.
    reasons : list of str
        Why a sky is not a separate template; empty if it is.
    nearest : ndarray of int, shape (n,)
        The other sky that fits each sky best; meaningless where ``left`` is infinite.
    left : ndarray of float, shape (n,)
        Residual with that sky, as a fraction of the sky; infinite if there is none.
    """

    groups: list
    reasons: list
    nearest: np.ndarray
    left: np.ndarray


def select_skies(residuals, exposures, *, merge_below=0.0025, max_residual=0.05):
    """
    Select the skies of a library.

    Of identical skies that share exposures, one is kept. Outliers are omitted and identical skies
    are merged.

    Parameters
    ----------
    residuals : ndarray of float, shape (n, n)
        Residuals of sky i with sky j, see `soss_background.sky.match.cross_residuals`.
    exposures : list of set
        Exposures of each sky.
    merge_below : float
        Residual, as a fraction of the sky, below which skies are identical.
    max_residual : float
        A sky is an outlier if its smallest residual exceeds this fraction of the sky, and three
        times that of a typical sky.

    Returns
    -------
    selection : Selection
        The skies of each template, in order.
    """
    same = np.maximum(residuals, residuals.T) <= merge_below
    repeated = same & [[bool(one & other) for other in exposures] for one in exposures]
    # Ignore the residual of a sky with itself or with another of the same exposures.
    others = np.where(repeated | np.eye(len(same), dtype=bool), np.inf, residuals)
    reasons = [""] * len(same)
    # The sky of the most exposures comes first and represents its group.
    order = sorted(range(len(same)), key=lambda index: -len(exposures[index]))
    kept = _drop_repeated(order, repeated, reasons)
    kept = _drop_outliers(kept, others, max_residual, reasons)
    groups = sorted(_group_alike(residuals, kept, merge_below), key=min)
    for first, *more in groups:
        for index in more:
            reasons[index] = f"merged with sky {first + 1}"
    return Selection(groups, reasons, others.argmin(axis=1), others.min(axis=1))


def _drop_repeated(order, repeated, reasons):
    """Keep one of the skies that share exposures."""
    kept = []
    for index in order:
        twin = next((other for other in kept if repeated[index, other]), None)
        if twin is None:
            kept.append(index)
        else:
            reasons[index] = f"shares exposures with sky {twin + 1}"
    return kept


def _drop_outliers(kept, others, max_residual, reasons):
    """Drop the sky with the largest residual until no outlier is left."""
    # With two skies, the outlier is ambiguous.
    while len(kept) > 2:
        left = others[np.ix_(kept, kept)].min(axis=1)
        worst = int(np.argmax(left))
        rest = kept[:worst] + kept[worst + 1 :]
        typical = np.median(others[np.ix_(rest, rest)].min(axis=1))
        if left[worst] <= max(max_residual, _MUCH_WORSE * typical):
            break
        reasons[kept[worst]] = f"no other sky fits it: {100 * left[worst]:.1f} % left"
        kept = rest
    return kept


def _group_alike(residuals, indices, merge_below):
    """Group skies that are pairwise identical."""
    if len(indices) == 1 or merge_below <= 0:
        return [[index] for index in indices]
    distances = residuals[np.ix_(indices, indices)]
    distances = squareform(np.maximum(distances, distances.T))
    labels = fcluster(linkage(distances, "complete"), merge_below, "distance")
    groups = {}
    for index, label in zip(indices, labels, strict=True):
        groups.setdefault(label, []).append(index)
    return list(groups.values())
