"""Exposures as steps meet them: opened from whatever the user gives, checked, and made images."""

import logging
from pathlib import Path

from jwst.associations import AssociationNotValidError, load_asn
from jwst.datamodels import ModelLibrary
from jwst.lib.suffix import remove_suffix
from stdatamodels.jwst import datamodels

from soss_background.detector import FULL, PWCPOS, PWCPOS_REACH, SUBARRAYS, Window
from soss_background.errors import SkyflatError
from soss_background.io.files import allow_member_paths, ignore_file_warnings
from soss_background.io.library import ExposureLibrary, as_image

__all__ = [
    "OBSERVATION",
    "REQUIRED",
    "borrow_image",
    "find_fault",
    "find_pwcpos",
    "find_window",
    "identities",
    "iterate_images",
    "list_products",
    "member_paths",
    "open_libraries",
    "read_header",
    "read_headers",
    "root_name",
]

log = logging.getLogger(__name__)

# What an exposure must say of itself: keyword, and the value it must have, if only one will do.
REQUIRED = {
    "meta.instrument.name": ("INSTRUME", "NIRISS"),
    "meta.exposure.type": ("EXP_TYPE", "NIS_SOSS"),
    "meta.instrument.filter": ("FILTER", "CLEAR"),
    "meta.instrument.pupil": ("PUPIL", "GR700XD"),
    "meta.subarray.name": ("SUBARRAY", None),
}

# What an exposure belongs to: program, target and observation.
OBSERVATION = {
    "meta.observation.program_number": ("PROGRAM", None),
    "meta.target.proposer_name": ("TARGPROP", None),
    "meta.observation.observation_number": ("OBSERVTN", None),
}

_IDENTITY = [
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


def open_libraries(inputs, folder=None):
    """
    Open exposures as libraries of models, checked by their headers.

    Parameters
    ----------
    inputs : list
        An association file, a `~jwst.datamodels.ModelLibrary`, or any number of files and models.
        Models are copied; the models of a library are not.
    folder : str or `~pathlib.Path`, optional
        Where the changed exposures of files are kept while they are not borrowed; in memory if
        there is none.

    Returns
    -------
    libraries : list of `~jwst.datamodels.ModelLibrary`
        One for each product of an association, else a single one. Files stay on disk until an
        exposure is borrowed.

    Raises
    ------
    SkyflatError
        If a file cannot be read, or if exposures are not SOSS exposures of one subarray, each
        given once.
    """
    if not inputs:
        raise SkyflatError("No exposures are given")
    if len(inputs) == 1 and _is_association(inputs[0]):
        libraries = _from_association(Path(inputs[0]), folder)
    elif len(inputs) == 1 and isinstance(inputs[0], ModelLibrary):
        if {exptype.lower() for exptype in inputs[0].exptypes} != {"science"}:
            raise SkyflatError("The library has members that are not of the exptype science")
        libraries = list(inputs)
    elif all(isinstance(item, str | Path) for item in inputs):
        libraries = [_library_of_files({}, {}, [Path(item) for item in inputs], folder)]
    else:
        libraries = [ModelLibrary([_own_copy(item) for item in inputs])]
    for library in libraries:
        _check(read_headers(library))
    return libraries


def member_paths(library):
    """
    Find the files that a library was made of.

    Parameters
    ----------
    library : `~jwst.datamodels.ModelLibrary`
        The library.

    Returns
    -------
    paths : list of `pathlib.Path`
        Absolute paths; they lead nowhere if the library was made of models.
    """
    members = library.asn["products"][0]["members"]
    return [(Path(library.asn_dir) / member["expname"]).resolve() for member in members]


def read_header(path):
    """
    Read the metadata of a JWST data model, without its pixels.

    Parameters
    ----------
    path : `pathlib.Path`
        A FITS or ASDF file.

    Returns
    -------
    header : dict
        Flattened metadata.

    Raises
    ------
    SkyflatError
        If there is no such file, or if it is not a whole data model.
    """
    if not path.is_file():
        raise SkyflatError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
    try:
        with ignore_file_warnings():
            return datamodels.read_metadata(path)
    except Exception as err:  # astropy and asdf raise many kinds
        raise SkyflatError(f"{path}: cannot be read as a JWST data model ({err})") from err


def read_headers(library):
    """
    Read the metadata of all exposures of a library, without their pixels.

    Parameters
    ----------
    library : `~jwst.datamodels.ModelLibrary`
        The exposures.

    Returns
    -------
    headers : list of dict
        For each exposure its flattened metadata, and its name for messages as ``name``.
    """
    members = library.asn["products"][0]["members"]
    return [
        library.read_metadata(index) | {"name": Path(member["expname"]).name}
        for index, member in enumerate(members)
    ]


def list_products(libraries):
    """
    List what names the products of libraries.

    Parameters
    ----------
    libraries : list of `~jwst.datamodels.ModelLibrary`
        The exposures of each product.

    Returns
    -------
    products : list of tuple
        For each product the metadata of its exposures, see `read_headers`, and the product in its
        association.
    """
    return [(read_headers(library), library.asn["products"][0]) for library in libraries]


def find_fault(header, required=REQUIRED):
    """
    Find out why an exposure cannot be used.

    Parameters
    ----------
    header : dict
        Its metadata, see `read_header`.
    required : dict, optional
        For each metadata path that must be there its FITS keyword and the value that it must have,
        None if any will do; by default what makes a SOSS exposure.

    Returns
    -------
    fault : str or None
        What is wrong, None if nothing is.
    """
    for key, (keyword, value) in required.items():
        found = header.get(key)
        if found in (None, ""):
            return f"keyword {keyword} is missing"
        if value is not None and found != value:
            return f"{keyword} is {found}, not {value}"
    return None


def root_name(name):
    """
    Take extension and suffix off the name of an exposure.

    Parameters
    ----------
    name : str
        File name, with a suffix such as ``_rateints`` or without.

    Returns
    -------
    root : str
        What all products of the exposure share.
    """
    return remove_suffix(Path(name).stem)[0]


def find_window(model):
    """
    Tell which pixels of the detector a SOSS exposure is made of.

    Parameters
    ----------
    model : data model
        The exposure, an image or a cube of integrations.

    Returns
    -------
    window : `~soss_background.detector.Window`
        The pixels.

    Raises
    ------
    SkyflatError
        If it is no SOSS exposure, or its keywords do not fit its pixels.
    """
    name, subarray = model.meta.filename, model.meta.subarray
    fault = find_fault(model.to_flat_dict())
    if fault or None in (subarray.xstart, subarray.ystart):
        raise SkyflatError(f"{name}: {fault or 'keyword SUBSTRT1 or SUBSTRT2 is missing'}")
    shape = model.data.shape[-2:]
    window = Window(subarray.name, subarray.ystart - 1, subarray.xstart - 1, *shape)
    known = SUBARRAYS.get(window.name)
    others = [each.name for each in SUBARRAYS.values() if each.shape == shape and each != known]
    if others and known and known != FULL:
        raise SkyflatError(f"{name}: SUBARRAY is {known.name}, its pixels are those of {others[0]}")
    ends = (window.y0 + window.ny, window.x0 + window.nx)
    inside = min(window.y0, window.x0) >= 0 and max(ends) <= FULL.nx
    if not inside or (known and known.shape == shape and known != window):
        raise SkyflatError(f"{name}: SUBSTRT1 and SUBSTRT2 are not those of {window.name}")
    return window


def find_pwcpos(model):
    """
    Return the position of the pupil wheel, and warn where the header has none to rely on.

    Parameters
    ----------
    model : data model
        The exposure.

    Returns
    -------
    pwcpos : float
        Position of the pupil wheel, degrees; the nominal one if PWCPOS is missing, 0, or too far
        from it for GR700XD to be in the beam.
    """
    pwcpos = model.meta.instrument.pupil_position
    if pwcpos and abs(pwcpos - PWCPOS) <= PWCPOS_REACH:
        return pwcpos
    fault = "is missing" if pwcpos is None else f"is {pwcpos:g}"
    log.warning("%s: PWCPOS %s, %.2f degrees are used instead", model.meta.filename, fault, PWCPOS)
    return PWCPOS


def identities(header):
    """
    Collect what tells an exposure from others.

    Parameters
    ----------
    header : dict
        Its metadata, see `read_header`.

    Yields
    ------
    identity : str or tuple
        Its name without the suffix, its place in the program: two files that share one of them
        hold the same exposure.
    """
    name = header.get("meta.filename")
    if name is not None:
        yield root_name(name)
    numbers = [header.get(key) for key in _IDENTITY]
    if None not in numbers:
        more = ("exposure.segment_number", "exposure.start_time", "subarray.name")
        yield (*numbers, *(header.get(f"meta.{key}") for key in more))


def iterate_images(library, *, modify=False):
    """
    Borrow the exposures of a library one by one, as images of one shape.

    Parameters
    ----------
    library : `~jwst.datamodels.ModelLibrary`
        The exposures.
    modify : bool
        Whether the library keeps what the caller does to an image.

    Yields
    ------
    image : `~stdatamodels.jwst.datamodels.ImageModel`
        See `~soss_background.io.library.as_image`.

    Raises
    ------
    SkyflatError
        If an exposure differs in shape from the first, or has nothing to use.
    """
    shape = None
    with library:
        for index in range(len(library)):
            model, image = borrow_image(library, index)
            shape = shape or image.data.shape
            if image.data.shape != shape:
                raise SkyflatError(
                    f"{image.meta.filename}: its shape is {image.data.shape}, not {shape}"
                )
            yield image
            library.shelve(image, index, modify=modify)


def borrow_image(library, index):
    """
    Borrow an exposure as an image.

    Parameters
    ----------
    library : `~jwst.datamodels.ModelLibrary`
        The exposures; the library must be open.
    index : int
        Number of the exposure.

    Returns
    -------
    model : `~stdatamodels.jwst.datamodels.JwstDataModel`
        The exposure as the library has it.
    image : `~stdatamodels.jwst.datamodels.ImageModel`
        See `~soss_background.io.library.as_image`.

    Raises
    ------
    SkyflatError
        If a plane of the exposure cannot be read, or if it has nothing to use.
    """
    name = library.asn["products"][0]["members"][index]["expname"]
    try:
        model = library.borrow(index)
        return model, as_image(model)
    except (LookupError, OSError, TypeError) as err:
        raise SkyflatError(f"{Path(name).name}: cannot be read ({err})") from err


def _is_association(item):
    """Tell whether an input is an association file."""
    return isinstance(item, str | Path) and Path(item).suffix.lower() == ".json"


def _own_copy(item):
    """Open a file, or copy a model, which stays the caller's."""
    if isinstance(item, str | Path):
        read_header(Path(item))
        return datamodels.open(item)
    if isinstance(item, datamodels.JwstDataModel):
        return item.copy()
    raise SkyflatError(f"{item!r} is neither a file nor a data model")


def _from_association(path, folder):
    """Make a library of each product of an association file."""
    if not path.is_file():
        raise SkyflatError(f"{path}: no such file")
    try:
        with path.open() as file, allow_member_paths():
            association = load_asn(file)
        products = [
            (product, [m for m in product["members"] if m["exptype"].lower() == "science"])
            for product in association["products"]
        ]
    except (AssociationNotValidError, LookupError, TypeError, AttributeError) as err:
        raise SkyflatError(f"{path}: not a valid association") from err
    if not products:
        raise SkyflatError(f"{path}: no product")
    for product, members in products:
        if not members:
            raise SkyflatError(f"{path}: product {product.get('name')} has no science member")
    table = {"table_name": path.name, "asn_id": association.get("asn_id")}
    parent = path.absolute().parent
    files = [[parent / member["expname"] for member in members] for _, members in products]
    groups = _number_groups([read_header(paths[0]) for paths in files])
    return [
        _library_of_files(table, {"obs_group": group, **product}, paths, folder)
        for (product, _), paths, group in zip(products, files, groups, strict=True)
    ]


def _number_groups(headers):
    """Give products of one observation numbers in order of time, 0 to one that is alone."""
    observations = [tuple(header.get(key) for key in OBSERVATION) for header in headers]
    starts = [header.get("meta.observation.date_beg") or "" for header in headers]
    groups = []
    for observation, start in zip(observations, starts, strict=True):
        siblings = [s for o, s in zip(observations, starts, strict=True) if o == observation]
        groups.append(1 + sorted(siblings).index(start) if len(siblings) > 1 else 0)
    return groups


def _library_of_files(table, product, paths, folder):
    """Make a library of one product that leaves its files on disk."""
    headers = [read_header(path) for path in paths]
    members = [{"expname": str(path.absolute()), "exptype": "science"} for path in paths]
    association = table | {"products": [{**product, "members": members}]}
    return ExposureLibrary(association, headers, folder)


def _check(headers):
    """Raise unless all exposures are SOSS exposures of one subarray, each given once."""
    for header in headers:
        if fault := find_fault(header):
            raise SkyflatError(f"{header['name']}: {fault}")
    first = headers[0]
    _warn_of_mixture(headers)
    subarray = first["meta.subarray.name"]
    seen = {}
    for header in headers:
        if header["meta.subarray.name"] != subarray:
            raise SkyflatError(
                f"{header['name']}: SUBARRAY is {header['meta.subarray.name']}, but "
                f"{subarray} in {first['name']}: subarrays cannot be mixed"
            )
        for identity in identities(header):
            if identity in seen:
                raise SkyflatError(f"{header['name']}: the same exposure as {seen[identity]}")
            seen[identity] = header["name"]


def _warn_of_mixture(headers):
    """Warn if exposures do not belong to one observation of one target."""
    for key, (keyword, _) in OBSERVATION.items():
        values = sorted({str(header.get(key)) for header in headers})
        if len(values) > 1:
            log.warning("Exposures of different %s are combined: %s", keyword, ", ".join(values))
