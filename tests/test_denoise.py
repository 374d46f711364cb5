"""Denoising and filling, on arrays with known truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from soss_background.denoise.smooth_sky import denoise_sky, noise_factor
from soss_background.numerics.smoothing import fill_gaps, gaussian_filter

SHAPE = (128, 128)


def sky():
    """Make a sky with a step as sharp as the real one, tilted, in DN/s."""
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
    assert np.abs(bias).max() < 0.01  # 0.2 % of the sky, at the step as elsewhere


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
    """Without an edge, the scatter of what is denoised is what the factor predicts."""
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
