"""Count rates of several exposures: averages, totals, and ratios to expected count rates."""

from pathlib import Path

import numpy as np
from astropy.table import Table, join

from soss_background.detector import BEHIND_CLEARP, FILTERS
from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault

__all__ = ["average_tables", "compare_rates", "read_table", "total_rates"]

# Columns of measurements; each table has one of them.
_VALUES = ("count_rate", "surface_brightness")
# Keywords that measurements of one star must share to be averaged.
_SETUP = ("FILTER", "SUBARRAY", "TARGNAME")
# Subarray of a filter that is not measured, and of tables that do not name theirs.
_NO_SUBARRAY = "-"


def read_table(path, *columns):
    """
    Read a table of this package.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        An ECSV file.
    *columns : str
        Required columns.

    Returns
    -------
    table : `~astropy.table.Table`
        The table; ``meta["FILE"]`` is the name of the file.

    Raises
    ------
    SkyflatError
        If the file cannot be read, or a column is missing or not numeric.
    """
    with explain_fault(path, "cannot be read as an ECSV table"):
        table = Table.read(Path(path), format="ascii.ecsv")
    for name in columns:
        if name not in table.colnames:
            raise SkyflatError(f"{path}: column {name} is missing")
        if name != "filter" and table[name].dtype.kind not in "fi":
            raise SkyflatError(f"{path}: column {name} does not hold numbers")
    table.meta["FILE"] = Path(path).name
    return table


def average_tables(tables):
    """
    Average the measurements of dithered exposures, radius by radius.

    The mean is weighted by the inverse variances. Count rates that do not exceed that of the next
    smaller circle are ignored; where none remains, the mean is that of all measurements,
    unweighted.

    Parameters
    ----------
    tables : list of `~astropy.table.Table`
        Curves of growth (``count_rate``) or surface brightnesses (``surface_brightness``), with
        ``radius`` and ``error``.

    Returns
    -------
    mean : `~astropy.table.Table`
        The same columns; ``scatter``, the standard deviation of the averaged measurements (NaN for
        a single one); and ``n_good``, the number of measurements in the weighted mean, 0 where the
        mean is unweighted. ``meta["INPUTS"]`` lists the tables.

    Raises
    ------
    SkyflatError
        If filters, subarrays, stars, radii or kinds of the tables differ.
    """
    first = tables[0]
    key = next((name for name in _VALUES if name in first.colnames), None)
    for table in tables:
        _check_alike(table, first, key)
    values, errors = (np.array([table[name] for table in tables]) for name in (key, "error"))
    measured = np.isfinite(values) & (errors > 0)
    good = measured.copy()
    if key == "count_rate":
        good[:, 1:] &= ~(np.diff(values, axis=1) <= 0)
    n_good = good.sum(axis=0)
    weights = np.zeros(values.shape)
    weights[good] = 1 / errors[good] ** 2
    weights[:, n_good == 0] = measured[:, n_good == 0]
    total, used = weights.sum(axis=0), weights > 0
    share = weights / np.where(total > 0, total, np.nan)
    mean = first[[name for name in first.colnames if name.startswith("radius")]]
    mean[key] = np.sum(share * np.where(used, values, 0), axis=0)
    mean["error"] = np.sqrt(np.sum((share * np.where(used, errors, 0)) ** 2, axis=0))
    deviation, count = np.where(used, values - mean[key], 0), used.sum(axis=0)
    spread = np.sqrt(np.sum(deviation**2, axis=0) / np.maximum(count - 1, 1))
    mean["scatter"] = np.where(count > 1, spread, np.nan)
    mean["n_good"] = n_good
    for name in (key, "error", "scatter"):
        mean[name].unit = first[key].unit
    mean.meta = {name: first.meta.get(name) for name in _SETUP}
    mean.meta["INPUTS"] = [table.meta.get("FILE", "") for table in tables]
    return mean


def _check_alike(table, first, key):
    """Raise SkyflatError unless two tables can be averaged."""
    name = table.meta.get("FILE", "a table")
    if key is None or key not in table.colnames:
        raise SkyflatError(f"{name}: column {key or _VALUES[0]} is missing")
    for word in _SETUP:
        mine, others = (each.meta.get(word) for each in (table, first))
        if mine != others:
            raise SkyflatError(f"{name}: its {word} is {mine}, that of others is {others}")
    if table[key].unit != first[key].unit:
        raise SkyflatError(f"{name}: its unit is {table[key].unit}, not {first[key].unit}")
    if not np.array_equal(table["radius"], first["radius"]):
        raise SkyflatError(f"{name}: its radii differ from those of other tables")


def total_rates(tables, find_psf, radii, transmission=1.0):
    """
    Measure the total count rate of a star in each filter and subarray.

    At each radius, the total is the count rate divided by the encircled energy of the PSF. The
    result is the mean over the radii; its error is the mean of the errors, since circles overlap.

    Parameters
    ----------
    tables : list of `~astropy.table.Table`
        Curves of growth; those of the same filter and subarray are averaged, see
        `average_tables`.
    find_psf : callable
        Returns the `~soss_background.fluxcal.psf.Psf` of a filter, or raises SkyflatError.
    radii : tuple of float
        Smallest and largest radius to use, pixels.
    transmission : float, optional
        Fraction of the flux that CLEARP transmits, if the encircled energies of F277W and redder
        filters are relative to the flux before it.

    Returns
    -------
    totals : `~astropy.table.Table`
        One row per filter and subarray, and one for each filter that is not measured:
        ``filter``, ``subarray``, ``count_rate``, ``error`` and ``scatter`` (standard deviation over
        the radii; DN/s), ``n_radii``, and ``missing``, the reason why there is no rate, ``-`` if
        there is one.

    Raises
    ------
    SkyflatError
        If tables of the same filter and subarray cannot be averaged, or the radii do not increase.
    """
    if not radii[0] <= radii[1]:
        raise SkyflatError(f"radii {radii[0]:g} to {radii[1]:g} do not increase")
    groups = _group_by_setup(tables)
    measured = {name for name, _ in groups}
    groups |= {(name, _NO_SUBARRAY): [] for name in FILTERS if name not in measured}
    rows = []
    for (name, subarray), group in sorted(groups.items()):
        rate, n_radii, reason = np.full(3, np.nan), 0, "not measured"
        if group:
            mean = average_tables(group)
            try:
                rate, n_radii = _total(mean, find_psf(name), radii)
                reason = "-"
            except SkyflatError as err:
                reason = str(err)
        if name in BEHIND_CLEARP:
            rate = rate * transmission
        rows.append((name, subarray, *rate, n_radii, reason))
    names = ("filter", "subarray", "count_rate", "error", "scatter", "n_radii", "missing")
    units = dict.fromkeys(("count_rate", "error", "scatter"), "DN/s")
    totals = Table(rows=rows, names=names, units=units)
    totals.meta = {"RADII": list(radii), "CLEARP": transmission}
    totals.meta["INPUTS"] = [table.meta.get("FILE", "") for table in tables]
    return totals


def _group_by_setup(tables):
    """Group curves of growth of one star by filter and subarray."""
    groups = {}
    for table in tables:
        name = str(table.meta.get("FILTER"))
        if name not in FILTERS:
            file = table.meta.get("FILE", "a table")
            raise SkyflatError(f"{file}: FILTER is {name}, not one of NIRISS imaging")
        subarray = str(table.meta.get("SUBARRAY") or _NO_SUBARRAY)
        groups.setdefault((name, subarray), []).append(table)
    stars = sorted({str(table.meta.get("TARGNAME")) for table in tables})
    if len(stars) > 1:
        raise SkyflatError(f"tables of different stars: {', '.join(stars)}")
    for group in groups.values():
        if len(group) > 1 and any("INPUTS" in table.meta for table in group):
            file = group[0].meta.get("FILE")
            raise SkyflatError(f"{file}: give either the averages or the averaged tables")
    return groups


def _total(table, psf, radii):
    """Return the total count rate, its error and scatter, and the number of radii."""
    radius = np.asarray(table["radius"])
    energy = psf.energy(radius)
    rate, error = (np.asarray(table[name]) / energy for name in ("count_rate", "error"))
    used = (radius >= radii[0]) & (radius <= radii[1]) & np.isfinite(rate)
    if not used.any():
        raise SkyflatError(f"no radius of {radii[0]:g} to {radii[1]:g} pixels is measured")
    return np.array([np.mean(rate[used]), np.mean(error[used]), np.std(rate[used])]), used.sum()


def compare_rates(expected, totals):
    """
    Compare measured count rates with expected ones.

    Parameters
    ----------
    expected : `~astropy.table.Table`
        ``filter`` and ``count_rate`` (DN/s), see
        `soss_background.fluxcal.expected.expected_rates`.
    totals : `~astropy.table.Table`
        ``filter``, ``count_rate`` and ``error`` (DN/s), and ``subarray`` if there are several,
        see `total_rates`.

    Returns
    -------
    table : `~astropy.table.Table`
        The expected rates, one row per filter and measured subarray, with ``subarray``,
        ``measured``, ``measured_error`` (DN/s), ``ratio`` and ``ratio_error``; NaN where one is
        missing.
    """
    measured = totals["filter", "count_rate", "error"]
    has_subarray = "subarray" in totals.colnames
    measured["subarray"] = totals["subarray"] if has_subarray else _NO_SUBARRAY
    measured.rename_columns(("count_rate", "error"), ("measured", "measured_error"))
    measured.meta.clear()
    table = join(expected, measured, keys="filter", join_type="left")
    table["subarray"] = np.ma.filled(table["subarray"], _NO_SUBARRAY)
    for name in ("measured", "measured_error"):
        table[name] = np.ma.filled(table[name], np.nan)
        table[name].unit = "DN/s"
    predicted = np.asarray(table["count_rate"])
    table["ratio"] = np.asarray(table["measured"]) / predicted
    table["ratio_error"] = np.asarray(table["measured_error"]) / predicted
    others = [name for name in table.colnames if name not in ("filter", "subarray")]
    return table["filter", "subarray", *others]
