"""The console script."""

import dataclasses
import json
import subprocess
import sys

from astropy.io import fits
from helpers import run_program

from soss_background import SkyflatPipeline, __version__
from soss_background.cli import main, simulate
from soss_background.simulate import Simulation

SMALL = ["--n-exposures=2", "--n-integrations=2", "--star-density=0", "--subarray=SUBSTRIP96"]


# Options of each subcommand besides --help.
OPTIONS = {
    "simulate": [f"--{name.replace('_', '-')}" for name in simulate.SETTINGS]
    + ["--subarray", "--time-series"],
    "compare": ["--output"],
    "query": "--programs --all --after --before --product --index --login --output".split(),
    "download": ["--output-dir", "--login"],
    "asn": "--output-dir --gap-days --by-pwcpos --product-name --background".split(),
    "batch": "--output-dir --workers --scheduler --overwrite".split(),
    "model": ["--output", "--plot", "--author", "--description"],
    "reference": "--model -n --output --subarray --plane --flat --merge-below --max-residual "
    "--useafter --author --pedigree --description".split(),
    "report": ["--output"],
    "characterize": ["--output-dir"],
    "fluxcal": ["psf", "mean", "total", "expected"],
    "fluxcal psf": ["--sky-annulus", "--output-dir"],
    "fluxcal mean": ["--psf", "--output", "--plot"],
    "fluxcal total": ["--psf", "--radii", "--clearp", "--output"],
    "fluxcal expected": ["--throughputs", "--area", "--gain", "--measured", "--output", "--plot"],
}

# Usage errors and what their messages say.
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
    "query --before soon": "soon is no date",
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

# What help texts and usage errors must not import, since it is slow.
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
    assert run_light(["--version"]) == [[0, f"{__version__}\n"]]


def test_defaults_of_the_simulation():
    """The help shows them without importing the class."""
    defaults = {field.name: field.default for field in dataclasses.fields(Simulation)}
    shown = {name: default for name, (default, _) in simulate.SETTINGS.items()}
    assert shown == {name: defaults[name] for name in shown}


def test_simulate_run_compare(tmp_path, capsys):
    """The road of the demo, with a subarray."""
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


def test_faults_are_told_in_a_line(tmp_path):
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
