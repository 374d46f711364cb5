"""What there is to see in the exposures of a skyflat, small enough to be drawn."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian

from soss_background.numerics.cells import gather_blocks

__all__ = ["PULL_EDGES", "View", "view_exposures"]

# Rows and columns of the blocks that become a pixel of a small image.
_BLOCK = (8, 8)

# Percentage of the blocks of an exposure that was not used that are darker than those that tell its
# level: its stars are not masked.
_DARKER = 25

# Bins in which normalised residuals are counted.
_PULL_BINS, _PULL_LIMITS = 160, (-8, 8)
PULL_EDGES = np.linspace(*_PULL_LIMITS, _PULL_BINS + 1)


class View(NamedTuple):
    """
    An exposure beside the sky that was made of it, in blocks of 8 x 8 pixels.

    Attributes
    ----------
    image : ndarray of float32, shape (my, mx)
        The exposure, medians in DN/s, at the level of the sky.
    masked : ndarray of float32, shape (my, mx)
        Part of each block that was left out.
    residual : ndarray of float32, shape (my, mx)
        The exposure minus the sky, medians in per cent of the sky's median, of the pixels that
        were used; of an exposure that was left out, of all pixels. NaN where there are none.
    pulls : ndarray of int, shape (160,)
        Number of residuals in units of their expected scatter, in bins with edges ``PULL_EDGES``.
    """

    image: np.ndarray
    masked: np.ndarray
    residual: np.ndarray
    pulls: np.ndarray


def view_exposures(images, masks, bkg, err, coverage):
    """
    Compare exposures with their sky; they are read one by one.

    Parameters
    ----------
    images : iterable of ndarray of float32, shape (ny, nx)
        The exposures that were combined, at their common level, DN/s.
    masks : iterable of ndarray of uint8, shape (ny, nx)
        1 where a pixel of an exposure was left out.
    bkg, err : ndarray of float32, shape (ny, nx)
        Their sky and its 1-sigma uncertainty, DN/s; a sky of 0 is none.
    coverage : ndarray of int, shape (ny, nx)
        Number of exposures that were used, see
        `soss_background.quality.metrics.count_samples`.

    Returns
    -------
    views : list of View
        One for each exposure.
    variation : ndarray of float32, shape (ny, nx)
        Coefficient of variation: standard deviation of the exposures at a pixel in per cent of
        the sky. NaN where fewer than two were used.
    """
    sky = np.where(bkg == 0, np.nan, bkg)
    level = nanmedian(sky)
    # An exposure is part of the sky that it is compared with.
    several = (coverage > 1) & (err > 0)
    scatter = np.where(several, err * np.sqrt(np.maximum(coverage - 1, 0)), np.nan)
    small_sky = _reduce(sky)
    squares, views = np.zeros_like(bkg), []
    for image, mask in zip(images, masks, strict=True):
        used = mask == 0
        rest = np.where(used, image - sky, np.nan)
        squares += np.nan_to_num(rest) ** 2
        pulls, _ = np.histogram(rest / scatter, _PULL_BINS, _PULL_LIMITS)
        small, residual = _reduce(image), _reduce(rest)
        if not used.any():
            # Nobody would see why it was left out in nothing.
            small = small / np.nanpercentile(small / small_sky, _DARKER)
            residual = small - small_sky
        masked = gather_blocks(mask, _BLOCK).mean(axis=-1)
        views.append(View(small, masked, 100 / level * residual, pulls))
    variance = np.divide(squares, coverage - 1, out=np.full_like(bkg, np.nan), where=coverage > 1)
    return views, 100 * np.sqrt(variance) / sky


def _reduce(image):
    """Take the medians of blocks."""
    return nanmedian(gather_blocks(image, _BLOCK), axis=-1)
