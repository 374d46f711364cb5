"""Denoise a sky that is smooth except across its edge."""

import numpy as np
from scipy import ndimage

from soss_background.numerics.smoothing import MIN_COVERAGE, fill_gaps, gaussian_filter

__all__ = ["denoise_sky", "noise_factor"]

# Standard deviation, in pixels, of the Gaussian along columns that smooths the difference of the
# two results: long enough for the noise to average out.
_COMPARISON_LENGTH = 48


def denoise_sky(
    sky, err, good, *, sigma_rows=12.0, sigma_edge=1.5, sigma_columns=12.0, max_blur=0.004
):
    """
    Smooth a sky, weighted by its uncertainty, without blurring its edge.

    A Gaussian blurs in proportion to the second derivative of the sky. The residual is smoothed
    and added back (twicing, Tukey 1977), so that only the fourth derivative matters. A narrow
    Gaussian along rows replaces the wide one where the wide one would blur.

    Parameters
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty, DN/s.
    good : ndarray of bool, shape (ny, nx)
        True for pixels that show the sky.
    sigma_rows : float
        Standard deviation of both Gaussians along columns, pixels.
    sigma_edge, sigma_columns : float
        Standard deviation along rows, at the edge and elsewhere, pixels.
    max_blur : float
        Difference of the two, as a fraction of the sky, above which a pixel belongs to the edge.

    Returns
    -------
    denoised : ndarray of float32, shape (ny, nx)
        The denoised sky, DN/s, finite everywhere.

    Raises
    ------
    ValueError
        If no pixel shows the sky.
    """
    good = good & np.isfinite(sky) & (err > 0)
    if not good.any():
        raise ValueError("no pixel shows the sky")
    weight = np.divide(np.median(err[good]), err, out=np.zeros_like(err), where=good) ** 2
    narrow, wide = (
        _smooth_twice(sky, weight, (sigma_rows, sigma)) for sigma in (sigma_edge, sigma_columns)
    )
    blur = np.abs(gaussian_filter(wide - narrow, (_COMPARISON_LENGTH, 0), "symmetric"))
    at_edge = blur > max_blur * np.median(narrow[good])
    reach = 2 * int(2 * sigma_columns) + 1
    at_edge = ndimage.maximum_filter1d(at_edge, reach, axis=1).astype(np.float32)
    share = gaussian_filter(at_edge, (0, sigma_columns / 2), "symmetric")
    return share * narrow + (1 - share) * wide


def _smooth_twice(sky, weight, sigma):
    """Smooth a sky, add its smoothed residual, and fill pixels beyond reach of the data."""
    coverage = gaussian_filter(weight, sigma)

    def smooth(image):
        values = gaussian_filter(image * weight, sigma)
        return np.divide(values, coverage, out=np.zeros_like(image), where=coverage > 0)

    sky = np.where(weight > 0, sky, 0)
    first = smooth(sky)
    again = smooth(sky - first)
    coverage = gaussian_filter((weight > 0).astype(np.float32), sigma)
    return fill_gaps(first + again, coverage > MIN_COVERAGE)


def noise_factor(sigma_rows, sigma_columns, columns, stripe_fraction):
    """
    Compute the noise of a denoised sky away from the edge, relative to that of the sky.

    The noise of the pixels is white. The mean stripe of all exposures does not change along
    columns, and its power falls as 1/f along rows, since the columns are read one after the other.

    Parameters
    ----------
    sigma_rows, sigma_columns : float
        Standard deviations of the smoothing along columns and along rows, in pixels.
    columns : int
        Number of columns of the sky.
    stripe_fraction : float
        Fraction of the variance of the sky that is due to stripes.

    Returns
    -------
    factor : float
        Standard deviation of the denoised sky over that of the sky.
    """
    # The transfer function of a Gaussian g applied twice (twicing) is 2 g - g^2; the integral of
    # g^p over all frequencies is 1 / (2 pi p sigma_rows sigma_columns).
    white = (4 / 2 - 4 / 3 + 1 / 4) / (2 * np.pi * sigma_rows * sigma_columns)
    frequency = np.fft.rfftfreq(columns)[1:]
    gaussian = np.exp(-2 * (np.pi * sigma_columns * frequency) ** 2)
    stripes = np.average((2 * gaussian - gaussian**2) ** 2, weights=1 / frequency)
    return float(np.sqrt((1 - stripe_fraction) * min(white, 1) + stripe_fraction * stripes))
