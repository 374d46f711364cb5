"""The console script."""

import argparse
import dataclasses
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import run_program

from soss_background import SkyflatPipeline, __version__
from soss_background.cli import _create_parser, main, simulate
from soss_background.cli import asn as cli_asn
from soss_background.cli import batch as cli_batch
from soss_background.cli import reference as cli_reference
from soss_background.cli.console import WIDTH, print_table
from soss_background.errors import count
from soss_background.simulate import Simulation

SMALL = ["--n-exposures=2", "--n-integrations=2", "--star-density=0", "--subarray=SUBSTRIP96"]


# Options of each subcommand besides --help.
OPTIONS = {
    "simulate": [f"--{name.replace('_', '-')}" for name in simulate.SETTINGS]
    + ["--subarray", "--time-series"],
    "compare": ["--output"],
    "query": "--programs --all --after --before --product --index --login --output".split(),
    "download": ["--output-dir", "--login"],
    "asn": "--output-dir --gap-days --by-pwcpos --product-name --background --verbose".split(),
    "batch": "--output-dir --workers --scheduler --overwrite --verbose".split(),
    "model": ["--output", "--plot", "--author", "--description"],
    "reference": "--model -n --output --subarray --plane --flat --merge-below --max-residual "
    "--useafter --author --pedigree --description --verbose".split(),
    "report": ["--output"],
    "characterize": ["--output-dir"],
    "fluxcal": ["psf", "mean", "total", "expected"],
    "fluxcal psf": ["--sky-annulus", "--output-dir"],
    "fluxcal mean": ["--psf", "--output", "--plot"],
    "fluxcal total": ["--psf", "--radii", "--clearp", "--output"],
    "fluxcal expected": ["--throughputs", "--area", "--gain", "--measured", "--output", "--plot"],
}

# Usage errors and their messages.
USAGE = {
    "": "the following arguments are required: COMMAND",
    "paint": "invalid choice: 'paint'",
    "simulate": "the following arguments are required: directory",
    "simulate visit --subarray SUB80": "invalid choice: 'SUB80'",
    "simulate visit --seed one": "invalid int value: 'one'",
    "simulate visit -- --seed": "unrecognized arguments: --seed",
    "batch asn.json --steps.flat_field.skip=1": "follow two dashes: -- --steps...",
    "batch asn.json --steps.flat_field.skip 1": "--steps.flat_field.skip 1 (parameters",
    "query --product cal": "invalid choice: 'cal'",
    "query --programs 1 --all": "argument --all: not allowed with argument --programs",
    "query --before soon": "soon is not a date",
    "batch a_asn.json --workers 0": "0 is not positive",
    "model s.fits -o model.txt": "model.txt does not end in .fits or .asdf",
    "reference s.fits -o library.asdf": "library.asdf does not end in .fits",
    "reference s.fits -o library.fits --plane ERR": "invalid choice: 'ERR'",
    "compare s.fits truth.fits -o x.html": "x.html does not end in .png or .pdf or .svg",
    "asn a.fits --gap-days nan": "nan is not a finite number",
    "reference s.fits -o library.fits --merge-below inf": "inf is not a finite number",
    "fluxcal expected s.fits --throughputs dir --area inf": "inf is not a finite number",
    "fluxcal expected s.fits --throughputs dir --gain 0": "0 is not positive",
}

# Slow modules that help texts and usage errors must not import.
SLOW = ("asdf", "astropy", "dask", "jwst", "matplotlib", "numpy", "scipy", "stdatamodels", "stpipe")

# Run several commands in one process; print the texts, and the slow modules that are imported.
SCRIPT = """
import contextlib, io, json, sys
from soss_background.cli import main
texts = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            status = main(arguments)
        except SystemExit as err:
            status = err.code
    texts.append([status, out.getvalue()])
print(json.dumps([texts, sorted(set(sys.modules) & set(sys.argv[2:]))]))
"""


def run_light(commands):
    """Run commands in one process; make sure that nothing slow is imported."""
    arguments = [json.dumps([command.split() for command in commands]), *SLOW]
    printed = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, check=True, text=True
    ).stdout
    answers, slow = json.loads(printed)
    assert slow == []
    return answers


def test_help_is_complete_and_light():
    commands = ["--help", *(f"{command} --help" for command in OPTIONS)]
    (status, overview), *answers = run_light(commands)
    assert status == 0
    assert [name for name in OPTIONS if " " not in name and name not in overview] == []
    for (name, options), (status, text) in zip(OPTIONS.items(), answers, strict=True):
        assert status == 0
        assert text.startswith(f"usage: soss-background {name} ")
        assert [option for option in options if option not in text] == []


def test_usage_errors_are_light():
    for (command, message), (status, text) in zip(USAGE.items(), run_light(USAGE), strict=True):
        assert status == 2, command
        assert message in text
        assert text.startswith("usage: soss-background")


def test_version_is_light():
    assert run_light(["--version"]) == [[0, f"soss-background {__version__}\n"]]


def test_help_shows_defaults():
    """The help shows the default of every option that has one."""
    for parser in list_parsers(_create_parser()):
        for action in parser._actions:
            if action.option_strings and not isinstance(action.default, bool | None):
                shown = action.default == argparse.SUPPRESS or "(default: " in action.help
                assert shown or action.default == [], (parser.prog, action.option_strings)


def list_parsers(parser):
    """List a parser and those of its subcommands."""
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                parsers += list_parsers(child)
    return parsers


# --- tables ------------------------------------------------------------------------------

ASSOCIATIONS = Table(
    {
        "program": ["04479", "06658"],
        "target": ["NIS-SOSS-BKG-1", "BLANK-SKY-ECLIPTIC-POLE-SOUTH"],
        "observation": ["001", "002"],
        "group": ["000", "000"],
        "n": [10, 8],
        "first": ["2023-11-16T00:02:27.123", "2025-01-02T13:30:00.5"],
        "last": ["2023-11-16T02:02:27.123", "2025-01-02T15:30:00.5"],
        "lon": [234.123, 8.99],
        "lat": [-45.12, -2.0],
        "product": ["nis_clear_gr700xd_LON234_LAT-45_DOY320_001_000_skyflat.fits"] * 2,
        "association": [
            "some/folder/jw04479-o001_NIS-SOSS-BKG-1_000_skyflat_asn.json",
            "some/folder/jw06658-o002_BLANK-SKY-ECLIPTIC-POLE-SOUTH_000_skyflat_asn.json",
        ],
    },
    units={"lon": "deg", "lat": "deg"},
)
ASSOCIATIONS["lon"].format = ASSOCIATIONS["lat"].format = ".1f"
RESULTS = Table(
    {
        "association": list(ASSOCIATIONS["association"]),
        "label": [Path(path).stem for path in ASSOCIATIONS["association"]],
        "status": ["failed", "not done"],
        "products": ["", ASSOCIATIONS["product"][0]],
        "seconds": [12.3, 1234.5],
        "message": ["rateints.fits: truncated in extension SCI, " + "and more " * 9, ""],
    },
    units={"seconds": "s"},
)
SKIES = Table(
    {
        "SKY": [1, 12],
        "FILE": [ASSOCIATIONS["product"][0], "mine.fits"],
        "PROGRAM": ["04479", "06658"],
        "TARGPROP": ["NIS-SOSS-BKG-1", "POLE"],
        "LON": [234.12, 8.99],
        "FITTED_BY": [2, 0],
        "RESIDUAL": [0.24, 12.34],
        "TEMPLATE": [1, 0],
        "REASON": ["", "no other sky fits it: 12.3 % left"],
    },
    units={"LON": "deg", "RESIDUAL": "%"},
)


@pytest.mark.parametrize(
    ("module", "table", "shown"),
    [
        (cli_asn, ASSOCIATIONS, ["jw04479-o001_NIS-SOSS-BKG-1_000_skyflat_asn.json", "234.1"]),
        (cli_batch, RESULTS, ["failed", "1234.5", "jw04479-o001_NIS-SOSS-BKG-1_000"]),
        (cli_reference, SKIES, ["LON234_LAT-45_DOY320_001_000", "12.34", "no other sky fits it"]),
    ],
)
def test_tables_fit_a_terminal(module, table, shown, capsys):
    before = table.copy()
    print_table(module._summarize(table), WIDTH)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert [text for text in shown if text not in printed] == []
    assert list(map(list, before.iterrows())) == list(map(list, table.iterrows()))


def test_why_an_association_failed_is_printed_in_full(capsys):
    cli_batch._print_results(RESULTS, verbose=False)
    path, message = RESULTS["association"][0], RESULTS["message"][0]
    assert f"{path}: {message}" in capsys.readouterr().out
    cli_batch._print_results(RESULTS, verbose=True)
    printed = capsys.readouterr().out
    assert RESULTS["products"][1] in printed
    assert message.strip() in printed


def test_masked_strings_and_objects_are_shortened(capsys):
    """A table can come from a file with missing values."""
    table = Table({"name": ["a" * 70, "b"], "note": [None, "c" * 60], "n": [1, 2]}, masked=True)
    table["name"].mask = [False, True]
    assert table["note"].dtype.kind == "O"
    print_table(table, WIDTH)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines[2:]] == ["None", "c" * 60]
    assert lines[2].split()[0].endswith("aa...")
    assert lines[3].startswith("-- ")


def test_a_table_of_numbers_is_not_shortened(capsys):
    print_table(Table({f"column_{number}": [0.123456] for number in range(9)}), WIDTH)
    assert "column_8" in capsys.readouterr().out


def test_no_colours_on_a_terminal(monkeypatch):
    """The output contains no colours, as NO_COLOR demands."""
    printed = []

    def read(descriptor):
        printed.append(os.read(descriptor, 10_000))
        return printed[-1]

    command = [sys.executable, "-c", "from soss_background.cli import main; main(['--help'])"]
    monkeypatch.setenv("NO_COLOR", "1")
    pty.spawn(command, read)
    assert b"usage: soss-background" in b"".join(printed)
    assert b"\x1b[" not in b"".join(printed)


def test_plural_forms():
    numbers = [count(0, "skyflat"), count(1, "skyflat"), count(2, "empirical sky")]
    assert numbers == ["0 skyflats", "1 skyflat", "2 empirical skies"]


def test_defaults_of_the_simulation():
    """The help shows them without importing the class."""
    defaults = {field.name: field.default for field in dataclasses.fields(Simulation)}
    shown = {name: default for name, (default, _) in simulate.SETTINGS.items()}
    assert shown == {name: defaults[name] for name in shown}


def test_simulate_run_compare(tmp_path, capsys):
    """The commands of the demo work for a subarray."""
    assert main(["simulate", "visit", *SMALL, "--seed=5", "--sky-level=1.3"]) == 0
    association = tmp_path / capsys.readouterr().out.strip()
    skyflat = SkyflatPipeline.call(
        association,
        output_file="sky.fits",
        steps={"flat_field": {"override_flat": "visit/flat.fits"}},
    )
    assert skyflat.meta.subarray.name == "SUBSTRIP96"
    assert (skyflat.meta.subarray.ystart, skyflat.meta.subarray.ysize) == (1803, 96)
    assert main(["compare", "sky_skyflat.fits", "visit/truth.fits", "-o", "page.png"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[2:5]}
    assert list(rows) == ["median", "BKG", "BKGDN"]
    assert float(rows["BKGDN"][0]) < 0.5 * float(rows["BKG"][0])
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_simulate_a_time_series(tmp_path, capsys):
    assert main(["simulate", "series", *SMALL, "--time-series"]) == 0
    path = tmp_path / capsys.readouterr().out.strip()
    assert fits.getval(path, "TSOVISIT") is True


def test_faults_end_in_one_line(tmp_path):
    done = run_program(
        "soss-background", "compare", "no.fits", "no.fits", "-o", "p.png", home=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("soss-background: ")
    assert len(done.stderr.splitlines()) == 1
    assert "no.fits" in done.stderr


def test_compare_needs_the_stack(tmp_path, capsys):
    main(["simulate", "visit", *SMALL])
    SkyflatPipeline.call(
        tmp_path / capsys.readouterr().out.strip(),
        output_file="sky.fits",
        steps={"flat_field": {"skip": True}, "skyflat_combine": {"save_stack": False}},
    )
    assert main(["compare", "sky_skyflat.fits", "visit/truth.fits", "-o", "page.png"]) == 1
    assert "sky_skyflat.fits: MASKS is missing" in capsys.readouterr().err
    assert not (tmp_path / "page.png").exists()
