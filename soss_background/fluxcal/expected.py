"""Count rates that are expected of a star, by synthetic photometry."""

import re
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table
from synphot import Observation, SourceSpectrum, SpectralElement
from synphot.exceptions import SynphotError
from synphot.models import Empirical1D

from soss_background.detector import COLLECTING_AREA, FILTERS, GAIN
from soss_background.errors import SkyflatError, one_line
from soss_background.io.curves import CURVES, FLUX, read_curve

__all__ = ["expected_rates"]


def expected_rates(spectrum, throughputs, *, area=COLLECTING_AREA, gain=GAIN):
    """
    Tell the count rates that are expected of a star in all filters.

    Parameters
    ----------
    spectrum : `~pathlib.Path`
        Spectrum of the star, see `soss_background.io.curves.read_curve`.
    throughputs : `~pathlib.Path`
        Folder of throughput curves, electrons for a photon that arrives at the telescope; their
        names tell the filter, such as ``jwst_nis_f090w_clear.fits``; columns WAVELENGTH (Angstrom
        unless they tell their unit) and THROUGHPUT.
    area : float, optional
        Collecting area of the telescope, m^2.
    gain : float, optional
        Electrons of a DN.

    Returns
    -------
    table : `~astropy.table.Table`
        A row a filter: ``filter``, ``electron_rate`` (electron/s), ``count_rate`` (DN/s), and
        ``missing``, which tells why there is no rate, and is ``-`` if there is one.

    Raises
    ------
    SkyflatError
        If a file cannot be read, or two curves are of one filter.
    """
    spectrum, throughputs = Path(spectrum), Path(throughputs)
    if not throughputs.is_dir():
        raise SkyflatError(f"{throughputs}: no such folder")
    wave, flux = read_curve(spectrum, "FLUX", FLUX, "cannot be read as a spectrum")
    source = _make(SourceSpectrum, spectrum, wave, flux)
    rows = []
    for name in FILTERS:
        path = _find(throughputs, name)
        rate, reason = np.nan, "no throughput curve"
        if path is not None:
            fault = "cannot be read as a throughput curve"
            wave, part = read_curve(path, "THROUGHPUT", u.dimensionless_unscaled, fault)
            if not ((part >= 0) & (part <= 1)).all():
                raise SkyflatError(f"{path}: its throughputs are no parts of 1")
            band = _make(SpectralElement, path, wave, part)
            try:
                rate, reason = Observation(source, band).countrate(area * u.m**2).value, "-"
            except SynphotError as err:
                reason = one_line(err)
        rows.append((name, rate, rate / gain, reason))
    table = Table(rows=rows, names=("filter", "electron_rate", "count_rate", "missing"))
    table["electron_rate"].unit, table["count_rate"].unit = "electron/s", "DN/s"
    table.meta = {"SPECTRUM": spectrum.name, "THROUGHPUTS": str(throughputs)}
    table.meta |= {"AREA": area, "GAIN": gain}
    return table


def _make(kind, path, wave, values):
    """Make a curve of synphot, or tell of the file that it is of."""
    try:
        return kind(Empirical1D, points=wave, lookup_table=values)
    except (SynphotError, u.UnitsError) as err:
        raise SkyflatError(f"{path}: {one_line(err)}") from err


def _find(folder, name):
    """Find the throughput curve of a filter."""
    word = re.compile(rf"(?<![a-z0-9]){name.lower()}(?![a-z0-9])")
    files = [path for path in folder.iterdir() if path.suffix.lower() in CURVES]
    found = sorted(path for path in files if word.search(path.stem.lower()))
    if len(found) > 1:
        raise SkyflatError(f"{folder}: {found[0].name} and {found[1].name} are both of {name}")
    return found[0] if found else None
