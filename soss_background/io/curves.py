"""Curves in files: spectra of stars, throughputs of filters."""

import logging
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault
from soss_background.io.quiet import ignore_warnings

__all__ = ["CURVES", "FLUX", "read_curve", "read_curves"]

log = logging.getLogger(__name__)

# Extensions of plain text files, and of all files that can hold a curve.
_PLAIN = (".txt", ".dat", ".tab", ".csv")
CURVES = (*_PLAIN, ".fits", ".ecsv")
# Unit of the flux of a spectrum, if the file gives none.
FLUX = u.erg / u.s / u.cm**2 / u.AA
# Largest wavelength of a curve without a unit, and the unit that it stands for. NIRISS detects 0.6
# to 5.3 micron: a curve that ends below 6000 cannot be in Angstrom, one that ends below 100 can
# neither be in nm.
_UNITS = ((100, u.micron), (6000, u.nm))


def read_curve(path, column, unit, fault):
    """
    Read a curve from a table.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A FITS, ECSV or plain text table with the columns WAVELENGTH and ``column``, or a plain text
        table of two columns without these names.
    column : str
        Name of the column of the values, in upper case.
    unit : `~astropy.units.Unit`
        Unit of the values if the file gives none.
    fault : str
        Words for a file that is not such a table.

    Returns
    -------
    wavelength, values : `~astropy.units.Quantity`, shape (n,)
        The curve in order of wavelength. A unit of wavelength that the file lacks follows from the
        largest wavelength, and is logged: micron below 100, nm below 6000, otherwise Angstrom.

    Raises
    ------
    SkyflatError
        If the file cannot be read, lacks a column, or holds values that are not numbers, or
        wavelengths that are not positive or not all different.
    """
    return read_curves([path], column, unit, fault)[0]


def read_curves(paths, column, unit, fault):
    """Read curves as `read_curve` does; log assumed units of wavelength in one line for all."""
    curves, assumed = [], {}
    for path in map(Path, paths):
        table = _read_table(path, column, fault)
        if table["WAVELENGTH"].unit is None:
            table["WAVELENGTH"].unit = _guess_unit(table["WAVELENGTH"])
            assumed.setdefault(table["WAVELENGTH"].unit, []).append(path.name)
        curves.append(_check_curve(path, table, {"WAVELENGTH": u.AA, column: unit}, fault))
    for guess, names in assumed.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("Wavelengths without a unit are read in %s: %s%s", guess, names[0], others)
    return curves


def _read_table(path, column, fault):
    """Read a table with names in upper case; raise unless it has WAVELENGTH and a column."""
    plain = path.suffix.lower() in _PLAIN
    # CALSPEC has its own units, see `_unit`.
    with explain_fault(path, fault), ignore_warnings(u.UnitsWarning):
        table = Table.read(path, format="ascii" if plain else None)
        table.rename_columns(table.colnames, [name.upper() for name in table.colnames])
        names = ("WAVELENGTH", column)
        if plain and len(table.colnames) == 2 and not set(names) & set(table.colnames):
            table.rename_columns(table.colnames, names)
        for name in names:
            if name not in table.colnames:
                raise SkyflatError(f"{path}: column {name} is missing")
        table["WAVELENGTH"] = table["WAVELENGTH"].astype(float)
        return table


def _guess_unit(wavelength):
    """Return the unit of wavelengths of which the file gives none."""
    largest = np.max(wavelength, initial=0)
    return next((unit for limit, unit in _UNITS if largest < limit), u.AA)


def _check_curve(path, table, units, fault):
    """Return wavelengths and values in order; raise SkyflatError unless they form a curve."""
    with explain_fault(path, fault):
        wavelength, values = (
            u.Quantity(np.asarray(table[name], dtype=float), _unit(table[name].unit) or default)
            for name, default in units.items()
        )
    if not (np.isfinite(wavelength).all() and np.isfinite(values).all()):
        raise SkyflatError(f"{path}: not all values are numbers")
    if not (wavelength > 0).all() or len(set(wavelength.value)) < max(len(wavelength), 2):
        raise SkyflatError(f"{path}: its wavelengths are not positive, or not all different")
    rising = np.argsort(wavelength)
    return wavelength[rising], values[rising]


def _unit(unit):
    """Return a unit; accept CALSPEC's unit names, too."""
    known = {"ANGSTROMS": u.AA, "FLAM": FLUX}
    return known.get(str(unit).upper(), unit if unit is None else u.Unit(unit))
