"""Arrays larger than memory, in hidden files next to the products."""

import mmap
import operator
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

from soss_background.io.files import explain_write_fault, scratch_prefix
from soss_background.numerics.threads import map_parallel

__all__ = ["Stack", "StoredArray"]


class StoredArray:
    """An array in a file without header (``path``), deleted with the array and its last map."""

    def __init__(self, folder, shape, dtype):
        with explain_write_fault(folder):
            handle, path = tempfile.mkstemp(prefix=scratch_prefix(), dir=folder)
            os.truncate(handle, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            os.close(handle)
        # Resolve links, since the file name of a map is resolved too.
        self.path = Path(path).resolve()
        self._shape, self._dtype = shape, dtype
        weakref.finalize(self, self.path.unlink, missing_ok=True)

    def __getitem__(self, key):
        """Read a section of the array."""
        # A copy, since mapped pages count as memory in use for as long as they are mapped.
        return np.array(np.memmap(self.path, self._dtype, "r", shape=self._shape)[key])

    def __setitem__(self, key, values):
        """Write rows ``[..., rows]`` of planes of an array of three dimensions."""
        indices, rows = key if isinstance(key, tuple) else (key, slice(None))
        n, ny, nx = self._shape
        indices, rows = np.atleast_1d(np.arange(n)[indices]), range(ny)[rows]
        values = np.broadcast_to(values, (len(indices), len(rows), nx))
        with explain_write_fault(self.path.parent), self.path.open("r+b") as file:
            for index, plane in zip(indices, values, strict=True):
                file.seek((index * ny + rows.start) * nx * np.dtype(self._dtype).itemsize)
                file.write(np.ascontiguousarray(plane, dtype=self._dtype))

    def map(self, mode="r"):
        """Map the file to memory; the file exists as long as the map."""
        mapped = _Map(self.path, self._dtype, mode, shape=self._shape)
        weakref.finalize(mapped, lambda *_: None, self)
        return mapped


class _Map(np.memmap):
    """A map that reads its planes one by one, since mapped pages count as memory in use."""

    def __iter__(self):
        """Yield the planes, read from the file; planes of views and writable maps stay mapped."""
        if not isinstance(self.base, mmap.mmap) or self.mode != "r":
            yield from super().__iter__()
            return
        shape = self.shape[1:]
        count = int(np.prod(shape))
        for index in range(len(self)):
            offset = index * count * self.itemsize
            yield np.fromfile(self.filename, self.dtype, count, offset=offset).reshape(shape)


class Stack:
    """
    Pixels of exposures, in memory or in files, that are read and written in sections.

    Indexing ``images``, ``errors`` and ``left_out`` returns an array that must not be changed;
    assigning to an index stores it.

    Parameters
    ----------
    number : int
        Number of exposures.
    folder : str or `~pathlib.Path`, optional
        Folder of the files; by default the exposures stay in memory.

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
        self._number, self._folder = number, folder

    def put(self, index, image, err, left_out):
        """Store an exposure, its uncertainties (DN/s) and True for pixels left out; 0 first."""
        if index == 0:
            self.shape = (self._number, *image.shape)
            self.images, self.errors = self._create(np.float32), self._create(np.float32)
            self.left_out = self._create(np.uint8)
        arrays, planes = (self.images, self.errors, self.left_out), (image, err, left_out)
        map_parallel(operator.setitem, arrays, [index] * 3, planes)

    def _create(self, dtype):
        """Create an array for all exposures."""
        if self._folder is None:
            return np.empty(self.shape, dtype)
        return StoredArray(self._folder, self.shape, dtype)

    def whole(self, name):
        """Return a whole array by name, as a read-only map if it is in a file."""
        array = getattr(self, name)
        return array.map() if isinstance(array, StoredArray) else array
