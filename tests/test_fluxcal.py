"""Flux calibration of NIRISS imaging, against simulated stars."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from helpers import checksums, run_program, strun
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background import EncircledEnergyStep, SurfaceBrightnessStep
from soss_background.cli import main
from soss_background.detector import FILTERS
from soss_background.errors import SkyflatError
from soss_background.fluxcal.aperture import (
    Sky,
    curve_of_growth,
    distances,
    find_doubtful,
    find_star,
    mend_star,
    replace_pixels,
)
from soss_background.fluxcal.expected import expected_rates
from soss_background.fluxcal.psf import Psf, find_psf, read_psf
from soss_background.fluxcal.rates import average_tables, compare_rates, read_table, total_rates
from soss_background.simulate import StarImage, simulate_star

RADII = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15.0])
REAL = Path(__file__).parents[2] / "shared" / "real"
STAR = StarImage(count_rate=1e4, x=50.3, y=49.6)


def encircled(radius, width=1.2):
    """Make the encircled energy of a Moffat profile that ends at 15 pixels."""
    return 0.95 * (1 - (1 + (radius / width) ** 2) ** -1.2) / (1 - (1 + (15 / width) ** 2) ** -1.2)


PSF = Psf(np.linspace(0.25, 15, 60), encircled(np.linspace(0.25, 15, 60)))


@pytest.fixture(scope="module")
def table():
    """Measure the PSF as its tables are: on an image of pixels without noise."""
    star = replace(STAR, x=50.0, y=50.0, count_rate=1.0, sky=0.0, noise=0.0, time=1e12)
    image = simulate_star(PSF, star).data.astype(float)
    settings = {"gain": 1.6, "time": 1e12}
    rate, _ = curve_of_growth(image, 0 * image, (50.0, 50.0), RADII, Sky(0.0, 0.0, 1), **settings)
    return Psf(RADII, rate)


def write_psf(folder, psf, name="F090W", column="CountRate"):
    """Write a table as those of WebbPSF's PSFs."""
    columns = {"Radius": psf.radius, "Rad_arcsec": 0.0656 * psf.radius, column: psf.encircled}
    path = folder / f"{name.lower()}_psf.radtab"
    Table(columns | {f"err{column}": np.sqrt(psf.encircled)}).write(path, format="ascii")
    return path


# --- against the truth -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"count_rate": 500.0, "noise": 0.1},
        {"bad_fraction": 0.05},
        {"gradient": 2.0, "sky": 3.0},
        {"neighbour": (0.3, 17.0, 14.0)},
        {"filter": "F480M", "count_rate": 3e5},
    ],
    ids=["plain", "faint", "bad pixels", "gradient", "neighbour", "bright"],
)
def test_totals_are_true(changes, table):
    """The total count rate is right within its error."""
    pulls, random = [], np.random.default_rng(3)
    for seed in range(16):
        place = dict(zip("xy", 50 + random.uniform(-0.5, 0.5, 2), strict=True))
        settings = replace(STAR, seed=seed, **place, **changes)
        image, whole = (
            simulate_star(PSF, each) for each in (settings, replace(settings, bad_fraction=0.0))
        )
        # What is below bad pixels of the core, nobody knows.
        core = np.s_[44:57, 44:57]
        image.data[core], image.dq[core] = whole.data[core], 0
        totals = total_rates([EncircledEnergyStep().run(image)], lambda _: table, (5, 10))
        (row,) = totals[totals["filter"] == settings.filter]
        assert row["n_radii"] == 6
        # The PSF in pixels is known to some 0.02 per cent, wherever in its pixel the star is.
        error = np.hypot(row["error"], 2e-4 * settings.count_rate)
        pulls.append((row["count_rate"] - settings.count_rate) / error)
    assert abs(np.mean(pulls)) < 0.7
    assert 0.5 < np.std(pulls) < 1.5
    assert np.abs(pulls).max() < 4


@pytest.mark.parametrize("replace_", ["surface", "median"])
def test_bad_pixels_are_replaced(replace_):
    """In the ring, whatever they hold; what is right in the core stays."""
    settings = replace(STAR, count_rate=1e5)
    image = simulate_star(PSF, settings)
    whole = EncircledEnergyStep().run(image)
    hurt = image.copy()
    bits = dqflags.pixel
    # Bad pixels do not count as neighbours, in the core and beyond the circles, too.
    for place, neighbour in (((50, 56), (50, 55)), ((50, 64), (50, 66))):
        pair = image.copy()
        pair.data[place] = pair.data[neighbour] = 1e6
        pair.dq[place] = pair.dq[neighbour] = bits["DO_NOT_USE"]
        pair.data[50, 55] = min(pair.data[50, 55], image.data[50, 55])
        mended = EncircledEnergyStep(replace=replace_).run(pair)
        pull = (mended["count_rate"] - whole["count_rate"]) / mended["error"]
        assert np.abs(pull).max() < 3
        assert mended["error"][-1] < 2000
    places = {(50, 57): np.nan, (44, 46): 1e6, (58, 51): -1e4, (50, 40): np.inf}
    for (row, column), value in places.items():
        hurt.data[row, column] = value
        hurt.dq[row, column] = bits["DO_NOT_USE"] | bits["HOT"]
    # Flags of pixels that are not bad.
    hurt.dq[52, 58] = bits["JUMP_DET"] | bits["NO_FLAT_FIELD"]
    hurt.dq[50, 51] = bits["SATURATED"]
    hurt.dq[50, 54] = bits["DO_NOT_USE"]
    mended = EncircledEnergyStep(replace=replace_).run(hurt)
    assert (mended.meta["NREPLACE"], mended.meta["NSATURAT"], mended.meta["NBAD"]) == (4, 1, 1)
    np.testing.assert_allclose(mended["count_rate"][:5], whole["count_rate"][:5], rtol=1e-6)
    pull = (mended["count_rate"] - whole["count_rate"]) / mended["error"]
    assert np.abs(pull).max() < 3
    # What is guessed is uncertain.
    assert (mended["error"][5:] > 1.01 * whole["error"][5:]).any()
    # Nothing replaced: all circles from the first hole on are unknown.
    for place in ((50, 57), (44, 46), (58, 51)):
        single = image.copy()
        single.data[place], single.dq[place] = hurt.data[place], hurt.dq[place]
        holes = EncircledEnergyStep(replace="none").run(single)
        assert np.isnan(holes["count_rate"][-1])
        assert np.isfinite(holes["count_rate"][RADII < 6]).all()


def test_low_pixels():
    """Of noisy detectors, 'median' replaces what is far below the sky, flagged or not."""
    image = simulate_star(PSF, STAR)
    image.data[50, 62] = -30.0
    assert EncircledEnergyStep().run(image).meta["NREPLACE"] == 0
    low, median = EncircledEnergyStep().run(image), EncircledEnergyStep(replace="median").run(image)
    assert median.meta["NREPLACE"] == 1
    assert low["count_rate"][-1] < median["count_rate"][-1] - 25


@pytest.mark.parametrize("value", [np.nan, -40.0])
def test_bad_pixels_of_the_core(value, caplog):
    """Of faint ones the error knows; without the peak, nothing is measured."""
    settings = replace(STAR, count_rate=1e5)
    whole = EncircledEnergyStep().run(simulate_star(PSF, settings))
    for place, lost in (((50, 54), False), ((50, 50), True), (np.s_[48:52, 49:53], True)):
        image = simulate_star(PSF, settings)
        image.data[place], image.dq[place] = value, 1
        growth = EncircledEnergyStep().run(image)
        assert " bad; sky" in caplog.text
        assert np.isnan(growth["count_rate"][4:]).all() == lost
        if not lost:
            pull = (growth["count_rate"] - whole["count_rate"]) / growth["error"]
            assert np.abs(pull).max() < 3
            assert growth["error"][-1] > 1.1 * whole["error"][-1]


def test_errors():
    """Photons, pixels and the sky, each by its own formula."""
    sky = Sky(1.0, 0.2, 100)
    image = np.full((61, 61), 1.0)
    image[30, 30] += 1000.0
    rate, error = curve_of_growth(
        image, 0 * image, (30.0, 30.0), [2.0, 5.0], sky, gain=2.0, time=50.0
    )
    area = np.pi * np.array([4.0, 25.0])
    np.testing.assert_allclose(rate, 1000.0)
    np.testing.assert_allclose(error**2, 10.0 + 0.04 * area + 0.04 * area**2 / 100)


def test_replacement_of_pixels():
    """A surface of second degree is restored; too few neighbours give NaN."""
    y, x = np.indices((31, 31)) - 15.0
    truth = 5 + 0.3 * x - 0.2 * y + 0.05 * x**2 - 0.02 * x * y + 0.01 * y**2
    wrong = np.zeros(truth.shape, dtype=bool)
    wrong[10, 12] = wrong[10, 13] = wrong[0, 30] = True
    image = np.where(wrong, 1e6, truth)
    restored, error = replace_pixels(image, np.zeros_like(wrong), wrong)
    np.testing.assert_allclose(restored, truth, atol=1e-9)
    np.testing.assert_allclose(error, 0, atol=1e-9)
    median, scatter = replace_pixels(image, np.zeros_like(wrong), wrong, "median")
    around = np.delete(truth[7:14, 9:16].ravel(), [24, 25])
    assert median[10, 12] == np.median(around)
    assert scatter[10, 12] == pytest.approx(np.std(around))
    assert (scatter > 0).sum() == 3
    none, _ = replace_pixels(image, np.zeros_like(wrong), wrong, "none")
    np.testing.assert_array_equal(none, np.where(wrong, np.nan, truth))
    # Eleven good neighbours of the pixel in the corner: one less than are needed.
    bad = np.zeros_like(wrong)
    bad[:7, 24:] = True
    bad[0, 24:30], bad[1, 24:29] = False, False
    assert np.isnan(replace_pixels(image, bad, wrong)[0][0, 30])
    bad[1, 29] = False
    assert replace_pixels(image, bad, wrong)[0][0, 30] == pytest.approx(truth[0, 30])


def test_what_is_replaced_and_what_is_doubted():
    """Bad pixels within the circles; of the core, those without a value; low ones by choice."""
    image = np.full((61, 61), 2.0)
    bad = np.zeros(image.shape, dtype=bool)
    distance = distances(image.shape, (30.0, 30.0))
    ring, end, outside, core, empty, low = (
        (30, 36),
        (30, 45),
        (30, 47),
        (30, 33),
        (28, 30),
        (40, 30),
    )
    for place, value in ((ring, 9.0), (end, 9.0), (outside, 9.0), (core, 12.0), (empty, np.nan)):
        image[place], bad[place] = value, True
    image[low] = -4.0
    settings = {"outer": 15.0, "n_sigma": 3.0}
    sky = Sky(1.0, 1.0, 100)
    for how, number in (("surface", 3), ("median", 4), ("none", 0)):
        mended, error, doubt, found = mend_star(image, bad, distance, sky, how=how, **settings)
        assert found == number
        assert (mended[outside], mended[core]) == (9, 12)
        expected = np.nan if how == "none" else 2
        assert [mended[place] for place in (ring, end, empty)] == pytest.approx(
            [expected] * 3, nan_ok=True
        )
        assert mended[low] == pytest.approx(2 if how == "median" else -4)
        # The neighbours suggest 2: 10 less than the pixel has, and 1 more than the sky.
        assert doubt[core] == pytest.approx(10)
        assert doubt[empty] == pytest.approx(1)
        assert np.count_nonzero(doubt) == 2
        assert error[core] == doubt[core]


def test_doubtful_circles():
    """Those that a bad pixel overlaps, if it may be wrong by more than 2 % of the count rate."""
    distance = distances((61, 61), (30.0, 30.0))
    radii, rate = np.array([3.0, 3.4, 10.0, 15.0]), np.array([100.0, 100, 200, 300])
    doubt = np.zeros(distance.shape)
    doubt[30, 34], doubt[26, 30] = 3.0, 4.0  # 5 together
    np.testing.assert_array_equal(
        find_doubtful(rate, doubt, distance, radii), [False, True, True, False]
    )


@pytest.mark.parametrize("guess", [(50.0, 50.0), (43.0, 56.0)])
def test_the_box_follows_the_star(guess):
    """From seven pixels away, to the same place; the sky is measured around it."""
    image = simulate_star(PSF, replace(STAR, count_rate=1e6))
    bad = np.zeros(image.data.shape, dtype=bool)
    position, sky = find_star(image.data.astype(float), bad, guess, (20, 25), 3.0)
    np.testing.assert_allclose(position, (50.3, 49.6), atol=0.1)
    ring = (distances(bad.shape, position) >= 20) & (distances(bad.shape, position) < 25)
    assert sky.number == pytest.approx(ring.sum(), abs=15)
    assert sky.mean == pytest.approx(np.median(image.data[ring]), abs=3 * sky.sigma / 26)


def test_surface_brightness():
    """Means of annuli without sky; low pixels are ignored unless clip is false."""
    settings = replace(STAR, count_rate=1e6, time=1e4, bad_fraction=0.02)
    image = simulate_star(PSF, settings)
    image.data[50, 63] = -40.0
    image.dq[50, 63] = 0
    profile = SurfaceBrightnessStep().run(image)
    np.testing.assert_array_equal(profile["radius"], [5, 9, 13, 17, 21, 25])
    inner, outer = profile["radius"] - 2, np.minimum(profile["radius"] + 2, 15)
    light = 1e6 * (encircled(outer) - encircled(np.minimum(inner, 15)))
    truth = light / (np.pi * ((profile["radius"] + 2) ** 2 - inner**2))
    np.testing.assert_allclose(profile["surface_brightness"][:2], truth[:2], rtol=0.03)
    pull = (profile["surface_brightness"] - truth) / profile["error"]
    assert np.abs(pull[4:]).max() < 4
    assert profile["n_clipped"][2] == 1
    clean = SurfaceBrightnessStep().run(simulate_star(PSF, replace(settings, bad_fraction=0.0)))
    change = profile["surface_brightness"] / clean["surface_brightness"] - 1
    assert abs(change[0]) < 0.02
    kept = SurfaceBrightnessStep(clip=False).run(image)
    assert (kept["n_clipped"] == 0).all()
    assert kept["surface_brightness"][2] < profile["surface_brightness"][2] - 0.1


# --- steps -------------------------------------------------------------------------------


def test_strun(tmp_path, table):
    """As users run it: tables, pictures, provenance; the input is as it was."""
    path = tmp_path / "jw01094001001_02101_00001_nis_rate.fits"
    simulate_star(PSF, replace(STAR, bad_fraction=0.01)).save(path)
    write_psf(tmp_path, table)
    before = checksums([path])
    done = run_program(
        "strun", "soss_background.EncircledEnergyStep", path, "--psf=.", home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "star at x = 50." in done.stderr
    strun("soss_background.SurfaceBrightnessStep", path, "--save_plot=false")
    assert checksums([path]) == before
    root = path.name.removesuffix("_rate.fits")
    ends = {path.name.removeprefix(f"{root}_") for path in tmp_path.glob(f"{root}*")}
    assert ends == {"rate.fits", "ee.ecsv", "ee.png", "sb.ecsv"}
    growth = read_table(tmp_path / f"{root}_ee.ecsv", "radius")
    assert growth["radius"].unit == u.pixel
    assert growth["count_rate"].unit == growth["error"].unit == u.DN / u.s
    np.testing.assert_allclose(growth["radius_arcsec"], 0.0656 * RADII)
    assert (growth.meta["FILTER"], growth.meta["EXPOSURE"]) == ("F090W", path.name)
    assert abs(growth.meta["X"] - 50.3) < 0.1
    assert growth.meta["HISTORY"][0].startswith("strun soss_background.EncircledEnergyStep")
    # Relative to the largest circle, scaled to the PSF.
    assert growth["encircled_energy"][-1] == pytest.approx(table.encircled[-1])
    np.testing.assert_allclose(growth["encircled_energy"], table.encircled, atol=0.02)


def test_calibrated_images():
    """In MJy/sr, flags and count rates are the same."""
    image = simulate_star(PSF, STAR)
    plain = EncircledEnergyStep().run(image)
    calibrated = image.copy()
    calibrated.data = image.data * np.float32(0.25)
    calibrated.meta.bunit_data = "MJy/sr"
    calibrated.meta.photometry.conversion_megajanskys = 0.25
    before = calibrated.data.copy()
    growth = EncircledEnergyStep().run(calibrated)
    np.testing.assert_array_equal(calibrated.data, before)
    for name in ("count_rate", "error"):
        np.testing.assert_allclose(growth[name], plain[name], rtol=1e-5)


def test_where_the_star_is():
    """By the WCS, or told; a place that is some pixels off will do."""
    image = simulate_star(PSF, STAR)
    for parameters in ({}, {"x": 48.0, "y": 52.0}):
        meta = EncircledEnergyStep(**parameters).run(image).meta
        assert np.hypot(meta["X"] - 50.3, meta["Y"] - 49.6) < 0.1


def test_what_cannot_be_used(tmp_path):
    image = simulate_star(PSF, STAR)
    for change, message in (
        ({"meta.instrument.name": "NIRCAM"}, "INSTRUME is NIRCAM, not NIRISS"),
        ({"meta.instrument.pupil": "GR700XD"}, "FILTER and PUPIL are CLEAR and GR700XD"),
        ({"meta.instrument.filter": "GR150C"}, "FILTER and PUPIL are GR150C and F090W"),
        ({"meta.exposure.exposure_time": None}, "keyword EFFEXPTM is missing"),
        ({"meta.bunit_data": "MJy/sr"}, "in MJy/sr, but keyword PHOTMJSR is missing"),
        ({"meta.bunit_data": "MJy"}, "BUNIT is MJy, not DN/s or MJy/sr"),
        ({"meta.target.ra": None}, "lacks the position of the target: give x and y"),
        ({"meta.target.ra": 89.3}, "the WCS has the target outside"),
        ({"dq": np.ones_like(image.dq)}, "only 0 good pixels of sky"),
    ):
        other = image.copy()
        for key, value in change.items():
            other[key] = value
        for step in (EncircledEnergyStep(), SurfaceBrightnessStep()):
            with pytest.raises(SkyflatError, match=f"{image.meta.filename}: .*({message})"):
                step.run(other)
    for place, message in ((25.0, "no star at x = 25"), (99.0, "not, or not whole, in it")):
        with pytest.raises(SkyflatError, match=message):
            EncircledEnergyStep(x=place, y=50.0).run(image)
    with pytest.raises(SkyflatError, match="radii must be positive and increase"):
        EncircledEnergyStep(radii=[3.0, 2.0]).run(image)
    with pytest.raises(SkyflatError, match="sky_annulus must be positive and increase"):
        SurfaceBrightnessStep(sky_annulus=[25.0, 20.0]).run(image)
    with pytest.raises(SkyflatError, match="x and y are to be given both"):
        EncircledEnergyStep(x=50.0).run(image)
    with pytest.raises(SkyflatError, match="x and y are outside of the image"):
        EncircledEnergyStep(x=200.0, y=50.0).run(image)
    with pytest.raises(SkyflatError, match="half_width must be less than the first of radii, 1"):
        SurfaceBrightnessStep(radii=[1.0]).run(image)
    cube = datamodels.CubeModel(data=image.data[np.newaxis])
    cube.update(image)
    with pytest.raises(SkyflatError, match="a cube of integrations, give the _rate file"):
        EncircledEnergyStep().run(cube)
    with pytest.raises(SkyflatError, match="nothing.fits: no such file"):
        EncircledEnergyStep().run(str(tmp_path / "nothing.fits"))


def test_a_star_near_the_edge(caplog):
    image = simulate_star(PSF, replace(STAR, x=90.0))
    growth = EncircledEnergyStep().run(image)
    assert "circles of 12 pixels and more are not all measured" in caplog.text
    np.testing.assert_array_equal(np.isfinite(growth["count_rate"]), RADII < 11)


# --- tables ------------------------------------------------------------------------------


def make_growth(rates, errors=None, name="F090W", key="count_rate"):
    table = Table({"radius": np.arange(len(rates)) + 5.0, key: np.array(rates, dtype=float)})
    table["error"] = np.ones(len(rates)) if errors is None else np.array(errors, dtype=float)
    table.meta = {"FILTER": name, "FILE": f"{name}.ecsv"}
    return table


def test_averages():
    """Inverse variances; what does not rise is left out, and if nothing is left, all count."""
    first = make_growth([10, 20, 19, 30], [1, 1, 1, 2])
    second = make_growth([14, 24, 23, np.nan], [1, 2, 1, 1])
    mean = average_tables([first, second])
    np.testing.assert_allclose(mean["count_rate"], [12, 20.8, 21, 30])
    np.testing.assert_allclose(mean["error"], [0.5**0.5, 0.8**0.5, 0.5**0.5, 2])
    np.testing.assert_array_equal(mean["n_good"], [2, 2, 0, 1])
    np.testing.assert_allclose(mean["scatter"], [8**0.5, (0.8**2 + 3.2**2) ** 0.5, 8**0.5, np.nan])
    assert mean.meta["INPUTS"] == ["F090W.ecsv", "F090W.ecsv"]
    # A surface brightness need not rise.
    fainter = [make_growth(values, key="surface_brightness") for values in ([3, 2, 1], [5, 2, 3])]
    mean = average_tables(fainter)
    np.testing.assert_allclose(mean["surface_brightness"], [4, 2, 2])
    np.testing.assert_array_equal(mean["n_good"], 2)


def test_tables_that_cannot_be_averaged():
    table = make_growth([1, 2, 3])
    other, star = make_growth([1, 2, 3]), make_growth([1, 2, 3])
    other["radius"] += 1
    star.meta["TARGNAME"] = "B"
    with pytest.raises(SkyflatError, match="tables of different stars: B, None"):
        total_rates([table, star], None, (5, 10))
    for second, message in (
        (make_growth([1, 2, 3], name="F115W"), "its FILTER is F115W, that of others F090W"),
        (make_growth([1, 2, 3], key="surface_brightness"), "column count_rate is missing"),
        (other, "its radii differ from those of others"),
        (star, "its TARGNAME is B, that of others None"),
    ):
        with pytest.raises(SkyflatError, match=message):
            average_tables([table, second])


def test_totals():
    """Each filter in its row, and why it is missing; only the radii asked for."""

    def find(name):
        if name == "F115W":
            raise SkyflatError("no table of F115W")
        return Psf(np.array([4.0, 6, 7, 12]), np.array([0.5, 0.6, 0.8, 0.9]))

    tables = [
        make_growth([60, 60.1, 80, 90], name="F480M"),
        make_growth([1, 2, 3, 4], name="F115W"),
        make_growth([60.0, 60, 160, 170], errors=[1, 3, 1, 1]),
        make_growth([60.0, 120, 160, 170], errors=[1, 3, 1, 1]),
    ]
    totals = total_rates(tables, find, (6, 7), transmission=0.84)
    assert tuple(totals["filter"]) == FILTERS
    rows = {row["filter"]: row for row in totals}
    # 120 / 0.6 and 160 / 0.8: the circle of six pixels of the first does not rise.
    assert rows["F090W"]["count_rate"] == pytest.approx(200)
    assert rows["F090W"]["n_radii"] == 2
    assert rows["F090W"]["error"] == pytest.approx((3 / 0.6 + 0.5**0.5 / 0.8) / 2)
    assert rows["F480M"]["count_rate"] == pytest.approx(0.84 * (60.1 / 0.6 + 100) / 2)
    assert rows["F480M"]["scatter"] > 0
    assert rows["F115W"]["missing"] == "no table of F115W"
    assert rows["F200W"]["missing"] == "not measured"
    assert np.isnan(rows["F200W"]["count_rate"])
    with pytest.raises(SkyflatError, match="radii 10 to 5 do not increase"):
        total_rates(tables, find, (10, 5))
    with pytest.raises(SkyflatError, match="F090W.ecsv: give averages, or what they are of"):
        total_rates([*tables[2:], average_tables(tables[2:])], find, (6, 7))
    far = total_rates(tables[:1], find, (20, 30))
    assert far["missing"][-1] == "no radius of 20 to 30 pixels is measured"


def test_psf_tables(tmp_path, table):
    path = write_psf(tmp_path, table, column="Flux")
    for psf in (find_psf(tmp_path, "F090W"), find_psf(path, "F090W")):
        np.testing.assert_allclose(psf.energy(RADII), table.encircled)
        assert np.isnan(psf.energy([16.0])).all()
    with pytest.raises(SkyflatError, match="0 tables f115w_psf"):
        find_psf(tmp_path, "F115W")
    with pytest.raises(SkyflatError, match="the PSF of F090W, not of F115W"):
        find_psf(path, "F115W")
    for text, message in (
        ("a b\n1 2\n", "column radius is missing"),
        ("Radius Flux\n2 0.5\n1 0.6\n", "radii do not increase"),
        ("Radius Flux\n", "radii do not increase"),
        ("Radius Flux\n1 50\n2 60\n", "encircled energies must lie between 0 and 1"),
    ):
        (tmp_path / "bad.radtab").write_text(text)
        with pytest.raises(SkyflatError, match=f"bad.radtab: .*{message}"):
            read_psf(tmp_path / "bad.radtab")
    with pytest.raises(SkyflatError, match="nothing: no such file"):
        read_psf(tmp_path / "nothing")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
def test_real_psf_tables():
    """All filters are read; a star with such a PSF has its total count rate."""
    for name in FILTERS:
        psf = find_psf(REAL, name)
        star = replace(STAR, filter=name, count_rate=1e5)
        growth = EncircledEnergyStep().run(simulate_star(psf, star))
        totals = total_rates([growth], partial(find_psf, REAL), (5, 10))
        assert np.nanmax(totals["count_rate"]) == pytest.approx(1e5, rel=0.005)


# --- expected rates ----------------------------------------------------------------------


@pytest.fixture
def throughputs(tmp_path):
    """Write a flat spectrum, and throughputs of two filters: one with its units, one without."""
    wave = np.linspace(5000, 60000, 5501)
    flux = u.Quantity(np.full(wave.shape, 1e-15), "erg / (s cm2 Angstrom)")
    Table({"WAVELENGTH": wave * u.AA, "FLUX": flux}).write(tmp_path / "star.fits")
    folder = tmp_path / "throughputs"
    folder.mkdir()
    box = np.where(np.abs(wave - 9000) <= 500, 0.4, 0.0)
    Table({"WAVELENGTH": wave * u.AA, "THROUGHPUT": box}).write(
        folder / "jwst_nis_f090w_clear.fits"
    )
    box = np.where(np.abs(wave - 48000) <= 1000, 0.2, 0.0)
    Table({"wavelength": wave, "throughput": box}).write(folder / "F480M.dat", format="ascii")
    return folder


def test_expected_rates(throughputs, tmp_path):
    """Photons of a flat spectrum in a box are counted by hand."""
    table = expected_rates(tmp_path / "star.fits", throughputs, area=20.0, gain=2.0)
    rows = {row["filter"]: row for row in table}
    for name, wave, width, part in (("F090W", 9e3, 1e3, 0.4), ("F480M", 48e3, 2e3, 0.2)):
        photons = 1e-15 * wave / 1.98645e-8 * width * part * 20e4
        assert rows[name]["electron_rate"] == pytest.approx(photons, rel=0.015)
        assert rows[name]["count_rate"] == pytest.approx(photons / 2, rel=0.015)
    assert rows["F115W"]["missing"] == "no throughput curve"
    totals = Table({"filter": ["F480M", "F090W"], "count_rate": [10.0, 1.0], "error": [2.0, 0.5]})
    ratios = {row["filter"]: row for row in compare_rates(table, totals)}
    assert ratios["F480M"]["ratio"] == pytest.approx(10 / rows["F480M"]["count_rate"])
    assert ratios["F480M"]["ratio_error"] == pytest.approx(2 / rows["F480M"]["count_rate"])
    assert np.isnan(ratios["F200W"]["ratio"])


def test_expected_rates_that_cannot_be(throughputs, tmp_path):
    star = tmp_path / "star.fits"
    short = Table.read(star)
    short[short["WAVELENGTH"] > 3e4].write(tmp_path / "red.fits")
    table = expected_rates(tmp_path / "red.fits", throughputs)
    assert "F090W" in table["filter"][~np.isin(table["missing"], ["-", "no throughput curve"])]
    assert np.isnan(table["count_rate"][0])
    for change, message in (
        ({"FLUX": np.nan}, "not all values are numbers"),
        ({"WAVELENGTH": 1e4}, "wavelengths are not positive, or not all different"),
    ):
        other = Table.read(star)
        for name, value in change.items():
            other[name][:] = value
        other.write(tmp_path / "other.fits", overwrite=True)
        with pytest.raises(SkyflatError, match=f"other.fits: .*{message}"):
            expected_rates(tmp_path / "other.fits", throughputs)
    other = Table.read(star)
    other["FLUX"].unit = "m"
    other.write(tmp_path / "other.fits", overwrite=True)
    with pytest.raises(SkyflatError, match="other.fits: "):
        expected_rates(tmp_path / "other.fits", throughputs)
    with pytest.raises(SkyflatError, match="nowhere: no such folder"):
        expected_rates(star, tmp_path / "nowhere")
    curve = throughputs / "F480M.dat"
    Table({"wavelength": [4e4, 5e4], "throughput": [0.2, 20.0]}).write(
        curve, format="ascii", overwrite=True
    )
    with pytest.raises(SkyflatError, match="F480M.dat: throughputs must lie between 0 and 1"):
        expected_rates(star, throughputs)
    curve.unlink()
    (throughputs / "again_f090w.fits").write_text("none")
    with pytest.raises(SkyflatError, match="again_f090w.fits and .* are both of F090W"):
        expected_rates(star, throughputs)
    (throughputs / "jwst_nis_f090w_clear.fits").unlink()
    with pytest.raises(SkyflatError, match="again_f090w.fits: cannot be read as a throughput"):
        expected_rates(star, throughputs)


# --- command line ------------------------------------------------------------------------


@pytest.mark.usefixtures("throughputs")
def test_command_line(table, tmp_path, monkeypatch, capsys):
    """From dithers to ratios."""
    monkeypatch.chdir(tmp_path)
    write_psf(tmp_path, table)
    for seed in (1, 2):
        star = replace(STAR, seed=seed, x=50.0 - seed)
        growth, profile = (
            step.run(simulate_star(PSF, star))
            for step in (EncircledEnergyStep(), SurfaceBrightnessStep())
        )
        growth.write(f"{seed}_ee.ecsv")
        profile.write(f"{seed}_sb.ecsv")
    for arguments in (
        "mean 1_ee.ecsv 2_ee.ecsv --psf . -o mean.ecsv --plot mean.png",
        "mean 1_sb.ecsv 2_sb.ecsv -o sb.ecsv --plot sb.png",
        "total mean.ecsv --psf . -o total.ecsv",
        "expected star.fits --throughputs throughputs --measured total.ecsv --plot ratio.png",
    ):
        assert main(["fluxcal", *arguments.split()]) == 0
    assert "F090W" in capsys.readouterr().out
    assert (read_table("sb.ecsv")["n_good"] == 2).all()
    totals = read_table("total.ecsv")
    assert totals["count_rate"][0] == pytest.approx(1e4, rel=0.005)
    ratios = read_table("expected.ecsv")
    assert ratios["measured"][0] == totals["count_rate"][0]
    for name in ("mean", "sb", "ratio"):
        assert Path(f"{name}.png").stat().st_size > 5000
    # Both dithers, averaged on the way, are the same.
    assert main(["fluxcal", "total", "1_ee.ecsv", "2_ee.ecsv", "--psf", ".", "-o", "two.ecsv"]) == 0
    np.testing.assert_allclose(read_table("two.ecsv")["count_rate"][0], totals["count_rate"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("mean nothing.ecsv", "nothing.ecsv: no such file"),
        ("mean text.ecsv", "text.ecsv: cannot be read as an ECSV table"),
        ("mean empty.ecsv", "empty.ecsv: column radius is missing"),
        ("mean good.ecsv -o good.ecsv", "good.ecsv is an input"),
        ("total good.ecsv --psf .", "good.ecsv: FILTER is F999W, none of NIRISS imaging"),
        ("total growth.ecsv --psf .", "no rate of any filter: .: 0 tables f090w_psf"),
        ("total growth.ecsv --psf nowhere", "nowhere: no such file or folder"),
        ("expected good.ecsv --throughputs . --plot a.png", "--plot needs --measured"),
    ],
)
def test_command_line_faults(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.ecsv").write_text("nothing\n")
    Table({"a": [1]}).write("empty.ecsv")
    make_growth([1, 2], name="F999W").write("good.ecsv")
    make_growth([1, 2]).write("growth.ecsv")
    assert main(["fluxcal", *arguments.split()]) == 1
    assert message in capsys.readouterr().err
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"empty.ecsv", "good.ecsv", "growth.ecsv", "text.ecsv"}
