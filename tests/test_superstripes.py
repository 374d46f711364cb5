"""Superstripes: SUBSTRIP256 in blocks of columns, each with a pedestal and a time of its own."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from bottleneck import nanmedian
from crds_cache import crds_at, make_cache
from helpers import as_sky, cut_series
from jwst.lib.stripe_utils import generate_superstripe_ranges
from numpy.testing import assert_allclose, assert_array_equal
from spec2_references import make_references
from stdatamodels.jwst import datamodels

from soss_background import (
    FlickerNoiseStep,
    SavedSkyStep,
    SkyflatPipeline,
    SkyflatSpec2Pipeline,
    SkyflatSubtractStep,
    SossStarePipeline,
)
from soss_background.associations import make_background_associations
from soss_background.cli import main
from soss_background.detector import SUBSTRIP256, SUPERSTRIPES
from soss_background.errors import SkyflatError
from soss_background.extract.flicker_noise import Columns, find_stripes
from soss_background.numerics.integrations import usable_pixels
from soss_background.simulate import Simulation, simulate_time_series, simulate_visit, sky_image
from soss_background.sky.sky_prior import build_prior
from soss_background.sky.traces import trace_distance
from soss_background.subtract.pedestals import BlockOffsets
from soss_background.subtract.sky_fit import fit_sky

NUMBERS = {
    "SUB17STRIPE_SOSS": 120,
    "SUB60STRIPE_SOSS": 34,
    "SUB204STRIPE_SOSS": 10,
    "SUB680STRIPE_SOSS": 3,
}
SCIENCE = ~SUBSTRIP256.reference_pixels()
LEFT, RIGHT = (SCIENCE & side for side in (np.arange(2048) < 670, np.arange(2048) > 760))
REFERENCE = 1 << 31
SETTINGS = Simulation(
    window=SUPERSTRIPES["SUB204STRIPE_SOSS"],
    n_integrations=6,
    exposure_time=1200.0,
    pedestals=0.2,
    star_density=0.0,
)


def read_blocks(name):
    """Return the blocks of columns that jwst places, and its number of reference columns."""
    width, number = int(name[3:].removesuffix("STRIPE_SOSS")), NUMBERS[name]
    subarray = SimpleNamespace(
        name=name,
        multistripe_reads1=4, multistripe_reads2=width, multistripe_skips1=0, multistripe_skips2=0,
        repeat_stripe=1, interleave_reads1=1, superstripe_step=width, num_superstripe=number,
        fastaxis=-2, slowaxis=-1, xsize=width + 4, xstart=2048, ysize=256, ystart=1793,
    )  # fmt: skip
    model = SimpleNamespace(meta=SimpleNamespace(subarray=subarray))
    ranges = generate_superstripe_ranges(model, science_frame=True)
    return [slice(*ranges["full"][stripe][0]) for stripe in range(number)]


@pytest.mark.parametrize("name", SUPERSTRIPES)
def test_blocks_are_those_of_jwst(name):
    blocks = SUPERSTRIPES[name].column_blocks()
    assert blocks == read_blocks(name)
    columns = np.concatenate([np.arange(2048)[block] for block in blocks])
    assert_array_equal(np.sort(columns), np.arange(4, 2044))
    assert SUBSTRIP256.column_blocks() == [slice(0, 2048)]


def test_reference_pixels_are_not_usable():
    """The missing columns are 0 with a finite error, and without DO_NOT_USE."""
    dq = np.array([0, 1, REFERENCE, REFERENCE | 1], dtype=np.uint32)
    assert_array_equal(usable_pixels(np.zeros(4), np.ones(4), dq), [True, False, False, False])


# --- the simulator ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a transit; write a template of the sky."""
    folder = tmp_path_factory.mktemp("series")
    path = simulate_time_series(folder, SETTINGS, target_flux=220.0)
    np.save(folder / "sky.npy", 0.7 * sky_image(SUBSTRIP256).astype(np.float32))
    return path


def settings(series):
    """Return the parameters of the subtraction of a sky from the series."""
    folder = series.parent
    return {"skyflat": folder / "sky.npy", "override_flat": folder / "time_series_flat.fits"}


def true_sky(series):
    """Return the sky of the simulated series, without and with the response of the pixels."""
    with fits.open(series.parent / "time_series_truth.fits") as truth:
        sky, flat = (truth[name].data.astype(float) for name in ("SKY", "FLAT"))
    return sky, sky * flat


def test_simulated_exposure(series):
    """It has the pixels, keywords, flags and tables that calwebb_detector1 leaves."""
    with datamodels.open(series) as model:
        subarray = model.meta.subarray
        assert (subarray.name, subarray.xsize, subarray.ysize) == ("SUB204STRIPE_SOSS", 2048, 256)
        assert (subarray.xstart, subarray.ystart) == (1, 1793)
        assert subarray.num_superstripe is None
        assert_allclose(model.meta.exposure.integration_time, 20)
        missing = np.ones(2048, dtype=bool)
        missing[4:-4] = False
        assert np.all(model.data[..., missing] == 0)
        assert np.all(model.err[..., missing] > 0)
        assert np.all(model.dq[..., missing] == REFERENCE)
        assert not np.any(model.dq[:, :-4, 4:-4] & REFERENCE)
        times = model.int_times_stripe
        assert_array_equal(times["integration_number"], np.repeat(np.arange(6) + 1, 10))
        assert_array_equal(times["stripe_number"], np.tile(np.arange(10) + 1, 6))
        starts = times["int_start_MJD_UTC"].reshape(6, 10)
        assert_allclose(starts[:, 0], model.int_times["int_start_MJD_UTC"], rtol=0, atol=1e-9)
        assert_allclose(np.diff(starts.ravel()) * 86400, 20, atol=1e-3)


def test_simulated_pedestals(tmp_path):
    quiet = replace(SETTINGS, n_integrations=3, window=SUPERSTRIPES["SUB60STRIPE_SOSS"])
    images = []
    for rms in (0.0, 0.2):
        path = simulate_time_series(tmp_path / f"{rms}", replace(quiet, pedestals=rms))
        with datamodels.open(path) as model:
            images.append(model.data.copy())
    difference = (images[1] - images[0])[:, :-4]
    pedestals = []
    for columns in quiet.window.column_blocks():
        block = difference[..., columns]
        pedestals.append(np.nanmedian(block, axis=(1, 2), keepdims=True))
        assert np.nanmax(np.abs(block - pedestals[-1])) < 1e-3
    assert_allclose(np.std(pedestals), 0.2, rtol=0.2)
    correlation = np.corrcoef(np.squeeze(pedestals).T)
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.5


def test_simulated_times(tmp_path):
    """Each block of columns sees the transit at its own time."""
    path = simulate_time_series(tmp_path, SETTINGS, transit_depth=0.5)
    with fits.open(tmp_path / "time_series_truth.fits") as truth:
        curve, target = truth["TRANSIT"].data["brightness"], truth["TARGET"].data
        steady = truth["SKY"].data + truth["STARS"].data[0]
        flat = truth["FLAT"].data
    assert curve.shape == (6, 10)
    assert np.any(np.ptp(curve, axis=1) > 0.1)
    with datamodels.open(path) as model:
        for number, columns in enumerate(SETTINGS.window.column_blocks()):
            part = target[:, columns]
            bright = part > 0.3 * part.max()
            seen = model.data[:, :, columns] / flat[:, columns] - steady[:, columns]
            found = np.nanmedian(seen[:, bright] / part[bright], axis=1)
            assert_allclose(found, curve[:, number], atol=0.05)


def test_command_line(tmp_path, capsys):
    command = ["simulate", str(tmp_path), "--subarray=SUB680STRIPE_SOSS", "--time-series"]
    assert main([*command, "--n-integrations=2", "--star-density=0"]) == 0
    path = capsys.readouterr().out.strip()
    assert fits.getval(path, "SUBARRAY") == "SUB680STRIPE_SOSS"
    assert main(["asn", "--time-series", path, "-o", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*_spec2_asn.json"))) == 1


# --- the fit of the sky -------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior():
    """Build the prior of five skies of different colours."""
    skies = [
        as_sky(sky_image(SUBSTRIP256, contrast=0.96 + 0.02 * i), SUBSTRIP256) for i in range(5)
    ]
    return build_prior(skies, SUBSTRIP256)


def observe(name, rms, seed):
    """Return a sky, and its image with noise and pedestals of blocks of columns."""
    rng = np.random.default_rng(seed)
    sky = rng.uniform(0.6, 1.4) * sky_image(SUBSTRIP256, contrast=1 + 0.02 * rng.standard_normal())
    image = sky + 0.2 * rng.standard_normal(sky.shape)
    pedestals = rms * rng.standard_normal(NUMBERS[name])
    for columns, value in zip(SUPERSTRIPES[name].column_blocks(), pedestals, strict=True):
        image[:, columns] += value
    return sky, image.astype(np.float32), pedestals


def measure(sky, image, prior, **pedestals):
    """Fit a sky; return the errors left and right in DN/s, the same in stated errors, the fit."""
    err, distance = np.full_like(image, 0.2), trace_distance(SUBSTRIP256, 245.76)
    fit = fit_sky(image, err, SCIENCE, prior, distance, **pedestals)
    errors = np.array([np.median((fit.sky - sky)[side]) for side in (LEFT, RIGHT)])
    levels = [fit.level_left, fit.level_right]
    stated = np.divide([fit.level_left_err, fit.level_right_err], levels)
    return errors, errors / (stated * [np.median(sky[side]) for side in (LEFT, RIGHT)]), fit


@pytest.mark.parametrize("name", ["SUB204STRIPE_SOSS", "SUB680STRIPE_SOSS"])
def test_levels_have_the_errors_that_they_state(name, prior):
    rms, blocks, pulls = 0.1, SUPERSTRIPES[name].column_blocks(), []
    for seed in range(4):
        sky, image, pedestals = observe(name, rms, seed)
        _, pull, fit = measure(sky, image, prior, blocks=blocks, pedestal_rms=rms)
        pulls.append(pull)
        # What all pedestals share is uncertain, as is the level.
        assert np.std(fit.pedestals - pedestals) < 0.6 * rms
    assert np.sqrt(np.mean(np.square(pulls))) < 1.5
    assert np.abs(pulls).max() < 3.5


def test_a_step_between_blocks_is_not_the_edge(prior):
    """The boundary of two blocks at column 684 is next to the edge."""
    blocks, sky = SUPERSTRIPES["SUB680STRIPE_SOSS"].column_blocks(), sky_image(SUBSTRIP256)
    image = sky + 0.2 * np.random.default_rng(1).standard_normal(sky.shape)
    for columns, value in zip(blocks, (0.0, 0.2, -0.2), strict=True):
        image[:, columns] += value
    near = SCIENCE & (np.abs(np.arange(2048) - 705) < 20)
    image, errors = image.astype(np.float32), []
    for known in ({"blocks": blocks, "pedestal_rms": 0.2}, {}):
        fit = measure(sky, image, prior, **known)[2]
        errors.append(np.std((fit.sky - sky)[near]))
        if known:
            assert abs(fit.shift) < 1
            assert_allclose(np.diff(fit.pedestals), [0.2, -0.4], atol=0.1)
    assert errors[0] < 0.05
    assert errors[1] > 2 * errors[0]


def test_without_pedestals_nothing_changes(prior):
    sky, image, _ = observe("SUB204STRIPE_SOSS", 0.0, 3)
    blocks = SUPERSTRIPES["SUB204STRIPE_SOSS"].column_blocks()
    plain = measure(sky, image, prior)
    known = measure(sky, image, prior, blocks=blocks, pedestal_rms=0.001)
    assert_allclose(known[2].sky[SCIENCE], plain[2].sky[SCIENCE], rtol=0.002)
    assert_allclose(known[2].level_left_err, plain[2].level_left_err, rtol=0.1)
    assert plain[2].pedestals.size == 0


def test_pedestals_of_integrations():
    """Their scatter gives the rms of the pedestals of the mean; a transit does not."""
    rng, blocks = np.random.default_rng(5), [slice(0, 20), slice(20, 40)]
    pedestals = 0.2 * rng.standard_normal((50, 2))
    cube = np.ones((50, 16, 40)) + np.repeat(pedestals, 20, axis=1)[:, np.newaxis]
    cube[:, 6:9] += np.linspace(0, 50, 50)[:, np.newaxis, np.newaxis]
    usable = np.ones((16, 40), dtype=bool)
    usable[0], cube[:, 0] = False, 1e6
    rms = np.sqrt(np.mean(pedestals.var(axis=0, ddof=1)) / 50)
    for segments in ([slice(0, 50)], [slice(0, 1), slice(1, 20), slice(20, 50)]):
        offsets = BlockOffsets()
        for part in segments:
            offsets.add(cube[part], usable, blocks)
        assert_allclose(offsets.expect_rms(), rms, rtol=1e-9)
    first = BlockOffsets()
    assert first.expect_rms() == 0
    first.add(cube[:1], usable, blocks)
    assert first.expect_rms() == 0


# --- steps and pipelines ------------------------------------------------------------------


def test_subtraction(series, tmp_path):
    result = SkyflatSubtractStep.call(series, **settings(series), save_background=True,
                                      output_dir=str(tmp_path))  # fmt: skip
    sky, response = true_sky(series)
    with datamodels.open(series) as exposure:
        assert result.meta.subarray.name == exposure.meta.subarray.name
        removed = exposure.data[0] - result.data[0]
        assert np.all(result.data[..., :4] == 0)
        assert_array_equal(result.dq[..., :4], exposure.dq[..., :4])
        assert len(result.int_times_stripe) == 60
    for side in (LEFT, RIGHT):
        assert_allclose(np.nanmedian((removed / response)[side]), 1, atol=0.03)
    (saved,) = tmp_path.glob("*_skyflatbackground.fits")
    again = SavedSkyStep.call(series, sky=str(saved))
    good = np.isfinite(again.data)
    assert_allclose(again.data[good], result.data[good], atol=1e-4)


def test_a_level_for_each_integration(series, tmp_path):
    """Pedestals would enter the levels, so that the run ends before work starts."""
    fault = f"{series.name}: scale_mode=integration cannot be used with SUB204STRIPE_SOSS"
    with pytest.raises(SkyflatError, match=fault):
        SkyflatSubtractStep.call(
            series, **settings(series), scale_mode="integration", save_results=True
        )
    assert not list(tmp_path.iterdir())


def test_segments_are_read_once_for_the_fit(series, tmp_path, monkeypatch):
    """The pedestals are measured while the segments are averaged."""
    parts = cut_series(series, tmp_path / "cut", (2, 4))
    step, opened = SkyflatSubtractStep(**settings(series)), []
    (segments,), (whole,) = step.open_segments(parts), step.open_segments(series)
    monkeypatch.setattr(
        segments, "_open", lambda path: opened.append(path) or step.open_whole(path)
    )
    cut = step.fit(segments)
    assert len(opened) == 2
    assert_allclose(cut.sky, step.fit(whole).sky, rtol=2e-3)


def test_spec2(series, tmp_path):
    """jwst calibrates and extracts superstripes."""
    folder = series.parent
    cache = make_cache(
        tmp_path / "cache", make_references(tmp_path, folder / "time_series_flat.fits")
    )
    with crds_at(cache, tmp_path):
        steps = {
            "bkg_subtract": {"skyflat": folder / "sky.npy"},
            "extract_1d": {"skip": True},
        }
        (result,) = SkyflatSpec2Pipeline.call(series, steps=steps)
    assert result.meta.cal_step.bkg_subtract == result.meta.cal_step.flat_field == "COMPLETE"
    assert result.meta.subarray.name == "SUB204STRIPE_SOSS"
    sky, _ = true_sky(series)
    rest = nanmedian(result.data, axis=0)
    rows = np.arange(256)[:, np.newaxis] > 200
    assert abs(np.nanmedian(rest[RIGHT & rows & SCIENCE])) < 0.1 * np.median(sky[RIGHT])


def test_spectra(series):
    """Spectra keep SUBARRAY and the times of the blocks."""
    folder = series.parent
    steps = {
        "skyflat_subtract": {"skyflat": folder / "sky.npy"},
        "flat_field": {"override_flat": folder / "time_series_flat.fits"},
        "photom": {"skip": True},
    }
    result = SossStarePipeline.call(series, steps=steps)
    assert result.meta.subarray.name == "SUB204STRIPE_SOSS"
    assert result.meta.cal_step.clean_flicker_noise == "COMPLETE"
    with datamodels.open(series) as exposure:
        assert_array_equal(result.int_times_stripe, exposure.int_times_stripe)
    table = result.spec[0].spec_table
    assert np.isfinite(table["FLUX"]).mean() > 0.99


def test_noise_of_blocks():
    """Blocks of 60 columns have levels of their own in each integration."""
    rng, number = np.random.default_rng(1), 20
    blocks = SUPERSTRIPES["SUB60STRIPE_SOSS"].column_blocks()
    levels = np.zeros((number, 2048))
    for columns in blocks:
        levels[:, columns] = 0.2 * rng.standard_normal((number, 1))
    measured, none = levels + 0.03 * rng.standard_normal(levels.shape), np.zeros_like(levels)
    measured[:, 900:950] = np.nan
    variance = np.full_like(levels, 0.03**2)
    columns = Columns(measured, none, none, variance, variance)
    rms = []
    for known in (blocks, [slice(None)]):
        (stripes,) = find_stripes([columns], 256, known)
        rms.append(np.std((stripes.level - levels)[:, 4:-4]))
    assert rms[0] < 0.01
    assert rms[1] > 3 * rms[0]


def test_noise_step(series):
    """Pedestals leave the integrations of a series without its sky."""
    subtracted = SkyflatSubtractStep.call(series, **settings(series))
    result = FlickerNoiseStep.call(subtracted)
    blocks, scatter = SETTINGS.window.column_blocks(), []
    for model in (subtracted, result):
        dark = np.where(SCIENCE & (np.arange(256)[:, np.newaxis] > 215), model.data, np.nan)
        levels = [np.nanmedian(dark[..., columns], axis=(1, 2)) for columns in blocks[:5]]
        scatter.append(np.std(np.array(levels), axis=1).mean())
    assert scatter[0] > 0.1
    assert scatter[1] < 0.2 * scatter[0]


def test_blank_sky(tmp_path):
    """A skyflat of superstripes keeps their SUBARRAY, and serves SUBSTRIP256."""
    visit = replace(
        SETTINGS, window=SUPERSTRIPES["SUB680STRIPE_SOSS"], n_exposures=4, n_integrations=2,
        exposure_time=600.0, pedestals=0.02, star_density=0.3,
    )  # fmt: skip
    association = simulate_visit(tmp_path, visit)
    steps = {"flat_field": {"override_flat": str(tmp_path / "flat.fits")}}
    skyflat = SkyflatPipeline.call(association, steps=steps)
    assert skyflat.meta.subarray.name == "SUB680STRIPE_SOSS"
    with fits.open(tmp_path / "truth.fits") as truth:
        ratio = skyflat.bkg / truth["SKY"].data
    for side in (LEFT, RIGHT):
        assert_allclose(np.nanmedian(ratio[side]), 1, atol=0.03)
    assert np.all(skyflat.bkg[:, :4] == 0)
    assert np.all(skyflat.dq[:, :4] & REFERENCE)


def test_blank_sky_of_other_subarrays(series, tmp_path):
    sky = tmp_path / "jw04479002001_03101_00001_nis_rateints.fits"
    for name in ("SUBSTRIP256", "SUB17STRIPE_SOSS"):
        with datamodels.open(series) as model:
            model.meta.subarray.name = name
            model.meta.observation.observation_number = "002"
            model.save(sky)
        if name == "SUBSTRIP256":
            (row,) = make_background_associations([series], [sky], tmp_path)
            assert row["n"] == 1
        else:
            with pytest.raises(SkyflatError, match="SUBARRAY is SUB204STRIPE_SOSS, but SUB17"):
                make_background_associations([series], [sky], tmp_path)
