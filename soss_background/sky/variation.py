"""Variation of skies about their mean: principal components and a smooth scatter."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

__all__ = [
    "PSEUDO_SKIES",
    "RMS",
    "Variation",
    "Visits",
    "find_smooth",
    "group_visits",
    "learn_variation",
]

# Prior rms of the deviations of a sky from the mean: variations of colour reach 1 to 3 %. In the
# test of `soss_background.sky.deviations.LENGTHS`, 1 % gives a log-likelihood of 195 and 2 % of
# 226; the families differ more than real skies of one season.
RMS = 0.015

# Weight of a prior in skies. With half of it the scatter of three skies dominates; twice of it
# widens the prior of twelve skies by a third.
PSEUDO_SKIES = 4

# Smallest rms of a scatter that skyflats can reveal: the size of their own errors.
_LEAST_RMS = 0.001

# Modes are rough if their prior variance relative to the first mode is below this. A squared
# exponential almost excludes structure narrower than its length, which real skies have.
_ROUGH = 1e-3


class Visits(NamedTuple):
    """
    Deviations of skies, by visit.

    Attributes
    ----------
    values : ndarray of float, shape (n, q)
        Amplitudes of orthonormal modes.
    noise : ndarray of float, shape (n, q, q)
        Their noise covariance.
    weights : ndarray of float, shape (n,)
        Weights of the visits.
    """

    values: np.ndarray
    noise: np.ndarray
    weights: np.ndarray

    @property
    def number(self):
        """Effective number of visits."""
        return self.weights.sum() ** 2 / np.sum(self.weights**2)

    def without(self, index):
        """Return the other visits."""
        return Visits(*(np.delete(each, index, axis=0) for each in self))


class Variation(NamedTuple):
    """
    Variation of skies about their mean.

    Attributes
    ----------
    components : ndarray of float, shape (k, q)
        Orthonormal components, amplitudes of modes.
    variances : ndarray of float, shape (k,)
        Variance of each component, fraction of the sky squared.
    smooth_rms : float
        Rms of the smooth scatter that no component explains.
    rough : float
        Variance of each rough mode that no component explains.
    number : float
        Effective number of visits.
    """

    components: np.ndarray
    variances: np.ndarray
    smooth_rms: float
    rough: float
    number: float


def group_visits(values, noise, weights, labels):
    """Return the `Visits` of skies, each with the label of its visit."""
    grouped = []
    for label in dict.fromkeys(labels):
        mine = np.array([each == label for each in labels])
        part = weights[mine] / weights[mine].sum()
        mean, covariance = (
            np.tensordot(p, v[mine], 1) for p, v in ((part, values), (part**2, noise))
        )
        grouped.append((mean, covariance, weights[mine].sum()))
    return Visits(*(np.array(each) for each in zip(*grouped, strict=True)))


def learn_variation(visits, prior):
    """
    Estimate components and smooth scatter of the deviations.

    Parameters
    ----------
    visits : Visits
        Deviations of one or more visits.
    prior : ndarray of float, shape (q,)
        Prior variance of each mode for an rms of one.

    Returns
    -------
    variation : Variation
        As many components as are needed to predict each visit from the others.
    """
    sample = _sample_covariance(visits)
    most = len(visits.values) - 2
    number = _choose_number(visits, prior) if most > 0 else 0
    return _split(*_decompose(sample), number, visits.number, prior)


def _sample_covariance(visits):
    """Return the covariance of the visits about their weighted mean, without their noise."""
    if len(visits.values) < 2:
        return np.zeros((visits.values.shape[1],) * 2)
    share = visits.weights / visits.weights.sum()
    rest = visits.values - share @ visits.values
    scatter = (share[:, None] * rest).T @ rest / (1 - 1 / visits.number)
    return scatter - np.tensordot(share, visits.noise, 1)


def _decompose(covariance):
    """Return eigenvalues and eigenvectors (rows), the largest first."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1].T


def find_smooth(prior):
    """Return True for modes that the prior allows; the others are rough."""
    return prior > _ROUGH * prior.max()


def _split(values, vectors, number, visits, prior):
    """Return ``number`` components and the scatter of a decomposed covariance, including priors."""
    freedom, components = visits - 1, vectors[:number]
    # Components of a sample absorb more of its variance than they explain.
    left = max(freedom - number, 0)
    variances = (vectors[number:] ** 2).T @ values[number:] * (freedom / left if left else 1)
    smooth = find_smooth(prior)
    rough = max(np.mean(variances[~smooth]), 0) if not smooth.all() else 0.0
    rest = max(np.sum(variances[smooth] - rough) / prior[smooth].sum(), _LEAST_RMS**2)
    # A mean of logarithms, since the rest is far below the prior once components explain most of
    # the variance.
    share = left / (PSEUDO_SKIES + left)
    scatter = RMS ** (2 * (1 - share)) * rest**share
    # Variance of the prior and of the scatter along each component.
    of_prior = components**2 @ prior
    total = PSEUDO_SKIES * RMS**2 * of_prior + freedom * values[:number]
    explained = np.maximum(total / (PSEUDO_SKIES + freedom) - scatter * of_prior, 0)
    order = np.argsort(-explained)
    numbers = float(np.sqrt(scatter)), float(rough), visits
    return Variation(components[order], explained[order], *numbers)


def _choose_number(visits, prior):
    """Return the smallest number of components that predicts omitted visits best."""
    n = len(visits.values)
    gain = np.zeros((n, n - 1))
    for index in range(n):
        others = visits.without(index)
        share = others.weights / others.weights.sum()
        deviation = visits.values[index] - share @ others.values
        noise = visits.noise[index] + np.tensordot(share**2, others.noise, 1)
        decomposed = _decompose(_sample_covariance(others))
        for number in range(n - 1):
            variation = _split(*decomposed, number, others.number, prior)
            gain[index, number] = _log_likelihood(deviation, noise, variation, prior)
    lack = gain[:, [np.argmax(gain.sum(axis=0))]] - gain
    # The smallest number within one standard error of the best.
    return int(np.argmax(lack.sum(axis=0) <= np.sqrt(n) * lack.std(axis=0)))


def _log_likelihood(deviation, noise, variation, prior):
    """Return the log-likelihood of a new deviation, without its constant term."""
    scatter = variation.smooth_rms**2 * np.maximum(prior, _ROUGH * prior.max()) + variation.rough
    scaled = variation.components * np.sqrt(variation.variances)[:, None]
    covariance = (1 + 1 / variation.number) * (np.diag(scatter) + scaled.T @ scaled) + noise
    root = linalg.cholesky(covariance, lower=True)
    normal = linalg.solve_triangular(root, deviation, lower=True)
    return -0.5 * normal @ normal - np.log(np.diag(root)).sum()
