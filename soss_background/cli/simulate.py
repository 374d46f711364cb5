"""The subcommand ``soss-background simulate``."""

import argparse
from dataclasses import replace
from pathlib import Path

from soss_background.cli.options import name_options
from soss_background.detector import PWCPOS, SOSS_BANDS, SUBARRAYS, SUPERSTRIPES

# Options for `soss_background.simulate.Simulation`, their defaults and help texts. The class is
# slow to import; a test compares the defaults.
SETTINGS = {
    "seed": (1, "random seed"),
    "observation": ("001", "observation number of three digits, which distinguishes visits"),
    "n_exposures": (10, "number of dithered exposures"),
    "n_integrations": (3, "integrations per exposure"),
    "exposure_time": (300.0, "time of an exposure [s]"),
    "sky_level": (1.0, "level of the sky relative to that of commissioning"),
    "step_contrast": (1.0, "sky right of its edge relative to that of commissioning"),
    "star_density": (1.0, "density of field stars: 0 none, 1 moderate, 3 crowded"),
    "stripes": (0.05, "rms of the 1/f stripes of an integration [DN/s]"),
    "pwcpos": (PWCPOS, "pupil wheel position [deg]"),
}


def add_parser(commands):
    """Add the subcommand that simulates exposures."""
    parser = commands.add_parser(
        "simulate",
        help="simulate dithered exposures with known truth",
        description="Write simulated _rateints exposures of blank sky, their association, a flat "
        "and the truth.",
    )
    parser.add_argument("directory", type=Path, help="output folder")
    for name, (default, meaning) in SETTINGS.items():
        option = name_options([name])
        # Only options that the user gives override a family.
        given = {"type": type(default), "default": argparse.SUPPRESS}
        parser.add_argument(option, help=f"{meaning} (default: {default})", **given)
    parser.add_argument(
        "--filter", default="CLEAR", choices=SOSS_BANDS, help="filter (default: CLEAR)"
    )
    parser.add_argument(
        "--subarray",
        default="FULL",
        choices=[*SUBARRAYS, *SUPERSTRIPES],
        help="pixels read out (default: FULL)",
    )
    parser.add_argument(
        "--time-series",
        action="store_true",
        help="simulate a time series of a transit instead of a visit",
    )
    parser.add_argument(
        "--ramps", action="store_true", help="with --time-series: also write the groups (_ramp)"
    )
    parser.add_argument(
        "--f277w",
        action="store_true",
        help="with --time-series: also write an exposure of the same field with F277W",
    )
    parser.add_argument(
        "--family",
        action="append",
        default=[],
        metavar="NUISANCE=FAMILY",
        help="family of a nuisance, such as stripes=white or wings=none; 'random' draws a family "
        "of each nuisance that is not named; may be repeated. Other options override families.",
    )
    parser.set_defaults(run=run)


def run(options):
    """Simulate a visit or a time series."""
    from soss_background.simulate import simulate_time_series, simulate_visit

    simulation = choose_simulation(options)
    if options.time_series:
        extras = {"ramps": options.ramps, "f277w": options.f277w}
        print(simulate_time_series(options.directory, simulation, **extras))
    elif options.ramps or options.f277w:
        raise ValueError(f"--{'ramps' if options.ramps else 'f277w'} needs --time-series")
    else:
        print(simulate_visit(options.directory, simulation))


def choose_simulation(options):
    """Return the `Simulation` of the options; raise ValueError for families that do not exist."""
    from soss_background.simulate import Simulation, choose_families, draw_simulation

    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    settings = {name: default for name, (default, _) in SETTINGS.items()} | given
    windows = SUBARRAYS | SUPERSTRIPES
    where = {"window": windows[options.subarray], "filter_name": options.filter}
    simulation = Simulation(**where, **settings)
    families = dict(word.split("=", 1) for word in options.family if "=" in word)
    unknown = [word for word in options.family if "=" not in word and word != "random"]
    if unknown:
        raise ValueError(f"--family {unknown[0]}: neither 'random' nor NUISANCE=FAMILY")
    if "random" in options.family:
        simulation = draw_simulation(settings["seed"], simulation, **families)
    else:
        simulation = choose_families(simulation, **families)
    return replace(simulation, **given)
