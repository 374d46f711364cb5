"""Which numbers are good: metrics beside their acceptable ranges."""

import re

import numpy as np
from astropy.table import Table

__all__ = ["FAIL", "NO_RANGE", "PASS", "failures", "flag_metrics", "format_metrics", "read_text"]

PASS, FAIL, NO_RANGE = "pass", "fail", "no range"


def flag_metrics(metrics, ranges, dtype):
    """
    Put metrics beside their ranges.

    Parameters
    ----------
    metrics : list of `~soss_background.quality.metrics.Metric`
        The numbers.
    ranges : dict of tuple of float
        Lowest and highest acceptable value, by name, with or without the row of a metric.
    dtype : dtype
        Columns of QC.

    Returns
    -------
    table : ndarray, shape (n,)
        QC: name, value, unit, comment, low, high (NaN if there is no range) and flag.
    """
    table = np.zeros(len(metrics), dtype=dtype)
    for row, metric in zip(table, metrics, strict=True):
        given = ranges.get(metric.name) or ranges.get(_kind(metric.name))
        low, high = given if given and metric.value is not None else (np.nan, np.nan)
        value = np.nan if metric.value is None else metric.value
        row["name"], row["value"], row["unit"] = metric.name, value, metric.unit
        row["comment"], row["low"], row["high"] = metric.comment, low, high
        # What should be there and could not be measured is no good.
        judged = PASS if low <= value <= high else FAIL
        row["flag"] = NO_RANGE if np.isnan(low) else judged
    return table


def _kind(name):
    """Take the row off the name of a metric."""
    return re.sub(r"_\d+$", "", name)


def failures(table):
    """
    List the metrics that are out of range.

    Parameters
    ----------
    table : ndarray, shape (n,)
        QC.

    Returns
    -------
    messages : list of str
        Name, value and range of each.
    """
    return [
        f"{read_text(row['name'])} is {row['value']:.4g}, not {row['low']:g} to {row['high']:g}"
        for row in table
        if read_text(row["flag"]) == FAIL
    ]


def format_metrics(table):
    """
    Align metrics for people.

    Parameters
    ----------
    table : ndarray, shape (n,)
        QC.

    Returns
    -------
    lines : list of str
        A head, and one line a metric.
    """
    columns = ("name", "value", "unit", "low", "high", "flag", "comment")
    shown = Table({column: table[column] for column in columns})
    for column in ("value", "low", "high"):
        shown[column].format = ".4g"
    for column in ("name", "unit", "flag", "comment"):
        shown[column] = [read_text(value) for value in table[column]]
        shown[column].format = "<"
    return shown.pformat(max_lines=-1, max_width=-1)


def read_text(value):
    """
    Read a text of a table, in memory or from a file.

    Parameters
    ----------
    value : bytes or str
        The text.

    Returns
    -------
    text : str
        The same.
    """
    return value.decode() if isinstance(value, bytes) else str(value)
