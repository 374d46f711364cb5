"""The subcommands ``soss-background fluxcal``."""

import argparse
import functools
import importlib
from pathlib import Path

from soss_background.cli.console import check_no_input, file_type, print_table, round_table
from soss_background.detector import COLLECTING_AREA, GAIN
from soss_background.io.files import check_folder, save_whole

__all__ = ["add_fluxcal"]

# Its modules are loaded when they are needed: other subcommands start without them.
_ROOM = "soss_background.fluxcal"


def add_fluxcal(commands):
    """
    Add the subcommands of the flux calibration.

    Parameters
    ----------
    commands : `argparse._SubParsersAction`
        The subcommands of the console script.
    """
    parser = commands.add_parser(
        "fluxcal",
        help="flux calibration of NIRISS imaging",
        description="Average what EncircledEnergyStep and SurfaceBrightnessStep have measured, "
        "tell total count rates, and those that are expected.",
    )
    parts = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_mean(parts)
    _add_total(parts)
    _add_expected(parts)


def _add_output(parser, name):
    """Add the option that names the table that is written."""
    parser.add_argument(
        "-o", "--output", type=file_type(".ecsv"), default=Path(name), metavar="FILE",
        help="table to write (default: %(default)s)",
    )  # fmt: skip


def _add_plot(parser):
    """Add the option that asks for a picture."""
    parser.add_argument(
        "--plot", type=file_type(".png"), metavar="FILE", help="draw a picture as well"
    )


def _add_mean(parts):
    """Add the subcommand that averages."""
    parser = parts.add_parser(
        "mean",
        help="average dithered exposures of a filter",
        description="Average curves of growth, or surface brightnesses, radius by radius.",
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="tables of the same kind")
    parser.add_argument(
        "--psf", metavar="PATH", help="table of the PSF, or folder, for the picture"
    )
    _add_output(parser, "mean.ecsv")
    _add_plot(parser)
    parser.set_defaults(run=_mean)


def _mean(options):
    """Average tables."""
    rates, psfs, plots = _import("rates", "psf", "plots")
    mean = rates.average_tables(
        [rates.read_table(path, "radius", "error") for path in options.tables]
    )
    draw = functools.partial(plots.draw_brightness, table=mean)
    if "count_rate" in mean.colnames:
        psf = psfs.find_psf(options.psf, mean.meta["FILTER"]) if options.psf else None
        draw = functools.partial(plots.draw_growth, table=mean, psf=psf)
    _finish(mean, draw, options, options.tables)


def _add_total(parts):
    """Add the subcommand that tells total count rates."""
    parser = parts.add_parser(
        "total",
        help="total count rates of all filters",
        description="Tell the total count rate of a star in each filter from curves of growth, "
        "single or averaged, and the encircled energy of the PSF.",
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="curves of growth")
    parser.add_argument(
        "--psf", required=True, metavar="PATH",
        help="folder of tables such as f090w_psf.radtab, or the table of a single filter",
    )  # fmt: skip
    parser.add_argument(
        "--radii", nargs=2, type=float, default=(5, 10), metavar=("LOW", "HIGH"),
        help="radii that are used [pixels] (default: 5 10)",
    )  # fmt: skip
    parser.add_argument(
        "--clearp", type=_positive, default=1.0, metavar="PART",
        help="transmission of CLEARP, if the PSFs of F277W and redder filters are relative to the "
        "light before it: 0.84 for those of WebbPSF (default: 1)",
    )  # fmt: skip
    _add_output(parser, "total.ecsv")
    parser.set_defaults(run=_total, plot=None)


def _total(options):
    """Tell total count rates."""
    rates, psfs = _import("rates", "psf")
    tables = [rates.read_table(path, "radius", "count_rate", "error") for path in options.tables]
    find = functools.partial(psfs.find_psf, options.psf)
    if not Path(options.psf).exists():
        raise ValueError(f"{options.psf}: no such file or folder")
    totals = rates.total_rates(tables, find, tuple(options.radii), options.clearp)
    totals.meta["PSF"] = options.psf
    _finish(totals, None, options, options.tables)


def _add_expected(parts):
    """Add the subcommand that tells expected count rates."""
    parser = parts.add_parser(
        "expected",
        help="count rates that are expected, and how the measured ones compare",
        description="Tell the count rates of a star in all filters by synthetic photometry.",
    )
    parser.add_argument(
        "spectrum", type=Path, metavar="SPECTRUM", help="its spectrum, as in CALSPEC"
    )
    parser.add_argument(
        "--throughputs", required=True, type=Path, metavar="DIR",
        help="folder of throughput curves whose names tell the filter",
    )  # fmt: skip
    for name, default, meaning in (
        ("area", COLLECTING_AREA, "collecting area [m^2]"),
        ("gain", GAIN, "gain [electrons/DN]"),
    ):
        parser.add_argument(
            f"--{name}", type=_positive, default=default, metavar="NUMBER",
            help=f"{meaning} (default: {default})",
        )  # fmt: skip
    parser.add_argument("--measured", metavar="TABLE", help="total count rates, see fluxcal total")
    _add_output(parser, "expected.ecsv")
    _add_plot(parser)
    parser.set_defaults(run=_expected)


def _expected(options):
    """Tell expected count rates."""
    if options.plot and not options.measured:
        raise ValueError("--plot needs --measured: there is nothing to compare")
    rates, expected, plots = _import("rates", "expected", "plots")
    settings = {"area": options.area, "gain": options.gain}
    table = expected.expected_rates(options.spectrum, options.throughputs, **settings)
    inputs = [options.spectrum]
    if options.measured:
        totals = rates.read_table(options.measured, "filter", "count_rate", "error")
        table = rates.compare_rates(table, totals)
        inputs.append(options.measured)
    _finish(table, functools.partial(plots.draw_ratios, table=table), options, inputs)


def _positive(text):
    """Read a number that is positive."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _import(*modules):
    """Load modules of this room."""
    return [importlib.import_module(f"{_ROOM}.{module}") for module in modules]


def _finish(table, draw, options, inputs):
    """Write and print a table, and draw it."""
    paths = list(filter(None, (options.output, options.plot)))
    for path in paths:
        check_no_input(path, inputs)
        check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
    if "missing" in table.colnames and "-" not in table["missing"]:
        raise ValueError(f"no rate of any filter: {'; '.join(sorted(set(table['missing'])))}")
    if options.plot:
        (plots,) = _import("plots")
        save_whole(functools.partial(plots.save_picture, draw), options.plot)
    save_whole(functools.partial(table.write, format="ascii.ecsv"), options.output)
    _show(table)
    print(f"See {' and '.join(map(str, paths))}")


def _show(table):
    """Print a table; filters without a rate share a line."""
    if "missing" not in table.colnames:
        print_table(round_table(table, 6))
        return
    known = table["missing"] == "-"
    shown = table[known]
    shown.remove_column("missing")
    print_table(round_table(shown, 6))
    for reason in dict.fromkeys(table["missing"][~known]):
        names = table["filter"][table["missing"] == reason]
        print(f"{', '.join(names)}: {reason}")
