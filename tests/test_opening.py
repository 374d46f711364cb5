"""Anything that jwst opens is opened: files of other programs, folders, wildcards, models."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, edit_file, make_skyflat, strun, write_small_exposures
from numpy.testing import assert_array_equal
from stdatamodels.jwst import datamodels

from soss_background import SkyflatCombineStep, SkyflatMaskStep, SkyflatModel, SkyflatPipeline
from soss_background.associations import make_associations
from soss_background.detector import SUBSTRIP96
from soss_background.errors import SkyflatError
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.io.exposures import find_exposures, iterate_images, open_libraries, root_name
from soss_background.io.skyflats import find_files, open_skyflat
from soss_background.io.templates import read_templates

SKIP_FLAT = {"flat_field": {"skip": True}}


def resave(path, folder, *, datamodl="ImageModel", compress=False):
    """Save a file as astropy does for users: without the ASDF extension."""
    new = folder / path.name
    with fits.open(path) as hdus:
        del hdus["ASDF"]
        if datamodl is None:
            del hdus[0].header["DATAMODL"]
        else:
            hdus[0].header["DATAMODL"] = datamodl
        hdus.writeto(new)
    if compress:
        new = new.rename(f"{new}.gz")
        new.write_bytes(gzip.compress(new.read_bytes(), 1))
    return new


def save_asdf(path, folder):
    """Save an exposure as an ASDF file."""
    with datamodels.open(path) as model:
        model.save(folder / f"{path.stem}.asdf")
    return folder / f"{path.stem}.asdf"


def compress(path, folder):
    """Compress a file of jwst."""
    new = folder / f"{path.name}.gz"
    new.write_bytes(gzip.compress(path.read_bytes(), 1))
    return new


KINDS = {
    "no ASDF": resave,
    "no DATAMODL": lambda path, folder: resave(path, folder, datamodl=None),
    "unknown DATAMODL": lambda path, folder: resave(path, folder, datamodl="OldImageModel"),
    "all of it": lambda path, folder: resave(path, folder, datamodl=None, compress=True),
    "gzip": compress,
    "ASDF": save_asdf,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Write two small exposures."""
    return write_small_exposures(tmp_path_factory.mktemp("originals"))


@pytest.mark.parametrize("kind", KINDS)
def test_exposures_of_other_programs(kind, originals, tmp_path):
    """Every way to open the files gives the pixels and the header of the original."""
    paths = [KINDS[kind](path, tmp_path) for path in originals]
    before = checksums(paths)
    (library,), (expected,) = open_libraries(paths), open_libraries(originals)
    for mine, theirs in zip(*map(iterate_images, (library, expected)), strict=True):
        for plane in ("data", "err", "dq", "var_poisson"):
            assert_array_equal(getattr(mine, plane), getattr(theirs, plane))
    (row,) = make_associations(paths, tmp_path)
    assert (row["n"], row["product"]) == (2, make_associations(originals, tmp_path)["product"][0])
    step = TraceFitStep()
    with step.open_exposure(paths[0]) as model:
        assert isinstance(model, datamodels.ImageModel)
        assert model.meta.pointing.ra_v1 == fits.getval(originals[0], "RA_V1", 1)
    (product,) = step.load_as_level2_asn(paths[0])["products"]
    assert product["name"] == f"{root_name(originals[0])}.fits"
    assert [member["expname"] for member in product["members"]] == [str(paths[0])]
    assert checksums(paths) == before


def test_pixels_are_not_read_for_a_header(originals, tmp_path, monkeypatch):
    """Reading a header reads no pixels, even without ASDF, since they are mapped."""
    paths = [resave(path, tmp_path) for path in originals]
    calls = []
    opened = fits.open
    monkeypatch.setattr(fits, "open", lambda *a, **k: calls.append(k) or opened(*a, **k))
    make_associations(paths, tmp_path)
    assert not any(call.get("memmap") is False for call in calls)


def test_a_skyflat_of_resaved_exposures(originals, tmp_path):
    """The pipeline runs on a folder of files without ASDF extension and DATAMODL."""
    for path in originals:
        resave(path, tmp_path, datamodl=None, compress=True)
    strun("soss_background.SkyflatPipeline", tmp_path, "--steps.flat_field.skip=true")
    expected = SkyflatPipeline.call(originals, steps=SKIP_FLAT)
    with SkyflatModel(next(tmp_path.glob("*_skyflat.fits"))) as skyflat:
        assert_array_equal(skyflat.bkgdn, expected.bkgdn)
    masked = SkyflatMaskStep.call(tmp_path, save_results=True)
    assert len(masked) == 2
    names = {f"{root_name(path)}_skyflatmask.fits" for path in originals}
    assert {path.name for path in tmp_path.glob("*_skyflatmask*")} == names


def test_big_endian_arrays(originals):
    models = [datamodels.open(path) for path in originals]
    for model in models:
        for name in ("data", "err", "dq", "var_poisson", "var_rnoise"):
            plane = getattr(model, name)
            setattr(model, name, plane.astype(plane.dtype.newbyteorder(">")))
    found = SkyflatPipeline.call(models, steps=SKIP_FLAT)
    expected = SkyflatPipeline.call(originals, steps=SKIP_FLAT)
    assert_array_equal(found.bkgdn, expected.bkgdn)


@pytest.mark.parametrize("kind", ["ASDF", "no ASDF"])
def test_skyflats_of_other_programs(kind, tmp_path):
    """A skyflat is recognized as a template and by the report."""
    original = make_skyflat()
    original.save(tmp_path / "a_skyflat.fits")
    path = tmp_path / "b_skyflat.fits"
    if kind == "ASDF":
        path = path.with_suffix(".asdf")
        original.save(path)
    else:
        with fits.open(tmp_path / "a_skyflat.fits") as hdus:
            del hdus["ASDF"]
            hdus.writeto(path)
    with open_skyflat(path) as skyflat:
        assert_array_equal(skyflat.bkgdn, original.bkgdn)
        window = (skyflat.meta.subarray.name, skyflat.meta.subarray.ystart)
    assert window == (original.meta.subarray.name, original.meta.subarray.ystart)
    (template,), (expected,) = (
        read_templates(p, SUBSTRIP96) for p in (path, path.with_name("a_skyflat.fits"))
    )
    assert_array_equal(template.sky, expected.sky)
    assert find_files([tmp_path]) == [path.with_name("a_skyflat.fits"), path]


def test_folders_and_wildcards(originals, tmp_path):
    """A folder gives its _rateints files, and the _rate files of other exposures."""
    cube = tmp_path / originals[0].name.replace("_rate", "_rateints")
    for path in (*originals, tmp_path / "x_skyflatmask.fits", tmp_path / "[a]_rate.txt"):
        shutil.copy(originals[0], tmp_path / path.name)
    shutil.copy(originals[0], cube)
    second = tmp_path / originals[1].name
    assert find_exposures([tmp_path]) == [cube, second]
    assert find_exposures([f"{tmp_path}/*_rate.fits"]) == [tmp_path / originals[0].name, second]
    assert find_exposures([tmp_path / "[a]_rate.txt"]) == [tmp_path / "[a]_rate.txt"]
    assert [path.name for path in find_exposures(["no_*.fits"])] == ["no_*.fits"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkyflatError, match="empty: no _rateints or _rate file"):
        SkyflatPipeline.call(tmp_path / "empty")
    with pytest.raises(SkyflatError, match=r"no_\*.fits: no such file"):
        SkyflatPipeline.call("no_*.fits")
    products = TraceFitStep().load_as_level2_asn(f"{tmp_path}/*_rate.fits")["products"]
    assert len(products) == 2


# --- what the user names ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["str", "name", "path", "model", "list"])
def test_one_exposure_to_exclude(kind, originals):
    """One name is accepted in an attribute, the constructor and the parameters of a pipeline."""
    value = {
        "str": str(originals[1]),
        "name": root_name(originals[1]),
        "path": originals[1],
        "model": datamodels.open(originals[1]),
        "list": [datamodels.open(originals[1])],
    }[kind]
    by_attribute = SkyflatCombineStep()
    by_attribute.exclude = value
    pipeline, _ = SkyflatPipeline.build_config(None, steps={"skyflat_combine": {"exclude": value}})
    pipeline = SkyflatPipeline.from_config_section(pipeline)
    libraries = open_libraries(originals)
    for step in (by_attribute, SkyflatCombineStep(exclude=value), pipeline.skyflat_combine):
        step.check(libraries)
        (name,) = step.get_pars()["exclude"]
        assert root_name(name) == root_name(originals[1])
    skyflat = by_attribute.run(originals)
    assert_array_equal(skyflat.metadata["used"], [1, 0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"skyflat_combine": {"bad_pixels": "no.fits"}}, "no.fits: no such file"),
        ({"skyflat_combine": {"bad_pixels": "cut.fits"}}, "cut.fits: its shape is"),
        ({"skyflat_combine": {"exclude": "other"}}, "other, which is to be left out, is not among"),
        ({"skyflat_quality": {"ranges": "no.yaml"}}, "no.yaml: no such file"),
        (
            {"skyflat_combine": {"skip": True, "exclude": "x"}},
            "--steps.skyflat_combine.exclude is given, but skyflat_combine is skipped",
        ),
        (
            {"skyflat_quality": {"skip": True, "fail_on_qc": True}},
            "--steps.skyflat_quality.fail_on_qc is given, but skyflat_quality is skipped",
        ),
        (
            {"flat_field": {"skip": True, "override_flat": "cut.fits"}},
            "--steps.flat_field.override_flat is given, but flat_field is skipped",
        ),
        (
            {"flat_field": {"override_flat": "cut.fits", "user_supplied_flat": "no.fits"}},
            "override_flat and user_supplied_flat are given: give one of them",
        ),
        ({"flat_field": {"override_flat": "a\nb.fits"}}, r"a\\nb.fits: control characters in"),
        ({"skyflat_combine": {"bad_pixels": 300 * "x"}}, r"xxx\.\.\.: the name is too long"),
        ({"skyflat_quality": {"output_ext": ".csv"}}, "output_ext is '.csv', neither .fits nor"),
    ],
)
def test_what_is_named_is_applied(parameters, message, originals, tmp_path, monkeypatch):
    """Otherwise the run ends before it reads an exposure."""
    fits.writeto(tmp_path / "cut.fits", np.zeros((8, 8)))
    monkeypatch.setattr("soss_background.io.exposures.borrow_image", None)
    with pytest.raises(SkyflatError, match=message):
        SkyflatPipeline.call(originals, steps=SKIP_FLAT | parameters, save_results=True)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.fits"]


def test_a_flat_in_asdf_or_memory(exposures, flat, tmp_path):
    """Both give the same result as the FITS file."""
    with datamodels.FlatModel(flat) as model:
        model.save(tmp_path / "flat.asdf")
        skies = [
            SkyflatPipeline.call(exposures[:2], steps={"flat_field": {"override_flat": given}}).bkg
            for given in (flat, "flat.asdf", model)
        ]
    assert_array_equal(skies[1:], [skies[0]] * 2)


def test_a_flat_for_what_is_flat_fielded(exposures, flat, tmp_path):
    """The flat in the header may be named again, a different flat may not."""
    paths = [shutil.copy(path, tmp_path) for path in exposures[:2]]
    for path in paths:

        def edit(model):
            model.meta.cal_step.flat_field = "COMPLETE"
            model.meta.ref_file.flat.name = "crds://flat.fits"

        edit_file(path, edit)
    shutil.copy(flat, tmp_path / "other.fits")
    step = SkyflatPipeline.step_defs["flat_field"]()
    header = {"meta.cal_step.flat_field": "COMPLETE", "meta.ref_file.flat.name": "crds://flat.fits"}
    step.override_flat = flat
    step.check(header)
    with pytest.raises(SkyflatError, match=r"R_FLAT is 'crds://flat.fits'\), .*other.fits cannot"):
        SkyflatPipeline.call(paths, steps={"flat_field": {"override_flat": "other.fits"}})


def test_a_sky_that_was_subtracted(tmp_path, caplog):
    """Every step refuses such an exposure, and asn leaves it out."""

    def edit(model):
        model.meta.cal_step.bkg_subtract = "COMPLETE"

    paths = write_small_exposures(tmp_path, edit=edit)
    message = f"{paths[1].name}: its sky has been subtracted already"
    models = [[datamodels.open(path) for path in paths]]
    for step, inputs in (
        (SkyflatMaskStep, paths),
        (SkyflatCombineStep, paths),
        (SkyflatPipeline, paths),
        (SkyflatPipeline, models),
    ):
        with pytest.raises(SkyflatError, match=message):
            step.call(*inputs)
    (row,) = make_associations(paths, tmp_path)
    assert row["n"] == 1
    assert "Left out: " in caplog.text
    assert message in caplog.text


def test_a_time_series_is_no_blank_sky(tmp_path, caplog):
    """Headers with one pointing cause a warning, those of a dithered sky do not."""

    def edit(model):
        model.meta.visit.tsovisit = True
        model.meta.pointing.ra_v1 += 0.001

    paths = write_small_exposures(tmp_path, edit=edit)
    open_libraries(paths)
    assert "time series" not in caplog.text
    open_libraries(paths[1:])
    assert f"{paths[1].name}: TSOVISIT is true, as in a time series" in caplog.text
    with datamodels.open(paths[0]) as first, datamodels.open(paths[1]) as second:
        second.meta.pointing.ra_v1 = first.meta.pointing.ra_v1
        open_libraries([first, second])
    message = "TSOVISIT is true and all exposures have one pointing, as in a time series"
    assert message in caplog.text
