"""The exposure with F277W that shows the field of a time series."""

from pathlib import Path

import numpy as np
from astropy.coordinates import angular_separation
from stdatamodels.jwst import datamodels

from soss_background.detector import PIXEL_SCALE
from soss_background.errors import SkyflatError
from soss_background.io.exposures import REQUIRED, find_fault, header_window, read_header
from soss_background.io.files import explain_fault
from soss_background.io.library import as_image

__all__ = ["check_companion", "read_companion"]

_F277W = REQUIRED | {"meta.instrument.filter": ("FILTER", "F277W")}

# Largest distance of the pointings, pixels, and largest difference of angles, degrees: either moves
# a source by two pixels at most.
_LARGEST_OFFSET, _LARGEST_TURN = 2.0, 0.1

# Angles that two exposures of a field share, and their keywords.
_POINTING = {"meta.pointing.ra_v1": "RA_V1", "meta.pointing.dec_v1": "DEC_V1"}
_ANGLES = {"meta.pointing.pa_v3": "PA_V3", "meta.instrument.pupil_position": "PWCPOS"}


def check_companion(path, header, name):
    """
    Raise unless a file is an exposure with F277W of the field and the pixels of an exposure.

    Parameters
    ----------
    path : `~pathlib.Path`
        The exposure with F277W.
    header : dict
        Flattened metadata of the other exposure.
    name : str
        Its name in messages.

    Raises
    ------
    SkyflatError
        If the file cannot be read, a keyword is missing in one of them, or they differ.
    """
    own = read_header(path)
    if fault := find_fault(own, _F277W):
        raise SkyflatError(f"{path}: {fault}")
    pair = ((path, own), (name, header))
    for each, known in pair:
        for key, keyword in (_POINTING | _ANGLES).items():
            if known.get(key) is None:
                raise SkyflatError(f"{each}: keyword {keyword} is missing")
    window, other = (header_window(known | {"name": each}) for each, known in pair)
    if (window.y0, window.x0, *window.shape) != (other.y0, other.x0, *other.shape):
        raise SkyflatError(f"{path}: its pixels ({window.name}) are not those of {name}")
    offset = _measure_offset(own, header)
    if not offset <= _LARGEST_OFFSET:
        raise SkyflatError(f"{path}: its pointing is {offset:.1f} pixels from that of {name}")
    for key, keyword in _ANGLES.items():
        turn = abs((own[key] - header[key] + 180) % 360 - 180)
        if not turn <= _LARGEST_TURN:
            raise SkyflatError(f"{path}: {keyword} is {own[key]:g}, but {header[key]:g} in {name}")


def _measure_offset(header, other):
    """Return the distance of the pointings of two exposures, pixels."""
    angles = [np.radians(each[key]) for each in (header, other) for key in _POINTING]
    return float(np.degrees(angular_separation(*angles))) * 3600 / PIXEL_SCALE


def read_companion(path):
    """Return the mean of the integrations of an exposure, an ``ImageModel``."""
    with explain_fault(Path(path)), datamodels.open(path) as model:
        return as_image(model).copy()
