"""The simulator: its files agree with its settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers import NOTHING_BUT_SKY
from jwst.associations import load_asn
from jwst.datamodels import ModelLibrary
from jwst.flatfield import flat_field
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import FULL, SUBSTRIP96, SUBSTRIP256, Window
from soss_background.simulate import (
    Simulation,
    Stars,
    draw_stars,
    simulate_time_series,
    simulate_visit,
    sky_image,
    sky_profile,
    star_image,
    write_exposure,
)
from soss_background.simulate.detector_effects import (
    GAIN,
    cosmic_rays,
    flag_saturation,
    hot_pixels,
    integrate,
)
from soss_background.simulate.detector_effects import flat_field as draw_flat
from soss_background.simulate.dispersed_sky import step_shift
from soss_background.simulate.headers import Clock, Pointing
from soss_background.simulate.scene import dither_offsets
from soss_background.simulate.streams import random_stream
from soss_background.simulate.stripes import stripe_pattern
from soss_background.simulate.traces import get_trace
from soss_background.sky.commissioning import commissioning_profile

PIXEL = dqflags.pixel
REAL = Path(__file__).parents[2] / "shared" / "real"
SMALL = Window("FULL", 1900, 640, 48, 160)
CORNER = Window("FULL", 0, 0, 40, 64)
QUIET = Simulation(window=SMALL, n_exposures=2, n_integrations=2, **NOTHING_BUT_SKY)
NOISY = Simulation(window=SMALL, n_exposures=2, n_integrations=2)


def single_star(flux, x=0.0, y=0.0):
    return Stars(*(np.array([value]) for value in (x, y, flux, 5000.0)))


def read(directory):
    """Read the association, all exposures (data, error, flags), and the truth."""
    association = next(directory.glob("*_asn.json"))
    names = [
        member["expname"]
        for member in json.loads(association.read_text())["products"][0]["members"]
    ]
    exposures = []
    for name in names:
        with fits.open(directory / name) as hdus:
            exposures.append([hdus[key].data.copy() for key in ("SCI", "ERR", "DQ")])
    with fits.open(directory / "truth.fits") as hdus:
        truth = {hdu.name: hdu.data.copy() for hdu in hdus[1:]}
    return names, exposures, truth


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    directory = tmp_path_factory.mktemp("quiet")
    simulate_visit(directory, QUIET)
    return directory


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("noisy")
    simulate_visit(directory, NOISY)
    return directory


# --- the sky -----------------------------------------------------------------------------


def test_sky_has_a_profile_of_its_own():
    """The profile is similar to that of commissioning, which the algorithms use, but not equal."""
    row = sky_image(Window("FULL", 1846, 0, 1, 2048), structure=0)[0]
    assert_allclose(row, sky_profile(np.arange(2048)), rtol=1e-6)
    difference = row / commissioning_profile(np.arange(2048)) - 1
    assert np.abs(difference).max() < 0.02
    assert difference.std() > 0.003
    assert np.argmax(np.diff(row)) in (695, 696, 697)


def half_height(window, pwcpos=245.76):
    """Return the column at which each row crosses half the height of the edge."""
    sky = sky_image(window, structure=0, pwcpos=pwcpos)
    return np.array([np.interp(5.85, row[650:760], np.arange(650, 760)) for row in sky])


def test_step_wanders_with_the_row():
    step = half_height(FULL)
    assert_allclose(step - step[1846], step_shift(np.arange(2048)), atol=0.1)
    assert 5 < np.ptp(step) < 20
    assert_allclose(np.gradient(step)[1846], 0.025, atol=0.005)


def test_step_turns_with_the_pupil_wheel():
    turned = half_height(FULL, 245.86) - half_height(FULL)
    expected = -np.radians(0.1) * (np.arange(2048) - 1846)
    assert_allclose(turned, expected, atol=0.05)


def test_contrast_leaves_the_left_side_alone():
    row = Window("FULL", 1846, 0, 1, 2048)
    ratio = (sky_image(row, contrast=1.1) / sky_image(row))[0]
    assert_allclose(ratio[:680], 1, atol=2e-5)
    assert_allclose(ratio[760:], 1.1, atol=4e-3)
    assert_allclose(ratio[900:], 1.1, atol=2e-4)
    assert np.all(np.diff(ratio) > -1e-3)


def test_sky_profile_replaces_the_table():
    profile = np.full(2048, 3.0)
    profile[:4] = profile[-4:] = 0  # reference pixels
    assert_allclose(sky_image(SMALL, profile=profile, structure=0), 3)


def test_structure_is_weak_and_belongs_to_the_seed():
    flat = sky_image(FULL, structure=0)
    structure = sky_image(FULL, seed=2) / flat - 1
    assert 0.004 < structure.std() < 0.02
    window = Window("FULL", 500, 900, 300, 300)
    along = np.linspace(-1, 1, 300)
    plane = np.polynomial.legendre.legvander2d(*np.meshgrid(along, along), [2, 2]).reshape(-1, 9)
    cut = structure[window.slices].ravel()
    residual = cut - plane @ np.linalg.lstsq(plane, cut)[0]
    assert 0.0015 < residual.std() < 0.005
    assert not np.allclose(sky_image(SMALL, seed=2), sky_image(SMALL, seed=3), rtol=1e-4)


def test_windows_are_cuts_of_the_full_frame():
    stars = draw_stars(1.0, seed=4)
    dither = (31.4, -15.9)
    sky, light = sky_image(FULL), star_image(FULL, stars, dither)
    for window in (SMALL, CORNER, SUBSTRIP256, SUBSTRIP96):
        assert_array_equal(sky_image(window), sky[window.slices])
        assert_allclose(star_image(window, stars, dither), light[window.slices], atol=1e-5)
    strip = np.s_[10:106]
    assert_array_equal(sky_image(SUBSTRIP256)[strip], sky_image(SUBSTRIP96))
    assert_allclose(star_image(SUBSTRIP256, stars)[strip], star_image(SUBSTRIP96, stars), atol=1e-5)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
def test_sky_is_like_the_real_template():
    real = np.load(REAL / "gr700xd_background_substrip96.npy")[4:-4, 4:-4]
    simulated = sky_image(SUBSTRIP96)[4:-4, 4:-4]
    ratio = np.median(simulated, axis=0) / np.median(real, axis=0)
    assert_allclose(ratio, 1, atol=0.025)
    assert_allclose(simulated / real, 1, atol=0.05)


# --- the stars ---------------------------------------------------------------------------


def test_traces_follow_pastasoss_and_end_at_the_band_edges():
    trace = get_trace("1")
    assert_allclose(np.interp(1000, trace.x, trace.y) - 1792, 48, atol=2)
    assert_allclose(np.interp(2043, trace.x, trace.wavelength), 0.851, atol=0.002)
    assert np.all(np.diff(trace.wavelength) < 0)
    assert trace.throughput[trace.wavelength < 0.55].max() < 1e-4
    assert trace.throughput[trace.wavelength > 3.0].max() < 1e-4
    assert_allclose(np.interp(-1.25, -trace.wavelength, trace.throughput), 1, rtol=1e-3)


def test_orders_nearly_share_the_product_of_order_and_wavelength():
    first, second, third = (get_trace(order) for order in "123")
    inside = (third.x > 50) & (third.x < 850)
    expected = np.interp(third.x[inside], first.x, first.wavelength) / 3
    assert_allclose(third.wavelength[inside], expected, rtol=0.06)
    inside = (first.x > 100) & (first.x < 2000)
    assert_allclose(second.wavelength[inside], first.wavelength[inside] / 2, rtol=0.15)
    assert_allclose(np.interp(500, third.x, third.y) - 1792, 160.5, atol=1)


def test_trace_is_wide_flat_topped_and_winged():
    light = star_image(SUBSTRIP256, single_star(100.0))[:, 1600:1620].mean(axis=1)[:105]
    peak, bright = light.max(), np.flatnonzero(light > 0.4 * light.max())
    assert 20 <= np.ptp(bright) <= 26
    centre = int(bright.mean())
    assert 0.4 * peak < light[centre] < 0.9 * peak  # two horns and a saddle
    assert 0.002 < light[centre - 40] / peak < 0.02


def test_target_has_the_flux_it_is_given():
    trace = get_trace("1")
    column = round(np.interp(-1.25, -trace.wavelength, trace.x))
    light = star_image(SUBSTRIP256, single_star(100.0))[:120, column]
    assert_allclose(light.max(), 100, rtol=0.06)


def test_stars_move_by_the_dither():
    stars = draw_stars(1.0, seed=5)
    window = Window("FULL", 900, 900, 200, 300)
    moved = Window("FULL", 900 - 40, 900 + 120, 200, 300)
    still = star_image(window, stars)
    assert still.max() > 0.1
    assert_allclose(star_image(moved, stars, (120, -40)), still, rtol=0.02, atol=2e-3)


def test_order_zero_lies_right_of_the_step_only():
    left, right = single_star(10.0, x=500 - 2920, y=-970), single_star(10.0, x=1000 - 2920, y=-970)
    blob = star_image(Window("FULL", 940, 940, 120, 120), right)
    y, x = np.unravel_index(blob.argmax(), blob.shape)
    assert abs(x - 60) < 8
    assert abs(y - 60) < 20
    assert blob.max() > 10
    assert star_image(Window("FULL", 940, 440, 120, 120), left).max() < 1


def test_density_counts_the_stars():
    assert star_image(SMALL, draw_stars(0)).max() == 0
    assert len(draw_stars(3).x) == 3 * len(draw_stars(1).x)
    covered = star_image(FULL, draw_stars(1.0, seed=2)) > 0.003 * sky_image(FULL)
    assert 0.35 < covered.mean() < 0.65


def test_dithers_make_a_mosaic():
    assert_array_equal(dither_offsets(1), [[0, 0]])
    offsets = dither_offsets(10)
    assert_allclose(np.diff(offsets[:5, 0]), 150, atol=12)
    assert_allclose(offsets[5:, 1] - offsets[:5, 1], 80, atol=12)


# --- the detector ------------------------------------------------------------------------


def test_flat_is_a_cut_with_mean_one():
    full = draw_flat(Window("FULL", 0, 0, 2048, 2048))
    assert_allclose(full.mean(), 1, atol=1e-4)
    assert_allclose(full.std(), np.hypot(0.01, 0.02), rtol=0.25)
    assert_array_equal(draw_flat(SMALL), full[SMALL.slices])
    assert_array_equal(draw_flat(SMALL, pixel_rms=0, large_rms=0), 1)


def test_stripes_are_pink_and_have_the_rms_they_are_given():
    patterns = np.array(
        [stripe_pattern(FULL, 0.05, np.random.default_rng(seed))[::64] for seed in range(20)]
    )
    levels = patterns.mean(axis=1)
    assert_allclose(levels.std(axis=1), 0.05, rtol=0.02)
    neighbours = np.mean(levels[:, 1:] * levels[:, :-1]) / np.mean(levels**2)
    assert 0.6 < neighbours < 0.95
    drift = patterns[:, -1] - patterns[:, 0]
    assert_allclose(drift.std(), 2 * 0.3 * 0.05, rtol=0.05)


def test_noise_is_what_the_errors_say():
    rng = np.random.default_rng(1)
    rate = np.full((200, 200), 5.0, dtype=np.float32)
    jump = np.zeros(rate.shape, dtype=bool)
    jump[:100] = True
    slope, error = integrate(
        rate, time=100.0, photon_noise=True, read_noise=0.08, jump=jump, rng=rng
    )
    pull = (slope - rate) / error
    assert_allclose(pull[:100].std(), 1, atol=0.03)
    assert_allclose(pull[100:].std(), 1, atol=0.03)
    expected = np.sqrt(5 / (GAIN * 100) + 0.08**2)
    assert_allclose(np.median(error[100:]), expected, rtol=0.01)
    assert np.median(error[:100]) > 1.3 * expected


def test_cosmic_rays_are_counted():
    hits = cosmic_rays((1000, 1000), 0.001, 0.1, np.random.default_rng(2))
    assert_allclose(hits.jump.mean(), 0.001 * 0.9 * 2.4, rtol=0.15)
    assert_allclose(np.mean(hits.excess > 0), 0.001 * 0.1 * 2.4, rtol=0.3)
    assert hits.excess[hits.excess > 0].min() >= 0.3


def test_hot_pixels_stand_still_and_follow_a_power_law():
    window = Window("FULL", 0, 0, 512, 2048)
    excess = hot_pixels(window, 0.01, known=False)
    assert_allclose(np.mean(excess > 0), 0.01, rtol=0.05)
    assert_allclose(np.mean(excess > 4) / np.mean(excess > 0.4), 10**-1.6, rtol=0.25)
    assert_array_equal(
        excess[8:16, 100:200], hot_pixels(Window("FULL", 8, 100, 8, 100), 0.01, known=False)
    )


def test_saturation():
    slope, dq = np.array([[10.0, 1000.0, 1e6]]), np.zeros((1, 3), dtype=np.uint32)
    flag_saturation(slope, dq, time=100.0, groups=10)
    assert_array_equal(np.isnan(slope), [[False, False, True]])
    assert_array_equal(dq, [[0, PIXEL["SATURATED"], PIXEL["SATURATED"] | PIXEL["DO_NOT_USE"]]])


def test_slopes_of_ramps_have_the_noise_of_the_settings(tmp_path):
    """Least-squares slopes have the read noise and stripes of the count rates."""
    window = Window("FULL", 1900, 600, 32, 512)
    quiet = Simulation(window=window, n_integrations=2, exposure_time=200.0, **NOTHING_BUT_SKY)
    quiet = replace(quiet, flat_pixel_rms=0.0, flat_large_rms=0.0)
    for setting, noise in (("read_noise", 0.08), ("stripes", 0.5)):
        settings = replace(quiet, **{setting: noise})
        path = simulate_time_series(tmp_path / setting, settings, target_flux=1e-6, ramps=True)
        with datamodels.open(path.with_name(path.name.replace("rateints", "ramp"))) as ramps:
            assert isinstance(ramps, datamodels.RampModel)
            assert ramps.data.shape == (2, settings.groups, *window.shape)
            times = np.arange(settings.groups) * ramps.meta.exposure.group_time
            data = ramps.data.copy()
        times -= times.mean()
        slopes = np.tensordot(times, data, axes=(0, 1)) / np.sum(times**2)
        sky = fits.getdata(path.parent / "time_series_truth.fits", "SKY")
        residual = slopes - sky
        columns = residual.mean(axis=1, keepdims=True)
        within = np.std(residual - columns)
        if setting == "read_noise":
            assert abs(residual.mean()) < 0.01
            assert within == pytest.approx(settings.slope_noise, rel=0.05)
        else:
            assert within < 0.02
            assert np.std(columns) == pytest.approx(noise, rel=0.4)


def test_read_noise_falls_with_time():
    assert_allclose(Simulation().slope_noise, 0.08)
    assert_allclose(Simulation(exposure_time=1200.0).slope_noise, 0.01)


# --- the files ---------------------------------------------------------------------------


def test_same_seed_same_files_other_seed_other_files(noisy, tmp_path):
    simulate_visit(tmp_path / "same", NOISY)
    simulate_visit(tmp_path / "other", replace(NOISY, seed=2))
    for name in read(noisy)[0]:
        first, same, other = (
            fits.getdata(directory / name, "SCI")
            for directory in (noisy, tmp_path / "same", tmp_path / "other")
        )
        assert_array_equal(first, same)
        assert not np.allclose(first, other, equal_nan=True, rtol=1e-3)


def test_one_ingredient_does_not_disturb_the_others(noisy, tmp_path):
    simulate_visit(tmp_path, replace(NOISY, star_density=0, stripes=0))
    with_stars, without = read(noisy)[2], read(tmp_path)[2]
    for name in ("SKY", "FLAT", "REFFLAT", "UNFLAGGED_HOT"):
        assert_array_equal(with_stars[name], without[name])
    assert without["STARS"].max() == 0


def test_with_everything_off_the_data_are_sky_times_flat(quiet):
    _, exposures, truth = read(quiet)
    science = ~SMALL.reference_pixels()
    for (data, _, dq), row in zip(exposures, truth["LEVELS"], strict=True):
        contrast = sky_image(SMALL, contrast=row["contrast"]) / sky_image(SMALL)
        expected = truth["SKY"] * truth["FLAT"] * contrast * row["level"]
        assert_allclose(data[:, science], np.tile(expected[science], (2, 1)), rtol=1e-5)
        assert not dq.any()


def test_sky_is_the_mean_of_the_exposures(quiet):
    _, exposures, truth = read(quiet)
    mean = np.mean([data for data, _, _ in exposures], axis=(0, 1)) / truth["FLAT"]
    assert_allclose(mean, truth["SKY"], rtol=3e-5)


def test_level_and_contrast_scatter(tmp_path):
    simulation = replace(QUIET, n_exposures=12, n_integrations=1, window=Window("FULL", 8, 8, 4, 4))
    simulate_visit(tmp_path, simulation)
    levels = read(tmp_path)[2]["LEVELS"]
    assert_allclose(levels["level"].mean(), 1)
    assert 0.002 < levels["level"].std() < 0.007
    assert 0.0005 < levels["contrast"].std() < 0.002


def test_noise_of_an_exposure_fits_its_errors(tmp_path):
    simulate_visit(tmp_path, replace(QUIET, photon_noise=True, read_noise=0.08))
    _, exposures, truth = read(tmp_path)
    data, error, _ = exposures[0]
    row = truth["LEVELS"][0]
    sky = sky_image(SMALL, contrast=row["contrast"]) * row["level"] * truth["FLAT"]
    assert_allclose(((data - sky) / error).std(), 1, atol=0.03)


def test_flags(noisy):
    _, exposures, truth = read(noisy)
    for data, error, dq in exposures:
        assert np.all(dq[np.isnan(data)] & PIXEL["DO_NOT_USE"])
        assert np.all(np.isnan(data) == np.isnan(error))
        for name in ("HOT", "DEAD"):
            flagged = (dq & PIXEL[name]) > 0
            assert flagged.any()
            assert np.all(dq[flagged] & PIXEL["DO_NOT_USE"])
        jump = dq == PIXEL["JUMP_DET"]
        assert jump.any()
        assert np.median(error[jump]) > np.median(error[dq == 0])
        hot = truth["UNFLAGGED_HOT"] > 2
        assert np.all(np.nanmedian(data[:, hot] - truth["SKY"][hot], axis=0) > 1)


def test_reference_pixels(tmp_path):
    simulate_visit(tmp_path, replace(NOISY, window=CORNER, n_exposures=1))
    _, ((data, error, dq),), _ = read(tmp_path)
    reference = CORNER.reference_pixels()
    assert reference.sum() == 4 * 64 + 36 * 4
    assert not data[:, reference].any()
    assert not error[:, reference].any()
    assert np.all(dq[:, reference] == PIXEL["REFERENCE_PIXEL"] | PIXEL["DO_NOT_USE"])
    assert not np.any(dq[:, ~reference] & PIXEL["REFERENCE_PIXEL"])


def test_truth_file(noisy):
    names, _, truth = read(noisy)
    assert list(truth) == ["SKY", "STARS", "FLAT", "REFFLAT", "UNFLAGGED_HOT", "LEVELS"]
    assert truth["SKY"].shape == SMALL.shape
    assert truth["STARS"].shape == (2, *SMALL.shape)
    for name in ("SKY", "STARS", "FLAT", "REFFLAT", "UNFLAGGED_HOT"):
        assert truth[name].dtype.newbyteorder("=") == np.float32
    assert list(truth["LEVELS"]["filename"]) == names
    assert_allclose(truth["LEVELS"]["dither_x"], dither_offsets(2)[:, 0])


def test_association(noisy):
    path = next(noisy.glob("*_asn.json"))
    with path.open() as stream:
        association = load_asn(stream)
    assert association["asn_type"] == "skyflat"
    library = ModelLibrary(path)
    assert library.exptypes == ["science", "science"]
    with library:
        model = library.borrow(1)
        assert isinstance(model, datamodels.CubeModel)
        library.shelve(model, 1, modify=False)


def test_flat_field_step_gives_back_the_truth(noisy):
    names, _, truth = read(noisy)
    with (
        datamodels.open(noisy / names[0]) as model,
        datamodels.FlatModel(noisy / "flat.fits") as flat,
    ):
        assert_array_equal(flat.data, truth["FLAT"])
        result, _ = flat_field.do_correction(model, flat=flat)
        good = result.dq == 0
        expected = truth["SKY"] * truth["LEVELS"]["level"][0] + truth["STARS"][0]
        pull = ((result.data - expected) / result.err)[good]
        assert result.meta.cal_step.flat_field == "COMPLETE"
        assert abs(np.median(pull)) < 0.3  # stripes do not average to zero in a small window
        assert_allclose(1.4826 * np.median(np.abs(pull - np.median(pull))), 1, atol=0.15)


def test_headers_are_complete(noisy):
    names, _, _ = read(noisy)
    assert names == [
        "jw04479001001_03101_00001_nis_rateints.fits",
        "jw04479001001_03102_00001_nis_rateints.fits",
    ]
    with datamodels.open(noisy / names[1]) as model:
        meta = model.meta
        assert meta.exposure.type == "NIS_SOSS"
        assert (meta.instrument.filter, meta.instrument.pupil) == ("CLEAR", "GR700XD")
        assert meta.instrument.pupil_position == 245.76
        assert meta.observation.program_number == "04479"
        assert meta.target.proposer_name == "SKYFLAT-1"
        assert (meta.subarray.xstart, meta.subarray.ystart) == (641, 1901)
        assert (meta.subarray.fastaxis, meta.subarray.slowaxis) == (-2, -1)
        assert_allclose(meta.exposure.mid_time - meta.exposure.start_time, 150 / 86400, rtol=1e-4)
        assert meta.cal_step.ramp_fit == "COMPLETE"
        assert model.cal_logs.calwebb_detector1
        assert_allclose(model.err**2, model.var_poisson + model.var_rnoise, rtol=1e-5)
        position = [meta.ephemeris.instance[f"spatial_{axis}_bary"] for axis in "xyz"]
        assert_allclose(np.linalg.norm(position), 1.5e8, rtol=0.03)
        assert len(model.int_times) == 2


def test_pointing_is_that_of_the_settings():
    simulation = replace(QUIET, lon=200.0, lat=-30.0, start="2024-05-01T12:00:00")
    pointing = Pointing.of_exposure(simulation, Clock.of_exposure(simulation, 1), (0.0, 0.0))
    ecliptic = pointing.axis.barycentricmeanecliptic
    assert_allclose([ecliptic.lon.deg, ecliptic.lat.deg], [200, -30], atol=1e-6)


def test_dither_and_pointing_agree(noisy):
    places = []
    for name in read(noisy)[0]:
        with datamodels.open(noisy / name) as model:
            wcs = model.meta.wcsinfo
            matrix = np.array([[wcs.pc1_1, wcs.pc1_2], [wcs.pc2_1, wcs.pc2_2]]) * wcs.cdelt1
            places.append((matrix, wcs.ra_ref, wcs.dec_ref))
    (matrix, ra, dec), (_, ra2, dec2) = places
    step = np.array([(ra2 - ra) * np.cos(np.radians(dec)), dec2 - dec])
    # The field moves opposite to the telescope.
    shift = -np.linalg.solve(matrix, step)
    assert_allclose(shift, np.diff(dither_offsets(2), axis=0)[0], atol=0.05)


def test_time_series_has_a_transit(tmp_path):
    simulation = replace(
        QUIET, window=Window("SUBSTRIP256", 1792, 1400, 120, 64), n_integrations=40
    )
    path = simulate_time_series(tmp_path, simulation, target_flux=400.0, transit_depth=0.02)
    with fits.open(tmp_path / "time_series_truth.fits") as truth:
        curve, target = truth["TRANSIT"].data["brightness"], truth["TARGET"].data
        background = truth["SKY"].data * truth["FLAT"].data
    with datamodels.open(path) as model:
        assert model.meta.visit.tsovisit
        assert_allclose(np.diff(model.int_times["int_mid_BJD_TDB"]), 7.5 / 86400, rtol=1e-3)
        light = np.sum((model.data - background) * (target > 100), axis=(1, 2))
    assert_allclose(light / light[0], curve, rtol=1e-5)
    assert_allclose(curve.min(), 0.98)
    assert 15 < np.count_nonzero(curve < 0.99) < 25


@pytest.mark.parametrize("shape", [(48, 160), (3, 48, 160)])
def test_write_exposure_wraps_any_array(tmp_path, shape):
    images = np.random.default_rng(3).normal(5, 0.2, shape).astype(np.float32)
    errors = np.full(shape, 0.2)
    path = write_exposure(tmp_path / "any_rate.fits", images, errors, simulation=QUIET)
    with datamodels.open(path) as model:
        assert type(model) is (datamodels.ImageModel if len(shape) == 2 else datamodels.CubeModel)
        assert_array_equal(model.data, images)
        assert_allclose(model.err, 0.2)
        assert model.meta.exposure.nints == (2 if len(shape) == 2 else 3)
        assert model.meta.filename == "any_rate.fits"


def test_write_exposure_refuses_a_wrong_shape(tmp_path):
    with pytest.raises(ValueError, match=r"wrong\.fits: images \(3, 4\) do not fit"):
        write_exposure(tmp_path / "wrong.fits", np.ones((3, 4)), np.ones((3, 4)), simulation=QUIET)


def test_streams_are_independent():
    first = random_stream(1, "stars").random(3)
    assert not np.allclose(first, random_stream(1, "levels").random(3))
    assert not np.allclose(first, random_stream(1, "stars", 0).random(3))
