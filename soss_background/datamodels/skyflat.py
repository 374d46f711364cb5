"""The data model of a skyflat."""

import os

import numpy as np
from astropy.io import fits
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.registry import register

__all__ = ["SkyflatModel"]

# Cubes, which may exceed memory, and their extensions.
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
        The denoised sky in DN/s; finite on every science pixel.
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
        One row per exposure: pointing, time, level.
    qc : ndarray or None
        Quality metrics, one per row.
    """

    schema_url = "http://soss-background.readthedocs.io/schemas/skyflat.schema"

    def get_primary_array_name(self):
        """Return the name of the array that defines the model's shape."""
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
        # A unit alone would create an empty extension.
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
                for plane in cube:
                    hdu.write(plane)

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
        # asdf cannot write memory maps.
        self._instance.update({name: np.asarray(cube) for name, cube in cubes.items()})
        try:
            super().to_asdf(init, *args, **kwargs)
        finally:
            self._instance.update(cubes)
