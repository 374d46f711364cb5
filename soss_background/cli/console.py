"""Printed output of subcommands, and a check of their output files."""

__all__ = ["check_no_input", "print_table", "round_table"]


def check_no_input(output, inputs, what="the inputs"):
    """Raise ValueError if an output file would replace one of the inputs."""
    from soss_background.io.files import real_path

    if real_path(output) in map(real_path, inputs):
        raise ValueError(f"{output} is one of {what}")


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
