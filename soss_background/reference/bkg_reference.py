"""Skyflats become the BKG reference file that jwst's ``bkg_subtract`` reads."""

from datetime import date
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from stdatamodels.jwst import datamodels

from soss_background import __version__
from soss_background.associations.tables import parse_date
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.exposures import REQUIRED
from soss_background.files import save_whole
from soss_background.reference.candidates import read_candidates
from soss_background.reference.merging import average_skies
from soss_background.reference.selection import find_nearest, select_skies
from soss_background.subtract.match import cross_residuals
from soss_background.subtract.template_files import PLANE_KEYWORD

__all__ = ["make_reference", "write_reference"]

# Before the first SOSS exposure: the sky knows no date.
_USEAFTER = "2022-01-01T00:00:00"

# What CRDS takes for a pedigree, without dates and with them.
_PEDIGREES = {1: ("GROUND", "MODEL", "DUMMY", "SIMULATION"), 3: ("INFLIGHT", "MODEL")}

_UNITS = {"LON": "deg", "LAT": "deg", "DOY": "d", "PWCPOS": "deg"}


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
        A sky is left out if every other leaves more of it, rms in per cent of the sky, and three
        times as much as the best other leaves of a typical sky.
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
    skies = read_candidates(skyflats, SUBARRAYS[subarray], plane, flat)
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
