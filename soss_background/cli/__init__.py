"""The console script ``soss-background``."""

import argparse
import functools
import importlib
import shutil
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
from astropy.table import Table

from soss_background import __version__
from soss_background.associations import make_associations, make_background_associations
from soss_background.associations.tables import BLANK_SKY_PROGRAMS, query_index, read_table
from soss_background.cli.console import check_no_input, file_type, print_table, round_table
from soss_background.cli.fluxcal import add_fluxcal
from soss_background.detector import SUBARRAYS
from soss_background.io.dates import parse_date
from soss_background.io.files import check_folder, save_whole
from soss_background.io.skyflats import find_files
from soss_background.reference import make_reference, write_reference
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
    _add_query(commands)
    _add_download(commands)
    _add_asn(commands)
    _add_batch(commands)
    _add_reference(commands)
    _add_report(commands)
    _add_characterize(commands)
    add_fluxcal(commands)
    return parser


def _add_output_dir(parser, what):
    """Add the option that names the folder of what is written."""
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), help=f"folder of the {what}"
    )


def _import_extra(module, extra):
    """Import a module that needs more than the package does."""
    try:
        return importlib.import_module(f"soss_background.{module}")
    except ImportError as err:
        raise LookupError(f'{err}: pip install "soss_background[{extra}]"') from err


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


def _add_query(commands):
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
        default=BLANK_SKY_PROGRAMS,
        metavar="NUMBER",
        help="programs (default: those that observed blank sky, 1541, 4479 and 6658)",
    )
    programs.add_argument(
        "--all", action="store_const", const=None, dest="programs", help="exposures of any program"
    )
    parser.add_argument("--after", type=_date, metavar="DATE", help="first DATE-BEG, UTC")
    parser.add_argument(
        "--before", type=_date, metavar="DATE", help="first DATE-BEG that is too late, UTC"
    )
    parser.add_argument(
        "--product", choices=["rateints", "rate"], default="rateints", help="kind of file"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--index", type=Path, metavar="FILE", help="look into this table (CSV, ECSV), not into MAST"
    )
    _add_login(place)
    parser.add_argument(
        "-o",
        "--output",
        type=file_type(".ecsv"),
        default=Path("exposures.ecsv"),
        help="table to write (default: %(default)s)",
    )
    parser.set_defaults(run=_query)


def _date(text):
    """Read a date."""
    try:
        return parse_date(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text} is no date, such as 2024-01-31") from err


def _add_login(parser):
    """Add the option to log in."""
    parser.add_argument(
        "--login",
        action="store_true",
        help="log in to MAST; the token comes from MAST_API_TOKEN, the keyring or the terminal",
    )


def _query(options):
    """Find exposures; print what there is and write the table."""
    options.output.parent.mkdir(parents=True, exist_ok=True)
    criteria = {name: getattr(options, name) for name in ("programs", "after", "before")}
    if options.index:
        table = query_index(options.index, options.product, **criteria)
    else:
        archive = _import_extra("associations.archive", "archive")
        table = archive.query_archive(options.product, login=options.login, **criteria)
    save_whole(functools.partial(table.write, format="ascii.ecsv"), options.output)
    print_table(_summarize(table))
    size = f" of {np.sum(table['SIZE']) / 1e9:.1f} GB" if "SIZE" in table.colnames else ""
    print(f"{len(table)} files{size}, see {options.output}")


def _summarize(table):
    """Count the exposures of each observation."""
    columns = {"PROGRAM": "program", "TARGPROP": "target", "OBSERVTN": "observation", "SET": "set"}
    keys = [column for column in columns if column in table.colnames]
    return Table(
        rows=[
            [*group[keys][0], len(group), min(group["DATE-BEG"]), max(group["DATE-BEG"])]
            for group in table.group_by(keys).groups
        ],
        names=[*(columns[key] for key in keys), "n", "first", "last"],
    )


def _add_download(commands):
    """Add the subcommand that downloads exposures."""
    parser = commands.add_parser(
        "download",
        help="download exposures from MAST",
        description="Download the exposures that query has found. What is there is not fetched "
        "again; what was broken off goes on where it was.",
    )
    parser.add_argument("table", type=Path, help="table of exposures, as query writes it")
    _add_output_dir(parser, "exposures")
    _add_login(parser)
    parser.set_defaults(run=_download)


def _download(options):
    """Download exposures; put the table beside them."""
    archive = _import_extra("associations.archive", "archive")
    results = archive.download_exposures(
        read_table(options.table), options.output_dir, login=options.login
    )
    beside = options.output_dir / options.table.name
    if beside.resolve() != options.table.resolve():
        save_whole(functools.partial(shutil.copyfile, options.table), beside)
    failed = results[results["STATUS"] == "failed"]
    for name, message in failed.iterrows("FILENAME", "MESSAGE"):
        print(f"{name}: {message}", file=sys.stderr)
    counts = Counter(results["STATUS"])
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    if len(failed):
        return 1
    print(f"Next: soss-background asn {beside}")
    return 0


def _add_asn(commands):
    """Add the subcommand that writes associations."""
    parser = commands.add_parser(
        "asn",
        help="write associations of exposures that belong together",
        description="Write an association for each group of SOSS exposures of the full detector "
        "that make a skyflat together: of one program, target and observation, without a gap. "
        "Only headers are read.",
    )
    parser.add_argument(
        "files", nargs="+", help="exposures, _rate or _rateints, or tables of them (CSV, ECSV)"
    )
    _add_output_dir(parser, "associations")
    parser.add_argument(
        "--gap-days",
        type=float,
        metavar="DAYS",
        help="longest time from the start of an exposure to that of the next (default: 1)",
    )
    parser.add_argument(
        "--by-pwcpos",
        type=float,
        metavar="TOL",
        help="part exposures whose pupil wheel positions differ by more than this [deg]",
    )
    parser.add_argument(
        "--product-name",
        metavar="NAME",
        help="name of the skyflat, with a number if there are several (default: the pipeline's)",
    )
    parser.add_argument(
        "--background",
        nargs="+",
        metavar="FILE",
        help="write a level-2 association for each of the exposures instead, with these exposures "
        "of blank sky as its background",
    )
    parser.set_defaults(run=_asn)


def _asn(options):
    """Write associations; print a table of them."""
    settings = _given(options, ("gap_days", "by_pwcpos", "product_name"))
    if options.background and settings:
        raise ValueError(f"--background groups nothing, and takes no {', '.join(settings)}")
    if options.background:
        table = make_background_associations(options.files, options.background, options.output_dir)
    else:
        table = make_associations(options.files, options.output_dir, **settings)
    print_table(table)


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
    _add_output_dir(parser, "products")
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
    batch = _import_extra("batch", "batch")
    folder = options.output_dir
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A job that is ended by a user or by a queue tells what it has done.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = {"overwrite": options.overwrite, "stop": stop}
    with batch.open_client(options.scheduler, options.workers) as client:
        table = batch.run_batch(client, options.associations, folder, options.arguments, **settings)
        print_table(table)
        table.write(folder / "batch.ecsv", overwrite=True)
    counts = Counter(table["status"])
    summary = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(f"{summary}; see {folder / 'batch.ecsv'}")
    if counts["not done"]:
        return _INTERRUPTED
    return 1 if counts["failed"] else 0


def _add_reference(commands):
    """Add the subcommand that makes a reference file."""
    parser = commands.add_parser(
        "reference",
        help="make the BKG reference file of jwst's bkg_subtract",
        description="Make a library of skyflats that jwst's own bkg_subtract reads. Skies that "
        "are the same are merged, outliers are left out; a table tells how well each sky is fitted "
        "by the best of the others.",
    )
    parser.add_argument("skyflats", nargs="+", metavar="SKYFLAT", help="skyflats")
    parser.add_argument(
        "-o",
        "--output",
        type=file_type(".fits"),
        required=True,
        metavar="FILE",
        help="file to write",
    )
    parser.add_argument(
        "--subarray",
        choices=SUBARRAYS,
        default="SUBSTRIP256",
        help="pixels of the library; jwst takes SUBSTRIP256 for SUBSTRIP96 too, and the others "
        "for nothing else than themselves (default: %(default)s)",
    )
    parser.add_argument(
        "--plane",
        choices=["BKGDN", "BKG"],
        default="BKGDN",
        help="the denoised sky or the plain one (default: %(default)s)",
    )
    parser.add_argument(
        "--flat",
        metavar="FILE",
        help="multiply by this flat (default: that which each skyflat was made with)",
    )
    parser.add_argument(
        "--max-templates",
        type=_positive,
        metavar="N",
        help="take the N skies that together fit all of them best",
    )
    parser.add_argument(
        "--merge-below",
        type=float,
        metavar="PERCENT",
        help="merge skies of which none leaves more of another, rms (default: 0.25)",
    )
    parser.add_argument(
        "--max-residual",
        type=float,
        metavar="PERCENT",
        help="leave out a sky of which all others leave more, rms, and three times as much as is "
        "left of a typical one (default: 5)",
    )
    _add_keywords(parser)
    parser.set_defaults(run=_reference)


def _add_keywords(parser):
    """Add the options that tell what is in the header of a reference file."""
    parser.add_argument(
        "--useafter", metavar="DATE", help="USEAFTER (default: before the first SOSS exposure)"
    )
    parser.add_argument("--author", metavar="NAME", help="AUTHOR (default: that of the skyflats)")
    parser.add_argument(
        "--pedigree",
        metavar="TEXT",
        help="PEDIGREE (default: INFLIGHT with the first and the last day of the exposures)",
    )
    parser.add_argument("--description", metavar="TEXT", help="DESCRIP (default: what it holds)")


# What a reference file is made of, and must not replace.
_INPUTS = "the skyflats, or their flat"


def _reference(options):
    """Make a reference file; print how well its skies fit each other."""
    names = ("flat", "max_templates", "merge_below", "max_residual")
    names += ("useafter", "author", "pedigree", "description")
    settings = _given(options, names)
    skyflats = find_files(options.skyflats)
    check_no_input(options.output, skyflats, _INPUTS)
    reference, table = make_reference(skyflats, options.subarray, plane=options.plane, **settings)
    check_no_input(options.output, table["FLAT"], _INPUTS)
    write_reference(reference, options.output)
    table.remove_columns(["PROGRAM", "TARGPROP", "FLAT"])
    print_table(table)
    print(f"{len(reference.data)} templates of {len(table)} skyflats, see {options.output}")


def _given(options, names):
    """Collect the options that are given."""
    settings = {name: getattr(options, name) for name in names}
    return {name: value for name, value in settings.items() if value is not None}


def _add_report(commands):
    """Add the subcommand that shows skyflats."""
    parser = commands.add_parser(
        "report",
        help="show skyflats, their exposures and their quality on a page",
        description="Write a page that shows a skyflat, its exposures with their masks, its "
        "quality, and how it was made; it needs no other file and no network.",
    )
    parser.add_argument("skyflats", nargs="+", metavar="SKYFLAT", help="skyflats")
    parser.add_argument(
        "-o",
        "--output",
        type=file_type(".html"),
        default=Path("report.html"),
        metavar="FILE",
        help="page to write; several skyflats have a page each beside it (default: %(default)s)",
    )
    parser.set_defaults(run=_report)


def _report(options):
    """Write reports; print how good the skyflats are."""
    report = importlib.import_module("soss_background.report.skyflat")
    skyflats = find_files(options.skyflats)
    verdicts = report.write_reports(skyflats, options.output)
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    print(f"Report: {options.output}")


def _add_characterize(commands):
    """Add the subcommand that tells how the sky changes."""
    parser = commands.add_parser(
        "characterize",
        help="tell how the sky changes from skyflat to skyflat",
        description="Write tables and pictures of how level and step change with pointing, season "
        "and pupil wheel position, of how well skies fit each other, of their principal "
        "components, and of their levels beside the zodiacal light that a model predicts.",
    )
    parser.add_argument("skyflats", nargs="+", metavar="SKYFLAT", help="at least three skyflats")
    _add_output_dir(parser, "tables and pictures")
    parser.set_defaults(run=_characterize)


def _characterize(options):
    """Write tables and pictures; print the small ones."""
    quality = importlib.import_module("soss_background.survey.characterization")
    tables = quality.characterize(find_files(options.skyflats), options.output_dir)
    for name in ("trends", "components", "zodiacal_light"):
        if name in tables:
            print(f"{name}.ecsv")
            print_table(round_table(tables[name]))
    print(f"{len(tables['skies'])} skyflats, see {options.output_dir}")
