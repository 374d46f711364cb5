"""The subcommand ``soss-background asn``."""

from pathlib import Path

from soss_background.cli.console import WIDTH, print_table
from soss_background.cli.options import (
    add_output_dir,
    add_verbose,
    finite_number,
    given,
    name_options,
)


def add_parser(commands):
    """Add the subcommand that writes associations."""
    parser = commands.add_parser(
        "asn",
        help="write associations of exposures that belong together",
        description="Write an association for each group of SOSS exposures that belong to one "
        "skyflat: of one program, target and observation, without a gap. Exposures of subarrays "
        "are ignored if there are some of the full detector. Only headers are read.",
    )
    parser.add_argument(
        "files", nargs="+", help="exposures, _rate or _rateints, or tables of them (CSV, ECSV)"
    )
    add_output_dir(parser, "associations")
    parser.add_argument(
        "--gap-days",
        type=finite_number,
        metavar="DAYS",
        help="longest time from the start of an exposure to that of the next (default: 1)",
    )
    parser.add_argument(
        "--by-pwcpos",
        type=finite_number,
        metavar="TOL",
        help="separate exposures whose pupil wheel positions differ by more than this [deg]",
    )
    parser.add_argument(
        "--product-name",
        metavar="NAME",
        help="name of the skyflat, numbered if there are several (default: set by the pipeline)",
    )
    parser.add_argument(
        "--background",
        nargs="+",
        metavar="FILE",
        help="write a level-2 association for each of the exposures instead, with the "
        "sequence of these exposures of blank sky that is nearest in time as its background; "
        "segments of a time series are one exposure",
    )
    parser.add_argument(
        "--time-series",
        action="store_true",
        help="write a level-2 association for each of the exposures instead, with all its segments",
    )
    add_verbose(parser)
    parser.set_defaults(run=run)


def run(options):
    """Write associations; print a table of them."""
    settings = given(options, "gap_days", "by_pwcpos", "product_name")
    by_exposure = "--background" if options.background else "--time-series"
    if (options.background or options.time_series) and settings:
        raise ValueError(f"{by_exposure} cannot be combined with {name_options(settings)}")
    from soss_background.associations import make_associations, make_background_associations
    from soss_background.errors import count

    if options.background or options.time_series:
        background = options.background or ()
        table = make_background_associations(options.files, background, options.output_dir)
    else:
        table = make_associations(options.files, options.output_dir, **settings)
    if options.verbose:
        print_table(table)
    else:
        print_table(_summarize(table), WIDTH)
    print(f"{count(len(table), 'association')} in {options.output_dir}")


def _summarize(table):
    """Return the columns that fit a terminal; the associations without their folder."""
    shown = table.copy()
    shown["association"] = [Path(path).name for path in table["association"]]
    if "first" in table.colnames:
        shown["first"] = [date[:10] for date in table["first"]]
    columns = ("association", "segments", "n", "dt", "first", "lon", "lat")
    return shown[[name for name in columns if name in table.colnames]]
