"""Faults of headers, shapes and parameters are found before any work, and named in one line."""

import bz2
import gzip
import logging
import lzma
import re
import sys
from functools import partial

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, make_skyflat, write_small_exposures
from helpers_fuzz import edit_fits
from stdatamodels.jwst import datamodels

from soss_background import (
    OptimalExtractStep,
    SkyflatCombineStep,
    SkyflatDenoiseStep,
    SkyflatMaskStep,
    SkyflatModel,
    SkyflatPipeline,
    SkyflatQualityStep,
    SkyflatSubtractStep,
    TraceFitStep,
)
from soss_background.associations import make_associations
from soss_background.cli import main
from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.io.checks import check_model
from soss_background.io.exposures import open_libraries, read_header
from soss_background.io.files import save_datamodel
from soss_background.io.library import as_image
from soss_background.io.skyflats import open_skyflat
from soss_background.io.templates import read_flat, read_templates
from soss_background.report.skyflat import report_skyflat, write_reports
from soss_background.simulate import Simulation
from soss_background.simulate.exposures import write_flat

WINDOW = Window("FULL", 1840, 640, 64, 128)


@pytest.fixture
def exposure(tmp_path):
    """Write a small exposure."""
    return write_small_exposures(tmp_path, n=1)[0]


@pytest.fixture
def skyflat(tmp_path):
    """Write a small skyflat with its exposures."""
    model = make_skyflat(window=WINDOW)
    model.images = np.stack([model.bkg] * 3)
    model.masks = np.zeros(model.images.shape, np.uint8)
    path = tmp_path / "small_skyflat.fits"
    model.save(path)
    return path


def reshape(path, name, change):
    """Change the shape of a plane of a file."""

    def edit(hdus):
        hdus[name].data = np.ascontiguousarray(change(hdus[name].data))

    edit_fits(path, edit)


# --- shapes ------------------------------------------------------------------------------

CHANGES = {
    "(63, 96)": lambda plane: plane[:-1],
    "(96, 64)": np.transpose,
    "(2, 64, 96)": lambda plane: np.stack([plane, plane]),
    "(96,)": lambda plane: plane[0],
}


@pytest.mark.parametrize("shape", CHANGES)
@pytest.mark.parametrize("plane", ["ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"])
def test_planes_of_an_exposure_have_one_shape(exposure, plane, shape):
    reshape(exposure, plane, CHANGES[shape])
    with pytest.raises(SkyflatError) as fault:
        open_libraries([exposure])
    message = f"{exposure}: {plane} has the shape {shape}, but SCI (64, 96)"
    assert str(fault.value) == message


@pytest.mark.parametrize(
    "step",
    [
        SkyflatMaskStep,
        SkyflatCombineStep,
        SkyflatPipeline,
        TraceFitStep,
        OptimalExtractStep,
        SkyflatSubtractStep,
    ],
)
def test_every_step_checks_shapes(exposure, step, caplog):
    reshape(exposure, "DQ", CHANGES["(63, 96)"])
    before = checksums([exposure])
    with pytest.raises(SkyflatError, match="DQ has the shape"):
        step.call(exposure)
    assert checksums([exposure]) == before
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert [each.message.count("DQ has the shape") for each in errors] == [1]


def test_planes_of_a_model_have_one_shape(exposure):
    with datamodels.open(exposure) as model:
        model.mask = np.ones((64, 95), np.uint32)
        with pytest.raises(SkyflatError, match=r"rate.fits: MASK has the shape \(64, 95\)"):
            as_image(model)
        with pytest.raises(SkyflatError, match="MASK has the shape"):
            TraceFitStep.call(model)


SKYFLAT_PLANES = {
    "BKGDN": lambda plane: plane[:-1],
    "ERR": lambda plane: plane[np.newaxis],
    "DQ": lambda plane: plane[:, :-1],
    "MASKS": lambda plane: plane[:, :-1],
}


@pytest.mark.parametrize("plane", SKYFLAT_PLANES)
def test_planes_of_a_skyflat_have_one_shape(skyflat, plane):
    reshape(skyflat, plane, SKYFLAT_PLANES[plane])
    match = f"small_skyflat.fits: {plane} has the shape .*, but BKG"
    for read in (
        open_skyflat,
        report_skyflat,
        SkyflatDenoiseStep.call,
        SkyflatQualityStep.call,
        lambda path: read_templates(path, WINDOW),
    ):
        with pytest.raises(SkyflatError, match=match):
            read(skyflat)


@pytest.mark.parametrize("plane", ["SCI", "MASKS"])
def test_a_skyflat_has_as_many_masks_as_exposures(skyflat, plane):
    for change in (lambda stack: stack[:-1], lambda stack: stack[0]):
        reshape(skyflat, plane, change)
        with pytest.raises(SkyflatError, match="do not hold the same number of exposures"):
            SkyflatQualityStep.call(skyflat)


def test_an_exposure_without_rows(exposure):
    for plane in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"):
        reshape(exposure, plane, lambda array: array[:0])
    with pytest.raises(SkyflatError, match=r"SCI has no pixel, its shape is \(0, 96\)"):
        read_header(exposure)


@pytest.mark.parametrize("step", [SkyflatMaskStep, SkyflatCombineStep])
def test_an_exposure_that_lacks_rows(exposure, step):
    for plane in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"):
        reshape(exposure, plane, lambda array: array[:-1])
    with pytest.raises(SkyflatError, match=r"its shape is \(63, 96\), not \(64, 96\)"):
        step.call(exposure)


def test_a_compressed_plane_is_whole(exposure):
    def edit(hdus):
        compressed = fits.CompImageHDU(hdus["SCI"].data, hdus["SCI"].header, name="SCI")
        hdus[hdus.index_of("SCI")] = compressed

    edit_fits(exposure, edit)
    assert read_header(exposure)["meta.instrument.pupil"] == "GR700XD"


def test_a_table_is_no_plane(exposure):
    def edit(hdus):
        hdus["ERR"] = fits.BinTableHDU(np.zeros(2, [("a", "f4")]), name="ERR")

    edit_fits(exposure, edit)
    with pytest.raises(SkyflatError, match="ERR is a table, not an image"):
        read_header(exposure)


@pytest.mark.parametrize("step", [SkyflatMaskStep, SkyflatSubtractStep, TraceFitStep])
def test_a_model_of_another_kind(exposure, step):
    fits.setval(exposure, "DATAMODL", value="CubeModel")
    with pytest.raises(SkyflatError, match="rate.fits: cannot be read"):
        step.call(exposure)


def test_a_reference_file_is_no_exposure(tmp_path):
    flat = tmp_path / "flat.fits"
    datamodels.FlatModel(data=np.ones((64, 96), np.float32)).save(flat)
    with pytest.raises(SkyflatError, match="flat.fits: a reference file, not an exposure"):
        SkyflatSubtractStep.call(flat)


# --- files that are cut ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SCI", "MASKS"])
def test_a_cut_file_is_called_truncated(skyflat, name):
    with fits.open(skyflat) as hdus:
        info = hdus[name].fileinfo()
    content = skyflat.read_bytes()
    for end, fault in (
        (info["datLoc"] + 500, f"truncated in extension {name}"),
        (info["hdrLoc"] + 500, "truncated or damaged after extension"),
    ):
        skyflat.write_bytes(content[:end])
        for read in (open_skyflat, SkyflatQualityStep.call, read_header):
            with pytest.raises(SkyflatError, match=fault):
                read(skyflat)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_cut_compressed_file_is_called_truncated(skyflat, exposure, compress):
    """The check finds even a few missing bytes at the end, which readers ignore."""
    extension = {gzip: "gz", bz2: "bz2", lzma: "xz"}[sys.modules[compress.__module__]]
    readers = {
        exposure: [read_header, SkyflatMaskStep.call],
        skyflat: [open_skyflat, SkyflatQualityStep.call],
    }
    for path, functions in readers.items():
        content = compress(path.read_bytes())
        new = path.with_name(f"{path.name}.{extension}")
        new.write_bytes(content)
        functions[0](new)
        for end in (len(content) // 2, -9):
            new.write_bytes(content[:end])
            for read in functions:
                with pytest.raises(SkyflatError, match=f"{new.name}: truncated$"):
                    read(new)


def test_a_lost_extension_is_named(skyflat, exposure):
    for path, name in ((skyflat, "ERR"), (exposure, "VAR_RNOISE")):
        edit_fits(path, lambda hdus, name=name: hdus.pop(name))
        with pytest.raises(SkyflatError, match=f"damaged, extension {name} is missing"):
            read_header(path)


@pytest.mark.parametrize("step", [SkyflatMaskStep, SkyflatCombineStep, TraceFitStep])
def test_a_damaged_tree_of_an_exposure(step, exposure):
    """asdf finds the fault when it validates the tree, not when it reads the metadata."""
    edit_fits(exposure, partial(replace_in_tree, b"byteorder: ", b"byteorder: {a: 1}"))
    with pytest.raises(
        SkyflatError, match=f"{exposure.name}: cannot be read .ERROR loading"
    ) as err:
        step.call(exposure)
    assert "\n" not in str(err.value)


def test_a_damaged_block_of_an_asdf_file(skyflat, exposure, tmp_path, monkeypatch):
    """The fault is found before work, although data models load blocks lazily."""
    path = tmp_path / "a_skyflat.asdf"
    with SkyflatModel(skyflat) as model:
        model.save(path)
    content = path.read_bytes()
    place = content.rindex(b"\xd3BLK")
    path.write_bytes(content[: place + 10] + b"garbage" + content[place + 10 :])
    monkeypatch.setattr(SkyflatQualityStep, "process", lambda step, init: step.open_skyflat(init))
    monkeypatch.setattr(SkyflatSubtractStep, "_subtract", lambda *_: pytest.fail())
    with pytest.raises(SkyflatError, match="a_skyflat.asdf: cannot be read"):
        SkyflatQualityStep.call(path)
    with pytest.raises(SkyflatError, match="a_skyflat.asdf: cannot be read"):
        SkyflatSubtractStep.call(exposure, skyflat=path)


def test_metadata_that_the_schema_refuses(tmp_path):
    """jwst finds the fault when it saves; then no exposure is saved."""
    paths = write_small_exposures(tmp_path)
    edit_fits(paths[-1], partial(replace_in_tree, b"groups: ", b"groups: abc"))
    with pytest.raises(SkyflatError, match="00002_nis_rate.fits: cannot be saved .'abc") as caught:
        SkyflatMaskStep.call(paths, save_results=True)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.glob("*.fits")) == paths


def replace_in_tree(old, new, hdus):
    """Replace what follows some bytes up to the next separator in the ASDF tree of a file."""
    tree = hdus["ASDF"].data["ASDF_METADATA"].tobytes()
    place = tree.index(old)
    end = place + re.search(rb"[,\n}]", tree[place:]).start()
    tree = tree[:place] + new + tree[end:]
    data = np.frombuffer(tree, [("ASDF_METADATA", "u1", len(tree))])
    hdus["ASDF"] = fits.BinTableHDU(data, name="ASDF")


def test_nan_in_metadata_cannot_be_saved(skyflat):
    with SkyflatModel(skyflat) as model:
        model.meta.exposure.exposure_time = np.nan
        with pytest.raises(SkyflatError, match="b.fits: cannot be written .Floating point nan"):
            save_datamodel(model, skyflat.with_name("b.fits"))
    assert not skyflat.with_name("b.fits").exists()


@pytest.mark.filterwarnings("ignore")  # of asdf
def test_a_damaged_history(skyflat):
    """A history whose form does not match its version of asdf ends the run in one line."""
    edit_fits(skyflat, partial(replace_in_tree, b"#ASDF_STANDARD", b"#ASDF_STANDARD x"))
    with pytest.raises(SkyflatError, match="small_skyflat.fits: its history is damaged"):
        SkyflatDenoiseStep.call(skyflat)


def test_a_cut_flat_is_called_truncated(exposure, tmp_path):
    flat = tmp_path / "flat.fits"
    ones, zeros = np.ones((64, 96), np.float32), np.zeros((64, 96), np.uint32)
    write_flat(flat, ones, zeros, Simulation(window=Window("FULL", 1900, 600, 64, 96)))
    flat.write_bytes(flat.read_bytes()[:20000])
    with pytest.raises(SkyflatError, match=r"flat.fits: truncated in extension SCI"):
        read_flat(flat, WINDOW)
    steps = {"flat_field": {"override_flat": str(flat)}}
    with pytest.raises(SkyflatError, match=r"flat.fits: truncated in extension SCI"):
        SkyflatPipeline.call(exposure, steps=steps)


def test_a_report_says_what_is_missing(skyflat, tmp_path, caplog):
    with SkyflatModel(skyflat) as model:
        model.bkgdn = model.images = model.qc = None
        model.save(skyflat)
    write_reports([skyflat], tmp_path / "report.html")
    for extension in ("BKGDN", "SCI", "QC"):
        assert f"small_skyflat.fits: the report lacks {extension}" in caplog.text
    assert "BKGDN (not denoised?)" in (tmp_path / "report.html").read_text()


# --- values of headers -------------------------------------------------------------------

VALUES = {
    (1, "RA_V1", "abc"): "RA_V1 is 'abc', not a number",
    (1, "RA_V1", 1e9): "RA_V1 is 1e+09, not from -360 to 360",
    (1, "DEC_V1", True): "DEC_V1 is True, not a number",
    (1, "MJD-AVG", 1e9): r"MJD-AVG is 1e\+09, not from 51544 to 88069",
    (0, "EXPMID", "noon"): "EXPMID is 'noon', not a number",
    (0, "NINTS", 0): "NINTS is 0, not from 1 to",
    (0, "NINTS", 1.5): "NINTS is 1.5, not a whole number",
    (0, "DATE-END", "2023-13-45T00:00:00"): "DATE-END is '2023-13-45T00:00:00', not a date",
    (0, "FILENAME", 7): "FILENAME is 7, not a string",
    (0, "PROGRAM", 4479): "PROGRAM is 4479, not a string",
}


@pytest.mark.parametrize("place", VALUES, ids=str)
def test_values_that_make_no_sense(exposure, place, tmp_path):
    extension, keyword, value = place
    fits.setval(exposure, keyword, value=value, ext=extension)
    message = VALUES[place].replace("1e+09", r"1e\+09")
    with pytest.raises(SkyflatError, match=f"_rate.fits: {message}"):
        open_libraries([exposure])
    with pytest.raises(SkyflatError, match="no usable exposure"):
        make_associations([exposure], tmp_path)


def test_values_of_a_skyflat(skyflat):
    fits.setval(skyflat, "DNFACTOR", value=-2.0)
    with pytest.raises(SkyflatError, match="DNFACTOR is -2, not from 0 to inf"):
        SkyflatQualityStep.call(skyflat)
    model = make_skyflat(window=WINDOW)
    model.meta.skyflat.ecliptic_lat = 100.0
    with pytest.raises(SkyflatError, match="LAT is 100, not from -90 to 90"):
        check_model(model, "a")


# --- what shows no sky -------------------------------------------------------------------


def test_a_constant_is_no_sky(exposure, skyflat):
    with datamodels.open(exposure) as model:
        model.data[:] = 5
        with pytest.raises(SkyflatError, match="all usable pixels have the same value, 5"):
            as_image(model)
    with SkyflatModel(skyflat) as model:
        model.bkgdn[:] = 5
        model.save(skyflat)
    with pytest.raises(SkyflatError, match="no sky in it, all its pixels have the same value"):
        read_templates(skyflat, WINDOW)


def test_a_pupil_wheel_far_away_is_warned_of(exposure, caplog):
    fits.setval(exposure, "PWCPOS", value=100.0)
    open_libraries([exposure])
    assert "_rate.fits: PWCPOS is 100, not within 0.3 degrees of 245.76" in caplog.text


# --- links and parameters ----------------------------------------------------------------


def test_links_in_a_circle(tmp_path, capsys):
    path = tmp_path / "loop_rateints.fits"
    path.symlink_to(path.name)
    match = r"loop_rateints.fits: a link to loop_rateints.fits, which does not exist"
    for step in (SkyflatMaskStep, SkyflatSubtractStep, TraceFitStep, SkyflatQualityStep):
        with pytest.raises(SkyflatError, match=match):
            step.call(path)
    for words in (["asn", str(path)], ["report", str(path)]):
        assert main(words) == 1
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_are_finite(skyflat, value):
    before = checksums([skyflat])
    for run in (
        lambda: SkyflatDenoiseStep.call(skyflat, sigma_rows=value),
        lambda: SkyflatDenoiseStep(sigma_rows=value).run(skyflat),
    ):
        with pytest.raises(SkyflatError, match="sigma_rows is (nan|inf), not a finite number"):
            run()
    step = SkyflatDenoiseStep()
    step.sigma_rows = value
    with pytest.raises(SkyflatError, match="sigma_rows is"):
        step.run(skyflat)
    with pytest.raises(SkyflatError, match="skyflat_mask.n_sigma is nan, not a finite number"):
        SkyflatPipeline.call(skyflat, steps={"skyflat_mask": {"n_sigma": np.nan}})
    assert checksums([skyflat]) == before


def test_an_exposure_on_which_no_order_falls(exposure):
    fits.setval(exposure, "SUBSTRT2", value=7)
    with pytest.raises(SkyflatError, match="00001_nis_rate.fits: no order falls on its pixels"):
        TraceFitStep.call(exposure)


@pytest.mark.filterwarnings("ignore")  # of asdf
@pytest.mark.parametrize("step", [SkyflatMaskStep, TraceFitStep])
def test_planes_of_an_unknown_tag_are_no_arrays(step, exposure):
    edit_fits(exposure, partial(replace_in_tree, b"%TAG ! tag:stsci.edu:asdf/", b"%TAG ! tag:x"))
    with pytest.raises(SkyflatError, match="00001_nis_rate.fits: .*(not an array|cannot be read)"):
        step.call(exposure)
