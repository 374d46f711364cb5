"""Summaries of exposures for several steps, in one pass: usable pixels, common flags, cells."""

import numpy as np

from soss_background.numerics.cells import bin_to_cells
from soss_background.numerics.integrations import usable_pixels

__all__ = ["ExposureSummaries", "unpack_pixels"]


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
        """Add an exposure: count rates and 1-sigma uncertainties in DN/s, and JWST DQ flags."""
        usable = usable_pixels(image, err, dq)
        self.flags = self.flags & dq
        self._cells.append(bin_to_cells(image, err, usable))
        self._usable.append(np.packbits(usable))

    def cells(self):
        """Return means and noise of cells, float32, shape (n, my, mx), see `bin_to_cells`."""
        return tuple(np.array(planes) for planes in zip(*self._cells, strict=True))

    def usable(self, index):
        """Return the usable pixels of an exposure, bool, shape (ny, nx), see `usable_pixels`."""
        return unpack_pixels(self._usable[index], self.flags.shape)


def unpack_pixels(bits, shape):
    """Return pixels that `numpy.packbits` has packed, as a bool array of a shape."""
    return np.unpackbits(bits, count=np.prod(shape)).view(bool).reshape(shape)
