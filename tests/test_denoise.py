"""Denoising and filling, on arrays with known truth."""

import numpy as np
import pytest
from helpers import make_skyflat
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from stdatamodels.jwst.datamodels import dqflags

from soss_background import SkyflatDenoiseStep
from soss_background.denoise.smooth_sky import denoise_sky, noise_factor
from soss_background.detector import Window
from soss_background.numerics.smoothing import fill_gaps, gaussian_filter
from soss_background.simulate import sky_image

SHAPE = (128, 128)


def sky():
    """Create a sky with a tilted edge as sharp as the real one, in DN/s."""
    rows, columns = np.indices(SHAPE)
    return (5 + 2.5 / (1 + np.exp(-(columns - 60 - 0.04 * rows) / 4))).astype("f4")


def test_noise_falls_and_the_step_stays():
    rng = np.random.default_rng(0)
    err = np.full(SHAPE, 0.08, dtype="f4")
    errors = []
    for _ in range(8):
        noisy = (sky() + rng.normal(0, 0.08, SHAPE)).astype("f4")
        errors.append(denoise_sky(noisy, err, noisy > 0) - sky())
    assert np.std(errors) < 0.01
    bias = np.mean(errors, axis=0)[20:-20].mean(axis=0)
    assert np.abs(bias).max() < 0.01  # 0.2 % of the sky, also at the edge


@pytest.mark.parametrize("row", [300, 1200])
def test_the_edge_of_the_simulated_sky_is_not_blurred(row):
    """No column near the edge, whose foot and top are curved, has an error above 0.14 %."""
    window = Window("FULL", row, 500, 512, 400)
    truth, err = sky_image(window, structure=0), np.full(window.shape, 0.005, dtype="f4")
    noise = np.random.default_rng(0).normal(0, 0.005, window.shape)
    denoised = denoise_sky((truth + noise).astype("f4"), err, np.ones(window.shape, dtype=bool))
    near = slice(155, 240)
    assert np.abs(np.median((denoised / truth - 1)[:, near], axis=0)).max() < 0.0014


def test_bad_pixels_do_not_matter():
    err = np.full(SHAPE, 0.08, dtype="f4")
    noisy = sky()
    good = np.ones(SHAPE, dtype=bool)
    good[60:90, 30:34] = good[5, 5] = False
    good[:4] = False
    noisy[~good] = 1000
    noisy[80, 33] = np.nan
    denoised = denoise_sky(noisy, err, good)
    assert np.isfinite(denoised).all()
    assert_allclose(denoised, sky(), atol=0.06)


def test_pixels_weigh_by_their_errors():
    rng = np.random.default_rng(0)
    err = np.where(rng.random(SHAPE) < 0.5, 0.01, 1.0).astype("f4")
    noisy = (sky() + rng.normal(0, 1, SHAPE) * err).astype("f4")
    assert np.std(denoise_sky(noisy, err, noisy > -99) - sky()) < 0.01


@pytest.mark.parametrize("factor", [10, 1000])
def test_a_pixel_too_sure_of_itself(factor):
    err = np.full(SHAPE, 0.08, dtype="f4")
    err[64, 100] /= factor
    rng = np.random.default_rng(0)
    noisy = (sky() + rng.normal(0, 0.08, SHAPE)).astype("f4")
    noisy[64, 100] = sky()[64, 100]
    assert np.std(denoise_sky(noisy, err, noisy > 0) - sky()) < 0.01


def test_nothing_to_smooth():
    with pytest.raises(ValueError, match="no pixel shows the sky"):
        denoise_sky(sky(), np.zeros(SHAPE, dtype="f4"), sky() > 0)


def test_inputs_are_untouched():
    err, good, image = np.full(SHAPE, 0.1, dtype="f4"), np.ones(SHAPE, dtype=bool), sky()
    good[3] = False
    copy = good.copy()
    denoise_sky(image, err, good)
    assert_array_equal(image, sky())
    assert_array_equal(good, copy)


def test_fill_gaps():
    known = np.random.default_rng(0).random(SHAPE) > 0.4
    known[40:70, 20:50] = False
    filled = fill_gaps(np.where(known, sky(), np.nan).astype("f4"), known)
    assert_array_equal(filled[known], sky()[known])
    assert_allclose(filled, sky(), atol=0.6)
    assert_allclose(filled[:, 90:], sky()[:, 90:], atol=0.02)


def test_fill_gaps_needs_something():
    with pytest.raises(ValueError, match="without known pixels"):
        fill_gaps(sky(), np.zeros(SHAPE, dtype=bool))


@pytest.mark.parametrize(("mode", "peer"), [("constant", "constant"), ("symmetric", "reflect")])
@pytest.mark.parametrize("sigma", [(4, 2), (0.7, 30), (0, 5)])
def test_gaussian_filter_is_that_of_scipy(sigma, mode, peer):
    image = np.random.default_rng(0).random(SHAPE).astype("f4")
    expected = ndimage.gaussian_filter(image, sigma, mode=peer)
    assert_allclose(gaussian_filter(image, sigma, mode), expected, atol=1e-6)


def stripes(rng, n):
    """Draw columns of 1/f noise with an rms of one."""
    frequency = np.fft.rfftfreq(n)
    amplitude = np.zeros(len(frequency))
    amplitude[1:] = frequency[1:] ** -0.5
    drawn = np.fft.irfft(amplitude * np.exp(2j * np.pi * rng.random(len(frequency))), n)
    return drawn / drawn.std()


@pytest.mark.parametrize("sigmas", [(12.0, 12.0), (6.0, 20.0), (3.0, 8.0)])
@pytest.mark.parametrize("stripe_rms", [0.0, 0.3])
def test_the_noise_falls_by_the_factor(sigmas, stripe_rms):
    """Without an edge, the scatter of the denoised sky is that predicted by the factor."""
    rng, shape = np.random.default_rng(5), (256, 1024)
    ratios = []
    for _ in range(6):
        noise = rng.standard_normal(shape) + stripe_rms * stripes(rng, shape[1])
        err = np.full(shape, np.sqrt(1 + stripe_rms**2), dtype=np.float32)
        sky = (1000 + noise).astype(np.float32)
        denoised = denoise_sky(sky, err, err > 0, sigma_rows=sigmas[0], sigma_columns=sigmas[1])
        ratios.append(np.std(denoised[60:-60, 100:-100]) / err[0, 0])
    fraction = stripe_rms**2 / (1 + stripe_rms**2)
    assert_allclose(np.mean(ratios), noise_factor(*sigmas, shape[1], fraction), rtol=0.2)


WIDE = (256, 800)


def wide_sky(second=0.0):
    """Return a wide sky with a tilted edge, and a second edge of a relative height."""
    rows, columns = np.indices(WIDE)
    lean = 0.025 * rows
    rise = 1 / (1 + np.exp(-(columns - 300 - lean) / 3))
    faint = 1 + second / (1 + np.exp(-(columns - 600 - lean) / 3))
    return ((5 + 2.3 * rise) * faint * (1 + 0.01 * np.sin(rows / 70 + columns / 90))).astype("f4")


def striped(truth, rng, fraction, slope=0.0):
    """Add noise of 1 %, and stripes of a relative rms and a power law; return it and its error."""
    frequency = np.fft.rfftfreq(WIDE[1])
    spectrum = np.fft.rfft(rng.standard_normal(WIDE[1]))
    spectrum[1:] *= frequency[1:] ** (slope / 2)
    spectrum[0] = 0
    columns = np.fft.irfft(spectrum, WIDE[1])
    noise = 0.05 * rng.standard_normal(WIDE) + 5 * fraction * columns / columns.std()
    return (truth + noise).astype("f4"), np.full(WIDE, 0.05, dtype="f4")


@pytest.mark.parametrize("fraction", [0.0015, 0.003, 0.006])
def test_white_stripes_do_not_survive(fraction):
    """The noise of the columns is smoothed everywhere; a stripe is not mistaken for an edge."""
    rng, truth = np.random.default_rng(2), wide_sky()
    left = []
    for _ in range(4):
        image, err = striped(truth, rng, fraction)
        left.append((denoise_sky(image, err, err > 0) / truth - 1)[20:-20].mean(axis=0))
    away = np.abs(np.arange(WIDE[1]) - 303) > 60
    # A Gaussian of 12 pixels, applied twice, leaves 0.19 of white noise.
    assert np.std(np.array(left)[:, away]) < 0.26 * fraction + 0.0002


@pytest.mark.parametrize("slope", [0.0, -1.0, -2.0])
def test_the_edge_stays_sharp_among_stripes(slope):
    """With stripes of twice the usual strength, the mean of many skies is the truth."""
    rng, truth = np.random.default_rng(3), wide_sky()
    means = []
    for _ in range(6):
        image, err = striped(truth, rng, 0.003, slope)
        # Each pattern of noise comes with both signs.
        for noisy in (image, 2 * truth - image):
            means.append(denoise_sky(noisy, err, err > 0) / truth - 1)
    bias = np.mean(means, axis=0)[20:-20]
    shifted = [bias[row, 263 + row // 40 : 343 + row // 40] for row in range(len(bias))]
    assert np.sqrt(np.mean(np.mean(shifted, axis=0) ** 2)) < 0.0025


@pytest.mark.parametrize("height", [-0.03, -0.02, 0.01, 0.02, 0.03])
@pytest.mark.parametrize("fraction", [0.0, 0.0015])
def test_a_second_edge_is_not_smeared(height, fraction):
    """The error is below 0.3 % across the edge, in the mean of patterns with both signs."""
    rng, truth = np.random.default_rng(4), wide_sky(height)
    errors = []
    for _ in range(3):
        image, err = striped(truth, rng, fraction)
        for noisy in (image, 2 * truth - image):
            errors.append(denoise_sky(noisy, err, err > 0) / truth - 1)
    bias = np.mean(errors, axis=0)
    across = [bias[row, 560 + row // 40 : 640 + row // 40] for row in range(20, 236)]
    assert np.abs(np.mean(across, axis=0)).max() < 0.003


def test_factor_of_a_narrow_sky():
    assert 0 < noise_factor(12.0, 12.0, 1, 0.1) <= 1


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.19), (-1.0, 0.73), (-2.0, 0.99)])
def test_factor_of_stripes_by_their_spectrum(slope, expected):
    """Smoothing removes white stripes, but not a random walk."""
    assert_allclose(noise_factor(12.0, 12.0, 2048, 1.0, slope), expected, atol=0.04)
    skyflat = make_skyflat()
    skyflat.meta.skyflat.stripe_rms = 100.0  # all of ERR
    skyflat.meta.skyflat.stripe_slope = slope
    factor = SkyflatDenoiseStep.call(skyflat).meta.skyflat.noise_factor
    assert_allclose(factor, noise_factor(12.0, 12.0, 2048, 1.0, slope))


def test_flagged_pixels_are_ignored():
    """Hot and otherwise bad pixels are not part of the denoised sky."""
    skyflat = make_skyflat()
    clean = SkyflatDenoiseStep.call(skyflat).bkgdn
    for flag, value in (("HOT", 1e4), ("OTHER_BAD_PIXEL", -1e4), ("DO_NOT_USE", 1e4)):
        spoiled = skyflat.copy()
        bad = np.s_[60:200:20, 100:2000:100]
        spoiled.bkg[bad] = value
        spoiled.dq[bad] |= np.uint32(dqflags.pixel[flag])
        assert_allclose(SkyflatDenoiseStep.call(spoiled).bkgdn, clean, atol=0.02)


def test_no_factor_without_stripes():
    """The stripes of a single exposure are unknown, so the factor is unknown, too."""
    skyflat = make_skyflat()
    skyflat.meta.skyflat.stripe_rms = None
    assert SkyflatDenoiseStep.call(skyflat).meta.skyflat.noise_factor is None
