"""The subcommand ``soss-background query``."""

import argparse
import functools
from pathlib import Path

from soss_background.cli.console import WIDTH, print_table
from soss_background.cli.options import add_login, add_output, import_extra
from soss_background.io.dates import parse_date


def add_parser(commands):
    """Add the subcommand that finds exposures."""
    parser = commands.add_parser(
        "query",
        help="find exposures in MAST",
        description="Find SOSS exposures of the full detector in MAST, or in an index of files, "
        "and write a table of them.",
    )
    programs = parser.add_mutually_exclusive_group()
    programs.add_argument(
        "--programs",
        type=int,
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="NUMBER",
        help="programs (default: those that observed blank sky, 1541, 4479 and 6658)",
    )
    programs.add_argument(
        "--all",
        action="store_const",
        const=None,
        default=argparse.SUPPRESS,
        dest="programs",
        help="exposures of any program",
    )
    parser.add_argument("--after", type=_date, metavar="DATE", help="earliest DATE-BEG, UTC")
    parser.add_argument(
        "--before", type=_date, metavar="DATE", help="end of DATE-BEG, UTC, not included"
    )
    parser.add_argument(
        "--product", choices=["rateints", "rate"], default="rateints",
        help="kind of file (default: %(default)s)",
    )  # fmt: skip
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--index", type=Path, metavar="FILE", help="search this table (CSV, ECSV) instead of MAST"
    )
    add_login(place)
    add_output(parser, "table to write", "exposures.ecsv")
    parser.set_defaults(run=run)


def _date(text):
    """Convert a string to a date."""
    try:
        return parse_date(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text} is not a date, such as 2024-01-31") from err


def run(options):
    """Find exposures; print a summary and write the table."""
    from soss_background.associations.tables import query_index
    from soss_background.errors import count
    from soss_background.io.files import save_whole

    names = ("programs", "after", "before")
    criteria = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if options.index:
        table = query_index(options.index, options.product, **criteria)
    else:
        archive = import_extra("associations.archive", "archive")
        table = archive.query_archive(options.product, login=options.login, **criteria)
    save_whole(functools.partial(table.write, format="ascii.ecsv"), options.output)
    print_table(_summarize(table), WIDTH)
    size = f" of {sum(table['SIZE']) / 1e9:.1f} GB" if "SIZE" in table.colnames else ""
    print(f"{count(len(table), 'file')}{size}, see {options.output}")


def _summarize(table):
    """Count the exposures of each observation."""
    from astropy.table import Table

    columns = {"PROGRAM": "program", "TARGPROP": "target", "OBSERVTN": "observation", "SET": "set"}
    keys = [column for column in columns if column in table.colnames]
    return Table(
        rows=[
            [*group[keys][0], len(group), *_days(group["DATE-BEG"])]
            for group in table.group_by(keys).groups
        ],
        names=[*(columns[key] for key in keys), "n", "first", "last"],
    )


def _days(dates):
    """Return the days of the first and the last date."""
    return min(dates)[:10], max(dates)[:10]
