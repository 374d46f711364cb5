"""Sky templates from files: skyflats and BKG reference files."""

from typing import NamedTuple

import numpy as np
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import JwstDataModel, dqflags

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.io.checks import check_file, check_model
from soss_background.io.files import explain_fault
from soss_background.io.opening import read_metadata
from soss_background.io.skyflats import find_kind, find_place
from soss_background.numerics.smoothing import fill_gaps

__all__ = [
    "PLANE_KEYWORD",
    "Template",
    "cut_planes",
    "denoised_noise",
    "from_skyflat",
    "is_flat_fielded",
    "read_flat",
    "read_templates",
]

# Keyword of a BKG reference file: the plane of the skyflats that its templates are.
PLANE_KEYWORD = "SKYPLANE"

_FLAT_STATE = "meta.skyflat.flat_correction"


class Template(NamedTuple):
    """
    A sky for the pixels of an exposure.

    Attributes
    ----------
    name : str
        File name, with the number of the plane of a reference file.
    sky, noise : ndarray of float32, shape (ny, nx)
        The sky, without gaps, and its 1-sigma uncertainty, DN/s.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags.
    flat_fielded : bool
        Whether the sky is divided by the flat.
    """

    name: str
    sky: np.ndarray
    noise: np.ndarray
    dq: np.ndarray
    flat_fielded: bool


def is_flat_fielded(source):
    """Return whether the templates of a skyflat or BKG reference, a file or a model, are."""
    if isinstance(source, JwstDataModel):
        state = source.to_flat_dict(include_arrays=False).get(_FLAT_STATE)
    else:
        with explain_fault(source):
            is_skyflat = _find_kind(source) is SkyflatModel
            state = read_metadata(source).get(_FLAT_STATE) if is_skyflat else None
    return state == "COMPLETE"


def read_templates(source, window):
    """Return the templates of a skyflat or BKG reference, a file or a model, for a window."""
    if isinstance(source, JwstDataModel):
        name = source.meta.filename or type(source).__name__
        return _read_model(source, window, name)
    with explain_fault(source), _find_kind(source)(source) as model:
        return _read_model(model, window, source.name)


def _find_kind(path):
    """Return the class of a file of templates; raise if it is none."""
    kind = find_kind(path)
    if kind is None:
        raise SkyflatError(f"{path}: neither a skyflat nor a BKG reference of SOSS")
    return kind


def _read_model(model, window, name):
    """Return the templates of an open skyflat or BKG reference."""
    if isinstance(model, SkyflatModel):
        check_model(model, name)
        return [from_skyflat(model, window, name)]
    if isinstance(model, datamodels.SossBkgModel):
        return _from_reference(model, window, name)
    raise SkyflatError(f"{name}: neither a skyflat nor a BKG reference of SOSS")


def from_skyflat(skyflat, window, name):
    """Return the template of a checked skyflat for a window, denoised if the skyflat is."""
    denoised = skyflat.bkgdn is not None
    sky = skyflat.bkgdn if denoised else skyflat.bkg
    noise = skyflat.err * denoised_noise(skyflat) if denoised else skyflat.err
    planes = cut_planes(skyflat, (sky, noise, skyflat.dq), window, name)
    return _clean(name, *planes, skyflat.meta.skyflat.flat_correction == "COMPLETE")


def denoised_noise(skyflat):
    """Return the noise of BKGDN over ERR: 1, the upper limit, if the skyflat lacks it."""
    factor = skyflat.meta.skyflat.noise_factor
    return 1 if factor is None else factor


def _from_reference(reference, window, name):
    """Return the templates of a BKG reference file, which jwst subtracts before it flat-fields."""
    planes = [
        np.zeros_like(reference.data) if plane is None else plane
        for plane in (reference.data, reference.err, reference.dq)
    ]
    skies, errors, flags = cut_planes(reference, planes, window, name)
    return [
        _clean(f"{name}[{number}]", *parts, False)
        for number, parts in enumerate(zip(skies, errors, flags, strict=True), 1)
    ]


def read_flat(flat, window):
    """Return a flat, a file or a model, for a window, float32, shape (ny, nx); 1 where unknown."""
    if isinstance(flat, JwstDataModel):
        return _cut_flat(flat, window, flat.meta.filename or "flat")
    fault = "cannot be read as a flat"
    with explain_fault(flat, fault):
        check_file(flat)
        with datamodels.FlatModel(flat) as reference:
            return _cut_flat(reference, window, flat)


def _cut_flat(reference, window, name):
    """Return the flat of an open model, see `read_flat`."""
    if reference.data is None:
        raise SkyflatError(f"{name}: not a flat")
    flat, dq = cut_planes(reference, (reference.data, reference.dq), window, name)
    known = np.isfinite(flat) & (flat > 0) & (dq & dqflags.pixel["NO_FLAT_FIELD"] == 0)
    if not known.any():
        raise SkyflatError(f"{name}: a flat without any value")
    return np.where(known, flat, 1).astype(np.float32)


def cut_planes(model, planes, window, name):
    """Return views of a file's planes, cut to a window; raise if the file lacks its pixels."""
    place = find_place(model, planes[0].shape[-2:], name)
    if len({plane.shape for plane in planes}) > 1:
        raise SkyflatError(f"{name}: its planes are not of one shape")
    if not place.covers(window):
        others = " or ".join(each.name for each in SUBARRAYS.values() if each.covers(window))
        raise SkyflatError(
            f"{name}: its {place.name} has not the pixels of {window.name}: give one of {others}"
        )
    row, column = window.y0 - place.y0, window.x0 - place.x0
    return [plane[..., row : row + window.ny, column : column + window.nx] for plane in planes]


def _clean(name, sky, noise, dq, flat_fielded):
    """Fill reference pixels and gaps of a sky, and return its template."""
    sky = np.asarray(sky, dtype=np.float32)
    known = np.isfinite(sky) & (sky > 0)
    if not known.any():
        raise SkyflatError(f"{name}: no sky in it")
    if sky[known].min() == sky[known].max():
        raise SkyflatError(f"{name}: no sky in it, all its pixels have the same value")
    filled = fill_gaps(np.where(known, sky, 0), known)
    noise = np.nan_to_num(np.asarray(noise, dtype=np.float32), posinf=0.0)
    return Template(name, filled, noise, np.asarray(dq, dtype=np.uint32), flat_fielded)
