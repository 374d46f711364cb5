"""Comparison of skies, selection for a library, and averages of identical skies."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from soss_background.detector import SUBSTRIP96, Window
from soss_background.reference.merging import average_skies
from soss_background.reference.selection import select_skies
from soss_background.simulate import sky_image
from soss_background.sky.edge import right_of_edge
from soss_background.sky.match import bin_sky, cross_residuals, expand_levels, match_levels

WINDOW = SUBSTRIP96


def make_sky(level=1.0, contrast=1.0, shift=0.0):
    """Create a sky without structure, with a shifted edge."""
    moved = Window("", WINDOW.y0, WINDOW.x0 - shift, *WINDOW.shape)
    return level * sky_image(moved, contrast=contrast, structure=0)


def bin_all(*skies):
    return [bin_sky(sky, np.ones(sky.shape, dtype=bool)) for sky in skies]


def test_right_of_edge():
    right = right_of_edge(make_sky())
    assert not right[:, :690].any()
    assert right[:, 725:].all()
    assert_allclose(
        right_of_edge(make_sky(shift=10)).sum(), right.sum() - 10 * WINDOW.ny, rtol=1e-3
    )
    part = right_of_edge(make_sky()[:, 600:900], first_column=600)
    assert_array_equal(part, right[:, 600:900])
    assert not right_of_edge(make_sky()[:, 1000:]).any()


def test_levels_of_both_sides_are_matched():
    sky, template = bin_all(make_sky(0.8), make_sky())
    assert_allclose(match_levels(sky, template), (0.8, 0.8), rtol=1e-5)
    image = expand_levels((2.0, 3.0), template, WINDOW.shape)
    assert_array_equal(np.unique(image), [2, 3])
    assert np.all(image[:, :690] == 2)
    assert np.all(image[:, 725:] == 3)


def test_residuals():
    """Levels are ignored; the residual of a sky is the rms of its structure."""
    rng = np.random.default_rng(1)
    structure = 1 + 0.01 * np.kron(rng.standard_normal((12, 1024)), np.ones((8, 2)))
    plain, scaled, structured = make_sky(), make_sky(1.7), make_sky() * structure.astype("f4")
    residuals = cross_residuals(bin_all(plain, scaled, structured))
    assert_allclose(np.diag(residuals), 0)
    assert_allclose(residuals[:2, :2], 0, atol=1e-5)
    weight = np.sqrt(np.mean(plain**2)) / np.median(plain)
    assert_allclose(residuals[2, 0], np.std(structure) * weight, rtol=0.03)
    assert_allclose(residuals[0, 2], residuals[2, 0], rtol=0.05)


def test_residual_of_a_step_elsewhere():
    """A template is not shifted, as in jwst's step."""
    residuals = cross_residuals(bin_all(make_sky(), make_sky(shift=2), make_sky(shift=5)))
    assert 0.004 < residuals[0, 1] < residuals[0, 2] < 0.05


def test_masked_pixels_do_not_count():
    sky, spoilt = make_sky(), make_sky()
    usable = np.ones(sky.shape, dtype=bool)
    spoilt[8:40, 1000:1100] = 100
    usable[8:40, 1000:1100] = False
    residuals = cross_residuals([bin_sky(sky, usable | True), bin_sky(spoilt, usable)])
    assert_allclose(residuals, 0, atol=1e-5)


def distances(places):
    """Return residuals of skies that differ by their positions on a line, in percent."""
    places = np.array(places, dtype=float) / 100
    return np.abs(places[:, None] - places)


def select(places, exposures=None, **settings):
    exposures = exposures or [
        {(index, number) for number in range(10)} for index in range(len(places))
    ]
    return select_skies(distances(places), exposures, **settings)


def test_leave_one_out():
    selection = select([0, 1, 5])
    assert_array_equal(selection.nearest, [1, 0, 1])
    assert_allclose(selection.left, [0.01, 0.01, 0.04])
    alone = select([3])
    assert alone.nearest[0] == 0
    assert np.isinf(alone.left[0])
    # Skies of the same exposures carry no information about each other.
    again = select([0, 0.1, 5], [{1}, {1}, {2}])
    assert_array_equal(again.nearest, [2, 2, 1])


def test_skies_that_differ_are_all_kept():
    selection = select([0, 1, 2, 4])
    assert selection.groups == [[0], [1], [2], [3]]
    assert selection.reasons == [""] * 4


def test_near_duplicates_are_merged():
    selection = select([0, 3, 0.1, 0.2, 3.3])
    assert sorted(map(sorted, selection.groups)) == [[0, 2, 3], [1], [4]]
    assert selection.reasons == ["", "", "merged with sky 1", "merged with sky 1", ""]
    assert len(select([0, 3, 0.1, 0, 3.3], merge_below=0.0).groups) == 5
    # All pairs of merged skies are the same, not only neighbours.
    chain = select([0, 0.2, 0.4, 0.6]).groups
    assert all(np.ptp(group) == 1 for group in chain)


def test_the_sky_of_most_exposures_stands_for_the_others():
    selection = select([0, 0.1], [{1, 2}, {3, 4, 5}])
    assert selection.groups == [[1, 0]]
    assert selection.reasons == ["merged with sky 2", ""]


def test_one_measurement_is_not_averaged_with_itself():
    selection = select([0, 0.1, 0.05], [{1, 2}, {2, 3, 4}, {5}])
    assert selection.groups == [[1, 2]]
    assert selection.reasons == ["shares exposures with sky 2", "", "merged with sky 2"]
    # Skies that differ are separate, even if they list the same exposures.
    assert select([0, 1, 2], [{1}, {1}, {1}]).groups == [[0], [1], [2]]


def test_an_outlier_does_not_stand_for_itself():
    exposures = [{1}, {2}, {3}, {4}, {5}, {5}]
    selection = select([0, 1, 2, 3, 40, 40.1], exposures)
    assert selection.groups == [[0], [1], [2], [3]]
    assert selection.reasons[4] == "no other sky fits it: 37.0 % left"
    assert selection.reasons[5] == "shares exposures with sky 5"


def test_outliers():
    selection = select([0, 1, 2, 3, 20, 40])
    assert selection.groups == [[0], [1], [2], [3]]
    assert selection.reasons[4:] == [
        "no other sky fits it: 17.0 % left",
        "no other sky fits it: 20.0 % left",
    ]
    assert len(select([0, 1, 2, 3, 20, 40], max_residual=0.25).groups) == 6


def test_what_is_no_outlier():
    # Skies that all differ; two that differ, of which either may be right; a single sky.
    assert len(select([0, 6, 12, 20]).groups) == 4
    assert len(select([0, 50]).groups) == 2
    assert select([0]).groups == [[0]]


def observe(sky, noise, seed):
    """Add noise; return the planes of a sky."""
    rng = np.random.default_rng(seed)
    noisy = (sky + noise * rng.standard_normal(sky.shape)).astype(np.float32)
    return noisy, np.full(sky.shape, noise, dtype=np.float32), np.zeros(sky.shape, dtype=np.uint32)


def test_average():
    """The average has the level of the first sky, less noise than either, and a correct error."""
    truth = make_sky()
    planes = [observe(truth, 0.1, 1), observe(make_sky(0.5), 0.05, 2), observe(truth, 0.2, 3)]
    sky, err, dq = average_skies(planes, bin_all(*(plane[0] for plane in planes)))
    # At the level of the first, the noise of the second is twice as large.
    expected = (0.1**-2 + 0.1**-2 + 0.2**-2) ** -0.5
    assert_allclose(np.std(sky - truth), expected, rtol=0.02)
    assert_allclose(err, expected, rtol=0.01)
    assert abs(np.mean(sky - truth)) < 0.002
    assert not dq.any()
    assert {sky.dtype, err.dtype} == {np.dtype(np.float32)}


def test_average_leaves_out_what_is_flagged():
    first, second = observe(make_sky(), 0.0, 1), observe(make_sky(), 0.0, 1)
    for plane in (first, second):
        plane[1][:] = 0.1
    first[0][10, 300], first[2][10, 300] = 99, 1
    second[2][20, 300] = 2048
    first[2][30, 300] = second[2][30, 300] = 1
    sky, err, dq = average_skies([first, second], bin_all(first[0], second[0]))
    assert_allclose(sky, second[0], rtol=1e-4)
    assert_allclose(err[10, 300], 0.1, rtol=1e-3)
    assert_allclose(err[11, 300], 0.1 / np.sqrt(2), rtol=1e-3)
    assert (dq[10, 300], dq[20, 300], dq[30, 300]) == (0, 2048, 1)


def test_one_sky_stays_as_it_is():
    planes = observe(make_sky(), 0.1, 1)
    assert average_skies([planes], bin_all(planes[0])) is planes


@pytest.mark.parametrize("spoil", [np.nan, 0.0])
def test_average_of_skies_without_errors(spoil):
    """A sky without errors gets the same weight; a pixel without an error is ignored."""
    first, second = observe(make_sky(), 0.1, 1), observe(make_sky(), 0.1, 2)
    second[1][:] = spoil
    sky, err, _ = average_skies([first, second], bin_all(first[0], second[0]))
    if spoil == 0:
        assert_allclose(sky, (first[0] + second[0]) / 2, rtol=2e-3)
        assert_allclose(err, 0.05, rtol=1e-3)
    else:
        assert_allclose(sky, first[0], rtol=2e-3)
        assert_allclose(err, 0.1, rtol=1e-3)
    first[1][:], second[1][:] = spoil, spoil
    sky, err, _ = average_skies([first, second], bin_all(first[0], second[0]))
    assert_allclose(sky, (first[0] + second[0]) / 2, rtol=2e-3)
    assert not err.any()


def test_average_leaves_out_a_pixel_without_error():
    first, second = observe(make_sky(), 0.1, 1), observe(make_sky(), 0.1, 2)
    second[1][10, 300] = np.nan
    sky, err, _ = average_skies([first, second], bin_all(first[0], second[0]))
    assert sky[10, 300] == first[0][10, 300]
    assert_allclose(err[10, 300], 0.1, rtol=1e-5)
    assert np.isfinite(sky).all()
    assert np.isfinite(err).all()
