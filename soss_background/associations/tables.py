"""Tables of exposures: results of queries, indices of files."""

from pathlib import Path

import numpy as np
from astropy.table import Table, unique

from soss_background.detector import FULL
from soss_background.errors import SkyflatError, one_line
from soss_background.io.dates import parse_date
from soss_background.io.files import require_file

__all__ = ["BLANK_SKY_PROGRAMS", "query_index", "read_table", "select_exposures"]

# Calibration programs that observed blank sky.
BLANK_SKY_PROGRAMS = (1541, 4479, 6658)

# Categories of programs other than science: calibration, commissioning, engineering.
_NO_SCIENCE = ("CAL", "COM", "ENG")

_FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}

# Keywords of SOSS exposures of the full detector.
_FULL_SOSS = {"SUBARRAY": FULL.name, "FILTER": "CLEAR", "PUPIL": "GR700XD"}

# Number of digits in headers.
_DIGITS = {"PROGRAM": 5, "OBSERVTN": 3}

# Columns that are converted to strings.
_STRINGS = (*_DIGITS, *_FULL_SOSS, "FILENAME", "FILEPATH", "TARGPROP", "DATE-BEG", "CATEGORY")


def read_table(path):
    """Read a CSV or ECSV table of exposures; FILEPATH becomes the complete path of each file."""
    require_file(path)
    try:
        # Spreadsheets start the file with a byte order mark.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        table = Table.read(
            lines, format=_FORMATS[path.suffix.lower()], converters={"TARGPROP": str}
        )
    except Exception as err:  # astropy raises many kinds
        raise SkyflatError(f"{path}: cannot be read as a table ({one_line(err)})") from err
    require_columns(table, ["FILENAME"], path)
    clean_columns(table)
    folder = path.absolute().parent
    places = table["FILEPATH"] if "FILEPATH" in table.colnames else [""] * len(table)
    table["FILEPATH"] = [
        str(_place(folder / place, name))
        for place, name in zip(places, table["FILENAME"], strict=True)
    ]
    return table


def clean_columns(table):
    """Convert columns to strings in place; missing values become empty strings."""
    for column in set(_STRINGS) & set(table.colnames):
        strings = ["" if value is np.ma.masked else str(value).strip() for value in table[column]]
        if column in _DIGITS:
            strings = [_pad(column, string) for string in strings]
        table[column] = np.array(strings, dtype=str)


def require_columns(table, columns, name):
    """Raise SkyflatError with the name of the table if it lacks a column."""
    for column in columns:
        if column not in table.colnames:
            raise SkyflatError(f"{name}: column {column} is missing")


def expand_tables(paths):
    """List files; replace tables of exposures (CSV, ECSV) by the files that they list."""
    files = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        is_table = path.suffix.lower() in _FORMATS
        files += map(Path, read_table(path)["FILEPATH"]) if is_table else [path]
    return files


def query_index(path, product="rateints", **criteria):
    """Return the rows of a table file that `select_exposures` selects, in order of time."""
    table = read_table(path)
    require_columns(table, ["PROGRAM", "SUBARRAY", "FILTER", "DATE-BEG"], path)
    of_kind = [name.endswith(f"_{product}.fits") for name in table["FILENAME"]]
    found = select_exposures(unique(table[of_kind], "FILEPATH", keep="first"), **criteria)
    if not len(found):
        raise SkyflatError(
            f"{path}: none of its {len(table)} files is a _{product} file that fits, in FULL and "
            "CLEAR"
        )
    found.sort(["DATE-BEG", "FILENAME"])
    return found


def select_exposures(table, programs=BLANK_SKY_PROGRAMS, after=None, before=None):
    """
    Select exposures of SOSS with the full detector.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The exposures, as `read_table` reads them. CATEGORY and PUPIL may be missing.
    programs : iterable of int, optional
        Numbers of the programs, None for all.
    after, before : `datetime.datetime`, optional
        Earliest DATE-BEG, and the date before which it must be, UTC.

    Returns
    -------
    table : `~astropy.table.Table`
        The selected rows. The column SET is their use: calibration (programs that observed blank
        sky), validation (others that are not science), science, or unknown if the category of the
        program is unknown.
    """
    keep = np.ones(len(table), dtype=bool)
    for column, value in _FULL_SOSS.items():
        if column in table.colnames:
            keep &= table[column] == value
    if programs is not None:
        keep &= np.isin(table["PROGRAM"], [_pad("PROGRAM", number) for number in programs])
    if after or before:
        begins = [_begins_between(after, before, text) for text in table["DATE-BEG"]]
        keep &= np.array(begins, dtype=bool)
    table = table[keep]
    categories = table["CATEGORY"] if "CATEGORY" in table.colnames else [""] * len(table)
    purposes = [_purpose(*kind) for kind in zip(table["PROGRAM"], categories, strict=True)]
    table["SET"] = np.array(purposes, dtype=str)
    return table


def _begins_between(after, before, text):
    """Return whether a date is in an interval; a missing date is not."""
    try:
        date = parse_date(text)
    except ValueError:
        return False
    return (not after or date >= after) and (not before or date < before)


def _place(path, name):
    """Return the path of a file from FILEPATH, which may or may not include its name."""
    return path if path.name == name else path / name


def _pad(column, number):
    """Pad a number as headers do; return other values unchanged."""
    try:
        return f"{int(float(number)):0{_DIGITS[column]}d}"
    except (OverflowError, ValueError):
        return number


def _purpose(program, category):
    """Return the use of an exposure."""
    if program in {_pad("PROGRAM", number) for number in BLANK_SKY_PROGRAMS}:
        return "calibration"
    if not category:
        return "unknown"
    return "validation" if category in _NO_SCIENCE else "science"
