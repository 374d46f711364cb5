"""The data model of a skyflat."""

import mmap
import os

import numpy as np
from astropy.io import fits
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.registry import register

__all__ = ["SkyflatModel"]

# Cubes, which may be larger than memory, and their extensions.
_CUBES = {"images": "SCI", "masks": "MASKS"}


@register
class SkyflatModel(JwstDataModel):
    """
    An empirical sky model of NIRISS SOSS exposures.

    Attributes
    ----------
    bkg : ndarray of float32, shape (ny, nx)
        The empirical sky, flat-fielded, in DN/s.
    bkgdn : ndarray of float32, shape (ny, nx)
        The same, denoised, in DN/s; finite on every science pixel.
    err : ndarray of float32, shape (ny, nx)
        The 1-sigma uncertainty of ``bkg`` in DN/s.
    dq : ndarray of uint32, shape (ny, nx)
        Data quality of ``bkg`` (`stdatamodels.jwst.datamodels.dqflags`): DO_NOT_USE where it had
        to be filled, HOT, REFERENCE_PIXEL, ...
    images : ndarray of float32, shape (n, ny, nx), or None
        The exposures as they were combined, in DN/s.
    masks : ndarray of uint8, shape (n, ny, nx), or None
        1 where a pixel of an exposure was left out, 0 where it was used.
    metadata : ndarray, shape (n,)
        One row an exposure: pointing, time, level.
    qc : ndarray or None
        Quality metrics, one a row.
    """

    schema_url = "http://soss-background.readthedocs.io/schemas/skyflat.schema"

    def get_primary_array_name(self):
        """Name the array that defines the model's shape."""
        return "bkg"

    def to_fits(self, init, *args, **kwargs):
        """
        Write a FITS file; cubes go to a path plane by plane.

        Parameters
        ----------
        init : str, `~pathlib.Path` or file object
            The file.
        *args, **kwargs
            See `astropy.io.fits.HDUList.writeto`.
        """
        if not isinstance(init, str | os.PathLike):
            super().to_fits(init, *args, **kwargs)
            return
        tree = self._instance
        cubes = {name: tree.pop(name) for name in _CUBES if tree.get(name) is not None}
        # A unit alone would make an empty extension.
        unit = tree["meta"].pop("bunit_images", None)
        try:
            super().to_fits(init, *args, **kwargs)
        finally:
            self._instance.update(cubes)
            self.meta.bunit_images = unit
        for name, cube in cubes.items():
            header = fits.ImageHDU(cube, name=_CUBES[name]).header
            if name == "images" and unit:
                header["BUNIT"] = unit
            with fits.StreamingHDU(init, header) as hdu:
                for plane in _planes(cube):
                    hdu.write(plane)

    def iterate(self, name):
        """
        Read the planes of a cube one by one, which may be larger than memory.

        Parameters
        ----------
        name : {"images", "masks"}
            The cube.

        Yields
        ------
        plane : ndarray, shape (ny, nx)
            A plane.
        """
        yield from _planes(getattr(self, name))

    def to_asdf(self, init, *args, **kwargs):
        """
        Write an ASDF file.

        Parameters
        ----------
        init : str, `~pathlib.Path` or file object
            The file.
        *args, **kwargs
            See `asdf.AsdfFile.write_to`.
        """
        cubes = {name: self._instance.get(name) for name in _CUBES}
        cubes = {name: cube for name, cube in cubes.items() if cube is not None}
        # asdf does not know maps.
        self._instance.update({name: np.asarray(cube) for name, cube in cubes.items()})
        try:
            super().to_asdf(init, *args, **kwargs)
        finally:
            self._instance.update(cubes)


def _planes(cube):
    """Take the planes of a cube one by one."""
    if not (isinstance(cube, np.memmap) and isinstance(cube.base, mmap.mmap) and cube.mode == "r"):
        yield from cube
        return
    # Mapped pages would count as memory in use until the last plane is written.
    shape, count = cube.shape[1:], int(np.prod(cube.shape[1:]))
    for index in range(len(cube)):
        offset = cube.offset + index * count * cube.itemsize
        yield np.fromfile(cube.filename, cube.dtype, count, offset=offset).reshape(shape)
