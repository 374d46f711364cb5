"""Which numbers are good: metrics beside their acceptable ranges."""

import logging
import re
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from soss_background.errors import SkyflatError

__all__ = [
    "FAIL",
    "NO_RANGE",
    "PASS",
    "collect_ranges",
    "failures",
    "flag_metrics",
    "format_metrics",
    "format_number",
    "judge_metrics",
    "read_text",
    "tell_of_failures",
]

log = logging.getLogger(__name__)

PASS, FAIL, NO_RANGE = "pass", "fail", "no range"

# What the parameters of a step that are ranges end with.
_RANGE = "_range"


def flag_metrics(metrics, ranges, dtype):
    """
    Put metrics beside their ranges.

    Parameters
    ----------
    metrics : list of `~soss_background.steps.qc.Metric`
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


def judge_metrics(step, metrics, dtype):
    """
    Put metrics beside the ranges that a step has.

    Parameters
    ----------
    step : `~stpipe.Step`
        The step, whose parameters that end with ``_range`` are the ranges.
    metrics : list of `~soss_background.steps.qc.Metric`
        The numbers.
    dtype : dtype
        Columns of QC.

    Returns
    -------
    table : ndarray, shape (n,)
        QC, see `flag_metrics`.

    Raises
    ------
    SkyflatError
        If a range ends before it begins.
    """
    table = flag_metrics(metrics, collect_ranges(step.get_pars()), dtype)
    for line in format_metrics(table):
        log.info("%s", line)
    return table


def tell_of_failures(step, table, name):
    """
    Tell of the metrics that are out of range.

    Parameters
    ----------
    step : `~stpipe.Step`
        The step, whose ``fail_on_qc`` tells whether they are an error.
    table : ndarray, shape (n,)
        QC.
    name : str
        What was measured.

    Raises
    ------
    SkyflatError
        If there are any, and ``fail_on_qc`` is set.
    """
    faults = [f"{name}: {fault}" for fault in failures(table)]
    if faults and step.fail_on_qc:
        raise SkyflatError("; ".join(faults))
    for fault in faults:
        log.warning("%s", fault)


def collect_ranges(parameters):
    """
    Collect the acceptable ranges of metrics.

    Parameters
    ----------
    parameters : dict
        Parameters of a step.

    Returns
    -------
    ranges : dict of list of float, or None
        Lowest and highest value by the name of the metric.

    Raises
    ------
    SkyflatError
        If a range ends before it begins.
    """
    given = {key: parameters[key] for key in parameters if key.endswith(_RANGE)}
    for key, limits in given.items():
        if limits and not limits[0] <= limits[1]:
            raise SkyflatError(f"{key}={limits[0]:g},{limits[1]:g} ends before it begins")
    return {key.removesuffix(_RANGE): limits for key, limits in given.items()}


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
        f"{read_text(row['name'])} is {format_number(row['value'])}, "
        f"not {row['low']:g} to {row['high']:g}"
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
        shown[column].format = format_number
    for column in ("name", "unit", "flag", "comment"):
        shown[column] = [read_text(value) for value in table[column]]
        shown[column].format = "<"
    return shown.pformat(max_lines=-1, max_width=-1)


def format_number(value):
    """
    Write a number as briefly as it can be read.

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    text : str
        Four digits; all of a whole number of less than ten digits, such as a count; dashes for
        what is masked.
    """
    if np.ma.is_masked(value):
        return str(value)
    whole = np.isfinite(value) and value == round(value) and abs(value) < 1e9
    return f"{value:.0f}" if whole else f"{value:.4g}"


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


class Metric(NamedTuple):
    """
    A number that tells how good a skyflat is.

    Attributes
    ----------
    name : str
        What it is called.
    value : float or None
        The number; NaN if it could not be measured, None if there is nothing to measure.
    unit : str
        Its unit, empty for numbers and ratios.
    comment : str
        What it means.
    """

    name: str
    value: float | None
    unit: str
    comment: str
