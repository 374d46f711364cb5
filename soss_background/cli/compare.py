"""The subcommand ``soss-background compare``."""

import functools
from pathlib import Path

from soss_background.cli.options import file_type


def add_parser(commands):
    """Add the subcommand that compares a skyflat with the truth."""
    parser = commands.add_parser(
        "compare",
        help="compare a skyflat with the truth of its simulation",
        description="Print how well a skyflat agrees with the truth of its simulation, and draw "
        "both.",
    )
    parser.add_argument("skyflat", type=Path, help="skyflat that contains its exposures")
    parser.add_argument("truth", type=Path, help="truth.fits of the simulation")
    parser.add_argument(
        "-o",
        "--output",
        type=file_type(".png", ".pdf", ".svg"),
        required=True,
        metavar="FILE",
        help="figure to write: PNG, PDF or SVG",
    )
    parser.set_defaults(run=run)


def run(options):
    """Print and draw the errors of a skyflat."""
    from soss_background.io.files import save_whole
    from soss_background.simulate import comparison

    result = comparison.compare_with_truth(options.skyflat, options.truth)
    print(comparison.format_table(result))
    figure = comparison.draw_comparison(result)
    save_whole(functools.partial(figure.savefig, dpi=80), options.output)
    print(f"Figure: {options.output}")
