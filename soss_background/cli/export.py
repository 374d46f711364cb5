"""The subcommand ``soss-background export``."""

from pathlib import Path

from soss_background.cli.options import file_type


def add_parser(commands):
    """Add the subcommand that writes a sky for other programs."""
    parser = commands.add_parser(
        "export",
        help="write a saved sky as .npy, for exoTEDRF",
        description="Write the sky that SkyflatSubtractStep saved (save_background) as an array, "
        "flat-fielded, in DN/s: the soss_background_file of exoTEDRF.",
    )
    parser.add_argument("sky", type=Path, help="saved sky, *_skyflatbackground.fits")
    parser.add_argument(
        "--flat", metavar="FILE", help="flat, by which a sky that is not flat-fielded is divided"
    )
    parser.add_argument(
        "-o", "--output", type=file_type(".npy"), required=True, metavar="FILE", help="output file"
    )
    parser.set_defaults(run=run)


def run(options):
    """Write the sky."""
    from soss_background.io.saved_skies import export_sky

    export_sky(options.sky, options.output, options.flat)
    print(options.output)
