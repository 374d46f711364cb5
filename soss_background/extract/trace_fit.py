"""Centroids of the traces of an exposure in slices, and polynomials through them."""

import numpy as np
from astropy.stats import median_absolute_deviation
from astropy.table import Table
from bottleneck import nanmax, nanmedian
from scipy.ndimage import map_coordinates

from soss_background.numerics.polynomial import fit_clipped

__all__ = ["fit_deviation", "measure_slices", "straighten"]

# Half of the rows used for a centroid, pixels; the trace is 22 pixels wide.
_CORE = 15
# Fraction of a slice, on each side, in which the background is measured.
_END = 0.15
_ITERATIONS = 8


def straighten(image, row, half_width):
    """Return an image along a trace, shape (2 * half_width + 1, nx); NaN where unknown."""
    rows = row + np.arange(-half_width, half_width + 1)[:, np.newaxis]
    known = np.isfinite(rows)
    columns = np.broadcast_to(np.arange(image.shape[1], dtype=float), rows.shape)
    samples = np.full(rows.shape, np.nan)
    places = np.array([rows[known], columns[known]])
    samples[known] = map_coordinates(image, places, order=1, cval=np.nan, prefilter=False)
    return samples


def measure_slices(image, row, crowded, *, number, length, width, n_mad):
    """
    Measure the centroids of a trace in slices along the dispersion.

    A slice is the median of neighbouring columns, straightened along the expected trace, which
    rejects stars and bad pixels. The centroid is iterated: it is that of the flux above the ends of
    the slice within 15 pixels of the previous centroid.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates of the target, DN/s; NaN where there is no measurement.
    row : ndarray of float, shape (nx,)
        Expected row of the trace; NaN beyond it.
    crowded : ndarray of bool, shape (nx,)
        True for columns in which another order is too near.
    number : int
        Number of slices.
    length, width : int
        Columns and rows of a slice.
    n_mad : float
        Least height of a trace above the background, in median absolute deviations of the ends.

    Returns
    -------
    slices : `~astropy.table.Table`
        ``column``, ``expected``, ``row`` (the centroid; NaN where there is none), ``peak`` (in
        median absolute deviations), ``crowded`` and ``detected`` of each slice.
    """
    columns = np.flatnonzero(np.isfinite(row))
    length = min(length, len(columns) // 2)
    centres = columns[np.linspace(length // 2, len(columns) - 1 - length // 2, number).astype(int)]
    half = width // 2
    samples = straighten(image, row, half)
    rows = []
    for centre in centres:
        near = samples[:, max(centre - length // 2, 0) : centre + length // 2 + 1]
        offset, peak = _centroid(nanmedian(near, axis=1), n_mad)
        found = np.isfinite(offset) and not crowded[centre]
        measured = row[centre] + offset if found else np.nan
        rows.append((centre, row[centre], measured, peak, crowded[centre], found))
    names = ("column", "expected", "row", "peak", "crowded", "detected")
    return Table(rows=rows, names=names, dtype=(int, float, float, float, bool, bool))


def _centroid(profile, n_mad):
    """Return the centroid of a slice relative to its middle, and the height of its peak."""
    half = len(profile) // 2
    number = max(round(_END * len(profile)), 2)
    ends = np.concatenate([profile[:number], profile[-number:]])
    if not np.isfinite(ends).any() or not np.isfinite(profile).any():
        return np.nan, np.nan
    background = nanmedian(ends)
    noise = median_absolute_deviation(ends, ignore_nan=True)
    peak = (nanmax(profile) - background) / noise if noise > 0 else np.nan
    if not peak >= n_mad:
        return np.nan, peak
    light = np.where(np.isfinite(profile), profile - background, 0)
    place = np.arange(-half, half + 1)
    centre = 0.0
    for _ in range(_ITERATIONS):
        # Fractional weights at the border of the core let the centroid move smoothly.
        weights = light * np.clip(_CORE + 0.5 - np.abs(place - centre), 0, 1)
        total = np.sum(weights)
        centre = np.sum(weights * place) / total if total else np.nan
        if not abs(centre) < half - 2:
            return np.nan, peak
    core = profile[np.abs(place - centre) <= _CORE]
    return (centre if np.isfinite(core).all() else np.nan), peak


def fit_deviation(slices, *, degree, n_sigma, iterations):
    """Fit row minus expected row, None if slices are too few; add ``used`` and ``residual``."""
    column, deviation = np.array(slices["column"]), np.array(slices["row"] - slices["expected"])
    settings = {"degree": degree, "n_sigma": n_sigma, "iterations": iterations}
    fit, slices["used"] = fit_clipped(column, deviation, slices["detected"], **settings)
    slices["residual"] = np.nan if fit is None else deviation - fit(column)
    return fit
