"""With and without CRDS, no correction is silently skipped, and no run ends in a traceback."""

import os
import shutil
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import asdf
import pytest
from astropy.io import fits
from conftest import SMALL
from crds.core import utils
from crds_cache import CONTEXT, make_cache
from helpers import run_program, strun
from numpy.testing import assert_allclose
from stpipe import crds_client

from soss_background import (
    SkyflatMaskStep,
    SkyflatModel,
    SkyflatPipeline,
    SkyflatSpec2Pipeline,
    SossStarePipeline,
)
from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.io.signals import StoppedError
from soss_background.simulate import simulate_visit
from soss_background.steps import crds_access

PIPELINE = "soss_background.SkyflatPipeline"


@pytest.fixture
def crds(tmp_path, flat, monkeypatch):
    """Create a cache with a flat and parameters for two steps; use it in this process."""
    pars = tmp_path / "pars"
    pars.mkdir()
    SkyflatMaskStep(n_sigma=7.0).export_config(pars / "mask.asdf", include_metadata=True)
    SkyflatPipeline(suffix="mysky", steps={"skyflat_mask": {"n_sigma": 7.0}}).export_config(
        pars / "pipeline.asdf", include_metadata=True
    )
    environment = make_cache(
        tmp_path / "cache",
        {
            "flat": flat,
            "pars-skyflatmaskstep": pars / "mask.asdf",
            "pars-skyflatpipeline": pars / "pipeline.asdf",
            "fflat": None,
            "sflat": None,
            "dflat": None,
        },
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    utils.clear_function_caches()
    crds_access._crds_reachable.cache_clear()
    yield environment
    utils.clear_function_caches()
    crds_access._crds_reachable.cache_clear()


def test_override_of_another_place(visit, flat, tmp_path):
    bad = shutil.copy(flat, tmp_path / "bad.fits")
    fits.setval(bad, "SUBSTRT1", value=607)
    with pytest.raises(SkyflatError, match=r"bad\.fits does not fit it"):
        strun(PIPELINE, visit, f"--steps.flat_field.override_flat={bad}")


@pytest.mark.usefixtures("crds")
def test_reachable(monkeypatch, tmp_path):
    assert crds_access.crds_reachable()
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "empty"))
    assert not crds_access.crds_reachable()


def test_unreachable_server(monkeypatch, tmp_path):
    """A server that refuses connections is tried once, for a short time."""
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    monkeypatch.setenv("CRDS_SERVER_URL", "http://127.0.0.1:9")
    assert not crds_access.crds_reachable()


def test_silent_server(monkeypatch, tmp_path):
    """A server that accepts connections but does not answer causes no delay."""
    monkeypatch.setattr(crds_access, "_PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("CRDS_PATH", str(tmp_path))
        monkeypatch.setenv("CRDS_SERVER_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        assert not crds_access.crds_reachable()
        assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    "option", ["override_flat={flat}", "skip=true", "user_supplied_flat={flat}"]
)
def test_nothing_of_crds(option, visit, flat, tmp_path):
    done = run_program(
        "strun", PIPELINE, visit, f"--steps.flat_field.{option.format(flat=flat)}", home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (product,) = tmp_path.glob("*_skyflat.fits")
    header = fits.getheader(product)
    assert header["FLATCORR"] == ("SKIPPED" if option == "skip=true" else "COMPLETE")
    if option != "skip=true":
        assert header["R_FLAT"].endswith("flat.fits")
    with SkyflatModel(product) as skyflat:
        assert skyflat.meta.calibration_software_version
        assert skyflat.cal_logs.skyflat


def test_nothing_overridden(visit, tmp_path):
    done = run_program("strun", PIPELINE, visit, home=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    for way_out in (
        "--steps.flat_field.override_flat=FILE",
        "--steps.flat_field.skip=true",
        "CRDS_PATH",
    ):
        assert way_out in line
    assert not list(tmp_path.glob("*.fits"))


def test_what_is_flat_fielded_needs_no_flat(visit, flat, tmp_path):
    """Masked exposures of an earlier run, which are flat-fielded, are combined without CRDS."""
    override = f"--steps.flat_field.override_flat={flat}"
    strun(PIPELINE, visit, override, "--steps.skyflat_combine.skip=true")
    strun(PIPELINE, *tmp_path.glob("*_skyflatmask.fits"), "--steps.skyflat_mask.skip=true")
    (product,) = tmp_path.glob("*_skyflat.fits")
    assert fits.getval(product, "FLATCORR") == "COMPLETE"


def test_override_that_is_missing(visit):
    with pytest.raises(SkyflatError, match=r"none\.fits: no such file"):
        strun(PIPELINE, visit, "--steps.flat_field.override_flat=none.fits")


@pytest.mark.parametrize("fault", ["text", "truncated"])
def test_override_that_cannot_be_read(fault, visit, flat, tmp_path):
    bad = tmp_path / "bad.fits"
    content = Path(flat).read_bytes()
    bad.write_bytes(b"not a flat" if fault == "text" else content[: len(content) // 3])
    reason = "cannot be read as a reference file" if fault == "text" else "truncated"
    with pytest.raises(SkyflatError, match=rf"bad\.fits: {reason}"):
        strun(PIPELINE, visit, f"--steps.flat_field.override_flat={bad}")


def test_override_that_does_not_fit(visit, tmp_path):
    simulate_visit("other", replace(SMALL, window=Window("FULL", 1920, 600, 64, 64)))
    with pytest.raises(SkyflatError, match=r"flat\.fits was not applied, does it fit"):
        strun(PIPELINE, visit, f"--steps.flat_field.override_flat={tmp_path / 'other/flat.fits'}")


@pytest.mark.usefixtures("crds")
def test_parameter_references_can_be_disabled(visit, monkeypatch, caplog):
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    SkyflatMaskStep.call(visit)
    assert "n_sigma: 4.0" in caplog.text


def test_flat_field_alone_names_the_ways_out(exposures):
    step = SkyflatPipeline.step_defs["flat_field"]()
    with pytest.raises(SkyflatError, match="No flat reference file: CRDS cannot be reached"):
        step.run(str(exposures[0]))


@pytest.mark.usefixtures("crds")
def test_flat_and_parameters_from_the_cache(visit, flat, tmp_path):
    strun(PIPELINE, visit)
    (product,) = tmp_path.glob("*_mysky.fits")  # a parameter of the pipeline's own
    header = fits.getheader(product)
    assert header["FLATCORR"] == "COMPLETE"
    assert header["R_FLAT"] == "crds://jwst_niriss_flat_0001.fits"
    assert header["CRDS_CTX"] == CONTEXT
    with SkyflatModel(product) as skyflat:
        assert any("n_sigma: 7.0" in line for line in skyflat.cal_logs.skyflat)
        from_cache = skyflat.bkg.copy()
    by_hand = SkyflatPipeline.call(
        visit,
        steps={"flat_field": {"override_flat": flat}, "skyflat_mask": {"n_sigma": 7.0}},
    )
    assert_allclose(from_cache, by_hand.bkg, rtol=1e-6)


@pytest.mark.usefixtures("crds")
def test_the_user_wins_over_the_cache(visit):
    skyflat = SkyflatPipeline.call(visit, steps={"skyflat_mask": {"n_sigma": 3.0}})
    assert any("n_sigma: 3.0" in line for line in skyflat.cal_logs.skyflat)


@pytest.mark.usefixtures("crds")
def test_parameters_of_a_step_alone(visit, caplog):
    SkyflatMaskStep.call(visit)
    assert "n_sigma: 7.0" in caplog.text


@pytest.mark.usefixtures("crds")
def test_cache_without_a_flat(visit, tmp_path, caplog, monkeypatch):
    """If CRDS has no flat for these exposures, the run warns and continues, as in jwst."""
    environment = make_cache(tmp_path / "other", {"flat": None})
    monkeypatch.setenv("CRDS_PATH", environment["CRDS_PATH"])
    utils.clear_function_caches()
    skyflat = SkyflatPipeline.call(visit)
    assert skyflat.meta.skyflat.flat_correction == "SKIPPED"
    assert "00001_nis_rateints.fits: not flat-fielded" in caplog.text


@pytest.mark.usefixtures("crds")
def test_cache_that_lost_its_file(visit, tmp_path):
    for file in (tmp_path / "cache" / "references").rglob("*flat*.fits"):
        file.unlink()
    with pytest.raises(SkyflatError, match="No flat reference file: CRDS gives none"):
        SkyflatPipeline.call(visit)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (SkyflatPipeline, "No flat reference file: CRDS gives none"),
        (SkyflatSpec2Pipeline, "No reference files: CRDS gives none"),
        (SossStarePipeline, "No bkg reference file: CRDS gives none"),
        (SkyflatPipeline.step_defs["flat_field"], "No flat reference file: CRDS gives none"),
    ],
)
def test_crds_does_not_end_the_program(kind, message, exposures, monkeypatch):
    """Only the user can end the program while CRDS selects a reference file."""
    monkeypatch.setattr(crds_access, "_crds_reachable", lambda *_: True)
    monkeypatch.setattr(kind, "get_config_from_reference", lambda *_, **__: {})
    monkeypatch.setattr(crds_client, "get_multiple_reference_paths", exit_like_crds)
    with pytest.raises(SkyflatError, match=message) as caught:
        kind().run(str(exposures[0]))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(crds_client, "get_multiple_reference_paths", interrupt)
    with pytest.raises(StoppedError):
        kind().run(str(exposures[0]))


def exit_like_crds(*_):
    """End the program."""
    raise SystemExit(-1)


def interrupt(*_):
    """Stop the program as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def test_exported_parameters_are_valid(tmp_path):
    SkyflatMaskStep(grow=4).export_config(tmp_path / "p.asdf")
    with asdf.open(tmp_path / "p.asdf") as file:
        assert file["class"].endswith("SkyflatMaskStep")
        assert file["parameters"]["grow"] == 4
    assert SkyflatMaskStep.from_config_file("p.asdf").grow == 4
