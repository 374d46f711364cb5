"""The table of quality metrics of a product."""

import numpy as np

__all__ = [
    "FAIL",
    "FRACTION",
    "NO_RANGE",
    "PASS",
    "format_number",
    "list_failures",
    "read_text",
]

# Flags of metrics.
PASS, FAIL, NO_RANGE = "pass", "fail", "no range"

# Unit of fractions, which reports show in percent.
FRACTION = "fraction"


def list_failures(table):
    """List the metrics that are out of range, with their values and ranges."""
    return [
        f"{read_text(row['name'])} is {format_number(row['value'])}, "
        f"not {row['low']:g} to {row['high']:g}"
        for row in table
        if read_text(row["flag"]) == FAIL
    ]


def format_number(value):
    """Format a number with 4 digits, integers below 1e9 with all; a masked number is dashes."""
    if np.ma.is_masked(value):
        return str(value)
    whole = np.isfinite(value) and value == round(value) and abs(value) < 1e9
    return f"{value:.0f}" if whole else f"{value:.4g}"


def read_text(value):
    """Return a string of a table as str; tables that are read from a file hold bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
