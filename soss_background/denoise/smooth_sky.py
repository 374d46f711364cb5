"""Denoise a sky that is smooth except across its edges."""

import numpy as np
from astropy.stats import mad_std
from scipy import ndimage

from soss_background.numerics.smoothing import (
    MIN_COVERAGE,
    fill_gaps,
    gaussian_filter,
    twicing_response,
)
from soss_background.sky.edge_model import trace_edge

__all__ = ["denoise_sky", "noise_factor"]

# Variance of the shape of the edge within the Gaussian below which it is ignored: the shape is
# known to about 1 % of the edge's height. Half and twice the value give the same sky within 0.01 %.
_LEAST_VARIANCE = 1e-4

# Standard deviations in pixels, along columns and rows, of the Gaussians that search for fainter
# edges. They are long along columns, since the edges bend by two columns at most.
_SEARCH_LENGTH, _RISE_SCALE = 48.0, 6.0

# Significance, in units of the noise of all columns, and smallest height, as a fraction of the sky,
# of a fainter edge: a lower one is blurred by less than 0.3 %.
_LEAST_SIGNIFICANCE, _LEAST_HEIGHT = 6.0, 0.003


def denoise_sky(sky, err, good, *, sigma_rows=12.0, sigma_columns=12.0, sigma_edge=1.5):
    """
    Smooth a sky, weighted by its uncertainty, without blurring its edges.

    Within the reach of a Gaussian, the sky is a constant plus a multiple of the shape of its edge
    (`soss_background.sky.edge_model.trace_edge`), fitted by weighted least squares at every pixel.
    This is a guided filter (He, Sun & Tang 2013, IEEE Trans. Pattern Anal. Mach. Intell. 35, 1397)
    with Gaussian windows. The residual is smoothed and added back (twicing, Tukey 1977), so that
    only the fourth derivative of the sky blurs. Where the residual shows a fainter edge, far above
    the noise of the columns, it is smoothed narrowly along rows and added back too.

    Parameters
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty, DN/s.
    good : ndarray of bool, shape (ny, nx)
        True for pixels that show the sky.
    sigma_rows, sigma_columns : float
        Standard deviations of the Gaussian along columns and along rows, pixels.
    sigma_edge : float
        Standard deviation along rows at a fainter edge, pixels.

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
    sky = np.where(good, sky, 0)
    smooth = _smooth_twice(sky, weight, (sigma_rows, sigma_columns))
    residual = np.where(good, sky - smooth, 0)
    level = np.median(smooth[good])
    return smooth + _find_faint_edges(residual, weight, level, sigma_edge, sigma_columns)


def _smooth_twice(sky, weight, sigma):
    """Smooth a sky by the shape of its edge, add its smoothed residual, and fill gaps."""
    edge = trace_edge(sky, weight)
    coverage = gaussian_filter(weight, sigma)

    def average(image):
        values = gaussian_filter(image * weight, sigma)
        return np.divide(values, coverage, out=values, where=coverage > 0)

    def smooth(image):
        mean = average(image)
        return mean if edge is None else mean + slope(image, mean) * departure

    def slope(image, mean):
        return (average(image * shape) - mean * centre) / variance

    if edge is not None:
        shape = edge.image(sky.shape[1])
        centre = average(shape)
        departure = shape - centre
        variance = np.maximum(average(shape**2) - centre**2, 0) + np.float32(_LEAST_VARIANCE)
    first = smooth(sky)
    again = smooth(sky - first)
    near = gaussian_filter((weight > 0).astype(np.float32), sigma)
    return fill_gaps(first + again, near > MIN_COVERAGE)


def _find_faint_edges(residual, weight, level, sigma_edge, sigma_columns):
    """Return the residual of a smoothed sky, smoothed narrowly, at its edges; else 0."""
    sigma = (_SEARCH_LENGTH, sigma_edge)
    coverage = gaussian_filter(weight, sigma)
    values = gaussian_filter(residual * weight, sigma)
    narrow = np.divide(values, coverage, out=values, where=coverage > MIN_COVERAGE)
    height = ndimage.gaussian_filter1d(narrow, _RISE_SCALE, axis=1, order=1, mode="nearest")
    height = np.abs(height) * _RISE_SCALE * np.sqrt(2 * np.pi)
    limit = max(_LEAST_SIGNIFICANCE * mad_std(height[::8]), _LEAST_HEIGHT * level)
    reach = 2 * int(2 * sigma_columns) + 1
    at_edge = ndimage.maximum_filter1d(height > limit, reach, axis=1).astype(np.float32)
    return gaussian_filter(at_edge, (0, sigma_columns / 2), "symmetric") * narrow


def noise_factor(sigma_rows, sigma_columns, columns, stripe_fraction, stripe_slope=-1.0):
    """
    Compute the noise of a denoised sky away from the edge, relative to that of the sky.

    The noise of the pixels is white. The mean stripe of all exposures does not change along
    columns, and its power is a power law of the frequency along rows.

    Parameters
    ----------
    sigma_rows, sigma_columns : float
        Standard deviations of the smoothing along columns and along rows, in pixels.
    columns : int
        Number of columns of the sky.
    stripe_fraction : float
        Fraction of the variance of the sky that is due to stripes.
    stripe_slope : float
        Index of the power law: 0 for white noise, -1 for 1/f noise, -2 for a random walk.

    Returns
    -------
    factor : float
        Standard deviation of the denoised sky over that of the sky.
    """
    # The transfer function of a Gaussian g applied twice (twicing) is 2 g - g^2; the integral of
    # g^p over all frequencies is 1 / (2 pi p sigma_rows sigma_columns).
    white = (4 / 2 - 4 / 3 + 1 / 4) / (2 * np.pi * sigma_rows * sigma_columns)
    frequency = np.fft.rfftfreq(max(columns, 2))[1:]
    response = twicing_response(frequency, sigma_columns)
    stripes = np.average(response**2, weights=frequency**stripe_slope)
    return float(np.sqrt((1 - stripe_fraction) * min(white, 1) + stripe_fraction * stripes))
