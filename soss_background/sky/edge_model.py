"""Position, width and shape of the edge of the sky, row by row.

The edge is one curve that bends slowly with the row and stands far above the noise of a column,
unlike 1/f stripes. It is measured in bands of rows, straightened, and averaged across the columns
that it crosses.
"""

from typing import NamedTuple

import numpy as np
from astropy.stats import mad_std
from scipy import ndimage

from soss_background.numerics.polynomial import fit_clipped

__all__ = ["EdgeModel", "trace_edge"]

# Rows of a band in which the edge is measured, and least number of bands.
_BAND, _LEAST_BANDS = 32, 8

# Smallest rise that is accepted as the edge: fraction of the sky, and significance among the rises
# at all columns. The real edge rises by half of the sky; second edges are at most 2 % high.
_LEAST_RISE, _SIGNIFICANCE = 0.05, 8.0

# Standard deviation of the Gaussian derivative that measures the rise at a column, in pixels.
_RISE_SCALE = 8.0

# Range of columns on both sides in which the shape of the edge is modelled, and its sampling.
_REACH, _SAMPLING = 60.0, 0.5

# Distances, in columns, between which the levels left and right of the edge are measured.
_SIDES = (25.0, 40.0)

# Columns on both sides in which displacements are measured, and number of iterations.
_NEAR, _ROUNDS = 20.0, 6

# The shape is smoothed by Gaussians of these widths at these distances from the edge, in columns:
# the sharp part is narrow, and stripes are not part of the edge.
_WIDTHS, _AT = (1.0, 3.0, 9.0), (8.0, 20.0, 40.0)

# Rows per degree of the polynomial in row, and largest degree: the edge moves by 6 columns over a
# quarter of the detector.
_ROWS_PER_DEGREE, _LARGEST_DEGREE, _WIDTH_DEGREE = 300, 7, 3


class EdgeModel(NamedTuple):
    """
    The edge of a sky.

    Attributes
    ----------
    column, width : ndarray of float, shape (ny,)
        Column of the edge in each row, and its width relative to that of ``rise``.
    distance, rise : ndarray of float, shape (k,)
        Distance from the edge in columns, and the fraction of its height there.
    """

    column: np.ndarray
    width: np.ndarray
    distance: np.ndarray
    rise: np.ndarray

    def image(self, columns):
        """Return the fraction of the edge's height at each pixel, float32, shape (ny, columns)."""
        pixels = np.arange(columns)
        rows = [
            np.interp((pixels - column) / width, self.distance, self.rise)
            for column, width in zip(self.column, self.width, strict=True)
        ]
        return np.array(rows, dtype=np.float32)


def trace_edge(sky, weight):
    """
    Measure the edge of a sky.

    Parameters
    ----------
    sky, weight : ndarray of float32, shape (ny, nx)
        The sky, finite, and the weights of its pixels, 0 where it is unknown.

    Returns
    -------
    edge : EdgeModel or None
        The edge; None if no rise of the sky is high and significant enough.
    """
    centres, profiles = _average_bands(sky, weight)
    first = _steepest_column(profiles)
    if first is None:
        return None
    column, width = np.full(len(profiles), first), np.ones(len(profiles))
    distance = np.arange(-_REACH, _REACH + _SAMPLING / 2, _SAMPLING)
    degree = min(1 + len(sky) // _ROWS_PER_DEGREE, _LARGEST_DEGREE)
    for _ in range(_ROUNDS):
        rises = _normalize(profiles, column, width, distance)
        shift, stretch = _measure_displacements(rises, distance)
        place = _follow(centres, column + width * shift, degree)
        widening = _follow(centres, np.log(width * stretch), min(degree, _WIDTH_DEGREE))
        if place is None or widening is None:
            return None
        column, width = place(centres), np.exp(widening(centres))
    rise = _smooth_rise(np.median(_normalize(profiles, column, width, distance), axis=0), distance)
    # A polynomial must not be extrapolated beyond the first and the last known band.
    half = len(sky) / _count_bands(len(sky)) / 2
    rows = np.clip(np.arange(len(sky)), centres[0] - half, centres[-1] + half)
    return EdgeModel(place(rows), np.exp(widening(rows)), distance, rise)


def _count_bands(rows):
    """Return the number of bands in a given number of rows."""
    return max(_LEAST_BANDS, rows // _BAND)


def _average_bands(sky, weight):
    """Return the middle row and the column profile of each band of rows, without gaps."""
    centres, profiles = [], []
    for rows in np.array_split(np.arange(len(sky)), _count_bands(len(sky))):
        total = weight[rows].sum(axis=0)
        known = np.flatnonzero(total)
        if known.size:
            mean = np.sum(sky[rows][:, known] * weight[rows][:, known], axis=0) / total[known]
            profiles.append(np.interp(np.arange(sky.shape[1]), known, mean))
            centres.append(rows.mean())
    return np.array(centres), np.array(profiles)


def _steepest_column(profiles):
    """Return the column of the highest rise of the sky, or None if none stands out."""
    profile = np.median(profiles, axis=0)
    margin = int(2 * _RISE_SCALE)
    rise = ndimage.gaussian_filter1d(profile, _RISE_SCALE, order=1, mode="nearest")
    rise = rise[margin:-margin] * _RISE_SCALE * np.sqrt(2 * np.pi) / np.median(profile)
    if rise.size == 0 or rise.max() < max(_LEAST_RISE, _SIGNIFICANCE * mad_std(rise)):
        return None
    return float(margin + np.argmax(rise))


def _normalize(profiles, column, width, distance):
    """Return the fraction of the edge's height at distances from it, in each band."""
    pixels = np.arange(profiles.shape[1])
    places = column[:, np.newaxis] + width[:, np.newaxis] * distance
    pairs = zip(places, profiles, strict=True)
    values = np.array([np.interp(place, pixels, profile) for place, profile in pairs])
    low, high = (
        values[:, (side * distance > _SIDES[0]) & (side * distance < _SIDES[1])].mean(axis=1)
        for side in (-1, 1)
    )
    height = np.maximum(high - low, 0.3 * np.median(high - low))
    return (values - low[:, np.newaxis]) / height[:, np.newaxis]


def _measure_displacements(rises, distance):
    """Return the shift in columns and the relative width of the edge in bands, shape (n,)."""
    rise = _smooth_rise(np.median(rises, axis=0), distance)
    slope = np.gradient(rise, _SAMPLING)
    near = np.abs(distance) < _NEAR
    basis = np.array([np.ones_like(rise), rise, slope, distance * slope])[:, near]
    _, height, shift, stretch = np.linalg.lstsq(basis.T, rises[:, near].T)[0]
    height = np.clip(height, 0.3, 3)
    return -shift / height, np.clip(1 - stretch / height, 0.7, 1.4)


def _follow(centres, values, degree):
    """Fit a polynomial in row, robustly; None if too few bands agree."""
    used = np.ones(len(values), dtype=bool)
    return fit_clipped(centres, values, used, degree=degree, n_sigma=4, iterations=3)[0]


def _smooth_rise(rise, distance):
    """Smooth the shape of the edge by twicing, more strongly farther from the edge."""
    smooth = []
    for width in _WIDTHS:
        first = ndimage.gaussian_filter1d(rise, width / _SAMPLING, mode="nearest")
        rest = ndimage.gaussian_filter1d(rise - first, width / _SAMPLING, mode="nearest")
        smooth.append(first + rest)
    # Interpolate between the widths by distance.
    place = np.interp(np.abs(distance), _AT, np.arange(len(_AT)))
    below = np.minimum(place.astype(int), len(_AT) - 2)
    index, share = np.arange(len(rise)), place - below
    smooth = np.array(smooth)
    return (1 - share) * smooth[below, index] + share * smooth[below + 1, index]
