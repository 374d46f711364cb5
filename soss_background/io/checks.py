"""Checks of headers and of the planes of files, before any work is done."""

import bz2
import gzip
import lzma
import math
import re
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import asdf
import numpy as np
from asdf import treeutil
from asdf.tags.core import NDArrayType
from astropy.io import fits
from stdatamodels.exceptions import ValidationWarning

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError, one_line
from soss_background.io.dates import parse_date
from soss_background.io.files import ignore_file_warnings

__all__ = ["check_file", "check_metadata", "check_model", "find_bad_value"]


class _Number(NamedTuple):
    """A keyword that holds a number from ``low`` to ``high``."""

    keyword: str
    low: float
    high: float
    kind: type | tuple = (int, float)

    def fault(self, value):
        """Return the fault of a value as a string, or None."""
        if isinstance(value, bool) or not isinstance(value, self.kind) or not math.isfinite(value):
            noun = "a whole number" if self.kind is int else "a number"
            return f"{self.keyword} is {value!r}, not {noun}"
        if not self.low <= value <= self.high:
            return f"{self.keyword} is {value:g}, not from {self.low:g} to {self.high:g}"
        return None


class _Text(NamedTuple):
    """A keyword that holds a string."""

    keyword: str

    def fault(self, value):
        """Return the fault of a value as a string, or None."""
        return None if isinstance(value, str) else f"{self.keyword} is {value!r}, not a string"


class _Date(NamedTuple):
    """A keyword that holds a date."""

    keyword: str

    def fault(self, value):
        """Return the fault of a value as a string, or None."""
        try:
            parse_date(value)
        except (TypeError, ValueError):
            return f"{self.keyword} is {value!r}, not a date"
        return None


# Modified Julian dates of the years 2000 to 2100, days.
_MJD = (51544, 88069)
# Largest distance of the telescope from the barycentre, km, and from the Earth, m.
_BARYCENTRIC, _GEOCENTRIC = 1e9, 1e11

# Values of a header that a run uses, by the path of the metadata; each may be missing.
_VALUES = {
    "meta.filename": _Text("FILENAME"),
    "meta.bunit_data": _Text("BUNIT"),
    "meta.cal_step.bkg_subtract": _Text("S_BKDSUB"),
    "meta.cal_step.flat_field": _Text("S_FLAT"),
    "meta.exposure.type": _Text("EXP_TYPE"),
    "meta.instrument.filter": _Text("FILTER"),
    "meta.instrument.name": _Text("INSTRUME"),
    "meta.instrument.pupil": _Text("PUPIL"),
    "meta.observation.observation_number": _Text("OBSERVTN"),
    "meta.observation.program_number": _Text("PROGRAM"),
    "meta.subarray.name": _Text("SUBARRAY"),
    "meta.target.catalog_name": _Text("TARGNAME"),
    "meta.target.proposer_name": _Text("TARGPROP"),
    "meta.observation.date_beg": _Date("DATE-BEG"),
    "meta.observation.date_end": _Date("DATE-END"),
    "meta.pointing.ra_v1": _Number("RA_V1", -360, 360),
    "meta.pointing.dec_v1": _Number("DEC_V1", -90, 90),
    "meta.pointing.pa_v3": _Number("PA_V3", -360, 360),
    "meta.aperture.position_angle": _Number("PA_APER", -360, 360),
    "meta.ephemeris.spatial_x_bary": _Number("JWST_X", -_BARYCENTRIC, _BARYCENTRIC),
    "meta.ephemeris.spatial_y_bary": _Number("JWST_Y", -_BARYCENTRIC, _BARYCENTRIC),
    "meta.ephemeris.spatial_z_bary": _Number("JWST_Z", -_BARYCENTRIC, _BARYCENTRIC),
    "meta.ephemeris.spatial_x_geo": _Number("OBSGEO-X", -_GEOCENTRIC, _GEOCENTRIC),
    "meta.ephemeris.spatial_y_geo": _Number("OBSGEO-Y", -_GEOCENTRIC, _GEOCENTRIC),
    "meta.ephemeris.spatial_z_geo": _Number("OBSGEO-Z", -_GEOCENTRIC, _GEOCENTRIC),
    "meta.exposure.start_time": _Number("EXPSTART", *_MJD),
    "meta.exposure.mid_time": _Number("EXPMID", *_MJD),
    "meta.exposure.mid_time_mjd": _Number("MJD-AVG", *_MJD),
    "meta.exposure.end_time": _Number("EXPEND", *_MJD),
    "meta.exposure.exposure_time": _Number("EFFEXPTM", 0, math.inf),
    "meta.exposure.nints": _Number("NINTS", 1, 2**31 - 1, int),
    "meta.instrument.pupil_position": _Number("PWCPOS", -360, 360),
    "meta.subarray.xstart": _Number("SUBSTRT1", 1, 2048, int),
    "meta.subarray.ystart": _Number("SUBSTRT2", 1, 2048, int),
    "meta.subarray.xsize": _Number("SUBSIZE1", 1, 2048, int),
    "meta.subarray.ysize": _Number("SUBSIZE2", 1, 2048, int),
    "meta.target.ra": _Number("TARG_RA", -360, 360),
    "meta.target.dec": _Number("TARG_DEC", -90, 90),
    "meta.skyflat.ecliptic_lon": _Number("LON", -360, 360),
    "meta.skyflat.ecliptic_lat": _Number("LAT", -90, 90),
    "meta.skyflat.day": _Number("DAY", 1, 366, int),
    "meta.skyflat.n_samples": _Number("NSAMPS", 0, 2**31 - 1, int),
    "meta.skyflat.noise_factor": _Number("DNFACTOR", 0, math.inf),
    "meta.skyflat.stripe_rms": _Number("STRIPES", 0, math.inf),
    "meta.skyflat.stripes_left": _Number("DNLEFT", 0, 1),
    "meta.skyflat.stripe_slope": _Number("STRSLOPE", -100, 100),
    "meta.skyflat.smoothing_rows": _Number("DNROWS", 0, math.inf),
    "meta.skyflat.smoothing_columns": _Number("DNCOLS", 0, math.inf),
    "meta.skyflat.flat_correction": _Text("FLATCORR"),
}

# Attributes of planes by extension: planes with the shape of the first one (a model needs the first
# three), and stacks of one or more such images.
_EXPOSURE = {
    "SCI": "data",
    "ERR": "err",
    "DQ": "dq",
    "VAR_POISSON": "var_poisson",
    "VAR_RNOISE": "var_rnoise",
}
_OF_EXPOSURE = {"MASK": "mask", "VAR_FLAT": "var_flat"}
_SKYFLAT = {"BKG": "bkg", "ERR": "err", "DQ": "dq", "BKGDN": "bkgdn"}
_OF_SKYFLAT = {"SCI": "images", "MASKS": "masks"}


# Functions that open compressed files, by their first bytes, and bytes to read at a time.
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_BLOCK = 2**20


def find_bad_value(header):
    """Return the first fault among the values of flattened metadata as a string, or None."""
    for key, rule in _VALUES.items():
        value = header.get(key)
        if value is not None and (fault := rule.fault(value)):
            return fault
    return None


def check_file(path):
    """Raise SkyflatError if a FITS or ASDF file is truncated, or planes do not fit each other."""
    start, size = _measure_file(path)
    if start == b"#ASDF ":
        _read_blocks(path)
    if start != b"SIMPLE":
        return
    with ignore_file_warnings(), fits.open(path) as hdus:
        _check_whole(hdus, path, size)
        _check_references(hdus, path)
        shapes = {hdu.name: hdu.shape if hdu.is_image else None for hdu in hdus}
        _check_planes({name: shape for name, shape in shapes.items() if shape != ()}, path)


def _measure_file(path):
    """Return the first six bytes and the size of a file, both of the decompressed file."""
    with Path(path).open("rb") as file:
        start = file.read(6)
    open_file = next((each for magic, each in _COMPRESSED.items() if start.startswith(magic)), None)
    if open_file is None:
        return start, Path(path).stat().st_size
    try:
        with open_file(path) as file:
            start = file.read(6)
            return start, len(start) + sum(map(len, iter(partial(file.read, _BLOCK), b"")))
    except EOFError as err:
        raise SkyflatError(f"{path}: truncated") from err


def _read_blocks(path):
    """Read the arrays of an ASDF file, which are loaded lazily otherwise; let faults propagate."""
    with asdf.open(path) as file:
        for node in treeutil.iter_tree(file.tree):
            if isinstance(node, NDArrayType):
                np.asarray(node)


def _check_whole(hdus, path, size):
    """Raise unless a file ends where its last extension ends."""
    for number, hdu in enumerate(hdus):
        info = hdu.fileinfo()
        # The size of a compressed image is that of its pixels, not of its data in the file.
        is_compressed = isinstance(hdu, fits.CompImageHDU)
        if not is_compressed and info["datLoc"] + hdu.size > size:
            raise SkyflatError(f"{path}: truncated in extension {hdu.name or number}")
    if info["datLoc"] + info["datSpan"] < size:
        raise SkyflatError(f"{path}: truncated or damaged after extension {hdu.name or number}")


def _check_references(hdus, path):
    """Raise if the ASDF tree of a file refers to a missing extension."""
    if "ASDF" not in hdus:
        return
    tree = hdus["ASDF"].data.tobytes().decode("latin-1")
    for name, version in re.findall(r"source: .?fits:(\w+),(\d+)", tree):
        if (name, int(version)) not in hdus:
            raise SkyflatError(f"{path}: truncated or damaged, extension {name} is missing")


def check_metadata(model):
    """Raise SkyflatError if the schema of a model refuses its metadata, so that it is not saved."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ValidationWarning)
        model.validate()
    for warning in found:
        fault = one_line(str(warning.message).partition("occurred:")[2])
        raise SkyflatError(f"{model.meta.filename}: cannot be saved ({fault})")


def check_model(model, name):
    """Raise SkyflatError unless a model has the planes that it needs, and they fit each other."""
    is_skyflat = isinstance(model, SkyflatModel)
    needed, others = (_SKYFLAT, _OF_SKYFLAT) if is_skyflat else (_EXPOSURE, _OF_EXPOSURE)
    planes = {key: getattr(model, each, None) for key, each in (needed | others).items()}
    for key in list(needed)[:3]:
        if planes[key] is None:
            raise SkyflatError(f"{name}: {key} is missing")
    for key, plane in planes.items():
        if plane is not None and not hasattr(plane, "ndim"):  # a node of a damaged tree
            raise SkyflatError(f"{name}: {key} is not an array")
    _check_planes({key: plane.shape for key, plane in planes.items() if plane is not None}, name)
    # The keywords of exposures are checked with those that they must have.
    if is_skyflat and (fault := find_bad_value(model.to_flat_dict(include_arrays=False))):
        raise SkyflatError(f"{name}: {fault}")


def _check_planes(shapes, name):
    """Raise unless the planes, given by their shapes (None for a table), fit each other."""
    same, stacks = (_SKYFLAT, _OF_SKYFLAT) if "BKG" in shapes else (_EXPOSURE, _OF_EXPOSURE)
    planes = {key: shape for key, shape in shapes.items() if key in same | stacks}
    for key, shape in planes.items():
        if shape is None:
            raise SkyflatError(f"{name}: {key} is a table, not an image")
    first = next(iter(same))
    whole = planes.get(first)
    if whole is None:
        return
    if 0 in whole:
        raise SkyflatError(f"{name}: {first} has no pixel, its shape is {whole}")
    if "BKG" in shapes:
        numbers = {shape[:-2] for key, shape in planes.items() if key in stacks}
        if len(numbers) > 1 or any(len(number) != 1 for number in numbers):
            raise SkyflatError(f"{name}: SCI and MASKS do not hold the same number of exposures")
    for key, shape in planes.items():
        fits_in = shape == whole if key in same else shape[-2:] == whole[-2:]
        if not fits_in:
            raise SkyflatError(f"{name}: {key} has the shape {shape}, but {first} {whole}")
