"""Expected count rates of a star from synthetic photometry."""

import re
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table
from synphot import Observation, SourceSpectrum, SpectralElement
from synphot.exceptions import DisjointError, PartialOverlap, SynphotError
from synphot.models import Empirical1D

from soss_background.detector import COLLECTING_AREA, FILTERS, GAIN
from soss_background.errors import SkyflatError, one_line
from soss_background.io.curves import CURVES, FLUX, read_curve, read_curves

__all__ = ["expected_rates"]

# Words in the names of throughput curves that are not those of imaging: the grisms and the mask.
_OTHER_MODES = re.compile("gr150|gr700|nrm")


def expected_rates(spectrum, throughputs, *, area=COLLECTING_AREA, gain=GAIN):
    """
    Compute the expected count rates of a star in all filters.

    The product of spectrum, throughput and collecting area is integrated by synphot.

    Parameters
    ----------
    spectrum : str or `~pathlib.Path`
        Spectrum of the star, see `soss_background.io.curves.read_curve`.
    throughputs : str or `~pathlib.Path`
        Folder of throughput curves, electrons per photon that arrives at the telescope. Their
        names contain the filter, such as ``jwst_nis_f090w_clear.fits``; their columns are
        WAVELENGTH and THROUGHPUT, or, in a plain text file, two without names. Curves of grisms and
        of the non-redundant mask are ignored.
    area : float, optional
        Collecting area of the telescope, m^2.
    gain : float, optional
        Electrons per DN.

    Returns
    -------
    table : `~astropy.table.Table`
        One row per filter: ``filter``, ``electron_rate`` (electron/s), ``count_rate`` (DN/s), and
        ``missing``, the reason why there is no rate, ``-`` if there is one.

    Raises
    ------
    SkyflatError
        If a file cannot be read, two curves are of the same filter, or synphot cannot integrate
        them.
    """
    spectrum, throughputs = Path(spectrum), Path(throughputs)
    if not throughputs.is_dir():
        raise SkyflatError(f"{throughputs}: no such folder")
    wave, flux = read_curve(spectrum, "FLUX", FLUX, "cannot be read as a spectrum")
    source = _make(SourceSpectrum, spectrum, wave, flux)
    bands = _read_throughputs(throughputs)
    rows = []
    for name in FILTERS:
        rate, reason = np.nan, "no throughput curve"
        if name in bands:
            try:
                observation = Observation(source, bands[name])
                rate, reason = observation.countrate(area * u.m**2).value, "-"
            except (DisjointError, PartialOverlap):
                first, last = wave[[0, -1]].to_value(u.micron)
                reason = (
                    f"the spectrum ({first:.4g} to {last:.4g} micron) does not cover the filter"
                )
            except SynphotError as err:
                raise SkyflatError(f"{spectrum}: {name}: {one_line(err)}") from err
        rows.append((name, rate, rate / gain, reason))
    names = ("filter", "electron_rate", "count_rate", "missing")
    units = {"electron_rate": "electron/s", "count_rate": "DN/s"}
    table = Table(rows=rows, names=names, units=units)
    table.meta = {"SPECTRUM": spectrum.name, "THROUGHPUTS": str(throughputs)}
    table.meta |= {"AREA": area, "GAIN": gain}
    return table


def _read_throughputs(folder):
    """Return the throughput of each filter of which the folder has a curve."""
    found = {name: _find(folder, name) for name in FILTERS}
    paths = {name: path for name, path in found.items() if path is not None}
    fault = "cannot be read as a throughput curve"
    curves = read_curves(paths.values(), "THROUGHPUT", u.dimensionless_unscaled, fault)
    bands = {}
    for (name, path), (wave, throughput) in zip(paths.items(), curves, strict=True):
        if not ((throughput >= 0) & (throughput <= 1)).all():
            raise SkyflatError(f"{path}: throughputs must lie between 0 and 1")
        if not (throughput > 0).any():
            raise SkyflatError(f"{path}: all throughputs are 0")
        bands[name] = _make(SpectralElement, path, wave, throughput)
    return bands


def _make(kind, path, wave, values):
    """Create a synphot curve; raise SkyflatError that names the file if synphot refuses it."""
    try:
        return kind(Empirical1D, points=wave, lookup_table=values)
    except (SynphotError, u.UnitsError) as err:
        raise SkyflatError(f"{path}: {one_line(err)}") from err


def _find(folder, name):
    """Return the path of the throughput curve of a filter, None if the folder has none."""
    word = re.compile(rf"(?<![a-z0-9]){name.lower()}(?![a-z0-9])")
    files = [path for path in folder.iterdir() if path.suffix.lower() in CURVES]
    stems = {path: path.stem.lower() for path in files}
    found = sorted(
        path for path, stem in stems.items() if word.search(stem) and not _OTHER_MODES.search(stem)
    )
    if len(found) > 1:
        raise SkyflatError(f"{folder}: {found[0].name} and {found[1].name} are both of {name}")
    return found[0] if found else None
