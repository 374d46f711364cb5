"""Star light separated from the sky by its motion, on arrays with known truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, shift

from soss_background.combine.dither import Mosaic, measure_dither, refine_dither
from soss_background.combine.star_light import _Split, model_star_light

SHAPE = (96, 160)
DITHER = np.array([(0, 0), (3, 12), (-2, 25), (14, 1), (12, 13), (15, 24.5), (7.4, 6)])


def sky():
    """Create a sky with an edge, in DN/s."""
    return 5 + 2.5 / (1 + np.exp(-(np.arange(SHAPE[1]) - 60.0) / 2)) + np.zeros(SHAPE)


def star_field(seed=0, n=14):
    """Create traces of stars with wings in a field that is larger than an exposure."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((200, 280), dtype=float)
    field = np.zeros(rows.shape)
    for _ in range(n):
        row = rng.uniform(0, 200) + rng.normal(0, 0.02) * columns
        start, length = rng.uniform(-100, 200), rng.uniform(60, 200)
        along = (columns > start) & (columns < start + length)
        distance = np.abs(rows - row)
        field += (
            rng.pareto(1.0)
            * along
            * (np.exp(-0.5 * (distance / 3) ** 2) + 0.02 / (1 + distance / 6) ** 2)
        )
    return gaussian_filter(field, 1)


def make_exposures(dither=DITHER, noise=0.03, seed=0):
    """Create exposures in cells (the sky, moving stars, noise) and their masks."""
    rng = np.random.default_rng(seed)
    field = star_field(seed)
    cut = np.s_[50 : 50 + SHAPE[0], 60 : 60 + SHAPE[1]]
    light = np.array([shift(field, place, order=1)[cut] for place in dither])
    cells = (sky() + light + rng.normal(0, noise, light.shape)).astype("f4")
    return cells, np.full_like(cells, noise), light > 0.1, light


def test_dither_is_measured():
    *_, light = make_exposures()
    light = np.minimum(light, 0.5)
    light[2, 30:40, 50:60] = np.nan
    dither = measure_dither(light)
    assert_allclose(dither, DITHER, atol=0.3)
    dither = refine_dither(light, dither)
    assert_allclose(dither - dither[0], DITHER, atol=0.1)


def left_in_sky(light, sources):
    """Measure the star light in the mean of the unmasked cells."""
    count = np.sum(~sources, axis=0)
    mean = np.sum(light, axis=0, where=~sources) / np.maximum(count, 1)
    return np.std(mean[count > 0])


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_less_light_is_left_in_the_sky(seed):
    cells, noise, sources, light = make_exposures(seed=seed)
    model = model_star_light(cells, noise, sources)
    assert left_in_sky(light - model, sources) < 0.65 * left_in_sky(light, sources)
    assert (model >= 0).all()


def test_levels_of_exposures_matter_not():
    cells, noise, sources, light = make_exposures(seed=3)
    levels = np.linspace(0.95, 1.05, len(cells), dtype="f4")[:, None, None]
    model = model_star_light(cells * levels, noise, sources) / levels
    assert left_in_sky(light - model, sources) < 0.65 * left_in_sky(light, sources)


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_a_regular_mosaic(seed):
    """Stars that repeat at the distance of the pointings look like sky."""
    rng = np.random.default_rng(seed)
    lattice = np.array([(20 * row, 16 * column) for row in (0, 1) for column in range(4)])
    dither = lattice + rng.uniform(-0.8, 0.8, lattice.shape)
    cells, noise, sources, light = make_exposures(dither - dither[0], noise=0.02, seed=seed)
    model = model_star_light(cells, noise, sources)
    assert left_in_sky(light - model, sources) < 0.65 * left_in_sky(light, sources)


def test_structure_of_the_sky_is_no_star_light():
    cells, noise, sources, light = make_exposures(seed=3)
    rows, columns = np.indices(SHAPE)
    structure = 0.05 * np.sin(rows / 12) * np.cos(columns / 20)
    plain, structured = (
        model_star_light((cells + part).astype("f4"), noise, sources) for part in (0, structure)
    )
    assert np.std((structured - plain)[~sources]) < 0.15 * np.std(structure)


def test_mosaic_is_its_own_transpose():
    rng = np.random.default_rng(0)
    mosaic = Mosaic(DITHER, SHAPE)
    field, images = rng.normal(size=mosaic.shape), rng.normal(size=(len(DITHER), *SHAPE))
    assert_allclose(np.vdot(mosaic.see(field), images), np.vdot(field, mosaic.gather(images)))


def test_gradient_of_the_split():
    rng = np.random.default_rng(0)
    mosaic = Mosaic(DITHER[:3] / 4, (12, 20))
    excess, known, stars = rng.uniform(0, 1, (3, 3, 12, 20)).astype("f4")
    split = _Split(excess, known, stars, 500.0, mosaic, np.repeat([0, 1], 6))
    unknowns = rng.uniform(0, 1, sum(np.prod(shape) for shape in split.shapes))
    _, gradient = split._cost(unknowns)
    for _ in range(5):
        step = rng.normal(size=unknowns.size)
        ahead, behind = (split._cost(unknowns + sign * 0.1 * step)[0] for sign in (1, -1))
        assert_allclose((ahead - behind) / 0.2, gradient @ step, rtol=1e-2, atol=1)


@pytest.mark.parametrize("why", ["two exposures", "no sources", "no dither", "different stars"])
def test_inseparable_stars(why):
    cells, noise, sources, _ = make_exposures()
    if why == "two exposures":
        cells, noise, sources = cells[:2], noise[:2], sources[:2]
    elif why == "no sources":
        sources[:] = False
    elif why == "no dither":
        cells, noise, sources, _ = make_exposures(dither=np.zeros((5, 2)))
    else:
        others = [make_exposures(seed=seed) for seed in range(4)]
        cells, noise, sources = (np.array([other[k][0] for other in others]) for k in range(3))
    assert_array_equal(model_star_light(cells, noise, sources), 0)


@pytest.mark.parametrize("index", [0, 3])
def test_an_exposure_of_other_stars_is_left_alone(index):
    cells, noise, sources, light = make_exposures()
    stranger = make_exposures(seed=9)
    cells[index], sources[index], light[index] = (stranger[k][index] for k in (0, 2, 3))
    model = model_star_light(cells, noise, sources)
    assert_array_equal(model[index], 0)
    others = np.arange(len(cells)) != index
    left, light, sources = (light - model)[others], light[others], sources[others]
    assert left_in_sky(left, sources) < 0.9 * left_in_sky(light, sources)


def test_light_that_is_not_there_is_not_subtracted():
    """An order-0 image may be cut off by the field stop in some exposures."""
    cells, noise, sources, light = make_exposures(seed=3)
    box = np.s_[2, 40:60, 60:100]
    cells[box] -= light[box]
    sources[box] = False
    light[box] = 0
    model = model_star_light(cells, noise, sources)
    assert np.mean(model[box] > 0.2) < 0.02


@pytest.mark.parametrize("seed", [2, 3])
def test_stray_light_of_one_exposure_is_not_moved_to_others(seed):
    cells, noise, sources, _ = make_exposures(seed=seed)
    rows, columns = np.indices(SHAPE)
    stray = np.exp(-((rows - 60) ** 2 + (columns - 80) ** 2) / 2 / 12**2)
    plain = model_star_light(cells, noise, sources)
    cells[3] += stray.astype("f4")
    moved = model_star_light(cells, noise, sources) - plain
    others = np.arange(len(cells)) != 3
    assert np.std(moved[others][~sources[others]]) < 0.15 * np.std(stray)


def test_unknown_cells():
    cells, noise, sources, _ = make_exposures()
    cells[1, 20:30] = noise[1, 20:30] = np.nan
    assert np.isfinite(model_star_light(cells, noise, sources)).all()


@pytest.mark.parametrize("boundary", [48, 33])
def test_two_amplifiers(boundary):
    """Separate stripes hardly affect the model of stars; a boundary may be at an odd row."""
    rng = np.random.default_rng(0)
    cells, noise, sources, light = make_exposures(seed=4)
    plain = left_in_sky(light - model_star_light(cells, noise, sources), sources)
    bands = [slice(0, boundary), slice(boundary, SHAPE[0])]
    for rows in bands:
        cells[:, rows] += rng.normal(0, 0.05, (len(cells), 1, SHAPE[1])).astype("f4")
    model = model_star_light(cells, noise, sources, bands)
    left = left_in_sky(light - model, sources)
    assert left < 1.6 * plain
    assert left < 0.9 * left_in_sky(light - model_star_light(cells, noise, sources), sources)
    assert np.isfinite(model).all()


@pytest.mark.parametrize("rows", [4, 8, 16])
def test_few_rows(rows):
    """With too few rows for the rms of the stripes, the model is finite."""
    cells, noise, sources, _ = (part[:, 40 : 40 + rows] for part in make_exposures(seed=4))
    for boundary in (rows // 2, rows - 1):
        bands = [slice(0, boundary), slice(boundary, rows)]
        assert np.isfinite(model_star_light(cells, noise, sources, bands)).all()
