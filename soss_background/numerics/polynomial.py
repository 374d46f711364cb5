"""Polynomials through points with outliers."""

import numpy as np
from astropy.modeling.fitting import FittingWithOutlierRemoval, LinearLSQFitter
from astropy.modeling.models import Polynomial1D
from astropy.stats import sigma_clip

__all__ = ["fit_clipped"]


def fit_clipped(x, y, used, *, degree, n_sigma, iterations):
    """
    Fit a polynomial with sigma clipping.

    Parameters
    ----------
    x, y : ndarray of float, shape (n,)
        The points.
    used : ndarray of bool, shape (n,)
        True for points that may be used.
    degree : int
        Degree of the polynomial.
    n_sigma : float
        Points that deviate by more (robust) standard deviations are clipped.
    iterations : int
        Number of clippings.

    Returns
    -------
    fit : `~astropy.modeling.models.Polynomial1D` or None
        The polynomial; None if there are too few points, fewer than twice the coefficients.
    fitted : ndarray of bool, shape (n,)
        True for the points of the final fit.
    """
    fitted, fewest = np.array(used), 2 * (degree + 1)
    if np.count_nonzero(fitted) < fewest:
        return None, np.zeros_like(fitted)
    clipping = {"sigma": n_sigma, "maxiters": 1, "stdfunc": "mad_std"}
    fitter = FittingWithOutlierRemoval(LinearLSQFitter(), sigma_clip, iterations, **clipping)
    domain = x[fitted].min(), x[fitted].max()
    fit, clipped = fitter(Polynomial1D(degree, domain=domain), x[fitted], y[fitted])
    fitted[fitted] = ~clipped
    if np.count_nonzero(fitted) < fewest:
        return None, np.zeros_like(fitted)
    return fit, fitted
