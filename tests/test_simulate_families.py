"""Families of the simulator, verified on simulated arrays."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import NOTHING_BUT_SKY
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst.datamodels import dqflags

from soss_background.cli import main
from soss_background.detector import FULL, SUBSTRIP96, SUBSTRIP256, Window
from soss_background.simulate import (
    FAMILIES,
    FaintEdge,
    Glow,
    PointSpread,
    Simulation,
    SkyShape,
    Stars,
    choose_families,
    draw_simulation,
    draw_stars,
    simulate_visit,
    sky_image,
    star_image,
)
from soss_background.simulate.detector_effects import draw_defects, snowballs
from soss_background.simulate.dispersed_sky import EDGE_COLUMN, SKY_ROW, step_shift
from soss_background.simulate.point_spread import OVERSAMPLING, galaxy_profile, trace_profile
from soss_background.simulate.scene import dither_offsets
from soss_background.simulate.streams import random_stream
from soss_background.simulate.stripes import draw_stripes, stripe_pattern
from soss_background.simulate.visit import observe_exposures, true_sky, variations

PIXEL = dqflags.pixel
# Rows on both sides of the boundary of two amplifiers, without reference pixels.
BORDER = Window("FULL", 504, 640, 16, 96)
ROW = Window("FULL", 1846, 0, 1, 2048)
QUIET = Simulation(window=BORDER, n_exposures=3, n_integrations=2, **NOTHING_BUT_SKY)
choose = partial(choose_families, Simulation())


def expose(simulation):
    return list(observe_exposures(simulation, draw_defects(simulation)))


def stripes_of(simulation, integration):
    rng = random_stream(simulation.seed, "readout", 0, integration)
    return draw_stripes(simulation, 0, integration, rng)


# --- choice ------------------------------------------------------------------------------


def test_draws_repeat_and_differ():
    assert draw_simulation(3) == draw_simulation(3)
    assert len({repr(replace(draw_simulation(seed), seed=0)) for seed in range(10)}) == 10


@pytest.mark.parametrize("nuisance", FAMILIES)
def test_all_families_are_drawn(nuisance):
    drawn = [draw_simulation(seed) for seed in range(40)]
    for family in FAMILIES[nuisance]:
        chosen = [draw_simulation(seed, **{nuisance: family}) for seed in range(40)]
        assert any(one == other for one, other in zip(drawn, chosen, strict=True)), family


def test_a_chosen_family_leaves_the_others_unchanged():
    drawn = draw_simulation(5)
    chosen = draw_simulation(5, stripes="walk", wings="none")
    assert (chosen.stripe_power, chosen.spread.wings) == (2, "none")
    spread = replace(drawn.spread, wings="none", wing_scale=0.0)
    assert chosen == replace(drawn, stripe_power=2.0, spread=spread)


def test_reference_families_are_the_default():
    families = {
        nuisance: next(iter(choices))
        for nuisance, choices in FAMILIES.items()
        if nuisance not in ("core", "density")
    }
    assert choose(**families) == Simulation()


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no nuisance 'weather'; there are stripes"):
        choose(weather="fine")
    with pytest.raises(ValueError, match="no family 'blue' of stripes; there are pink, white"):
        choose(stripes="blue")
    with pytest.raises(ValueError, match="no core 'square'"):
        PointSpread(core="square")
    with pytest.raises(ValueError, match="no spectra 'green'"):
        draw_stars(spectra="green")


def test_the_truth_names_the_families(tmp_path):
    chosen = {"stripes": "white", "wings": "none", "glow": "random"}
    simulate_visit(tmp_path, choose_families(replace(QUIET, n_exposures=1), **chosen))
    table = Table.read(tmp_path / "truth.fits", "FAMILIES")
    assert list(table["nuisance"]) == list(chosen)
    assert list(table["family"][:2]) == ["white", "none"]
    assert table["family"][2] in FAMILIES["glow"]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("seed", -1, "seed is -1: it must not be negative"),
        ("n_exposures", 0, "n_exposures is 0: it must be positive"),
        ("star_density", -3.0, "star_density is -3.0: it must not be negative"),
        ("sky_level", float("nan"), "sky_level is nan, not a finite number"),
        ("exposure_time", float("inf"), "exposure_time is inf, not a finite number"),
    ],
)
def test_settings_that_cannot_be_simulated(name, value, fault):
    with pytest.raises(ValueError, match=fault):
        Simulation(**{name: value})


def test_command_line(tmp_path, capsys):
    command = ["simulate", str(tmp_path), "--subarray=SUBSTRIP96", "--n-exposures=1"]
    command += ["--n-integrations=1", "--star-density=0.1", "--family=random", "--seed=3"]
    assert main([*command, "--family=flat=wrong"]) == 0
    with fits.open(tmp_path / "truth.fits") as truth:
        ratio = truth["REFFLAT"].data / truth["FLAT"].data
        expected = draw_simulation(3, Simulation(window=SUBSTRIP96), flat="wrong")
        assert_array_equal(truth["SKY"].data, true_sky(expected))
    assert_allclose(ratio.std(), 0.004, rtol=0.2)
    assert main([*command, "--family=white"]) == 1
    assert "neither 'random' nor NUISANCE=FAMILY" in capsys.readouterr().err
    assert main([*command, "--family=stripes=blue"]) == 1
    assert "no family 'blue' of stripes" in capsys.readouterr().err


def test_drawn_visits_differ_and_repeat():
    base = replace(QUIET, n_exposures=1)
    first, same, other = (expose(draw_simulation(seed, base))[0] for seed in (1, 1, 2))
    assert_array_equal(first.images, same.images)
    assert not np.allclose(first.images, other.images, rtol=1e-3, equal_nan=True)


# --- stripes, amplifiers, pedestals ------------------------------------------------------


def test_amplifiers_of_a_window():
    assert [(rows.start, rows.stop) for rows in FULL.amplifiers()] == [
        (0, 512),
        (512, 1024),
        (1024, 1536),
        (1536, 2048),
    ]
    assert BORDER.amplifiers() == [slice(0, 8), slice(8, 16)]
    assert SUBSTRIP256.amplifiers() == [slice(0, 256)]
    assert Window("SUBSTRIP256", 500, 0, 256, 2048).amplifiers() == [slice(0, 256)]


@pytest.mark.parametrize(("family", "slope"), [("white", 0), ("pink", -1), ("walk", -2)])
def test_spectrum_of_stripes(family, slope):
    window = Window("FULL", 1000, 0, 1, 2048)
    simulation = replace(choose(stripes=family), window=window)
    series = [stripes_of(simulation, index)[0] for index in range(60)]
    power = np.mean(np.abs(np.fft.rfft(series)) ** 2, axis=0)[1:1000]
    assert_allclose(np.polyfit(np.log(np.arange(1, 1000)), np.log(power), 1)[0], slope, atol=0.06)
    assert_allclose(np.std(series, axis=1), 0.05, rtol=0.03)


@pytest.mark.parametrize(("family", "expected"), [("shared", 1), ("own", 0), ("mixed", 0.5)])
def test_sharing_of_stripes(family, expected):
    window = Window("FULL", 510, 0, 4, 2048)
    simulation = replace(choose(amplifiers=family, stripes="white"), window=window)
    patterns = np.array([stripes_of(simulation, index) for index in range(20)])
    within, across = (
        np.corrcoef(patterns[:, 1].ravel(), patterns[:, row].ravel())[0, 1] for row in (0, 2)
    )
    assert within > 0.999
    assert_allclose(across, expected, atol=0.03)
    assert_allclose(patterns.std(), 0.05, rtol=0.15)


def test_subarrays_have_the_stripes_of_their_amplifier():
    full, strip = (
        stripe_pattern(
            window, 1.0, np.random.default_rng(1), sharing=0.5, own=np.random.default_rng(2)
        )
        for window in (FULL, SUBSTRIP256)
    )
    assert_array_equal(full[SUBSTRIP256.slices], strip)


def test_pedestals():
    simulation = replace(choose_families(QUIET, pedestals="each"), n_integrations=100)
    levels = np.array([stripes_of(simulation, index) for index in range(100)])
    assert_allclose(np.ptp(levels[:, :8], axis=(1, 2)), 0, atol=1e-6)
    assert_allclose(levels.std(), 0.02, rtol=0.2)
    assert abs(np.corrcoef(levels[:, 0, 0], levels[:, -1, 0])[0, 1]) < 0.3


def test_band_boundary_shows_in_small_windows():
    image = expose(choose_families(QUIET, pedestals="each"))[0].images[0]
    still = expose(QUIET)[0].images[0]
    below, above = (image - still)[:8].mean(), (image - still)[8:].mean()
    assert abs(above - below) > 0.002
    assert_allclose((image - still)[8:], above, atol=1e-5)


# --- point-spread function ---------------------------------------------------------------


def profile_across(spread):
    """Return the light of a star across its trace by distance from the centre, peak 1."""
    star = Stars(*np.array([[0.0], [-900.0], [100.0], [5000.0]]))
    light = star_image(Window("FULL", 700, 1000, 400, 3), star, spread=spread, order0=False)[:, 1]
    trace = star_image(
        Window("FULL", 700, 1000, 400, 3), star, spread=PointSpread(core="gaussian", wings="none")
    )[:, 1]
    return light[np.argmax(trace) :: -1] / light.max()  # downwards: order 2 lies above


@pytest.mark.parametrize("width", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("core", ["horns", "flat", "gaussian"])
def test_cores(core, width):
    profile = trace_profile(PointSpread(core=core, width=width))
    half = np.flatnonzero(profile > 0.5)[-1] / OVERSAMPLING
    assert_allclose(half, 11 * width, atol=0.8 * width)
    centre, horn = profile[0], profile[int(8 * width * OVERSAMPLING)]
    if core == "horns":
        assert centre < 0.8 * horn
    elif core == "flat":
        assert_allclose(centre, horn, rtol=0.04)
    else:
        assert_allclose(horn / centre, 0.5 ** ((8 / 11) ** 2), rtol=0.01)


def test_wings():
    light = {family: profile_across(choose(wings=family).spread) for family in FAMILIES["wings"]}
    assert_allclose(light["none"][100:], 0, atol=1e-4)
    assert light["cut"][25] > 0.005
    assert_allclose(light["cut"][120:], 0, atol=1e-4)
    # Along a trace, wings r ** -p fall as r ** (1 - p).
    for family, power in (("r^-2", -1), ("r^-3", -2)):
        slope = np.log(light[family][140] / light[family][70]) / np.log(2)
        assert_allclose(slope, power, atol=0.25)
    scale = choose(wings="exponential").spread.wing_scale
    ratio = light["exponential"][120] / light["exponential"][80]
    assert 0.7 < ratio / np.exp(-40 / scale) < 1.5
    assert_allclose(light["reference"][48], 0.005, rtol=0.4)


# --- sky ---------------------------------------------------------------------------------


def edge_of(shape, rows):
    """Measure the column of the edge, and its width from 20 % to 80 %, in rows."""
    sky = sky_image(Window("FULL", 0, 640, 2048, 120), structure=0, shape=shape)[rows]
    levels = sky[:, :1] + (7.0 - sky[:, :1]) * [0.2, 0.5, 0.8]
    columns = np.array(
        [np.interp(level, row, np.arange(640, 760)) for level, row in zip(levels, sky, strict=True)]
    )
    return columns[:, 1], columns[:, 2] - columns[:, 0]


def test_position_and_width_of_the_edge():
    rows = [1846]
    column, width = edge_of(SkyShape(), rows)
    for shift in (-6, 6):
        assert_allclose(edge_of(SkyShape(edge_shift=shift), rows)[0] - column, shift, atol=0.1)
    for factor in (0.6, 2.0):
        found = edge_of(SkyShape(edge_width=factor), rows)
        assert_allclose(found[1] / width, factor, rtol=0.05)
        assert_allclose(found[0] - EDGE_COLUMN, factor * (column - EDGE_COLUMN), atol=0.1)
    far = sky_image(ROW, structure=0, shape=SkyShape(edge_shift=6, edge_width=2.0))[0]
    assert_allclose(far[:250], sky_image(ROW, structure=0)[0, :250], rtol=1e-4)


def test_families_of_the_edge():
    shifts = [choose_families(Simulation(seed=s), edge="wide").sky_shape for s in range(20)]
    assert all(abs(shape.edge_shift) <= 6 and 1 <= shape.edge_width <= 2 for shape in shifts)
    narrow = choose(edge="narrow").sky_shape
    assert 0.6 <= narrow.edge_width <= 1


def test_bend_of_the_edge():
    rows = np.arange(0, 2048, 256)
    straight = edge_of(choose(bend="none").sky_shape, rows)[0]
    assert_allclose(straight, straight[0], atol=0.01)
    curved = edge_of(SkyShape(lean=0, curvature=8.0), rows)[0] - straight
    assert_allclose(curved, 8 * (1 - rows / SKY_ROW) ** 2, atol=0.05)
    assert np.ptp(edge_of(choose(bend="other").sky_shape, rows)[0]) > 1


def test_colours_of_both_sides():
    shape = choose(colour="shape").sky_shape
    ratio = sky_image(ROW, structure=0, shape=shape)[0] / sky_image(ROW, structure=0)[0] - 1
    assert 0.01 < np.ptp(ratio[800:]) < 0.15
    assert 0.005 < np.ptp(ratio[:650]) < 0.08
    other = choose_families(Simulation(seed=2), colour="shape").sky_shape
    assert shape != other
    one_side = sky_image(ROW, structure=0, shape=SkyShape(right_colour=(0.03,)))[0]
    assert_allclose(one_side[:650], sky_image(ROW, structure=0)[0, :650], rtol=1e-4)


@pytest.mark.parametrize("bend", [0.0, 1.0])
def test_faint_edges(bend):
    shape = SkyShape(faint_edges=(FaintEdge(column=1200.0, height=0.02, width=6.0, bend=bend),))
    window = Window("FULL", 0, 1150, 2048, 100)
    ratio = sky_image(window, structure=0, shape=shape) / sky_image(window, structure=0) - 1
    assert_allclose(ratio[:, 0], 0, atol=1e-5)
    assert_allclose(ratio[:, -1], 0.02, atol=1e-5)
    middle = np.array([np.interp(0.01, row, np.arange(1150, 1250)) for row in ratio[::100]])
    assert_allclose(middle - 1200, bend * step_shift(np.arange(0, 2048, 100)), atol=0.1)
    rise = [np.interp(0.02 * part, ratio[1846], np.arange(100)) for part in (0.1, 0.9)]
    assert_allclose(np.diff(rise), 6, atol=0.3)


@pytest.mark.parametrize("family", ["vertical", "bent"])
def test_drawn_faint_edges_are_faint(family):
    for seed in range(10):
        edges = choose_families(Simulation(seed=seed), faint_edges=family).sky_shape.faint_edges
        assert 1 <= len(edges) <= 2
        for edge in edges:
            assert 0.005 <= abs(edge.height) <= 0.02
            assert 2 <= edge.width <= 8
            assert edge.bend == (family == "bent")


def test_row_structure():
    window = Window("FULL", 0, 900, 2048, 2)
    shape = choose(rows="smooth").sky_shape
    ratio = sky_image(window, structure=0, shape=shape) / sky_image(window, structure=0) - 1
    assert_allclose(ratio[:, 0], ratio[:, 1], atol=1e-5)
    assert_allclose(ratio.std(), 0.005, rtol=0.01)
    assert np.abs(np.diff(ratio[:, 0])).max() < 5e-4


def test_glow():
    sky = sky_image(FULL, structure=0)
    corner = choose(glow="corner").sky_shape.glow
    ratio = sky_image(FULL, structure=0, shape=SkyShape(glow=corner)) / sky - 1
    peak = np.unravel_index(ratio.argmax(), ratio.shape)
    assert_allclose(peak, (corner.y, corner.x), atol=3)
    assert 0.01 <= ratio.max() <= 0.03
    assert ratio[1000:1050, 1000:1050].max() < 0.5 * ratio.max()
    border = Glow(height=0.02, scale=100.0, x=0.0, y=None)
    ratio = sky_image(FULL, structure=0, shape=SkyShape(glow=border)) / sky - 1
    assert_allclose(ratio[:, 0], 0.02, rtol=1e-3)
    assert_allclose(ratio[:, 600:], 0, atol=1e-5)
    drawn = choose(glow="border").sky_shape.glow
    assert (drawn.x is None) != (drawn.y is None)


# --- stars -------------------------------------------------------------------------------


def test_slope_of_the_number_counts():
    for slope in (0.6, 1.3):
        flux = draw_stars(100.0, slope=slope).flux
        found = np.log(np.mean(flux > 0.1) / np.mean(flux > 1.0)) / np.log(10)
        assert_allclose(found, slope, rtol=0.08)
    assert choose(counts="steep").star_slope >= 1
    assert choose(counts="shallow").star_slope <= 0.8


def test_spectra():
    assert np.all(np.isinf(draw_stars(spectra="flat").temperature))
    temperature = draw_stars(10.0, spectra="all").temperature
    assert_allclose([temperature.min(), temperature.max()], [2800, 9000], atol=100)
    blue, flat = (
        star_image(SUBSTRIP256, Stars(*np.array([[0.0], [0.0], [50.0], [value]])))
        for value in (9000.0, np.inf)
    )
    ratio = blue[:, [400, 1900]].max(axis=0) / flat[:, [400, 1900]].max(axis=0)
    assert ratio[1] > 2 * ratio[0]


def test_galaxies_are_gaussian_and_twice_as_broad():
    galaxy, star = galaxy_profile(), trace_profile(PointSpread())
    half = [np.flatnonzero(profile > 0.5)[-1] for profile in (galaxy, star)]
    assert_allclose(half[0] / half[1], 2, atol=0.15)
    stars = draw_stars(30.0, galaxies=0.3)
    assert_allclose(stars.galaxy.mean(), 0.3, atol=0.03)
    one = Stars(*np.array([[0.0], [-900.0], [100.0], [5000.0]]), np.array([True]))
    window = Window("FULL", 880, 1000, 120, 1)
    light = star_image(window, one, spread=PointSpread(wings="none"), order0=False)[:, 0]
    assert_allclose(np.count_nonzero(light > 0.5 * light.max()), 44, atol=2)


def test_images_of_order_0_can_be_left_out():
    star = Stars(*np.array([[1000.0 - 2920], [-970.0], [10.0], [5000.0]]))
    window = Window("FULL", 980, 980, 40, 40)
    assert star_image(window, star).max() > 10
    assert star_image(window, star, order0=choose(order0="none").order0).max() < 1


def test_density():
    density = {family: choose(density=family).star_density for family in FAMILIES["density"]}
    assert density["sparse"] < density["moderate"] < density["crowded"]


def test_traces_are_shifted():
    shifts = choose(traces="shifted").trace_shifts
    assert len(shifts) == 3
    for seed in range(20):
        for coefficients in choose_families(Simulation(seed=seed), traces="shifted").trace_shifts:
            shift = np.polynomial.legendre.legval(np.linspace(-1, 1, 50), coefficients)
            assert np.abs(shift).max() <= 1.501
    star = Stars(*np.array([[0.0], [0.0], [100.0], [5000.0]]))
    window = Window("FULL", 1800, 1000, 100, 1)
    spread = PointSpread(core="gaussian", wings="none")
    still, moved = (
        star_image(window, star, spread=spread, trace_shifts=each)[:75, 0]
        for each in ((), ((1.2,), (0.0,), (0.0,)))
    )
    centres = [np.average(np.arange(75), weights=light) for light in (still, moved)]
    assert_allclose(np.diff(centres), 1.2, atol=0.05)


# --- exposures ---------------------------------------------------------------------------


def test_persistence_of_previous_pointings():
    base = replace(QUIET, window=Window("FULL", 900, 900, 64, 64), star_density=2.0)
    without = [exposure.light for exposure in expose(base)]
    simulation = replace(base, persistence=0.01, persistence_decay=0.5)
    light = [exposure.light for exposure in expose(simulation)]
    assert_array_equal(light[0], without[0])
    assert_allclose(light[1], without[1] + 0.01 * without[0], rtol=1e-5)
    assert_allclose(light[2], without[2] + 0.01 * (without[1] + 0.5 * without[0]), rtol=1e-5)
    drawn = choose(persistence="some")
    assert 0.003 <= drawn.persistence <= 0.01


def test_snowballs():
    window = Window("FULL", 0, 0, 1024, 1024)
    core, excess = snowballs(window, 60, 100.0, np.random.default_rng(1))
    halo = (excess > 0) & ~core
    assert core.any()
    assert halo.sum() > 2 * core.sum()
    assert excess[core].min() > 0.3 * 0.7
    simulation = replace(QUIET, snowballs=800.0, exposure_time=200.0)
    image, quiet = expose(simulation)[0], expose(QUIET)[0]
    flagged = image.dq & PIXEL["JUMP_DET"] > 0
    assert_array_equal(flagged, image.dq & PIXEL["DO_NOT_USE"] > 0)
    brighter = image.images - quiet.images > 0.001
    assert np.count_nonzero(brighter & ~flagged) > 0
    assert not np.array_equal(brighter[0], brighter[1])
    assert 2 <= choose(snowballs="some").snowballs <= 6


def test_missed_cosmic_rays():
    assert 0.05 <= choose(cosmic_rays="missed").unflagged_cosmic_rays <= 0.3
    simulation = replace(QUIET, cosmic_rays=1e-3)
    quiet, bright = expose(QUIET), {}
    for fraction in (0.0, 0.3):
        exposures = expose(replace(simulation, unflagged_cosmic_rays=fraction))
        bright[fraction] = sum(
            np.count_nonzero(one.images - other.images > 0.1)
            for one, other in zip(exposures, quiet, strict=True)
        )
    assert bright[0.0] == 0
    assert bright[0.3] > 20


def test_flat_file_differs_from_the_flat_field(tmp_path):
    simulation = replace(
        choose_families(QUIET, flat="wrong"), window=Window("FULL", 1000, 1000, 300, 300)
    )
    simulate_visit(tmp_path, replace(simulation, n_exposures=1, n_integrations=1))
    with fits.open(tmp_path / "flat.fits") as file, fits.open(tmp_path / "truth.fits") as truth:
        ratio = file["SCI"].data / truth["FLAT"].data
        assert_array_equal(file["SCI"].data, truth["REFFLAT"].data)
        # Errors per pixel and on large scales, 0.3 % each.
        assert_allclose(file["ERR"].data, 0.003 * np.sqrt(2), rtol=0.01)
        name = next(tmp_path.glob("*_rateints.fits"))
        data = fits.getdata(name, "SCI")[0]
        row = truth["LEVELS"].data[0]
        sky = true_sky(simulation, row["level"], row["contrast"])
        assert_allclose(data / truth["FLAT"].data, sky, rtol=1e-4)
        # The truth is the sky, without errors of the flat.
        assert_array_equal(truth["SKY"].data, true_sky(simulation))
    assert_allclose(np.diff(ratio).std() / np.sqrt(2), 0.003, rtol=0.03)
    large = [
        (draw_defects(each).reference_flat / draw_defects(each).flat).mean() - 1
        for each in (replace(simulation, seed=seed) for seed in range(10))
    ]
    assert 0.001 < np.std(large) < 0.006


def test_levels_drift():
    simulation = replace(
        QUIET, n_exposures=11, level_scatter=0.0, colour_scatter=0.0, level_drift=0.01
    )
    levels, _ = variations(simulation)
    assert_allclose(levels, 1 + 0.01 * np.linspace(-0.5, 0.5, 11))
    assert_allclose(variations(replace(simulation, n_exposures=1))[0], 1)
    assert abs(choose(levels="drift").level_drift) <= 0.01


def test_misstated_errors(tmp_path):
    base = replace(QUIET, photon_noise=True, read_noise=0.08, n_exposures=1)
    for factor in (1.0, 0.7):
        simulate_visit(tmp_path / str(factor), replace(base, error_factor=factor))
    name = next((tmp_path / "1.0").glob("*_rateints.fits")).name
    with fits.open(tmp_path / "1.0" / name) as true, fits.open(tmp_path / "0.7" / name) as wrong:
        assert_array_equal(true["SCI"].data, wrong["SCI"].data)
        assert_allclose(wrong["ERR"].data, 0.7 * true["ERR"].data, rtol=1e-5)
        for plane in ("VAR_POISSON", "VAR_RNOISE"):
            assert_allclose(wrong[plane].data, 0.49 * true[plane].data, rtol=1e-4, atol=1e-7)
    assert 0.7 <= choose(errors="misstated").error_factor <= 1.3


@pytest.mark.parametrize(
    "change",
    [
        {"stripes": 0.2},
        {"pedestals": 0.02},
        {"snowballs": 50.0},
        {"stripe_power": 2.0},
        {"lost": 0.01},
        {"stripe_sharing": 0.0},
    ],
)
def test_noise_does_not_depend_on_other_ingredients(change):
    base = replace(QUIET, n_exposures=1, read_noise=0.08, stripes=0.05, cosmic_rays=1e-5)
    noise = []
    for simulation in (base, replace(base, **change)):
        exposure = expose(simulation)[0]
        clean = (exposure.dq == 0) & np.isfinite(exposure.images)
        noise.append(np.where(clean, exposure.images - exposure.stripes, np.nan))
    difference = (noise[0] - noise[1])[np.isfinite(noise[0] + noise[1])]
    assert difference.size > 0.9 * noise[0].size
    assert np.median(np.abs(difference)) < 1e-6
    assert np.mean(np.abs(difference) > 1e-5) < 0.01


def test_dithers_do_not_depend_on_families():
    positions = [
        exposure.dither for exposure in expose(draw_simulation(1, QUIET, density="sparse"))
    ]
    assert_allclose(positions, dither_offsets(3, 1))
