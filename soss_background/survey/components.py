"""Principal components of skies."""

from typing import NamedTuple

import numpy as np

from soss_background.sky.match import at_sides, match_levels

__all__ = ["Components", "find_components"]

# Largest number of components.
_MOST = 5


class Components(NamedTuple):
    """
    Principal components of skies.

    Attributes
    ----------
    mean : ndarray of float32, shape (my, mx)
        Mean of the skies, each with a median of 1 on either side of its edge.
    maps : ndarray of float, shape (k, my, mx)
        The components, deviations from the mean as fractions of it, with an rms of 1; NaN where
        there is no sky.
    scores : ndarray of float, shape (n, k)
        Amplitude of each component in each sky, percent.
    explained : ndarray of float, shape (k,)
        Fraction of the variance of the skies that each component explains.
    """

    mean: np.ndarray
    maps: np.ndarray
    scores: np.ndarray
    explained: np.ndarray


def find_components(skies):
    """Return the strongest principal components of two or more skies at the same levels."""
    first = skies[0]
    shapes = np.array([sky.sky / at_sides(match_levels(sky, first), first) for sky in skies])
    mean = first._replace(sky=shapes.mean(axis=0))
    shapes = [sky.sky / at_sides(match_levels(sky, mean), mean) for sky in skies]
    known = np.isfinite(mean.sky)
    deviations = np.array([shape[known] / mean.sky[known] for shape in shapes], dtype=float)
    deviations -= deviations.mean(axis=0)
    left, sizes, right = np.linalg.svd(deviations, full_matrices=False)
    number, cells = min(_MOST, len(skies) - 1), deviations.shape[1]
    maps = np.full((number, *mean.sky.shape), np.nan)
    maps[:, known] = right[:number] * np.sqrt(cells)
    scores = 100 * left[:, :number] * sizes[:number] / np.sqrt(cells)
    total = np.sum(sizes**2)
    explained = sizes[:number] ** 2 / total if total > 0 else np.zeros(number)
    return Components(mean.sky, maps, scores, explained)
