"""Pedestals of blocks of columns that are read at times of their own, as in superstripes."""

from dataclasses import dataclass, replace

import numpy as np

from soss_background.numerics.cells import CELL

__all__ = ["Pedestals"]

# First guess of the rms as a fraction of the sky's level.
_FIRST_RMS = 0.05

_LEAST_FREEDOM = 0.5


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
    rms : float
        Their rms, DN/s.
    """

    images: np.ndarray
    values: np.ndarray
    rms: float

    @classmethod
    def guess(cls, blocks, number, level):
        """Return pedestals of 0 of blocks (slices) of a number of columns, for a level of a sky."""
        images = np.zeros((len(blocks), number), dtype=np.float32)
        for image, columns in zip(images, blocks, strict=True):
            image[columns] = 1
        images = np.add.reduceat(images, np.arange(0, number, CELL[1]), axis=1)
        images /= images.sum(axis=0)  # reference columns belong to no block
        if len(blocks) == 1:
            images = images[:0]
        return cls(images, np.zeros(len(images)), _FIRST_RMS * level)

    @property
    def columns(self):
        """The pedestal of each column of cells, DN/s, shape (mx,)."""
        return self.values @ self.images

    def changed(self, values, covariance, stripes):
        """
        Return pedestals with new values, and the rms that maximises the evidence.

        The rms is that of MacKay (1992, Neural Computation 4, 415), with the 1/f stripes of columns
        as one pedestal more: a few pedestals cannot have a smaller rms by chance.

        Parameters
        ----------
        values : ndarray of float, shape (k,)
            The pedestals, DN/s.
        covariance : ndarray of float, shape (k, k)
            Their covariance, (DN/s)^2.
        stripes : ndarray of float, shape (n,)
            Stripes of columns of cells, DN/s.
        """
        if not len(values):
            return self
        unknown = min(np.trace(covariance) / self.rms**2, len(values))
        squares = np.sum(values**2) + np.mean(stripes**2)
        freedom = 1 + len(values) - unknown
        return replace(self, values=values, rms=np.sqrt(squares / max(freedom - 2, _LEAST_FREEDOM)))
