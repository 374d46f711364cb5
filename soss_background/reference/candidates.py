"""What skyflats give to a library: skies of some pixels, as they are before the flat."""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crds.client import api
from crds.core.exceptions import CrdsError
from stdatamodels.jwst.datamodels import dqflags
from tqdm import tqdm

from soss_background.datamodels import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.exposures import REQUIRED, find_fault
from soss_background.smoothing import fill_gaps
from soss_background.stpipe import crds_reachable
from soss_background.subtract.match import BinnedSky, bin_sky
from soss_background.subtract.template_files import (
    cut_planes,
    find_files,
    from_skyflat,
    open_skyflat,
    read_flat,
)

__all__ = ["Candidate", "read_candidates"]

log = logging.getLogger(__name__)


@dataclass
class Candidate:
    """
    What a skyflat gives to a library.

    Attributes
    ----------
    row : dict
        Its row in the table of templates.
    exposures : frozenset of tuple
        Name, time and pointing of the exposures that it is made of.
    times : list of float
        First and last mid-time of these, MJD; empty if they are not known.
    author : str
        Who made it.
    flat : str or None
        The flat that it was multiplied by.
    planes : tuple of ndarray, shape (ny, nx)
        Sky and 1-sigma uncertainty in DN/s, as they are before the flat-field correction, and
        flags.
    binned : `~soss_background.subtract.match.BinnedSky`
        The sky, denoised if it was, in blocks.
    """

    row: dict
    exposures: frozenset
    times: list
    author: str
    flat: str | None
    planes: tuple
    binned: BinnedSky


def read_candidates(skyflats, window, plane="BKGDN", flat=None):
    """
    Read what skyflats give to a library.

    Parameters
    ----------
    skyflats : list of str, `~pathlib.Path` or SkyflatModel
        Skyflats, or their files, wildcards allowed.
    window : `~soss_background.detector.Window`
        Pixels of the library.
    plane : {"BKGDN", "BKG"}
        Plane that is taken.
    flat : str or `~pathlib.Path`, optional
        FLAT reference file; by default the one that each skyflat was made with.

    Returns
    -------
    candidates : list of Candidate
        One for each skyflat.

    Raises
    ------
    SkyflatError
        If a skyflat cannot be read, is not of SOSS, or has not these pixels, or if its flat is not
        known or cannot be had.
    """
    items = []
    for item in skyflats:
        items += [item] if isinstance(item, SkyflatModel) else find_files([item])
    if not items:
        raise SkyflatError("No skyflats are given")
    read_once = functools.cache(lambda name: read_flat(_locate_flat(name), window))
    candidates = []
    for item in tqdm(items, "Reading skyflats", unit="skyflat", disable=None):
        with open_skyflat(item) as skyflat:
            name = skyflat.meta.filename if isinstance(item, SkyflatModel) else item.name
            candidates.append(_read_candidate(skyflat, name, window, plane, flat, read_once))
    flats = dict.fromkeys(sky.flat or "none" for sky in candidates)
    if len(flats) > 1:
        log.warning("Not all templates are multiplied by one flat: %s", ", ".join(flats))
    return candidates


def _read_candidate(skyflat, name, window, plane, flat, read_once):
    """Take out of a skyflat what a library needs."""
    header = skyflat.to_flat_dict()
    # What a skyflat does not tell it inherits from its kind.
    fault = find_fault(header, {key: value for key, value in REQUIRED.items() if header.get(key)})
    if fault:
        raise SkyflatError(f"{name}: {fault}")
    template = from_skyflat(skyflat, window, name)
    planes = (getattr(skyflat, plane.lower()), skyflat.err, skyflat.dq)
    if planes[0] is None:
        raise SkyflatError(f"{name}: no {plane} in it")
    flat_name = _flat_name(skyflat, name, flat)
    factor = read_once(flat_name) if flat_name else 1
    # Skies are compared without the flat.
    divisor = read_once(str(flat)) if flat and not template.flat_fielded else 1
    sky, err, dq = cut_planes(skyflat, planes, window, name)
    reference = window.reference_pixels()
    sky, dq = _fill(sky, dq, reference)
    exposures, times, pwcpos = _exposures(skyflat)
    row = {
        "FILE": name,
        "PROGRAM": header.get("meta.observation.program_number") or "",
        "TARGPROP": header.get("meta.target.proposer_name") or "",
        "LON": _number(skyflat.meta.skyflat.ecliptic_lon),
        "LAT": _number(skyflat.meta.skyflat.ecliptic_lat),
        "DOY": skyflat.meta.skyflat.day or 0,
        "PWCPOS": pwcpos,
        "NSAMPS": skyflat.meta.skyflat.n_samples or 0,
    }
    return Candidate(
        row=row,
        exposures=exposures,
        times=times,
        author=skyflat.meta.author or "soss_background",
        flat=flat_name,
        planes=(sky * factor, err * factor, dq.copy()),
        binned=bin_sky(template.sky / divisor, ~reference, window.x0),
    )


def _number(value):
    """Take NaN for what is not known."""
    return np.nan if value is None else value


def _exposures(skyflat):
    """List the exposures of a skyflat, their first and last time, and their PWCPOS."""
    metadata = skyflat.metadata
    if metadata is None or not np.any(metadata["used"]):
        return frozenset(), [], _number(skyflat.meta.instrument.pupil_position)
    used = metadata[metadata["used"] == 1]
    names = [name.rsplit("_", 1)[0] for name in used["filename"].astype(str)]
    times = used["mid_time_mjd"]
    exposures = frozenset(zip(names, times, used["ra_v1"], used["dec_v1"], strict=True))
    return exposures, [times.min(), times.max()], round(float(np.mean(used["pwcpos"])), 6)


def _flat_name(skyflat, name, flat):
    """Tell which flat a skyflat was divided by, None if it was not."""
    state, own = skyflat.meta.skyflat.flat_correction, skyflat.meta.ref_file.flat.name
    if state == "SKIPPED":
        return None
    if state != "COMPLETE":
        raise SkyflatError(
            f"{name}: FLATCORR is {state}, which does not tell if it is flat-fielded"
        )
    if flat is None and own in (None, "N/A"):
        raise SkyflatError(f"{name}: no R_FLAT tells its flat, give it (--flat FILE)")
    return str(flat or own)


def _locate_flat(name):
    """Find the file of a flat that R_FLAT or the user names."""
    path = Path(name)
    if name.startswith("crds://"):
        if not crds_reachable():
            raise SkyflatError(f"{name}: CRDS cannot be reached, give the flat (--flat FILE)")
        try:
            path = Path(api.dump_references("jwst", [path.name])[path.name])
        except (CrdsError, OSError) as err:
            raise SkyflatError(f"{name}: CRDS does not give it ({err}), use --flat FILE") from err
    if not path.is_file():
        raise SkyflatError(f"{path}: no such file (flat), give the flat (--flat FILE)")
    return path


def _fill(sky, dq, reference):
    """Fill and flag what is not finite: jwst smooths its templates."""
    bad = ~np.isfinite(sky)
    if bad.any():
        filled = fill_gaps(np.where(bad, 0, sky), ~bad & ~reference)
        sky = np.where(bad, np.where(reference, 0, filled), sky)
        dq = dq | np.where(bad, dqflags.pixel["DO_NOT_USE"], 0).astype(dq.dtype)
    return sky, dq
