"""The subcommand ``soss-background characterize``."""

from soss_background.cli.console import print_table, round_table
from soss_background.cli.options import add_output_dir, add_skyflats


def add_parser(commands):
    """Add the subcommand that describes how the sky varies."""
    parser = commands.add_parser(
        "characterize",
        help="describe how the sky varies among skyflats",
        description="Write tables and figures of how level and edge change with pointing, season "
        "and pupil wheel position, of how well skies fit each other, of their principal "
        "components, and of their levels compared with the zodiacal light of a model.",
    )
    add_skyflats(parser, "at least three skyflats")
    add_output_dir(parser, "tables and figures")
    parser.set_defaults(run=run)


def run(options):
    """Write tables and figures; print the small tables."""
    from soss_background.errors import count
    from soss_background.io.skyflats import find_files
    from soss_background.survey.characterization import characterize

    tables = characterize(find_files(options.skyflats), options.output_dir)
    for name in ("trends", "components", "zodiacal_light"):
        if name in tables:
            print(f"{name}.ecsv")
            print_table(round_table(tables[name]))
    print(f"{count(len(tables['skies']), 'skyflat')}, see {options.output_dir}")
