"""Combining exposures, on arrays with known truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst.datamodels import dqflags

from soss_background.combine.continuity import measure_band_offsets
from soss_background.combine.levels import Levels
from soss_background.combine.sky import combine_exposures
from soss_background.io.store import Stack
from soss_background.numerics.cells import gather_blocks

SHAPE = (128, 96)
FLAG = dqflags.pixel


def sky():
    """Create a sky with an edge, in DN/s."""
    rows, columns = np.indices(SHAPE)
    return (5 + 2.5 / (1 + np.exp(-(columns - 40) / 3)) + 0.2 * np.sin(rows / 60)).astype("f4")


def make_exposures(seed=0, n=8, noise=0.2, level_rms=0.01, stripe_rms=0.05):
    """Create noisy exposures; return the arguments of `combine_exposures`, and the levels."""
    rng = np.random.default_rng(seed)
    levels = 1 + rng.normal(0, level_rms, n) if n > 1 else np.ones(1)
    stripes = rng.normal(0, stripe_rms, (n, 1, SHAPE[1])) if n > 1 else 0
    noise = np.broadcast_to(noise, n)[:, None, None]
    images = levels[:, None, None] * sky() + stripes + rng.normal(0, 1, (n, *SHAPE)) * noise
    errors = np.broadcast_to(noise, images.shape)
    flags = np.zeros(images.shape, dtype=np.uint32)
    usable = rng.random(images.shape) > 0.2
    return images.astype("f4"), errors.astype("f4"), flags, usable, levels / levels.mean()


def combine(images, errors, flags, masks, bands=None):
    """Combine exposures in memory."""
    exposures = list(zip(images, errors, flags, masks, strict=True))
    return combine_exposures(exposures, Stack(len(images)), bands=bands)


def error_of(combined):
    """Compare with the truth, after the best scale is applied."""
    return combined.sky / np.median(combined.sky / sky()) - sky()


@pytest.mark.parametrize(
    ("stripe_rms", "understated"), [(0.02, 1), (0.02, 1.5), (0.02, 4), (0.2, 1)]
)
def test_err_is_the_scatter_of_repeated_simulations(stripe_rms, understated):
    """ERR of each pixel is its scatter over independent sets, even if input errors are wrong."""
    sets = [make_exposures(seed, stripe_rms=stripe_rms) for seed in range(40)]
    combined = [combine(i, e / understated, f, ~u) for i, e, f, u, _ in sets]
    scatter = np.std([c.sky / c.scale.mean() for c in combined], axis=0)
    expected = np.sqrt(np.mean([c.err**2 for c in combined], axis=0))
    assert_allclose(np.median(scatter / expected), 1, rtol=0.05)
    pulls = np.concatenate([(error_of(c) / c.err).ravel() for c in combined])
    assert_allclose(1.4826 * np.median(np.abs(pulls)), 1, rtol=0.05)
    assert np.mean(np.abs(pulls) > 3) < 0.01


def test_levels_and_stripes_are_solved():
    images, errors, flags, usable, levels = make_exposures(
        noise=0.05, level_rms=0.03, stripe_rms=0.1
    )
    combined = combine(images, errors, flags, ~usable)
    assert_allclose(combined.scale, levels, atol=5e-3)  # the mean stripe is 0.2 % of the sky
    # Stripes that all exposures share cannot be distinguished from the sky.
    assert 100 * np.std(error_of(combined)) / 5 < 0.9
    matched = np.where(usable, combined.images - combined.sky, np.nan)
    assert np.nanmax(np.abs(np.nanmean(matched, axis=1))) < 0.02


@pytest.mark.parametrize("row", [64, 50])
def test_each_amplifier_has_its_stripes(row):
    """No boundary between two bands of rows remains in the sky and in the exposures."""
    bands, rng = [slice(0, row), slice(row, SHAPE[0])], np.random.default_rng(1)
    images, errors, flags, usable, levels = make_exposures(noise=0.05, stripe_rms=0.1)
    second = rng.normal(0, 0.1, (len(images), 1, SHAPE[1]))
    second += rng.normal(0, 0.02, (len(images), 1, 1))  # the pedestals
    second -= second.mean(axis=0)  # the mean of all exposures is part of the sky
    images[:, row:] += second.astype("f4")
    combined = combine(images, errors, flags, ~usable, bands)
    above, below = (error_of(combined)[rows].mean(axis=0) for rows in bands)
    assert np.std(above - below) < 0.03
    matched = np.where(usable, combined.images - combined.sky, np.nan)
    for rows in bands:
        assert np.nanmax(np.abs(np.nanmean(matched[:, rows], axis=1))) < 0.03
    assert_allclose(combined.scale, levels, atol=0.01)
    assert_allclose(combined.stripe_rms, 0.12, rtol=0.15)  # sqrt(0.1^2 + 0.1^2 / 2)
    # With a single amplifier, the stripes of the second band remain.
    single = combine(images, errors, flags, ~usable)
    matched = np.where(usable, single.images - single.sky, np.nan)
    assert np.nanstd(np.nanmean(matched[:, :row], axis=1)) > 0.03


@pytest.mark.parametrize("slope", [-1.0, -2.0])
def test_no_step_between_amplifiers(slope):
    """The mean stripes of two amplifiers differ by pink noise; the sky is continuous."""
    shape, size, bands = (64, 1024), 16, np.repeat([0, 1], 32)
    rows, columns = np.indices(shape)
    truth = 5 * (1 + 0.003 * np.sin(rows * size / 60 + columns / 40) + 1e-4 * columns)
    before, after = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        frequency = np.fft.rfftfreq(shape[1])
        power = np.fft.rfft(rng.standard_normal((10, 2, shape[1])))
        power[..., 0], power[..., 1:] = 0, power[..., 1:] * frequency[1:] ** (slope / 2)
        stripes = np.fft.irfft(power, shape[1])
        stripes *= 0.03 / stripes.std()
        mean = stripes.mean(axis=0)
        noise = 0.05 / np.sqrt(size)
        sky = (truth + mean[bands] + noise * rng.standard_normal(shape)).astype("f4")
        weight = np.full(shape, 1 / noise**2, dtype="f4")
        stripes = (stripes - mean).astype("f4")
        strips = [slice(size * row, size * (row + 1)) for row in range(shape[0])]
        offsets = measure_band_offsets(sky, weight, stripes, bands, strips)
        assert_allclose(offsets.sum(axis=0), 0, atol=1e-6)
        before.append(mean[1] - mean[0])
        after.append(before[-1] - (offsets[1] - offsets[0]))
    assert np.std(after) < 0.8 * np.std(before)
    assert np.std(gather_blocks(np.array(after), (1, 32)).mean(axis=-1)) < 0.5 * np.std(before)


STRIPS = [slice(16 * row, 16 * row + 16) for row in range(64)]


def continuous_sky(seed=0):
    """Return strips of two bands of a noisy sky without a jump, and the other arguments."""
    rng = np.random.default_rng(seed)
    sky = (5 + 0.02 * rng.standard_normal((64, 512))).astype("f4")
    stripes = np.repeat(0.03 * rng.standard_normal((10, 1, 512)), 2, axis=1).astype("f4")
    weight = np.full(sky.shape, 0.02**-2, dtype="f4")
    return sky, weight, stripes - stripes.mean(axis=0), np.repeat([0, 1], 32), STRIPS


def test_amplifiers_that_share_their_stripes():
    """The noise of the sky is not mistaken for stripes of one of two amplifiers."""
    assert_allclose(measure_band_offsets(*continuous_sky()), 0, atol=1.5e-3)


@pytest.mark.parametrize("pedestal", [0.02, 0.1, -0.4])
def test_a_pedestal_that_all_exposures_share(pedestal):
    """A pedestal of any size is measured, since the sky has no jump."""
    sky, *others = continuous_sky()
    sky[32:] += pedestal
    offsets = measure_band_offsets(sky, *others)
    assert_allclose(offsets[1] - offsets[0], pedestal, atol=0.004)


@pytest.mark.parametrize("unknown", [np.s_[:32], np.s_[28:], np.s_[:]])
def test_a_side_that_is_unknown(unknown):
    sky, weight, *others = continuous_sky()
    sky[32:] += 0.1
    weight[unknown] = 0
    offsets = measure_band_offsets(sky, weight, *others)
    assert_array_equal(offsets, 0)


def test_the_edge_is_not_a_jump():
    """Blocks that the tilted edge crosses are ignored."""
    sky, *others = continuous_sky()
    rows, columns = np.indices(sky.shape)
    sky += (2 / (1 + np.exp(-(columns - 200 - 0.4 * rows) / 3))).astype("f4")
    assert_allclose(measure_band_offsets(sky, *others), 0, atol=4e-3)


@pytest.mark.parametrize("row", [64, 50])
def test_the_combined_sky_has_no_jump(row):
    """A pedestal of one amplifier in all exposures is removed from the sky and the exposures."""
    bands = [slice(0, row), slice(row, SHAPE[0])]
    images, errors, flags, usable, _ = make_exposures(noise=0.05, stripe_rms=0.02)
    images[:, row:] += 0.1
    combined = combine(images, errors, flags, ~usable, bands)
    near = error_of(combined)[row - 20 : row + 20]
    assert abs(np.median(near[20:] - near[:20])) < 0.03
    single = error_of(combine(images, errors, flags, ~usable))[row - 20 : row + 20]
    assert np.median(single[20:] - single[:20]) > 0.07


@pytest.mark.parametrize("slope", [0.0, -1.0, -2.0])
def test_spectrum_of_the_stripes(slope):
    """The index of the power law is measured."""
    rng, columns = np.random.default_rng(0), 1024
    frequency = np.fft.rfftfreq(columns)
    power = np.fft.rfft(rng.standard_normal((8, 1, columns)))
    power[..., 1:] *= frequency[1:] ** (slope / 2)
    stripes = np.fft.irfft(power, columns)
    levels = Levels(np.ones(8), 0.1 * (stripes - stripes.mean(axis=0)) / stripes.std())
    assert_allclose(levels.stripe_slope, slope, atol=0.25)


def test_levels_have_a_mean_of_one():
    images, errors, flags, usable, _ = make_exposures(noise=0.05, stripe_rms=0)
    levels = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.03, 1.05])
    noise = np.random.default_rng(0).normal(0, 0.05, images.shape)
    images = (levels[:, None, None] * sky() + noise).astype("f4")
    combined = combine(images, errors, flags, ~usable)
    assert_allclose(combined.scale, levels / levels.mean(), rtol=2e-3)
    assert_allclose(combined.scale.mean(), 1, rtol=1e-5)
    assert_allclose(np.median(combined.sky / sky()), levels.mean(), rtol=2e-3)


@pytest.mark.parametrize(("sigma", "flagged"), [(5, False), (7.5, True)])
def test_threshold_of_hot_pixels(sigma, flagged):
    """A pixel is hot if it is six times its uncertainty above its column."""
    images, errors, flags, usable, _ = make_exposures(noise=0.2, level_rms=0, stripe_rms=0)
    usable[:] = True
    images = np.array([sky()] * len(images))
    images += np.random.default_rng(0).normal(0, 0.2, images.shape).astype("f4")
    typical = np.median(combine(images, errors, flags, ~usable).err)
    images[:, 64, 20] = sky()[64, 20] + sigma * typical
    dq = combine(images, errors, flags, ~usable).dq
    assert bool(dq[64, 20] & FLAG["HOT"]) == flagged


def test_sky_is_the_weighted_mean_of_what_is_left_in():
    images, errors, flags, usable, _ = make_exposures(noise=[0.1] * 4 + [0.4] * 4)
    combined = combine(images, errors, flags, ~usable)
    weight = (combined.left_out == 0) / np.broadcast_to(errors, images.shape) ** 2
    mean = np.sum(weight * combined.images, axis=0) / weight.sum(axis=0)
    good = weight.sum(axis=0) > 0
    assert_allclose(combined.sky[good], mean[good], rtol=2e-3)
    assert_array_equal((combined.left_out == 0) & ~usable, False)


def test_exposures_without_noise():
    images, errors, flags, usable, levels = make_exposures(noise=0.2, stripe_rms=0)
    images = (levels[:, None, None] * sky()).astype("f4")
    combined = combine(images, errors, flags, ~usable)
    assert np.abs(error_of(combined)[usable.any(axis=0)]).max() < 1e-4
    assert_allclose(combined.scale, levels, rtol=1e-4)


def test_inputs_are_untouched():
    images, errors, flags, usable, _ = make_exposures()
    inputs = images, errors, flags, ~usable
    copies = [part.copy() for part in inputs]
    combine(*inputs)
    for part, copy in zip(inputs, copies, strict=True):
        assert_array_equal(part, copy)


def test_errors_of_the_flat_do_not_average():
    """ERR includes them, and the pulls of many skies have the right width."""
    pulls = []
    for seed in range(12):
        images, errors, flags, usable, _ = make_exposures(seed, stripe_rms=0)
        flat = np.random.default_rng(100 + seed).normal(1, 0.01, SHAPE)
        exposures = list(zip((images * flat).astype("f4"), errors, flags, ~usable, strict=True))
        combined = combine_exposures(exposures, Stack(len(images)), flat_error=0.01)
        pulls.append(error_of(combined) / combined.err)
    assert_allclose(1.4826 * np.median(np.abs(pulls)), 1, rtol=0.05)


def test_outliers_are_left_out():
    images, errors, flags, usable, _ = make_exposures()
    usable[:] = True
    images[3, 50, 60] += 50  # a cosmic ray
    combined = combine(images, errors, flags, ~usable)
    assert combined.left_out[3, 50, 60]
    assert combined.left_out.mean() < 1e-3
    assert abs(error_of(combined)[50, 60]) < 5 * combined.err[50, 60]
    assert combined.dq[50, 60] == 0


def test_of_two_samples_the_bright_outlier_goes():
    images, errors, flags, usable, _ = make_exposures(n=8)
    usable[:, 50, 60] = False
    usable[[2, 5], 50, 60] = True
    images[5, 50, 60] += 30
    combined = combine(images, errors, flags, ~usable)
    assert combined.dq[50, 60] == 0
    assert abs(error_of(combined)[50, 60]) < 5 * combined.err[50, 60]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_stripes_of_an_exposure(n):
    """The recorded rms is that of one exposure, although the mean stripe is in the sky."""
    images, errors, flags, usable, _ = make_exposures(n=n, noise=0.01, stripe_rms=0.1)
    found = combine(images, errors, flags, ~usable).stripe_rms
    if n == 1:
        assert found is None
    else:
        assert_allclose(found, 0.1, rtol=0.2)


def test_strong_stripes_behind_large_masks():
    """With few unmasked pixels, stripes and sky are iterated until they converge."""
    errors_of = []
    for seed in range(4):
        images, errors, flags, usable, _ = make_exposures(seed, noise=0.05, stripe_rms=0.4)
        usable[:] = True
        for k, mask in enumerate(usable):
            mask[16 * k : 16 * k + 70] = False
        combined = combine(images, errors, flags, ~usable)
        errors_of.append(error_of(combined))
        errors_of[-1] -= np.mean(errors_of[-1], axis=0)  # the mean stripe remains in any case
    blocks = np.array(errors_of).reshape(4, 8, 16, SHAPE[1]).mean(axis=2)
    assert np.std(blocks) < 0.03


def test_flags():
    images, errors, flags, usable, _ = make_exposures()
    images[:, 30, 30] += 5  # hot, unknown to the flags
    images[:, 31, 70] -= 2
    flags[:, 60, 20] = FLAG["HOT"] | FLAG["DO_NOT_USE"]
    flags[2, 61, 20] = FLAG["DO_NOT_USE"] | FLAG["JUMP_DET"]
    usable[:, 30, 30] = usable[:, 31, 70] = True
    usable[:, 60, 20] = usable[2, 61, 20] = usable[:, 70:74, 80] = False
    flags[:, :4] = FLAG["REFERENCE_PIXEL"] | FLAG["DO_NOT_USE"]
    images[:, :4], usable[:, :4] = np.nan, False
    combined = combine(images, errors, flags, ~usable)
    dq = combined.dq
    assert dq[30, 30] == FLAG["HOT"]
    assert dq[31, 70] == FLAG["OTHER_BAD_PIXEL"]
    assert dq[60, 20] == FLAG["HOT"] | FLAG["DO_NOT_USE"]
    assert dq[61, 20] == 0
    assert (dq[70:74, 80] == FLAG["DO_NOT_USE"]).all()
    assert (dq[:4] == FLAG["REFERENCE_PIXEL"] | FLAG["DO_NOT_USE"]).all()
    assert np.count_nonzero(dq[4:]) < 20
    assert (combined.sky[:4] == 0).all()
    assert (combined.images[:, :4] == 0).all()
    assert np.isfinite(combined.sky).all()
    # Filled pixels are near the truth, and their uncertainty is not that of a mean.
    assert np.abs(error_of(combined)[70:74, 80]).max() < 0.3
    assert combined.err[72, 80] > 1.5 * np.median(combined.err)


@pytest.mark.parametrize(("n", "shape"), [(9, SHAPE), (17, (37, 45)), (33, (50, 96))])
def test_files_many_exposures_odd_shapes(n, shape, tmp_path):
    """Blocks of rows have different sizes then; one exposure is left out."""
    images, errors, flags, usable, levels = make_exposures(n=n)
    images[4] *= 3
    rows, columns = (slice(0, size) for size in shape)
    exposures = [
        tuple(part[rows, columns] for part in exposure)
        for exposure in zip(images, errors, flags, ~usable, strict=True)
    ]
    in_memory = combine_exposures(exposures, Stack(n))
    in_files = combine_exposures(exposures, Stack(n, tmp_path))
    for name in ("sky", "err", "dq", "images", "left_out", "scale", "offset", "masked_fraction"):
        assert_array_equal(getattr(in_files, name), getattr(in_memory, name))
    assert [bool(reason) for reason in in_files.reasons] == [i == 4 for i in range(n)]
    used = np.arange(n) != 4
    assert_allclose(in_files.scale[used], levels[used] / levels[used].mean(), atol=0.01)
    error = in_files.sky / np.median(in_files.sky / sky()[rows, columns]) - sky()[rows, columns]
    assert_allclose(1.4826 * np.median(np.abs(error / in_files.err)), 1, rtol=0.15)
    assert_array_equal(in_files.images[4], exposures[4][0])
    assert in_files.left_out[4].all()
    assert_allclose(in_files.masked_fraction, in_files.left_out.mean(axis=(1, 2)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_exposures(n):
    images, errors, flags, usable, _ = make_exposures(n=n, stripe_rms=0)
    combined = combine(images, errors, flags, ~usable)
    assert combined.images.shape == images.shape
    measured = ~combined.left_out.all(axis=0)
    assert_allclose(np.std((error_of(combined) / combined.err)[measured]), 1, rtol=0.15)
    if n == 1:
        assert_allclose(combined.sky[measured], images[0][measured], rtol=1e-6)
        assert combined.scale == 1
