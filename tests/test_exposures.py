"""Any input is opened, or refused with the name of the file and the fault."""

import json
import shutil

import numpy as np
import pytest
from helpers import checksums, edit_file, run_program, write_small_exposures
from jwst.datamodels import ModelLibrary
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst import datamodels

from soss_background import SkyflatCombineStep, SkyflatMaskStep, SkyflatPipeline
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_window, iterate_images, open_libraries
from soss_background.io.library import as_image

LAST = "jw04479001001_03101_00002_nis_rate.fits"


def write_association(folder, products):
    """Write an association; products map names to lists of files."""
    path = folder / "asn.json"
    content = {
        "asn_type": "skyflat",
        "products": [
            {"name": name, "members": [{"expname": f, "exptype": "science"} for f in files]}
            for name, files in products.items()
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_every_kind_of_input(tmp_path):
    paths = write_small_exposures(tmp_path)
    models = [datamodels.open(path) for path in paths]
    association = write_association(tmp_path, {"a": [path.name for path in paths]})
    inputs = {
        "association": [association],
        "str": [str(association)],
        "files": paths,
        "list of str": [str(path) for path in paths],
        "models": models,
        "mixture": [models[0], paths[1]],
        "library": [ModelLibrary(association)],
    }
    for kind, given in inputs.items():
        libraries = open_libraries(given)
        assert len(libraries) == 1, kind
        images = [image.data.copy() for image in iterate_images(libraries[0])]
        assert_array_equal(images, [model.data for model in models], err_msg=kind)


def test_members_that_are_not_science_are_left_out(tmp_path):
    paths = write_small_exposures(tmp_path)
    association = write_association(tmp_path, {"a": [path.name for path in paths]})
    content = json.loads(association.read_text())
    content["products"][0]["members"][1]["exptype"] = "background"
    association.write_text(json.dumps(content))
    assert len(open_libraries([association])[0]) == 1


def test_models_are_left_unchanged(exposures, flat):
    models = [datamodels.open(path) for path in exposures]
    before = [model.copy() for model in models]
    SkyflatPipeline.call(models, steps={"flat_field": {"override_flat": flat}})
    for model, copy in zip(models, before, strict=True):
        for plane in ("data", "err", "dq", "var_poisson", "var_rnoise"):
            assert_array_equal(getattr(model, plane), getattr(copy, plane))
        metadata = [m.to_flat_dict(include_arrays=False) for m in (model, copy)]
        assert metadata[0] == metadata[1]


def test_a_cube_becomes_the_mean_of_all_its_integrations(exposures):
    with datamodels.open(exposures[0]) as cube:
        good = (cube.dq & 1 == 0).all(axis=0) & np.isfinite(cube.data).all(axis=0)
        image = as_image(cube)
        assert isinstance(image, datamodels.ImageModel)
        low, high = cube.data.min(axis=0)[good], cube.data.max(axis=0)[good]
        assert np.all((image.data[good] >= low) & (image.data[good] <= high))
        assert_allclose(np.median(image.data[good]), np.median(cube.data[:, good]), rtol=0.01)
        assert image.meta.filename == cube.meta.filename
        assert image.meta.pointing.ra_v1 == cube.meta.pointing.ra_v1
        assert image.cal_logs.calwebb_detector1


def set_meta(path, value):
    """Return a function that sets a metadata attribute."""

    def edit(model):
        *parents, name = path.split(".")
        node = model.meta
        for parent in parents:
            node = getattr(node, parent)
        setattr(node, name, value)

    return edit


HEADER_FAULTS = {
    "not SOSS": (set_meta("exposure.type", "NIS_WFSS"), "EXP_TYPE is NIS_WFSS, not NIS_SOSS"),
    "instrument": (set_meta("instrument.name", "NIRCAM"), "INSTRUME is NIRCAM, not NIRISS"),
    "filter": (set_meta("instrument.filter", "F380M"), "FILTER is F380M, not CLEAR or F277W"),
    "pupil": (set_meta("instrument.pupil", "CLEARP"), "PUPIL is CLEARP, not GR700XD"),
    "subarray": (set_meta("subarray.name", "SUBSTRIP96"), "subarrays cannot be mixed"),
    "no filter": (set_meta("instrument.filter", None), "keyword FILTER is missing"),
    "no type": (set_meta("exposure.type", None), "keyword EXP_TYPE is missing"),
    "unit": (set_meta("bunit_data", "MJy/sr"), "BUNIT is MJy/sr, not DN/s"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_bad_headers(fault, tmp_path):
    edit, message = HEADER_FAULTS[fault]
    paths = write_small_exposures(tmp_path, edit=edit)
    with pytest.raises(SkyflatError, match=f"{LAST}: .*{message}"):
        SkyflatMaskStep.call(paths)


NAMING_FAULTS = {
    "pointing.ra_v1": "RA_V1",
    "pointing.dec_v1": "DEC_V1",
    "observation.observation_number": "OBSERVTN",
}


@pytest.mark.parametrize("path", NAMING_FAULTS)
def test_what_the_name_needs(path, tmp_path):
    edit = set_meta(path, None)
    paths = write_small_exposures(tmp_path, edit=edit)
    edit_file(paths[0], edit)
    for step in (SkyflatCombineStep, SkyflatPipeline):
        with pytest.raises(SkyflatError, match=f"nis_rate.fits: keyword {NAMING_FAULTS[path]} is"):
            step.call(paths, steps={"flat_field": {"skip": True}}) if step is SkyflatPipeline else (
                step.call(paths)
            )


def test_no_time_at_all(tmp_path):
    def edit(model):
        model.meta.exposure.mid_time = model.meta.exposure.mid_time_mjd = None

    paths = write_small_exposures(tmp_path, edit=edit)
    with pytest.raises(SkyflatError, match=f"{LAST}: keyword MJD-AVG is missing"):
        SkyflatCombineStep.call(paths)


def all_nan(model):
    model.data = np.full_like(model.data, np.nan)


def all_flagged(model):
    model.dq |= 1


def zero_errors(model):
    model.err = np.zeros_like(model.err)


def nan_errors(model):
    model.err = np.full_like(model.err, np.nan)


@pytest.mark.parametrize("edit", [all_nan, all_flagged, zero_errors, nan_errors])
@pytest.mark.parametrize("step", [SkyflatMaskStep, SkyflatCombineStep])
def test_nothing_to_use(edit, step, tmp_path):
    paths = write_small_exposures(tmp_path, edit=edit)
    with pytest.raises(SkyflatError, match=f"{LAST}: no usable pixel"):
        step.call(paths)


def test_some_bad_pixels_are_no_fault(tmp_path):
    def edit(model):
        model.err[10] = 0
        model.err[11] = np.nan
        model.data[12] = np.nan
        model.dq[13] = 1

    library = SkyflatMaskStep.call(write_small_exposures(tmp_path, edit=edit))
    masks = [image.mask for image in iterate_images(library)]
    assert masks[0][10:14].mean() > 0.9
    assert not masks[1][10:14].any()


def test_a_sky_without_light(tmp_path):
    def edit(model):
        model.data -= 10

    with pytest.raises(SkyflatError, match=f"{LAST}: has no sky"):
        SkyflatCombineStep.call(write_small_exposures(tmp_path, edit=edit))


def test_an_exposure_of_another_sky(tmp_path, caplog):
    def edit(model):
        model.data *= 3

    skyflat = SkyflatCombineStep.call(write_small_exposures(tmp_path, n=4, edit=edit))
    assert_array_equal(skyflat.metadata["used"], [1, 1, 1, 0])
    assert skyflat.metadata["reason"][3] == "level far from that of the others"
    assert np.nanmax(skyflat.bkg) < 1.5 * np.nanmedian(skyflat.images[0])
    assert "00004_nis_rate.fits: not used, level far from" in caplog.text


def test_nothing_unmasked(tmp_path, caplog):
    def edit(model):
        model.mask = np.zeros(model.shape, dtype="u4")

    paths = write_small_exposures(tmp_path, n=3, edit=edit)
    skyflat = SkyflatCombineStep.call(paths)
    assert_array_equal(skyflat.metadata["used"], [1, 1, 0])
    assert skyflat.meta.skyflat.n_samples == 2
    assert np.isnan(skyflat.metadata["scale"][2])
    assert skyflat.masks[2].all()
    assert "00003_nis_rate.fits: not used, hardly any unmasked pixel" in caplog.text
    assert skyflat.metadata["reason"].tolist() == ["", "", "hardly any unmasked pixel"]
    with pytest.raises(SkyflatError, match="no exposure can be used: hardly any unmasked pixel"):
        SkyflatCombineStep.call(paths[2:])


def test_missing_file(tmp_path):
    paths = write_small_exposures(tmp_path)
    for given in ([*paths, tmp_path / "no.fits"], [tmp_path / "no.fits"]):
        with pytest.raises(SkyflatError, match=r"no\.fits: no such file"):
            SkyflatMaskStep.call(given)
    association = write_association(tmp_path, {"a": [paths[0].name, "gone.fits"]})
    for step in (SkyflatMaskStep, SkyflatPipeline):
        with pytest.raises(SkyflatError, match=r"gone\.fits: no such file"):
            step.call(association)
    with pytest.raises(SkyflatError, match=r"no_asn\.json: no such file"):
        SkyflatPipeline.call(tmp_path / "no_asn.json", steps={"flat_field": {"skip": True}})


@pytest.mark.parametrize(
    ("fraction", "fault"), [(0.0, "cannot be read"), (0.3, "truncated"), (0.9, "truncated")]
)
def test_truncated_file(fraction, fault, tmp_path):
    paths = write_small_exposures(tmp_path)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: int(fraction * len(content))])
    for step in (SkyflatMaskStep, SkyflatPipeline):
        with pytest.raises(SkyflatError, match=f"{LAST}: {fault}"):
            step.call(paths)


def test_a_file_that_is_no_exposure(tmp_path):
    paths = write_small_exposures(tmp_path)
    (tmp_path / "text.fits").write_text("not a FITS file")
    with pytest.raises(SkyflatError, match=r"text\.fits: cannot be read"):
        SkyflatMaskStep.call([*paths, tmp_path / "text.fits"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not a valid association"),
        ('{"products": 3}', "not a valid association"),
        ('{"asn_type": "skyflat"}', "not a valid association"),
        ('{"products": [{"name": "a", "members": [{"expname": "x"}]}]}', "not a valid association"),
        ('{"products": [{"name": "a", "members": []}]}', "product a has no science member"),
        ('{"products": []}', "no product"),
    ],
)
def test_bad_association(content, message, tmp_path):
    path = tmp_path / "bad_asn.json"
    path.write_text(content)
    for step in (SkyflatMaskStep, SkyflatPipeline):
        with pytest.raises(SkyflatError, match=f"bad_asn.json: {message}"):
            step.call(path)


def test_the_same_exposure_twice(tmp_path):
    paths = write_small_exposures(tmp_path)
    copy = tmp_path / "renamed_rate.fits"
    shutil.copy(paths[0], copy)
    again = tmp_path / paths[0].name.replace("_rate", "_rateints")
    shutil.copy(paths[0], again)
    for twice, message in (
        (paths[0], "is given 2 times"),
        (copy, f"as {paths[0].name}"),
        (again, f"as {paths[0].name}"),
    ):
        with pytest.raises(SkyflatError, match=rf"{twice.name}: the same exposure {message}"):
            SkyflatMaskStep.call([*paths, twice])


def test_segments_of_an_exposure_are_different(tmp_path):
    first, second = write_small_exposures(tmp_path)
    second.unlink()
    segments = [tmp_path / f"jw04479001001_03101_00001-seg00{k}_nis_rate.fits" for k in (1, 2)]
    for number, segment in enumerate(segments, start=1):
        shutil.copy(first, segment)
        edit_file(segment, set_meta("exposure.segment_number", number))
    assert len(open_libraries(segments)[0]) == 2


def test_library_with_other_members(tmp_path):
    paths = write_small_exposures(tmp_path)
    association = write_association(tmp_path, {"a": [path.name for path in paths]})
    content = json.loads(association.read_text())
    content["products"][0]["members"][1]["exptype"] = "background"
    association.write_text(json.dumps(content))
    with pytest.raises(SkyflatError, match="not of the exptype science"):
        SkyflatMaskStep.call(ModelLibrary(association))


def test_hardly_a_pixel_to_use(tmp_path, caplog):
    def edit(model):
        model.dq[::6, ::6] |= 4
        model.dq[model.dq == 0] = 1

    paths = write_small_exposures(tmp_path, n=3, edit=edit)
    skyflat = SkyflatPipeline.call(paths, steps={"flat_field": {"skip": True}})
    assert_array_equal(skyflat.metadata["used"], [1, 1, 0])
    assert "too few usable pixels" in caplog.text


def test_different_shapes(tmp_path):
    def edit(model):
        for name in ("data", "err", "dq", "var_poisson", "var_rnoise"):
            setattr(model, name, getattr(model, name)[:-4].copy())

    paths = write_small_exposures(tmp_path, edit=edit)
    with pytest.raises(SkyflatError, match=rf"{LAST}: its shape is \(60, 96\), not \(64, 96\)"):
        SkyflatMaskStep.call(paths)


def test_not_an_image(tmp_path):
    paths = write_small_exposures(tmp_path)
    with pytest.raises(SkyflatError, match="neither a rate nor a rateints exposure"):
        ramp = datamodels.RampModel((1, 1, 8, 8))
        ramp.update(datamodels.open(paths[0]))
        SkyflatMaskStep.call([ramp])
    with pytest.raises(SkyflatError, match="5 is neither a file nor a data model"):
        SkyflatMaskStep.call([5])
    with pytest.raises(SkyflatError, match="No exposures"):
        SkyflatMaskStep.call([])


def test_flat_fielded_and_not(tmp_path):
    paths = write_small_exposures(tmp_path, edit=set_meta("cal_step.flat_field", "COMPLETE"))
    with pytest.raises(SkyflatError, match=r"00001_nis_rate.fits: not flat-fielded, but .*00002"):
        SkyflatCombineStep.call(paths)


def test_one_exposure_is_possible(tmp_path, caplog):
    paths = write_small_exposures(tmp_path, n=1)
    skyflat = SkyflatPipeline.call(paths, steps={"flat_field": {"skip": True}})
    assert skyflat.meta.skyflat.n_samples == 1
    assert np.isfinite(skyflat.bkgdn).all()
    assert caplog.text.count("One exposure only") == 2


def test_failure_leaves_nothing_behind(tmp_path):
    paths = write_small_exposures(tmp_path, edit=all_nan)
    before, files = checksums(paths), sorted(tmp_path.iterdir())
    done = run_program(
        "strun",
        "soss_background.SkyflatPipeline",
        *paths,
        "--steps.flat_field.skip=true",
        "--steps.skyflat_mask.save_results=true",
        home=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert f"{LAST}: no usable pixel" in line
    left = {path.name for path in tmp_path.iterdir()} - {".astropy", ".cache", ".config"}
    assert left == {path.name for path in files}
    assert checksums(paths) == before


def test_the_size_of_the_keywords_is_that_of_the_pixels(tmp_path):
    path, *_ = write_small_exposures(tmp_path, 1)
    with datamodels.open(path) as model:
        ny, nx = model.data.shape[-2:]
        assert find_window(model).shape == (ny, nx)
        model.meta.subarray.ysize = ny + 1
        message = rf"{path.name}: its shape is \({ny}, {nx}\), .* SUBSIZE1 \({ny + 1}, {nx}\)"
        with pytest.raises(SkyflatError, match=message):
            find_window(model)
