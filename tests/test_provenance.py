"""A skyflat records its provenance, and the recorded command reproduces it."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, make_skyflat, strun
from stdatamodels.jwst import datamodels

from soss_background import (
    SkyflatDenoiseStep,
    SkyflatModel,
    SkyflatPipeline,
    SkyflatQualityStep,
    SkyflatSpec2Pipeline,
)
from soss_background.batch import PlannedPipeline
from soss_background.detector import SUBSTRIP96
from soss_background.steps.provenance import (
    describe_command,
    list_parameters,
    name_inputs,
    wrap_command,
)

# The pipeline that only reads its parameters.
PLANNED = f"{PlannedPipeline.__module__}.{PlannedPipeline.__qualname__}"


@pytest.fixture
def pipeline():
    return SkyflatPipeline()


def test_defaults_are_not_in_the_command(pipeline):
    assert describe_command(pipeline, ["a b_asn.json"]) == (
        "strun soss_background.SkyflatPipeline 'a b_asn.json'"
    )


def test_what_is_not_the_default_is(pipeline):
    pipeline.skyflat_mask.n_sigma = 3.5
    pipeline.skyflat_combine.exclude = ["x.fits", "y.fits"]
    pipeline.flat_field.override_flat = "flat.fits"
    pipeline.output_dir, pipeline.save_results = "out", True
    command = shlex.split(describe_command(pipeline, ["asn.json"]))
    assert sorted(command[3:]) == [
        "--steps.flat_field.override_flat=flat.fits",
        "--steps.skyflat_combine.exclude=x.fits,y.fits",
        "--steps.skyflat_mask.n_sigma=3.5",
    ]


def test_a_list_of_one_has_no_comma_unless_it_needs_one(pipeline):
    """A list that the type of the parameter makes of a single value, and others."""
    pipeline.skyflat_combine.exclude = ["x.fits"]
    pipeline.skyflat_combine.post_hooks = ["fitsinfo"]
    command = shlex.split(describe_command(pipeline, ["asn.json"]))
    assert sorted(command[3:]) == [
        "--steps.skyflat_combine.exclude=x.fits",
        "--steps.skyflat_combine.post_hooks=fitsinfo,",
    ]


@pytest.mark.parametrize(
    "names", [["x.fits"], ["a,b.fits"], ["a b.fits", "c#d.fits"], ['a"b.fits', "it's.fits"]]
)
def test_strun_reads_the_values_of_a_command(pipeline, names):
    pipeline.skyflat_combine.exclude = names
    (option,) = shlex.split(describe_command(pipeline, ["asn.json"]))[3:]
    step = PlannedPipeline.from_cmdline([PLANNED, "asn.json", "--log-stream=null", option])
    assert step.skyflat_combine.exclude == names


def test_saved_parameters_are_not_those_of_one_place(visit, flat, tmp_path):
    """Using saved parameters in a different folder changes nothing in the first one."""
    options = (f"--steps.flat_field.override_flat={flat}", "--steps.skyflat_mask.grow=2")
    step = "soss_background.SkyflatPipeline"
    folder = ("--output_dir", tmp_path / "first")
    strun(step, visit, *options, *folder, "--save-parameters=pars.asdf")
    (first,) = (tmp_path / "first").glob("*.fits")
    before = checksums([first])
    other = tmp_path / "other"
    other.mkdir()
    for path in visit.parent.glob("*[!h].*"):
        (other / path.name).symlink_to(path)
    pipeline = strun("pars.asdf", other / visit.name, "--output_file=mine.fits")
    assert pipeline.skyflat_mask.grow == 2
    assert pipeline.input_dir == str(other)
    assert checksums([first]) == before
    assert fits.getval(tmp_path / "mine_skyflat.fits", "R_FLAT") == flat


def test_saved_parameters_name_the_reference_files():
    """Saved parameters include reference files of jwst's steps, and names of models."""
    model = datamodels.FlatModel()
    model.meta.filename = "flat.fits"
    parts = {
        "assign_wcs": {"override_specwcs": "specwcs.asdf"},
        "bkg_subtract": {"override_flat": model, "override_bkg": Path("bkg.fits")},
    }
    SkyflatSpec2Pipeline(steps=parts).export_config("pars.asdf")
    again = SkyflatSpec2Pipeline.from_config_file("pars.asdf")
    assert again.assign_wcs.override_specwcs == "specwcs.asdf"
    assert again.bkg_subtract.override_flat == "flat.fits"
    assert again.bkg_subtract.override_bkg == "bkg.fits"
    assert again.bkg_subtract.override_pastasoss is None


def test_lines_for_a_shell(pipeline):
    """Names with blanks are quoted, and requested products are requested again."""
    pipeline.skyflat_mask.save_results = True
    names = [f"my folder/exposure number  {number} rateints.fits" for number in range(5)]
    command = describe_command(pipeline, names)
    lines = wrap_command(command)
    assert len(lines) > 3
    assert all(len(line) <= 72 for line in lines)
    words = shlex.split("\n".join(lines).replace("\\\n", ""))
    assert words == shlex.split(command)
    assert words[2:] == [*names, "--steps.skyflat_mask.save_results=True"]


def test_inputs_of_all_kinds():
    model = SkyflatModel()
    model.meta.filename = "sky.fits"
    names = name_inputs((["one.fits", model],))
    assert names == ["one.fits", "sky.fits"]
    command = describe_command(SkyflatDenoiseStep(), names)
    assert command == "strun soss_background.SkyflatDenoiseStep one.fits sky.fits"


def test_hooks_are_named(tmp_path):
    """Hooks are saved by name, and names are transliterated for HISTORY."""
    skyflat = make_skyflat(window=SUBSTRIP96)
    (tmp_path / "été").mkdir()
    skyflat.save(tmp_path / "été" / "a_skyflat.fits")
    SkyflatQualityStep.call(
        "été/a_skyflat.fits", post_hooks=[SkyflatDenoiseStep], save_results=True
    )
    (path,) = tmp_path.glob("*_skyflatquality.fits")
    with SkyflatModel(path) as saved:
        (run,) = saved.meta.skyflat.runs
        assert saved.meta.cal_step.skyflat_denoise == "COMPLETE"
    name = f"{SkyflatDenoiseStep.__module__}.SkyflatDenoiseStep"
    assert shlex.split(run.command)[2:] == ["été/a_skyflat.fits", f"--post_hooks={name},"]
    assert r"\xe9t\xe9/a_skyflat.fits" in "".join(fits.getheader(path)["HISTORY"])


def test_all_parameters(pipeline):
    parameters = list_parameters(pipeline)
    assert parameters["steps.skyflat_combine.n_sigma"] == 5.0
    assert parameters["steps.skyflat_quality.ranges"] is None
    assert "save_results" not in parameters


def test_the_command_of_a_skyflat_makes_it_again(visit, flat, tmp_path):
    """The commands reproduce the skyflat, even if steps were run one by one."""
    option = "--steps.skyflat_mask.grow=2"
    pipeline = "soss_background.SkyflatPipeline"
    strun(pipeline, visit, f"--steps.flat_field.override_flat={flat}", option, "--output_dir=first")
    (path,) = (tmp_path / "first").glob("*_skyflat.fits")
    # A line that is longer than a card continues in the next card.
    history = "".join(fits.getheader(path)["HISTORY"]).replace(" \\", " ")
    skyflat = SkyflatQualityStep.call(str(path))
    commands = [shlex.split(run.command) for run in skyflat.meta.skyflat.runs]
    assert [command[1] for command in commands] == [pipeline, "soss_background.SkyflatQualityStep"]
    assert shlex.split(history) == commands[0]
    assert option in commands[0]
    assert skyflat.meta.skyflat.runs[0].parameters.instance["steps.skyflat_mask.grow"] == 2
    first = fits.getdata(path, "BKG")
    path.unlink()
    strun(*commands[0][1:], "--output_dir=first")
    np.testing.assert_array_equal(fits.getdata(path, "BKG"), first)
