"""Polynomials through points with outliers."""

import numpy as np
from astropy.modeling.fitting import FittingWithOutlierRemoval, LinearLSQFitter
from astropy.modeling.models import Polynomial1D
from astropy.stats import sigma_clip

__all__ = ["fit_clipped"]


def fit_clipped(x, y, used, *, degree, n_sigma, iterations):
    """Fit a polynomial with robust sigma clipping; return it (or None) and the points it used."""
    # Return None for fewer points than twice the number of coefficients.
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
