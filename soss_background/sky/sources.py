"""Find sources in the residuals of an exposure."""

import numpy as np
from scipy import ndimage

from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.smoothing import gaussian_filter

__all__ = ["dark_scatter", "detect_light"]

# Gaussian smoothing (rows, columns) in cells: from a compact order-0 image to the faint wings
# along a trace.
_SCALES = ((0.7, 0.7), (1.0, 4.0), (2.0, 12.0), (6.0, 12.0))


def detect_light(residual, noise, n_sigma, floor, grow, *, calibrate=False):
    """
    Find significant sources in the residual of an exposure, on all scales of stars and traces.

    Parameters
    ----------
    residual, noise : ndarray of float, shape (my, mx)
        Cells without the sky and their 1-sigma uncertainties in DN/s; NaN where unknown.
    n_sigma : float
        Significance of the smoothed residual above which it is a source.
    floor : ndarray of float, shape (my, mx)
        Minimum brightness of a source, DN/s.
    grow : int
        Cells by which a source grows in each direction.
    calibrate : bool
        Whether to scale the noise to the scatter of the negative residuals on each scale, which is
        larger if the sky is uncertain or there are stripes.

    Returns
    -------
    sources : ndarray of bool, shape (my, mx)
        True in sources.
    """
    known = np.isfinite(residual)
    found = np.zeros(residual.shape, dtype=bool)
    for scale in _SCALES:
        # Sources found on a smaller scale would contaminate their surroundings on a larger one.
        smooth, sigma = _smooth(residual, noise, known & ~found, scale)
        if calibrate:
            dark = known & ~found & (smooth < 0)
            sigma *= dark_scatter(smooth[dark] / sigma[dark])
        new = known & (smooth > np.maximum(n_sigma * sigma, floor))
        found |= ndimage.binary_dilation(new, iterations=grow) if grow else new
    return found


def dark_scatter(residuals):
    """Return the robust scatter, at least 1, of the negative residuals, which are free of stars."""
    dark = residuals[residuals < 0]
    return max(1.0, MAD_TO_SIGMA * float(np.median(-dark))) if dark.size else 1.0


def _smooth(values, noise, known, scale):
    """Smooth known values with a Gaussian, and propagate their noise."""

    def smooth(image, sigmas):
        return gaussian_filter(np.where(known, image, 0).astype(np.float32), sigmas)

    coverage = np.maximum(smooth(1, scale), 1e-3)
    # The square of a Gaussian kernel is a Gaussian narrower by the square root of two.
    narrow = [sigma / np.sqrt(2) for sigma in scale]
    variance = smooth(noise**2, narrow) / (4 * np.pi * np.prod(scale))
    return smooth(values, scale) / coverage, np.sqrt(variance) / coverage
