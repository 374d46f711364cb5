"""Cubes of integrations: written to a file without copies of their planes."""

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from stdatamodels import fits_support

from soss_background.io.quiet import ignore_warnings

__all__ = ["write_cube"]

# FITS has no unsigned integers: files store the difference from this value (BZERO).
_ZERO = np.uint32(2**31)


def write_cube(model, path):
    """
    Write a data model to a FITS file, as its own ``save`` does, without copies of its planes.

    astropy would hold two copies of the flags in memory to write them.

    Parameters
    ----------
    model : `~stdatamodels.jwst.datamodels.JwstDataModel`
        The data model; its ``meta.filename`` is set to the name of the file.
    path : `~pathlib.Path`
        The file, which must not exist.
    """
    model.on_save(str(path))
    with ignore_warnings(VerifyWarning, "Card is too long"):
        primary, *extensions = fits_support.to_fits(model.instance, model.schema)
        primary.writeto(path)
        for hdu in extensions:
            if getattr(hdu.data, "dtype", None) == np.uint32:
                _write_flags(hdu, path)
            else:
                with fits.open(path, "append") as file:
                    file.append(hdu)


def _write_flags(hdu, path):
    """Append flags to a file, plane by plane."""
    with fits.StreamingHDU(str(path), hdu.header) as stream:
        for plane in hdu.data:
            stream.write((plane ^ _ZERO).view(np.int32))
