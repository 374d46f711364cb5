"""The subcommands ``soss-background fluxcal``."""

import argparse
import functools
import os
from pathlib import Path

from soss_background.cli.console import print_table, round_table
from soss_background.cli.options import add_output, add_output_dir, file_type, finite_number
from soss_background.detector import COLLECTING_AREA, GAIN


def add_parser(commands):
    """Add the subcommands of the flux calibration."""
    parser = commands.add_parser(
        "fluxcal",
        help="flux calibration of NIRISS imaging",
        description="Measure the encircled energy of PSFs, average the results of "
        "EncircledEnergyStep and SurfaceBrightnessStep, and compute total and expected count "
        "rates.",
    )
    parts = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_psf(parts)
    _add_mean(parts)
    _add_total(parts)
    _add_expected(parts)


def _add_plot(parser):
    """Add the option for a figure."""
    parser.add_argument("--plot", type=file_type(".png"), metavar="FILE", help="figure to write")


def _add_psf(parts):
    """Add the subcommand that measures PSFs."""
    parser = parts.add_parser(
        "psf",
        help="measure the encircled energy of PSF images",
        description="Measure the encircled energy of PSF images of WebbPSF or STPSF in the way in "
        "which EncircledEnergyStep measures a star, and write a table such as f090w_psf.ecsv for "
        "each filter.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="FITS image of the PSF")
    parser.add_argument(
        "--sky-annulus", nargs=2, type=_positive, default=(20, 25), metavar=("LOW", "HIGH"),
        help="radii of the sky annulus, the same as for the stars [pixels] (default: 20 25)",
    )  # fmt: skip
    add_output_dir(parser, "tables")
    parser.set_defaults(run=_psf)


def _psf(options):
    """Measure the encircled energy of PSFs and write a table for each."""
    from soss_background.fluxcal.psf_image import measure_psf
    from soss_background.io.files import save_whole

    low, high = options.sky_annulus
    if not low < high:
        raise ValueError(f"sky annulus {low:g} to {high:g} does not increase")
    tables = {}
    for image in options.images:
        table = measure_psf(image, (low, high))
        path = options.output_dir / f"{table.meta['FILTER'].lower()}_psf.ecsv"
        if path in tables:
            raise ValueError(f"{image} and {tables[path].meta['IMAGE']} are of the same filter")
        tables[path] = table
    for path, table in tables.items():
        save_whole(functools.partial(table.write, format="ascii.ecsv"), path)
    print(f"See {', '.join(map(str, tables))}")


def _add_mean(parts):
    """Add the subcommand that averages."""
    parser = parts.add_parser(
        "mean",
        help="average dithered exposures of a filter",
        description="Average curves of growth, or surface brightnesses, radius by radius.",
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="tables of the same kind")
    parser.add_argument(
        "--psf", metavar="PATH", help="table of the PSF to draw, or a folder of tables"
    )
    add_output(parser, "table to write", "mean.ecsv")
    _add_plot(parser)
    parser.set_defaults(run=_mean)


def _mean(options):
    """Average tables."""
    from soss_background.fluxcal import plots, psf, rates

    mean = rates.average_tables(
        [rates.read_table(path, "radius", "error") for path in options.tables]
    )
    draw = functools.partial(plots.draw_brightness, table=mean)
    if "count_rate" in mean.colnames:
        known = psf.find_psf(options.psf, mean.meta["FILTER"]) if options.psf else None
        draw = functools.partial(plots.draw_growth, table=mean, psf=known)
    _finish(mean, draw, options)


def _add_total(parts):
    """Add the subcommand that computes total count rates."""
    parser = parts.add_parser(
        "total",
        help="compute the total count rates of a star in all filters",
        description="Compute the total count rate of a star in each filter from curves of growth, "
        "single or averaged, and the encircled energy of the PSF.",
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="curves of growth")
    parser.add_argument(
        "--psf", required=True, metavar="PATH",
        help="folder of tables such as f090w_psf.ecsv, see fluxcal psf, or the table of a single "
        "filter",
    )  # fmt: skip
    parser.add_argument(
        "--radii", nargs=2, type=finite_number, default=(5, 10), metavar=("LOW", "HIGH"),
        help="smallest and largest radius used [pixels] (default: 5 10)",
    )  # fmt: skip
    parser.add_argument(
        "--clearp", type=_fraction, default=1.0, metavar="FRACTION",
        help="transmission of CLEARP, if the PSFs of F277W and redder filters are relative to the "
        "flux before it: 0.84 for those of WebbPSF (default: 1)",
    )  # fmt: skip
    add_output(parser, "table to write", "total.ecsv")
    parser.set_defaults(run=_total, plot=None)


def _total(options):
    """Compute total count rates."""
    from soss_background.fluxcal import psf, rates

    tables = [rates.read_table(path, "radius", "count_rate", "error") for path in options.tables]
    find = functools.partial(psf.find_psf, options.psf)
    if not Path(options.psf).exists():
        raise ValueError(f"{options.psf}: no such file or folder")
    totals = rates.total_rates(tables, find, tuple(options.radii), options.clearp)
    totals.meta["PSF"] = options.psf
    _finish(totals, None, options)


def _add_expected(parts):
    """Add the subcommand that predicts count rates."""
    parser = parts.add_parser(
        "expected",
        help="predict count rates, and compare the measured ones with them",
        description="Predict the count rates of a star in all filters by synthetic photometry.",
    )
    parser.add_argument(
        "spectrum", type=Path, metavar="SPECTRUM",
        help="spectrum of the star; a name such as alpha_lyr_stis_009.fits is also looked up in "
        "$PYSYN_CDBS/calspec",
    )  # fmt: skip
    parser.add_argument(
        "--throughputs", type=Path, metavar="DIR",
        help="folder of throughput curves, named after their filters (default: $NIS_SYNPHOT)",
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
    add_output(parser, "table to write", "expected.ecsv")
    _add_plot(parser)
    parser.set_defaults(run=_expected)


def _expected(options):
    """Predict count rates."""
    if options.plot and not options.measured:
        raise ValueError("--plot needs --measured: there is nothing to compare")
    from soss_background.fluxcal import expected, plots, rates

    spectrum, throughputs = _find_spectrum(options.spectrum), _find_throughputs(options)
    settings = {"area": options.area, "gain": options.gain}
    table = expected.expected_rates(spectrum, throughputs, **settings)
    if options.measured:
        totals = rates.read_table(options.measured, "filter", "count_rate", "error")
        table = rates.compare_rates(table, totals)
    _finish(table, functools.partial(plots.draw_ratios, table=table), options)


def _find_spectrum(path):
    """Return the path of a spectrum, that in the CALSPEC folder of PYSYN_CDBS if need be."""
    root = os.environ.get("PYSYN_CDBS")
    if path.exists() or not root:
        return path
    found = Path(root) / "calspec" / path
    if not found.exists():
        raise ValueError(f"{path}: no such file, neither as given nor in {found.parent}")
    return found


def _find_throughputs(options):
    """Return the folder of throughput curves, by default that of NIS_SYNPHOT."""
    folder = options.throughputs or os.environ.get("NIS_SYNPHOT")
    if not folder:
        raise ValueError("no throughput curves: give --throughputs, or set NIS_SYNPHOT")
    return folder


def _positive(text):
    """Convert a string to a positive number."""
    number = finite_number(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _fraction(text):
    """Convert a string to a positive fraction."""
    number = _positive(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction from 0 to 1")
    return number


def _finish(table, draw, options):
    """Write, print and draw a table."""
    from soss_background.fluxcal.plots import save_figure
    from soss_background.io.files import save_whole

    if "missing" in table.colnames and "-" not in table["missing"]:
        raise ValueError(f"no rate of any filter: {'; '.join(sorted(set(table['missing'])))}")
    if options.plot:
        save_whole(functools.partial(save_figure, draw), options.plot)
    save_whole(functools.partial(table.write, format="ascii.ecsv"), options.output)
    _show(table)
    print(f"See {' and '.join(map(str, filter(None, (options.output, options.plot))))}")


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
        names = [_name_setup(row) for row in table[table["missing"] == reason]]
        print(f"{', '.join(names)}: {reason}")


def _name_setup(row):
    """Return the filter of a row, and its subarray where it is known."""
    known = "subarray" in row.colnames and row["subarray"] != "-"
    return f"{row['filter']} {row['subarray']}" if known else row["filter"]
