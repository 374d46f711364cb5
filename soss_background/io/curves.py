"""Curves in files: spectra of stars, throughputs of filters."""

from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault
from soss_background.io.quiet import ignore_warnings

__all__ = ["CURVES", "FLUX", "read_curve"]

# Extensions of plain text files, and of all files that can hold a curve.
_PLAIN = (".txt", ".dat", ".tab")
CURVES = (*_PLAIN, ".fits", ".ecsv")
# Unit of the flux of a spectrum, if the file gives none.
FLUX = u.erg / u.s / u.cm**2 / u.AA


def read_curve(path, column, unit, fault):
    """Read WAVELENGTH (default Angstrom) and ``column`` (default ``unit``) of a table, sorted."""
    path = Path(path)
    plain = path.suffix.lower() in _PLAIN
    # CALSPEC has its own units, see `_unit`.
    with explain_fault(path, fault), ignore_warnings(u.UnitsWarning):
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
        raise SkyflatError(f"{path}: not all values are numbers")
    if not (wavelength > 0).all() or len(set(wavelength.value)) < max(len(wavelength), 2):
        raise SkyflatError(f"{path}: its wavelengths are not positive, or not all different")
    rising = np.argsort(wavelength)
    return wavelength[rising], values[rising]


def _unit(unit):
    """Return a unit; accept CALSPEC's unit names, too."""
    known = {"ANGSTROMS": u.AA, "FLAM": FLUX}
    return known.get(str(unit).upper(), unit if unit is None else u.Unit(unit))
