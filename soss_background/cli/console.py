"""Printed output of subcommands."""

__all__ = ["WIDTH", "print_table", "round_table"]

# Characters of a line of a terminal.
WIDTH = 80

# Fewest characters to which a text is shortened.
_SHORTEST = 8


def print_table(table, width=None):
    """Print a table; if its lines exceed ``width``, shorten the widest column of strings."""
    shown = table if width is None else _fit(table, width)
    print(*_format_lines(shown), sep="\n")


def _format_lines(table):
    """Return a table as lines, strings aligned to the left and numbers to the right."""
    align = ["<" if column.dtype.kind in "OSU" else ">" for column in table.itercols()]
    lines = table.pformat(max_lines=-1, max_width=-1, align=align)
    return [line.rstrip() for line in lines]


def _fit(table, width):
    """Return a copy of a table whose widest strings are shortened until its lines fit."""
    shown = table.copy()
    names = [column.name for column in table.itercols() if column.dtype.kind in "OU"]
    while (excess := max(map(len, _format_lines(shown))) - width) > 0:
        # Masked values are no strings.
        lengths = {name: max(map(len, map(str, shown[name])), default=0) for name in names}
        name = max(lengths, key=lengths.get, default=None)
        if name is None or lengths[name] <= _SHORTEST:
            break
        length = max(lengths[name] - excess, _SHORTEST)
        shown[name] = [_shorten(str(value), length) for value in shown[name]]
    return shown


def _shorten(text, length):
    """Return a string that is cut, and ends in three dots, if it is longer than ``length``."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def round_table(table, digits=4):
    """Return a copy of a table that shows its floats with few significant digits."""
    shown = table.copy()
    for column in shown.itercols():
        if column.dtype.kind == "f":
            column.format = f".{digits}g"
    return shown
