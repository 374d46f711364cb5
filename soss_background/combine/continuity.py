"""Continuity of the sky from one amplifier to the next.

Differences of stripes between exposures are measured from the exposures, but the mean stripe of all
exposures cannot be distinguished from the sky. The sky is continuous at the boundary between two
amplifiers: a jump there is the difference of their mean stripes.
"""

import numpy as np
from bottleneck import nanmean
from scipy.linalg import toeplitz

from soss_background.numerics.cells import gather_blocks

__all__ = ["measure_band_offsets"]

# Columns that are averaged; narrower stripes are hidden by noise, and removed by denoising.
_COLUMNS = 16

# Strips on each side of a boundary that are used. With half as many, jumps are a tenth noisier;
# more do not help.
_STRIPS = 6

# Deviation of the sky from a straight line in row: standard deviation in rows of the Gaussian that
# smooths white noise, and rms as a fraction of the sky. At a third and at three times the rms, the
# noise of a jump changes by a fifth.
_LENGTH, _RMS = 24.0, 0.003

# Variances, as fractions of the sky squared, large enough to leave the level and slope of that line
# and the pedestal of an amplifier unconstrained.
_FREE, _PEDESTAL = 1.0, 0.01


def measure_band_offsets(sky, weight, stripes, bands, strips):
    """
    Measure the mean stripes of amplifiers relative to the mean of all amplifiers.

    The sky is a Gaussian process along columns, plus a jump between two bands: the jump is its
    generalized least squares estimate (Rasmussen & Williams 2006, Gaussian Processes for Machine
    Learning, section 2.7). A Wiener filter along rows, with the spectrum of the stripes that differ
    between exposures, lowers its noise.

    Parameters
    ----------
    sky : ndarray of float32, shape (my, nx)
        Mean sky of strips in DN/s.
    weight : ndarray of float32, shape (my, nx)
        Inverse variance of the strips in (DN/s)^-2; 0 where the sky is unknown.
    stripes : ndarray of float32, shape (n, n_bands, nx)
        Stripes of the exposures in DN/s; their mean is 0.
    bands : ndarray of int, shape (my,)
        Number of the band of each strip.
    strips : list of slice
        Rows of each strip.

    Returns
    -------
    offsets : ndarray of float32, shape (n_bands, nx)
        Offsets in DN/s; their mean over the bands is 0.
    """
    _, number, nx = stripes.shape
    total = _sum_blocks(weight)
    mean = np.divide(_sum_blocks(weight * sky), total, out=np.zeros_like(total), where=total > 0)
    if not total.any():
        return np.zeros((number, nx))
    level = np.median(mean[total > 0])
    centres = np.array([(rows.start + rows.stop) / 2 for rows in strips])
    offsets = np.zeros((number, mean.shape[1]))
    for band in range(1, number):
        first = np.searchsorted(bands, band)
        near = slice(max(first - _STRIPS, 0), first + _STRIPS)
        distance = centres[near] - strips[first].start
        jump, variance = _measure_jumps(mean[near] / level, total[near] * level**2, distance)
        covariance = _estimate_covariance(stripes[:, band] - stripes[:, band - 1], level)
        offsets[band] = offsets[band - 1] + _filter_jumps(jump, variance, covariance)
    offsets -= offsets.mean(axis=0)
    places = (np.arange(offsets.shape[1]) + 0.5) * _COLUMNS - 0.5
    return level * np.array([np.interp(np.arange(nx), places, offset) for offset in offsets])


def _sum_blocks(strips):
    """Return the sums of blocks of columns, shape (my, mx)."""
    return np.nansum(gather_blocks(strips, (1, _COLUMNS)), axis=-1)


def _measure_jumps(values, weight, distance):
    """Return the relative jump of each block of columns, and its variance (infinite if unknown)."""
    separation = distance[:, np.newaxis] - distance
    line = 1 + np.outer(distance, distance) / np.abs(distance).max() ** 2
    process = _RMS**2 * np.exp(-(separation**2) / (4 * _LENGTH**2)) + _FREE * line
    above = (distance > 0).astype(float)
    jump, variance = np.zeros(values.shape[1]), np.full(values.shape[1], np.inf)
    for block, (value, precision) in enumerate(zip(values.T, weight.T, strict=True)):
        known = precision > 0
        if min(np.sum(known & (above == side)) for side in (0, 1)) < 2:
            continue
        noise = process[np.ix_(known, known)] + np.diag(1 / precision[known])
        solved = np.linalg.solve(noise, above[known])
        variance[block] = 1 / (above[known] @ solved)
        jump[block] = variance[block] * (solved @ value[known])
    return jump, variance


def _estimate_covariance(difference, level):
    """Return the covariance along rows of the mean difference of two bands, shape (mx, mx)."""
    n = len(difference)
    blocks = nanmean(gather_blocks(difference, (1, _COLUMNS)), axis=-1) / level
    # Padded with zeros, since the last column is not next to the first.
    power = np.abs(np.fft.rfft(blocks, 2 * blocks.shape[1], axis=1)) ** 2
    correlation = np.fft.irfft(power.sum(axis=0)) / blocks.shape[1]
    # A pedestal that all exposures share cancels in their differences.
    return toeplitz(correlation[: blocks.shape[1]]) / (n - 1) / n + _PEDESTAL


def _filter_jumps(jump, variance, covariance):
    """Return the most probable jumps, from the measured ones (a Wiener filter)."""
    known = np.isfinite(variance)
    total = covariance[np.ix_(known, known)] + np.diag(variance[known])
    return covariance[:, known] @ np.linalg.solve(total, jump[known])
