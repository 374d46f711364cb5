"""Skies of every kind: sky models, .npy arrays, older skyflats, folders; superstripes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, make_skyflat, strun
from numpy.testing import assert_allclose
from stdatamodels.jwst import datamodels
from test_real import REAL

from soss_background import SkyflatMaskStep, SkyflatSubtractStep, make_sky_model
from soss_background.datamodels.sky_model import SkyModel
from soss_background.detector import FULL, SUBSTRIP96, SUBSTRIP256, SUPERSTRIPES, Window
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_window
from soss_background.io.files import save_datamodel
from soss_background.io.templates import find_sources, inspect_sky, read_templates
from soss_background.simulate import Simulation, sky_image, write_exposure

STEP = "soss_background.SkyflatSubtractStep"
LEVEL, NOISE = 0.7, 0.05

# A section of FULL inside SUBSTRIP96, with the edge.
SMALL = Window("FULL", 1804, 560, 90, 400)


def observe(path, window, sky=None):
    """Write a flat-fielded exposure of a sky; return its path and the sky."""
    sky = LEVEL * sky_image(window, structure=0) if sky is None else sky
    rng = np.random.default_rng(2)
    image = np.where(window.reference_pixels(), 0, sky + NOISE * rng.standard_normal(sky.shape))
    simulation = Simulation(window=window)
    write_exposure(path, image.astype("f4"), np.full(sky.shape, NOISE, "f4"), simulation=simulation)
    with fits.open(path, mode="update") as hdus:
        del hdus["ASDF"]
        hdus[0].header["S_FLAT"] = "COMPLETE"
    return path, sky


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Write a small exposure."""
    return observe(tmp_path_factory.mktemp("small") / "jw1_rate.fits", SMALL)


def write_trimmed(path, *, n=3, n_masks=3):
    """Write a skyflat as the older scripts do: without reference pixels, ERR a cube."""
    sky = sky_image(FULL, structure=0)[4:-4, 4:-4].astype("f4")
    err = np.broadcast_to(np.float32(0.02) * sky, (n, *sky.shape))
    masks = np.zeros((n_masks, *sky.shape), "u1")
    masks[0, 1900] = 1
    planes = {"BKG": sky, "BKGDN": sky, "ERR": err, "MASKS": masks}
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(plane, name=key) for key, plane in planes.items()]
    hdus[0].header["FLATCORR"] = True
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    """Write a skyflat of the older scripts."""
    return write_trimmed(tmp_path_factory.mktemp("old") / "old_skybkg.fits")


def write_templates(kind, folder):
    """Write templates of a kind; return their path."""
    window = {"96": SUBSTRIP96, "256n": SUBSTRIP256, "full": FULL}[kind]
    sky = np.where(window.reference_pixels(), 0, sky_image(window, structure=0))
    sky[:4] = (
        0  # exoTEDRF's array of SUBSTRIP96 lacks its outer rows, which are not reference pixels
    )
    np.save(folder / "a.npy", np.array([sky, 1.1 * sky]) if kind.endswith("n") else sky)
    return folder / "a.npy"


def compare(result, original, sky, window):
    """Check the sky that was removed, left and right of the edge, against the truth."""
    with datamodels.open(original) as model:
        removed = np.array(model.data) - result.data
    ratio = removed / sky
    columns = np.arange(window.x0, window.x0 + window.nx)
    known = np.isfinite(ratio) & ~window.reference_pixels()
    for side in (columns < 670, columns > 760):
        assert_allclose(np.median(ratio[:, side][known[:, side]]), 1, atol=0.02)


@pytest.mark.parametrize("kind", ["96", "256n", "full", "trimmed"])
def test_every_kind_is_subtracted(kind, small, trimmed, tmp_path):
    path, sky = small
    template = trimmed if kind == "trimmed" else write_templates(kind, tmp_path)
    before = checksums([path, template])
    strun(STEP, path, f"--skyflat={template}")
    assert checksums([path, template]) == before
    with datamodels.open(next(tmp_path.glob("*_skyflatsubtract.fits"))) as result:
        compare(result, path, sky, SMALL)
        names = list(result.meta.skyflat_subtract.instance["templates"])
    plain = template.name
    assert names == ([f"{plain}[1]", f"{plain}[2]"] if kind.endswith("n") else [plain])


def test_values_of_an_array():
    """Gaps are filled and flagged, and the noise is that of the array."""
    rng = np.random.default_rng(0)
    truth = sky_image(SUBSTRIP256, structure=0)
    array = truth * (1 + 0.02 * rng.standard_normal(truth.shape))
    array[100, 300], array[:3] = np.nan, 0
    (template,) = read_templates(array, SUBSTRIP256)
    assert template.flat_fielded
    assert inspect_sky(array).flat_fielded
    assert_allclose(template.sky[100, 300], truth[100, 300], rtol=0.02)
    assert_allclose(template.sky[1], truth[1], rtol=0.1)
    assert_allclose(template.noise[50, 300] / array[50, 300], 0.02, rtol=0.03)
    assert template.dq[100, 300] == 1
    assert template.dq[100, 0] == 2**31
    assert template.dq[101, 300] == 0
    assert_allclose(read_templates(array, SUBSTRIP96)[0].sky, template.sky[10:106], rtol=0.02)


def test_values_of_an_older_skyflat(trimmed):
    """Reference pixels are added, and ERR is that of a median of the unmasked exposures."""
    (template,) = read_templates(trimmed, FULL)
    truth = sky_image(FULL, structure=0)
    science = ~FULL.reference_pixels()
    assert_allclose(template.sky[science], truth[science], rtol=1e-6)
    assert np.all(template.dq[~science] & 2**31)
    assert not template.dq[science].any()
    noise = template.noise / truth
    assert_allclose(noise[500, 500], 0.02 * np.sqrt(np.pi / 2 / 3), rtol=1e-3)
    assert_allclose(noise[1904, 500], 0.02 / np.sqrt(2), rtol=1e-3)  # the mean of two
    assert template.flat_fielded
    fits.setval(trimmed, "FLATCORR", value=False)
    assert not inspect_sky(trimmed).flat_fielded
    fits.setval(trimmed, "FLATCORR", value=True)


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.ones((100, 2048)), r"a.npy: its shape \(100, 2048\) is not that of a subarray"),
        (np.ones(2048), r"a.npy: its shape \(2048,\) is not that of one or more images"),
        (np.ones((0, 96, 2048)), r"its shape \(0, 96, 2048\) is not that of one or more images"),
        (np.full((96, 2048), np.nan), "a.npy: no sky in it"),
        (np.zeros((2, 96, 2048)), r"a.npy\[1\]: no sky in it"),
        (np.ones((96, 2048)), "a.npy: no sky in it, all its pixels have the same value"),
        (np.ones((96, 2048), dtype=complex), "a.npy: its values are of the type complex128"),
        (np.array([{}, 1]), "a.npy: cannot be read"),
    ],
)
def test_arrays_that_are_no_templates(array, fault, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SkyflatError, match=fault) as caught:
        read_templates(tmp_path / "a.npy", SUBSTRIP96)
    assert "\n" not in str(caught.value)


def test_other_faults(small, tmp_path):
    np.save(tmp_path / "a.npy", sky_image(SUBSTRIP96))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    (tmp_path / "text.npy").write_text("no array")
    for name in ("cut", "text"):
        with pytest.raises(SkyflatError, match=f"{name}.npy: cannot be read"):
            read_templates(tmp_path / f"{name}.npy", SUBSTRIP96)
    with pytest.raises(SkyflatError, match="its SUBSTRIP96 lacks pixels of SUBSTRIP256"):
        read_templates(tmp_path / "a.npy", SUBSTRIP256)
    with pytest.raises(SkyflatError, match="nor an .npy array nor a sky model"):
        SkyflatSubtractStep.call(small[0], skyflat=small[0])
    old = write_trimmed(tmp_path / "old_skybkg.fits", n=1, n_masks=2)
    with pytest.raises(SkyflatError, match="old_skybkg.fits: MASKS has the shape"):
        read_templates(old, SUBSTRIP96)


def test_a_template_and_an_exposure_of_two_flat_states(tmp_path):
    path, _ = observe(tmp_path / "jw1_rate.fits", SMALL)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["S_FLAT"] = "SKIPPED"
    np.save(tmp_path / "a.npy", sky_image(SUBSTRIP96))
    with pytest.raises(SkyflatError, match="a.npy is flat-fielded and .*jw1_rate.fits is not"):
        SkyflatSubtractStep.call(path, skyflat=tmp_path / "a.npy")


def test_a_folder_of_templates(small, tmp_path, caplog):
    """A folder gives its templates of all kinds, with one warning about other files."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    np.save(folder / "a.npy", sky_image(SUBSTRIP96))
    np.save(folder / "centroids.npy", np.ones((3, 2048)))
    (folder / "notes.txt").write_text("none of them")
    skyflat = make_skyflat(window=SUBSTRIP96, flat="flat.fits")
    skyflat.save(folder / "nis_skyflat.fits")
    (folder / "jw1_rate.fits").write_bytes(small[0].read_bytes())
    with caplog.at_level(logging.WARNING):
        result = SkyflatSubtractStep.call(small[0], skyflat=folder)
    names = list(result.meta.skyflat_subtract.instance["templates"])
    assert names == ["a.npy", "nis_skyflat.fits"]
    (warning,) = [text for text in caplog.messages if "ignored" in text]
    assert warning.endswith("ignored, since they are not templates: centroids.npy, jw1_rate.fits")
    given = [skyflat, np.ones((96, 2048)), str(folder / "*.npy"), folder]
    assert find_sources(given)[2:] == [
        folder / "a.npy", folder / "centroids.npy", folder / "nis_skyflat.fits"
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkyflatError, match="empty: no sky model, skyflat, BKG reference or .npy"):
        SkyflatSubtractStep.call(small[0], skyflat=tmp_path / "empty")


def test_arrays_in_memory(small):
    """An array is used alone or in a list with other kinds, and the record of the run names it."""
    path, sky = small
    array = sky_image(SUBSTRIP96, structure=0)
    kept = array.copy()
    step = SkyflatSubtractStep()
    step.skyflat = array
    assert step.get_pars()["skyflat"] == ["array"]
    step.skyflat = [array, make_skyflat(window=SUBSTRIP96, flat="flat.fits")]
    result = step.run(str(path))
    np.testing.assert_array_equal(array, kept)
    assert list(result.meta.skyflat_subtract.instance["templates"])[0] == "array"
    compare(result, path, sky, SMALL)


def test_arrays_as_arguments(small):
    """stpipe accepts an array among other parameters; a reference file must not be an array."""
    array = sky_image(SUBSTRIP96, structure=0)
    for value in (array, [array]):
        result = SkyflatSubtractStep.call(small[0], skyflat=value)
        assert list(result.meta.skyflat_subtract.instance["templates"]) == ["array"]
    compare(result, *small, SMALL)
    fault = "override_flat is array, not a file name, path or model"
    with pytest.raises(SkyflatError, match=fault):
        SkyflatSubtractStep.call(small[0], skyflat=array, override_flat=array)
    step = SkyflatSubtractStep(skyflat=array)
    step.override_flat = array
    with pytest.raises(SkyflatError, match=fault):
        step.run(str(small[0]))


# --- sky models --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sky_model(tmp_path_factory):
    """Write the sky model of two skyflats of SUBSTRIP96, and return its file."""
    skyflats = [
        make_skyflat(number, SUBSTRIP96, sky_image(SUBSTRIP96, contrast=contrast, structure=0), "f")
        for number, contrast in ((1, 0.97), (2, 1.03))
    ]
    path = tmp_path_factory.mktemp("model") / "nis_skymodel.fits"
    save_datamodel(make_sky_model(skyflats), path)
    return path


@pytest.mark.parametrize("kind", ["file", "asdf", "folder", "model"])
def test_a_sky_model_is_subtracted(kind, small, sky_model, tmp_path):
    path, sky = small
    with SkyModel(sky_model) as model:
        if kind == "asdf":
            save_datamodel(model, tmp_path / "nis_skymodel.asdf")
        given = {
            "file": sky_model,
            "asdf": tmp_path / "nis_skymodel.asdf",
            "folder": sky_model.parent,
            "model": model,
        }[kind]
        before = checksums([path, sky_model])
        result = SkyflatSubtractStep.call(path, skyflat=given)
        assert np.isfinite(model.sky).all()  # still open
    assert checksums([path, sky_model]) == before
    compare(result, path, sky, SMALL)
    record = result.meta.skyflat_subtract
    expected = "nis_skymodel.asdf" if kind == "asdf" else "nis_skymodel.fits"
    assert list(record.instance["templates"]) == [expected]
    assert record.skyntemp == 2
    assert (result.dq[SMALL.reference_pixels()] & 2**31 != 0).all()


def test_a_sky_model_is_used_alone(small, sky_model, tmp_path):
    np.save(tmp_path / "a.npy", sky_image(SUBSTRIP96))
    (tmp_path / "b.fits").write_bytes(sky_model.read_bytes())
    fault = "a sky model is used alone, not with other skies"
    with SkyModel(sky_model) as model:
        for given in ([sky_model, tmp_path / "a.npy"], [tmp_path], [tmp_path / "a.npy", model]):
            with pytest.raises(SkyflatError, match=rf"\.fits: {fault}"):
                SkyflatSubtractStep.call(small[0], skyflat=given)


def test_a_damaged_sky_model(small, sky_model):
    with SkyModel(sky_model) as model:
        model.members = None
        with pytest.raises(SkyflatError, match="nis_skymodel.fits: MEMBERS is missing"):
            SkyflatSubtractStep.call(small[0], skyflat=model)


def test_a_sky_model_of_too_few_pixels(small, sky_model, tmp_path):
    def cut(hdus):
        for key in ("SKY", "RIGHT", "ERR", "DQ"):
            hdus[key].data = hdus[key].data[:60]

    with fits.open(sky_model) as hdus:
        cut(hdus)
        del hdus["ASDF"]
        hdus.writeto(tmp_path / "cut.fits")
    with pytest.raises(SkyflatError, match=r"cut.fits: its SUBSTRIP96 lacks pixels of FULL"):
        SkyflatSubtractStep.call(small[0], skyflat=tmp_path / "cut.fits")


def test_a_sky_model_with_the_flat_in_it(small, sky_model, tmp_path):
    """For a flat-fielded exposure, the sky model is divided by the flat."""
    path, sky = small
    columns = np.arange(SUBSTRIP96.nx)
    flat = np.tile(1 + 0.1 * np.sin(columns / 3), (96, 1)).astype("f4")
    with datamodels.FlatModel(data=flat) as model:
        model.meta.subarray.xstart, model.meta.subarray.ystart = 1, SUBSTRIP96.y0 + 1
        model.save(tmp_path / "flat.fits")
    with SkyModel(sky_model) as model:
        model = model.copy()
    model.sky, model.meta.skyflat.flat_correction = model.sky * flat, "SKIPPED"
    with pytest.raises(SkyflatError, match="jw1_rate.fits is flat-fielded and .* is not: give"):
        SkyflatSubtractStep.call(path, skyflat=model)
    with datamodels.open(path) as exposure:
        exposure.meta.ref_file.flat.name = "flat.fits"
        result = SkyflatSubtractStep.call(
            exposure, skyflat=model, override_flat=tmp_path / "flat.fits"
        )
    compare(result, path, sky, SMALL)
    with datamodels.open(path) as exposure:
        rough = np.diff((exposure.data - result.data) / sky, axis=1)[8:-8, 200:]
    assert np.abs(rough).max() < 0.005


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
def test_the_real_template(tmp_path):
    """The commissioning template of exoTEDRF is subtracted from an exposure with its sky."""
    template = REAL / "gr700xd_background_substrip96.npy"
    truth = 0.6 * np.load(template)
    rows = np.clip(np.arange(96), 4, 91)
    path, sky = observe(tmp_path / "jw1_rate.fits", SUBSTRIP96, truth[rows])
    result = SkyflatSubtractStep.call(path, skyflat=template)
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(result, path, sky, SUBSTRIP96)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Write an exposure of SUBSTRIP256, and a template of FULL."""
    folder = tmp_path_factory.mktemp("wide")
    np.save(folder / "full.npy", sky_image(FULL, structure=0).astype("f4"))
    return *observe(folder / "jw1_rate.fits", SUBSTRIP256), folder / "full.npy"


@pytest.mark.parametrize("name", SUPERSTRIPES)
def test_superstripes_have_the_pixels_of_substrip256(name, wide, small):
    with datamodels.open(wide[0]) as model:
        model.meta.subarray.name = name
        window = find_window(model)
    assert window == replace(SUBSTRIP256, name=name)
    assert read_templates(sky_image(SUBSTRIP256), window)[0].sky.shape == (256, 2048)
    with datamodels.open(small[0]) as model:
        model.meta.subarray.name = name
        with pytest.raises(SkyflatError, match=f"{name} without the pixels of SUBSTRIP256"):
            find_window(model)


def test_the_sky_of_superstripes(wide, tmp_path):
    """Missing columns and SUBARRAY are unchanged."""
    path, sky, template = wide
    with datamodels.open(path) as model:
        model.meta.subarray.name = "SUB17STRIPE_SOSS"
        missing = np.zeros(model.data.shape, dtype=bool)
        missing[:, :4], missing[:, -12:] = True, True
        model.data[missing] = model.err[missing] = np.nan
        model.dq[missing] |= 1
        model.save(tmp_path / "jw1_rate.fits")
    strun(STEP, "jw1_rate.fits", f"--skyflat={template}")
    # A skyflat is possible, too.
    masked = SkyflatMaskStep.call("jw1_rate.fits")
    with masked:
        model = masked.borrow(0)
        assert model.mask.shape == SUBSTRIP256.shape
        assert not model.mask[missing].any()
        masked.shelve(model, modify=False)
    with datamodels.open(tmp_path / "jw1_skyflatsubtract.fits") as result:
        assert result.meta.subarray.name == "SUB17STRIPE_SOSS"
        assert np.isnan(result.data[missing]).all()
        assert np.isfinite(result.data[~missing]).all()
        compare(result, "jw1_rate.fits", sky, SUBSTRIP256)


def test_a_damaged_value_of_a_template_is_a_gap(tmp_path):
    sky = sky_image(SUBSTRIP96).astype(np.float32)
    broken = sky.copy()
    broken[50, 900] = 1e28
    np.save(tmp_path / "a.npy", broken)
    (template,) = read_templates(tmp_path / "a.npy", SUBSTRIP96)
    assert_allclose(template.sky[50, 900], sky[50, 900], rtol=0.05)
