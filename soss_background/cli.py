"""The console script ``soss-background``."""

import argparse
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from soss_background import __version__
from soss_background.detector import SUBARRAYS
from soss_background.simulate import Simulation, simulate_time_series, simulate_visit
from soss_background.simulate.comparison import compare_with_truth, draw_comparison, format_table

__all__ = ["main"]

# Exit status of programs that are interrupted.
_INTERRUPTED = 130


def main(arguments=None):
    """
    Run a subcommand.

    Parameters
    ----------
    arguments : list of str, optional
        Command line arguments, by default those of the process.

    Returns
    -------
    int
        Exit status.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    options = parser.parse_args(arguments[:end])
    options.arguments = arguments[end + 1 :]
    if options.arguments and options.run is not _batch:
        parser.error(f"unrecognized arguments: {' '.join(options.arguments)}")
    try:
        return options.run(options) or 0
    except (LookupError, OSError, ValueError) as err:
        print(f"soss-background: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser():
    """Describe the subcommands and their options."""
    parser = argparse.ArgumentParser(
        prog="soss-background", description="Empirical sky models for JWST NIRISS SOSS exposures."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_compare(commands)
    _add_batch(commands)
    return parser


def _add_simulate(commands):
    """Add the subcommand that simulates exposures."""
    parser = commands.add_parser(
        "simulate",
        help="simulate dithered exposures with known truth",
        description="Write simulated _rateints exposures of blank sky, their association, a flat "
        "and the truth.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="folder to write to")
    for option, kind, meaning in _SIMULATION_OPTIONS:
        default = getattr(Simulation, option.replace("-", "_"))
        parser.add_argument(f"--{option}", type=kind, help=meaning, default=default)
    parser.add_argument("--subarray", default="FULL", help="pixels read out", choices=SUBARRAYS)
    parser.add_argument(
        "--time-series", action="store_true", help="one exposure of a transit instead of a visit"
    )
    parser.set_defaults(run=_simulate)


# Settings of `soss_background.simulate.Simulation` that can be given on the command line.
_SIMULATION_OPTIONS = [
    ("seed", int, "seed of everything random"),
    ("n-exposures", int, "number of dithered exposures"),
    ("n-integrations", int, "integrations an exposure"),
    ("exposure-time", float, "time of an exposure [s]"),
    ("sky-level", float, "level of the sky relative to that of commissioning"),
    ("step-contrast", float, "light right of the step relative to that of commissioning"),
    ("star-density", float, "0 none, 1 moderate, 3 crowded"),
    ("stripes", float, "rms of the 1/f stripes of an integration [DN/s]"),
    ("pwcpos", float, "pupil wheel position [deg]"),
]


def _simulate(options):
    """Simulate a visit or a time series."""
    names = [option.replace("-", "_") for option, *_ in _SIMULATION_OPTIONS]
    settings = {name: getattr(options, name) for name in names}
    simulation = Simulation(window=SUBARRAYS[options.subarray], **settings)
    simulate = simulate_time_series if options.time_series else simulate_visit
    print(simulate(options.directory, simulation))


def _add_compare(commands):
    """Add the subcommand that compares a skyflat with the truth."""
    parser = commands.add_parser(
        "compare",
        help="compare a skyflat with the truth of its simulation",
        description="Print how well a skyflat agrees with the truth of its simulation, and draw a "
        "page that shows it.",
    )
    parser.add_argument("skyflat", type=Path, help="skyflat, with the exposures in it")
    parser.add_argument("truth", type=Path, help="truth.fits of the simulation")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write, PNG")
    parser.set_defaults(run=_compare)


def _compare(options):
    """Print the agreement of a skyflat with the truth and draw it."""
    comparison = compare_with_truth(options.skyflat, options.truth)
    print(format_table(comparison))
    draw_comparison(comparison).savefig(options.output, dpi=80)
    print(f"Picture: {options.output}")


def _add_batch(commands):
    """Add the subcommand that makes the skyflats of many associations."""
    parser = commands.add_parser(
        "batch",
        help="make the skyflats of many associations on a Dask cluster",
        description="Make the skyflats of many associations, several at a time. What fails does "
        "not stop the others; what is finished is not made again.",
        epilog="Arguments after -- are for the pipeline, as strun takes them.",
    )
    parser.add_argument("associations", type=Path, nargs="+", help="association files")
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), help="folder of the products"
    )
    cluster = parser.add_mutually_exclusive_group()
    cluster.add_argument("--workers", type=_positive, help="visits at a time on this machine")
    cluster.add_argument("--scheduler", metavar="ADDRESS", help="a cluster that runs, or its file")
    parser.add_argument("--overwrite", action="store_true", help="make finished products again")
    parser.set_defaults(run=_batch)


def _positive(text):
    """Read a positive integer."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _batch(options):
    """Make the skyflats of many associations; print and write a table of them."""
    try:
        from soss_background import batch  # what it needs is an extra
    except ImportError as err:
        raise LookupError(f'{err}: pip install "soss_background[batch]"') from err
    folder = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise OSError(f"{folder}: cannot be written to")
    # A job that is ended by a user or by a queue tells what it has done.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = {"overwrite": options.overwrite, "stop": stop}
    with batch.open_client(options.scheduler, options.workers) as client:
        table = batch.run_batch(client, options.associations, folder, options.arguments, **settings)
        print(*table.pformat(max_lines=-1, max_width=-1), sep="\n")
        table.write(folder / "batch.ecsv", overwrite=True)
    counts = Counter(table["status"])
    summary = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(f"{summary}; see {folder / 'batch.ecsv'}")
    if counts["not done"]:
        return _INTERRUPTED
    return 1 if counts["failed"] else 0
