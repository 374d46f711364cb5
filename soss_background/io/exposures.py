"""Exposures: opened from any form of input, checked, and reduced to images."""

import itertools
import logging
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jwst.datamodels import ModelLibrary
from jwst.lib.suffix import remove_suffix
from stdatamodels.jwst import datamodels

from soss_background.datamodels.exposure_table import (
    describe_exposures,
    describing_values,
    summarize,
)
from soss_background.datamodels.names import OBSERVATION, identify, product_name, read_group
from soss_background.detector import (
    FULL,
    PWCPOS,
    PWCPOS_REACH,
    SOSS_BANDS,
    SUBARRAYS,
    SUPERSTRIPES,
    Window,
)
from soss_background.errors import SkyflatError, one_line
from soss_background.io.associations import (
    is_association,
    read_association,
    science_exposures,
)
from soss_background.io.checks import check_file, find_bad_value
from soss_background.io.files import explain_fault, real_path
from soss_background.io.library import ExposureLibrary, as_image
from soss_background.io.opening import list_models, read_metadata
from soss_background.io.skyflats import find_files

__all__ = [
    "Description",
    "IDENTITY",
    "REQUIRED",
    "REQUIRED_CLEAR",
    "borrow",
    "borrow_image",
    "check_repetition",
    "describe_members",
    "describe_products",
    "file_sizes",
    "find_exposures",
    "find_fault",
    "find_pwcpos",
    "find_sky_fault",
    "find_window",
    "header_of",
    "header_window",
    "identities",
    "is_dithered",
    "iterate_images",
    "member_paths",
    "open_libraries",
    "read_header",
    "read_headers",
    "root_name",
]

log = logging.getLogger(__name__)

# Metadata of a SOSS exposure: FITS keyword, and its required value, or a tuple of values (None for
# any).
REQUIRED = {
    "meta.instrument.name": ("INSTRUME", "NIRISS"),
    "meta.exposure.type": ("EXP_TYPE", "NIS_SOSS"),
    "meta.instrument.filter": ("FILTER", tuple(SOSS_BANDS)),
    "meta.instrument.pupil": ("PUPIL", "GR700XD"),
    "meta.subarray.name": ("SUBARRAY", None),
}

# The same of an exposure that has the spectra of all orders.
REQUIRED_CLEAR = REQUIRED | {"meta.instrument.filter": ("FILTER", "CLEAR")}

IDENTITY = [
    f"meta.observation.{key}"
    for key in (
        "program_number",
        "observation_number",
        "visit_number",
        "visit_group",
        "sequence_id",
        "activity_id",
        "exposure_number",
    )
]


def find_exposures(inputs):
    """Return inputs with the files that wildcards match; a folder stands for its exposures."""
    found = []
    for item in inputs:
        found += find_files([item], _list_exposures) if isinstance(item, str | Path) else [item]
    return found


def _list_exposures(folder):
    """Return the _rateints files of a folder, and the _rate files of other exposures."""
    cubes, images = (list_models(folder, suffix) for suffix in ("rateints", "rate"))
    known = {root_name(path) for path in cubes}
    found = sorted(cubes + [path for path in images if root_name(path) not in known])
    if not found:
        raise SkyflatError(f"{folder}: no _rateints or _rate file in this folder")
    return found


def open_libraries(inputs, folder=None):
    """
    Open exposures as libraries of models, and check their headers.

    Parameters
    ----------
    inputs : list
        Association files, one `~jwst.datamodels.ModelLibrary`, or files and models, which are
        copied.
    folder : str or `~pathlib.Path`, optional
        Folder for the pixels of changed exposures; by default they stay in memory.

    Returns
    -------
    libraries : list of `~jwst.datamodels.ModelLibrary`
        One for each product of the associations, else a single one. Files are read when borrowed.

    Raises
    ------
    SkyflatError
        Unless the inputs are readable SOSS exposures of one subarray, each given once.
    """
    if not inputs:
        raise SkyflatError("No exposures are given")
    if all(map(is_association, inputs)):
        libraries = [each for path in inputs for each in _from_association(Path(path), folder)]
    elif any(map(is_association, inputs)):
        raise SkyflatError(
            f"{next(filter(is_association, inputs))}: give associations or exposures, not both"
        )
    elif len(inputs) == 1 and isinstance(inputs[0], ExposureLibrary):
        return list(inputs)  # checked when it was opened
    elif len(inputs) == 1 and isinstance(inputs[0], ModelLibrary):
        if {exptype.lower() for exptype in inputs[0].exptypes} != {"science"}:
            raise SkyflatError("The library has members that are not of the exptype science")
        libraries = list(inputs)
    elif all(isinstance(item, str | Path) for item in inputs):
        paths = [Path(item) for item in inputs]
        _check_repetition(paths)
        headers = [read_header(path) for path in paths]
        libraries = [_library_of_files({}, {}, paths, headers, folder)]
    else:
        libraries = [ExposureLibrary([_own_copy(item) for item in inputs])]
    for library in libraries:
        _check(read_headers(library))
    return libraries


def member_paths(library):
    """Return the absolute paths of a library's files, which do not exist if it holds models."""
    members = library.asn["products"][0]["members"]
    return [real_path(Path(library.asn_dir) / member["expname"]) for member in members]


def describe_members(library):
    """List ``name`` and ``size`` (bytes) of a library's files; models in memory are left out."""
    return file_sizes(path for path in member_paths(library) if path.is_file())


def file_sizes(paths):
    """List ``name`` and ``size`` (bytes) of files."""
    return [{"name": path.name, "size": path.stat().st_size} for path in paths]


def read_header(path):
    """Return the flattened metadata of a FITS or ASDF data model, without reading its pixels."""
    with explain_fault(path, "cannot be read as a JWST data model"):
        check_file(path)
        return read_metadata(path)


def header_of(exposure):
    """Return the flattened metadata of a file or model."""
    if isinstance(exposure, datamodels.JwstDataModel):
        return exposure.to_flat_dict(include_arrays=False)
    return read_header(Path(exposure))


def read_headers(library):
    """Return the flattened metadata of a library's exposures, with file names as ``name``."""
    members = library.asn["products"][0]["members"]
    return [
        library.read_metadata(index) | {"name": Path(member["expname"]).name}
        for index, member in enumerate(members)
    ]


class Description(NamedTuple):
    """
    Description of a product, from the headers of its exposures.

    Attributes
    ----------
    table : ndarray, shape (n,)
        Rows of METADATA, see `soss_background.datamodels.exposure_table.describe_exposures`.
    summary : dict
        See `soss_background.datamodels.exposure_table.summarize`.
    name : str
        File name of the skyflat.
    identity : dict
        See `soss_background.datamodels.names.identify`.
    """

    table: np.ndarray
    summary: dict
    name: str
    identity: dict


def describe_products(libraries):
    """Return the `Description` of each library, computed once; raise if two share a name."""
    descriptions, names = [], set()
    for library in libraries:
        headers = read_headers(library)
        key = [describing_values(header) for header in headers]
        known, description = getattr(library, "description", (None, None))
        if known != key:
            description = _describe_product(headers, library.asn["products"][0])
            library.description = (key, description)
        name = description.name
        if name in names:
            raise SkyflatError(f"{name}: two products have this name, run them one by one")
        names.add(name)
        descriptions.append(description)
    return descriptions


def _describe_product(headers, product):
    """Return the description of a product from the headers of its exposures."""
    table = describe_exposures(headers)
    summary = summarize(table) | {"obs_group": read_group(product)}
    recorded = headers[0] | {f"meta.skyflat.{key}": value for key, value in summary.items()}
    return Description(table, summary, product_name(summary, headers, product), identify(recorded))


def find_fault(header, required=REQUIRED):
    """Return the first fault of an exposure's metadata as a string, None if there is none."""
    for key, (keyword, value) in required.items():
        found = header.get(key)
        if found in (None, ""):
            return f"keyword {keyword} is missing"
        allowed = value if isinstance(value, tuple) else (value,)
        if value is not None and found not in allowed:
            return f"{keyword} is {found}, not {' or '.join(allowed)}"
    return find_bad_value(header)


def find_sky_fault(header, required=REQUIRED):
    """Return the first fault of an exposure to which a sky is fitted, None if there is none."""
    if header.get("meta.cal_step.bkg_subtract") == "COMPLETE":
        return "its sky has been subtracted already (S_BKDSUB is COMPLETE)"
    unit = header.get("meta.bunit_data") or "DN/s"
    return find_fault(header, required) or (
        None if unit == "DN/s" else f"BUNIT is {unit}, not DN/s"
    )


def root_name(name):
    """Return the name of an exposure without extension and suffix, such as ``_rateints``."""
    stem = Path(name).stem
    return remove_suffix(stem.rpartition(".fits")[0] or stem)[0]


def find_window(model, required=REQUIRED):
    """Return the `Window` of a SOSS exposure; raise if its keywords do not match its pixels."""
    name, subarray = model.meta.filename, model.meta.subarray
    fault = find_fault(model.to_flat_dict(), required)
    if fault or None in (subarray.xstart, subarray.ystart):
        raise SkyflatError(f"{name}: {fault or 'keyword SUBSTRT1 or SUBSTRT2 is missing'}")
    shape = model.data.shape[-2:]
    sizes = (subarray.ysize or shape[0], subarray.xsize or shape[1])
    if sizes != shape:
        raise SkyflatError(f"{name}: its shape is {shape}, that of SUBSIZE2 and SUBSIZE1 {sizes}")
    window = Window(subarray.name, subarray.ystart - 1, subarray.xstart - 1, *shape)
    if SUPERSTRIPES.get(window.name, window) != window:
        raise SkyflatError(
            f"{name}: {window.name} without the pixels of SUBSTRIP256: process it with jwst's "
            "calwebb_detector1, which joins its stripes"
        )
    known = SUBARRAYS.get(window.name)
    others = [each.name for each in SUBARRAYS.values() if each.shape == shape and each != known]
    if others and known and known != FULL:
        raise SkyflatError(f"{name}: SUBARRAY is {known.name}, its pixels are those of {others[0]}")
    ends = (window.y0 + window.ny, window.x0 + window.nx)
    inside = min(window.y0, window.x0) >= 0 and max(ends) <= FULL.nx
    if not inside or (known and known.shape == shape and known != window):
        raise SkyflatError(f"{name}: SUBSTRT1 and SUBSTRT2 are not those of {window.name}")
    return window


def header_window(header):
    """Return the `Window` that an exposure's metadata describe; raise if a keyword is missing."""
    keys = ("name", "ystart", "xstart", "ysize", "xsize")
    name, y, x, ny, nx = (header.get(f"meta.subarray.{key}") for key in keys)
    if None in (y, x, ny, nx):
        raise SkyflatError(f"{header['name']}: its subarray keywords are incomplete")
    return Window(name, y - 1, x - 1, ny, nx)


def find_pwcpos(model):
    """Return the pupil wheel position, degrees; the nominal one, with a warning, if invalid."""
    pwcpos = model.meta.instrument.pupil_position
    if pwcpos and abs(pwcpos - PWCPOS) <= PWCPOS_REACH:
        return pwcpos
    fault = "is missing" if pwcpos is None else f"is {pwcpos:g}"
    log.warning("%s: PWCPOS %s, %.2f degrees are used instead", model.meta.filename, fault, PWCPOS)
    return PWCPOS


def identities(header):
    """Yield the identities of an exposure; two files that share one hold the same exposure."""
    name = header.get("meta.filename")
    if name is not None:
        yield root_name(name)
    numbers = [header.get(key) for key in IDENTITY]
    if None not in numbers:
        more = ("exposure.segment_number", "exposure.start_time", "subarray.name")
        yield (*numbers, *(header.get(f"meta.{key}") for key in more))


def iterate_images(library, *, modify=False):
    """Yield the exposures of a library as images of its window; keep changes if ``modify``."""
    shape = header_window(read_headers(library)[0]).shape
    with library:
        for index in range(len(library)):
            model, image = borrow_image(library, index)
            if image.data.shape != shape:
                raise SkyflatError(
                    f"{image.meta.filename}: its shape is {image.data.shape}, not {shape}"
                )
            yield image
            library.shelve(image, index, modify=modify)


def borrow_image(library, index):
    """Borrow an exposure of an open library; return its model, and the model as an image."""
    model = borrow(library, index)
    with _explain_member(library, index):
        return model, as_image(model)


def borrow(library, index):
    """Borrow an exposure of an open library; raise SkyflatError if it cannot be read."""
    with _explain_member(library, index):
        return library.borrow(index)


@contextmanager
def _explain_member(library, index):
    """Raise SkyflatError with the file of an exposure and the fault if reading it fails."""
    try:
        yield
    except SkyflatError:
        raise
    except Exception as err:  # astropy and asdf raise many kinds
        name = Path(library.asn["products"][0]["members"][index]["expname"]).name
        raise SkyflatError(f"{name}: cannot be read ({one_line(err)})") from err


def _own_copy(item):
    """Open a file, or copy a model, so that the caller's model stays unchanged."""
    if isinstance(item, str | Path):
        read_header(Path(item))
        with explain_fault(item):
            return datamodels.open(item)
    if isinstance(item, datamodels.JwstDataModel):
        return item.copy()
    raise SkyflatError(f"{item!r} is neither a file nor a data model")


def _from_association(path, folder):
    """Create a library for each product of an association file."""
    association = read_association(path)
    products = association["products"]
    files = [science_exposures(path, product) for product in products]
    for paths in files:
        _check_repetition(paths)
    read = {file: read_header(file) for file in dict.fromkeys(itertools.chain(*files))}
    headers = [[read[file] for file in paths] for paths in files]
    groups = _number_groups([of_product[0] for of_product in headers])
    libraries = []
    for product, paths, known, group in zip(products, files, headers, groups, strict=True):
        given = {key: product[key] for key in ("obs_group", "file_name") if key in product}
        names = {"obs_group": group} | given
        libraries.append(_library_of_files({"table_name": path.name}, names, paths, known, folder))
    return libraries


def _check_repetition(paths):
    """Raise if a file is given twice, before any is read."""
    path, number = Counter(paths).most_common(1)[0]
    if number > 1:
        raise SkyflatError(f"{path.name}: the same exposure is given {number} times")


def _number_groups(headers):
    """Return the numbers of products in their observations, in order of time, from 0."""
    groups, counts = [0] * len(headers), Counter()
    starts = [str(header.get("meta.observation.date_beg") or "") for header in headers]
    for index in sorted(range(len(headers)), key=starts.__getitem__):
        keys = (*OBSERVATION, "meta.instrument.filter")
        observation = tuple(headers[index].get(key) for key in keys)
        groups[index] = counts[observation]
        counts[observation] += 1
    return groups


def _library_of_files(table, product, paths, headers, folder):
    """Create the library of a product, whose files stay on disk."""
    members = [{"expname": str(path.absolute()), "exptype": "science"} for path in paths]
    association = table | {"products": [{**product, "members": members}]}
    return ExposureLibrary(association, headers, folder)


def _check(headers):
    """Raise unless all exposures are SOSS exposures of one subarray, each given once."""
    for header in headers:
        if fault := find_sky_fault(header):
            raise SkyflatError(f"{header['name']}: {fault}")
    first = headers[0]
    _warn_of_pwcpos(headers)
    _warn_of_mixture(headers)
    _warn_of_series(headers)
    for key, noun in (("meta.subarray.name", "subarrays"), ("meta.instrument.filter", "filters")):
        for header in headers:
            if header[key] != first[key]:
                raise SkyflatError(
                    f"{header['name']}: {REQUIRED[key][0]} is {header[key]}, but {first[key]} in "
                    f"{first['name']}: {noun} cannot be mixed"
                )
    check_repetition(headers)


def check_repetition(headers):
    """Raise if two headers are those of the same exposure, or of the same segment."""
    seen = {}
    for header in headers:
        for identity in identities(header):
            if identity in seen:
                raise SkyflatError(f"{header['name']}: the same exposure as {seen[identity]}")
            seen[identity] = header["name"]


def _warn_of_series(headers):
    """Warn if the headers are those of a science time series instead of dithered blank sky."""
    if is_dithered(headers):
        return
    is_series = any(header.get("meta.visit.tsovisit") for header in headers)
    signs = ["TSOVISIT is true"] if is_series else []
    if len(headers) > 1:
        signs.append("all exposures have one pointing")
    if signs:
        log.warning(
            "%s: %s, as in a time series of a target: a skyflat needs dithered exposures of "
            "blank sky",
            headers[0]["name"], " and ".join(signs),
        )  # fmt: skip


def is_dithered(headers):
    """Return whether exposures have different pointings."""
    return len({_pointing(header) for header in headers}) > 1


def _pointing(header):
    """Return the pointing of an exposure to a fraction of an arcsecond, degrees."""
    angles = (header.get(f"meta.pointing.{name}") for name in ("ra_v1", "dec_v1"))
    return tuple(round(angle, 4) if isinstance(angle, float) else angle for angle in angles)


def _warn_of_pwcpos(headers):
    """Warn of pupil wheel positions that are far from the nominal one."""
    for header in headers:
        pwcpos = header.get("meta.instrument.pupil_position")
        if pwcpos is not None and abs(pwcpos - PWCPOS) > PWCPOS_REACH:
            log.warning(
                "%s: PWCPOS is %g, not within %g degrees of %g",
                header["name"], pwcpos, PWCPOS_REACH, PWCPOS,
            )  # fmt: skip


def _warn_of_mixture(headers):
    """Warn if exposures do not belong to one observation of one target."""
    for key, (keyword, _) in OBSERVATION.items():
        values = sorted({str(header.get(key)) for header in headers})
        if len(values) > 1:
            log.warning("Exposures of different %s are combined: %s", keyword, ", ".join(values))
