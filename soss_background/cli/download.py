"""The subcommand ``soss-background download``."""

import functools
import shutil
import sys
from collections import Counter
from pathlib import Path

from soss_background.cli.options import add_login, add_output_dir, import_extra


def add_parser(commands):
    """Add the subcommand that downloads exposures."""
    parser = commands.add_parser(
        "download",
        help="download exposures from MAST",
        description="Download the exposures that query has found. Complete files are kept; "
        "interrupted downloads are continued.",
    )
    parser.add_argument("table", type=Path, help="table of exposures, as query writes it")
    add_output_dir(parser, "exposures")
    add_login(parser)
    parser.set_defaults(run=run)


def run(options):
    """Download exposures; copy the table to their folder."""
    from soss_background.associations.tables import read_table
    from soss_background.io.files import real_path, save_whole

    archive = import_extra("associations.archive", "archive")
    results = archive.download_exposures(
        read_table(options.table), options.output_dir, login=options.login
    )
    copy = options.output_dir / options.table.name
    if real_path(copy) != real_path(options.table):
        save_whole(functools.partial(shutil.copyfile, options.table), copy)
    failed = results[results["STATUS"] == "failed"]
    for name, message in failed.iterrows("FILENAME", "MESSAGE"):
        print(f"{name}: {message}", file=sys.stderr)
    counts = Counter(results["STATUS"])
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    if len(failed):
        return 1
    print(f"Next: soss-background asn {copy}")
    return 0
