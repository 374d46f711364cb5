"""The edge of the sky, traced row by row, on arrays with known truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from soss_background.sky.edge_model import trace_edge

SHAPE = (512, 300)
ROWS, COLUMNS = np.indices(SHAPE)

# Column of the edge in each row: straight, leaning, and bent; and its width.
PLACES = {
    "straight": (np.full(SHAPE[0], 151.3), 4.0),
    "leaning": (140 + 0.03 * np.arange(SHAPE[0]), 2.5),
    "bent": (150 + 4 * np.sin(np.arange(SHAPE[0]) / 200), 6.0),
}


def sky(place, width=4.0, height=2.5):
    """Return a sky with an edge, DN/s, whose level declines to both sides."""
    rise = expit((COLUMNS - np.asarray(place)[:, np.newaxis]) / width)
    return (5 - 0.001 * COLUMNS + height * rise * (1 - 0.0005 * COLUMNS)).astype("f4")


def noisy(image, seed=0, stripes=0.01, noise=0.05):
    """Add noise and stripes of white noise, DN/s."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, noise, SHAPE) + rng.normal(0, stripes, SHAPE[1])
    return (image + noise).astype("f4")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("stripes", [0.0, 0.02])
def test_the_edge_is_followed(name, stripes):
    place, width = PLACES[name]
    edge = trace_edge(noisy(sky(place, width), stripes=stripes), np.ones(SHAPE, dtype="f4"))
    # The column is defined by a fixed fraction of the height, up to a constant.
    difference = edge.column - place
    assert np.std(difference) < 0.1
    assert abs(np.mean(difference)) < 3
    assert_allclose(edge.width / edge.width.mean(), 1, atol=0.1)
    rise = expit((COLUMNS - place[:, np.newaxis]) / width)
    near = np.abs(COLUMNS - place[:, np.newaxis]) < 15
    assert_allclose(edge.image(SHAPE[1])[near], rise[near], atol=0.08)


def test_the_width_is_followed():
    """The edge of the test is twice as wide in the last rows as in the first."""
    width = 3.5 * 2 ** np.linspace(0, 1, SHAPE[0])
    image = sky(PLACES["straight"][0], width[:, np.newaxis])
    edge = trace_edge(noisy(image, noise=0.02, stripes=0.0), np.ones(SHAPE, dtype="f4"))
    assert_allclose(edge.width / edge.width.mean(), width / width.mean(), atol=0.1)


def test_unknown_pixels_do_not_matter():
    place, width = PLACES["leaning"]
    image, weight = noisy(sky(place, width)), np.ones(SHAPE, dtype="f4")
    expected = trace_edge(image, weight)
    unknown = np.random.default_rng(1).random(SHAPE) < 0.2
    unknown[:40] = unknown[200:230, 140:160] = unknown[:, 100] = True
    image[unknown], weight[unknown] = -50, 0
    found = trace_edge(image, weight)
    assert np.std((found.column - expected.column)[40:]) < 0.1
    assert_allclose(found.image(SHAPE[1])[40:], expected.image(SHAPE[1])[40:], atol=0.05)


@pytest.mark.parametrize("unknown", [0, 128, 512])
def test_the_edge_of_a_full_frame(unknown):
    """A polynomial of high degree is not extrapolated to unknown rows."""
    rows, columns = np.indices((2048, 300))
    place = 150 + 6 * np.sin(2 * np.pi * rows[:, 0] / 1600)
    image = 5 + 2.5 * expit((columns - place[:, np.newaxis]) / 4)
    image = (image + np.random.default_rng(0).normal(0, 0.05, image.shape)).astype("f4")
    weight = np.ones(image.shape, dtype="f4")
    weight[2048 - unknown :] = 0
    edge = trace_edge(np.where(weight > 0, image, 0), weight)
    difference = (edge.column - place)[: 2048 - unknown]
    assert np.std(difference) < 0.1
    assert np.ptp(edge.column[2032 - unknown :]) < 1


@pytest.mark.parametrize("stripe_rms", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_stripes_are_no_edge(stripe_rms, seed):
    image = noisy(sky(PLACES["straight"][0], height=0), seed, stripes=stripe_rms)
    assert trace_edge(image, np.ones(SHAPE, dtype="f4")) is None


@pytest.mark.parametrize("columns", [1, 8, 32, 60])
def test_narrow_images(columns):
    """Images that are narrower than the modelled edge raise no error."""
    image = noisy(sky(PLACES["straight"][0]))[:, 120 : 120 + columns]
    edge = trace_edge(image, np.ones(image.shape, dtype="f4"))
    assert edge is None or edge.image(columns).shape == image.shape


def test_inputs_are_untouched():
    image, weight = noisy(sky(PLACES["bent"][0])), np.ones(SHAPE, dtype="f4")
    copies = image.copy(), weight.copy()
    trace_edge(image, weight)
    assert_array_equal(image, copies[0])
    assert_array_equal(weight, copies[1])
