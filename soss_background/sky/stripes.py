"""Estimate the stripes of skies by comparison with the skies of other visits.

A column of a sky differs from the mean of other visits by two levels, by smooth deviations, by real
structure along rows, and by stripes: the mean 1/f noise of the visit, which is independent of that
of other visits. All covariances are known except that of the structure, which is measured for each
sky in bands of wavelengths. The estimate is the mean of the posterior, a Wiener filter along rows:
differences that are too large for stripes remain in the sky.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft, linalg

from soss_background.numerics.cells import CELL, bin_smooth, cell_bands
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.deviations import SHARED, stripe_correlation
from soss_background.sky.nodes import block_centres
from soss_background.sky.variation import learn_variation

__all__ = ["Stripes", "estimate_stripes", "spread_stripes"]

# Bands of the structure along rows: limits in half waves per 2048 columns. For the library of the
# tests, half as many bands lower the remaining errors by 3 %, twice as many raise them by 5 %.
# Fewer bands mistake narrow structure of skies for stripes.
_BANDS = (2, 4, 8, 16, 24, 32, 48, 64, 257)

# Initial variance of the structure in each band (a tenth and ten times give the same result), its
# smallest value, and the number of iterations (half and twice change the errors by 2 %).
_FIRST, _LEAST, _ROUNDS = 1e-6, 1e-10, 30

# Rms of the levels, and of the sky in the columns of the edge, as fractions; it is too large to
# constrain them. Half and twice give the same result.
_LEVEL_RMS, _EDGE_RMS = 1.0, 0.1


class Stripes(NamedTuple):
    """
    Stripes of a sky.

    Attributes
    ----------
    values : ndarray of float, shape (k, mx)
        Stripe in each amplifier and column of cells, at the mean position of the edge, DN/s.
    shift : float
        Pixels by which the mean edge is right of that of the sky.
    found : float
        Fraction of the variance of the stripes that the estimate explains.
    variance : float
        Variance of the stripes after smoothing, (DN/s)^2.
    """

    values: np.ndarray
    shift: float
    found: float
    variance: float


class _Profiles(NamedTuple):
    """Columns of a sky in orthogonal combinations of amplifiers: see `_compare_columns`."""

    values: np.ndarray
    response: np.ndarray
    stripes: np.ndarray
    rest: np.ndarray


def estimate_stripes(comparison, window, sigmas):
    """
    Estimate the stripes of each sky by comparison with the skies of the other visits.

    Parameters
    ----------
    comparison : `~soss_background.sky.learning.Comparison`
        Skies of two or more visits.
    window : `~soss_background.detector.Window`
        Their pixels.
    sigmas : sequence of float
        Standard deviation of the Gaussian that smoothed each sky along rows (twicing), pixels.

    Returns
    -------
    stripes : list of Stripes
        The stripes of each sky.
    """
    average = comparison.average
    bands = cell_bands(window.amplifiers())
    noises = _stripe_covariances(average, bands, sigmas)
    skies = [
        _compare_columns(comparison, index, bands, noises) for index in range(len(average.cells))
    ]
    structure = _band_covariances(average.cells.shape[2])
    variances = np.array([_measure_all(sky, structure) for sky in skies])
    shifts = np.nan_to_num(np.mean(average.places) - average.places)
    found = []
    for index, sky in enumerate(skies):
        # This sky is expected to share the structure of the other skies.
        usual = np.median(variances[_others(average, index)], axis=0)
        expected = np.maximum(variances[index], usual)
        found.append(_estimate(sky, np.tensordot(expected, structure, 1), shifts[index]))
    return found


def spread_stripes(stripes, window, sigma):
    """
    Return the stripes of a sky at its pixels.

    Parameters
    ----------
    stripes : Stripes
        The stripes.
    window : `~soss_background.detector.Window`
        The pixels.
    sigma : float
        Standard deviation of the Gaussian that smoothed the sky along columns (twicing), pixels.

    Returns
    -------
    image : ndarray of float32, shape (ny, nx)
        The stripes, DN/s.
    """
    centres = block_centres(window.shape, CELL)[1]
    places = np.arange(window.nx) + stripes.shift
    image = np.zeros(window.shape, dtype=np.float32)
    for rows, values in zip(window.amplifiers(), stripes.values, strict=True):
        image[rows] = np.interp(places, centres, values)
    first = gaussian_filter(image, (sigma, 0), "edge")
    return first + gaussian_filter(image - first, (sigma, 0), "edge")


def _others(average, index):
    """Return True for the skies of other visits."""
    return np.array([visit != average.visits[index] for visit in average.visits])


def _combine(rows, bands):
    """Return orthogonal combinations, the mean first, of the means of the amplifiers' rows."""
    means = np.array([rows[band].mean(axis=0, dtype=float) for band in bands])
    return fft.dct(means, axis=0, norm="ortho")


def _stripe_covariances(average, bands, sigmas):
    """Return the covariances, (DN/s)^2, of the stripes of each sky, shape (n, k, mx, mx)."""
    number, columns = len(bands), average.cells.shape[2]
    # Amplifiers share a fraction of their stripes, which only affects the mean of their rows.
    shares = np.full(number, 1 - SHARED)
    shares[0] += number * SHARED
    covariances = []
    for index, sigma in enumerate(sigmas):
        pink = stripe_correlation(columns, average.slopes[index], sigma)
        white = stripe_correlation(columns, 0.0, sigma) / (CELL[0] * len(average.cells[0]) / number)
        pixel = np.median(average.white[index] * _sky_of(average, index)) ** 2
        stripes = average.stripes[index] ** 2 * shares[:, np.newaxis, np.newaxis] * pink
        covariances.append(stripes + pixel * white)
    return np.array(covariances)


def _sky_of(average, index):
    """Return the mean sky at the levels of one sky, in cells, DN/s, without deviations."""
    left, level = average.levels[index]
    right = bin_smooth(average.right)
    return bin_smooth(average.shape) * (left + (level - left) * right)


def _compare_columns(comparison, index, bands, noises):
    """
    Compare the columns of a sky with those of the other visits.

    Returns fractional deviations, shape (k, mx), their response to stripes of 1 DN/s, and the
    covariances, shape (k, mx, mx), of the stripes and of everything else except the structure.
    """
    average = comparison.average
    share = average.weights * _others(average, index)
    share /= share.sum()
    mean = np.tensordot(share, average.cells, 1)
    values = _combine(average.cells[index] / mean - 1, bands)
    responses = [np.mean(1 / _sky_of(average, each), axis=0) for each in range(len(share))]
    scaled = share[:, np.newaxis] * responses
    rest = np.einsum("nx,nkxz,nz->kxz", scaled, noises, scaled, optimize=True)
    rest += _smooth_covariance(comparison, index, bands)
    right = bin_smooth(average.right)
    at_edge = np.any((right > 0) & (right < 1), axis=0)
    rest += np.diag(np.where(at_edge, _EDGE_RMS**2, _LEAST))
    response = np.broadcast_to(responses[index], values.shape)
    return _Profiles(values, response, noises[index], rest)


def _smooth_covariance(comparison, index, bands):
    """Return the covariance of columns due to levels and smooth deviations of a new sky."""
    average, modes = comparison.average, comparison.modes
    labels = list(dict.fromkeys(average.visits))
    others = comparison.visits.without(labels.index(average.visits[index]))
    variation = learn_variation(others, modes.prior)
    scaled = variation.components * np.sqrt(variation.variances)[:, np.newaxis]
    smooth = np.diag(variation.smooth_rms**2 * modes.prior) + scaled.T @ scaled
    images = modes.grid.cell_images(modes.at_nodes, average.right)
    right = bin_smooth(average.right)
    shapes = _combine(np.moveaxis(images, 0, 2), bands)
    sides = _LEVEL_RMS * _combine(np.stack([1 - right, right], axis=2), bands)
    smooth *= 1 + 1 / variation.number
    deviations = shapes @ smooth @ np.swapaxes(shapes, 1, 2)
    return deviations + sides @ np.swapaxes(sides, 1, 2)


def _band_covariances(columns):
    """Return the covariance of structure of unit variance in each band, shape (b, mx, mx)."""
    distance = np.pi * np.arange(columns) / columns
    # Bands are wavelengths in pixels, for any number of columns.
    limits = np.array(_BANDS) * columns * CELL[1] // 2048
    pairs = zip(limits[:-1], limits[1:], strict=True)
    waves = [np.arange(low, min(high, columns)) for low, high in pairs if high > low]
    rows = [np.cos(np.outer(each, distance)).mean(axis=0) for each in waves if each.size]
    return np.array([linalg.toeplitz(row) for row in rows])


def _measure_all(sky, structure):
    """Return the variances of the structure in each profile of a sky, see `_measure`."""
    return [_measure(*profile, structure) for profile in zip(*sky, strict=True)]


def _measure(values, response, stripes, rest, structure):
    """Return the most likely variance of the structure in each band of a profile."""
    # Majorization and minimization: Zhou et al. 2019, J. Comput. Graph. Stat. 28, 350.
    known = rest + response[:, np.newaxis] * stripes * response
    variances = np.full(len(structure), _FIRST)
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv(known + np.tensordot(variances, structure, 1))
        weighted = inverse @ values
        found = structure @ weighted @ weighted
        expected = structure.reshape(len(structure), -1) @ inverse.ravel()
        variances = np.maximum(variances * np.sqrt(found / expected), _LEAST)
    return variances


def _estimate(sky, structure, shift):
    """Return the stripes of a sky, whose structure has a covariance, shape (k, mx, mx)."""
    combined, explained, total = [], 0.0, 0.0
    for values, response, stripes, *rest in zip(*sky, structure, strict=True):
        signal = response[:, np.newaxis] * stripes
        covariance = signal * response + sum(rest)
        gain = linalg.solve(covariance, signal, assume_a="pos").T
        combined.append(gain @ values)
        explained += np.trace(gain @ signal)
        total += np.trace(stripes)
    values = fft.idct(np.array(combined), axis=0, norm="ortho")
    return Stripes(values, float(shift), float(explained / total), float(total / values.size))
