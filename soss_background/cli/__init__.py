"""The console script ``soss-background``: a module for each subcommand.

The modules describe their options with `argparse` alone and import other modules in ``run``, so
that help texts and usage errors are fast.
"""

import argparse
import sys

from soss_background import __version__
from soss_background.cli import (
    asn,
    batch,
    characterize,
    compare,
    download,
    fluxcal,
    query,
    reference,
    report,
    simulate,
)

__all__ = ["main"]

# In the order of the help text.
_COMMANDS = (
    simulate, compare, query, download, asn, batch, reference, report, characterize, fluxcal,
)  # fmt: skip


def main(arguments=None):
    """Run a subcommand, by default that of the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _create_parser()
    options = parser.parse_args(arguments[:end])
    options.arguments = arguments[end + 1 :]
    if options.arguments and options.run is not batch.run:
        parser.error(f"unrecognized arguments: {' '.join(options.arguments)}")
    try:
        return options.run(options) or 0
    except (LookupError, OSError, ValueError) as err:
        print(f"soss-background: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return batch.INTERRUPTED


def _create_parser():
    """Return the parser of the subcommands and their options."""
    parser = argparse.ArgumentParser(
        prog="soss-background", description="Empirical sky models for JWST NIRISS SOSS exposures."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
