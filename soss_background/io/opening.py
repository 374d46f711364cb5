"""Metadata and pixels of data models, including FITS files saved by other programs."""

import re
from pathlib import Path

from astropy.io import fits
from stdatamodels.jwst import datamodels

from soss_background.datamodels.skyflat import SkyflatModel

__all__ = ["guess_class", "is_fits", "list_models", "read_metadata"]

# Classes of exposures without DATAMODL by the dimensions of SCI, as in jwst.
_BY_DIMENSIONS = {2: datamodels.ImageModel, 3: datamodels.CubeModel}


def is_fits(path):
    """Return whether the name of a file is that of a FITS file, compressed or not."""
    return ".fits" in Path(path).suffixes[-2:]


def list_models(folder, suffix):
    """Return the FITS and ASDF files of a folder whose names end with a suffix, sorted."""
    name = re.compile(rf".+_{suffix}\.(asdf|fits(\.\w+)?)")
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name))


def guess_class(hdus):
    """Return the class of a FITS file by BKG, DATAMODL, or the shape of SCI; None if unknown."""
    if "BKG" in hdus:
        return SkyflatModel
    known = getattr(datamodels, str(hdus[0].header.get("DATAMODL")), None)
    if known is None and "SCI" in hdus:
        return _BY_DIMENSIONS.get(hdus["SCI"].header["NAXIS"])
    return known


def read_metadata(path):
    """Return the flattened metadata of a file; a FITS file needs neither DATAMODL nor ASDF."""
    try:
        return datamodels.read_metadata(path)
    except (LookupError, ValueError):
        if not is_fits(path):
            raise
        with fits.open(path) as hdus:
            kind = guess_class(hdus)
            if kind is None:
                raise
            with kind(hdus, validate_on_assignment=False) as model:
                found = model.to_flat_dict(include_arrays=False)
    return found | {"meta.model_type": kind.__name__}
