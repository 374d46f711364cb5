"""What the subcommands of the console script share."""

import argparse
from pathlib import Path

__all__ = ["check_no_input", "file_type", "print_table", "round_table"]


def check_no_input(output, inputs, what="the inputs"):
    """
    Make sure that nothing is written over what it is made of.

    Parameters
    ----------
    output : `~pathlib.Path`
        What will be written.
    inputs : sequence of str or `~pathlib.Path`
        What it is made of.
    what : str, optional
        What these are.

    Raises
    ------
    ValueError
        If it is one of them.
    """
    if output.resolve() in [Path(path).resolve() for path in inputs]:
        raise ValueError(f"{output} is one of {what}")


def file_type(extension):
    """
    Make what reads the name of a file with an extension.

    Parameters
    ----------
    extension : str
        What the name ends with.

    Returns
    -------
    read : callable
        The ``type`` of an argument of `argparse`.
    """

    def read(text):
        if not text.endswith(extension):
            raise argparse.ArgumentTypeError(f"{text} does not end in {extension}")
        return Path(text)

    return read


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
    Copy a table for people, who need few digits.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The table.
    digits : int, optional
        How many they need.

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
