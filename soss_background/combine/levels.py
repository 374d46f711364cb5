"""Levels and stripes of exposures, from strips: runs of pixels along their columns.

The sky hardly changes along a strip, and a strip is as narrow as a stripe.
"""

from dataclasses import dataclass

import numpy as np
from bottleneck import nanmean, nanmedian

from soss_background.numerics.threads import split_rows

__all__ = ["STRIP", "Levels", "guess_levels", "refine_levels"]

# Pixels in a strip.
STRIP = 16

# Iterations of medians for the first guess.
_MEDIAN_ROUNDS = 3

# Maximum number of iterations between sky, levels and stripes, and the change of the stripes, as a
# fraction of their scatter, at which they have converged.
_MAX_ROUNDS = 30
_SETTLED = 0.003


@dataclass
class Levels:
    """
    Levels and stripes of exposures.

    Attributes
    ----------
    scale : ndarray of float32, shape (n,)
        Level of each exposure relative to their mean.
    stripes : ndarray of float32, shape (n, nx)
        Additive stripe of each column and exposure, in DN/s; the mean over the exposures is 0.
    """

    scale: np.ndarray
    stripes: np.ndarray

    @property
    def offset(self):
        """Median of each exposure's stripes in DN/s, shape (n,)."""
        return np.median(self.stripes, axis=1)

    @property
    def stripe_rms(self):
        """Median of the rms of the exposures' stripes in DN/s; None if there is one exposure."""
        n = len(self.stripes)
        if n == 1:
            return None
        # The mean stripe of the exposures is in the sky.
        return float(np.median(np.std(self.stripes, axis=1)) / np.sqrt(1 - 1 / n))

    @property
    def common_stripe_variance(self):
        """Variance of the mean stripe of all exposures, which remains in the sky, in (DN/s)^2."""
        n = len(self.stripes)
        return np.mean(np.var(self.stripes, axis=0, ddof=1)) / n if n > 1 else 0.0

    def match(self, images, index=slice(None)):
        """Return rows of all exposures, or of one, without stripes and divided by scale."""
        matched = images - self.stripes[index][..., None, :]
        matched /= self.scale[index][..., None, None]
        return matched


def guess_levels(strips):
    """Return first levels and stripes from medians of strips, shape (n, my, nx), DN/s, or NaN."""
    levels = Levels(np.ones(len(strips), dtype=np.float32), np.zeros_like(strips[:, 0]))
    for _ in range(_MEDIAN_ROUNDS):
        # The exposures that see a strip differ from strip to strip, hence match their levels first.
        sky = nanmedian(levels.match(strips), axis=0)
        levels.scale[:] = [nanmedian(image / sky) for image in strips]
    levels.scale /= levels.scale.mean()
    stripes = np.nan_to_num(nanmedian(levels.match(strips) - sky, axis=1))
    levels.stripes = stripes * levels.scale[:, None]
    return levels


def refine_levels(levels, sky, residuals, count, weight):
    """
    Solve for levels and stripes by weighted means, until they converge.

    Parameters
    ----------
    levels : Levels
        First guess.
    sky : ndarray of float32, shape (ny, nx)
        The sky at the guess in DN/s; NaN where it is unknown.
    residuals, count : ndarray of float32, shape (n, my, nx)
        Sums over strips of the residuals of the exposures from that sky in DN/s, and their number
        of pixels.
    weight : ndarray of float32, shape (n,)
        Weight of a pixel of each exposure.

    Returns
    -------
    levels : Levels
        The solution.
    """
    known = count > 0
    standing = np.array([nanmean(sky[rows], axis=0) for rows in split_rows(len(sky), STRIP)])
    # Average residuals, not pixels, since masks differ and the sky changes from pixel to pixel.
    strips = np.divide(residuals, count, out=np.zeros_like(residuals), where=known)
    for strip, scale, stripes in zip(strips, levels.scale, levels.stripes, strict=True):
        strip += standing
        strip *= scale
        strip += stripes
    total = np.tensordot(weight, count, axes=1)
    for _ in range(_MAX_ROUNDS):
        previous = levels.stripes
        sky = np.zeros_like(total)
        for index, strip in enumerate(strips):
            sky += weight[index] * count[index] * levels.match(strip, index)
        sky /= np.where(total > 0, total, 1)
        scale, stripes = [], []
        for strip, number, here in zip(strips, count, known, strict=True):
            # Fit the level first: it includes a signal that stripes could fit as well.
            scale.append(np.median(strip[here] / sky[here]))
            left = np.where(here, strip - scale[-1] * sky, 0)
            stripes.append(np.sum(number * left, axis=0) / np.maximum(number.sum(axis=0), 1))
        scale, stripes = np.array(scale, np.float32), np.array(stripes, np.float32)
        levels = Levels(scale / scale.mean(), stripes - stripes.mean(axis=0))
        if np.std(levels.stripes - previous) <= _SETTLED * np.std(previous):
            break
    return levels
