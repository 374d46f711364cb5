"""Tables of the encircled energy of a point spread function."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from scipy.interpolate import PchipInterpolator

from soss_background.detector import FILTERS
from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault

__all__ = ["Psf", "check_psf", "check_sky_annulus", "find_psf", "read_psf"]

# Column names in lower case, the preferred one first.
_RADIUS, _ENERGY = ("radius",), ("encircled_energy", "countrate", "flux")


class Psf(NamedTuple):
    """
    Encircled energy of a point source.

    Attributes
    ----------
    radius : ndarray of float, shape (n,)
        Radii of circles, pixels.
    encircled : ndarray of float, shape (n,)
        Fraction of the flux within them.
    sky_annulus : list of float, optional
        Inner and outer radius of the sky annulus whose mean was subtracted, pixels.
    """

    radius: np.ndarray
    encircled: np.ndarray
    sky_annulus: list | None = None

    def energy(self, radii):
        """Return the fraction of the flux within circles; NaN for radii beyond the table."""
        return self._curve()(np.square(radii))

    def brightness(self, radii):
        """Return the fraction of the flux per pixel at distances; 0 beyond the table."""
        return np.nan_to_num(self._curve().derivative()(np.square(radii)) / np.pi)

    def _curve(self):
        """Interpolate in area, to which the encircled energy is proportional in the core."""
        area, energy = np.append(0, self.radius**2), np.append(0, self.encircled)
        return PchipInterpolator(area, energy, extrapolate=False)


def read_psf(path):
    """Read a table of the radius (pixels) and encircled_energy, CountRate or Flux (fraction)."""
    with explain_fault(path, "cannot be read as a table of encircled energy"):
        table = Table.read(path, format="ascii")
        radius, energy = (_column(table, names) for names in (_RADIUS, _ENERGY))
        annulus = table.meta.get("SKYANNULUS")
        annulus = None if annulus is None else list(map(float, annulus))
    check_psf(path, radius, energy)
    return Psf(radius, energy, annulus)


def check_psf(path, radius, energy):
    """Raise SkyflatError unless radii and encircled energies of a file are those of a PSF."""
    if not (len(radius) > 1 and radius[0] > 0 and (np.diff(radius) > 0).all()):
        raise SkyflatError(f"{path}: its radii do not increase")
    if not ((energy > 0).all() and (np.diff(energy) >= 0).all() and energy[-1] < 1.05):
        raise SkyflatError(f"{path}: encircled energies must lie between 0 and 1, and increase")


def check_sky_annulus(psf, meta):
    """Raise SkyflatError if a PSF and a star, ``meta`` of its table, differ in sky annulus."""
    annuli = psf.sky_annulus, meta.get("SKYANNULUS")
    if None in annuli or annuli[0] == annuli[1]:
        return
    known, own = (" to ".join(f"{radius:g}" for radius in annulus) for annulus in annuli)
    raise SkyflatError(
        f"the sky annulus of the PSF of {meta['FILTER']} is {known} pixels, that of the star {own}:"
        " measure one of them again"
    )


def _column(table, names):
    """Return the first column of a table that has one of the names."""
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
        Its table, or a folder of tables with names such as ``f090w_psf.ecsv``.
    name : str
        The filter.

    Returns
    -------
    psf : `Psf`
        The PSF.

    Raises
    ------
    SkyflatError
        If there is not exactly one table, it cannot be read, or it is of another filter.
    """
    path, name = Path(path), name.upper()
    if path.is_dir():
        stem = f"{name}_psf".lower()
        found = sorted(each for each in path.iterdir() if each.stem.lower() == stem)
        if len(found) != 1:
            raise SkyflatError(f"{path}: contains {len(found)} tables {stem}.*, not one")
        return read_psf(found[0])
    others = [each for each in FILTERS if each.lower() in path.stem.lower() and each != name]
    if others:
        raise SkyflatError(f"{path}: this is the PSF of {others[0]}, not of {name}")
    return read_psf(path)
