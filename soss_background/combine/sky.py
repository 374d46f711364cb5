"""Combine dithered exposures into one sky."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from stcal.outlier_detection.median import nanmedian3D
from stdatamodels.jwst.datamodels import dqflags

from soss_background.smoothing import fill_gaps

__all__ = ["CombinedSky", "combine_exposures"]

# Rounds of sky, levels and stripes: the first starts from the median, the others refine it.
_ROUNDS = 3

# Rows among which a hot pixel is looked for: the sky is smooth along columns, steps across them.
_NEIGHBOURS = 9


@dataclass
class CombinedSky:
    """
    The sky of a set of exposures, and what it was made of.

    Attributes
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty in DN/s; 0 on reference pixels.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags of the sky.
    images : ndarray of float32, shape (n, ny, nx)
        The exposures in DN/s, brought to the common level, without offsets and stripes.
    left_out : ndarray of bool, shape (n, ny, nx)
        True where a pixel of an exposure was not used.
    scale : ndarray of float, shape (n,)
        Level of each exposure relative to their mean.
    offset : ndarray of float, shape (n,)
        Median over the columns of what was subtracted from each exposure, in DN/s.
    """

    sky: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    images: np.ndarray
    left_out: np.ndarray
    scale: np.ndarray
    offset: np.ndarray


def combine_exposures(images, errors, flags, usable, *, n_sigma=5.0, hot_sigma=6.0):
    """
    Average exposures at a common level, free of stripes, outliers and hot pixels.

    Each exposure is modelled as ``scale * sky + stripes(column)``, where the scales have a mean of
    one and what all exposures share in a column belongs to the sky. The weights are one number
    an exposure, since weights that follow the noisy error of each pixel bias the sky low.

    Parameters
    ----------
    images, errors : ndarray of float32, shape (n, ny, nx)
        Exposures and their 1-sigma uncertainties in DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags of the exposures.
    usable : ndarray of bool, shape (n, ny, nx)
        True for pixels of an exposure that show the sky: neither bad nor star light.
    n_sigma : float
        Deviation from the sky, in units of its uncertainty, above which a sample is left out.
    hot_sigma : float
        Deviation from its neighbours in the column above which a pixel of the sky is hot.

    Returns
    -------
    combined : CombinedSky
        The sky and its parts.
    """
    levels, sky = _first_levels(images, usable)
    for _ in range(_ROUNDS):
        levels, clean = _solve_levels(images, errors, usable, sky, levels, n_sigma)
        matched = levels.match(images)
        weight = 1 / np.array([np.median(e[use]) for e, use in zip(errors, usable, strict=True)])
        sky, total = _weighted_mean(matched, weight**2, clean)

    excess = _noise_excess(matched, errors, clean, sky, weight**2, total)
    samples = zip(weight, excess, errors, clean, strict=True)
    variance = sum(np.where(use, (w**2 * e * err) ** 2, 0) for w, e, err, use in samples)
    measured = total > 0
    err = np.sqrt(variance) / np.where(measured, total, 1)
    err[~measured] = np.max(excess / weight)

    dq = _common_flags(flags, measured)
    reference = dq & dqflags.pixel["REFERENCE_PIXEL"] > 0
    sky = fill_gaps(sky, measured)
    dq |= _flag_outlying_pixels(sky, err, measured, hot_sigma)
    for array in (sky, err, *matched):
        array[reference] = 0
    return CombinedSky(sky, err, dq, matched, ~clean, levels.scale, levels.offset)


@dataclass
class _Levels:
    """Scale (n,) and stripes (n, nx) of exposures."""

    scale: np.ndarray
    stripes: np.ndarray

    @property
    def offset(self):
        """Median of each exposure's stripes."""
        return np.median(self.stripes, axis=1)

    def match(self, images):
        """Bring exposures to the common level."""
        return (images - self.stripes[:, None]) / self.scale[:, None, None]


def _first_levels(images, usable):
    """Guess levels from each exposure's median, and the sky as the median of the exposures."""
    scale = np.array(
        [np.median(image[use]) for image, use in zip(images, usable, strict=True)], dtype=np.float32
    )
    scale /= scale.mean()
    levels = _Levels(scale, np.zeros_like(images[:, 0]))
    return levels, nanmedian3D(np.where(usable, levels.match(images), np.nan))


def _solve_levels(images, errors, usable, sky, levels, n_sigma):
    """Measure levels and stripes against a sky, and find the samples that agree with it."""
    scale, stripes, clean = [], [], []
    for image, err, use, stripe in zip(images, errors, usable, levels.stripes, strict=True):
        ratio = np.median(((image - stripe) / sky)[use & np.isfinite(sky)])
        residual = image - ratio * sky
        good = use & (np.abs(residual - stripe) < n_sigma * err)
        count = np.maximum(good.sum(axis=0), 1)
        scale.append(ratio)
        stripes.append(np.sum(residual, axis=0, where=good) / count)
        clean.append(good)
    scale = np.array(scale, dtype=np.float32)
    stripes = np.array(stripes, dtype=np.float32)
    return _Levels(scale / scale.mean(), stripes - stripes.mean(axis=0)), np.array(clean)


def _weighted_mean(images, weight, usable):
    """Average exposures; return the mean, NaN where there is none, and the sum of the weights."""
    samples = list(zip(images, weight.astype(np.float32), usable, strict=True))
    total = sum(w * use for _, w, use in samples)
    weighted = sum(np.where(use, w * image, 0) for image, w, use in samples)
    return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0), total


def _noise_excess(images, errors, usable, sky, weight, total):
    """Compare the scatter of each exposure about the sky with its errors."""
    excess = []
    for image, err, use, w in zip(images, errors, usable, weight, strict=True):
        # An exposure is part of the sky it is compared with; alone, it is the sky.
        shared = use & (total > 1.001 * w)
        expected = err[shared] * np.sqrt(1 - w / total[shared])
        deviation = np.abs(image[shared] - sky[shared]) / expected
        excess.append(1.4826 * np.median(deviation) if shared.any() else 1.0)
    return np.array(excess)


def _common_flags(flags, measured):
    """Keep the flags that all exposures share; DO_NOT_USE tells where nothing was measured."""
    dq = np.bitwise_and.reduce(flags, axis=0)
    do_not_use = dqflags.pixel["DO_NOT_USE"]
    return np.where(measured, dq & ~np.uint32(do_not_use), dq | np.uint32(do_not_use))


def _flag_outlying_pixels(sky, err, measured, n_sigma):
    """Flag pixels that stand out of their column: what stands still is not star light."""
    neighbours = ndimage.median_filter(sky, size=(_NEIGHBOURS, 1))
    deviation = np.where(measured, sky - neighbours, 0)
    dq = np.zeros(sky.shape, dtype=np.uint32)
    dq[deviation > n_sigma * err] = dqflags.pixel["HOT"]
    dq[deviation < -n_sigma * err] = dqflags.pixel["OTHER_BAD_PIXEL"]
    return dq
