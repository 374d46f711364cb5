"""Write skyflats as the BKG reference file that jwst's ``bkg_subtract`` reads."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from stdatamodels.jwst import datamodels

from soss_background import __version__
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError, count
from soss_background.io.files import save_datamodel
from soss_background.io.templates import PLANE_KEYWORD
from soss_background.reference.candidates import Candidates
from soss_background.reference.keywords import (
    USEAFTER,
    check_pedigree,
    check_subarray,
    check_useafter,
    describe,
)
from soss_background.reference.merging import average_skies
from soss_background.reference.selection import select_skies
from soss_background.sky.match import cross_residuals

__all__ = ["make_reference", "write_reference"]

# Largest value of a residual parameter, as a fraction of the sky.
_MOST = 0.5

_UNITS = {"LON": "deg", "LAT": "deg", "DOY": "d", "PWCPOS": "deg"}


def make_reference(
    skyflats,
    subarray="SUBSTRIP256",
    *,
    plane="BKGDN",
    flat=None,
    merge_below=0.0025,
    max_residual=0.05,
    useafter=USEAFTER,
    author=None,
    pedigree=None,
    description=None,
):
    """
    Create a BKG reference file from skyflats.

    jwst subtracts the sky before it divides by the flat, so flat-fielded skies are multiplied by
    the flat.

    Parameters
    ----------
    skyflats : str, `~pathlib.Path`, SkyflatModel, or list of these
        Skyflats, or their files, wildcards allowed.
    subarray : {"SUBSTRIP256", "SUBSTRIP96", "FULL"}
        Pixels of the library. jwst itself cuts SUBSTRIP96 from SUBSTRIP256.
    plane : {"BKGDN", "BKG"}
        Plane of the skyflats that becomes the template: the denoised sky, or the plain one.
    flat : str or `~pathlib.Path`, optional
        FLAT reference file; by default that of each skyflat.
    merge_below : float
        Skies are merged if the rms residual of each pair is below this fraction of the sky.
    max_residual : float
        A sky is omitted if its rms residual with every other sky exceeds this fraction of the sky,
        and three times the smallest residual of a typical sky.
    useafter, author, pedigree, description : str, optional
        Values of keywords. By default a date before all SOSS exposures, the authors of the
        skyflats, INFLIGHT with the dates of their exposures, and the number of skies.

    Returns
    -------
    reference : `~stdatamodels.jwst.datamodels.SossBkgModel`
        The library, one plane for each template, DN/s. Its extension TEMPLATES and its HISTORY list
        the sources.
    table : `~astropy.table.Table`
        A row for each skyflat: its number (``SKY``), the flat that multiplies it (``FLAT``),
        the other sky that fits it best (``FITTED_BY``, 0 for none), the rms residual with that one
        (``RESIDUAL``, with the unit %), the template that contains it (``TEMPLATE``, 0 for none),
        and why it is not a separate template (``REASON``).

    Raises
    ------
    SkyflatError
        If a parameter is not valid, a skyflat cannot be read or lacks these pixels, a flat is
        unknown or not available, or only some skyflats are flat-fielded and no flat is given.
    """
    _check_choices(subarray, plane)
    _check_fractions(merge_below=merge_below, max_residual=max_residual)
    texts = {
        "useafter": check_useafter(useafter),
        "author": author,
        "pedigree": check_pedigree(pedigree),
        "description": description,
    }
    skyflats = Candidates(skyflats, SUBARRAYS[subarray], flat)
    skies = skyflats.survey()
    settings = {"merge_below": merge_below, "max_residual": max_residual}
    selection = select_skies(
        cross_residuals([sky.binned for sky in skies]),
        [sky.exposures for sky in skies],
        **settings,
    )
    used = [skies[index] for group in selection.groups for index in group]
    texts["author"] = texts["author"] or ", ".join(dict.fromkeys(sky.author for sky in used))
    texts["pedigree"] = texts["pedigree"] or _date_pedigree(used)
    if texts["description"] is None:
        number = count(len(selection.groups), "empirical sky")
        texts["description"] = f"{number} of SOSS, {subarray}"
    reference = _build(skyflats, skies, selection.groups, plane)
    describe(reference, SUBARRAYS[subarray], texts)
    card = [PLANE_KEYWORD, plane, "plane of the skyflats that SCI contains"]
    reference.extra_fits.PRIMARY = {"header": [card]}
    _add_history(reference, skies, selection, {"plane": plane, **settings})
    return reference, _tabulate(skies, selection)


def write_reference(reference, path):
    """
    Write a BKG reference file.

    Parameters
    ----------
    reference : `~stdatamodels.jwst.datamodels.SossBkgModel`
        The library.
    path : str or `~pathlib.Path`
        Output file, FITS; an existing file is replaced when the new one is complete.

    Raises
    ------
    SkyflatError
        If the name does not end in ``.fits``.
    """
    path = Path(path)
    if path.suffix != ".fits":
        raise SkyflatError(f"{path} does not end in .fits")
    save_datamodel(reference, path)


def _check_choices(subarray, plane):
    """Raise unless the parameters are valid."""
    check_subarray(subarray)
    if plane not in ("BKGDN", "BKG"):
        raise SkyflatError(f"{plane} is neither BKGDN nor BKG")


def _check_fractions(**thresholds):
    """Raise unless residuals are fractions; values in percent are larger."""
    for name, value in thresholds.items():
        if not 0 <= value <= _MOST:
            raise SkyflatError(
                f"{name} is {value}, not a fraction of the sky from 0 to {_MOST} (0.05 is 5 %)"
            )


def _tabulate(skies, selection):
    """List the residual of each skyflat with its nearest other sky, and its template."""
    table = _tabulate_rows([{"SKY": number} | sky.row for number, sky in enumerate(skies, 1)])
    table["FLAT"] = [sky.flat or "" for sky in skies]
    alone = ~np.isfinite(selection.left)
    table["FITTED_BY"] = np.where(alone, 0, selection.nearest + 1)
    table["RESIDUAL"] = np.where(alone, np.nan, 100 * selection.left)
    table["TEMPLATE"] = 0
    for number, group in enumerate(selection.groups, 1):
        table["TEMPLATE"][group] = number
    table["REASON"] = selection.reasons
    table["RESIDUAL"].unit = "%"
    for column, form in {"LON": ".2f", "LAT": ".2f", "PWCPOS": ".3f", "RESIDUAL": ".2f"}.items():
        table[column].format = form
    return table


def _build(skyflats, skies, groups, plane):
    """Build the planes of a library, and the table of its templates."""
    planes, rows = None, []
    for number, group in enumerate(groups):
        template = average_skies(
            [skyflats.read_planes(index, plane) for index in group],
            [skies[index].binned for index in group],
        )
        if planes is None:
            planes = [np.empty((len(groups), *part.shape), part.dtype) for part in template]
        for cube, part in zip(planes, template, strict=True):
            cube[number] = part
        samples = sum(skies[index].row["NSAMPS"] for index in group)
        rows.append(skies[group[0]].row | {"NSAMPS": samples})
    reference = datamodels.SossBkgModel(**dict(zip(("data", "err", "dq"), planes, strict=True)))
    reference.extra_fits = {"TEMPLATES": {"data": fits.table_to_hdu(_tabulate_rows(rows)).data}}
    return reference


def _tabulate_rows(rows):
    """Return a table of rows of skyflats, with units."""
    table = Table(rows)
    for column, unit in _UNITS.items():
        table[column].unit = unit
    return table


def _date_pedigree(skies):
    """Return the pedigree with the first and the last day of the exposures."""
    times = [time for sky in skies for time in sky.times]
    if not times:
        raise SkyflatError(
            "No skyflat records the dates of its exposures: give the pedigree (--pedigree)"
        )
    first, last = Time([min(times), max(times)], format="mjd").strftime("%Y-%m-%d")
    return f"INFLIGHT {first} {last}"


def _add_history(reference, skies, selection, settings):
    """Record the skyflats of each template, and the omitted ones."""
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    lines = [f"Made of skyflats by soss_background {__version__}", f"  {chosen}"]
    for number, group in enumerate(selection.groups, 1):
        for index in group:
            row, flat = skies[index].row, skies[index].flat
            place = f"LON {row['LON']:.2f}, LAT {row['LAT']:.2f}, DOY {row['DOY']}"
            lines += [
                f"Template {number}: {row['FILE']}",
                f"  program {row['PROGRAM']} {row['TARGPROP']}, {row['NSAMPS']} exposures",
                f"  {place}, PWCPOS {row['PWCPOS']:.3f}",
                f"  multiplied by {Path(flat).name}" if flat else "  not flat-fielded",
            ]
    inside = {index for group in selection.groups for index in group}
    for index, sky in enumerate(skies):
        if index not in inside:
            lines += [f"Left out: {sky.row['FILE']}", f"  {selection.reasons[index]}"]
    for line in lines:
        reference.add_history_entry(line)
