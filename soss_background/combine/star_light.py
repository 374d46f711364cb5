"""Model the star light that masks leave, from its motion.

The sky stands still on the detector, the stars move with the dither. Exposures are the sum of
both, and for all but the smoothest light there is only one way to split the sum, as in the
self-calibration of dithered data (Fixsen, Moseley & Arendt 2000, ApJS 128, 651). This finds the
faint wings of bright stars, which some or all exposures see at every pixel: masks of all of them
would leave nothing over.
"""

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2

from soss_background.cells import subtract_common_sky

__all__ = ["measure_dither", "model_star_light"]

# Rounds in which sky and stars are made of each other.
_ROUNDS = 10

# Exposures that a place in the star field must appear to have been seen in without any light:
# keeps the ill-determined rim of the field low.
_RELUCTANCE = 0.3

# Star light above this fraction of the sky counts no more in the search for the dither.
_BRIGHTEST = 0.1

# Smallest spread of the pointings, in cells, that tells stars from sky.
_MIN_DITHER = 2.0

# Smallest overlap of two exposures, as a fraction of one, in which stars are compared.
_MIN_OVERLAP = 0.3

# Deficit of a cell, in units of its noise, that tells that the light modelled is not there.
_MISSING = 5.0

# Fraction of the variance of an exposure's star light that the others must explain.
_MIN_EXPLAINED = 0.75


def model_star_light(cells, noise, sources):
    """
    Split dithered exposures into a sky that stands still and stars that move.

    Parameters
    ----------
    cells, noise : ndarray of float32, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN where there
        is none.
    sources : ndarray of bool, shape (n, my, mx)
        True for cells that are masked; they tell of the stars, and not of the sky.

    Returns
    -------
    light : ndarray of float32, shape (n, my, mx)
        Star light of each exposure in DN/s; 0 in exposures whose stars the others do not foretell,
        and in all if fewer than three are left, or if they are not dithered.
    """
    light = np.zeros_like(cells)
    if len(cells) < 3 or not sources.any():
        return light
    residuals, sky, levels = subtract_common_sky(cells, noise, sources)
    stars = np.where(sources, np.clip(residuals, 0, _BRIGHTEST * sky), 0)
    stars[~np.isfinite(residuals)] = np.nan
    dither = measure_dither(stars)
    alike = _find_alike(stars, dither)
    if not alike.any() or np.ptp(dither[alike], axis=0).max() < _MIN_DITHER:
        return light
    for _ in range(_ROUNDS):
        field = _Field((residuals + light / levels)[alike], dither[alike])
        light[alike] = levels[alike] * field.see_from_each()
        residuals, _, levels = subtract_common_sky(cells - light, noise, sources)
    # Not all light moves with the field: an order-0 image ends where its own field stop is.
    missing = (residuals < -_MISSING * noise) & ~sources
    missing = ndimage.binary_dilation(missing, np.ones((1, 5, 5), dtype=bool))
    return np.where(missing, 0, light)


def measure_dither(images):
    """
    Measure by how much the stars of exposures are displaced, by cross-correlation.

    The correlation is normalised by what overlaps (Padfield 2012, IEEE Trans. Image Process. 21,
    2706), so that large displacements are not at a disadvantage.

    Parameters
    ----------
    images : ndarray of float32, shape (n, my, mx)
        Star light of the exposures; NaN where it is unknown.

    Returns
    -------
    dither : ndarray of float, shape (n, 2)
        Displacement (rows, columns) of each exposure from the first, in cells.
    """
    known = np.isfinite(images)
    shape = [next_fast_len(2 * size) for size in images.shape[1:]]
    parts = [known, np.where(known, images, 0), np.where(known, images, 0) ** 2]
    one, value, square = (rfft2(part.astype(np.float32), shape) for part in parts)

    def correlate(first, second):
        return irfft2(first * second[0].conj(), shape)

    overlap = np.maximum(correlate(one, one), 0.5)
    mean, mean_first = correlate(value, one) / overlap, correlate(one, value) / overlap
    variance = correlate(square, one) / overlap - mean**2
    variance_first = correlate(one, square) / overlap - mean_first**2
    covariance = correlate(value, value) / overlap - mean * mean_first
    spread = np.sqrt(np.maximum(variance, 0) * np.maximum(variance_first, 0))
    enough = (overlap > _MIN_OVERLAP * known[0].size) & (spread > 0)
    likeness = np.divide(covariance, spread, out=np.zeros_like(spread), where=enough)
    return np.array([_find_peak(image) for image in likeness])


def _find_peak(image):
    """Locate the peak of a periodic image to a fraction of a cell, by parabolas."""
    peak = np.unravel_index(np.argmax(image), image.shape)
    place = []
    for axis, index in enumerate(peak):
        size = image.shape[axis]
        line = np.moveaxis(image, axis, 0)[:, peak[1 - axis]]
        before, here, after = line[index - 1], line[index], line[(index + 1) % size]
        curvature = before - 2 * here + after
        offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
        place.append(index + offset - (size if index > size // 2 else 0))
    return place


def _find_alike(stars, dither):
    """Find the exposures whose stars are foretold by those of the others."""
    alike = np.ones(len(stars), dtype=bool)
    while alike.sum() >= 3:
        explained = _Field(stars[alike], dither[alike]).foretell()
        if explained.min() > _MIN_EXPLAINED:
            return alike
        alike[np.flatnonzero(alike)[explained.argmin()]] = False
    return np.zeros(len(stars), dtype=bool)


class _Field:
    """
    The moving field of stars, as exposures see it.

    Parameters
    ----------
    images : ndarray of float32, shape (n, my, mx)
        Star light of the exposures; NaN where it is unknown.
    dither : ndarray of float, shape (n, 2)
        Displacement of each exposure in cells.
    """

    def __init__(self, images, dither):
        self.images = images
        known = np.isfinite(images)
        corner = np.floor(-dither.max(axis=0))
        shape = tuple(np.ceil(images.shape[1:] - dither.min(axis=0) - corner).astype(int))
        self.shifts = dither + corner
        self.light, self.weight = (
            [_shift(part, shift, shape) for part, shift in zip(parts, self.shifts, strict=True)]
            for parts in (np.where(known, images, 0), known.astype(np.float32))
        )
        self.total_light, self.total_weight = sum(self.light), sum(self.weight)

    def see_from_each(self):
        """See the mean field from the pointing of each exposure; light is positive."""
        mean = np.maximum(self.total_light / (self.total_weight + _RELUCTANCE), 0)
        return np.array([_shift(mean, -shift, self.images.shape[1:]) for shift in self.shifts])

    def foretell(self):
        """Tell which fraction of the variance of each exposure the others explain."""
        explained = []
        parts = zip(self.images, self.light, self.weight, self.shifts, strict=True)
        for image, light, weight, shift in parts:
            weight = self.total_weight - weight
            mean = (self.total_light - light) / np.maximum(weight, 1)
            seen = _shift(weight, -shift, image.shape) > 1
            both = seen & np.isfinite(image)
            actual, foretold = image[both], _shift(mean, -shift, image.shape)[both]
            variance = np.var(actual) if both.any() else 0
            explained.append(1 - np.var(actual - foretold) / variance if variance > 0 else 0)
        return np.array(explained)


def _shift(image, shift, shape):
    """Look at an image from a place displaced by a shift; 0 where it does not reach."""
    return ndimage.affine_transform(image, np.ones(2), shift, shape, order=1)
