"""Steps and pipeline as users run them (strun, call, run): parameters, names, products."""

from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from unittest import mock

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, edit_file, run_program, strun, write_small_exposures
from jwst.datamodels import ModelLibrary
from jwst.stpipe import Step
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst import datamodels

from soss_background import SkyflatCombineStep, SkyflatDenoiseStep, SkyflatModel, SkyflatPipeline
from soss_background.errors import SkyflatError
from soss_background.simulate.comparison import compare_with_truth, sky_errors

NAME = "nis_clear_gr700xd_LON009_LAT-02_DOY320_001_000_skyflat.fits"
PIPELINE = "soss_background.SkyflatPipeline"


@pytest.fixture(scope="module")
def reference(visit, flat, tmp_path_factory):
    """Create the skyflat of the small visit once; return its path."""
    folder = tmp_path_factory.mktemp("reference")
    SkyflatPipeline.call(
        str(visit),
        save_results=True,
        output_dir=str(folder),
        steps={"flat_field": {"override_flat": flat}},
    )
    return folder / NAME


@pytest.fixture
def skyflat(reference):
    """Open the skyflat of the small visit."""
    with SkyflatModel(reference) as model:
        yield model


def assert_similar_sky(mine, expected):
    """
    Compare skies that differ by rounding: pixel by pixel, and their smooth parts more coarsely.

    Rounding changes a few masked pixels, and with these how such a small field is split into
    smooth sky and wings of stars, by up to 1 %. A wrong flat would change single pixels.
    """
    change = np.where(expected.dq & 1 == 0, mine.bkg - expected.bkg, np.nan)
    assert abs(np.nanmedian(change)) < 0.01 * np.nanmedian(expected.bkg)
    assert 1.4826 * np.nanmedian(np.abs(np.diff(change, axis=1))) < 0.01


def assert_same_sky(path, reference):
    """Compare two products, plane by plane."""
    with fits.open(path) as found, fits.open(reference) as expected:
        for plane in ("BKG", "BKGDN", "ERR", "DQ", "SCI", "MASKS"):
            assert_allclose(found[plane].data, expected[plane].data, rtol=1e-5, err_msg=plane)


def test_product(reference, skyflat, visit, flat):
    assert skyflat.bkg.shape == (128, 256)
    assert skyflat.images.shape == skyflat.masks.shape == (5, 128, 256)
    assert skyflat.images.dtype.newbyteorder("=") == np.float32
    science = skyflat.dq & 2**31 == 0
    for plane in (skyflat.bkg, skyflat.bkgdn, skyflat.err):
        assert np.isfinite(plane).all()
        assert (plane[science] > 0).all()
        assert (plane[~science] == 0).all()
    assert_array_equal(~science[-4:], True)
    header = fits.getheader(reference)
    expected = {
        "DATAMODL": "SkyflatModel",
        "FILENAME": NAME,
        "AUTHOR": "soss_background",
        "FLATCORR": "COMPLETE",
        "S_FLAT": "COMPLETE",
        "NSAMPS": 5,
        "PROGRAM": "04479",
        "TARGPROP": "SKYFLAT-1",
        "DAY": 320,
        "MINDAY": 320,
        "MAXDAY": 320,
        "R_FLAT": flat,
        "SUBARRAY": "FULL",
        "EXP_TYPE": "NIS_SOSS",
        "S_SKYMSK": "COMPLETE",
        "S_SKYCMB": "COMPLETE",
        "S_SKYDEN": "COMPLETE",
        "CAL_VER": datamodels.read_metadata(reference)["meta.calibration_software_version"],
        "ASNTABLE": visit.name,
    }
    assert {key: header.get(key) for key in expected} == expected
    assert_allclose([header["LON"], header["LAT"]], [9, -2], atol=0.05)
    logs = skyflat.cal_logs
    assert any("ending calwebb_detector1" in line for line in logs.calwebb_detector1)
    assert any("masked as sources" in line for line in logs.skyflat)


def test_closer_to_the_truth_than_the_median(reference, visit):
    comparison = compare_with_truth(reference, visit.parent / "truth.fits")
    _, plain = sky_errors(comparison.median, comparison.truth, comparison.science)
    _, ours = sky_errors(comparison.bkgdn, comparison.truth, comparison.science)
    for metric, value in ours.items():
        assert value < 0.7 * plain[metric], metric
    assert ours["scatter"] < 0.5
    pull = (comparison.bkg - comparison.truth)[comparison.science]
    pull -= np.median(pull)
    assert_allclose(
        1.4826 * np.median(np.abs(pull / comparison.err[comparison.science])), 1, atol=0.12
    )


def test_masks_cover_the_star_light(visit, skyflat):
    with fits.open(visit.parent / "truth.fits") as truth:
        stars, sky = truth["STARS"].data, truth["SKY"].data
    science = np.broadcast_to(skyflat.dq & 2**31 == 0, stars.shape)
    bright = science & (stars > 0.05 * sky)
    assert skyflat.masks[bright].mean() > 0.97
    assert stars[science & (skyflat.masks > 0)].sum() > 0.8 * stars[science].sum()
    assert skyflat.masks[science & (stars < 0.005 * sky)].mean() < 0.25


@pytest.mark.parametrize("kind", ["files", "list", "models", "library"])
def test_every_input_gives_the_same_sky(kind, visit, exposures, flat, reference, tmp_path):
    inputs = {
        "files": [str(path) for path in exposures],
        "list": [[str(path) for path in exposures]],
        "models": [[datamodels.open(path) for path in exposures]],
        "library": [ModelLibrary(visit)],
    }[kind]
    skyflat = SkyflatPipeline.call(*inputs, steps={"flat_field": {"override_flat": flat}})
    skyflat.save(tmp_path / "sky.fits")
    assert_same_sky(tmp_path / "sky.fits", reference)


def test_run(visit, flat, reference, tmp_path):
    pipeline = SkyflatPipeline()
    pipeline.flat_field.override_flat = flat
    pipeline.output_file = "mine.fits"
    pipeline.run(str(visit))
    assert_same_sky(tmp_path / "mine_skyflat.fits", reference)


def test_strun_step_by_step(exposures, flat, reference, tmp_path):
    """Each step runs alone on the saved result of the previous step."""
    before = checksums(exposures)
    flatted = []
    for path in exposures:
        step = SkyflatPipeline.step_defs["flat_field"]()
        step.override_flat = flat
        step.save_results = True
        step.run(str(path))
        flatted.append(tmp_path / path.name.replace("rateints", "flatfieldstep"))
    strun("soss_background.SkyflatMaskStep", *flatted)
    masked = [path.with_name(path.name.replace("flatfieldstep", "skyflatmask")) for path in flatted]
    with datamodels.open(masked[0]) as image:
        assert isinstance(image, datamodels.ImageModel)
        assert set(np.unique(image.mask)) == {0, 1}
        assert image.meta.cal_step.skyflat_mask == "COMPLETE"
        assert not image.mask[image.dq & 1 > 0].any()
    strun("soss_background.SkyflatCombineStep", *masked)
    combined = tmp_path / NAME.replace("skyflat.fits", "skyflatcombine.fits")
    with SkyflatModel(combined) as model:
        assert model.bkgdn is None
        assert model.meta.cal_step.skyflat_mask == "COMPLETE"
    strun("soss_background.SkyflatDenoiseStep", combined)
    denoised = tmp_path / NAME.replace("skyflat.fits", "skyflatdenoise.fits")
    with SkyflatModel(denoised) as mine, SkyflatModel(reference) as expected:
        assert_similar_sky(mine, expected)
    assert checksums(exposures) == before


def test_strun_in_a_process_of_its_own(visit, flat, reference, tmp_path):
    done = run_program(
        "strun", PIPELINE, visit, f"--steps.flat_field.override_flat={flat}", home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "masked as sources" in done.stderr
    assert "Warning" not in done.stderr
    assert "exposure/s" not in done.stderr  # the progress bar is for terminals
    assert_same_sky(tmp_path / NAME, reference)


def test_alias(visit, tmp_path):
    strun("skyflat", visit, "--steps.flat_field.skip=true")
    assert fits.getval(tmp_path / NAME, "FLATCORR") == "SKIPPED"


def test_names_that_the_user_gives(visit, tmp_path):
    options = ["--steps.flat_field.skip=true", "--steps.skyflat_combine.save_stack=false"]
    strun(PIPELINE, visit, *options, "--output_dir=deep/er", "--suffix=sky")
    strun(PIPELINE, visit, *options, "--output_file=given.fits")
    strun(PIPELINE, visit, *options, "--output_file=given_skyflat.asdf", "--output_ext=.asdf")
    assert (tmp_path / "deep/er" / NAME.replace("skyflat.fits", "sky.fits")).exists()
    with SkyflatModel(tmp_path / "given_skyflat.fits") as model:
        assert model.images is None
        assert model.masks is None
        assert model.meta.filename == "given_skyflat.fits"
    assert (tmp_path / "given_skyflat.asdf").exists()


def test_results_of_the_steps_can_be_saved(visit, flat, tmp_path, exposures):
    steps = {name: {"save_results": True} for name in SkyflatPipeline.step_defs}
    steps["flat_field"]["override_flat"] = flat
    SkyflatPipeline.call(visit, steps=steps, save_results=True)
    root = NAME.removesuffix("skyflat.fits")
    kinds = ("", "combine", "denoise", "quality")
    products = {f"{root}skyflat{kind}.fits" for kind in kinds}
    for path in exposures:
        stem = path.name.removesuffix("rateints.fits")
        products |= {f"{stem}flat_field.fits", f"{stem}skyflatmask.fits"}
    assert {path.name for path in tmp_path.glob("[!.]*")} == products


def test_output_file_of_several_masks(exposures, tmp_path):
    strun("soss_background.SkyflatMaskStep", *exposures[:2], "--output_file=m.fits")
    strun("soss_background.SkyflatMaskStep", exposures[0], "--output_file=one.fits")
    names = ["m_0_skyflatmask.fits", "m_1_skyflatmask.fits", "one_skyflatmask.fits"]
    assert sorted(path.name for path in tmp_path.glob("*.fits")) == names


@pytest.mark.parametrize(
    "step", ["skyflat_mask", "skyflat_combine", "skyflat_denoise", "skyflat_quality"]
)
def test_skip(step, visit, tmp_path):
    strun(PIPELINE, visit, "--steps.flat_field.skip=true", f"--steps.{step}.skip=true")
    if step == "skyflat_combine":
        paths = sorted(tmp_path.glob("*_nis_skyflatmask.fits"))
        assert len(paths) == 5
        with datamodels.open(paths[0]) as image:
            assert 0 < image.mask.mean() < 1
        return
    with SkyflatModel(tmp_path / NAME) as skyflat:
        assert getattr(skyflat.meta.cal_step, step) == "SKIPPED"
        assert (skyflat.bkgdn is None) == (step == "skyflat_denoise")
        if step == "skyflat_mask":
            assert skyflat.metadata["masked_fraction"].max() < 0.1


def test_parameter_file(visit, tmp_path):
    strun(
        PIPELINE,
        visit,
        "--steps.flat_field.skip=true",
        "--steps.skyflat_mask.grow=3",
        "--steps.skyflat_combine.author=A. Uthor",
        "--save-parameters=pars.asdf",
        "--output_file=first.fits",
    )
    strun("pars.asdf", visit, "--output_file=second.fits")
    assert_same_sky(tmp_path / "first_skyflat.fits", tmp_path / "second_skyflat.fits")
    assert fits.getval(tmp_path / "second_skyflat.fits", "AUTHOR") == "A. Uthor"
    third = SkyflatPipeline.call(visit, config_file="pars.asdf")
    assert third.meta.author == "A. Uthor"


@pytest.mark.parametrize(
    ("step", "option"),
    [
        ("skyflat_mask", "n_sigma=0.1"),
        ("skyflat_mask", "grow=-1"),
        ("skyflat_combine", "hot_sigma=abc"),
        ("skyflat_denoise", "sigma_rows=0"),
    ],
)
def test_parameters_out_of_range(step, option, visit):
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        strun(PIPELINE, visit, f"--steps.{step}.{option}")


def test_already_flat_fielded(visit, flat, reference):
    """Exposures are not divided by the flat twice."""
    library = ModelLibrary(visit)
    step = SkyflatPipeline.step_defs["flat_field"]()
    step.override_flat = flat
    with library:
        for index, model in enumerate(library):
            library.shelve(step.run(model), index)
    SkyflatPipeline.call(
        library, output_file="twice", steps={"flat_field": {"override_flat": flat}}
    )
    with SkyflatModel("twice_skyflat.fits") as mine, SkyflatModel(reference) as expected:
        assert mine.meta.skyflat.flat_correction == "COMPLETE"
        assert_similar_sky(mine, expected)


def test_rate_and_rateints(visit, exposures, tmp_path):
    """Rates made by a plain mean of the good integrations give the same sky as the cubes."""
    for path in exposures:
        with datamodels.open(path) as cube:
            good = (cube.dq & 1 == 0) & np.isfinite(cube.data)
            count = np.maximum(good.sum(axis=0), 1)
            image = datamodels.ImageModel(np.sum(cube.data, axis=0, where=good) / count)
            image.err = np.sqrt(np.sum(cube.err**2, axis=0, where=good)) / count
            image.dq = np.where(good.any(axis=0), 0, cube.dq[0] | 1)
            image.update(cube)
            image.save(tmp_path / path.name.replace("rateints", "rate"))
    skip = {"flat_field": {"skip": True}}
    from_rates = SkyflatPipeline.call(sorted(tmp_path.glob("*_rate.fits")), steps=skip)
    from_cubes = SkyflatPipeline.call(visit, steps=skip)
    assert 1.4826 * np.median(np.abs(from_rates.bkgdn - from_cubes.bkgdn)) < 0.01
    assert_allclose(np.median(from_rates.err / np.maximum(from_cubes.err, 1e-9)), 1, rtol=0.02)


@pytest.mark.parametrize(("in_memory", "threads"), [(True, "2"), (False, "1")])
def test_memory_and_threads_change_nothing(visit, flat, monkeypatch, in_memory, threads):
    steps = {"flat_field": {"override_flat": flat}}
    expected = SkyflatPipeline.call(visit, steps=steps)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    skyflat = SkyflatPipeline.call(visit, steps=steps, in_memory=in_memory)
    for name in ("bkg", "bkgdn", "err", "dq", "images", "masks", "metadata"):
        assert_array_equal(getattr(skyflat, name), getattr(expected, name))
    assert isinstance(skyflat.images, np.memmap) != in_memory


class DoubleStep(Step):
    """Double an exposure, as a hook."""

    def process(self, model):
        """Return a doubled copy."""
        doubled = model.copy()
        doubled.data *= 2
        return doubled


def test_hooks(visit):
    skyflats = [
        SkyflatPipeline.call(visit, steps={"flat_field": {"skip": True, "post_hooks": hooks}})
        for hooks in ([], [DoubleStep])
    ]
    assert_allclose(np.median(skyflats[1].bkg / np.maximum(skyflats[0].bkg, 1)), 2, rtol=0.01)


def test_denoise_leaves_its_input_unchanged(skyflat):
    before = skyflat.copy()
    denoised = SkyflatDenoiseStep.call(skyflat, sigma_rows=3.0)
    assert_array_equal(skyflat.bkgdn, before.bkgdn)
    assert np.std(denoised.bkgdn - skyflat.bkgdn) > 0


@pytest.mark.parametrize("given", ["exposure", "missing", "text", "model"])
def test_denoise_wants_a_skyflat(given, exposures, tmp_path):
    (tmp_path / "text.fits").write_text("no skyflat")
    init, message = {
        "exposure": (exposures[0], "not a skyflat"),
        "missing": (tmp_path / "no.fits", "no.fits: no such file"),
        "text": (tmp_path / "text.fits", "text.fits: cannot be read"),
        "model": (datamodels.open(exposures[0]), "not a skyflat"),
    }[given]
    with pytest.raises(SkyflatError, match=message):
        SkyflatDenoiseStep.call(init)


def test_no_input_is_overwritten(exposures, tmp_path):
    strun("soss_background.SkyflatMaskStep", *exposures[:2])
    masks = sorted(tmp_path.glob("*_skyflatmask.fits"))
    before = checksums(masks)
    with pytest.raises(SkyflatError, match="skyflatmask.fits is an input"):
        strun("soss_background.SkyflatMaskStep", *masks)
    assert checksums(masks) == before


def test_an_old_product_stays_until_the_new_one_is_whole(skyflat, tmp_path, monkeypatch):
    old = tmp_path / "nis_skyflatdenoise.fits"
    skyflat.save(old)
    before = checksums([old])

    def fail(model, path, *args, **kwargs):  # noqa: ARG001
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(SkyflatModel, "save", fail)
    with pytest.raises(SkyflatError, match="nis_skyflatdenoise.fits: cannot be written .disk full"):
        SkyflatDenoiseStep.call(skyflat, output_file="nis.fits")
    assert checksums([old]) == before
    assert list(tmp_path.iterdir()) == [old]


def test_results_do_not_depend_on_the_order_of_combination(exposures):
    forth = SkyflatCombineStep.call(exposures)
    back = SkyflatCombineStep.call(exposures[::-1])
    assert_allclose(forth.bkg, back.bkg, rtol=1e-4)


ONCE_AN_EXPOSURE = (
    "soss_background.numerics.summaries.bin_to_cells",
    "soss_background.numerics.summaries.usable_pixels",
    "soss_background.io.exposures.read_header",
)


@pytest.mark.parametrize("as_models", [False, True])
def test_nothing_is_computed_twice(visit, flat, as_models):
    """Headers, usable pixels, cells and the description of the product are computed once."""
    files = sorted(Path(visit).parent.glob("*_rateints.fits"))
    models = [datamodels.open(path) for path in files] if as_models else []
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(model)
        places = (*ONCE_AN_EXPOSURE, "soss_background.io.exposures._describe_product")
        spies = [
            stack.enter_context(mock.patch(place, wraps=resolve_name(place))) for place in places
        ]
        SkyflatPipeline.call(models or str(visit), steps={"flat_field": {"override_flat": flat}})
    headers = 0 if as_models else len(files)
    expected = [len(files), len(files), headers, 1]
    assert [spy.call_count for spy in spies] == expected


def test_a_changed_exposure_is_summarized_anew(visit, flat):
    """Pixels that are flagged between masking and combination are not used."""
    steps = {"flat_field": {"override_flat": flat}, "skyflat_combine": {"skip": True}}
    library = SkyflatPipeline.call(str(visit), steps=steps)
    with library:
        for index, image in enumerate(library):
            image.data[40:44, 40:48] = np.nan
            library.shelve(image, index)
    skyflat = SkyflatCombineStep.call(library)
    assert (skyflat.dq[40:44, 40:48] & 1 == 1).all()
    assert np.isfinite(skyflat.bkg).all()


def test_err_includes_that_of_the_flat(tmp_path):
    """The uncertainty that flat_field records does not average over the exposures."""
    paths = write_small_exposures(tmp_path, 4)
    plain = SkyflatCombineStep.call(list(map(str, paths)))

    def record(model):
        model.var_flat = (0.02 * model.data) ** 2
        model.meta.cal_step.flat_field = "COMPLETE"

    for path in paths:
        edit_file(path, record)
    found = SkyflatCombineStep.call(list(map(str, paths)))
    science = plain.dq & 2**31 == 0
    added = np.sqrt((found.err**2 - plain.err**2)[science])
    assert_allclose(np.median(added), 0.02 * np.median(plain.bkg[science]), rtol=0.05)
