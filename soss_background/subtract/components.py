"""Components of an exposure, and their priors: the sky, pedestals, the wings of its sources."""

from dataclasses import dataclass

import numpy as np

from soss_background.numerics.cells import CELL, bin_smooth

__all__ = ["Components", "find_components"]

# Prior 1-sigma of the edge relative to the mean sky: its relative width in tenths (0.3 is 3 %), and
# its tilt and bend between the middle and the first and last row, pixels.
_WIDTH, _LEAN = 0.3, 2.0

# Distance from the edge within which its width changes, and distance at which a change of the width
# by a tenth is a shift by one pixel, pixels.
_EDGE_REACH, _WIDTH_UNIT = 40.0, 10.0

# The wings deviate from a common radial profile by smooth factors along columns and rows: their
# relative rms, number of cosines, and correlation length, pixels. Half and twice the rms change
# simulated levels by less than a third of their errors.
_WING_RMS, _WING_MODES, _WING_LENGTH = 0.05, 6, 300.0


@dataclass(frozen=True)
class Components:
    """
    Components of an exposure, in cells.

    Attributes
    ----------
    images : ndarray of float32, shape (n, my, mx)
        Change of the exposure with each amplitude, DN/s: the sky left and right of the edge, the
        edge's shift, width, tilt and bend, the deviations of the sky; pedestals of blocks of
        columns; smooth factors of the wings, and the logarithm of their profile.
    precision : ndarray of float, shape (n, n)
        Inverse covariance of the amplitudes in their prior.
    gradient : ndarray of float, shape (n,)
        Precision times the mean of the prior.
    wings : ndarray of float, shape (my, mx)
        Wings if all amplitudes are 0, DN/s.
    n_sky, n_pedestals, n_factors : int
        Number of images of the sky, of pedestals, and of smooth factors of the wings.
    """

    images: np.ndarray
    precision: np.ndarray
    gradient: np.ndarray
    wings: np.ndarray
    n_sky: int
    n_pedestals: int
    n_factors: int

    def sky(self, amplitudes):
        """Return the sky without its shift, which the next iteration applies."""
        amplitudes = amplitudes[: self.n_sky].copy()
        amplitudes[2] = 0
        return np.tensordot(amplitudes, self.images[: self.n_sky], 1)

    @property
    def pedestals(self):
        """Slice of the amplitudes of pedestals."""
        return slice(self.n_sky, self.n_sky + self.n_pedestals)

    def factors(self, amplitudes):
        """Return the change of the wings by smooth factors."""
        part = slice(self.pedestals.stop, self.pedestals.stop + self.n_factors)
        return np.tensordot(amplitudes[part], self.images[part], 1)

    def profile_change(self, amplitudes):
        """Return the change of the logarithm of the wings' profile."""
        return amplitudes[self.pedestals.stop + self.n_factors :]


def find_components(prior, shift, level, slope, core, wings, pedestals):
    """
    Compute the components of an exposure.

    Parameters
    ----------
    prior : `~soss_background.sky.sky_prior.SkyPrior`
        The sky.
    shift, level : float
        Current shift of the edge, pixels, and level of the sky, DN/s.
    slope : ndarray of float, shape (my, mx)
        Change of the sky with the position of the edge, see
        `~soss_background.sky.sky_prior.SkyPrior.edge_slope`.
    core : ndarray of float, shape (my, mx)
        Flux of the bright sources that have wings, DN/s.
    wings : `~soss_background.subtract.wings.Wings`
        Current profile of the wings.
    pedestals : `~soss_background.subtract.pedestals.Pedestals`
        Current pedestals.

    Returns
    -------
    components : `Components`
        The components.
    """
    skies, skies_rms = _sky_images(prior, shift, level, level * slope)
    parts = wings.images(core)
    total = parts.sum(axis=0)
    factors, factors_rms = _factor_images(total)
    blocks = np.repeat(pedestals.images[:, np.newaxis], len(total), axis=1)
    blocks_rms = [pedestals.rms] * len(blocks)
    rms = np.array([*skies_rms, *blocks_rms, *factors_rms, *[np.inf] * len(parts)])
    precision, gradient = np.diag(rms**-2.0), np.zeros(len(rms))
    # The ratio of the two levels is known.
    precision[:2, :2] += np.array([[1, -1], [-1, 1]]) / (prior.ratio_rms * level) ** 2
    precision[-len(parts) :, -len(parts) :], gradient[-len(parts) :] = wings.prior()
    # The amplitude of the shift is relative to the current shift.
    gradient[2] = -shift / prior.shift_rms**2
    images = np.array([*skies, *blocks, *factors, *parts], dtype=np.float32)
    numbers = (len(skies), len(blocks), len(factors))
    return Components(images, precision, gradient, total, *numbers)


def _sky_images(prior, shift, level, slope):
    """Return images of the sky and the prior rms of their amplitudes."""
    left, right = map(bin_smooth, prior.shifted(shift))
    rows = np.linspace(-1, 1, len(left))[:, np.newaxis]
    columns = np.arange(left.shape[1])
    rise = (right / np.maximum(left + right, 1e-9)).mean(axis=0)
    distance = (columns - np.interp(0.5, rise, columns)) * CELL[1]
    width = slope * np.exp(-((distance / _EDGE_REACH) ** 2)) * distance / _WIDTH_UNIT
    deviations = level * (left + right) * prior.deviations
    images = [left, right, slope, width, slope * rows, slope * (rows**2 - 1 / 3), *deviations]
    rms = [np.inf, np.inf, prior.shift_rms, _WIDTH, _LEAN, _LEAN, *[1.0] * len(deviations)]
    return images, rms


def _factor_images(wings):
    """Return the wings times smooth factors, and the prior rms of their amplitudes."""
    orders = np.arange(_WING_MODES + 1)
    place = (np.arange(wings.shape[1]) + 0.5) / wings.shape[1]
    frequency = np.pi * orders / (wings.shape[1] * CELL[1])
    rms = 1 / (1 + (frequency * _WING_LENGTH) ** 2)
    rms *= _WING_RMS / np.sqrt(np.sum(rms**2))
    rows = np.linspace(-1, 1, len(wings))[:, np.newaxis]
    images = [
        wings * along * np.cos(np.pi * order * place) for along in (1, rows) for order in orders
    ]
    return images, [*rms, *rms]
