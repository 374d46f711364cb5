"""Exposures of a skyflat and their residuals, reduced to small images."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian

from soss_background.numerics.cells import gather_blocks

__all__ = ["PULL_EDGES", "View", "view_exposures"]

# Rows and columns of the blocks that become a pixel of a small image.
_BLOCK = (8, 8)

# Percentile of the blocks of an unused exposure that is its level, since its stars are not masked.
_DARKER = 25

# Bins in which normalised residuals are counted.
_PULL_BINS, _PULL_LIMITS = 160, (-8, 8)
PULL_EDGES = np.linspace(*_PULL_LIMITS, _PULL_BINS + 1)


class View(NamedTuple):
    """
    An exposure and its residual, in blocks of 8 x 8 pixels.

    Attributes
    ----------
    image : ndarray of float32, shape (my, mx)
        The exposure, medians in DN/s, at the level of the sky.
    masked : ndarray of float32, shape (my, mx)
        Fraction of each block that was left out.
    residual : ndarray of float32, shape (my, mx)
        The exposure minus the sky, medians in percent of the sky's median: of the used pixels, or
        of all if no pixel was used. NaN where there are none.
    pulls : ndarray of int, shape (160,)
        Number of residuals in units of their expected scatter, in bins with edges ``PULL_EDGES``.
    """

    image: np.ndarray
    masked: np.ndarray
    residual: np.ndarray
    pulls: np.ndarray


def view_exposures(images, masks, bkg, err, coverage):
    """
    Compare exposures, which are read one by one, with their sky.

    Parameters
    ----------
    images : iterable of ndarray of float32, shape (ny, nx)
        The combined exposures, at their common level, DN/s.
    masks : iterable of ndarray of uint8, shape (ny, nx)
        1 where a pixel of an exposure was left out.
    bkg, err : ndarray of float32, shape (ny, nx)
        Their sky and its 1-sigma uncertainty, DN/s; 0 where there is no sky.
    coverage : ndarray of int, shape (ny, nx)
        Number of exposures used, see `soss_background.quality.metrics.count_samples`.

    Returns
    -------
    views : list of View
        A view of each exposure.
    variation : ndarray of float32, shape (ny, nx)
        Coefficient of variation: standard deviation of the exposures at a pixel in percent of
        the sky. NaN where fewer than two were used.
    """
    sky = np.where(bkg == 0, np.nan, bkg)
    level = nanmedian(sky)
    # The residual of a sample is smaller than its error, since the sample contributes to the sky.
    several = (coverage > 1) & (err > 0)
    scatter = np.where(several, err * np.sqrt(np.maximum(coverage - 1, 0)), np.nan)
    small_sky = _reduce(sky)
    squares, views = np.zeros_like(bkg), []
    for image, mask in zip(images, masks, strict=True):
        used = mask == 0
        residuals = np.where(used, image - sky, np.nan)
        squares += np.nan_to_num(residuals) ** 2
        pulls, _ = np.histogram(residuals / scatter, _PULL_BINS, _PULL_LIMITS)
        small, residual = _reduce(image), _reduce(residuals)
        if not used.any():
            # Show all pixels, since none was used.
            small = small / np.nanpercentile(small / small_sky, _DARKER)
            residual = small - small_sky
        masked = gather_blocks(mask, _BLOCK).mean(axis=-1)
        views.append(View(small, masked, 100 / level * residual, pulls))
    variance = np.divide(squares, coverage - 1, out=np.full_like(bkg, np.nan), where=coverage > 1)
    return views, 100 * np.sqrt(variance) / sky


def _reduce(image):
    """Return the medians of blocks."""
    return nanmedian(gather_blocks(image, _BLOCK), axis=-1)
