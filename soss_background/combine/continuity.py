"""Continuity of the sky from one amplifier to the next.

Differences of stripes between exposures are solved from the exposures, but the mean stripe of all
exposures looks like sky. The sky has no step where one amplifier's rows end and the next one's
begin, so that a step there is the difference of the mean stripes of both.
"""

import numpy as np
from bottleneck import nanmean
from scipy.linalg import circulant

from soss_background.numerics.cells import gather_blocks

__all__ = ["measure_band_offsets"]

# Columns that are averaged: noise hides narrower stripes, which denoising removes.
_COLUMNS = 16

# Strips on each side of a boundary that are used.
_STRIPS = 6

# Deviation of the sky from a straight line in row: standard deviation in rows of the Gaussian that
# smooths white noise, and rms as a fraction of the sky. Half or twice the rms changes the noise of
# a step by 15 %.
_LENGTH, _RMS = 24.0, 0.003

# Variances, as fractions of the sky, of the level and the slope of that line across the strips.
_FREE = 1.0

# Change of the sky across the strips, as a fraction, above which the edge crosses them.
_EDGE = 0.03


def measure_band_offsets(sky, weight, stripes, bands, size):
    """
    Measure the mean stripes of amplifiers relative to the mean of all amplifiers.

    The sky is a Gaussian process along columns, plus a step between two bands: the step is its
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
    size : int
        Rows in a strip.

    Returns
    -------
    offsets : ndarray of float32, shape (n_bands, nx)
        Offsets in DN/s; their mean over the bands is 0.
    """
    n, number, nx = stripes.shape
    total = _sum_blocks(weight)
    mean = np.divide(_sum_blocks(weight * sky), total, out=np.zeros_like(total), where=total > 0)
    level = np.median(mean[total > 0])
    offsets = np.zeros((number, mean.shape[1]))
    for band in range(1, number):
        first = np.searchsorted(bands, band)
        near = slice(max(first - _STRIPS, 0), first + _STRIPS)
        distance = size * (np.arange(len(mean))[near] - first + 0.5)
        step, variance = _measure_steps(mean[near] / level, total[near] * level**2, distance)
        covariance = _covariance(stripes[:, band] - stripes[:, band - 1], level)
        offsets[band] = offsets[band - 1] + _filter(step, variance, covariance)
    offsets -= offsets.mean(axis=0)
    centres = (np.arange(offsets.shape[1]) + 0.5) * _COLUMNS - 0.5
    return level * np.array([np.interp(np.arange(nx), centres, offset) for offset in offsets])


def _sum_blocks(strips):
    """Return the sums of blocks of columns, shape (my, mx)."""
    return np.nansum(gather_blocks(strips, (1, _COLUMNS)), axis=-1)


def _measure_steps(values, weight, distance):
    """Return the relative step of each block of columns, and its variance (infinite if unknown)."""
    separation = distance[:, np.newaxis] - distance
    line = 1 + np.outer(distance, distance) / distance.max() ** 2
    process = _RMS**2 * np.exp(-(separation**2) / (4 * _LENGTH**2)) + _FREE * line
    above = (distance > 0).astype(float)
    step, variance = np.zeros(values.shape[1]), np.full(values.shape[1], np.inf)
    for block, (value, precision) in enumerate(zip(values.T, weight.T, strict=True)):
        known = precision > 0
        sides = [value[known & (above == side)] for side in (0, 1)]
        if min(map(len, sides)) < 2 or np.ptp(value[known]) > _EDGE:
            continue
        noise = process[np.ix_(known, known)] + np.diag(1 / precision[known])
        solved = np.linalg.solve(noise, above[known])
        variance[block] = 1 / (above[known] @ solved)
        step[block] = variance[block] * (solved @ value[known])
    return step, variance


def _covariance(difference, level):
    """Return the covariance of the mean of the exposures' stripes along rows, shape (mx, mx)."""
    n = len(difference)
    blocks = gather_blocks(difference, (1, _COLUMNS))
    power = np.abs(np.fft.rfft(nanmean(blocks, axis=-1) / level, axis=1)) ** 2
    columns = blocks.shape[1]
    mean = power.sum(axis=0) / (n - 1) / n / columns
    return circulant(np.fft.irfft(mean, columns))


def _filter(step, variance, covariance):
    """Return the most probable steps, from the measured ones."""
    known = np.isfinite(variance)
    total = covariance[np.ix_(known, known)] + np.diag(variance[known])
    return covariance[:, known] @ np.linalg.solve(total, step[known])
