"""Tables of the encircled energy of a point spread function."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from scipy.interpolate import PchipInterpolator

from soss_background.detector import FILTERS
from soss_background.errors import SkyflatError
from soss_background.io.files import tell_of_fault

__all__ = ["Psf", "find_psf", "read_psf"]

# What the columns are called, in small letters.
_RADIUS, _ENERGY = ("radius",), ("encircled_energy", "countrate", "flux")


class Psf(NamedTuple):
    """
    How the light of a point source is spread.

    Attributes
    ----------
    radius : ndarray of float, shape (n,)
        Radii of circles, pixels.
    encircled : ndarray of float, shape (n,)
        Part of the light within them.
    """

    radius: np.ndarray
    encircled: np.ndarray

    def energy(self, radii):
        """
        Interpolate the encircled energy.

        Parameters
        ----------
        radii : ndarray of float, shape (m,)
            Radii, pixels.

        Returns
        -------
        energy : ndarray of float, shape (m,)
            Part of the light within them; NaN beyond the table.
        """
        return self._curve()(np.square(radii))

    def brightness(self, radii):
        """
        Tell how bright the PSF is.

        Parameters
        ----------
        radii : ndarray of float, any shape
            Distances from its centre, pixels.

        Returns
        -------
        brightness : ndarray of float, same shape
            Part of the light that falls on a pixel's area there; 0 beyond the table.
        """
        return np.nan_to_num(self._curve().derivative()(np.square(radii)) / np.pi)

    def _curve(self):
        """Interpolate between areas, of which the light of the core is proportional."""
        area, light = (np.append(0, each) for each in (self.radius**2, self.encircled))
        return PchipInterpolator(area, light, extrapolate=False)


def read_psf(path):
    """
    Read the encircled energy of a PSF.

    Parameters
    ----------
    path : `~pathlib.Path`
        A table that astropy reads, with the columns Radius (pixels) and CountRate, Flux or
        encircled_energy (part of the light).

    Returns
    -------
    psf : `Psf`
        The PSF.

    Raises
    ------
    SkyflatError
        If it cannot be read, or is no such table.
    """
    with tell_of_fault(path, "cannot be read as a table of encircled energy"):
        table = Table.read(path, format="ascii")
        radius, energy = (_column(table, names) for names in (_RADIUS, _ENERGY))
    if not (len(radius) > 1 and radius[0] > 0 and (np.diff(radius) > 0).all()):
        raise SkyflatError(f"{path}: its radii do not increase")
    if not ((energy > 0).all() and (np.diff(energy) >= 0).all() and energy[-1] < 1.05):
        raise SkyflatError(f"{path}: its encircled energies are no parts of 1 that increase")
    return Psf(radius, energy)


def _column(table, names):
    """Take the first column of a table that has one of the names."""
    found = {name.lower(): name for name in table.colnames}
    known = [found[name] for name in names if name in found]
    if not known:
        raise ValueError(f"column {names[0]} is missing")
    return np.array(table[known[0]], dtype=float)


def find_psf(path, name):
    """
    Find the PSF of a filter.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Its table, or a folder of tables named after their filters, such as ``f090w_psf.radtab``.
    name : str
        The filter.

    Returns
    -------
    psf : `Psf`
        The PSF.

    Raises
    ------
    SkyflatError
        If there is none, or it is that of another filter.
    """
    path, name = Path(path), name.upper()
    if path.is_dir():
        stem = f"{name}_psf".lower()
        found = sorted(each for each in path.iterdir() if each.stem.lower() == stem)
        if len(found) != 1:
            raise SkyflatError(f"{path}: {len(found)} tables {stem}.*, not one")
        return read_psf(found[0])
    others = [each for each in FILTERS if each.lower() in path.stem.lower() and each != name]
    if others:
        raise SkyflatError(f"{path}: the PSF of {others[0]}, not of {name}")
    return read_psf(path)
