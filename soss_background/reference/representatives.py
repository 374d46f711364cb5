"""Skies that together represent a sky model, for a step that subtracts the best of them."""

import numpy as np
from scipy.cluster.vq import kmeans2

from soss_background.numerics.cells import bin_smooth, expand_smoothly
from soss_background.sky.edge import shift_columns

__all__ = ["represent_prior"]

# Number of draws from the prior for each representative sky, and the seed of the draws.
_DRAWS, _SEED = 500, 1


def represent_prior(prior, number):
    """
    Find the skies that together fit those of a prior best.

    Skies are drawn from the prior. The means of their clusters [1]_ minimize the mean square of the
    residual with the nearest one. Levels left and right of the edge are ignored, since they are
    fitted.

    Parameters
    ----------
    prior : `~soss_background.sky.sky_prior.SkyPrior`
        The prior.
    number : int
        Number of skies.

    Returns
    -------
    skies : ndarray of float32, shape (number, ny, nx)
        The skies, in units of the prior; those that represent most draws come first.
    shares : ndarray of float, shape (number,)
        Fraction of the draws that each represents.
    shifts : ndarray of float, shape (number,)
        Shift of their edge, pixels towards larger columns.

    References
    ----------
    .. [1] B. Flury, Principal points, Biometrika 77, 33 (1990).
    """
    moved = prior.shift_rms * prior.edge_slope(0.0) / bin_smooth(prior.sky)
    images = np.array([moved, *prior.deviations])
    images = images.reshape(len(images), -1)
    # Distances of points are the rms of the differences of their skies.
    variances, axes = np.linalg.eigh(images @ images.T / images.shape[1])
    scale = np.sqrt(np.maximum(variances, 0))
    amplitudes = np.random.default_rng(_SEED).standard_normal((_DRAWS * number, len(images)))
    points = amplitudes @ axes * scale
    _, labels = kmeans2(points, number, minit="++", rng=np.random.default_rng(_SEED))
    counts = np.bincount(labels, minlength=number)
    order = np.argsort(-counts)
    means = [amplitudes[labels == label].mean(axis=0) for label in order]
    skies = np.array([_make_sky(prior, *np.split(mean, [1])) for mean in means])
    return skies, counts[order] / counts.sum(), prior.shift_rms * np.array(means)[:, 0]


def _make_sky(prior, shift, amplitudes):
    """Return the sky of amplitudes of the shift and of the deviations."""
    factor = 1 + np.tensordot(amplitudes, prior.deviations, 1)
    sky = shift_columns(prior.sky, float(shift[0]) * prior.shift_rms)
    return sky * expand_smoothly(factor.astype(np.float32), sky.shape)
