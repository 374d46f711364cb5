"""Options that several subcommands share, and the types of their values."""

import argparse
import math
from importlib import import_module
from pathlib import Path

__all__ = [
    "add_login",
    "add_output",
    "add_output_dir",
    "add_skyflats",
    "add_verbose",
    "file_type",
    "finite_number",
    "given",
    "import_extra",
    "name_options",
    "positive_integer",
]


def add_output_dir(parser, what):
    """Add the option for the output folder."""
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), metavar="DIR",
        help=f"folder of the {what} (default: the current folder)",
    )  # fmt: skip


def add_output(parser, what, default):
    """Add the option for the output file, whose extension must be that of the default."""
    parser.add_argument(
        "-o", "--output", type=file_type(Path(default).suffix), default=Path(default),
        metavar="FILE", help=f"{what} (default: %(default)s)",
    )  # fmt: skip


def add_verbose(parser):
    """Add the option that prints all columns of a table."""
    parser.add_argument(
        "-v", "--verbose", action="store_true",
        help="print all columns of the table, however wide (default: those that fit 80 characters)",
    )  # fmt: skip


def add_skyflats(parser, what="skyflats"):
    """Add the argument for the skyflats."""
    parser.add_argument("skyflats", nargs="+", metavar="SKYFLAT", help=what)


def add_login(parser):
    """Add the option to log in to MAST."""
    parser.add_argument(
        "--login",
        action="store_true",
        help="log in to MAST; the token comes from MAST_API_TOKEN, the keyring or the terminal",
    )


def file_type(*extensions):
    """Return the type of an option whose value is a file name with one of the extensions."""

    def read(text):
        if not text.endswith(extensions):
            raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(extensions)}")
        return Path(text)

    return read


def finite_number(text):
    """Convert a string to a finite number."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def positive_integer(text):
    """Convert a string to a positive integer."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def given(options, *names):
    """Return the options that are given; the defaults of a function apply to the others."""
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def name_options(names):
    """Return the options of parameters as users write them, such as ``--gap-days``."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def import_extra(module, extra):
    """Import a module of the package that needs an extra; raise LookupError without it."""
    try:
        return import_module(f"soss_background.{module}")
    except ImportError as err:
        raise LookupError(f'{err}: pip install "soss_background[{extra}]"') from err
