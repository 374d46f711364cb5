"""Curves in files: spectra of stars, throughputs of filters."""

import warnings
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

from soss_background.errors import SkyflatError
from soss_background.io.files import tell_of_fault

__all__ = ["CURVES", "FLUX", "read_curve"]

# What names of files with curves end with: plain text, and what tells its own form.
_PLAIN = (".txt", ".dat", ".tab")
CURVES = (*_PLAIN, ".fits", ".ecsv")
# Flux of a spectrum, if the file does not tell its unit.
FLUX = u.erg / u.s / u.cm**2 / u.AA


def read_curve(path, column, unit, fault):
    """
    Read a curve.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A FITS file as those of CALSPEC, or a table that astropy reads, with the columns WAVELENGTH
        (Angstrom unless it tells its unit) and another; in small letters, too.
    column : str
        The other column.
    unit : `~astropy.units.Unit`
        Its unit, unless the file tells it.
    fault : str
        What is said of a file that cannot be read.

    Returns
    -------
    wavelength, values : `~astropy.units.Quantity`, shape (n,)
        The curve, sorted by wavelength, in the units of the file.

    Raises
    ------
    SkyflatError
        If it cannot be read, lacks a column, or is no curve of numbers.
    """
    path = Path(path)
    plain = path.suffix.lower() in _PLAIN
    with tell_of_fault(path, fault), warnings.catch_warnings():
        # CALSPEC has units of its own, see `_unit`.
        warnings.simplefilter("ignore", u.UnitsWarning)
        table = Table.read(path, format="ascii" if plain else None)
        table.rename_columns(table.colnames, [name.upper() for name in table.colnames])
        units = {"WAVELENGTH": u.AA, column: unit}
        missing = [name for name in units if name not in table.colnames]
        if missing:
            raise SkyflatError(f"{path}: column {missing[0]} is missing")
        wavelength, values = (
            u.Quantity(np.asarray(table[name], dtype=float), _unit(table[name].unit) or default)
            for name, default in units.items()
        )
    if not (np.isfinite(wavelength).all() and np.isfinite(values).all()):
        raise SkyflatError(f"{path}: not all of it are numbers")
    if not (wavelength > 0).all() or len(set(wavelength.value)) < max(len(wavelength), 2):
        raise SkyflatError(f"{path}: its wavelengths are not positive, or not all different")
    rising = np.argsort(wavelength)
    return wavelength[rising], values[rising]


def _unit(unit):
    """Understand the names that CALSPEC has for units."""
    known = {"ANGSTROMS": u.AA, "FLAM": FLUX}
    return known.get(str(unit).upper(), unit if unit is None else u.Unit(unit))
