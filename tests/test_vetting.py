"""Exposures that do not show the sky of the others, on arrays with known truth."""

import numpy as np
import pytest
from stpipe.config_parser import config_from_dict

from soss_background.combine.skyflat_combine_step import SkyflatCombineStep
from soss_background.combine.vetting import vet_exposures
from soss_background.errors import SkyflatError

SHAPE = (96, 80)


def make_exposures(n=6, seed=0, crowding=0.0):
    """Create exposures of one sky with different stars; return cells, noise and masks."""
    rng = np.random.default_rng(seed)
    sky = 5 + 2 * (np.arange(SHAPE[1]) > 30) + np.zeros(SHAPE)
    field = crowding * rng.pareto(1, SHAPE[0] // 4).repeat(4)
    stars = np.array([np.roll(field, 5 * index) for index in range(n)])[:, :, None]
    cells = sky * (1 + rng.normal(0, 0.005, (n, 1, 1))) + stars + rng.normal(0, 0.03, (n, *SHAPE))
    sources = np.broadcast_to(stars > 0.1, cells.shape)
    return cells.astype("f4"), np.full_like(cells, 0.03, dtype="f4"), sources.copy()


def stray_light(fraction):
    """Return light that is bright in one corner, relative to the sky."""
    rows, columns = np.indices(SHAPE)
    return 5 * fraction * np.exp(-((rows - 96) ** 2 + (columns - 80) ** 2) / 2 / 35**2)


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize("masked", [True, False])
def test_stray_light_is_found(masked, n):
    cells, noise, sources = make_exposures(n, crowding=0.005)
    cells[2] += stray_light(0.3)
    sources[2] |= masked & (stray_light(0.3) > 0.1)
    reasons, _ = vet_exposures(cells, noise, sources, mad_threshold=0.005)
    assert "deviates by" in reasons[2]
    assert [index for index, reason in enumerate(reasons) if reason] == [2]


def test_the_threshold_is_a_fraction():
    cells, noise, sources = make_exposures()
    cells[2] += stray_light(0.3)
    deviation = float(
        vet_exposures(cells, noise, sources, mad_threshold=0.005).reasons[2].split()[2]
    )
    assert 1.5 < deviation < 20
    above = 1.1 * deviation / 100
    assert not any(vet_exposures(cells, noise, sources, mad_threshold=above).reasons)


def test_a_threshold_in_percent_is_refused():
    with pytest.raises(SkyflatError, match="SkyflatCombineStep: .*'mad_threshold': .* is too big"):
        SkyflatCombineStep.from_config_section(config_from_dict({"mad_threshold": "5.0"}))


def test_two_bad_exposures_of_six():
    cells, noise, sources = make_exposures()
    for index, light in ((1, stray_light(0.5)), (4, stray_light(0.5)[::-1])):
        cells[index] += light
        sources[index] |= light > 0.1
    reasons, _ = vet_exposures(cells, noise, sources, mad_threshold=0.005)
    assert [bool(reason) for reason in reasons] == [False, True, False, False, True, False]


@pytest.mark.parametrize("crowding", [0, 0.01, 0.1])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_good_exposures_stay(crowding, seed):
    assert not any(vet_exposures(*make_exposures(seed=seed, crowding=crowding)).reasons)


def test_of_two_that_differ_both_stay():
    cells, noise, sources = make_exposures(n=2)
    cells[1] += stray_light(0.5)
    assert vet_exposures(cells, noise, sources, mad_threshold=0.005).reasons == ["", ""]


def test_a_masked_exposure_is_left_out():
    cells, noise, sources = make_exposures()
    sources[5] = True
    assert vet_exposures(cells, noise, sources).reasons == [""] * 5 + ["hardly any unmasked pixel"]


@pytest.mark.parametrize("factor", [0.4, 3])
def test_another_sky_is_left_out(factor):
    cells, noise, sources = make_exposures()
    cells[1] *= factor
    reasons, _ = vet_exposures(cells, noise, sources, mad_threshold=0.005)
    assert reasons == ["", "level far from that of the others", "", "", "", ""]


def test_of_two_skies_neither_is_that_of_the_others():
    cells, noise, sources = make_exposures(n=4)
    cells[2:] *= 10
    assert all(vet_exposures(cells, noise, sources, mad_threshold=0.005).reasons)
