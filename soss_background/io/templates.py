"""Sky templates from files, data models and arrays."""

import functools
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import JwstDataModel, dqflags

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.io.checks import check_file, check_model
from soss_background.io.files import explain_fault
from soss_background.io.foreign_templates import (
    find_array_shape,
    is_array,
    is_trimmed,
    is_trimmed_fielded,
    open_array,
    read_trimmed,
    skyflats_of_array,
)
from soss_background.io.opening import is_fits, read_metadata
from soss_background.io.skyflats import (
    describe_skyflat,
    find_files,
    find_kind,
    find_place,
    find_smooth_error,
    find_stripes,
    find_visit,
    warn_of_failures,
)
from soss_background.numerics.smoothing import fill_gaps
from soss_background.sky.averaging import Sky

__all__ = [
    "PLANE_KEYWORD",
    "cut_planes",
    "denoised_noise",
    "find_sources",
    "from_skyflat",
    "inspect_sky",
    "read_flat",
    "read_templates",
]

# Keyword of a BKG reference file: the plane (BKG or BKGDN) of its skyflats.
PLANE_KEYWORD = "SKYPLANE"

_FLAT_STATE = "meta.skyflat.flat_correction"
_FILTER = "meta.instrument.filter"

_NO_SKY = "neither a skyflat nor a BKG reference of SOSS nor an .npy array nor a sky model"

# Largest ratio of a pixel of a sky to the median (real skies reach 2); damaged values above it are
# gaps.
_BRIGHTEST = 1000

log = logging.getLogger(__name__)


def find_sources(given):
    """Return given models and arrays, and the files that names, wildcards and folders stand for."""
    in_memory = [item for item in given if isinstance(item, JwstDataModel | np.ndarray)]
    patterns = [item for item in given if isinstance(item, str | Path) and item != "N/A"]
    return in_memory + find_files(patterns, _list_templates)


def _list_templates(folder):
    """Return the files of templates in a folder, and warn of its other data files."""
    files = sorted(path for path in folder.iterdir() if _is_data(path))
    found = [path for path in files if _is_template(path)]
    if not found:
        raise SkyflatError(f"{folder}: no sky model, skyflat, BKG reference or .npy array in it")
    if ignored := [path.name for path in files if path not in found]:
        _warn_of_ignored(folder, ", ".join(ignored))
    return found


@functools.lru_cache
def _warn_of_ignored(folder, names):
    """Warn once of files in a folder that are not templates; a run lists a folder several times."""
    log.warning("%s: ignored, since they are not templates: %s", folder, names)


def _is_data(path):
    """Return whether the name of a file is that of a data model or array; hidden files are not."""
    known = is_fits(path) or path.suffix == ".asdf" or is_array(path)
    return known and path.is_file() and not path.name.startswith(".")


def _is_template(path):
    """Return whether a file holds templates."""
    if is_array(path):
        with explain_fault(path):
            return find_array_shape(path) is not None
    return _inspect_file(path).kind is not None


class Inspection(NamedTuple):
    """
    Kind, flat state and filter of a sky: a file, a model or an array.

    Attributes
    ----------
    kind : type or None
        SkyflatModel, SossBkgModel, SkyModel or ndarray; None for a file of another kind.
    flat_fielded : bool
        Whether the sky is flat-fielded.
    trimmed : bool
        Whether it is a skyflat without reference pixels, of the older scripts.
    filter_name : str or None
        Its FILTER; None if it is unknown.
    """

    kind: type | None
    flat_fielded: bool
    trimmed: bool = False
    filter_name: str | None = None


# Arrays are flat-fielded, see `skyflats_of_array`.
_ARRAY = Inspection(np.ndarray, flat_fielded=True)


def inspect_sky(source):
    """Return the `Inspection` of a model, an array or a file; raise if the file holds no sky."""
    if isinstance(source, np.ndarray):
        return _ARRAY
    if isinstance(source, JwstDataModel):
        header = source.to_flat_dict(include_arrays=False)
        return _inspect_header(type(source), header)
    found = _inspect_file(source)
    if found.kind is None:
        raise SkyflatError(f"{source}: {_NO_SKY}")
    return found


def _inspect_file(path):
    """Return the `Inspection` of a file, which is opened once unless it changes."""
    with explain_fault(path):
        status = Path(path).stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return _inspect_once(Path(path), state)


@functools.cache
def _inspect_once(path, _):
    """Return the `Inspection` of a file in the given state."""
    if is_array(path):
        return _ARRAY
    if is_trimmed(path):
        return Inspection(SkyflatModel, is_trimmed_fielded(path), trimmed=True)
    kind = find_kind(path)
    if kind is None:
        return Inspection(None, flat_fielded=False)
    if kind is datamodels.SossBkgModel:
        with kind(path) as reference:
            return _inspect_header(kind, reference.to_flat_dict(include_arrays=False))
    return _inspect_header(kind, read_metadata(path))


def _inspect_header(kind, header):
    """Return the `Inspection` of a data model from its flattened metadata."""
    fielded = header.get(_FLAT_STATE) == "COMPLETE"
    return Inspection(kind, fielded, filter_name=header.get(_FILTER))


def read_templates(source, window):
    """Return the `Sky` of each template of a file, a model or an array for a window."""
    with _open_models(source) as models:
        return [template for name, model in models for template in _read_model(model, window, name)]


@contextmanager
def _open_models(source):
    """Yield pairs of the name and the model of each skyflat or BKG reference of a source."""
    if isinstance(source, JwstDataModel):
        yield [(source.meta.filename or type(source).__name__, source)]
        return
    if isinstance(source, np.ndarray):
        yield skyflats_of_array(source, "array")
        return
    name = Path(source).name
    found = inspect_sky(source)
    with explain_fault(source):
        if found is _ARRAY:
            yield skyflats_of_array(open_array(source), name)
        elif found.trimmed:
            yield [(name, read_trimmed(source))]
        else:
            with found.kind(source) as model:
                yield [(name, model)]


def _read_model(model, window, name):
    """Return the templates of an open skyflat or BKG reference."""
    if isinstance(model, SkyflatModel):
        check_model(model, name)
        warn_of_failures(model, name)
        return [from_skyflat(model, window, name)]
    if isinstance(model, datamodels.SossBkgModel):
        return _from_reference(model, window, name)
    raise SkyflatError(f"{name}: {_NO_SKY}")


def from_skyflat(skyflat, window, name):
    """Return the `Sky` of a checked skyflat for a window, denoised if the skyflat is."""
    denoised = skyflat.bkgdn is not None
    sky = skyflat.bkgdn if denoised else skyflat.bkg
    factor = denoised_noise(skyflat) if denoised else 1
    sky, err, dq = cut_planes(skyflat, (sky, skyflat.err, skyflat.dq), window, name)
    known, row = skyflat.meta.skyflat, describe_skyflat(skyflat)
    return _clean(name, sky, err * factor, dq)._replace(
        white=_clean_noise(err),
        visit=find_visit(skyflat),
        stripes=find_stripes(skyflat),
        slope=-1.0 if known.stripe_slope is None else known.stripe_slope,
        pwcpos=row["PWCPOS"],
        smooth_error=find_smooth_error(skyflat),
        flat_fielded=known.flat_correction == "COMPLETE",
    )


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
        _clean(f"{name}[{number}]", *parts)._replace(flat_fielded=False)
        for number, parts in enumerate(zip(skies, errors, flags, strict=True), 1)
    ]


def read_flat(flat, window):
    """Return the flat of a file or model for a window, float32, shape (ny, nx); 1 where unknown."""
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
        raise SkyflatError(f"{name}: a flat without valid values")
    return np.where(known, flat, 1).astype(np.float32)


def cut_planes(model, planes, window, name):
    """Return views of a file's planes, cut to a window; raise if it lacks pixels of the window."""
    place = find_place(model, planes[0].shape[-2:], name)
    if len({plane.shape for plane in planes}) > 1:
        raise SkyflatError(f"{name}: its planes are not of one shape")
    if not place.covers(window):
        others = " or ".join(each.name for each in SUBARRAYS.values() if each.covers(window))
        raise SkyflatError(
            f"{name}: its {place.name} lacks pixels of {window.name}: give one of {others}"
        )
    row, column = window.y0 - place.y0, window.x0 - place.x0
    return [plane[..., row : row + window.ny, column : column + window.nx] for plane in planes]


def _clean(name, sky, noise, dq):
    """Return a `Sky` whose reference pixels and gaps are filled."""
    sky = np.asarray(sky, dtype=np.float32)
    known = np.isfinite(sky) & (sky > 0)
    if not known.any():
        raise SkyflatError(f"{name}: no sky in it")
    known &= sky < _BRIGHTEST * np.median(sky[known])
    if sky[known].min() == sky[known].max():
        raise SkyflatError(f"{name}: no sky in it, all its pixels have the same value")
    filled = fill_gaps(np.where(known, sky, 0), known)
    noise = _clean_noise(noise)
    return Sky(filled, noise, noise, np.asarray(dq, dtype=np.uint32), name)


def _clean_noise(noise):
    """Return uncertainties with 0 where they are unknown."""
    return np.nan_to_num(np.asarray(noise, dtype=np.float32), posinf=0.0)
