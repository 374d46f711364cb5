"""The subcommand ``soss-background batch``."""

import functools
import signal
import threading
from collections import Counter
from pathlib import Path

from soss_background.cli.console import WIDTH, print_table
from soss_background.cli.options import (
    add_output_dir,
    add_verbose,
    given,
    import_extra,
    positive_integer,
)


def add_parser(commands):
    """Add the subcommand that runs the pipeline on many associations."""
    parser = commands.add_parser(
        "batch",
        help="run a pipeline on many associations or exposures on a Dask cluster",
        description="Run a pipeline on many associations or exposures, several at a time. A failed "
        "run does not stop the others. A finished product is kept if its exposures, parameters and "
        "version are unchanged.",
        epilog="Arguments after -- are passed to the pipeline, as by strun.",
    )
    parser.add_argument(
        "associations", type=Path, nargs="+",
        help="association files; for science exposures, also exposures and segments",
    )  # fmt: skip
    parser.add_argument(
        "--pipeline",
        choices=["SkyflatPipeline", "SossStarePipeline", "SkyflatSpec2Pipeline"],
        help="the pipeline (default: SkyflatPipeline)",
    )
    add_output_dir(parser, "products")
    cluster = parser.add_mutually_exclusive_group()
    cluster.add_argument(
        "--workers", type=positive_integer, metavar="N",
        help="number of runs at a time on this machine (default: limited by cores and memory)",
    )  # fmt: skip
    cluster.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a running cluster, or its scheduler file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace finished products")
    add_verbose(parser)
    parser.set_defaults(run=run)


def run(options):
    """Run the pipeline on many associations; print and write a table of the results."""
    from soss_background.io.files import save_whole

    batch = import_extra("batch", "batch")
    folder = options.output_dir
    # A job that a user or a queue ends still writes its table.
    stop, signals = threading.Event(), []

    def end(number, _):
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    settings = given(options, "pipeline", "scheduler", "workers", "overwrite") | {"stop": stop}
    table = batch.run_batch(options.associations, folder, options.arguments, **settings)
    _print_results(table, options.verbose)
    save_whole(functools.partial(table.write, format="ascii.ecsv"), folder / "batch.ecsv")
    counts = Counter(table["status"])
    summary = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(f"{summary}; see {folder / 'batch.ecsv'}")
    if counts["not done"]:
        return 128 + signals[0]
    return 1 if counts["failed"] else 0


def _print_results(table, verbose):
    """Print the results, and in full why associations failed."""
    if verbose:
        print_table(table)
        return
    print_table(_summarize(table), WIDTH)
    for row in table[table["status"] == "failed"]:
        print(f"{row['association']}: {row['message']}")


def _summarize(table):
    """Return the columns that fit a terminal; the associations by a short name."""
    shown = table["association", "status", "seconds", "message"]
    shown["association"] = [
        Path(path).name.removesuffix("_asn.json").removesuffix("_skyflat")
        for path in table["association"]
    ]
    return shown
