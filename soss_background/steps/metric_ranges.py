"""Quality metrics: their definitions, their acceptable ranges, and the QC table."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from astropy.table import Table

from soss_background.datamodels.quality_table import (
    FAIL,
    NO_RANGE,
    PASS,
    format_number,
    list_failures,
    read_text,
)
from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault

__all__ = ["Metric", "read_ranges"]

log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """
    Definition of a metric.

    Attributes
    ----------
    unit : str
        Unit; "fraction" for fractions, empty for counts and ratios.
    limits : tuple of float or None
        Default lowest and highest acceptable value, both inclusive; None for no range.
    comment : str
        Description of the measured quantity.
    """

    unit: str
    limits: tuple[float, float] | None
    comment: str


def read_ranges(path, metrics):
    """
    Read the acceptable ranges of metrics, as a dict of (low, high), or None for no range.

    Parameters
    ----------
    path : str, `~pathlib.Path` or None
        YAML file that maps names to ``[low, high]`` or null, or ECSV table with the columns name,
        low and high (NaN for no range); None for the defaults.
    metrics : dict of Metric
        Definitions by name, without the row number that may end a measured name, as in
        ``step_column_256``.

    Returns
    -------
    ranges : dict of tuple of float, or None
        Lowest and highest acceptable value by name.
    """
    ranges = {name: metric.limits for name, metric in metrics.items()}
    if path is None:
        return ranges
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".ecsv": _read_ecsv}
    reader = readers.get(Path(path).suffix)
    if reader is None:
        raise SkyflatError(f"{path}: ranges must be in a .yaml, .yml or .ecsv file")
    with explain_fault(path):
        given = reader(path)
    for name, limits in given.items():
        if _definition(name, metrics) is None:
            raise SkyflatError(f"{path}: there is no metric {name}")
        ranges[name] = None if limits is None else _check_limits(path, name, limits)
    return ranges


def _read_yaml(path):
    """Read a mapping of names to limits."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as err:
        raise ValueError(" ".join(str(err).split())) from err
    if not isinstance(given, dict):
        raise TypeError("not a mapping of metrics to [low, high]")
    return given


def _read_ecsv(path):
    """Read a table with the columns name, low and high."""
    table = Table.read(path, format="ascii.ecsv")
    names = [str(name) for name in table["name"]]
    if len(set(names)) < len(names):
        raise ValueError("a metric is listed twice")
    ends = (np.ma.filled(np.ma.asarray(table[end], float), np.nan) for end in ("low", "high"))
    ranges = {}
    for name, low, high in zip(names, *ends, strict=True):
        ranges[name] = None if np.isnan(low) and np.isnan(high) else (low, high)
    return ranges


def _check_limits(path, name, limits):
    """Return the limits as two numbers in order."""
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        raise SkyflatError(f"{path}: {name}: {limits} is not [low, high] or null") from None
    if not low <= high:
        raise SkyflatError(f"{path}: {name}: {low:g} to {high:g} ends before it begins")
    return low, high


def _definition(name, by_name):
    """Return the entry of a metric, by its own name or by its name without the row number."""
    return by_name[name] if name in by_name else by_name.get(strip_row(name))


def strip_row(name):
    """Return the name of a metric without the row number that may end it."""
    return re.sub(r"_\d+$", "", str(name))


def flag_metrics(values, metrics, ranges, dtype):
    """Return QC with flags; ``values`` holds NaN for failed measurements, None if there is none."""
    table = np.zeros(len(values), dtype=dtype)
    for row, (name, value) in zip(table, values.items(), strict=True):
        metric, limits = _definition(name, metrics), _definition(name, ranges)
        row["name"], row["unit"], row["comment"] = name, metric.unit, metric.comment
        row["value"] = np.nan if value is None else value
        row["low"] = row["high"] = np.nan
        row["flag"] = NO_RANGE
        if limits is not None and value is not None:
            row["low"], row["high"] = limits
            # NaN fails.
            row["flag"] = PASS if limits[0] <= value <= limits[1] else FAIL
    return table


def log_metrics(table, name, *, fail):
    """Log QC and warn of metrics out of range; if ``fail``, raise SkyflatError instead."""
    for line in format_metrics(table):
        log.info("%s", line)
    faults = [f"{name}: {fault}" for fault in list_failures(table)]
    if faults and fail:
        raise SkyflatError("; ".join(faults))
    for fault in faults:
        log.warning("%s", fault)


def format_metrics(table):
    """Return QC as aligned lines: a header, and one line per metric."""
    columns = ("name", "value", "unit", "low", "high", "flag", "comment")
    shown = Table({column: table[column] for column in columns})
    shown["value"].format = format_number
    for column in ("low", "high"):
        shown[column].format = _format_limit
    for column in ("name", "unit", "flag", "comment"):
        shown[column] = [read_text(value) for value in table[column]]
    align = [">" if column in ("value", "low", "high") else "<" for column in columns]
    return [line.rstrip() for line in shown.pformat(max_lines=-1, max_width=-1, align=align)]


def _format_limit(value):
    """Return a limit as a string, a dash if there is none."""
    return "-" if np.isnan(value) else format_number(value)
