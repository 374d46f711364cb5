"""Printed output of subcommands."""

__all__ = ["print_table", "round_table"]


def print_table(table):
    """Print all rows and columns of a table."""
    print(*table.pformat(max_lines=-1, max_width=-1), sep="\n")


def round_table(table, digits=4):
    """Return a copy of a table that shows its floats with few significant digits."""
    shown = table.copy()
    for column in shown.itercols():
        if column.dtype.kind == "f":
            column.format = f".{digits}g"
    return shown
