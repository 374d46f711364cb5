"""Levels and stripes of exposures, from strips: short pieces of their columns.

A strip is one column wide, and the sky hardly changes along it. Each amplifier reads a band of
rows, with its own stripes and pedestal.
"""

from dataclasses import dataclass

import numpy as np
from bottleneck import nanmean, nanmedian

from soss_background.combine.continuity import measure_band_offsets
from soss_background.numerics.threads import split_rows

__all__ = ["Levels", "guess_levels", "refine_levels", "split_bands"]

# Pixels in a strip.
_STRIP = 16

# Iterations of medians for the first guess.
_MEDIAN_ROUNDS = 3

# Maximum number of iterations that alternate between sky, levels and stripes, and the change of the
# stripes, as a fraction of their scatter, at which they have converged.
_MAX_ROUNDS = 30
_SETTLED = 0.003

# Frequencies, in cycles per column, over which the spectrum of the stripes is fitted, below those
# where the noise of the pixels dominates; number of bins of equal width in the logarithm of the
# frequency; and indices from a random walk to white noise.
_FREQUENCIES, _BINS, _SLOPES = (0.002, 0.06), 6, (-2.0, 0.0)


@dataclass
class Levels:
    """
    Levels and stripes of exposures.

    Attributes
    ----------
    scale : ndarray of float32, shape (n,)
        Level of each exposure relative to their mean.
    stripes : ndarray of float32, shape (n, n_bands, nx)
        Additive stripe of each column of an amplifier and exposure, in DN/s, including the pedestal
        of the amplifier; the mean over the exposures and amplifiers is 0.
    """

    scale: np.ndarray
    stripes: np.ndarray

    @property
    def offset(self):
        """Median of each exposure's stripes in DN/s, shape (n,)."""
        return np.median(self.stripes, axis=(1, 2))

    @property
    def _differences(self):
        """Stripes without their mean over the exposures."""
        return self.stripes - self.stripes.mean(axis=0)

    @property
    def stripe_rms(self):
        """Median of the rms of the exposures' stripes in DN/s; None if there is one exposure."""
        n = len(self.stripes)
        if n == 1:
            return None
        # The mean stripe of the exposures is in the sky.
        rms = np.sqrt(np.mean(np.var(self._differences, axis=2), axis=1))
        return float(np.median(rms) / np.sqrt(1 - 1 / n))

    @property
    def stripe_slope(self):
        """Index of the power law of the stripes' power spectrum; None if it is unknown."""
        columns = self.stripes.shape[-1]
        frequency = np.fft.rfftfreq(columns)
        edges = np.geomspace(*_FREQUENCIES, _BINS + 1)
        number, _ = np.histogram(frequency, edges)
        if len(self.stripes) == 1 or not number.all():
            return None
        power = np.mean(np.abs(np.fft.rfft(self._differences)) ** 2, axis=(0, 1))
        mean, _ = np.histogram(frequency, edges, weights=power)
        if not mean.all():
            return None
        slope, _ = np.polyfit(np.log(edges[:-1] * edges[1:]) / 2, np.log(mean / number), 1)
        return float(np.clip(slope, *_SLOPES))

    @property
    def common_stripe_variance(self):
        """Variance of the mean stripe of all exposures in (DN/s)^2; most of it is in the sky."""
        n = len(self.stripes)
        return np.mean(np.var(self.stripes, axis=0, ddof=1)) / n if n > 1 else 0.0

    def match(self, images, bands, index=slice(None)):
        """Return rows, all of one band or with a band for each, without stripes, at one level."""
        matched = images - self.stripes[index][..., np.atleast_1d(bands), :]
        matched /= self.scale[index][..., None, None]
        return matched


def split_bands(bands, size=_STRIP):
    """Split bands of rows into blocks of at most ``size`` rows; return them, and their bands."""
    blocks, numbers = [], []
    for number, band in enumerate(bands):
        for rows in split_rows(band.stop - band.start, size):
            blocks.append(slice(band.start + rows.start, band.start + rows.stop))
            numbers.append(number)
    return blocks, np.array(numbers)


def guess_levels(strips, bands):
    """
    Return first levels and stripes from medians of strips.

    Parameters
    ----------
    strips : ndarray of float32, shape (n, my, nx)
        Medians of strips in DN/s, or NaN.
    bands : ndarray of int, shape (my,)
        Number of the band of each strip.

    Returns
    -------
    levels : Levels
        The guess.
    """
    n, _, nx = strips.shape
    zero = np.zeros((n, bands[-1] + 1, nx), dtype=np.float32)
    levels = Levels(np.ones(n, dtype=np.float32), zero)
    for _ in range(_MEDIAN_ROUNDS):
        # The exposures that see a strip differ from strip to strip, so match their levels first.
        sky = nanmedian(levels.match(strips, bands), axis=0)
        levels.scale[:] = [nanmedian(image / sky) for image in strips]
    levels.scale /= levels.scale.mean()
    left = levels.match(strips, bands) - sky
    stripes = [nanmedian(left[:, bands == band], axis=1) for band in range(bands[-1] + 1)]
    levels.stripes = _fill_bands(np.stack(stripes, axis=1)) * levels.scale[:, None, None]
    return levels


def refine_levels(levels, sky, residuals, count, weight, bands, strips):
    """
    Solve for levels and stripes by weighted means, until they converge.

    Parameters
    ----------
    levels : Levels
        First guess.
    sky : ndarray of float32, shape (my, nx)
        The mean sky of strips at the guess in DN/s; NaN where it is unknown.
    residuals, count : ndarray of float32, shape (n, my, nx)
        Sums over strips of the residuals of the exposures from that sky in DN/s, and their number
        of pixels.
    weight : ndarray of float32, shape (n,)
        Weight of a pixel of each exposure.
    bands : ndarray of int, shape (my,)
        Number of the band of each strip.
    strips : list of slice
        Rows of each strip.

    Returns
    -------
    levels : Levels
        The solution.
    """
    known = count > 0
    # Average residuals, not pixels, since masks differ and the sky changes from pixel to pixel.
    means = np.divide(residuals, count, out=np.zeros_like(residuals), where=known)
    for index, strip in enumerate(means):
        strip += sky
        strip *= levels.scale[index]
        strip += levels.stripes[index, bands]
    total = np.tensordot(weight, count, axes=1)
    first = np.searchsorted(bands, np.arange(bands[-1] + 1))
    for _ in range(_MAX_ROUNDS):
        previous = levels.stripes
        sky = np.zeros_like(total)
        for index, strip in enumerate(means):
            sky += weight[index] * count[index] * levels.match(strip, bands, index)
        sky /= np.where(total > 0, total, 1)
        scale, stripes = [], []
        for strip, number, here in zip(means, count, known, strict=True):
            # Fit the level first, since stripes could absorb its signal.
            scale.append(np.median(strip[here] / sky[here]))
            left = np.where(here, strip - scale[-1] * sky, 0)
            sums, numbers = (np.add.reduceat(part, first) for part in (number * left, number))
            stripes.append(np.divide(sums, numbers, out=sums * np.nan, where=numbers > 0))
        scale, stripes = np.array(scale, np.float32), _fill_bands(np.array(stripes, np.float32))
        levels = Levels(scale / scale.mean(), stripes - stripes.mean(axis=0))
        if np.std(levels.stripes - previous) <= _SETTLED * np.std(previous):
            break
    if len(means) > 1:
        offsets = measure_band_offsets(sky, total, levels.stripes, bands, strips)
        levels.stripes += levels.scale[:, None, None] * offsets.astype(np.float32)
    return levels


def _fill_bands(stripes):
    """Replace unknown stripes (NaN), shape (n, n_bands, nx), by the mean of the other bands."""
    mean = np.nan_to_num(nanmean(stripes, axis=1))[:, None]
    return np.where(np.isfinite(stripes), stripes, mean)
