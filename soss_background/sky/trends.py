"""Trends of skies with pointing and season."""

import numpy as np
from astropy.table import Table

__all__ = ["fit_trends"]

# Days of a year.
_YEAR = 365.25

# Fewest degrees of freedom of a fit.
_SPARE = 2

# Terms that are fitted together, and the smallest range over which each must vary: degrees, or a
# fraction of the yearly wave.
_TERMS = {("latitude",): 1.0, ("cos", "sin"): 0.1, ("pwcpos",): 0.01}


def fit_trends(table, columns):
    """
    Fit the trends of quantities with ecliptic latitude, season and pupil wheel position together.

    A least-squares fit of ``mean + latitude * (|LAT| - mean) + a cos(day) + b sin(day) +
    pwcpos * (PWCPOS - mean)``, without terms that do not vary among the skies. It describes these
    skies and is not a model of the interplanetary dust.

    Parameters
    ----------
    table : `~astropy.table.Table`
        See `soss_background.survey.skies.survey_skies`.
    columns : dict of bool
        Columns to fit; True for those that are fitted relative to their mean, in percent.

    Returns
    -------
    trends : `~astropy.table.Table`
        For each ``quantity``: its ``unit``, the ``number`` of skies, its ``mean`` (in the unit of
        the column), the change with ``latitude`` (unit per degree away from the ecliptic), the
        amplitude ``season`` of the yearly change (unit), the day of the year of its maximum
        ``peak``, the change with ``pwcpos`` (unit per degree), the ``scatter`` about the fit
        (unit), and the 1-sigma uncertainties ``..._err`` of the changes and of the amplitude (valid
        if the amplitude is larger). NaN for terms that could not be fitted: a fit needs at least
        two more skies than unknowns.
    """
    return Table([_fit_trend(table, *item) for item in columns.items()])


def _fit_trend(table, column, relative):
    """Fit one quantity."""
    values = np.asarray(table[column], dtype=float)
    phase = 2 * np.pi * np.asarray(table["DOY"], dtype=float) / _YEAR
    terms = {
        "latitude": np.abs(np.asarray(table["LAT"], dtype=float)),
        "cos": np.cos(phase),
        "sin": np.sin(phase),
        "pwcpos": np.asarray(table["PWCPOS"], dtype=float),
    }
    good = np.isfinite(values) & np.all([np.isfinite(term) for term in terms.values()], axis=0)
    mean = np.mean(values[good]) if good.any() else np.nan
    row = {"quantity": column, "unit": str(table[column].unit), "number": int(good.sum())}
    row["mean"] = mean
    if relative:
        row["unit"], values = "%", 100 * values / mean
    terms = {name: term[good] for name, term in terms.items()}
    found, covariance, scatter = _least_squares(_center(values[good]), _varying(terms))
    return row | _read_terms(found, covariance) | {"scatter": scatter}


def _center(values):
    """Subtract the mean."""
    return values - values.mean() if values.size else values


def _varying(terms):
    """Return the terms that vary enough for a fit, with their means subtracted."""
    varying = {}
    for names, least in _TERMS.items():
        ranges = [np.ptp(terms[name]) if terms[name].size else 0 for name in names]
        if min(ranges) > least:
            varying |= {name: _center(terms[name]) for name in names}
    return varying


def _least_squares(y, terms):
    """Fit terms of mean zero; return their coefficients, their covariance, and the scatter."""
    names, freedom = list(terms), len(y) - len(terms) - 1
    if not names or freedom < _SPARE:
        return {}, {}, np.nan
    design = np.array([terms[name] for name in names]).T
    if np.linalg.matrix_rank(design) < len(names):
        return {}, {}, np.nan
    factors = np.linalg.lstsq(design, y)[0]
    variance = np.sum((y - design @ factors) ** 2) / freedom
    matrix = variance * np.linalg.inv(design.T @ design)
    covariance = {(a, b): matrix[i, j] for i, a in enumerate(names) for j, b in enumerate(names)}
    return dict(zip(names, factors, strict=True)), covariance, np.sqrt(variance)


def _read_terms(found, covariance):
    """Return the terms of a fit, the season as amplitude and day of maximum."""
    row = {}
    for name in ("latitude", "pwcpos"):
        row[name] = found.get(name, np.nan)
        row[f"{name}_err"] = np.sqrt(covariance.get((name, name), np.nan))
    a, b = found.get("cos", np.nan), found.get("sin", np.nan)
    row["season"] = np.hypot(a, b)
    row["season_err"] = np.nan
    if row["season"] > 0:
        cross = 2 * a * b * covariance["cos", "sin"]
        square = a**2 * covariance["cos", "cos"] + b**2 * covariance["sin", "sin"] + cross
        row["season_err"] = np.sqrt(square) / row["season"]
    row["peak"] = (np.arctan2(b, a) / (2 * np.pi) * _YEAR) % _YEAR
    return row
