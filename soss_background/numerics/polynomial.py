"""Polynomials through points of which some are outliers."""

import numpy as np
from astropy.stats import sigma_clip

__all__ = ["fit_clipped"]


def fit_clipped(x, y, used, *, degree, n_sigma, iterations):
    """
    Fit a polynomial, leave out what deviates from it, and fit again.

    Parameters
    ----------
    x, y : ndarray of float, shape (n,)
        The points.
    used : ndarray of bool, shape (n,)
        True for those that may be used.
    degree : int
        Degree of the polynomial.
    n_sigma : float
        Points that deviate by more (robust) standard deviations are left out.
    iterations : int
        Number of times that is done.

    Returns
    -------
    fit : `~numpy.polynomial.Polynomial` or None
        The polynomial; None if there are too few points, fewer than twice the coefficients.
    fitted : ndarray of bool, shape (n,)
        True for the points that it was fitted to.
    """
    used = np.array(used)
    for _ in range(iterations + 1):
        if np.count_nonzero(used) < 2 * (degree + 1):
            return None, np.zeros_like(used)
        fit, fitted = np.polynomial.Polynomial.fit(x[used], y[used], degree), used.copy()
        residual = y[used] - fit(x[used])
        clipped = sigma_clip(residual, sigma=n_sigma, maxiters=1, stdfunc="mad_std").mask
        if not clipped.any():
            break
        used[np.flatnonzero(used)[clipped]] = False
    return fit, fitted
