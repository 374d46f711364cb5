"""Libraries of skyflats: many skyflats of the same pixels, one open at a time."""

import functools
import logging
from pathlib import Path

from tqdm import tqdm

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.io.skyflats import (
    check_clear,
    describe_skyflat,
    find_files,
    find_place,
    find_visit,
    name_skyflat,
    open_skyflat,
    warn_of_failures,
)
from soss_background.io.templates import from_skyflat
from soss_background.sky.learning import compare_skies

__all__ = ["SkyLibrary", "open_library"]

log = logging.getLogger(__name__)


class SkyLibrary:
    """
    Skyflats of the same pixels.

    Parameters
    ----------
    items : list of `~pathlib.Path` or SkyflatModel
        The skyflats.
    rows : list of dict
        Name, pixels, visit, flat state and metadata of each.
    """

    def __init__(self, items, rows):
        self.items, self.rows = items, rows

    @property
    def place(self):
        """`~soss_background.detector.Window` of their pixels."""
        return self.rows[0]["place"]

    @functools.cached_property
    def comparison(self):
        """`~soss_background.sky.learning.Comparison` of the skies, computed once."""
        try:
            return compare_skies(self, self.place)
        except ValueError as err:
            raise SkyflatError(str(err)) from err

    def __iter__(self):
        """Yield the `~soss_background.sky.averaging.Sky` of each."""
        pairs = zip(self.items, self.rows, strict=True)
        bar = tqdm(pairs, "Reading", len(self.rows), unit="skyflat", disable=None)
        for item, row in bar:
            with open_skyflat(item) as skyflat:
                yield from_skyflat(skyflat, row["place"], row["name"])


def open_library(skyflats):
    """
    Find skyflats and read their metadata.

    Parameters
    ----------
    skyflats : str, `~pathlib.Path`, SkyflatModel, or list of these
        One or more skyflats of the same pixels, or their files and folders, wildcards allowed.

    Returns
    -------
    library : SkyLibrary
        The skyflats, all closed.

    Raises
    ------
    SkyflatError
        If there are no skyflats, one cannot be read, or they differ in their pixels or in their
        flat state.
    """
    if isinstance(skyflats, str | Path | SkyflatModel):
        skyflats = [skyflats]
    items = [item for item in skyflats if isinstance(item, SkyflatModel)]
    items += find_files([item for item in skyflats if not isinstance(item, SkyflatModel)])
    if not items:
        raise SkyflatError("No skyflats are given")
    bar = tqdm(items, "Opening", unit="skyflat", disable=None)
    rows = [_describe(item, number) for number, item in enumerate(bar)]
    _check_alike(rows)
    return SkyLibrary(items, rows)


def _describe(item, number):
    """Return the metadata of a skyflat; its number replaces an unknown visit."""
    with open_skyflat(item) as skyflat:
        name, meta = name_skyflat(item, skyflat), skyflat.meta
        check_clear(skyflat, name)
        warn_of_failures(skyflat, name)
        return describe_skyflat(skyflat) | {
            "name": name,
            "place": find_place(skyflat, skyflat.bkg.shape, name),
            "observation": meta.observation.observation_number or "",
            "visit": find_visit(skyflat) or number,
            "fielded": meta.skyflat.flat_correction == "COMPLETE",
            "flat": meta.ref_file.flat.name or "N/A",
            "author": meta.author or "soss_background",
        }


def _check_alike(rows):
    """Raise unless skyflats have the same pixels and the same flat state."""
    first = rows[0]
    for row in rows[1:]:
        one, other = row["place"], first["place"]
        if one != other:
            raise SkyflatError(
                f"{row['name']}: {one.name} of {one.shape}, but {first['name']} is {other.name} of "
                f"{other.shape}; a sky model takes skyflats of the same pixels"
            )
        if row["fielded"] != first["fielded"]:
            plain, fielded = sorted((row, first), key=lambda each: each["fielded"])
            raise SkyflatError(
                f"{plain['name']}: not flat-fielded, but {fielded['name']} is; a sky model takes "
                "skyflats of one kind"
            )
    flats = dict.fromkeys(row["flat"] for row in rows if row["fielded"])
    if len(flats) > 1:
        log.warning("The skyflats were divided by different flats: %s", ", ".join(flats))
