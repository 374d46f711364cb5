"""Light that lies over the sky: the wide wings of what is bright, and faint light anywhere."""

import numpy as np
from scipy.special import log_ndtr

from soss_background.numerics.cells import CELL
from soss_background.numerics.smoothing import gaussian_filter

__all__ = ["FaintLight", "make_wings"]

# Standard deviations of the Gaussians that make up the wings of what is bright, pixels.
_WINGS = (6, 10, 16, 24, 36, 54, 80, 120, 180, 280)

# Range of the part of the cells that have faint light, and of its mean as a fraction of the sky:
# beyond these it cannot be told from the sky, or is not faint.
_SHARE, _MEAN = (0.01, 0.95), (0.002, 0.02)

# The first guess.
_FIRST_SHARE, _FIRST_MEAN = 0.3, 0.01


def make_wings(core):
    """
    Spread bright light over the detector.

    Optics scatter a little of all light to far around. How much at which distance is not known, so
    Gaussians of many widths are made, of which a fit takes what it needs.

    Parameters
    ----------
    core : ndarray of float, shape (my, mx)
        Bright light in cells, 0 where there is none; it is continued beyond the ends of the rows.

    Returns
    -------
    wings : ndarray of float32, shape (n, my, mx)
        The light after it was spread by each Gaussian.
    """
    core = core.astype(np.float32)
    return np.array([_spread(core, width) for width in _WINGS])


def _spread(core, width):
    rows, columns = width / CELL[0], width / CELL[1]
    return gaussian_filter(gaussian_filter(core, (rows, 0)), (0, columns), mode="edge")


class FaintLight:
    """
    Faint star light in cells where no source was found.

    Some of the cells have light, whose brightness is distributed exponentially; all have noise.
    The share and the mean of the light are learnt from the cells themselves by expectation
    maximisation (Dempster, Laird & Rubin 1977).

    Parameters
    ----------
    level : float
        Level of the sky, DN/s.
    """

    def __init__(self, level):
        self.share, self.mean = _FIRST_SHARE, _FIRST_MEAN * level
        self._range = [fraction * level for fraction in _MEAN]

    def expect(self, residual, sigma):
        """
        Estimate the light from what exceeds the sky, and learn from it.

        Parameters
        ----------
        residual, sigma : ndarray of float, shape (n,)
            Excess of cells over the sky and its 1-sigma uncertainty, DN/s.

        Returns
        -------
        lit : ndarray of float, shape (n,)
            Probability that a cell has light.
        light : ndarray of float, shape (n,)
            Its expected brightness if it has, DN/s.
        """
        excess = residual / sigma - sigma / self.mean
        dark = np.log1p(-self.share) - 0.5 * (residual / sigma) ** 2
        bright = (
            np.log(self.share * np.sqrt(2 * np.pi) * sigma / self.mean)
            + (0.5 * sigma**2 / self.mean - residual) / self.mean
            + log_ndtr(excess)
        )
        lit = 1 / (1 + np.exp(np.clip(dark - bright, -50, 50)))
        # Mean of a normal distribution that is cut off at zero.
        tail = np.exp(-0.5 * excess**2 - log_ndtr(excess)) / np.sqrt(2 * np.pi)
        light = sigma * (excess + tail)
        self.share = float(np.clip(lit.mean(), *_SHARE))
        self.mean = float(np.clip(np.average(light, weights=lit), *self._range))
        return lit, light
