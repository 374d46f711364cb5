"""The subcommand ``soss-background report``."""

from soss_background.cli.options import add_output, add_skyflats


def add_parser(commands):
    """Add the subcommand that writes reports of skyflats."""
    parser = commands.add_parser(
        "report",
        help="show skyflats, their exposures and their quality in a report",
        description="Write a report that shows a skyflat, its exposures with their masks, its "
        "quality and its provenance; it needs no other file and no network.",
    )
    add_skyflats(parser)
    add_output(
        parser, "report to write; each of several skyflats gets its own next to it", "report.html"
    )
    parser.set_defaults(run=run)


def run(options):
    """Write reports; print the quality of the skyflats."""
    from soss_background.io.skyflats import find_files
    from soss_background.report.skyflat import write_reports

    skyflats = find_files(options.skyflats)
    verdicts = write_reports(skyflats, options.output)
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    print(f"Report: {options.output}")
