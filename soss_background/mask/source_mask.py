"""Find the light of field stars in exposures of the sky.

Star light is positive, stretches along rows and moves with the dither; the sky stands still. All
is done on *cells*, blocks of some pixels: star light is much wider than a cell, and a cell's noise
is already small.
"""

import numpy as np
from scipy import ndimage
from scipy.stats import norm
from stcal.outlier_detection.median import nanmedian3D

__all__ = ["bin_to_cells", "expand_cells", "find_sources"]

# Rows and columns of pixels in a cell.
CELL = (4, 8)

# Noise of the mean of the middle half of normal values, relative to that of the mean of all.
_TRIMMED_NOISE = 1.09

# Gaussian smoothing (rows, columns) in cells: from a compact order-0 image to the faint wings
# along a trace.
_SCALES = ((0.7, 0.7), (1.0, 4.0), (2.0, 12.0), (6.0, 12.0))

# Height in cells of the bands in which a single exposure's own sky is estimated.
_BAND = 64

# Masks have settled when a smaller fraction of the cells changes.
_SETTLED = 1e-3

# Rounds in which the levels of exposures and their median are made of each other.
_LEVEL_ROUNDS = 4

# Accuracy of a single exposure's own sky, as a fraction of it.
_OWN_SKY_FRACTION = 0.03

# Exposures whose levels differ by a larger fraction do not show the same sky.
_MAX_LEVEL_DIFFERENCE = 0.5


def bin_to_cells(image, err, usable, cell=CELL):
    """
    Reduce an image to robust means of cells.

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        Count rates and their 1-sigma uncertainties in DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels that may be used.
    cell : tuple of int
        Rows and columns of a cell; cells at the far edges may be smaller.

    Returns
    -------
    means : ndarray of float32, shape (my, mx)
        Mean of the middle half of the usable pixels of each cell in DN/s: a hot pixel or a cosmic
        ray does not move it. NaN where fewer than a quarter are usable.
    noise : ndarray of float32, shape (my, mx)
        1-sigma uncertainty of the means in DN/s.
    """
    values = np.sort(_blocks(np.where(usable, image, np.nan), cell), axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    low = count // 4
    order = np.arange(values.shape[-1])
    middle = (order >= low) & (order < count - low)
    enough = count >= values.shape[-1] // 4
    total = np.sum(values, axis=-1, keepdims=True, where=middle, dtype=np.float32)
    means = np.divide(
        total, count - 2 * low, out=np.full_like(total, np.nan), where=enough & (count > 2 * low)
    )
    variance = np.nansum(_blocks(np.where(usable, err**2, 0), cell), axis=-1, keepdims=True)
    noise = _TRIMMED_NOISE * np.sqrt(variance) / np.maximum(count, 1)
    return means[..., 0], np.where(enough, noise, np.nan)[..., 0].astype(np.float32)


def expand_cells(cells, shape, cell=CELL):
    """
    Spread the values of cells over their pixels.

    Parameters
    ----------
    cells : ndarray, shape (my, mx)
        Values of cells.
    shape : tuple of int
        Shape (ny, nx) of the image.
    cell : tuple of int
        Rows and columns of a cell.

    Returns
    -------
    image : ndarray, shape (ny, nx)
        The values of the cells in their pixels.
    """
    return cells.repeat(cell[0], axis=0).repeat(cell[1], axis=1)[: shape[0], : shape[1]]


def find_sources(cells, noise, *, n_sigma=4.0, min_fraction=0.003, grow=1, max_rounds=6):
    """
    Mask star light in exposures of one sky.

    The first sky is a low-order statistic of the exposures, since in a crowded field the median
    is star light; then sky and masks are made of each other until the masks stay. Without a
    second exposure of the same sky, the sky is taken from the exposure's own columns.

    Parameters
    ----------
    cells, noise : ndarray of float, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN where there
        is none.
    n_sigma : float
        Significance above which smoothed light is a source, in units of its noise.
    min_fraction : float
        Surface brightness above which light is a source, as a fraction of the sky.
    grow : int
        Cells by which a mask grows in each direction.
    max_rounds : int
        Rounds of sky and masks at the most.

    Returns
    -------
    sources : ndarray of bool, shape (n, my, mx)
        True where there is star light.
    """
    noise = np.array([_scatter(*pair) for pair in zip(cells, noise, strict=True)])
    if len(cells) == 1 or not _same_sky(cells):
        skies = [_column_sky(*pair) for pair in zip(cells, noise, strict=True)]
        return np.array(
            [
                _detect(image - sky, sigma, n_sigma, _OWN_SKY_FRACTION * np.abs(sky), grow)
                for image, sky, sigma in zip(cells, skies, noise, strict=True)
            ]
        )
    sources = np.zeros(cells.shape, dtype=bool)
    for _ in range(max_rounds):
        residuals, sky = _subtract_common_sky(cells, noise, sources)
        floor = min_fraction * np.abs(sky)
        found = np.array(
            [_detect(*pair, n_sigma, floor, grow) for pair in zip(residuals, noise, strict=True)]
        )
        if np.mean(found != sources) < _SETTLED:
            return found
        sources = found
    return sources


def _scatter(image, noise):
    """Scale the expected noise of cells to the scatter that neighbours in a column show."""
    excess = np.diff(image, axis=0) / np.sqrt(noise[1:] ** 2 + noise[:-1] ** 2)
    return noise * 1.4826 * np.nanmedian(np.abs(excess))


def _same_sky(cells):
    """Tell whether exposures are alike enough to be compared with each other."""
    levels = np.array([np.nanmedian(image) for image in cells])
    return np.all(np.abs(levels / np.median(levels) - 1) < _MAX_LEVEL_DIFFERENCE)


def _subtract_common_sky(cells, noise, sources):
    """Subtract from each exposure the sky of all, at its own level, and what is left in columns."""
    clean = np.where(sources, np.nan, cells)
    levels = np.ones((len(cells), 1, 1), dtype=np.float32)
    for _ in range(_LEVEL_ROUNDS):
        # The exposures that show a cell differ from cell to cell, hence their levels come first.
        reference = nanmedian3D(clean / levels)
        levels[:, 0, 0] = [np.nanmedian(image / reference) for image in clean]
    matched = cells / levels
    off_source = np.where(sources, np.nan, matched - reference)
    matched -= np.nan_to_num(nanmedian3D(off_source.swapaxes(0, 1)))[:, None]
    sky = _lowest_third(matched, noise)
    if sources.any():
        count = np.sum(np.isfinite(matched) & ~sources, axis=0)
        total = np.nansum(np.where(sources, 0, matched), axis=0)
        sky = np.divide(total, count, out=sky, where=count > 0)
    return matched - sky, sky


def _lowest_third(images, noise):
    """Average the lowest third of the exposures, freed of the bias that noise gives it."""
    n = len(images)
    lowest = max(1, round(n / 3))
    # Blom's approximation to the expected values of ordered normal deviates.
    bias = norm.ppf((np.arange(1, lowest + 1) - 0.375) / (n + 0.25)).mean()
    ordered = np.sort(images, axis=0)[:lowest]
    return np.mean(ordered, axis=0) - bias * np.nanmean(noise)


def _column_sky(image, noise):
    """Trace the lower quartile of each column, in bands of rows, freed of the bias of noise."""
    my, mx = image.shape
    centres, profiles = [], []
    for rows in np.array_split(np.arange(my), max(1, my // _BAND)):
        known = np.isfinite(image[rows]).any(axis=0)
        if known.any():
            quartile = np.nanpercentile(image[rows][:, known], 25, axis=0)
            profiles.append(np.interp(np.arange(mx), np.flatnonzero(known), quartile))
            centres.append(rows.mean())
    columns = [np.interp(np.arange(my), centres, column) for column in np.array(profiles).T]
    return np.array(columns).T - norm.ppf(0.25) * np.nanmean(noise)


def _detect(residual, noise, n_sigma, floor, grow):
    """Find what stands out of an exposure's residual on any of the scales of star light."""
    known = np.isfinite(residual)
    found = np.zeros(residual.shape, dtype=bool)
    for scale in _SCALES:
        # What a smaller scale has found would shine into its surroundings on a larger one.
        smooth, sigma = _smooth(residual, noise, known & ~found, scale)
        new = known & (smooth > np.maximum(n_sigma * sigma, floor))
        found |= ndimage.binary_dilation(new, iterations=grow) if grow else new
    return found


def _smooth(values, noise, known, scale):
    """Smooth what is known with a Gaussian, and propagate its noise."""

    def smooth(image, sigmas):
        return ndimage.gaussian_filter(np.where(known, image, 0), sigmas, mode="constant")

    coverage = np.maximum(smooth(1.0, scale), 1e-3)
    # The square of a Gaussian kernel is one that is narrower by the root of two.
    narrow = [sigma / np.sqrt(2) for sigma in scale]
    variance = smooth(noise**2, narrow) / (4 * np.pi * np.prod(scale))
    return smooth(values, scale) / coverage, np.sqrt(variance) / coverage


def _blocks(image, cell):
    """Gather the pixels of each cell along a last axis; what a cell lacks at an edge is NaN."""
    pad = [(0, -size % step) for size, step in zip(image.shape, cell, strict=True)]
    padded = np.pad(image.astype(np.float32), pad, constant_values=np.nan)
    my, mx = (size // step for size, step in zip(padded.shape, cell, strict=True))
    blocks = padded.reshape(my, cell[0], mx, cell[1]).swapaxes(1, 2)
    return blocks.reshape(my, mx, cell[0] * cell[1])
