"""Cells and threads, on arrays with known truth."""

import os
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from soss_background.numerics.cells import (
    bin_to_cells,
    cell_bands,
    covered_cells,
    expand_cells,
    expand_smoothly,
    find_same_level,
    gather_blocks,
    subtract_common_sky,
)
from soss_background.numerics.smoothing import fill_gaps
from soss_background.numerics.threads import count_threads, map_parallel, split_rows


def test_blocks():
    """Blocks are in order of rows; pixels beyond the image are NaN."""
    image = np.arange(30.0).reshape(5, 6)
    blocks = gather_blocks(image, (2, 4))
    assert blocks.shape == (3, 2, 8)
    assert blocks.dtype == np.float32
    assert_array_equal(blocks[1, 0], [12, 13, 14, 15, 18, 19, 20, 21])
    assert_array_equal(blocks[2, 1], [28, 29, *[np.nan] * 6])


def test_covered_cells():
    """Cells count as covered if more than half of their usable pixels are, also at the borders."""
    usable = np.ones((6, 20), dtype=bool)
    usable[:4, 8:12] = False
    mask = np.zeros_like(usable)
    mask[:4, :4] = True  # half of a cell
    mask[0, 12:16] = mask[1:3, 12:15] = True  # ten of sixteen usable pixels
    mask[:4, 8:12] = True  # pixels that are not usable
    mask[4:, 16:] = True  # all of a cell of 2 by 4
    assert_array_equal(covered_cells(mask, usable), [[False, True, False], [False, False, True]])
    mask[4, 0] = mask[0, 4] = True
    assert_array_equal(covered_cells(mask, usable), [[True, True, False], [False, False, True]])


def test_expansion_of_cells():
    """A ramp of cells becomes a ramp of pixels, flat beyond the outermost centres."""
    rows, columns = np.indices((13, 22))
    centres_y, centres_x = 1.5 + 4.0 * np.arange(4), 3.5 + 8.0 * np.arange(3)
    cells = (2 * centres_y[:, None] + 3 * centres_x).astype("f4")
    inside = 2 * np.clip(rows, 1.5, 13.5) + 3 * np.clip(columns, 3.5, 19.5)
    assert_allclose(expand_smoothly(cells, (13, 22)), inside, rtol=1e-6)
    part = expand_smoothly(cells, (13, 22), rows=slice(5, 9))
    assert_allclose(part, inside[5:9], rtol=1e-6)
    assert_array_equal(expand_cells(cells, (13, 22)), cells[rows // 4, columns // 8])


def test_exposures_of_other_levels():
    cells = np.full((5, 8, 8), 4.0, dtype="f4") * np.array([1, 1.4, 0.4, 1.1, 1.6])[:, None, None]
    cells[0, :3] = np.nan
    # The median level is 1.1: 1.6 is within half of it, 0.4 is not.
    assert_array_equal(find_same_level(cells), [True, True, False, True, True])


def test_common_sky():
    """Levels, columns and sky are separated; a source remains in the residuals."""
    rng = np.random.default_rng(0)
    shape, noise = (60, 80), 0.02
    sky = np.broadcast_to(5 + np.linspace(0, 2, shape[1]), shape)
    levels = np.array([0.9, 1.0, 1.05, 1.1, 0.95, 1.0])
    columns = rng.normal(0, 0.05, (6, 1, shape[1]))
    cells = levels[:, None, None] * (sky + columns) + rng.normal(0, noise, (6, *shape))
    sources = np.zeros(cells.shape, dtype=bool)
    sources[2, 10:14], cells[2, 10:14] = True, cells[2, 10:14] + 3
    cells, errors = cells.astype("f4"), np.full(cells.shape, noise, dtype="f4")
    for known in (sources, np.zeros_like(sources)):
        residual, common, found = subtract_common_sky(cells, errors, known)
        assert_allclose(found.ravel() / found.mean(), levels / levels.mean(), rtol=0.01)
        assert abs(np.mean(common * found.mean() / levels.mean() - sky)) < 0.05
        assert_allclose(np.median(residual[2, 10:14]), 3 / found[2, 0, 0], rtol=0.02)
        # The noise of a mean of six, and no stripes.
        assert np.std(residual[0, 20:]) < 1.3 * noise
        assert abs(np.mean(residual[0])) < 0.2 * noise


def test_gaps_are_filled_from_near_to_far():
    """Gaussians double in width until no gap is left, with the result of scipy."""
    rng = np.random.default_rng(3)
    image = rng.normal(5, 1, (64, 96)).astype("f4")
    known = np.ones(image.shape, dtype=bool)
    known[20:50, 30:80] = known[:3] = False
    expected, filled, sigma = np.where(known, image, 0), known.copy(), np.array([2.0, 1.0])
    rounds = 0
    while not filled.all():
        weight, total = (
            ndimage.gaussian_filter(plane, sigma, mode="constant")
            for plane in (filled.astype("f4"), expected)
        )
        near = ~filled & (weight > 0.01)
        expected[near] = total[near] / weight[near]
        filled |= near
        sigma, rounds = 2 * sigma, rounds + 1
    assert rounds > 1
    assert_allclose(fill_gaps(image, known, sigma=(2.0, 1.0)), expected, rtol=1e-4)


def test_number_of_threads(monkeypatch):
    """The number is OMP_NUM_THREADS, else the cores of this process, else those of the machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert count_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6, 8}, raising=False)
    for text in ("many", "0", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert count_threads() == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_threads() == 7


def test_items_are_worked_on_together(monkeypatch):
    """Three threads run at the same time; results are in order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    barrier = threading.Barrier(3)

    def count(rows):
        barrier.wait(timeout=60)
        return rows.stop - rows.start

    assert map_parallel(count, split_rows(10, 4)) == [4, 4, 2]
    with pytest.raises(ZeroDivisionError):
        map_parallel(lambda number: 1 / number, [1, 0])


def test_noise_of_cells():
    """The scatter of cells agrees with their noise, with all or half of the pixels usable."""
    rng = np.random.default_rng(5)
    image, err = rng.normal(5, 0.2, (256, 512)), np.full((256, 512), 0.2)
    for usable in (np.ones(image.shape, dtype=bool), rng.random(image.shape) < 0.5):
        means, noise = bin_to_cells(image, err, usable)
        pulls = (means - 5) / noise
        assert_allclose(np.nanstd(pulls), 1, rtol=0.04)
        assert abs(np.nanmean(pulls)) < 0.06


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        ([slice(0, 512), slice(512, 1024)], [slice(0, 128), slice(128, 256)]),
        ([slice(0, 50), slice(50, 97)], [slice(0, 12), slice(12, 25)]),
        ([slice(0, 1), slice(1, 60)], [slice(0, 15)]),
    ],
)
def test_bands_of_cells(bands, expected):
    """Bands cover all rows of cells once; an amplifier of less than a row has none."""
    assert cell_bands(bands) == expected


def test_columns_of_each_band_have_a_median_of_their_own():
    rng = np.random.default_rng(0)
    cells = (5 + rng.normal(0, 0.02, (6, 40, 30))).astype("f4")
    stripes = rng.normal(0, 0.3, (6, 2, 30)).astype("f4")
    stripes -= stripes.mean(axis=0)
    cells += np.repeat(stripes, 20, axis=1)
    noise, sources = np.full_like(cells, 0.02), np.zeros(cells.shape, dtype=bool)
    apart, _, _ = subtract_common_sky(cells, noise, sources, [slice(0, 20), slice(20, 40)])
    together, _, _ = subtract_common_sky(cells, noise, sources)
    assert np.std(apart) < 0.03
    assert np.std(together) > 0.15
