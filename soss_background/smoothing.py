"""Smoothing that knows of gaps and weights."""

import numpy as np
from scipy import ndimage

__all__ = ["MIN_COVERAGE", "fill_gaps", "smooth"]

# Share of a Gaussian that must fall on known pixels for their mean to be trusted.
MIN_COVERAGE = 0.01


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
    """
    coverage = ndimage.gaussian_filter(weight, sigma, mode="constant")
    values = np.where(weight > 0, image, 0) * weight
    values = ndimage.gaussian_filter(values, sigma, mode="constant")
    return np.divide(values, coverage, out=np.full_like(image, np.nan), where=coverage > 0)


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
        weight = known.astype(np.float32)
        coverage = ndimage.gaussian_filter(weight, sigma, mode="constant")
        near = ~known & (coverage > MIN_COVERAGE)
        filled[near] = smooth(filled, weight, sigma)[near]
        known |= near
        sigma *= 2
    return filled
