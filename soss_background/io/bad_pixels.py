"""Lists of bad pixels given by the user."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import FULL
from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault

__all__ = ["flag_pixels", "read_bad_pixels"]

_DO_NOT_USE = np.uint32(dqflags.pixel["DO_NOT_USE"])


def read_bad_pixels(path, window):
    """
    Read a list of bad pixels.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A FITS image of the window or of the full detector, nonzero where a pixel is bad; or a table
        (FITS, ECSV, CSV, text) with columns x and y of pixels of the window, counted from 0.
    window : `~soss_background.detector.Window`
        The pixels of the exposures.

    Returns
    -------
    bad : ndarray of bool, shape (ny, nx)
        True for bad pixels.
    """
    with explain_fault(path, "cannot be read as a list of bad pixels"):
        found = _read(path)
        read = _from_table if isinstance(found, Table) else _cut
        return read(path, found, window)


def flag_pixels(bad, model):
    """Flag pixels, given by a mask (ny, nx) or None, DO_NOT_USE in an exposure; return it."""
    if bad is not None:
        model.dq = model.dq | np.where(bad, _DO_NOT_USE, 0).astype(np.uint32)
    return model


def _read(path):
    """Read the first image of a FITS file, or else its table, or a text table."""
    with Path(path).open("rb") as file:
        if file.read(6) != b"SIMPLE":
            return Table.read(path, format="ascii")
    with fits.open(path, memmap=False) as hdus:
        images = (hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None)
        image = next(images, None)
    return Table.read(path) if image is None else image


def _cut(path, image, window):
    """Return True for bad pixels of an image, cut to the pixels of the exposures."""
    if image.shape == FULL.shape:
        image = image[window.slices]
    if image.shape != window.shape:
        raise SkyflatError(f"{path}: its shape is {image.shape}, not {window.shape}")
    return np.nan_to_num(image, nan=1) != 0


def _from_table(path, table, window):
    """Return True for the pixels in a table."""
    if any(np.any(getattr(table[name], "mask", False)) for name in ("x", "y")):
        raise SkyflatError(f"{path}: a row lacks x or y")
    x, y = (np.asarray(table[name]) for name in ("x", "y"))
    if not all(np.issubdtype(column.dtype, np.integer) for column in (x, y)):
        raise SkyflatError(f"{path}: x and y are not whole numbers")
    outside = (x < 0) | (x >= window.nx) | (y < 0) | (y >= window.ny)
    if outside.any():
        first = int(np.argmax(outside))
        raise SkyflatError(f"{path}: x = {x[first]}, y = {y[first]} is not in the exposures")
    bad = np.zeros(window.shape, dtype=bool)
    bad[y, x] = True
    return bad
