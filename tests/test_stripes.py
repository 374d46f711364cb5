"""Stripes of skyflats fall by comparison in a library, and real differences of skies remain."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, make_skyflat
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d

from soss_background import SkyflatModel
from soss_background.cli import main
from soss_background.detector import Window
from soss_background.io.denoised import denoise_library, plan_denoised
from soss_background.io.sky_library import open_library
from soss_background.numerics.smoothing import twicing_response
from soss_background.simulate import sky_image
from soss_background.simulate.dispersed_sky import FaintEdge, Glow, SkyShape
from soss_background.sky.averaging import Sky
from soss_background.sky.learning import compare_skies
from soss_background.sky.stripes import Stripes, estimate_stripes, spread_stripes

# Rows of one amplifier, and of two.
ONE, TWO = Window("FULL", 1802, 400, 96, 1024), Window("FULL", 480, 400, 64, 1024)

# Pixels of skyflats in files.
SMALL = Window("FULL", 1802, 500, 32, 512)

# Rms of stripes before they are smoothed, as a fraction of the sky.
STRIPES = 0.0015

# Columns away from the edge and from borders.
AWAY = np.r_[20:240, 380:1000]


def draw_stripes(rng, columns):
    """Draw smoothed 1/f stripes whose rms before smoothing is one."""
    frequency = np.fft.rfftfreq(columns)
    power = np.fft.rfft(rng.standard_normal(columns))
    power[0], power[1:] = 0, power[1:] * frequency[1:] ** -0.5
    scale = np.fft.irfft(power).std()
    return np.fft.irfft(power * twicing_response(frequency, 12.0)) / scale


def draw_truth(rng, window, **shape):
    """Draw a sky whose level, contrast and colour vary among visits, unlike the detector."""
    colours = [tuple(rng.normal(scale=0.01, size=size)) for size in (2, 3)]
    shape = SkyShape(left_colour=colours[0], right_colour=colours[1], **shape)
    sky = sky_image(window, contrast=rng.uniform(0.95, 1.05), seed=3, shape=shape)
    return sky * rng.uniform(0.5, 1.5)


def draw_library(seed, window=ONE, number=12, odd=None):
    """Draw skies with stripes, the last with settings ``odd``; return truths and skies."""
    rng, truths, skies = np.random.default_rng(seed), [], []
    for index in range(number):
        truth = draw_truth(rng, window, **(odd if odd and index == number - 1 else {}))
        sky, level = truth.copy(), STRIPES * np.median(truth)
        amplifiers = window.amplifiers()
        # Two amplifiers share half of the variance of their stripes.
        share = np.sqrt(0.5) if len(amplifiers) > 1 else 0
        shared = draw_stripes(rng, window.nx)
        for rows in amplifiers:
            sky[rows] += level * (
                share * shared + np.sqrt(1 - share**2) * draw_stripes(rng, window.nx)
            )
        noise = np.full(truth.shape, 1e-4 * np.median(truth), dtype=np.float32)
        dq = np.zeros(truth.shape, dtype=np.uint32)
        label = f"sky {index}"
        skies.append(Sky(sky.astype("f4"), noise, noise, dq, label, index, level, -1.0))
        truths.append(truth)
    return truths, skies


def column_errors(sky, truth):
    """Return the errors of the columns, away from the edge, as fractions, and without scale."""
    error = np.mean(sky / truth, axis=0)
    return error / np.median(error) - 1


def measure_errors(window, skies, truths):
    """Return the rms of all and of narrow errors, before and after, each of shape (2, n)."""
    found = estimate_stripes(compare_skies(skies, window), window, [12.0] * len(skies))
    total, narrow = [], []
    for sky, truth, stripes in zip(skies, truths, found, strict=True):
        errors = [
            column_errors(each, truth)
            for each in (sky.sky, sky.sky - spread_stripes(stripes, window, 12.0))
        ]
        total.append([np.std(each[AWAY]) for each in errors])
        rest = [each - gaussian_filter1d(each, 75) for each in errors]
        narrow.append([np.std(each[AWAY]) for each in rest])
    return np.transpose(total), np.transpose(narrow)


def test_stripes_fall_by_a_third():
    truths, skies = draw_library(1)
    total, narrow = measure_errors(ONE, skies, truths)
    # Broad stripes look like real smooth deviations of skies.
    assert np.median(total[1] / total[0]) < 0.77
    assert np.median(narrow[1] / narrow[0]) < 0.6
    assert np.all(narrow[1] < 0.8 * narrow[0])


@pytest.mark.parametrize(
    "odd",
    [
        {"faint_edges": (FaintEdge(1000.0, 0.02, 4.0, 0.0),)},
        {"glow": Glow(0.03, 150.0, 1400.0, None)},
    ],
    ids=["second edge", "glow"],
)
def test_an_odd_sky_keeps_its_difference(odd):
    truths, skies = draw_library(2, number=8, odd=odd)
    total, narrow = measure_errors(ONE, skies, truths)
    assert total[1, -1] < total[0, -1]
    assert narrow[1, -1] < narrow[0, -1]
    # It does not affect the others.
    assert np.median(narrow[1, :-1] / narrow[0, :-1]) < 0.7


def test_another_contrast_is_kept():
    truths, skies = draw_library(3, number=5)
    changed = 1 + 0.2 * (np.arange(1024) > 300)
    other = (skies[-1].sky * changed).astype("f4")
    skies[-1], truths[-1] = skies[-1]._replace(sky=other), truths[-1] * changed
    stripes = estimate_stripes(compare_skies(skies, ONE), ONE, [12.0] * 5)[-1]
    after = other - spread_stripes(stripes, ONE, 12.0)
    left, right = (
        np.median((after / other)[:, columns]) for columns in (np.s_[20:240], np.s_[380:1000])
    )
    assert right / left == pytest.approx(1, abs=STRIPES)


def test_skies_of_one_visit_are_no_prior_of_each_other():
    """A second skyflat of a visit with the same stripes changes nothing."""
    _, skies = draw_library(4, number=4)
    twice = [*skies, skies[0]._replace(name="again")]
    # All skies of a visit have the weight of one, which shifts the mean slightly.
    one, two = (
        estimate_stripes(compare_skies(each, ONE), ONE, [12.0] * len(each))
        for each in (skies, twice)
    )
    assert_allclose(two[0].values, one[0].values, atol=0.05 * np.std(one[0].values))
    assert_allclose(two[4].values, two[0].values, atol=1e-3 * np.std(one[0].values))


def test_each_amplifier_has_its_stripes():
    truths, skies = draw_library(5, TWO, number=8)
    found = estimate_stripes(compare_skies(skies, TWO), TWO, [12.0] * 8)
    before, after = [], []
    for sky, truth, stripes in zip(skies, truths, found, strict=True):
        assert stripes.values.shape == (2, 128)
        image = spread_stripes(stripes, TWO, 0.1)
        for rows in TWO.amplifiers():
            for each, kept in ((sky.sky, before), (sky.sky - image, after)):
                error = column_errors(each[rows], truth[rows])
                kept.append(np.std((error - gaussian_filter1d(error, 75))[AWAY]))
    assert np.median(np.divide(after, before)) < 0.75


def test_smoothing_along_columns_blends_amplifiers():
    values = np.stack([np.full(128, 1.0), np.full(128, -1.0)])
    image = spread_stripes(Stripes(values, 0.0, 0.5, 1.0), TWO, 4.0)
    assert image.dtype == np.float32
    assert_allclose(image[[0, -1]], [[1.0] * 1024, [-1.0] * 1024], atol=1e-5)
    assert_allclose(image[31] + image[32], 0, atol=1e-6)
    assert np.all(np.abs(image[31]) < 0.3)


@pytest.fixture(scope="module")
def skyflats(tmp_path_factory):
    """Write three skyflats of three visits, with stacks, into two folders."""
    folder, paths = tmp_path_factory.mktemp("skyflats"), []
    truths, skies = draw_library(6, SMALL, number=3)
    for number, (sky, truth) in enumerate(zip(skies, truths, strict=True), 1):
        skyflat = make_skyflat(number, SMALL, sky=truth)
        skyflat.bkgdn = sky.sky
        skyflat.images = np.stack([sky.sky, sky.sky])
        skyflat.masks = np.zeros(skyflat.images.shape, dtype=np.uint8)
        skyflat.meta.observation.observation_number = f"{number:03d}"
        known = skyflat.meta.skyflat
        known.stripe_rms, known.stripe_slope, known.n_samples = sky.stripes * 2, -1.0, 4
        known.smoothing_rows = known.smoothing_columns = 12.0
        paths.append(folder / f"{number}_skyflat.fits")
        skyflat.save(paths[-1])
    return paths


def test_the_command_writes_denoised_skyflats(skyflats, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before, names = checksums(skyflats), [str(path) for path in skyflats]
    assert main(["model", *names, "-o", "m_skymodel.fits", "--denoise"]) == 0
    assert "The skyflats in denoised have" in capsys.readouterr().out
    assert checksums(skyflats) == before
    assert Path("m_skymodel.fits").exists()
    assert sorted(path.name for path in Path("denoised").iterdir()) == [p.name for p in skyflats]
    with SkyflatModel(skyflats[0]) as old, SkyflatModel("denoised/1_skyflat.fits") as new:
        for plane in ("bkg", "err", "dq", "images", "masks"):
            assert_array_equal(getattr(new, plane), getattr(old, plane))
        change = new.bkgdn - old.bkgdn
        assert 0 < np.std(change) < 2 * STRIPES * np.median(old.bkgdn)
        # The change is constant along columns.
        assert_allclose(change, np.tile(change[:1], (32, 1)), atol=1e-6 * np.median(old.bkgdn))
        assert 0 < new.meta.skyflat.stripes_left < 1
        assert new.meta.skyflat.noise_factor < old.meta.skyflat.noise_factor
    header = fits.getheader("denoised/1_skyflat.fits")
    assert header["DNLEFT"] < 1
    assert "Denoised with 2 skyflats of other visits" in str(header["HISTORY"])
    assert "2_skyflat.fits" in str(header["HISTORY"])
    # A library of denoised skyflats includes the remaining stripes.
    first, second = (next(iter(open_library(each))).stripes for each in (names, ["denoised"]))
    assert second == pytest.approx(first * header["DNLEFT"])
    assert main(["model", "denoised", "--denoise", "--output-dir", "again"]) == 1
    assert "1_skyflat.fits: it has been denoised with a library already" in capsys.readouterr().err
    assert not Path("again").exists()


def test_models_in_memory_stay_unchanged(skyflats, tmp_path):
    models = [SkyflatModel(path) for path in skyflats]
    for model in models:
        model.meta.skyflat.noise_factor = None
    before = [model.bkgdn.copy() for model in models]
    library = open_library(models)
    paths = plan_denoised(library, tmp_path / "out")
    found = denoise_library(library, paths)
    assert all(0 < each < 1 for each in found)
    for model, plane, path in zip(models, before, paths, strict=True):
        assert_array_equal(model.bkgdn, plane)
        assert model.meta.skyflat.stripes_left is None
        assert "DNFACTOR" not in fits.getheader(path)
        model.close()


def change(skyflats, tmp_path, number, **changes):
    """Return the skyflats, of which one is a changed copy."""
    with SkyflatModel(skyflats[number]) as skyflat:
        for key, value in changes.items():
            skyflat[key.replace("__", ".")] = value
        skyflat.save(tmp_path / "changed_skyflat.fits")
    return [*skyflats[:number], tmp_path / "changed_skyflat.fits", *skyflats[number + 1 :]]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bkgdn": None}, "it has no BKGDN; run SkyflatDenoiseStep first"),
        ({"meta__skyflat__stripe_rms": None}, "its STRIPES is missing; run SkyflatCombineStep"),
        ({"meta__skyflat__smoothing_columns": None}, "its DNCOLS is missing"),
    ],
)
def test_what_is_missing_ends_before_work(skyflats, tmp_path, capsys, changes, fault):
    paths = change(skyflats, tmp_path, 1, **changes)
    output = [f"--output={tmp_path}/m.fits", "--denoise", f"--output-dir={tmp_path}/out"]
    assert main(["model", *map(str, paths), *output]) == 1
    error = capsys.readouterr().err
    assert f"changed_skyflat.fits: {fault}" in error
    assert not (tmp_path / "m.fits").exists()
    assert not (tmp_path / "out").exists()


def test_faulty_requests_end_in_a_line(skyflats, tmp_path, capsys):
    names, output = [str(path) for path in skyflats], f"--output={tmp_path}/m.fits"
    twin = tmp_path / skyflats[0].name
    twin.write_bytes(skyflats[0].read_bytes())
    for arguments, fault in {
        (names[0], "--denoise"): "denoising needs skyflats of two or more visits",
        (*names, "--denoise", f"--output-dir={skyflats[0].parent}"): "is an input",
        (*names, str(twin), "--denoise"): "1_skyflat.fits: two skyflats have this name",
        (*names, "--output-dir=out"): "--output-dir needs --denoise",
    }.items():
        assert main(["model", *arguments, output]) == 1
        error = capsys.readouterr().err
        assert fault in error
        assert len(error.strip().splitlines()) == 1
        assert not (tmp_path / "m.fits").exists()
