"""Keywords of a BKG reference file that CRDS and jwst read."""

import time

from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.io.dates import parse_date
from soss_background.io.exposures import REQUIRED_CLEAR

__all__ = [
    "MATCH",
    "USEAFTER",
    "check_pedigree",
    "check_subarray",
    "check_useafter",
    "describe",
]

# Keywords that CRDS and jwst match: metadata path, keyword and value.
MATCH = {key: pair for key, pair in REQUIRED_CLEAR.items() if pair[1] is not None}
MATCH["meta.instrument.detector"] = ("DETECTOR", "NIS")

# A date before the first SOSS exposure: the library is valid at any time.
USEAFTER = "2022-01-01T00:00:00"

# Values of PEDIGREE that CRDS accepts, by their number of words.
_PEDIGREES = {1: ("GROUND", "MODEL", "DUMMY", "SIMULATION"), 3: ("INFLIGHT", "MODEL")}


def check_subarray(name):
    """Raise unless there is a subarray of this name."""
    if name not in SUBARRAYS:
        raise SkyflatError(f"{name} is none of the subarrays {', '.join(SUBARRAYS)}")


def check_useafter(text):
    """Return a date in the format of CRDS."""
    try:
        return parse_date(text).isoformat(timespec="seconds")
    except ValueError as err:
        raise SkyflatError(f"{text} is not a date for USEAFTER, such as {USEAFTER}") from err


def check_pedigree(text):
    """Return a pedigree; raise unless CRDS accepts it."""
    if text is None:
        return None
    kind, *dates = text.split() or [""]
    try:
        dates = [time.strptime(day, "%Y-%m-%d") for day in dates]
        good = kind in _PEDIGREES.get(1 + len(dates), ()) and dates == sorted(dates)
    except ValueError:
        good = False
    if not good:
        raise SkyflatError(
            f"{text} is not a PEDIGREE, such as DUMMY or INFLIGHT 2023-01-31 2024-06-30"
        )
    return text


def describe(reference, window, texts):
    """Set the keywords of a reference file; ``texts`` are the values by metadata name."""
    meta = reference.meta
    meta.reftype, meta.telescope = "BKG", "JWST"
    for key, (_, value) in MATCH.items():
        reference[key] = value
    meta.subarray.name = window.name
    meta.subarray.xstart, meta.subarray.ystart = window.x0 + 1, window.y0 + 1
    meta.subarray.xsize, meta.subarray.ysize = window.nx, window.ny
    meta.subarray.fastaxis, meta.subarray.slowaxis = -2, -1
    meta.bunit_data = meta.bunit_err = "DN/s"
    for key, text in texts.items():
        setattr(meta, key, text)
