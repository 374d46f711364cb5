"""Aperture along the trace of an order, and profile of the order across it."""

from typing import NamedTuple

import numpy as np
from astropy.stats import mad_std
from scipy.interpolate import BSpline
from scipy.linalg import solve
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array

__all__ = ["Band", "cut_band", "fit_profile"]

# Distance of the knots across the trace, pixels; degree of the spline.
_KNOTS, _DEGREE = 1.0, 3
# Robust standard deviations beyond which pixels are clipped, and number of fits.
_CLIP, _ITERATIONS = 6.0, 3
# Degree of a first fit, which clips field stars at the faint end of an order. The full degree
# follows such stars: without the first fit, order 2 of a simulated star is 4 to 5 % too faint. With
# a first degree of 1 or 4, its error stays below 0.1 %.
_ROUGH = 2
# Weight of the penalty relative to the pixels: small, so that it only matters where there are none.
_STIFFNESS = 1e-6


class Band(NamedTuple):
    """
    The pixels of an aperture along a trace; each row of the band is a column of the detector.

    Attributes
    ----------
    columns : ndarray of int, shape (n,)
        Detector columns of the trace.
    rows : ndarray of int, shape (n, m)
        Detector rows of the pixels, clipped to the detector.
    offset : ndarray of float, shape (n, m)
        Distance from the trace along the column, pixels.
    aperture : ndarray of float, shape (n, m)
        Fraction of the pixel that is in the aperture, 0 to 1.
    inside : ndarray of bool, shape (n, m)
        True for pixels on the detector.
    """

    columns: np.ndarray
    rows: np.ndarray
    offset: np.ndarray
    aperture: np.ndarray
    inside: np.ndarray

    @property
    def weight(self):
        """Fraction of each pixel in the aperture, shape (n, m); 0 beyond the detector."""
        return self.aperture * self.inside

    def take(self, image):
        """Return the pixels of the band, shape (..., n, m), of an image or cube (..., ny, nx)."""
        return image[..., self.rows, self.columns[:, np.newaxis]]


def cut_band(row, shape, half_width):
    """Return the `Band` within ``half_width`` pixels of a trace at ``row``, shape (nx,)."""
    columns = np.flatnonzero(np.isfinite(row))
    centre = row[columns, np.newaxis]
    reach = int(np.ceil(half_width + 0.5))
    rows = np.floor(centre + 0.5).astype(int) + np.arange(-reach, reach + 1)
    offset = rows - centre
    aperture = np.clip(half_width + 0.5 - np.abs(offset), 0, 1)
    inside = (rows >= 0) & (rows < shape[0])
    return Band(columns, np.clip(rows, 0, shape[0] - 1), offset, aperture, inside)


def fit_profile(light, variance, good, band, degree):
    """
    Fit the normalised profile of an order, which changes along the dispersion.

    The profile is a cubic spline in the distance from the trace, which the slope of the trace
    samples finely (Marsh 1989, PASP 101, 1032). Its coefficients are polynomials along the
    dispersion (Horne 1986, PASP 98, 609).

    Parameters
    ----------
    light, variance : ndarray of float, shape (n, m)
        Pixels of the band, DN/s, and their variances, (DN/s)^2.
    good : ndarray of bool, shape (n, m)
        True for pixels that hold a measurement.
    band : `Band`
        The aperture.
    degree : int
        Degree of the polynomials.

    Returns
    -------
    profile : ndarray of float, shape (n, m)
        Fraction of the flux in the aperture on each pixel. It is positive, and its sum over the
        aperture, also beyond the detector, is 1 in every column; flat if there is no flux.
    """
    good = good & band.inside
    for each in (min(degree, _ROUGH), degree):
        profile, good = _fit(light, variance, good, band, each)
    return _normalise(profile, band)


def _fit(light, variance, good, band, degree):
    """Fit polynomials of a degree; return the profile, and True for pixels that agree with it."""
    design = _design(band, _nearest(good), degree)
    penalty = _penalty(design.shape[1] // (degree + 1), degree)
    profile = np.ones_like(light)
    for _ in range(_ITERATIONS):
        profile = _normalise(profile, band)
        flux = _scale(light, variance, good, profile)
        bright = (flux > 0)[:, np.newaxis]
        if not (good & bright).any():
            break
        weights = np.where(good & bright, flux[:, np.newaxis] ** 2 / variance, 0).ravel()
        values = np.where(good & bright, light / np.where(bright, flux[:, np.newaxis], 1), 0)
        weighted = csr_array(design.multiply(weights[:, np.newaxis]))
        matrix = (weighted.T @ design).toarray()
        matrix += _STIFFNESS * np.trace(matrix) / len(matrix) * penalty
        coefficients = solve(matrix, weighted.T @ values.ravel(), assume_a="pos")
        profile = (design @ coefficients).reshape(light.shape)
        residual = (light - flux[:, np.newaxis] * profile) / np.sqrt(variance)
        good = good & (np.abs(residual) < _CLIP * max(mad_std(residual[good]), 1))
    return profile, good


def _penalty(splines, degree):
    """Compute the penalty on differences between the coefficients of neighbouring splines."""
    steps = np.diff(np.eye(splines), axis=0)
    return np.kron(steps.T @ steps, np.eye(degree + 1)) + 1e-3 * np.eye(splines * (degree + 1))


def _nearest(good):
    """Return, for each pixel, the index along the band of the nearest good one at its offset."""
    places = np.arange(len(good))
    nearest = np.tile(places[:, np.newaxis], good.shape[1])
    for across, known in enumerate(good.T):
        if known.any():
            nearest[:, across] = distance_transform_edt(
                ~known, return_distances=False, return_indices=True
            )[0]
    return nearest


def _design(band, nearest, degree):
    """Compute the design matrix: splines across the trace times polynomials along it."""
    reach = np.max(np.abs(band.offset)) + _KNOTS
    knots = np.arange(-reach - _DEGREE * _KNOTS, reach + (_DEGREE + 1) * _KNOTS, _KNOTS)
    across = BSpline.design_matrix(band.offset.ravel(), knots, _DEGREE).tocsr()
    # Beyond the fitted pixels, a polynomial keeps its value at the nearest one.
    place = 2 * (band.columns - band.columns[0]) / max(np.ptp(band.columns), 1) - 1
    along = np.polynomial.legendre.legvander(place, degree)[nearest.ravel()]
    # Row by row Kronecker product: each row has _DEGREE + 1 splines.
    number, splines = _DEGREE + 1, across.shape[1]
    data = across.data.reshape(-1, number, 1) * along[:, np.newaxis]
    indices = across.indices.reshape(-1, number, 1) * (degree + 1) + np.arange(degree + 1)
    pointers = np.arange(len(along) + 1) * number * (degree + 1)
    return csr_array(
        (data.ravel(), indices.ravel(), pointers), shape=(len(along), splines * (degree + 1))
    )


def _normalise(profile, band):
    """Return a positive profile whose sum over the aperture is 1."""
    profile = np.clip(profile, 1e-9, None)
    return profile / np.sum(band.aperture * profile, axis=1, keepdims=True)


def _scale(light, variance, good, profile):
    """Return the flux of each column that fits a profile best."""
    weights = np.where(good, profile / variance, 0)
    norm = np.sum(weights * profile, axis=1)
    return np.sum(weights * np.where(good, light, 0), axis=1) / np.where(norm > 0, norm, np.inf)
