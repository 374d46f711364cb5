"""1/f noise of single integrations: a level and a slope in each column of an amplifier.

ERR does not include noise that all pixels of a column share; most of it is common to neighbouring
columns, too. It is measured in the difference of an integration from the mean of all integrations,
outside the traces. Changes of the target's flux also contribute to this difference; they are
measured on its trace in the same column.
"""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian
from scipy import fft

from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.threads import map_parallel

__all__ = ["Columns", "Scene", "Stripes", "find_stripes", "measure_columns"]

# Pixels that deviate by more standard deviations are rejected.
_OUTLIER = 5.0
# Significance in the mean of the pixels of the traces from which a first change of the flux is
# estimated.
_BRIGHT = 20.0
# Tolerated error of the mean times the flux of an integration (the trace moves by hundredths of a
# pixel), as a fraction of the flux of a pixel.
_MOTION = 0.02
# Prior rms of the change of the target's flux, as a fraction; too large to constrain columns with a
# trace.
_FLUX_RMS = 1.0
# Smallest variance of the rows of a column's pixels, in units of the square of half the rows; below
# it, a slope cannot be distinguished from a level.
_LEAST_SPREAD = 0.01


class Scene(NamedTuple):
    """
    Common planes of the integrations of a time series, in the rows of an amplifier.

    Attributes
    ----------
    mean, variance : ndarray of float, shape (ny, nx)
        Mean of the integrations without sky, DN/s, and its variance, (DN/s)^2; NaN where there is
        no usable pixel.
    core : ndarray of bool, shape (ny, nx)
        True for the pixels of the traces.
    free : ndarray of bool, shape (ny, nx)
        True for pixels outside the traces and sources.
    """

    mean: np.ndarray
    variance: np.ndarray
    core: np.ndarray
    free: np.ndarray


class Stripes(NamedTuple):
    """
    Stripes of the integrations in the rows of an amplifier, relative to the stripes of their mean.

    Attributes
    ----------
    level, slope : ndarray of float, shape (nints, nx)
        Level in the middle row, and change of it from there to the last row, DN/s.
    number : int
        Number of rows.
    """

    level: np.ndarray
    slope: np.ndarray
    number: int

    def image(self, integration):
        """Return the stripes of an integration, float32, shape (ny, nx), DN/s."""
        levels, slopes = self.level[integration], self.slope[integration]
        return (levels + _rows(self.number)[:, np.newaxis] * slopes).astype(np.float32)


class Columns(NamedTuple):
    """
    Measured columns of integrations; NaN without enough pixels.

    Attributes
    ----------
    level, lever : ndarray of float, shape (nints, nx)
        The level in the middle row, DN/s, is ``level - lever * slope`` for any slope.
    slope : ndarray of float, shape (nints, nx)
        Measured slope, DN/s.
    level_variance, slope_variance : ndarray of float, shape (nints, nx)
        Variances of the level, for a known slope, and of the slope, (DN/s)^2.
    """

    level: np.ndarray
    lever: np.ndarray
    slope: np.ndarray
    level_variance: np.ndarray
    slope_variance: np.ndarray


def measure_columns(take_image, number, scene):
    """
    Measure the columns of some integrations of a time series.

    The difference of an integration from the mean has three terms in each column: the mean times
    the change of the target's flux, a level, and a slope along the column. Pixels of the traces
    constrain the first term, pixels outside the traces the others, so that the stripes contain
    nothing of a transit at any wavelength. This is the difference from the scaled mean of the
    literature (Radica et al. 2023, MNRAS 524, 835), with one scale for each column.

    Parameters
    ----------
    take_image : callable
        Returns the integration of a number, shape (ny, nx), without sky, DN/s; NaN where there is
        no usable pixel.
    number : int
        Number of integrations.
    scene : `Scene`
        Common planes of all integrations of the time series.

    Returns
    -------
    columns : `Columns`
        Measured levels and slopes.
    """
    planes = _Planes.of_scene(scene)
    fits = map_parallel(lambda index: _fit_columns(take_image(index), planes), range(number))
    return Columns(*map(np.array, zip(*fits, strict=True)))


def find_stripes(columns, number, blocks=(slice(None),)):
    """
    Find the stripes of all integrations of a time series.

    The measured levels and slopes contain white noise, and the stripes have power at low
    frequencies. A Wiener filter across the columns weighs both; without stripes, nothing is
    subtracted. Blocks of columns that are read at different times have separate levels.

    Parameters
    ----------
    columns : list of `Columns`
        Measured levels and slopes, segment by segment.
    number : int
        Number of rows.
    blocks : sequence of slice
        Columns that are read together.

    Returns
    -------
    stripes : list of `Stripes`
        The stripes of each segment.
    """
    joined = Columns(*map(np.concatenate, zip(*columns, strict=True)))
    slope = _filter_columns(joined.slope, joined.slope_variance)
    level = joined.level - joined.lever * slope
    pedestals = _find_pedestals(level, joined.level_variance, blocks)
    level = pedestals + _filter_columns(level - pedestals, joined.level_variance)
    ends = np.cumsum([len(each.level) for each in columns])[:-1]
    parts = zip(np.split(level, ends), np.split(slope, ends), strict=True)
    return [Stripes(*each, number) for each in parts]


class _Planes(NamedTuple):
    """Planes of a scene in the form that the fit of each integration needs, shape (ny, nx)."""

    mean: np.ndarray
    weight: np.ndarray
    core: np.ndarray
    free: np.ndarray
    error: np.ndarray

    @classmethod
    def of_scene(cls, scene):
        """Return the planes of a scene; pixels without a mean have no weight."""
        known = np.isfinite(scene.mean) & (scene.variance > 0)
        mean, variance = np.where(known, scene.mean, 0), np.where(known, scene.variance, 1)
        free = scene.free & ~scene.core
        planes = (mean, known / variance, scene.core, free, np.sqrt(variance))
        return cls(*(plane.astype(np.float32) for plane in planes))


def _rows(number):
    """Return the coordinate of rows along a column, from -1 to 1, float32."""
    return np.linspace(-1, 1, number, dtype=np.float32)


def _fit_columns(image, planes):
    """Fit the columns of an integration; reject outliers."""
    difference = image - planes.mean
    usable = np.isfinite(difference)
    difference[~usable] = 0
    rest = _subtract_medians(difference, usable, planes)
    limit = _find_limit(rest, usable, planes)
    usable &= np.abs(rest) < limit
    fit, residual = _solve(difference, np.where(usable, planes.weight, 0), planes)
    usable &= np.abs(residual) < limit
    weight = np.where(usable, planes.weight, 0)
    fit, residual = _solve(difference, weight, planes)
    weight *= planes.free
    count = max(np.count_nonzero(weight), 1)
    # The errors are those of the mean, which shares some of the noise.
    noise = np.sum(weight * residual**2) / count
    return fit._replace(
        level_variance=noise * fit.level_variance, slope_variance=noise * fit.slope_variance
    )


def _subtract_medians(difference, usable, planes):
    """Subtract the median change of the target's flux and medians of columns; ignore outliers."""
    bright = usable & (planes.core > 0) & (planes.mean > _BRIGHT * planes.error)
    scale = np.median(difference[bright] / planes.mean[bright]) if bright.any() else 0
    rest = difference - scale * planes.mean
    free = usable & (planes.free > 0)
    return rest - np.nan_to_num(nanmedian(np.where(free, rest, np.nan), axis=0))


def _find_limit(rest, usable, planes):
    """Return the limit of residuals beyond which a pixel is an outlier, shape (ny, nx), DN/s."""
    free = usable & (planes.free > 0) & (planes.weight > 0)
    scatter = np.median(np.abs(rest[free]) / planes.error[free]) if free.any() else 0
    # An integration has more noise than the mean of several.
    noise = max(MAD_TO_SIGMA * scatter, 1) * planes.error
    return _OUTLIER * np.hypot(noise, _MOTION * planes.mean)


def _solve(difference, weight, planes):
    """Solve the equations of all columns; return the fit, and the residuals of all pixels."""
    rows = _rows(len(difference))
    core = weight * planes.core * planes.mean
    flux = np.sum(core * planes.mean, axis=0) + _FLUX_RMS**-2
    core_level, core_slope = core.sum(axis=0) / flux, rows @ core / flux
    core_value = np.sum(core * difference, axis=0) / flux
    free = weight * planes.free
    wings = free * planes.mean
    values = free * difference
    # Equations of level and slope, after the change of flux is eliminated.
    wing, wing_slope = wings.sum(axis=0), rows @ wings
    total, first, second = free.sum(axis=0), rows @ free, rows**2 @ free
    a, b = total - wing * core_level, first - wing * core_slope
    c, d = first - wing_slope * core_level, second - wing_slope * core_slope
    p, q = values.sum(axis=0) - wing * core_value, rows @ values - wing_slope * core_value
    spread = total * second - first**2
    known = spread > _LEAST_SPREAD * total**2
    a, determinant, spread, total = (
        np.where(known, each, np.nan) for each in (a, a * d - b * c, spread, total)
    )
    slope = (a * q - c * p) / determinant
    fit = Columns(p / a, b / a, slope, 1 / total, total / spread)
    level, slope = map(np.nan_to_num, (fit.level - fit.lever * slope, slope))
    scale = core_value - core_level * level - core_slope * slope
    return fit, difference - scale * planes.mean - level - rows[:, np.newaxis] * slope


def _find_pedestals(values, variances, blocks):
    """Return the expected mean of the values of each block of columns; 0 if there is one block."""
    pedestals = np.zeros(values.shape)
    if len(blocks) == 1:
        return pedestals
    weight = np.where(np.isfinite(values), 1 / variances, 0)
    total = np.array([weight[:, columns].sum(axis=1) for columns in blocks])
    sums = [(weight * np.nan_to_num(values))[:, columns].sum(axis=1) for columns in blocks]
    known = total > 0
    means = np.divide(sums, total, out=np.zeros(total.shape), where=known)
    power = np.mean(means[known] ** 2) if known.any() else 0
    noise = np.mean(1 / total[known]) if known.any() else 0
    gain = max(1 - noise / power, 0) if power else 0
    for columns, mean in zip(blocks, gain * means, strict=True):
        pedestals[:, columns] = mean[:, np.newaxis]
    return pedestals


def _filter_columns(values, variances):
    """
    Estimate correlated values of columns from noisy ones with a Wiener filter.

    Parameters
    ----------
    values, variances : ndarray of float, shape (nints, nx)
        Measured values and the variances of their noise; NaN where there is no measurement.

    Returns
    -------
    filtered : ndarray of float, shape (nints, nx)
        Expected values; interpolated where there is no measurement.
    """
    known = np.isfinite(values)
    columns = np.arange(values.shape[1])
    filled = np.zeros(values.shape)
    for row, value, good in zip(filled, values, known, strict=True):
        if good.any():
            row[:] = np.interp(columns, columns[good], value[good])
    # Cosines continue smoothly beyond the first and last column.
    coefficients = fft.dct(filled, axis=1, norm="ortho")
    noise = np.mean(variances[known]) if known.any() else 0
    power = _band_means(np.mean(coefficients**2, axis=0))
    gain = np.clip(1 - noise / np.maximum(power, np.finfo(float).tiny), 0, 1)
    return fft.idct(gain * coefficients, axis=1, norm="ortho")


def _band_means(power):
    """Return the mean power in the octave around each frequency."""
    edges = np.concatenate([[0], 2 ** np.arange(np.ceil(np.log2(len(power)))).astype(int)])
    means = np.add.reduceat(power, edges) / np.diff(np.append(edges, len(power)))
    return np.repeat(means, np.diff(np.append(edges, len(power))))
