"""Skyflats become the BKG reference file that jwst's ``bkg_subtract`` reads."""

import functools
import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from crds.client import api
from crds.core.exceptions import CrdsError
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags
from tqdm import tqdm

from soss_background import __version__
from soss_background.associations.tables import parse_date
from soss_background.datamodels import SkyflatModel
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.exposures import REQUIRED, find_fault
from soss_background.files import save_whole
from soss_background.reference.merging import average_skies
from soss_background.reference.selection import find_nearest, select_skies
from soss_background.smoothing import fill_gaps
from soss_background.stpipe import crds_reachable
from soss_background.subtract.match import BinnedSky, bin_sky, cross_residuals
from soss_background.subtract.template_files import (
    PLANE_KEYWORD,
    cut_planes,
    find_files,
    from_skyflat,
    open_skyflat,
    read_flat,
)

__all__ = ["make_reference", "write_reference"]

log = logging.getLogger(__name__)

# Before the first SOSS exposure: the sky knows no date.
_USEAFTER = "2022-01-01T00:00:00"

# What CRDS takes for a pedigree, without dates and with them.
_PEDIGREES = {1: ("GROUND", "MODEL", "DUMMY", "SIMULATION"), 3: ("INFLIGHT", "MODEL")}

_UNITS = {"LON": "deg", "LAT": "deg", "DOY": "d", "PWCPOS": "deg"}


@dataclass
class _Sky:
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
        Sky and error in DN/s, not flat-fielded, and flags.
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


def make_reference(
    skyflats,
    subarray="SUBSTRIP256",
    *,
    plane="BKGDN",
    flat=None,
    merge_below=0.25,
    max_residual=5.0,
    max_templates=None,
    useafter=_USEAFTER,
    author=None,
    pedigree=None,
    description=None,
):
    """
    Make a BKG reference file of skyflats.

    jwst subtracts the sky before it divides by the flat, so flat-fielded skies are multiplied by
    the flat again.

    Parameters
    ----------
    skyflats : list of str, `~pathlib.Path` or SkyflatModel
        Skyflats, or their files, wildcards allowed.
    subarray : {"SUBSTRIP256", "SUBSTRIP96", "FULL"}
        Pixels of the library. jwst cuts SUBSTRIP96 out of SUBSTRIP256 itself.
    plane : {"BKGDN", "BKG"}
        Plane of the skyflats that becomes the template: the denoised sky, or the plain one.
    flat : str or `~pathlib.Path`, optional
        FLAT reference file; by default the one that each skyflat was made with.
    merge_below : float
        Skies are merged if none leaves more of another, rms in per cent of the sky.
    max_residual : float
        A sky is left out if any other leaves more of it, rms in per cent of the sky, and three
        times as much as is left of a typical sky.
    max_templates : int, optional
        Largest number of templates, see `soss_background.reference.selection.select_skies`.
    useafter, author, pedigree, description : str, optional
        What the header says. By default a date before all SOSS exposures, the authors of the
        skyflats, INFLIGHT with the dates of their exposures, and how many skies there are.

    Returns
    -------
    reference : `~stdatamodels.jwst.datamodels.SossBkgModel`
        The library, one plane a template, in DN/s. Its extension TEMPLATES and its HISTORY tell
        where they come from.
    table : `~astropy.table.Table`
        A row for each skyflat: its number (``SKY``), which of the others fits it best
        (``FITTED_BY``, 0 for none), what that leaves of it (``RESIDUAL``, rms in per cent), the
        template that it went into (``TEMPLATE``, 0 for none), and why it is no template of its own
        (``REASON``).

    Raises
    ------
    SkyflatError
        If a skyflat cannot be read or has not these pixels, if its flat is not known or cannot be
        had, or if a date or a pedigree is none.
    """
    useafter, pedigree = _check_useafter(useafter), _check_pedigree(pedigree)
    skies = _read_skies(skyflats, SUBARRAYS[subarray], plane, flat)
    residuals = cross_residuals([sky.binned for sky in skies])
    groups, reasons = select_skies(
        residuals,
        [sky.exposures for sky in skies],
        merge_below=merge_below,
        max_residual=max_residual,
        max_templates=max_templates,
    )
    table = _tabulate(skies, residuals, groups, reasons)
    reference = _build(skies, groups)
    _describe(reference, SUBARRAYS[subarray], plane)
    used = [skies[index] for group in groups for index in group]
    meta = reference.meta
    meta.useafter = useafter
    meta.author = author or ", ".join(dict.fromkeys(sky.author for sky in used))
    meta.pedigree = pedigree or _date_pedigree(used)
    meta.description = description or f"{len(groups)} empirical skies of SOSS, {subarray}"
    _tell_history(reference, skies, groups, reasons, plane)
    return reference, table


def write_reference(reference, path):
    """
    Write a BKG reference file.

    Parameters
    ----------
    reference : `~stdatamodels.jwst.datamodels.SossBkgModel`
        The library.
    path : str or `~pathlib.Path`
        Where it goes, FITS; what is there is replaced when the new file is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole(reference.save, path)


def _check_useafter(text):
    """Read a date, and write it as CRDS wants it."""
    try:
        return parse_date(text).isoformat(timespec="seconds")
    except ValueError as err:
        raise SkyflatError(f"{text} is no date for USEAFTER, such as {_USEAFTER}") from err


def _check_pedigree(text):
    """Make sure that CRDS takes a pedigree."""
    if text is None:
        return None
    kind, *dates = text.split() or [""]
    try:
        dates = [date.fromisoformat(day) for day in dates]
        good = kind in _PEDIGREES.get(1 + len(dates), ()) and dates == sorted(dates)
    except ValueError:
        good = False
    if not good:
        raise SkyflatError(
            f"{text} is no PEDIGREE, such as DUMMY or INFLIGHT 2023-01-31 2024-06-30"
        )
    return text


def _read_skies(skyflats, window, plane, flat):
    """Read skyflats, files and patterns of files among them."""
    items = []
    for item in skyflats:
        items += [item] if isinstance(item, SkyflatModel) else find_files([item])
    if not items:
        raise SkyflatError("No skyflats are given")
    read_once = functools.cache(lambda name: read_flat(_locate_flat(name), window))
    skies = []
    for item in tqdm(items, "Reading skyflats", unit="skyflat", disable=None):
        with open_skyflat(item) as skyflat:
            name = skyflat.meta.filename if isinstance(item, SkyflatModel) else item.name
            skies.append(_read_sky(skyflat, name, window, plane, flat, read_once))
    flats = dict.fromkeys(sky.flat or "none" for sky in skies)
    if len(flats) > 1:
        log.warning("Not all templates are multiplied by one flat: %s", ", ".join(flats))
    return skies


def _read_sky(skyflat, name, window, plane, flat, read_once):
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
    return _Sky(
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


def _tabulate(skies, residuals, groups, reasons):
    """Tell of each skyflat how well the others fit it, and what became of it."""
    table = Table([{"SKY": number} | sky.row for number, sky in enumerate(skies, 1)])
    nearest, left = find_nearest(residuals)
    alone = ~np.isfinite(left)
    table["FITTED_BY"] = np.where(alone, 0, nearest + 1)
    table["RESIDUAL"] = np.where(alone, np.nan, left)
    table["TEMPLATE"] = 0
    for number, group in enumerate(groups, 1):
        table["TEMPLATE"][group] = number
    table["REASON"] = reasons
    for column, unit in (_UNITS | {"RESIDUAL": "%"}).items():
        table[column].unit = unit
    for column, form in {"LON": ".2f", "LAT": ".2f", "PWCPOS": ".3f", "RESIDUAL": ".2f"}.items():
        table[column].format = form
    return table


def _build(skies, groups):
    """Make the planes of a library, and the table of its templates."""
    planes = [
        average_skies([skies[i].planes for i in group], [skies[i].binned for i in group])
        for group in groups
    ]
    data, err, dq = (np.array(part) for part in zip(*planes, strict=True))
    reference = datamodels.SossBkgModel(data=data, err=err, dq=dq)
    rows = [
        skies[group[0]].row | {"NSAMPS": sum(skies[index].row["NSAMPS"] for index in group)}
        for group in groups
    ]
    table = Table(rows)
    for column, unit in _UNITS.items():
        table[column].unit = unit
    reference.extra_fits = {"TEMPLATES": {"data": fits.table_to_hdu(table).data}}
    return reference


def _describe(reference, window, plane):
    """Write the keywords that CRDS and jwst match on, and which pixels these are."""
    meta = reference.meta
    meta.reftype, meta.telescope = "BKG", "JWST"
    for key, (_, value) in REQUIRED.items():
        if value is not None:
            reference[key] = value
    meta.instrument.detector = "NIS"
    meta.subarray.name = window.name
    meta.subarray.xstart, meta.subarray.ystart = window.x0 + 1, window.y0 + 1
    meta.subarray.xsize, meta.subarray.ysize = window.nx, window.ny
    meta.subarray.fastaxis, meta.subarray.slowaxis = -2, -1
    meta.bunit_data = meta.bunit_err = "DN/s"
    card = [PLANE_KEYWORD, plane, "plane of the skyflats that SCI is made of"]
    reference.extra_fits.PRIMARY = {"header": [card]}


def _date_pedigree(skies):
    """Tell between which days the exposures were taken."""
    times = [time for sky in skies for time in sky.times]
    if not times:
        raise SkyflatError("No skyflat tells when it was taken: give the pedigree (--pedigree)")
    first, last = Time([min(times), max(times)], format="mjd").strftime("%Y-%m-%d")
    return f"INFLIGHT {first} {last}"


def _tell_history(reference, skies, groups, reasons, plane):
    """Tell where each template comes from, and which skyflats are not in the library."""
    lines = [f"Made of {plane} of skyflats by soss_background {__version__}"]
    for number, group in enumerate(groups, 1):
        for index in group:
            row, flat = skies[index].row, skies[index].flat
            place = f"LON {row['LON']:.2f}, LAT {row['LAT']:.2f}, DOY {row['DOY']}"
            lines += [
                f"Template {number}: {row['FILE']}",
                f"  program {row['PROGRAM']} {row['TARGPROP']}, {row['NSAMPS']} exposures",
                f"  {place}, PWCPOS {row['PWCPOS']:.3f}",
                f"  multiplied by {Path(flat).name}" if flat else "  not flat-fielded",
            ]
    inside = {index for group in groups for index in group}
    for index, sky in enumerate(skies):
        if index not in inside:
            lines += [f"Left out: {sky.row['FILE']}", f"  {reasons[index]}"]
    for line in lines:
        reference.add_history_entry(line)
