"""Choose the skies that a library is made of, by how well they fit each other."""

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

__all__ = ["Selection", "find_nearest", "select_skies"]

# What an outlier leaves, relative to what is left of the other skies.
_MUCH_WORSE = 3.0


class Selection(NamedTuple):
    """
    The skies of a library.

    Attributes
    ----------
    groups : list of list of int
        The skies of each template, the one that stands for it first.
    reasons : list of str
        Why a sky is no template of its own; empty if it is one.
    """

    groups: list
    reasons: list


def select_skies(residuals, exposures, *, merge_below=0.25, max_residual=5.0, max_templates=None):
    """
    Choose the skies of a library.

    Outliers are left out, skies that are the same are merged, and if these are still too many,
    those are taken which together leave least of all skies: greedily from every start, then by
    exchanging one for another as long as that helps [1]_.

    Parameters
    ----------
    residuals : ndarray of float, shape (n, n)
        Per cent of sky i that sky j leaves, see `soss_background.subtract.match.cross_residuals`.
    exposures : list of set
        Exposures that each sky is made of. Those that share any are one measurement.
    merge_below : float
        Residual in per cent below which skies are the same.
    max_residual : float
        Residual in per cent which, if also three times that of the others, makes a sky that none
        of the others fits an outlier.
    max_templates : int, optional
        Largest number of templates.

    Returns
    -------
    selection : Selection
        The skies of each template, in order.

    References
    ----------
    .. [1] L. Kaufman and P. J. Rousseeuw, Finding Groups in Data, chapter 2, Wiley 1990.
    """
    reasons = _find_outliers(residuals, max_residual)
    good = [index for index, reason in enumerate(reasons) if not reason]
    groups = _group_alike(residuals, good, merge_below)
    # The sky of most exposures stands for the others.
    groups = [sorted(group, key=lambda index: -len(exposures[index])) for group in groups]
    if max_templates is not None and max_templates < len(groups):
        firsts = [group[0] for group in groups]
        chosen = _span(residuals[np.ix_(good, firsts)], max_templates)
        for number in set(range(len(groups))) - set(chosen):
            left = residuals[firsts[number], [firsts[other] for other in chosen]].min()
            for index in groups[number]:
                reasons[index] = f"others stand for it: {left:.1f} % left"
        groups = [groups[number] for number in sorted(chosen)]
    return Selection([_drop_repeated(group, exposures, reasons) for group in groups], reasons)


def find_nearest(residuals):
    """
    Find for each sky the other one that leaves least of it.

    Parameters
    ----------
    residuals : ndarray of float, shape (n, n)
        Per cent of sky i that sky j leaves.

    Returns
    -------
    nearest : ndarray of int, shape (n,)
        The other sky; 0 if there is none.
    left : ndarray of float, shape (n,)
        What it leaves in per cent; infinite if there is none.
    """
    others = residuals + np.diag(np.full(len(residuals), np.inf))
    return others.argmin(axis=1), others.min(axis=1)


def _find_outliers(residuals, max_residual):
    """Leave out the sky that the others fit worst, as long as there is one that they do not fit."""
    reasons, left = [""] * len(residuals), np.arange(len(residuals))
    # Of two that differ nobody knows which is right.
    while len(left) > 2:
        _, worst = find_nearest(residuals[np.ix_(left, left)])
        suspect = np.argmax(worst)
        others = np.delete(left, suspect)
        _, typical = find_nearest(residuals[np.ix_(others, others)])
        if worst[suspect] <= max(max_residual, _MUCH_WORSE * np.median(typical)):
            break
        reasons[left[suspect]] = f"no other sky fits it: {worst[suspect]:.1f} % left"
        left = others
    return reasons


def _group_alike(residuals, indices, merge_below):
    """Group skies any two of which are the same."""
    if len(indices) == 1:
        return [indices]
    distances = residuals[np.ix_(indices, indices)]
    distances = squareform(np.maximum(distances, distances.T))
    labels = fcluster(linkage(distances, "complete"), merge_below, "distance")
    groups = {}
    for index, label in zip(indices, labels, strict=True):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def _span(residuals, number):
    """Choose columns such that the least value of each row is small on average."""
    squares = residuals**2
    # The end depends on the start.
    choices = (_improve(squares, [first], number) for first in range(squares.shape[1]))
    return min(choices, key=lambda columns: _cost(squares, columns))


def _improve(squares, chosen, number):
    """Add the best columns to those chosen, then exchange them one by one."""
    while len(chosen) < number:
        chosen = _with_best(squares, chosen)
    while True:
        exchanged = [
            _with_best(squares, chosen[:place] + chosen[place + 1 :]) for place in range(number)
        ]
        best = min(exchanged, key=lambda columns: _cost(squares, columns))
        if _cost(squares, best) >= _cost(squares, chosen):
            return chosen
        chosen = best


def _with_best(squares, chosen):
    """Add the column that lowers the cost most."""
    candidates = [column for column in range(squares.shape[1]) if column not in chosen]
    return min(([*chosen, column] for column in candidates), key=lambda c: _cost(squares, c))


def _cost(squares, chosen):
    """Average the least square of each row."""
    return squares[:, chosen].min(axis=1).mean()


def _drop_repeated(group, exposures, reasons):
    """Take each measurement once; note why the others are no templates."""
    kept = []
    for index in group:
        shared = [other for other in kept if exposures[index] & exposures[other]]
        if shared:
            reasons[index] = f"shares exposures with sky {shared[0] + 1}"
            continue
        if kept:
            reasons[index] = f"merged with sky {kept[0] + 1}"
        kept.append(index)
    return kept
