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
    export,
    fluxcal,
    model,
    query,
    reference,
    report,
    simulate,
)
from soss_background.io.signals import StoppedError, stop_in_one_line

__all__ = ["main"]

# In the order of the help text.
_COMMANDS = (
    simulate, compare, query, download, asn, batch, model, reference, export, report,
    characterize, fluxcal,
)  # fmt: skip


def main(arguments=None):
    """Run a subcommand, by default that of the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _create_parser()
    options, unknown = parser.parse_known_args(arguments[:end])
    options.arguments, hint = arguments[end + 1 :], ""
    if options.run is batch.run:
        hint = " (parameters of the pipeline follow two dashes: -- --steps...)"
    else:
        unknown += options.arguments
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    try:
        with stop_in_one_line(_report):
            return _run(options) or 0
    except (LookupError, OSError, ValueError) as err:
        _report(err)
        return 1
    except StoppedError as stopped:
        return stopped.code


def _report(line):
    """Print a line about the end of the program."""
    print(f"soss-background: {line}", file=sys.stderr)


def _run(options):
    """Run a subcommand unless its output is among the files that it reads."""
    from soss_background.io.files import check_folder, check_output, note_inputs, protect_inputs

    given = dict(vars(options))
    outputs = [given.pop(name, None) for name in ("output", "plot")]
    with protect_inputs():
        note_inputs(list(given.values()))
        for path in filter(None, outputs):
            check_output(path)
        if folder := given.get("output_dir"):
            check_folder(folder)
        return options.run(options)


def _create_parser():
    """Return the parser of the subcommands and their options."""
    parser = argparse.ArgumentParser(
        prog="soss-background", description="Empirical sky models for JWST NIRISS SOSS exposures."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
