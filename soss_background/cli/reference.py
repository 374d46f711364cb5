"""The subcommand ``soss-background reference``."""

from soss_background.cli.console import WIDTH, print_table
from soss_background.cli.options import (
    add_verbose,
    file_type,
    finite_number,
    given,
    name_options,
    positive_integer,
)
from soss_background.detector import SUBARRAYS


def add_parser(commands):
    """Add the subcommand that writes a reference file."""
    parser = commands.add_parser(
        "reference",
        help="write the BKG reference file of jwst's bkg_subtract",
        description="Write a library of skies that jwst's own bkg_subtract reads: skyflats, or the "
        "skies that represent a sky model best. Near-duplicates are merged and outliers are "
        "omitted; a table lists how well the best of the other skies fits each sky.",
    )
    parser.add_argument("skyflats", nargs="*", metavar="SKYFLAT", help="skyflats")
    parser.add_argument(
        "--model", metavar="FILE", help="sky model to represent, instead of skyflats"
    )
    parser.add_argument(
        "-n",
        dest="number",
        type=positive_integer,
        metavar="N",
        help="number of templates that represent the sky model (default: 12)",
    )
    parser.add_argument(
        "-o", "--output", type=file_type(".fits"), required=True, metavar="FILE", help="output file"
    )
    parser.add_argument(
        "--subarray",
        choices=SUBARRAYS,
        default="SUBSTRIP256",
        help="pixels of the library; jwst uses SUBSTRIP256 for SUBSTRIP96 too, and the others "
        "for their own subarray only (default: %(default)s)",
    )
    parser.add_argument(
        "--plane",
        choices=["BKGDN", "BKG"],
        help="extension to write: the denoised sky, BKGDN, or BKG (default: BKGDN)",
    )
    parser.add_argument(
        "--flat",
        metavar="FILE",
        help="multiply by this flat (default: the flat of each skyflat, or of the sky model)",
    )
    _add_selection(parser)
    _add_keywords(parser)
    add_verbose(parser)
    parser.set_defaults(run=run)


def _add_selection(parser):
    """Add the options that select the skies of the library."""
    parser.add_argument(
        "--merge-below",
        type=finite_number,
        metavar="FRACTION",
        help="merge skies if the rms residual of each pair is below this fraction of the sky "
        "(default: 0.0025)",
    )
    parser.add_argument(
        "--max-residual",
        type=finite_number,
        metavar="FRACTION",
        help="omit a sky if the rms residual with every other exceeds this fraction of the sky, "
        "and three times that of a typical sky (default: 0.05)",
    )


def _add_keywords(parser):
    """Add the options for keywords of the header."""
    parser.add_argument(
        "--useafter",
        metavar="DATE",
        help="date from which CRDS selects the file, in the keyword USEAFTER (default: before the "
        "first SOSS exposure)",
    )
    parser.add_argument(
        "--author",
        metavar="NAME",
        help="creator of the file, in the keyword AUTHOR (default: the authors of the skyflats)",
    )
    parser.add_argument(
        "--pedigree",
        metavar="TEXT",
        help="origin of the data, in the keyword PEDIGREE (default: INFLIGHT with the first and "
        "the last day of the exposures, MODEL for a sky model)",
    )
    parser.add_argument(
        "--description",
        metavar="TEXT",
        help="description of the file, in the keyword DESCRIP (default: number of skies and "
        "subarray)",
    )


def run(options):
    """Write a reference file; print a table of its skies."""
    if bool(options.skyflats) == bool(options.model):
        raise ValueError("give either skyflats or a sky model (--model FILE)")
    settings = given(options, "flat", "useafter", "author", "pedigree", "description")
    from soss_background.errors import count

    write = _write_model if options.model else _write_skyflats
    reference, table, source = write(options, settings)
    if options.verbose:
        print_table(table)
    else:
        print_table(_summarize(table), WIDTH)
    templates = count(len(reference.data), "template")
    print(f"{templates} of {source}, see {options.output}")


def _summarize(table):
    """Return the columns that fit a terminal; the skyflats without what their names share."""
    if "FILE" not in table.colnames:
        return table
    shown = table["SKY", "FILE", "RESIDUAL", "TEMPLATE", "REASON"]
    names = [name.removeprefix("nis_clear_gr700xd_") for name in table["FILE"]]
    shown["FILE"] = [name.removesuffix("_skyflat.fits") for name in names]
    return shown


def _write_model(options, settings):
    """Write the skies that represent a sky model."""
    from soss_background.reference import make_model_reference, write_reference

    others = given(options, "plane", "merge_below", "max_residual")
    if others:
        raise ValueError(f"{name_options(others)} applies to skyflats only, not to --model")
    settings |= given(options, "number")
    reference, table = make_model_reference(options.model, options.subarray, **settings)
    write_reference(reference, options.output)
    return reference, table, options.model


def _write_skyflats(options, settings):
    """Write skyflats."""
    from soss_background.errors import count
    from soss_background.io.skyflats import find_files
    from soss_background.reference import make_reference, write_reference

    if options.number:
        raise ValueError("-n is the number of templates of a sky model (--model FILE)")
    settings |= given(options, "plane", "merge_below", "max_residual")
    skyflats = find_files(options.skyflats)
    reference, table = make_reference(skyflats, options.subarray, **settings)
    write_reference(reference, options.output)
    return reference, table, count(len(table), "skyflat")
