"""What subcommands print, and a check of what they write."""

from pathlib import Path

__all__ = ["check_no_input", "print_table", "round_table"]


def check_no_input(output, inputs, what="the inputs"):
    """
    Make sure that an output file does not replace an input file.

    Parameters
    ----------
    output : `~pathlib.Path`
        File to write.
    inputs : sequence of str or `~pathlib.Path`
        Files to read.
    what : str, optional
        What the message calls these.

    Raises
    ------
    ValueError
        If the output is one of the inputs.
    """
    if output.resolve() in [Path(path).resolve() for path in inputs]:
        raise ValueError(f"{output} is one of {what}")


def print_table(table):
    """
    Print all rows and columns of a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The table.
    """
    print(*table.pformat(max_lines=-1, max_width=-1), sep="\n")


def round_table(table, digits=4):
    """
    Copy a table and round its floats for display.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The table.
    digits : int, optional
        Number of significant digits.

    Returns
    -------
    shown : `~astropy.table.Table`
        The copy.
    """
    shown = table.copy()
    for column in shown.itercols():
        if column.dtype.kind == "f":
            column.format = f".{digits}g"
    return shown
