"""Dither of exposures, measured from their stars, and the field of stars that they share."""

import numpy as np
from bottleneck import nanmean
from scipy.fft import irfft2, next_fast_len, rfft2

from soss_background.numerics.cells import gather_blocks
from soss_background.numerics.threads import map_parallel

__all__ = ["Mosaic", "find_alike", "measure_dither", "refine_dither"]

# Smallest overlap of two exposures, as a fraction of one, in which stars are compared.
_MIN_OVERLAP = 0.3

# Number of candidates for the reference exposure, and rows and columns of cells in the blocks used
# to choose it.
_CANDIDATES, _COARSE = 5, (2, 4)

# Iterations that improve the displacements.
_REFINEMENTS = 5

# Minimum fraction of the variance of an exposure's stars that the others must explain.
_MIN_EXPLAINED = 0.3


def measure_dither(images):
    """
    Measure the displacements of the stars of exposures by cross-correlation.

    The correlation is normalised by the overlap (Padfield 2012, IEEE Trans. Image Process. 21,
    2706): `scipy.signal.correlate` has no masks and favours small displacements.

    Parameters
    ----------
    images : ndarray of float32, shape (n, my, mx)
        Cells with the stars of the exposures; NaN where unknown.

    Returns
    -------
    dither : ndarray of float, shape (n, 2)
        Displacement (rows, columns) of each exposure from the first, in cells.
    """
    coarse = [nanmean(gather_blocks(image, _COARSE), axis=-1) for image in images]
    candidates = range(0, len(images), max(1, len(images) // _CANDIDATES))
    # The reference must see the same stars as most exposures.
    likeness = [np.median(_correlate(coarse, i, np.max)) for i in candidates]
    dither = np.array(_correlate(images, candidates[np.argmax(likeness)], _find_peak))
    return dither - dither[0]


def _correlate(images, reference, reduce):
    """Correlate each exposure with the reference at all displacements, and reduce each result."""
    whole = images[reference].shape
    # Displacements with less than the smallest overlap may wrap around.
    shape = [next_fast_len(int((2 - _MIN_OVERLAP) * size), real=True) for size in whole]

    def transform(image):
        known = np.isfinite(image)
        value = np.where(known, image, 0)
        return rfft2(np.array([known, value, value**2], dtype=np.float32), shape)

    def correlate(image):
        one, value, square = transform(image)
        products = [one * one_there, value * one_there, one * value_there]
        products += [square * one_there, one * square_there, value * value_there]
        correlated = irfft2(np.array(products), shape)
        overlap = np.maximum(correlated[0], 0.5)
        mean, mean_there, variance, variance_there, covariance = correlated[1:] / overlap
        variance = np.maximum(variance - mean**2, 0)
        variance_there = np.maximum(variance_there - mean_there**2, 0)
        spread = np.sqrt(variance * variance_there)
        enough = (overlap > _MIN_OVERLAP * np.prod(whole)) & (spread > 0)
        covariance -= mean * mean_there
        return reduce(np.divide(covariance, spread, out=np.zeros_like(spread), where=enough))

    one_there, value_there, square_there = transform(images[reference]).conj()
    return map_parallel(correlate, images)


def _find_peak(image):
    """Locate the peak of a periodic image to a fraction of a cell by fitting parabolas."""
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


def find_alike(stars, dither):
    """Return True for exposures whose stars the others predict, shape (n,); at least 3, or none."""
    alike = np.ones(len(stars), dtype=bool)
    while alike.sum() >= 3:
        explained = _explained_variance(stars[alike], dither[alike])
        if explained.min() > _MIN_EXPLAINED:
            return alike
        alike[np.flatnonzero(alike)[explained.argmin()]] = False
    return np.zeros(len(stars), dtype=bool)


def _explained_variance(stars, dither):
    """Return the fraction of the variance of each exposure's stars that the others explain."""
    known = np.isfinite(stars).astype(np.float32)
    stars = np.where(known, stars, 0)
    mosaic = Mosaic(dither, stars.shape[1:])
    light, weight = mosaic.gather(stars), mosaic.gather(known)
    explained = []
    for index, (image, here) in enumerate(zip(stars, known, strict=True)):
        others = weight - mosaic.place(index, here)
        mean = (light - mosaic.place(index, image)) / np.maximum(others, 1)
        both = (mosaic.look(index, others) > 1) & (here > 0)
        actual, predicted = image[both], mosaic.look(index, mean)[both]
        variance = np.var(actual) if both.any() else 0
        explained.append(1 - np.var(actual - predicted) / variance if variance > 0 else 0)
    return np.array(explained)


def refine_dither(stars, dither):
    """Improve displacements (n, 2), in cells, by the gradient of the common field of stars."""
    known = np.isfinite(stars).astype(np.float32)
    filled = np.where(known, stars, 0)
    for _ in range(_REFINEMENTS):
        mosaic = Mosaic(dither, stars.shape[1:])
        seen = np.maximum(mosaic.gather(known), 1)
        predicted = mosaic.see(mosaic.gather(filled) / seen)
        shifts = []
        for image, mean, here in zip(filled, predicted, known, strict=True):
            slopes = np.array([(slope * here).ravel() for slope in np.gradient(mean)])
            left = ((image - mean) * here).ravel()
            shifts.append(np.linalg.lstsq(slopes @ slopes.T, -slopes @ left)[0])
        # A common shift moves the field, not the exposures relative to each other.
        dither = dither + shifts - np.mean(shifts, axis=0)
    return dither


class Mosaic:
    """
    A field that displaced exposures see, larger than each of them, by bilinear interpolation.

    Parameters
    ----------
    dither : ndarray of float, shape (n, 2)
        Displacement (rows, columns) of each exposure in cells.
    shape : tuple of int
        Shape (my, mx) of the exposures.
    """

    def __init__(self, dither, shape):
        corners = dither.max(axis=0) - dither
        whole = np.floor(corners).astype(int)
        self.shape = tuple(whole.max(axis=0) + np.array(shape) + 1)
        self._views = []
        for (row, column), (high, right) in zip(whole, corners - whole, strict=True):
            self._views.append(
                [
                    (
                        np.s_[row + i : row + i + shape[0], column + j : column + j + shape[1]],
                        np.float32(abs(1 - i - high) * abs(1 - j - right)),
                    )
                    for i in (0, 1)
                    for j in (0, 1)
                ]
            )

    def look(self, index, field):
        """Return a field of the mosaic's shape at the pointing of one exposure."""
        return sum(weight * field[view] for view, weight in self._views[index])

    def place(self, index, image, field=None):
        """Add an exposure to a field, in place, at its pointing (the transpose of `look`)."""
        if field is None:
            field = np.zeros(self.shape, dtype=np.float32)
        for view, weight in self._views[index]:
            field[view] += weight * image
        return field

    def see(self, field):
        """Return a field at the pointings of all exposures."""
        return np.array([self.look(index, field) for index in range(len(self._views))])

    def gather(self, images):
        """Return the sum of all exposures, each at its pointing (the transpose of `see`)."""
        field = np.zeros(self.shape, dtype=np.float32)
        for index, image in enumerate(images):
            self.place(index, image, field)
        return field
