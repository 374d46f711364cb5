"""Templates of the sky as files hold them: skyflats, and BKG reference files."""

import contextlib
import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.datamodels import SkyflatModel
from soss_background.detector import SUBARRAYS, Window
from soss_background.errors import SkyflatError
from soss_background.files import ignore_file_warnings
from soss_background.smoothing import fill_gaps

__all__ = ["Template", "find_files", "from_skyflat", "read_flat", "read_templates"]

# Noise of a denoised sky relative to that of the pixels that it was made of, on simulated visits.
_DENOISED = 0.16


class Template(NamedTuple):
    """
    A sky for the pixels of an exposure.

    Attributes
    ----------
    name : str
        Where it comes from.
    sky, noise : ndarray of float32, shape (ny, nx)
        The sky, without gaps, and its 1-sigma uncertainty, DN/s.
    dq : ndarray of uint32, shape (ny, nx)
        Its data quality flags.
    flat_fielded : bool
        Whether it is divided by the flat.
    """

    name: str
    sky: np.ndarray
    noise: np.ndarray
    dq: np.ndarray
    flat_fielded: bool


def find_files(patterns):
    """
    Find the files that patterns stand for.

    Parameters
    ----------
    patterns : list of str
        Paths, with wildcards or without.

    Returns
    -------
    paths : list of `~pathlib.Path`
        The files, each once; what stands for none is taken for a name.

    """
    paths = {}
    for pattern in patterns:
        if not str(pattern):
            continue
        found = sorted(glob.glob(str(pattern))) or [pattern]  # noqa: PTH207 - an absolute pattern
        paths |= {Path(path).absolute(): Path(path) for path in found}
    return list(paths.values())


def read_templates(path, window):
    """
    Read the templates of a file.

    Parameters
    ----------
    path : `~pathlib.Path`
        A skyflat, or a BKG reference file.
    window : `~soss_background.detector.Window`
        The pixels that they are for.

    Returns
    -------
    templates : list of Template
        The one of a skyflat, or all of a reference file.

    Raises
    ------
    SkyflatError
        If the file cannot be read, or holds no sky for these pixels.
    """
    if not path.is_file():
        raise SkyflatError(f"{path}: no such file")
    with _tell_of_fault(path, "cannot be read"), ignore_file_warnings():
        templates = _read_any(path, window)
    if templates is None:
        raise SkyflatError(f"{path}: neither a skyflat nor a BKG reference of SOSS")
    return templates


@contextlib.contextmanager
def _tell_of_fault(path, fault):
    """Name the file that is not what it should be."""
    try:
        yield
    except SkyflatError:
        raise
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as err:
        raise SkyflatError(f"{path}: {fault} ({err})") from err


def _read_any(path, window):
    """Read a file of either kind, None if it is of no kind."""
    # Reference files need not be whole data models.
    with fits.open(path) as hdus:
        header, is_skyflat = hdus[0].header, "BKG" in hdus
    if is_skyflat:
        with SkyflatModel(path) as skyflat:
            return [from_skyflat(skyflat, window, path.name)]
    if header.get("REFTYPE") == "BKG" or header.get("DATAMODL") == "SossBkgModel":
        with datamodels.SossBkgModel(path) as reference:
            return _from_reference(reference, window, path.name)
    return None


def from_skyflat(skyflat, window, name):
    """
    Take the template of a skyflat.

    Parameters
    ----------
    skyflat : SkyflatModel
        The skyflat; of one that is not denoised the plain sky is taken.
    window : `~soss_background.detector.Window`
        The pixels that it is for.
    name : str
        What it is called.

    Returns
    -------
    template : Template
        The template.

    Raises
    ------
    SkyflatError
        If it has no sky for these pixels.
    """
    denoised = skyflat.bkgdn is not None
    sky = skyflat.bkgdn if denoised else skyflat.bkg
    if sky is None or skyflat.err is None or skyflat.dq is None:
        raise SkyflatError(f"{name}: no BKG, ERR or DQ")
    noise = skyflat.err * (_DENOISED if denoised else 1)
    place = _place(skyflat, sky.shape, name)
    planes = [_cut(plane, place, window, name) for plane in (sky, noise, skyflat.dq)]
    return _clean(name, *planes, skyflat.meta.skyflat.flat_correction == "COMPLETE")


def _from_reference(reference, window, name):
    """Take the templates of a BKG reference file, which jwst subtracts before it flat-fields."""
    planes = [
        np.zeros_like(reference.data) if plane is None else plane
        for plane in (reference.data, reference.err, reference.dq)
    ]
    templates, place = [], _place(reference, reference.data.shape[-2:], name)
    for number, parts in enumerate(zip(*planes, strict=True), 1):
        cut = [_cut(part, place, window, name) for part in parts]
        templates.append(_clean(f"{name}[{number}]", *cut, False))
    return templates


def read_flat(path, window):
    """
    Read a flat.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A FLAT reference file.
    window : `~soss_background.detector.Window`
        The pixels that it is for.

    Returns
    -------
    flat : ndarray of float32, shape (ny, nx)
        The flat; one where it has no value.

    Raises
    ------
    SkyflatError
        If the file cannot be read, or has no value for these pixels.
    """
    fault = "cannot be read as a flat"
    with _tell_of_fault(path, fault), datamodels.FlatModel(path) as reference:
        place = _place(reference, reference.data.shape, path)
        planes = (reference.data, reference.dq)
        flat, dq = (_cut(plane, place, window, path) for plane in planes)
    known = np.isfinite(flat) & (flat > 0) & (dq & dqflags.pixel["NO_FLAT_FIELD"] == 0)
    return np.where(known, flat, 1).astype(np.float32)


def _place(model, shape, name):
    """Tell which pixels a file is of, by its keywords or else by its shape."""
    subarray = model.meta.subarray
    if None not in (subarray.xstart, subarray.ystart):
        return Window(subarray.name or "", subarray.ystart - 1, subarray.xstart - 1, *shape)
    for known in SUBARRAYS.values():
        if known.shape == shape:
            return known
    raise SkyflatError(f"{name}: its shape {shape} is that of no subarray")


def _cut(plane, place, window, name):
    """Cut the pixels of an exposure out of a template."""
    row, column = window.y0 - place.y0, window.x0 - place.x0
    part = plane[max(row, 0) : row + window.ny, max(column, 0) : column + window.nx]
    if min(row, column) < 0 or part.shape != window.shape:
        raise SkyflatError(f"{name}: its {place.name} has not the pixels of {window.name}")
    return part


def _clean(name, sky, noise, dq, flat_fielded):
    """Fill what is no sky: reference pixels and gaps."""
    sky = np.asarray(sky, dtype=np.float32)
    known = np.isfinite(sky) & (sky > 0)
    if not known.any():
        raise SkyflatError(f"{name}: no sky in it")
    filled = fill_gaps(np.where(known, sky, 0), known)
    noise = np.nan_to_num(np.asarray(noise, dtype=np.float32), posinf=0.0)
    return Template(name, filled, noise, np.asarray(dq, dtype=np.uint32), flat_fielded)
