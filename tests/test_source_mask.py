"""Masks of star light, on arrays."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from soss_background.mask.source_mask import find_sources
from soss_background.numerics.cells import bin_to_cells, expand_cells

SHAPE = (128, 512)


def sky():
    """Create a sky with an edge, in DN/s."""
    columns = np.arange(SHAPE[1])
    return np.broadcast_to(5 + 2.5 / (1 + np.exp(-(columns - 200) / 4)), SHAPE)


def trace(row, peak, width=6.0):
    """Create the light of a star along a row."""
    rows = np.arange(SHAPE[0])[:, None]
    return np.broadcast_to(peak * np.exp(-0.5 * ((rows - row) / width) ** 2), SHAPE)


def make_cells(lights, noise=0.15, seed=0, levels=1.0, stripes=0.0):
    """Bin noisy exposures of the sky and the star light of each."""
    rng = np.random.default_rng(seed)
    err, usable = np.full(SHAPE, noise), np.ones(SHAPE, dtype=bool)
    levels = np.broadcast_to(levels, len(lights))
    images = [
        level * sky() + light + rng.normal(0, noise, SHAPE) + rng.normal(0, stripes, SHAPE[1])
        for level, light in zip(levels, lights, strict=True)
    ]
    pairs = [bin_to_cells(image, err, usable) for image in images]
    return tuple(np.array(part) for part in zip(*pairs, strict=True))


def in_cells(mask):
    """Return the cells of which a mask of pixels covers at least half."""
    return np.array([bin_to_cells(m.astype("f4"), 0 * m + 1.0, m >= 0)[0] for m in mask]) > 0.5


def test_cells_are_robust_means():
    rng = np.random.default_rng(1)
    image = rng.normal(5, 0.2, (64, 128)).astype("f4")
    image[::7, ::9] += 100  # hot pixels
    usable = np.ones(image.shape, dtype=bool)
    usable[:4, :8] = False
    image[8, :] = np.nan
    usable[8, :] = False
    means, noise = bin_to_cells(image, np.full(image.shape, 0.2), usable)
    assert means.shape == noise.shape == (16, 16)
    assert np.isnan(means[0, 0])
    assert np.isfinite(means).sum() == 255
    good = np.isfinite(means)
    assert_allclose(np.mean(means[good]), 5, atol=0.01)
    pulls = (means[good] - 5) / noise[good]
    assert_allclose(pulls.std(), 1, rtol=0.12)


def test_cells_at_an_edge_may_be_smaller():
    image = np.arange(10 * 21, dtype=float).reshape(10, 21)
    means, _ = bin_to_cells(image, 0 * image + 1, image >= 0)
    assert means.shape == (3, 3)
    assert_array_equal(expand_cells(means, image.shape).shape, image.shape)
    assert expand_cells(means, image.shape)[9, 20] == means[2, 2]


def test_pure_sky_is_hardly_masked():
    cells, noise = make_cells(np.zeros((8, *SHAPE)), stripes=0.02)
    assert find_sources(cells, noise).mean() < 0.01


@pytest.mark.parametrize("peak", [0.2, 2.0, 200.0])
def test_moving_traces_are_masked_whole(peak):
    lights = np.array([trace(20 + 12 * k, peak) for k in range(8)])
    cells, noise = make_cells(lights, levels=np.linspace(0.99, 1.01, 8), stripes=0.02)
    sources = find_sources(cells, noise)
    assert sources[in_cells(lights > 0.08)].mean() > 0.98
    assert sources[~in_cells(lights > 2e-3)].mean() < 0.1


def test_crowded_field():
    """Where two thirds of the exposures show star light, the median would be star light."""
    rng = np.random.default_rng(5)
    lights = np.array(
        [sum(trace(row, 0.4, 4.0) for row in rng.uniform(0, 128, 6)) for _ in range(9)]
    )
    cells, noise = make_cells(lights)
    sources = find_sources(cells, noise)
    assert sources[in_cells(lights > 0.1)].mean() > 0.95
    left = np.nanmean(np.where(sources, np.nan, in_cells_mean(lights)))
    assert left < 0.015


def in_cells_mean(images):
    """Bin star light without noise."""
    return np.array([bin_to_cells(i, np.ones(SHAPE), i >= 0)[0] for i in images])


def test_masks_do_not_run_away():
    """More rounds change nothing, since sky and masks have converged."""
    lights = np.array([trace(20 + 12 * k, 1.0) for k in range(6)])
    cells, noise = make_cells(lights)
    few, many = (find_sources(cells, noise, max_rounds=rounds) for rounds in (6, 60))
    assert abs(many.mean() - few.mean()) < 0.005
    assert many.mean() < 0.4


@pytest.mark.parametrize("n", [1, 2])
def test_few_exposures(n):
    lights = np.array([trace(40 + 40 * k, 5.0) for k in range(n)])
    cells, noise = make_cells(lights)
    sources = find_sources(cells, noise)
    assert sources[in_cells(lights > 1)].all()
    assert sources[~in_cells(lights > 1e-3)].mean() < 0.05


def test_exposures_of_different_skies_are_not_compared():
    lights = np.array([trace(40, 5.0), trace(80, 5.0) + 20])
    cells, noise = make_cells(lights)
    sources = find_sources(cells, noise)
    assert sources[in_cells(lights - [[[0]], [[20]]] > 1)].all()
    assert sources.mean() < 0.5


def test_what_is_unknown_stays_unmasked():
    cells, noise = make_cells(np.array([trace(20 + 12 * k, 1.0) for k in range(5)]))
    cells[:, 3, 4] = noise[:, 3, 4] = np.nan
    cells[2, :, :8] = noise[2, :, :8] = np.nan
    sources = find_sources(cells, noise, grow=0)
    assert not sources[:, 3, 4].any()
    assert not sources[2, :, :8].any()


def test_an_exposure_that_shows_nothing_is_masked():
    cells, noise = make_cells(np.array([trace(20 + 12 * k, 1.0) for k in range(5)]))
    others = find_sources(cells[:4], noise[:4])
    cells[4] = noise[4] = np.nan
    sources = find_sources(cells, noise)
    assert sources[4].all()
    assert_array_equal(sources[:4], others)
    assert find_sources(cells[4:], noise[4:]).all()


def test_a_star_where_few_exposures_look():
    """With fewer exposures than the lowest third, the sky is that of the existing ones."""
    cells, noise = make_cells(np.array([trace(40, 5.0), *np.zeros((8, *SHAPE))]))
    cells[2:, :, 32:] = noise[2:, :, 32:] = np.nan
    sources = find_sources(cells, noise)
    assert sources[0, 8:12].all()


def test_parameters_act():
    cells, noise = make_cells(np.array([trace(20 + 12 * k, 0.3) for k in range(6)]))
    default = find_sources(cells, noise).mean()
    assert find_sources(cells, noise, grow=3).mean() > default
    assert find_sources(cells, noise, n_sigma=20).mean() < default
    assert find_sources(cells, noise, min_fraction=0.5).mean() == 0
