"""Count rates of several exposures: averages, totals, and those that are expected."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from soss_background.detector import BEHIND_CLEARP, FILTERS
from soss_background.errors import SkyflatError
from soss_background.io.files import tell_of_fault

__all__ = ["average_tables", "compare_rates", "read_table", "total_rates"]

# What is measured at each radius.
_VALUES = ("count_rate", "surface_brightness")


def read_table(path, *columns):
    """
    Read a table of this package.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        An ECSV file.
    *columns : str
        Columns that it must have.

    Returns
    -------
    table : `~astropy.table.Table`
        The table; ``meta["FILE"]`` is its name.

    Raises
    ------
    SkyflatError
        If it cannot be read, or lacks a column, or a column of numbers has others.
    """
    with tell_of_fault(path, "cannot be read as an ECSV table"):
        table = Table.read(Path(path), format="ascii.ecsv")
    for name in columns:
        if name not in table.colnames:
            raise SkyflatError(f"{path}: column {name} is missing")
        if name != "filter" and table[name].dtype.kind not in "fi":
            raise SkyflatError(f"{path}: column {name} is no column of numbers")
    table.meta["FILE"] = Path(path).name
    return table


def average_tables(tables):
    """
    Average the measurements of dithered exposures, radius by radius.

    The mean is weighted by the inverse variances. A count rate that does not exceed that of the
    next smaller circle is left out, as is what was not measured. Where nothing is left, the mean
    is the plain one.

    Parameters
    ----------
    tables : list of `~astropy.table.Table`
        Curves of growth (``count_rate``) or surface brightnesses (``surface_brightness``), with
        ``radius`` and ``error``.

    Returns
    -------
    mean : `~astropy.table.Table`
        The same columns, ``scatter``, the standard deviation of what was averaged (NaN of one), and
        ``n_good``, the number of measurements in the weighted mean: 0 where the mean is the plain
        one. ``meta["INPUTS"]`` names the tables.

    Raises
    ------
    SkyflatError
        If filters, radii or kinds of the tables differ.
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
    number = good.sum(axis=0)
    # Nothing good: all that was measured counts the same.
    weights = np.where(good, 1 / np.where(good, errors, 1) ** 2, 0) + (measured & (number == 0))
    total = weights.sum(axis=0)
    share = weights / np.where(total > 0, total, np.nan)
    mean = first[[name for name in first.colnames if name.startswith("radius")]]
    mean[key] = np.sum(share * np.where(measured, values, 0), axis=0)
    mean["error"] = np.sqrt(np.sum((share * np.where(measured, errors, 0)) ** 2, axis=0))
    off = np.where(weights > 0, values - mean[key], 0)
    count = np.sum(weights > 0, axis=0)
    spread = np.sqrt(np.sum(off**2, axis=0) / np.maximum(count - 1, 1))
    mean["scatter"] = np.where(count > 1, spread, np.nan)
    mean["n_good"] = number
    for name in (key, "error", "scatter"):
        mean[name].unit = first[key].unit
    mean.meta = {name: first.meta.get(name) for name in ("FILTER", "TARGNAME")}
    mean.meta["INPUTS"] = [table.meta.get("FILE", "") for table in tables]
    return mean


def _check_alike(table, first, key):
    """Raise unless two tables can be averaged."""
    name = table.meta.get("FILE", "a table")
    if key is None or key not in table.colnames:
        raise SkyflatError(f"{name}: column {key or _VALUES[0]} is missing")
    for word in ("FILTER", "TARGNAME"):
        mine, others = (each.meta.get(word) for each in (table, first))
        if mine != others:
            raise SkyflatError(f"{name}: its {word} is {mine}, that of others {others}")
    if table[key].unit != first[key].unit:
        raise SkyflatError(f"{name}: its unit is {table[key].unit}, not {first[key].unit}")
    if not np.array_equal(table["radius"], first["radius"]):
        raise SkyflatError(f"{name}: its radii differ from those of others")


def total_rates(tables, find_psf, radii, transmission=1.0):
    """
    Tell the total count rate of a star in each filter.

    At each radius, the count rate over the encircled energy of the PSF is the total; their mean is
    taken. The error is the mean of theirs, since what one circle has, the next has too.

    Parameters
    ----------
    tables : list of `~astropy.table.Table`
        Curves of growth; several of a filter are averaged, see `average_tables`.
    find_psf : callable
        Gives the `~soss_background.fluxcal.psf.Psf` of a filter, or raises SkyflatError.
    radii : tuple of float
        Smallest and largest radius that is used, pixels.
    transmission : float, optional
        Part of the light that CLEARP lets through, if the encircled energies of F277W and redder
        filters are relative to the light before it.

    Returns
    -------
    totals : `~astropy.table.Table`
        A row a filter: ``filter``, ``count_rate``, ``error`` and ``scatter`` (standard deviation
        over the radii; DN/s), ``n_radii``, and ``missing``, which tells why there is no rate, and
        is ``-`` if there is one.

    Raises
    ------
    SkyflatError
        If the tables of a filter cannot be averaged, or the radii do not increase.
    """
    if not radii[0] <= radii[1]:
        raise SkyflatError(f"radii {radii[0]:g} to {radii[1]:g} do not increase")
    groups = {}
    for table in tables:
        groups.setdefault(str(table.meta.get("FILTER")), []).append(table)
    unknown = sorted(set(groups) - set(FILTERS))
    if unknown:
        name = groups[unknown[0]][0].meta.get("FILE", "a table")
        raise SkyflatError(f"{name}: FILTER is {unknown[0]}, none of NIRISS imaging")
    rows = []
    stars = sorted({str(table.meta.get("TARGNAME")) for table in tables})
    if len(stars) > 1:
        raise SkyflatError(f"tables of different stars: {', '.join(stars)}")
    for group in groups.values():
        if len(group) > 1 and any("INPUTS" in table.meta for table in group):
            raise SkyflatError(f"{group[0].meta.get('FILE')}: give averages, or what they are of")
    for name in FILTERS:
        rate, reason = (np.nan, np.nan, np.nan, 0), "not measured"
        if name in groups:
            mean = average_tables(groups[name])
            try:
                rate, reason = _total(mean, find_psf(name), radii), "-"
            except SkyflatError as err:
                reason = str(err)
        behind = transmission if name in BEHIND_CLEARP else 1.0
        rows.append((name, *(value * behind for value in rate[:3]), rate[3], reason))
    names = ("filter", "count_rate", "error", "scatter", "n_radii", "missing")
    totals = Table(rows=rows, names=names)
    for column in ("count_rate", "error", "scatter"):
        totals[column].unit = "DN/s"
    totals.meta = {"RADII": list(radii), "CLEARP": transmission}
    totals.meta["INPUTS"] = [table.meta.get("FILE", "") for table in tables]
    return totals


def _total(table, psf, radii):
    """Tell the total count rate, its error, its scatter, and the number of radii."""
    radius = np.asarray(table["radius"])
    energy = psf.energy(radius)
    rate, error = (np.asarray(table[name]) / energy for name in ("count_rate", "error"))
    used = (radius >= radii[0]) & (radius <= radii[1]) & np.isfinite(rate)
    if not used.any():
        raise SkyflatError(f"no radius of {radii[0]:g} to {radii[1]:g} pixels is measured")
    return np.mean(rate[used]), np.mean(error[used]), np.std(rate[used]), int(used.sum())


def compare_rates(expected, totals):
    """
    Put measured count rates beside those that are expected.

    Parameters
    ----------
    expected : `~astropy.table.Table`
        ``filter`` and ``count_rate`` (DN/s), see
        `soss_background.fluxcal.expected.expected_rates`.
    totals : `~astropy.table.Table`
        ``filter``, ``count_rate`` and ``error``, see `total_rates`.

    Returns
    -------
    table : `~astropy.table.Table`
        The expected rates, with ``measured``, ``measured_error`` (DN/s), ``ratio`` and
        ``ratio_error``; NaN for what is missing.
    """
    table = expected.copy()
    measured = {str(row["filter"]): (row["count_rate"], row["error"]) for row in totals}
    pairs = np.array([measured.get(str(name), (np.nan, np.nan)) for name in table["filter"]])
    table["measured"], table["measured_error"] = pairs.T
    table["measured"].unit = table["measured_error"].unit = "DN/s"
    for name, value in zip(("ratio", "ratio_error"), pairs.T, strict=True):
        table[name] = value / np.asarray(table["count_rate"])
    return table
