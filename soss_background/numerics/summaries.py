"""Exposures as several steps need them: usable pixels, common flags and cells, in one pass."""

import numpy as np

from soss_background.numerics.cells import bin_to_cells
from soss_background.numerics.integrations import usable_pixels

__all__ = ["ExposureSummaries"]


class ExposureSummaries:
    """
    Summaries of exposures of one shape, which are added one by one.

    Attributes
    ----------
    flags : ndarray of uint32, shape (ny, nx)
        JWST data quality flags that all exposures share.
    """

    def __init__(self):
        self.flags = np.uint32(0xFFFFFFFF)
        self._cells, self._usable = [], []

    def add(self, image, err, dq):
        """
        Summarize an exposure.

        Parameters
        ----------
        image, err : ndarray of float32, shape (ny, nx)
            The exposure and its 1-sigma uncertainties in DN/s.
        dq : ndarray of uint32, shape (ny, nx)
            Its JWST data quality flags.
        """
        usable = usable_pixels(image, err, dq)
        self.flags = self.flags & dq
        self._cells.append(bin_to_cells(image, err, usable))
        self._usable.append(np.packbits(usable))

    def cells(self):
        """
        Return the exposures reduced to cells.

        Returns
        -------
        means, noise : ndarray of float32, shape (n, my, mx)
            See `soss_background.numerics.cells.bin_to_cells`.
        """
        return tuple(np.array(planes) for planes in zip(*self._cells, strict=True))

    def usable(self, index):
        """
        Return the usable pixels of an exposure.

        Parameters
        ----------
        index : int
            Its number.

        Returns
        -------
        usable : ndarray of bool, shape (ny, nx)
            See `soss_background.numerics.integrations.usable_pixels`.
        """
        bits = np.unpackbits(self._usable[index], count=self.flags.size)
        return bits.view(bool).reshape(self.flags.shape)
