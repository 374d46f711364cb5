"""The console script."""

import pytest
from astropy.io import fits
from helpers import run_program

from soss_background import SkyflatPipeline, __version__
from soss_background.cli import main

SMALL = ["--n-exposures=2", "--n-integrations=2", "--star-density=0", "--subarray=SUBSTRIP96"]


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


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
