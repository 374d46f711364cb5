"""Smooth light between the orders."""

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian
from scipy.interpolate import BSpline
from scipy.linalg import solve
from scipy.ndimage import gaussian_filter

from soss_background.numerics.cells import gather_blocks
from soss_background.numerics.robust import MAD_TO_SIGMA

__all__ = ["free_pixels", "fit_light"]

# Rows and columns of the cells whose medians are fitted, and least usable fraction of a cell.
_CELL, _SEEN = (8, 32), 0.3
# Distance of the knots, pixels, and weight of squared second differences.
_KNOTS, _STIFFNESS = 64, 0.1
# Cells brighter than the fit by this many standard deviations are rejected as stars.
_CLIP, _ITERATIONS = 3.0, 4


def free_pixels(shape, rows, distance):
    """Return a mask (ny, nx): True at least ``distance`` pixels from the ``rows`` of all traces."""
    free = np.ones(shape, dtype=bool)
    for row in rows:
        free &= ~(np.abs(np.arange(shape[0])[:, np.newaxis] - row) < distance)
    return free


def fit_light(image, free, *, degree, smoothing):
    """
    Fit a smoothing B-spline to the light between the orders.

    The spline has knots about 64 pixels apart and is fitted to medians of cells of 8 x 32 pixels.
    A penalty on second differences of neighbouring coefficients keeps it smooth below the traces
    (Eilers & Marx 1996, Stat. Sci. 11, 89). Bright cells are rejected as stars.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates without sky, DN/s; NaN where there is no measurement.
    free : ndarray of bool, shape (ny, nx)
        True for pixels between the orders.
    degree : int
        Degree of the spline, 1 to 5.
    smoothing : float
        Standard deviation of a Gaussian that smooths the result, pixels; 0 for none.

    Returns
    -------
    light : ndarray of float32, shape (ny, nx)
        The fit, DN/s.

    Raises
    ------
    ValueError
        If there are too few pixels between the orders.
    """
    y, x, value, error = _bin(np.where(free, image, np.nan))
    if len(value) < 2 * (degree + 1) ** 2:
        raise ValueError("too few pixels between the orders")
    rows, columns = (_basis(place, n, degree) for place, n in zip((y, x), image.shape, strict=True))
    design = (rows[:, :, np.newaxis] * columns[:, np.newaxis]).reshape(len(value), -1)
    penalty = _penalty(rows.shape[1], columns.shape[1])
    used = np.ones(len(value), dtype=bool)
    for _ in range(_ITERATIONS):
        if np.count_nonzero(used) < 2 * (degree + 1) ** 2:
            raise ValueError("too few pixels between the orders")
        weight = used * np.median(error[used]) ** 2 / error**2
        matrix = design.T @ (weight[:, np.newaxis] * design) + _STIFFNESS * penalty
        coefficients = solve(matrix, design.T @ (weight * value), assume_a="pos")
        residual = (value - design @ coefficients) / error
        used = residual < _CLIP * max(mad_std(residual[used]), 1)
    coefficients = coefficients.reshape(rows.shape[1], columns.shape[1])
    along_y, along_x = (_basis(np.arange(n), n, degree) for n in image.shape)
    light = along_y @ coefficients @ along_x.T
    if smoothing:
        light = gaussian_filter(light, smoothing, mode="nearest")
    return light.astype(np.float32)


def _basis(place, length, degree):
    """Compute the B-splines of an axis."""
    number = max(round(length / _KNOTS), 1)
    knots = np.arange(-degree, number + degree + 1) * ((length - 1) / number)
    # Rounding may place the last knot slightly before the last pixel.
    place = np.clip(place, 0, knots[number + degree])
    return BSpline.design_matrix(place, knots, degree).toarray()


def _penalty(rows, columns):
    """Compute the penalty on second differences of neighbouring coefficients."""
    along_y, along_x = (np.diff(np.eye(n), 2, axis=0) for n in (rows, columns))
    penalty = np.kron(along_y.T @ along_y, np.eye(columns))
    return penalty + np.kron(np.eye(rows), along_x.T @ along_x) + 1e-6 * np.eye(rows * columns)


def _bin(image):
    """Return positions, values and errors of the medians of the cells of an image."""
    (ny, nx), (high, wide) = image.shape, _CELL
    cells = gather_blocks(image[: ny // high * high, : nx // wide * wide], _CELL)
    number = np.sum(np.isfinite(cells), axis=2)
    seen = number > _SEEN * high * wide
    value = nanmedian(cells, axis=2)
    scatter = MAD_TO_SIGMA * nanmedian(np.abs(cells - value[..., np.newaxis]), axis=2)
    # A median is noisier than a mean.
    error = np.sqrt(np.pi / 2) * scatter / np.sqrt(np.maximum(number, 1))
    seen &= error > 0
    row, column = np.nonzero(seen)
    places = (row + 0.5) * high - 0.5, (column + 0.5) * wide - 0.5
    return *places, value[seen], error[seen]
