"""Small-scale scatter of skies: residuals of their mean and smooth deviations."""

import numpy as np

from soss_background.numerics.cells import CELL
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.variation import PSEUDO_SKIES

__all__ = ["correlation_length", "measure_scatter"]

# Prior of the scatter of a pixel, as a fraction of the sky, from simulated skies, whose faint edges
# and rows differ. Its weight is that of a few skies.
_SCATTER = 0.003

# Standard deviations of the Gaussian that smooths the variance, cells. The edge, where skies differ
# most, is narrow and nearly vertical.
_SMOOTHING = (16, 1)

# Fraction of its peak at which the width of a correlation is measured.
_FALLEN = np.exp(-1)


def measure_scatter(residuals, noise, weights, number):
    """
    Measure the scatter of skies about their mean in excess of their noise.

    Parameters
    ----------
    residuals, noise : ndarray of float32, shape (n, my, mx)
        Residuals in cells, as fractions of the sky, and their noise.
    weights : ndarray of float, shape (n,)
        Weights of the skies; their sum is one.
    number : float
        Effective number of skies.

    Returns
    -------
    scatter : ndarray of float32, shape (my, mx)
        Scatter of a sky, as a fraction of it; that of the prior for a single sky.
    """
    freedom = number - 1
    excess = np.zeros(residuals.shape[1:])
    if freedom > 0:
        squares = np.tensordot(weights, residuals**2, 1) * number / freedom
        excess = squares - np.tensordot(weights, noise**2, 1)
        excess = gaussian_filter(excess.astype(np.float32), _SMOOTHING, mode="edge")
    variance = PSEUDO_SKIES * _SCATTER**2 + freedom * np.maximum(excess, 0)
    return np.sqrt(variance / (PSEUDO_SKIES + freedom)).astype(np.float32)


def correlation_length(residuals):
    """Return the columns over which the correlation of residuals along rows falls to 1/e."""
    columns = residuals.shape[-1]
    rest = residuals - residuals.mean(axis=-1, keepdims=True)
    power = np.mean(np.abs(np.fft.rfft(rest, 2 * columns)) ** 2, axis=(0, 1))
    correlation = np.fft.irfft(power)[:columns]
    if correlation[0] <= 0:
        return float(CELL[1])
    correlation = correlation / correlation[0]
    first = int(np.argmax(correlation < _FALLEN))
    if first == 0:
        return float(CELL[1] * columns)
    # The last value above the level, and the first below it.
    drop = correlation[first - 1] - correlation[first]
    return float(CELL[1] * (first - (_FALLEN - correlation[first]) / drop))
