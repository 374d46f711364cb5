"""Stacks of exposures that need not fit into memory."""

import functools
import operator
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

from soss_background.numerics.threads import map_parallel

__all__ = ["Stack"]


class Stack:
    """
    Pixels of exposures, in memory or in files, that are read and written in parts.

    What is read from ``images``, ``errors`` and ``left_out`` by an index is an array; it is not to
    be changed, but what is assigned to the same index is kept.

    Parameters
    ----------
    number : int
        Number of exposures.
    folder : str or `~pathlib.Path`, optional
        Where to put the files, which vanish when they are needed no more; in memory if there is
        none.

    Attributes
    ----------
    images, errors
        Exposures and their 1-sigma uncertainties in DN/s, float32.
    left_out
        1 where a pixel of an exposure is left out, else 0, uint8.
    shape : tuple of int
        Number of exposures, and their rows and columns.
    """

    def __init__(self, number, folder=None):
        self._number = number
        self._make = np.empty if folder is None else functools.partial(_FileArray, folder)

    def put(self, index, image, err, left_out):
        """
        Put an exposure into the stack.

        Parameters
        ----------
        index : int
            Its number; 0 comes first.
        image, err : ndarray of float, shape (ny, nx)
            The exposure and its 1-sigma uncertainties in DN/s.
        left_out : ndarray of bool, shape (ny, nx)
            True where a pixel is left out.
        """
        if index == 0:
            self.shape = (self._number, *image.shape)
            self.images, self.errors, self.left_out = (
                self._make(self.shape, dtype) for dtype in (np.float32, np.float32, np.uint8)
            )
        parts, planes = (self.images, self.errors, self.left_out), (image, err, left_out)
        map_parallel(operator.setitem, parts, [index] * 3, planes)

    def whole(self, name):
        """
        Get a whole stack, without reading it if it lies in a file.

        Parameters
        ----------
        name : str
            One of the attributes.

        Returns
        -------
        array : ndarray or read-only `numpy.memmap`
            All exposures.
        """
        part = getattr(self, name)
        return part.map() if isinstance(part, _FileArray) else part


class _FileArray:
    """An array in a file of its own, of which only what is asked for takes memory."""

    def __init__(self, folder, shape, dtype):
        handle, path = tempfile.mkstemp(prefix=".skyflat-", dir=folder)
        os.truncate(handle, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        os.close(handle)
        self._path, self._shape, self._dtype = Path(path).absolute(), shape, dtype
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __getitem__(self, key):
        # A copy, since mapped pages count as memory in use for as long as they are mapped.
        return np.array(self._map()[key])

    def __setitem__(self, key, values):
        indices, rows = key if isinstance(key, tuple) else (key, slice(None))
        n, ny, nx = self._shape
        indices, rows = np.atleast_1d(np.arange(n)[indices]), range(ny)[rows]
        values = np.broadcast_to(values, (len(indices), len(rows), nx))
        with self._path.open("r+b") as file:
            for index, plane in zip(indices, values, strict=True):
                file.seek((index * ny + rows.start) * nx * np.dtype(self._dtype).itemsize)
                file.write(np.ascontiguousarray(plane, dtype=self._dtype))

    def _map(self):
        return np.memmap(self._path, self._dtype, "r", shape=self._shape)

    def map(self):
        """Map the file to memory; it stays for as long as the map."""
        mapped = self._map()
        weakref.finalize(mapped, lambda *_: None, self)
        return mapped
