"""Denoise a sky that is smooth along columns and steps along rows."""

import numpy as np

from soss_background.smoothing import fill_gaps, smooth

__all__ = ["denoise_sky"]


def denoise_sky(sky, err, good, *, sigma=(12.0, 2.0)):
    """
    Smooth a sky by its weights, without blurring its step.

    A Gaussian blurs in proportion to the second derivative of the sky. What it took away is
    smoothed and given back (twicing, Tukey 1977), so that only the fourth derivative is left. It
    is much longer along columns, in which the step hardly moves.

    Parameters
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty in DN/s.
    good : ndarray of bool, shape (ny, nx)
        True for pixels that show the sky.
    sigma : tuple of float
        Standard deviation of the Gaussian along columns and rows, in pixels.

    Returns
    -------
    denoised : ndarray of float32, shape (ny, nx)
        The denoised sky in DN/s, finite everywhere.
    """
    weight = np.divide(1, err**2, out=np.zeros_like(err), where=good & (err > 0))
    weight /= weight.max()
    first, coverage = smooth(sky, weight, sigma)
    again, _ = smooth(sky - first, weight, sigma)
    known = np.isfinite(first) & (coverage > 0.01)
    return fill_gaps(first + again, known)
