"""Templates of the sky as files hold them: skyflats, and BKG reference files."""

from typing import NamedTuple

import numpy as np
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.io.files import tell_of_fault
from soss_background.io.skyflats import find_place, look_into
from soss_background.numerics.smoothing import fill_gaps

__all__ = [
    "PLANE_KEYWORD",
    "Template",
    "cut_planes",
    "denoised_noise",
    "from_skyflat",
    "read_flat",
    "read_templates",
]

# Keyword of a BKG reference file that tells which plane of skyflats its templates are.
PLANE_KEYWORD = "SKYPLANE"


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
    with tell_of_fault(path):
        header, is_skyflat = look_into(path)
        if is_skyflat:
            with SkyflatModel(path) as skyflat:
                return [from_skyflat(skyflat, window, path.name)]
        if header.get("REFTYPE") == "BKG" or header.get("DATAMODL") == "SossBkgModel":
            with datamodels.SossBkgModel(path) as reference:
                return _from_reference(reference, window, path.name)
    raise SkyflatError(f"{path}: neither a skyflat nor a BKG reference of SOSS")


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
    noise = skyflat.err * denoised_noise(skyflat) if denoised else skyflat.err
    planes = cut_planes(skyflat, (sky, noise, skyflat.dq), window, name)
    return _clean(name, *planes, skyflat.meta.skyflat.flat_correction == "COMPLETE")


def denoised_noise(skyflat):
    """Return the noise of BKGDN over ERR: 1, the upper limit, if the skyflat lacks it."""
    factor = skyflat.meta.skyflat.noise_factor
    return 1 if factor is None else factor


def _from_reference(reference, window, name):
    """Take the templates of a BKG reference file, which jwst subtracts before it flat-fields."""
    planes = [
        np.zeros_like(reference.data) if plane is None else plane
        for plane in (reference.data, reference.err, reference.dq)
    ]
    skies, errors, flags = cut_planes(reference, planes, window, name)
    return [
        _clean(f"{name}[{number}]", *parts, False)
        for number, parts in enumerate(zip(skies, errors, flags, strict=True), 1)
    ]


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
    with tell_of_fault(path, fault), datamodels.FlatModel(path) as reference:
        if reference.data is None:
            raise SkyflatError(f"{path}: not a flat")
        flat, dq = cut_planes(reference, (reference.data, reference.dq), window, path)
    known = np.isfinite(flat) & (flat > 0) & (dq & dqflags.pixel["NO_FLAT_FIELD"] == 0)
    if not known.any():
        raise SkyflatError(f"{path}: a flat without any value")
    return np.where(known, flat, 1).astype(np.float32)


def cut_planes(model, planes, window, name):
    """
    Cut the pixels of a window out of the planes of a file.

    Parameters
    ----------
    model : data model
        The file, whose keywords or shape tell which pixels it has.
    planes : list of ndarray, shape (..., ny, nx)
        Its planes.
    window : `~soss_background.detector.Window`
        The pixels that are wanted.
    name : str
        What the file is called.

    Returns
    -------
    parts : list of ndarray, shape (..., window.ny, window.nx)
        Views of the planes.

    Raises
    ------
    SkyflatError
        If the file has not these pixels.
    """
    place = find_place(model, planes[0].shape[-2:], name)
    row, column = window.y0 - place.y0, window.x0 - place.x0
    inside = np.s_[..., max(row, 0) : row + window.ny, max(column, 0) : column + window.nx]
    if len({plane.shape for plane in planes}) > 1:
        raise SkyflatError(f"{name}: its planes are not of one shape")
    parts = [plane[inside] for plane in planes]
    if min(row, column) < 0 or parts[0].shape[-2:] != window.shape:
        raise SkyflatError(f"{name}: its {place.name} has not the pixels of {window.name}")
    return parts


def _clean(name, sky, noise, dq, flat_fielded):
    """Fill what is no sky: reference pixels and gaps."""
    sky = np.asarray(sky, dtype=np.float32)
    known = np.isfinite(sky) & (sky > 0)
    if not known.any():
        raise SkyflatError(f"{name}: no sky in it")
    filled = fill_gaps(np.where(known, sky, 0), known)
    noise = np.nan_to_num(np.asarray(noise, dtype=np.float32), posinf=0.0)
    return Template(name, filled, noise, np.asarray(dq, dtype=np.uint32), flat_fielded)
