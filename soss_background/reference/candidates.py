"""Skyflats as candidates for a library: skies of a subarray before the flat-field correction."""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crds.client import api
from crds.core.exceptions import CrdsError
from stdatamodels.jwst.datamodels import dqflags
from tqdm import tqdm

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_fault, root_name
from soss_background.io.skyflats import (
    describe_skyflat,
    find_files,
    find_place,
    name_skyflat,
    open_skyflat,
    used_exposures,
)
from soss_background.io.templates import cut_planes, denoised_noise, from_skyflat, read_flat
from soss_background.numerics.smoothing import fill_gaps
from soss_background.reference.keywords import MATCH
from soss_background.sky.match import BinnedSky, bin_sky
from soss_background.steps.crds_access import crds_reachable

__all__ = ["Candidate", "Candidates", "find_flat", "locate_flat"]

log = logging.getLogger(__name__)


@dataclass
class Candidate:
    """
    Description of a skyflat.

    Attributes
    ----------
    row : dict
        Its row in the table of templates.
    exposures : frozenset of tuple
        Name and time of its exposures.
    times : list of float
        First and last mid-time of these, MJD; empty if unknown.
    author : str
        Its AUTHOR.
    flat : str or None
        The flat to multiply it by.
    binned : `~soss_background.sky.match.BinnedSky`
        The sky in blocks, flat-fielded, and denoised if the skyflat is.
    """

    row: dict
    exposures: frozenset
    times: list
    author: str
    flat: str | None
    binned: BinnedSky


class Candidates:
    """Skyflats, files or models, that are opened one at a time; SkyflatError if there are none."""

    def __init__(self, skyflats, window, flat=None):
        if isinstance(skyflats, str | Path | SkyflatModel):
            skyflats = [skyflats]
        self._items = [item for item in skyflats if isinstance(item, SkyflatModel)]
        self._items += find_files([i for i in skyflats if not isinstance(i, SkyflatModel)])
        if not self._items:
            raise SkyflatError("No skyflats are given")
        self._window, self._given_flat = window, flat
        self._read_flat = functools.cache(lambda path: read_flat(path, window))

    def survey(self):
        """List a `Candidate` for each skyflat; raise SkyflatError if they cannot be compared."""
        indices = tqdm(range(len(self._items)), "Reading skyflats", unit="skyflat", disable=None)
        candidates = [self._describe(index) for index in indices]
        fielded = {bool(each.flat): each.row["FILE"] for each in candidates}
        if len(fielded) > 1 and not self._given_flat:
            raise SkyflatError(
                f"{fielded[False]}: not flat-fielded, but {fielded[True]} is: to compare them, "
                "give the flat (--flat FILE)"
            )
        flats = dict.fromkeys(each.flat for each in candidates if each.flat)
        if len(flats) > 1:
            log.warning("The skyflats were divided by different flats: %s", ", ".join(flats))
        return candidates

    def read_planes(self, index, plane):
        """Return sky, uncertainty and flags of a skyflat before the flat-field correction."""
        with open_skyflat(self._items[index]) as skyflat:
            name = name_skyflat(self._items[index], skyflat)
            err = skyflat.err * denoised_noise(skyflat) if plane == "BKGDN" else skyflat.err
            planes = (getattr(skyflat, plane.lower()), err, skyflat.dq)
            if planes[0] is None:
                raise SkyflatError(f"{name}: {plane} is missing, see --plane")
            sky, err, dq = cut_planes(skyflat, planes, self._window, name)
            flat = find_flat(skyflat, name, self._given_flat)
            factor = self._read_flat(locate_flat(flat, name)) if flat else 1
            if not np.isfinite(sky).any():
                raise SkyflatError(f"{name}: {plane} has no value")
            sky, dq = _fill(sky, dq, self._window.reference_pixels())
            return sky * factor, err * factor, dq.copy()

    def _describe(self, index):
        """Describe a skyflat."""
        with open_skyflat(self._items[index]) as skyflat:
            name, header = name_skyflat(self._items[index], skyflat), skyflat.to_flat_dict()
            # A skyflat is of SOSS even if it lacks a keyword.
            fault = find_fault(
                header, {key: pair for key, pair in MATCH.items() if header.get(key)}
            )
            if fault:
                raise SkyflatError(f"{name}: {fault}")
            template = self._read_template(skyflat, name)
            flat = find_flat(skyflat, name, self._given_flat)
            # Skies are compared without the flat.
            fielded = template.flat_fielded or not self._given_flat
            divisor = 1 if fielded else self._read_flat(Path(self._given_flat))
            if flat:
                locate_flat(flat, name)
            exposures, times = _read_exposures(skyflat)
            science = ~self._window.reference_pixels()
            return Candidate(
                row={"FILE": name} | describe_skyflat(skyflat),
                exposures=exposures,
                times=times,
                author=skyflat.meta.author or "soss_background",
                flat=flat,
                binned=bin_sky(template.sky / divisor, science, self._window.x0),
            )

    def _read_template(self, skyflat, name):
        """Return the template of a skyflat; raise if the skyflat lacks pixels of the library."""
        place = find_place(skyflat, skyflat.bkg.shape, name)
        try:
            return from_skyflat(skyflat, self._window, name)
        except SkyflatError as err:
            if place.covers(self._window):
                raise
            hint = f"or --subarray {place.name}, a library for exposures of that subarray"
            raise SkyflatError(f"{err}, {hint}") from err


def _read_exposures(skyflat):
    """Return name and time of the exposures of a skyflat, and the first and last time (MJD)."""
    used = used_exposures(skyflat)
    if used is None:
        return frozenset(), []
    names = [root_name(name) for name in used["filename"].astype(str)]
    times = used["mid_time_mjd"]
    known = times[np.isfinite(times)]
    ends = [known.min(), known.max()] if known.size else []
    return frozenset(zip(names, times, strict=True)), ends


def find_flat(model, name, given=None):
    """Return the flat to multiply a skyflat or a sky model by, None if it is not flat-fielded."""
    state, own = model.meta.skyflat.flat_correction, model.meta.ref_file.flat.name
    if state == "SKIPPED":
        return None
    if state != "COMPLETE":
        raise SkyflatError(
            f"{name}: FLATCORR is {state}, which does not say whether it is flat-fielded"
        )
    if given is None and own in (None, "N/A"):
        raise SkyflatError(f"{name}: R_FLAT does not record its flat, give it (--flat FILE)")
    return str(given or own)


def locate_flat(flat, name):
    """Return the path of the flat of a skyflat or a sky model."""
    path = Path(flat)
    if flat.startswith("crds://"):
        if not crds_reachable():
            raise SkyflatError(f"{name}: {flat} and CRDS cannot be reached, give --flat FILE")
        try:
            path = Path(api.dump_references("jwst", [path.name])[path.name])
        except (CrdsError, OSError) as err:
            raise SkyflatError(f"{name}: CRDS has no {flat} ({err}), give --flat FILE") from err
    if not path.is_file():
        raise SkyflatError(f"{name}: its flat {path} is not a file, give --flat FILE")
    return path


def _fill(sky, dq, reference):
    """Fill and flag pixels that are not finite, since jwst smooths its templates."""
    bad = ~np.isfinite(sky)
    if bad.any():
        filled = fill_gaps(np.where(bad, 0, sky), ~bad & ~reference)
        sky = np.where(bad, np.where(reference, 0, filled), sky)
        dq = dq | np.where(bad, dqflags.pixel["DO_NOT_USE"], 0).astype(dq.dtype)
    return sky, dq
