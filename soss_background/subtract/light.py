"""Statistics of star light on the sky that is too faint to be detected."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

__all__ = ["FaintLight"]

# Limits of the fraction of cells with faint light, and of its mean as a fraction of the sky; beyond
# them it cannot be distinguished from the sky, or is not faint. First guesses of both.
_SHARE, _MEAN = (0.01, 0.95), (0.002, 0.02)
_FIRST_SHARE, _FIRST_MEAN = 0.3, 0.01


@dataclass(frozen=True)
class FaintLight:
    """
    Statistics of faint star light in cells without a detected source.

    All cells have noise; a fraction of them also has light with an exponential distribution of
    brightness. Expectation maximisation (Dempster, Laird & Rubin 1977) estimates the fraction and
    the mean brightness from the cells themselves.

    Attributes
    ----------
    share : float
        Fraction of the cells with light.
    mean : float
        Mean brightness of the light, DN/s.
    limits : tuple of float
        Smallest and largest mean, DN/s.
    """

    share: float
    mean: float
    limits: tuple

    @classmethod
    def guess(cls, level):
        """Return the first guess for a sky of this level, DN/s."""
        return cls(_FIRST_SHARE, _FIRST_MEAN * level, tuple(each * level for each in _MEAN))

    def expect(self, residual, sigma):
        """
        Estimate the light from the excess over the sky.

        Parameters
        ----------
        residual, sigma : ndarray of float, shape (n,)
            Excess of cells over the sky and its 1-sigma uncertainty, DN/s.

        Returns
        -------
        lit, light : ndarray of float, shape (n,)
            Probability that a cell has light, and the expected brightness of this light, DN/s.
        """
        excess = residual / sigma - sigma / self.mean
        dark = np.log1p(-self.share) - 0.5 * (residual / sigma) ** 2
        bright = (
            np.log(self.share * np.sqrt(2 * np.pi) * sigma / self.mean)
            + (0.5 * sigma**2 / self.mean - residual) / self.mean
            + log_ndtr(excess)
        )
        lit = 1 / (1 + np.exp(np.clip(dark - bright, -50, 50)))
        # Mean of a normal distribution truncated at zero.
        tail = np.exp(-0.5 * excess**2 - log_ndtr(excess)) / np.sqrt(2 * np.pi)
        return lit, sigma * (excess + tail)

    def update(self, lit, light):
        """Return new statistics from probabilities and brightnesses, see `expect`."""
        share = float(np.clip(lit.mean(), *_SHARE))
        mean = float(np.clip(np.average(light, weights=lit), *self.limits))
        return replace(self, share=share, mean=mean)
