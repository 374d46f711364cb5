"""Smoothing that knows of gaps and weights."""

import numpy as np
from scipy import ndimage

__all__ = ["fill_gaps", "smooth"]


def smooth(image, weight, sigma):
    """
    Smooth an image with a Gaussian, each pixel by its weight.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Values, finite where the weight is positive.
    weight : ndarray of float32, shape (ny, nx)
        Weights; 0 leaves a pixel out.
    sigma : tuple of float
        Standard deviation of the Gaussian along columns and rows, in pixels.

    Returns
    -------
    smoothed : ndarray of float32, shape (ny, nx)
        Weighted means; NaN where no weight is near.
    coverage : ndarray of float32, shape (ny, nx)
        Smoothed weights.
    """
    coverage = ndimage.gaussian_filter(weight, sigma, mode="constant")
    weighted = ndimage.gaussian_filter(
        np.where(weight > 0, image, 0) * weight, sigma, mode="constant"
    )
    near = coverage > 1e-6 * weight.max()
    return np.divide(weighted, coverage, out=np.full_like(image, np.nan), where=near), coverage


def fill_gaps(image, known, sigma=(8.0, 1.0)):
    """
    Fill gaps with the mean of their surroundings, first of the nearest ones.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Values.
    known : ndarray of bool, shape (ny, nx)
        True where the value is to be kept.
    sigma : tuple of float
        Standard deviation of the first Gaussian along columns and rows, in pixels; it doubles
        until nothing is left to fill.

    Returns
    -------
    filled : ndarray of float32, shape (ny, nx)
        The image without gaps.

    Raises
    ------
    ValueError
        If nothing is known.
    """
    if not known.any():
        raise ValueError("an image without known pixels cannot be filled")
    filled, known = image.copy(), known.copy()
    sigma = np.array(sigma)
    while not known.all():
        smoothed, coverage = smooth(filled, known.astype(np.float32), sigma)
        near = ~known & (coverage > 0.01)
        filled[near] = smoothed[near]
        known |= near
        sigma *= 2
    return filled
