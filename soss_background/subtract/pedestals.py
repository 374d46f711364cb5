"""Pedestals of blocks of columns that are read at times of their own, as in superstripes."""

from dataclasses import dataclass, replace

import numpy as np
from bottleneck import nanmean, nanmedian

from soss_background.numerics.cells import CELL
from soss_background.numerics.integrations import split_cube
from soss_background.numerics.threads import map_parallel

__all__ = ["BlockOffsets", "Pedestals"]

# Rms that is expected if no integrations are known, as a fraction of the sky's level. In three
# simulated SUB680STRIPE_SOSS with an rms of 0.1 DN/s, the error of the level left of the edge is
# 0.18 % of the sky; half the value gives 0.26 %, twice the value 0.16 %.
_UNKNOWN_RMS = 0.05

# Number of pedestals that an expected rms is worth: three pedestals hardly constrain their own.
# Tuned on simulated SUB680STRIPE_SOSS; half and twice the value change the errors of its levels by
# 5 %.
_WEIGHT = 4.0


@dataclass(frozen=True)
class Pedestals:
    """
    Pedestals, normal deviates with an rms that follows from them.

    Attributes
    ----------
    images : ndarray of float32, shape (k, mx)
        Fraction of the columns of each cell that belong to a block; no block if there is a single
        one, whose pedestal no exposure shows.
    values : ndarray of float, shape (k,)
        The pedestals, DN/s.
    rms, expected : float
        Their rms, and the rms that is expected from integrations, DN/s.
    """

    images: np.ndarray
    values: np.ndarray
    rms: float
    expected: float

    @classmethod
    def guess(cls, blocks, number, level, expected):
        """
        Return pedestals of 0 with their expected rms.

        Parameters
        ----------
        blocks : sequence of slice
            The blocks of columns.
        number : int
            Number of columns.
        level, expected : float
            Level of the sky, and the expected rms, 0 if it is unknown, DN/s.

        Returns
        -------
        pedestals : Pedestals
            The pedestals.
        """
        images = np.zeros((len(blocks), number), dtype=np.float32)
        for image, columns in zip(images, blocks, strict=True):
            image[columns] = 1
        images = np.add.reduceat(images, np.arange(0, number, CELL[1]), axis=1)
        images /= images.sum(axis=0)  # reference columns belong to no block
        if len(blocks) == 1:
            images = images[:0]
        expected = expected or _UNKNOWN_RMS * level
        return cls(images, np.zeros(len(images)), expected, expected)

    @property
    def columns(self):
        """The pedestal of each column of cells, DN/s, shape (mx,)."""
        return self.values @ self.images

    def changed(self, values, covariance):
        """
        Return pedestals with new values and the most likely rms (MacKay 1992, Neural Comput. 4).

        Parameters
        ----------
        values : ndarray of float, shape (k,)
            The pedestals, DN/s.
        covariance : ndarray of float, shape (k, k)
            Their covariance, (DN/s)^2.

        Returns
        -------
        pedestals : Pedestals
            The new pedestals.
        """
        if not len(values):
            return self
        unknown = min(np.trace(covariance) / self.rms**2, len(values))
        squares = np.sum(values**2) + _WEIGHT * self.expected**2
        number = len(values) - unknown + _WEIGHT
        return replace(self, values=values, rms=np.sqrt(squares / number))


class BlockOffsets:
    """Offsets of blocks of columns in integrations relative to the mean of the first ones."""

    def __init__(self):
        self._reference, self._offsets = None, []

    def add(self, data, science, blocks):
        """
        Measure the offsets of integrations: medians, which ignore a change of the target's flux.

        Parameters
        ----------
        data : ndarray of float, shape (nints, ny, nx)
            Integrations, DN/s.
        science : ndarray of bool, shape (ny, nx)
            False for reference pixels.
        blocks : sequence of slice
            The blocks of columns.
        """
        if self._reference is None:
            # Blocks of rows, since arrays of files are not in native byte order.
            rows = split_cube(data.shape)
            means = [nanmean(data[:, each].astype(np.float32), axis=0) for each in rows]
            mean = np.concatenate(means)
            self._reference = np.where(science, mean, np.nan)

        def measure(integration):
            difference = integration - self._reference
            return [nanmedian(difference[:, columns]) for columns in blocks]

        self._offsets += map_parallel(measure, data)

    def expect_rms(self):
        """Return the rms of the pedestals of the mean, DN/s; 0 with one integration or none."""
        offsets = np.array(self._offsets)
        number = np.count_nonzero(np.isfinite(offsets))
        freedom = number - offsets.shape[-1]
        if freedom <= 0:
            return 0.0
        variance = np.nansum((offsets - nanmean(offsets, axis=0)) ** 2) / freedom
        return float(np.sqrt(variance / len(offsets)))
