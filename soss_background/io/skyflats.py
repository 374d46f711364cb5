"""Skyflats as files hold them: found, opened, and what they tell of themselves."""

import glob
from pathlib import Path

import numpy as np
from astropy.io import fits

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import FULL, SUBARRAYS, Window
from soss_background.errors import SkyflatError
from soss_background.io.files import tell_of_fault

__all__ = [
    "describe_skyflat",
    "find_files",
    "find_place",
    "look_into",
    "name_skyflat",
    "open_skyflat",
    "used_exposures",
]


def find_files(patterns):
    """
    Find the files that patterns stand for.

    Parameters
    ----------
    patterns : list of str or `~pathlib.Path`
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


def open_skyflat(skyflat):
    """
    Open a skyflat.

    Parameters
    ----------
    skyflat : SkyflatModel or `~pathlib.Path`
        A skyflat, or its file.

    Returns
    -------
    model : SkyflatModel
        The skyflat, to be closed by the caller; a model that is given stays open.

    Raises
    ------
    SkyflatError
        If the file cannot be read, or is no skyflat.
    """
    if isinstance(skyflat, SkyflatModel):
        return SkyflatModel(skyflat)
    with tell_of_fault(skyflat):
        _, is_skyflat = look_into(skyflat)
        if not is_skyflat:
            raise SkyflatError(f"{skyflat}: not a skyflat")
        return SkyflatModel(skyflat)


def name_skyflat(skyflat, model):
    """
    Name a skyflat for people.

    Parameters
    ----------
    skyflat : SkyflatModel or `~pathlib.Path`
        What was given.
    model : SkyflatModel
        The skyflat, opened.

    Returns
    -------
    name : str
        The name of its file, as it is or else as the header has it.
    """
    return getattr(skyflat, "name", None) or model.meta.filename or "skyflat"


def look_into(path):
    """
    Look at a FITS file that may be a skyflat.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Returns
    -------
    header : `~astropy.io.fits.Header`
        Its primary header.
    is_skyflat : bool
        Whether it is one.
    """
    # Reference files need not be whole data models.
    with fits.open(path) as hdus:
        return hdus[0].header, "BKG" in hdus


def find_place(model, shape, name):
    """
    Tell which pixels a file is of, by its keywords or else by its shape.

    Parameters
    ----------
    model : data model
        The file.
    shape : tuple of int
        Rows and columns of its planes.
    name : str
        What it is called.

    Returns
    -------
    place : `~soss_background.detector.Window`
        Its pixels.

    Raises
    ------
    SkyflatError
        If it does not tell, or if they are not on the detector.
    """
    subarray = model.meta.subarray
    if None not in (subarray.xstart, subarray.ystart):
        place = Window(subarray.name or "", subarray.ystart - 1, subarray.xstart - 1, *shape)
        if max(place.y0 + place.ny, place.x0 + place.nx) > FULL.nx:
            raise SkyflatError(f"{name}: SUBSTRT1 and SUBSTRT2 do not fit its shape {shape}")
        return place
    for known in SUBARRAYS.values():
        if known.shape == shape:
            return known
    raise SkyflatError(f"{name}: its shape {shape} is that of no subarray")


def describe_skyflat(skyflat):
    """
    Collect the keywords that tell which sky a skyflat shows.

    Parameters
    ----------
    skyflat : SkyflatModel
        The skyflat.

    Returns
    -------
    row : dict
        PROGRAM, TARGPROP, LON and LAT (degrees), DOY, PWCPOS (degrees, mean of the exposures that
        were used), NSAMPS; what is not known is empty, NaN, or 0.
    """
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
    """
    Take the rows of the exposures that a skyflat was made of.

    Parameters
    ----------
    skyflat : SkyflatModel
        The skyflat.

    Returns
    -------
    rows : ndarray, shape (n,), or None
        Rows of METADATA; None if there are none.
    """
    table = skyflat.metadata
    return table[table["used"] == 1] if table is not None and np.any(table["used"]) else None
