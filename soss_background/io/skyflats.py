"""Skyflat files: find, open and describe them."""

import glob
import logging
from pathlib import Path

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels

from soss_background.datamodels.names import check_path
from soss_background.datamodels.quality_table import list_failures, read_text
from soss_background.datamodels.sky_model import SkyModel
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import FULL, SUBARRAYS, Window
from soss_background.errors import SkyflatError
from soss_background.io.checks import check_file, check_model
from soss_background.io.files import explain_fault
from soss_background.io.opening import guess_class, is_fits, list_models, read_metadata

__all__ = [
    "check_clear",
    "describe_skyflat",
    "find_files",
    "find_kind",
    "find_place",
    "find_smooth_error",
    "find_stripes",
    "find_subarray",
    "find_visit",
    "name_skyflat",
    "open_skyflat",
    "used_exposures",
    "warn_of_failures",
]

log = logging.getLogger(__name__)

_SKIES = (SkyflatModel, datamodels.SossBkgModel, SkyModel)


def _list_skyflats(folder):
    """Return the skyflats in a folder."""
    found = list_models(folder, "skyflat")
    if not found:
        raise SkyflatError(f"{folder}: no _skyflat file in this folder")
    return found


def find_files(patterns, list_folder=_list_skyflats):
    """Return the files that patterns and folders name, each once; unmatched patterns stay."""
    paths = {}
    for pattern in filter(None, map(str, patterns)):
        check_path(pattern)
        if Path(pattern).is_dir():
            found = list_folder(Path(pattern))
        elif Path(pattern).exists():  # with characters of a pattern in its name
            found = [pattern]
        else:
            found = sorted(glob.glob(pattern)) or [pattern]  # noqa: PTH207 - an absolute pattern
        paths |= {Path(path).absolute(): Path(path) for path in found}
    return list(paths.values())


def open_skyflat(skyflat):
    """Open a skyflat file or model; the caller closes the result, and a given model stays open."""
    if isinstance(skyflat, SkyflatModel):
        check_model(skyflat, skyflat.meta.filename or "skyflat")
        return SkyflatModel(skyflat)
    with explain_fault(skyflat):
        if find_kind(skyflat) is not SkyflatModel:
            raise SkyflatError(f"{skyflat}: not a skyflat")
        model = SkyflatModel(skyflat)
        check_model(model, skyflat)
        return model


def name_skyflat(skyflat, model):
    """Return the file name of a skyflat as given, or else from its header."""
    return getattr(skyflat, "name", None) or model.meta.filename or "skyflat"


def find_kind(path):
    """Return the class of a file of a sky: SkyflatModel, SossBkgModel, SkyModel, or None."""
    check_file(path)
    if not is_fits(path):
        name = read_metadata(path).get("meta.model_type")
        return {kind.__name__: kind for kind in _SKIES}.get(name)
    # Reference files need not be whole data models.
    with fits.open(path) as hdus:
        if hdus[0].header.get("REFTYPE") == "BKG":
            return datamodels.SossBkgModel
        kind = guess_class(hdus)
    return kind if kind in _SKIES else None


def find_place(model, shape, name):
    """Return the `Window` of a file from its keywords, or else from the shape of its planes."""
    subarray = model.meta.subarray
    if None not in (subarray.xstart, subarray.ystart):
        place = Window(subarray.name or "", subarray.ystart - 1, subarray.xstart - 1, *shape)
        if max(place.y0 + place.ny, place.x0 + place.nx) > FULL.nx:
            raise SkyflatError(f"{name}: SUBSTRT1 and SUBSTRT2 do not fit its shape {shape}")
        return place
    return find_subarray(shape, name)


def find_subarray(shape, name):
    """Return the `Window` of the subarray whose images have a shape; raise if there is none."""
    for known in SUBARRAYS.values():
        if known.shape == shape:
            return known
    raise SkyflatError(f"{name}: its shape {shape} is not that of a subarray")


def describe_skyflat(skyflat):
    """Return the keywords of a skyflat's sky (degrees); unknown values are empty, NaN or 0."""
    sky, used = skyflat.meta.skyflat, used_exposures(skyflat)
    pwcpos = skyflat.meta.instrument.pupil_position
    if used is not None:
        pwcpos = round(float(np.mean(used["pwcpos"])), 6)
    angles = {"LON": sky.ecliptic_lon, "LAT": sky.ecliptic_lat, "PWCPOS": pwcpos}
    angles = {key: np.nan if angle is None else angle for key, angle in angles.items()}
    return {
        "PROGRAM": skyflat.meta.observation.program_number or "",
        "TARGPROP": skyflat.meta.target.proposer_name or "",
        "LON": angles["LON"],
        "LAT": angles["LAT"],
        "DOY": sky.day or 0,
        "PWCPOS": angles["PWCPOS"],
        "NSAMPS": sky.n_samples or 0,
    }


def used_exposures(skyflat):
    """Return the rows of METADATA of the exposures in a skyflat, None if there are none."""
    table = skyflat.metadata
    return table[table["used"] == 1] if table is not None and np.any(table["used"]) else None


def check_clear(skyflat, name):
    """Raise if a skyflat is not one of CLEAR; without the keyword it is."""
    found = skyflat.meta.instrument.filter
    if found not in (None, "CLEAR"):
        raise SkyflatError(f"{name}: FILTER is {found}, not CLEAR")


def find_visit(skyflat):
    """Return program, target and observation of a skyflat; None unless all are known."""
    meta = skyflat.meta
    visit = (
        meta.observation.program_number,
        meta.target.proposer_name,
        meta.observation.observation_number,
    )
    return visit if all(visit) else None


def find_stripes(skyflat):
    """Return the rms of the 1/f stripes in the sky of a skyflat, DN/s."""
    known = skyflat.meta.skyflat
    left = 1 if known.stripes_left is None else known.stripes_left
    return float((known.stripe_rms or 0) / np.sqrt(max(known.n_samples or 1, 1)) * left)


def find_smooth_error(skyflat):
    """Return the uncertainty of a sky on large scales, as a fraction of the sky; 0 if unknown."""
    rows = () if skyflat.qc is None else skyflat.qc
    values = (row["value"] / 100 for row in rows if read_text(row["name"]) == "jackknife")
    return float(np.nan_to_num(next(values, 0.0)))


def warn_of_failures(skyflat, name):
    """Log a warning if quality metrics of a skyflat are out of their ranges."""
    failures = [] if skyflat.qc is None else list_failures(skyflat.qc)
    if failures:
        log.warning("%s: its quality is poor: %s", name, "; ".join(failures))
