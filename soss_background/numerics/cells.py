"""Bin exposures to cells, blocks of 4 rows and 8 columns of pixels.

An image of (ny, nx) pixels has (my, mx) cells, ny / 4 and nx / 8 rounded up. Stars and sky are much
wider than a cell. The mean of a cell has little noise and ignores hot pixels and cosmic rays.
"""

import itertools

import numpy as np
from astropy.nddata import block_replicate, reshape_as_blocks
from bottleneck import nanmean, nanmedian
from scipy.special import ndtri

from soss_background.numerics.threads import map_parallel, split_rows

__all__ = [
    "CELL",
    "bin_smooth",
    "bin_to_cells",
    "cell_bands",
    "covered_cells",
    "expand_cells",
    "expand_smoothly",
    "find_same_level",
    "gather_blocks",
    "subtract_common_sky",
]

# Rows and columns of pixels in a cell; cells at the last row and column may be smaller.
CELL = (4, 8)

# Rows of pixels that are reduced at a time, a multiple of those of a cell.
_ROWS = 64

# Noise of the mean of the middle half of normal values, relative to that of the mean of all values.
_TRIMMED_NOISE = 1.09

# Exposures whose levels differ by a larger fraction do not show the same sky.
_MAX_LEVEL_DIFFERENCE = 0.5

# Iterations between the levels of exposures and their median.
_LEVEL_ROUNDS = 4


def bin_to_cells(image, err, usable):
    """
    Reduce an image to robust means of cells.

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        Count rates and their 1-sigma uncertainties in DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels to use.

    Returns
    -------
    means, noise : ndarray of float32, shape (my, mx)
        Mean of the middle half of the usable pixels of each cell, and its 1-sigma uncertainty, in
        DN/s; NaN where fewer than a quarter are usable.
    """
    parts = map_parallel(
        lambda rows: _bin_rows(image[rows], err[rows], usable[rows]), split_rows(len(image), _ROWS)
    )
    means, noise = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(noise)


def _bin_rows(image, err, usable):
    """Reduce complete rows of cells, see `bin_to_cells`."""
    values = np.sort(gather_blocks(np.where(usable, image, np.nan)), axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    low = count // 4
    order = np.arange(values.shape[-1])
    middle = (order >= low) & (order < count - low)
    enough = count >= values.shape[-1] // 4
    total = np.sum(values, axis=-1, keepdims=True, where=middle, dtype=np.float32)
    means = np.divide(
        total, count - 2 * low, out=np.full_like(total, np.nan), where=enough & (count > 2 * low)
    )
    variance = np.nansum(gather_blocks(np.where(usable, err**2, 0)), axis=-1, keepdims=True)
    noise = _TRIMMED_NOISE * np.sqrt(variance) / np.maximum(count, 1)
    return means[..., 0], np.where(enough, noise, np.nan)[..., 0].astype(np.float32)


def cell_bands(bands):
    """Return slices of rows of cells for slices of rows of pixels."""
    edges = [round(band.start / CELL[0]) for band in bands] + [-(-bands[-1].stop // CELL[0])]
    return [slice(first, last) for first, last in itertools.pairwise(edges) if last > first]


def covered_cells(mask, usable):
    """Return True for cells, shape (my, mx), with more than half of the usable pixels masked."""
    return _count(mask & usable) > 0.5 * _count(usable)


def _count(pixels):
    """Count the True pixels of each cell; `block_reduce` takes four times as long."""
    pixels = _pad_to_blocks(pixels, CELL, False).view(np.uint8)
    rows = sum(pixels[first :: CELL[0]] for first in range(CELL[0]))
    return rows.reshape(len(rows), -1, CELL[1]).sum(axis=-1, dtype=np.uint8)


def gather_blocks(image, size=CELL):
    """Return blocks as float32, shape (my, mx, size[0] * size[1]); NaN beyond the image."""
    padded = _pad_to_blocks(image.astype(np.float32), size, np.nan)
    blocks = reshape_as_blocks(padded, size)
    return blocks.reshape(*blocks.shape[:2], -1)


def bin_smooth(image):
    """Return the mean of each cell, float32, shape (my, mx), without outlier rejection."""
    return nanmean(gather_blocks(image), axis=-1)


def _pad_to_blocks(image, size, value):
    """Pad an image to complete blocks."""
    rows, columns = (-length % side for length, side in zip(image.shape, size, strict=True))
    return np.pad(image, [(0, rows), (0, columns)], constant_values=value)


def expand_cells(cells, shape, size=CELL):
    """Copy the values of cells, shape (my, mx), to their pixels, shape (ny, nx)."""
    return block_replicate(cells, size, conserve_sum=False)[: shape[0], : shape[1]]


def expand_smoothly(cells, shape, size=CELL, rows=slice(None)):
    """Interpolate cells to pixels (``rows`` of ``shape``), linearly between the cells' centres."""
    pixels = np.arange(shape[0])[rows], np.arange(shape[1])
    for axis, length in enumerate(size):
        last = cells.shape[axis] - 1
        place = np.clip((pixels[axis] + 0.5) / length - 0.5, 0, last)
        below = place.astype(int)
        share = np.expand_dims((place - below).astype(np.float32), 1 - axis)
        low = cells.take(below, axis)
        high = cells.take(np.minimum(below + 1, last), axis)
        cells = low + share * (high - low)
    return cells


def find_same_level(cells):
    """Return True for exposures with medians within a factor of 0.5 to 1.5 of their median."""
    levels = np.array([nanmedian(image) for image in cells])
    return np.abs(levels / np.median(levels) - 1) < _MAX_LEVEL_DIFFERENCE


def subtract_common_sky(cells, noise, sources, bands=None):
    """
    Subtract the common sky from each exposure at its level, and then the median of each column.

    The median of a column is computed for each amplifier.

    Parameters
    ----------
    cells, noise : ndarray of float32, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN if missing.
    sources : ndarray of bool, shape (n, my, mx)
        True for cells with sources.
    bands : list of slice, optional
        Rows of cells of each amplifier; by default there is one.

    Returns
    -------
    residuals : ndarray of float32, shape (n, my, mx)
        Exposures without the sky, in DN/s at their common level.
    sky : ndarray of float32, shape (my, mx)
        Mean of the exposures outside of sources. In cells with sources in all exposures, and
        without known sources, the mean of the lowest third of the exposures, corrected for noise
        bias.
    levels : ndarray of float32, shape (n, 1, 1)
        Levels of the exposures.
    """
    clean = np.where(sources, np.nan, cells)
    levels = np.ones((len(cells), 1, 1), dtype=np.float32)
    for _ in range(_LEVEL_ROUNDS):
        # Divide by the levels before the median, since each cell is seen by different exposures.
        reference = nanmedian(clean / levels, axis=0)
        levels[:, 0, 0] = [nanmedian(image / reference) for image in clean]
    matched = cells / levels
    off_source = np.where(sources, np.nan, matched - reference)
    for band in bands or [slice(None)]:
        matched[:, band] -= np.nan_to_num(nanmedian(off_source[:, band], axis=1))[:, None]
    sky = _lowest_third(matched, noise)
    if sources.any():
        known = np.isfinite(matched) & ~sources
        count = known.sum(axis=0)
        total = np.sum(matched, axis=0, where=known)
        sky = np.divide(total, count, out=sky, where=count > 0)
    return matched - sky, sky, levels


def _lowest_third(images, noise):
    """Average the lowest third of the exposures, and correct for noise bias."""
    n = len(images)
    lowest = max(1, round(n / 3))
    # Blom's approximation to the expected values of ordered normal deviates.
    bias = ndtri((np.arange(1, lowest + 1) - 0.375) / (n + 0.25)).mean()
    ordered = np.sort(images, axis=0)[:lowest]
    return nanmean(ordered, axis=0) - bias * nanmean(noise)
