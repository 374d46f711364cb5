"""Flux calibration of NIRISS imaging, against simulated stars."""

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from helpers import checksums, run_program, strun
from matplotlib.figure import Figure
from scipy.special import erf
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background import EncircledEnergyStep, SurfaceBrightnessStep
from soss_background.cli import _create_parser, main
from soss_background.detector import BEHIND_CLEARP, FILTERS
from soss_background.errors import SkyflatError
from soss_background.fluxcal import aperture
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
from soss_background.fluxcal.plots import draw_ratios
from soss_background.fluxcal.psf import Psf, find_psf, read_psf
from soss_background.fluxcal.psf_image import measure_psf
from soss_background.fluxcal.rates import average_tables, compare_rates, read_table, total_rates
from soss_background.io import curves
from soss_background.simulate import StarImage, simulate_star

DOCS = Path(__file__).parents[1] / "docs"
RADII = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15.0])
REAL = Path(__file__).parents[2] / "shared" / "real"
STAR = StarImage(count_rate=1e4, x=50.3, y=49.6)


def encircled(radius, width=1.2):
    """Return the encircled energy of a Moffat profile that ends at 15 pixels."""
    return 0.95 * (1 - (1 + (radius / width) ** 2) ** -1.2) / (1 - (1 + (15 / width) ** 2) ** -1.2)


PSF = Psf(np.linspace(0.25, 15, 60), encircled(np.linspace(0.25, 15, 60)))


@pytest.fixture(scope="module")
def table():
    """Measure the encircled energy of the PSF on an image without noise."""
    star = replace(STAR, x=50.0, y=50.0, count_rate=1.0, sky=0.0, noise=0.0, time=1e12)
    image = simulate_star(PSF, star).data.astype(float)
    settings = {"gain": 1.6, "time": 1e12}
    rate, _ = curve_of_growth(image, 0 * image, (50.0, 50.0), RADII, Sky(0.0, 0.0, 1), **settings)
    return Psf(RADII, rate)


def quote(page, *phrases):
    """Check that a page of the documentation contains phrases with the numbers of a test."""
    text = " ".join((DOCS / f"{page}.rst").read_text().split())
    for phrase in phrases:
        assert phrase in text


def write_psf(folder, psf, name="F090W", column="CountRate"):
    """Write the encircled energy of a PSF in the format of the CAP-020 scripts."""
    columns = {"Radius": psf.radius, "Rad_arcsec": 0.0656 * psf.radius, column: psf.encircled}
    path = folder / f"{name.lower()}_psf.radtab"
    Table(columns | {f"err{column}": np.sqrt(psf.encircled)}).write(path, format="ascii")
    return path


# --- comparison with the truth -----------------------------------------------------------


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
    """The total count rate agrees with the truth within its error."""
    pulls, random = [], np.random.default_rng(3)
    for seed in range(16):
        place = dict(zip("xy", 50 + random.uniform(-0.5, 0.5, 2), strict=True))
        settings = replace(STAR, seed=seed, **place, **changes)
        image, whole = (
            simulate_star(PSF, each) for each in (settings, replace(settings, bad_fraction=0.0))
        )
        # Bad pixels of the core cannot be recovered: leave the core intact.
        core = np.s_[44:57, 44:57]
        image.data[core], image.dq[core] = whole.data[core], 0
        totals = total_rates([EncircledEnergyStep().run(image)], lambda _: table, (5, 10))
        (row,) = totals[totals["filter"] == settings.filter]
        assert row["n_radii"] == 6
        # The position of the star in its pixel changes the total by about 0.02 %.
        error = np.hypot(row["error"], 2e-4 * settings.count_rate)
        pulls.append((row["count_rate"] - settings.count_rate) / error)
    assert abs(np.mean(pulls)) < 0.7
    assert 0.5 < np.std(pulls) < 1.5
    assert np.abs(pulls).max() < 4
    quote("fluxcal", "a mean below 0.7 and a scatter of 0.5 to 1.5, even with 5 % of bad pixels")


@pytest.mark.parametrize("replace_", ["surface", "median"])
def test_bad_pixels_are_replaced(replace_):
    """Bad pixels outside the core are replaced whatever they contain; the core keeps its values."""
    settings = replace(STAR, count_rate=1e5)
    image = simulate_star(PSF, settings)
    whole = EncircledEnergyStep().run(image)
    hurt = image.copy()
    bits = dqflags.pixel
    # Bad pixels are no neighbours of others, neither in the core nor beyond the circles.
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
    # These flags do not mark bad pixels.
    hurt.dq[52, 58] = bits["JUMP_DET"] | bits["NO_FLAT_FIELD"]
    hurt.dq[50, 51] = bits["SATURATED"]
    hurt.dq[50, 54] = bits["DO_NOT_USE"]
    mended = EncircledEnergyStep(replace=replace_).run(hurt)
    assert (mended.meta["NREPLACE"], mended.meta["NSATURAT"], mended.meta["NBAD"]) == (4, 1, 1)
    np.testing.assert_allclose(mended["count_rate"][:5], whole["count_rate"][:5], rtol=1e-6)
    pull = (mended["count_rate"] - whole["count_rate"]) / mended["error"]
    assert np.abs(pull).max() < 3
    # Replaced pixels add to the error.
    assert (mended["error"][5:] > 1.01 * whole["error"][5:]).any()
    # Without replacement, circles that contain a bad pixel have no count rate.
    for place in ((50, 57), (44, 46), (58, 51)):
        single = image.copy()
        single.data[place], single.dq[place] = hurt.data[place], hurt.dq[place]
        holes = EncircledEnergyStep(replace="none").run(single)
        assert np.isnan(holes["count_rate"][-1])
        assert np.isfinite(holes["count_rate"][RADII < 6]).all()


def test_low_pixels():
    """The method 'median' also replaces pixels far below the sky that are not flagged."""
    image = simulate_star(PSF, STAR)
    image.data[50, 62] = -30.0
    assert EncircledEnergyStep().run(image).meta["NREPLACE"] == 0
    low, median = EncircledEnergyStep().run(image), EncircledEnergyStep(replace="median").run(image)
    assert median.meta["NREPLACE"] == 1
    assert low["count_rate"][-1] < median["count_rate"][-1] - 25


@pytest.mark.parametrize("value", [np.nan, -40.0])
def test_bad_pixels_of_the_core(value, caplog):
    """The error includes faint bad pixels; without the peak, no circle is measured."""
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
    """The variance is the sum of those of photons, pixels and the sky."""
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
    """A quadratic surface is restored; too few neighbours give NaN."""
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
    # The pixel in the corner has eleven good neighbours, one less than needed.
    bad = np.zeros_like(wrong)
    bad[:7, 24:] = True
    bad[0, 24:30], bad[1, 24:29] = False, False
    assert np.isnan(replace_pixels(image, bad, wrong)[0][0, 30])
    bad[1, 29] = False
    assert replace_pixels(image, bad, wrong)[0][0, 30] == pytest.approx(truth[0, 30])


def test_replaced_and_doubtful_pixels():
    """Replaced are bad pixels outside the core, empty ones inside, and low ones with 'median'."""
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
        # The neighbours suggest 2, which is 10 below the pixel's value and 1 above the sky.
        assert doubt[core] == pytest.approx(10)
        assert doubt[empty] == pytest.approx(1)
        assert np.count_nonzero(doubt) == 2
        assert error[core] == doubt[core]


def test_doubtful_circles():
    """Circles are doubtful if their bad pixels may change the count rate by more than 2 %."""
    distance = distances((61, 61), (30.0, 30.0))
    radii, rate = np.array([3.0, 3.4, 10.0, 15.0]), np.array([100.0, 100, 200, 300])
    doubt = np.zeros(distance.shape)
    doubt[30, 34], doubt[26, 30] = 3.0, 4.0  # 5 together
    np.testing.assert_array_equal(
        find_doubtful(rate, doubt, distance, radii), [False, True, True, False]
    )


@pytest.mark.parametrize("guess", [(50.0, 50.0), (43.0, 56.0)])
def test_box_follows_the_star(guess):
    """The box reaches the star from seven pixels away; the sky is measured around the star."""
    image = simulate_star(PSF, replace(STAR, count_rate=1e6))
    bad = np.zeros(image.data.shape, dtype=bool)
    position, sky = find_star(image.data.astype(float), bad, guess, (20, 25), 3.0)
    np.testing.assert_allclose(position, (50.3, 49.6), atol=0.1)
    ring = (distances(bad.shape, position) >= 20) & (distances(bad.shape, position) < 25)
    assert sky.number == pytest.approx(ring.sum(), abs=15)
    assert sky.mean == pytest.approx(np.median(image.data[ring]), abs=3 * sky.sigma / 26)


def measure_dithers(psf):
    """Measure an image without noise at 9 places in a pixel; return offsets and count rates."""
    offsets, rates = [], []
    for dx, dy in itertools.product((0, 0.25, 0.5), repeat=2):
        star = replace(STAR, x=50 + dx, y=50 + dy, count_rate=1.0, sky=0.0, noise=0.0, time=1e12)
        image = simulate_star(psf, star).data.astype(float)
        bad = np.zeros(image.shape, dtype=bool)
        position, sky = find_star(image, bad, (50.0, 50.0), (20, 25), 3.0)
        settings = {"gain": 1.6, "time": 1e12}
        rate, _ = curve_of_growth(image, 0 * image, position, RADII, sky, **settings)
        offsets.append(np.hypot(position[0] - star.x, position[1] - star.y))
        rates.append(rate)
    return np.array(offsets), np.array(rates)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are absent")
def test_position_in_the_pixel():
    """The position in the pixel changes the centroid and small circles, and totals by < 0.1 %."""
    for name, reach in (("F090W", 0.1), ("F200W", 0.1), ("F277W", 0.1), ("F430M", 0.21)):
        offsets, rates = measure_dithers(find_psf(REAL, name))
        assert reach / 3 < offsets.max() <= reach
        change = np.ptp(rates / rates[0], axis=0)
        assert 0.03 < change[0] < 0.15
        assert change[1] < 0.006
        within = (RADII >= 5) & (RADII <= 10)
        assert np.ptp(np.mean(rates[:, within] / rates[0, within], axis=1)) < 0.001
    quote(
        "fluxcal",
        "the centroid in a box of 7 pixels is off by up to 0.1 pixels (0.21 pixels in F356W and",
        "by up to 15 % within 1 pixel and by 0.6 % within 2 pixels",
        "totals from 5 to 10 pixels change by less than 0.1 %",
    )


def test_documented_parameters():
    """The documentation gives the parameters of the code."""
    core, box, annulus = aperture.CORE, aperture._BOX, EncircledEnergyStep().sky_annulus
    surface, median = (2 * aperture._REACH[how] + 1 for how in ("surface", "median"))
    n_sigma = f"{EncircledEnergyStep().n_sigma:g} sigma"
    quote(
        "steps/encircled_energy",
        f"a box of {box} pixels",
        f"bad pixels within {core:g} pixels of it",
        f"clipped at {n_sigma}",
        f"beyond {core:g} pixels are replaced",
        f"the surrounding {surface} x {surface} pixels",
        f"the median of {median} x {median}",
        f"below the sky by more than {n_sigma}",
        f"exceed {100 * aperture._DOUBTFUL:g} % of the count rate",
    )
    quote("steps/surface_brightness", f"below the sky by more than {n_sigma}")
    parse = _create_parser().parse_args
    options = parse(["fluxcal", "total", "a", "--psf", "."])
    psf, expected = parse(["fluxcal", "psf", "a"]), parse(["fluxcal", "expected", "a"])
    assert list(psf.sky_annulus) == annulus
    quote(
        "fluxcal",
        f"the annulus from {annulus[0]:g} to {annulus[1]:g} pixels (``--sky-annulus``)",
        f"the mean over {options.radii[0]:g} to {options.radii[1]:g} pixels (``--radii``)",
        f"collecting area of {expected.area:g} m",
        f"the gain of {expected.gain:g} electrons per DN",
        f"within {core:g} pixels of the star",
        f"this error exceeds {100 * aperture._DOUBTFUL:g} %",
        "micron below 100, nm below 6000, otherwise Angstrom",
    )
    assert curves._UNITS == ((100, u.micron), (6000, u.nm))


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
    """A run writes tables, figures and provenance, and leaves the input unchanged."""
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
    # The encircled energy is relative to the largest circle and scaled to the PSF.
    assert growth["encircled_energy"][-1] == pytest.approx(table.encircled[-1])
    np.testing.assert_allclose(growth["encircled_energy"], table.encircled, atol=0.02)


@pytest.fixture
def dithers(tmp_path):
    """Write three dithers of a star; return their paths."""
    paths = []
    for seed in (1, 2, 3):
        image = simulate_star(PSF, replace(STAR, x=48.0 + seed, seed=seed))
        paths.append(tmp_path / image.meta.filename)
        image.save(paths[-1])
    return paths


def test_several_images(dithers, tmp_path):
    """A list, a wildcard, an association and models in one run give the tables of single runs."""
    singles = [EncircledEnergyStep.call(path) for path in dithers]
    members = [{"expname": path.name, "exptype": "science"} for path in dithers]
    association = tmp_path / "dithers_image2_asn.json"
    products = [
        {"name": f"one{number}", "members": [member]} for number, member in enumerate(members)
    ]
    association.write_text(json.dumps({"asn_type": "image2", "products": products}))
    models = [datamodels.open(path) for path in dithers]
    images = str(tmp_path / "*_rate.fits")
    for inputs in (
        [dithers],
        [images],
        [association],
        [dithers[0], models[1:]],
    ):
        tables = EncircledEnergyStep().run(*inputs)
        assert [table.meta["EXPOSURE"] for table in tables] == [path.name for path in dithers]
        for table, single in zip(tables, singles, strict=True):
            np.testing.assert_array_equal(table["count_rate"], single["count_rate"])
    profiles = SurfaceBrightnessStep().run([dithers[0]])
    assert [profile.colnames[2] for profile in profiles] == ["surface_brightness"]


def test_several_images_on_the_command_line(dithers, tmp_path):
    """One start writes a table and a figure for each image, or numbered ones of a given name."""
    step = "soss_background.EncircledEnergyStep"
    strun(step, tmp_path / "*_rate.fits", f"--output_dir={tmp_path / 'ee'}")
    roots = [path.name.removesuffix("_rate.fits") for path in dithers]
    expected = {f"{root}_ee.{kind}" for root in roots for kind in ("ecsv", "png")}
    assert {path.name for path in (tmp_path / "ee").iterdir()} == expected
    strun(step, *dithers, f"--output_dir={tmp_path}", "--output_file=star", "--save_plot=false")
    names = {path.name for path in tmp_path.glob("star*")}
    assert names == {f"star_{number}_ee.ecsv" for number in range(3)}


def test_several_images_of_which_one_is_faulty(dithers, tmp_path):
    """Nothing is saved when an image is faulty, missing or given twice."""
    settings = {"save_results": True, "output_dir": str(tmp_path / "out")}
    with datamodels.open(dithers[2]) as model:
        model.meta.instrument.pupil = "GR700XD"
        model.save(dithers[2])
    calibrated = tmp_path / dithers[0].name.replace("_rate", "_cal")
    calibrated.write_bytes(dithers[0].read_bytes())
    for images, message in (
        (dithers, f"{dithers[2].name}: FILTER and PUPIL are CLEAR and GR700XD"),
        ([dithers[0], tmp_path / "nothing_rate.fits"], "nothing_rate.fits: no such file"),
        ([dithers[0], dithers[0]], "the same exposure as"),
        ([dithers[0], calibrated], "the same exposure as"),
        ([], "No images are given"),
    ):
        with pytest.raises(SkyflatError, match=message):
            EncircledEnergyStep.call(images, **settings)
        assert not list((tmp_path / "out").glob("*_ee*"))


def test_calibrated_images():
    """An image in MJy/sr gives the same count rates and errors."""
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


def test_position_of_the_star():
    """The star is found at the target of the WCS, or a few pixels from a given position."""
    image = simulate_star(PSF, STAR)
    for parameters in ({}, {"x": 48.0, "y": 52.0}):
        meta = EncircledEnergyStep(**parameters).run(image).meta
        assert np.hypot(meta["X"] - 50.3, meta["Y"] - 49.6) < 0.1


def test_unusable_inputs(tmp_path):
    image = simulate_star(PSF, STAR)
    for change, message in (
        ({"meta.instrument.name": "NIRCAM"}, "INSTRUME is NIRCAM, not NIRISS"),
        ({"meta.subarray.name": None}, "keyword SUBARRAY is missing"),
        ({"meta.instrument.pupil": "GR700XD"}, "FILTER and PUPIL are CLEAR and GR700XD"),
        ({"meta.instrument.filter": "GR150C"}, "FILTER and PUPIL are GR150C and F090W"),
        ({"meta.exposure.exposure_time": None}, "keyword EFFEXPTM is missing"),
        ({"meta.bunit_data": "MJy/sr"}, "its unit is MJy/sr, but keyword PHOTMJSR is missing"),
        ({"meta.bunit_data": "MJy"}, "BUNIT is MJy, not DN/s or MJy/sr"),
        ({"meta.target.ra": None}, "lacks the position of the target: give x and y"),
        ({"meta.target.ra": 89.3}, "the target is outside the image"),
        ({"dq": np.ones_like(image.dq)}, "only 0 good pixels of sky"),
    ):
        other = image.copy()
        for key, value in change.items():
            other[key] = value
        for step in (EncircledEnergyStep(), SurfaceBrightnessStep()):
            with pytest.raises(SkyflatError, match=f"{image.meta.filename}: .*({message})"):
                step.run(other)
    for place, message in ((25.0, "no star at x = 25"), (99.0, "is cut off by the edge")):
        with pytest.raises(SkyflatError, match=message):
            EncircledEnergyStep(x=place, y=50.0).run(image)
    with pytest.raises(SkyflatError, match="radii must be positive and increase"):
        EncircledEnergyStep(radii=[3.0, 2.0]).run(image)
    with pytest.raises(SkyflatError, match="sky_annulus must be positive and increase"):
        SurfaceBrightnessStep(sky_annulus=[25.0, 20.0]).run(image)
    with pytest.raises(SkyflatError, match="give both x and y, or neither"):
        EncircledEnergyStep(x=50.0).run(image)
    with pytest.raises(SkyflatError, match="x and y are outside the image"):
        EncircledEnergyStep(x=200.0, y=50.0).run(image)
    with pytest.raises(SkyflatError, match="half_width must be less than the first of radii, 1"):
        SurfaceBrightnessStep(radii=[1.0]).run(image)
    cube = datamodels.CubeModel(data=image.data[np.newaxis])
    cube.update(image)
    with pytest.raises(SkyflatError, match="a cube of integrations: give the _rate file"):
        EncircledEnergyStep().run(cube)
    with pytest.raises(SkyflatError, match="nothing.fits: no such file"):
        EncircledEnergyStep().run(str(tmp_path / "nothing.fits"))


def test_star_near_the_edge(caplog):
    image = simulate_star(PSF, replace(STAR, x=90.0))
    growth = EncircledEnergyStep().run(image)
    assert "some circles of 12 pixels and more are not measured" in caplog.text
    np.testing.assert_array_equal(np.isfinite(growth["count_rate"]), RADII < 11)


# --- tables ------------------------------------------------------------------------------


def make_growth(rates, errors=None, name="F090W", key="count_rate", radius=None):
    radius = np.arange(len(rates)) + 5.0 if radius is None else radius
    table = Table({"radius": radius, key: np.array(rates, dtype=float)})
    table["error"] = np.ones(len(rates)) if errors is None else np.array(errors, dtype=float)
    table.meta = {"FILTER": name, "FILE": f"{name}.ecsv"}
    return table


def test_averages():
    """Means are weighted by inverse variances; count rates that do not rise are ignored."""
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


def test_bias_of_averages():
    """Means of curves that rise by no more than their noise are too high, single curves are not."""
    random = np.random.default_rng(5)
    energy = np.array([0.5, 0.75, 0.85, 0.9, 0.92, 0.935, 0.945, 0.95, 0.955, 0.958])
    radius = np.arange(1.0, 11)
    rates, areas = (np.diff(each, prepend=0) for each in (100 * energy, np.pi * radius**2))
    sigma = np.sqrt(rates / 160 + 0.2**2 * areas)  # photons in 100 s, and 0.2 DN/s in each pixel
    totals = []
    for _ in range(1000):
        tables = [make_growth(np.cumsum(random.normal(rates, sigma)), radius=radius) for _ in "ab"]
        for table in tables:
            table["error"] = np.sqrt(np.cumsum(sigma**2))
        found = [each["count_rate"] / energy for each in (average_tables(tables), tables[0])]
        totals.append([np.mean(each[4:]) for each in found])
    bias, scatter = np.mean(totals, axis=0) - 100, np.std(totals, axis=0)
    assert bias[0] == pytest.approx(0.4, abs=3.5 * scatter[0] / 1000**0.5)
    assert bias[0] > 3 * scatter[0] / 1000**0.5
    assert abs(bias[1]) < 3.5 * scatter[1] / 1000**0.5
    assert scatter[0] == pytest.approx(2, abs=0.2)
    quote(
        "fluxcal",
        "for 100 DN/s and a pixel noise of 0.2 DN/s, the total of two dithers is 0.4 % too high, "
        "at a random error of 2 %",
    )


def test_tables_that_cannot_be_averaged():
    table = make_growth([1, 2, 3])
    other, star = make_growth([1, 2, 3]), make_growth([1, 2, 3])
    other["radius"] += 1
    star.meta["TARGNAME"] = "B"
    with pytest.raises(SkyflatError, match="tables of different stars: B, None"):
        total_rates([table, star], None, (5, 10))
    wide = make_growth([1, 2, 3])
    wide.meta["SKYANNULUS"] = [30.0, 35.0]
    for second, message in (
        (wide, r"its SKYANNULUS is \[30.0, 35.0\], that of others is None"),
        (make_growth([1, 2, 3], name="F115W"), "its FILTER is F115W, that of others is F090W"),
        (make_growth([1, 2, 3], key="surface_brightness"), "column count_rate is missing"),
        (other, "its radii differ from those of other tables"),
        (star, "its TARGNAME is B, that of others is None"),
    ):
        with pytest.raises(SkyflatError, match=message):
            average_tables([table, second])


def test_totals():
    """Each filter has a row, with the reason if it is missing; only the given radii are used."""

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
    with pytest.raises(SkyflatError, match="F090W.ecsv: give either the averages or the aver"):
        total_rates([*tables[2:], average_tables(tables[2:])], find, (6, 7))
    far = total_rates(tables[:1], find, (20, 30))
    assert far["missing"][-1] == "no radius of 20 to 30 pixels is measured"


def test_subarrays_are_separate():
    """Two subarrays and two filters give four total count rates, each with its own ratio."""
    truth = {
        ("F090W", "SUB64"): 1e4,
        ("F090W", "SUB128"): 1.1e4,
        ("F480M", "SUB64"): 2e4,
        ("F480M", "SUB256"): 1.9e4,
    }
    tables = []
    for seed, ((name, subarray), rate) in enumerate(truth.items()):
        for dither in (50.2, 48.7):
            image = replace(STAR, x=dither, filter=name, subarray=subarray, count_rate=rate)
            tables.append(EncircledEnergyStep().run(simulate_star(PSF, replace(image, seed=seed))))
    assert tables[0].meta["SUBARRAY"] == "SUB64"
    totals = total_rates(tables, lambda _: PSF, (5, 10))
    assert len(totals) == len(FILTERS) + 2
    rows = {(row["filter"], row["subarray"]): row for row in totals}
    for setup, rate in truth.items():
        assert rows[setup]["count_rate"] == pytest.approx(rate, rel=0.003)
    assert rows["F200W", "-"]["missing"] == "not measured"
    expected = Table({"filter": list(FILTERS), "count_rate": np.full(len(FILTERS), 1e4)})
    ratios = compare_rates(expected, totals)
    assert len(ratios) == len(FILTERS) + 2
    found = {(row["filter"], row["subarray"]): row["ratio"] for row in ratios}
    for setup, rate in truth.items():
        assert found[setup] == pytest.approx(rate / 1e4, rel=0.003)
    with pytest.raises(SkyflatError, match="its SUBARRAY is SUB128, that of others is SUB64"):
        average_tables(tables[:3])
    ax = Figure().subplots()
    draw_ratios(ax, ratios)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["SUB128", "SUB256", "SUB64"]
    drawn = np.concatenate(
        [line.get_xdata() for line in ax.get_lines() if len(line.get_xdata()) < 4]
    )
    assert len(ax.get_xticks()) == len(FILTERS)
    assert np.ptp(drawn[np.round(drawn) == FILTERS.index("F480M")]) == pytest.approx(0.15)


def test_psf_tables(tmp_path, table):
    path = write_psf(tmp_path, table, column="Flux")
    for psf in (find_psf(tmp_path, "F090W"), find_psf(path, "F090W")):
        np.testing.assert_allclose(psf.energy(RADII), table.encircled)
        assert np.isnan(psf.energy([16.0])).all()
    with pytest.raises(SkyflatError, match="contains 0 tables f115w_psf"):
        find_psf(tmp_path, "F115W")
    with pytest.raises(SkyflatError, match="this is the PSF of F090W, not of F115W"):
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


# --- images of the PSF -------------------------------------------------------------------


def with_wings(radius):
    """Return the encircled energy of a profile whose wings reach beyond the sky annulus."""
    return 0.9 * (1 - (1 + (radius / 1.2) ** 2) ** -1.2) + 0.1 * (1 - (1 + radius**2 / 64) ** -0.5)


WINGS = Psf(np.linspace(0.25, 45, 180), with_wings(np.linspace(0.25, 45, 180)))


def psf_images(psf, side=101, factor=4, name="F090W"):
    """Return an oversampled image of a PSF and the same in detector pixels, as WebbPSF does."""
    fine = (np.arange(side * factor * 5) + 0.5) / (factor * 5) - side / 2
    image = psf.brightness(np.hypot(fine[:, np.newaxis], fine)) / (factor * 5) ** 2
    over = image.reshape(side * factor, 5, side * factor, 5).sum(axis=(1, 3))
    det = over.reshape(side, factor, side, factor).sum(axis=(1, 3))
    hdus = [fits.PrimaryHDU(over), fits.ImageHDU(det)]
    for hdu, extension, scale in zip(hdus, ("OVERSAMP", "DET_SAMP"), (factor, 1), strict=True):
        cards = {"INSTRUME": "NIRISS", "FILTER": name, "PIXELSCL": 0.0656 / scale}
        hdu.header.update({"EXTNAME": extension, "DET_SAMP": scale} | cards)
    return fits.HDUList(hdus)


def test_psf_images(tmp_path, table):
    """Oversampled or not, the encircled energy is that of a star measured in the same way."""
    images = psf_images(PSF)
    images.writeto(tmp_path / "both.fits")
    fits.PrimaryHDU(images[0].data, images[0].header).writeto(tmp_path / "over.fits")
    fits.PrimaryHDU(images[1].data, images[1].header).writeto(tmp_path / "det.fits")
    for file, extension in (("both", "DET_SAMP"), ("over", "OVERSAMP"), ("det", "DET_SAMP")):
        measured = measure_psf(tmp_path / f"{file}.fits", (20, 25))
        assert (measured.meta["FILTER"], measured.meta["EXTNAME"]) == ("F090W", extension)
        psf = Psf(*(np.asarray(measured[key]) for key in ("radius", "encircled_energy")))
        np.testing.assert_allclose(psf.energy(RADII), table.encircled, atol=3e-4)
        np.testing.assert_allclose(measured["radius_arcsec"], 0.0656 * psf.radius)
    # The image with distortion is preferred.
    wide = psf_images(Psf(PSF.radius, encircled(PSF.radius, 2.0)))[1]
    wide.name = "DET_DIST"
    images.append(wide)
    images.writeto(tmp_path / "all.fits")
    distorted = measure_psf(tmp_path / "all.fits", (20, 25))
    assert distorted.meta["EXTNAME"] == "DET_DIST"
    assert distorted["encircled_energy"][5] < psf.energy(3.0) - 0.05


def test_a_gaussian_psf(tmp_path):
    """Exact circles on pixels agree with the integral of a Gaussian."""
    side, sigma = 61, 3.0
    offsets = np.arange(side) - side // 2
    edges = erf((np.append(offsets, side // 2 + 1) - 0.5) / sigma / 2**0.5) / 2
    image = np.outer(np.diff(edges), np.diff(edges))
    hdu = fits.PrimaryHDU(image)
    hdu.header.update({"FILTER": "F200W", "PIXELSCL": 0.0656})
    hdu.writeto(tmp_path / "gauss.fits")
    measured = measure_psf(tmp_path / "gauss.fits", (20, 25))
    radius = np.asarray(measured["radius"])
    # Pixels smear a Gaussian by their variance; exact circles smear it again.
    truth = 1 - np.exp(-(radius**2) / (2 * (sigma**2 + 1 / 6)))
    np.testing.assert_allclose(measured["encircled_energy"], truth, atol=2e-3)


def test_totals_with_a_psf_that_has_wings(tmp_path, monkeypatch):
    """Wings in the sky annulus are subtracted from star and PSF, so that totals are right."""
    monkeypatch.chdir(tmp_path)
    for name in ("F090W", "F480M"):
        psf_images(WINGS, name=name).writeto(f"{name}.fits")
    assert main(["fluxcal", "psf", "F090W.fits", "F480M.fits", "-o", "psf"]) == 0
    assert {path.name for path in Path("psf").iterdir()} == {"f090w_psf.ecsv", "f480m_psf.ecsv"}
    for x, y in ((50.0, 50.4), (49.6, 50.4), (50.3, 49.9)):
        star = replace(STAR, x=x, y=y, count_rate=1e5, time=1e4)
        growth = EncircledEnergyStep().run(simulate_star(WINGS, star))
        totals = total_rates([growth], partial(find_psf, "psf"), (5, 10))
        assert totals["count_rate"][0] == pytest.approx(1e5, rel=4e-4)
        # The encircled energy without the sky annulus would make it too low.
        plain = total_rates([growth], lambda _: WINGS, (5, 10))
        assert plain["count_rate"][0] < 0.998e5
        assert totals["scatter"][0] < plain["scatter"][0] / 10
    quote("fluxcal", "totals with such a table are right within 0.04 %", "0.2 % too low")


def test_sky_annuli_of_star_and_psf(tmp_path, monkeypatch, capsys):
    """A star and a PSF that are measured with different annuli are not compared."""
    monkeypatch.chdir(tmp_path)
    psf_images(WINGS).writeto("psf.fits")
    assert main(["fluxcal", "psf", "psf.fits", "--sky-annulus", "20", "25"]) == 0
    image = simulate_star(WINGS, replace(STAR, count_rate=1e5))
    growth = EncircledEnergyStep(psf="f090w_psf.ecsv").run(image)
    assert growth.meta["SKYANNULUS"] == read_psf("f090w_psf.ecsv").sky_annulus == [20.0, 25.0]
    message = (
        "the sky annulus of the PSF of F090W is 20 to 25 pixels, that of the star 30 to 35: "
        "measure one of them again"
    )
    settings = {"sky_annulus": [30, 35]}
    with pytest.raises(SkyflatError, match=message):
        EncircledEnergyStep(psf="f090w_psf.ecsv", **settings).run(image)
    other = EncircledEnergyStep(**settings).run(image)
    growth.write("same.ecsv")
    other.write("other.ecsv")
    average_tables([other, other]).write("mean.ecsv")
    for name in ("other.ecsv", "mean.ecsv"):
        assert main(["fluxcal", "total", name, "--psf", "f090w_psf.ecsv"]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not Path("total.ecsv").exists()
    assert main(["fluxcal", "total", "same.ecsv", "--psf", "f090w_psf.ecsv"]) == 0
    # Tables of others do not record an annulus.
    assert read_psf(write_psf(tmp_path, WINGS)).sky_annulus is None


def test_faulty_psf_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = psf_images(PSF, side=61)[0]
    for number, (changes, scale, message) in enumerate(
        (
            ({"INSTRUME": "NIRCam"}, 1, "INSTRUME is NIRCam, not NIRISS"),
            ({"FILTER": "CLEAR"}, 1, "FILTER is CLEAR, not one of NIRISS imaging"),
            ({"PIXELSCL": None}, 1, "keyword PIXELSCL is missing"),
            ({"PIXELSCL": 0.047}, 1, "PIXELSCL is 0.047 arcsec, not a whole fraction of 0.0656"),
            ({"PIXELSCL": 0.0656 / 3}, 1, "244 by 244 pixels, not multiples of the oversampling 3"),
            ({"PIXELSCL": 0.0656 / 6.1}, 1, "not multiples of the oversampling 6"),
            ({}, 0, "no star at x = 30, y = 30"),
            ({}, 100, "encircled energies must lie between 0 and 1"),
            ({}, np.nan, "some of its pixels are not finite"),
        )
    ):
        hdu = fits.PrimaryHDU(good.data * scale, good.header)
        hdu.header.update(changes)
        hdu.writeto(f"{number}.fits")
        assert main(["fluxcal", "psf", f"{number}.fits"]) == 1
        error = capsys.readouterr().err
        assert f"{number}.fits: " in error
        assert message in error
    psf_images(PSF, side=41).writeto("small.fits")
    fits.PrimaryHDU().writeto("empty.fits")
    good.writeto("good.fits")
    for arguments, message in (
        (
            "small.fits",
            "small.fits: covers 20.5 pixels around its middle, the sky annulus needs 25",
        ),
        ("empty.fits", "empty.fits: no image in it"),
        ("nothing.fits", "nothing.fits: no such file"),
        ("good.fits good.fits", "good.fits and good.fits are of the same filter"),
        ("good.fits --sky-annulus 9 9", "sky annulus 9 to 9 does not increase"),
    ):
        assert main(["fluxcal", "psf", *arguments.split()]) == 1
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.ecsv"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are absent")
def test_real_psf_tables():
    """All filters are read; a star with such a PSF has its total count rate."""
    for name in FILTERS:
        psf = find_psf(REAL, name)
        star = replace(STAR, filter=name, count_rate=1e5)
        growth = EncircledEnergyStep().run(simulate_star(psf, star))
        totals = total_rates([growth], partial(find_psf, REAL), (5, 10))
        assert np.nanmax(totals["count_rate"]) == pytest.approx(1e5, rel=0.005)
    ends = np.array([find_psf(REAL, name).energy(15.0) for name in FILTERS])
    red = np.isin(FILTERS, BEHIND_CLEARP)
    blue_range, red_range = (
        f"{each.min():.2f} to {each.max():.2f}" for each in (ends[~red], ends[red])
    )
    quote("fluxcal", f"within 15 pixels is {blue_range} in bluer filters, but {red_range} in these")


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
    """Expected rates agree with the photons of a flat spectrum in a box, counted by hand."""
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


def test_faulty_curves(throughputs, tmp_path):
    star = tmp_path / "star.fits"
    short = Table.read(star)
    short[short["WAVELENGTH"] > 3e4].write(tmp_path / "red.fits")
    table = expected_rates(tmp_path / "red.fits", throughputs)
    reason = "the spectrum (3.001 to 6 micron) does not cover the filter"
    assert table["missing"][0] == reason
    assert np.isnan(table["count_rate"][0])
    for change, message in (
        ({"FLUX": np.nan}, "not all values are numbers"),
        ({"FLUX": 0.0}, "F090W: Integrated flux is <= 0"),
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
    Table({"wavelength": [4e4, 5e4], "throughput": [0.0, 0.0]}).write(
        curve, format="ascii", overwrite=True
    )
    with pytest.raises(SkyflatError, match="F480M.dat: all throughputs are 0"):
        expected_rates(star, throughputs)
    curve.unlink()
    (throughputs / "again_f090w.fits").write_text("none")
    with pytest.raises(SkyflatError, match="again_f090w.fits and .* are both of F090W"):
        expected_rates(star, throughputs)
    (throughputs / "jwst_nis_f090w_clear.fits").unlink()
    with pytest.raises(SkyflatError, match="again_f090w.fits: cannot be read as a throughput"):
        expected_rates(star, throughputs)


def write_curve(path, name, unit):
    """Write a box around the middle of a filter, two columns without header."""
    middle = {"F090W": 0.9, "F480M": 4.8}[name] * u.micron
    wave = np.linspace(0.9, 1.1, 401) * middle
    box = np.where(np.abs(wave / middle - 1) <= 0.08, 0.4, 0.0)
    separator = "," if path.suffix == ".csv" else " "
    np.savetxt(path, np.transpose([wave.to_value(unit), box]), delimiter=separator)


@pytest.mark.parametrize("unit", [u.micron, u.nm, u.AA])
def test_curves_without_header(unit, tmp_path, caplog):
    """The unit follows from the largest wavelength; one line of the log names it."""
    wave = np.linspace(5000, 60000, 5501) * u.AA
    flux = u.Quantity(np.full(wave.shape, 1e-15), "erg / (s cm2 Angstrom)")
    Table({"WAVELENGTH": wave, "FLUX": flux}).write(tmp_path / "star.fits")
    for name, file in (("F090W", "NIRISS.F090W.CLEARP.txt"), ("F480M", "f480m.csv")):
        write_curve(tmp_path / file, name, unit)
    (tmp_path / "jwst_nis_f090w_gr150c.dat").write_text("of another mode\n")
    table = expected_rates(tmp_path / "star.fits", tmp_path)
    for index, middle in ((0, 9e3), (-1, 48e3)):
        photons = 1e-15 * middle / 1.98645e-8 * 0.16 * middle * 0.4 * 25.4e4
        assert table["electron_rate"][index] == pytest.approx(photons, rel=0.005)
    line = f"Wavelengths without a unit are read in {unit}: NIRISS.F090W.CLEARP.txt and 1 more"
    assert caplog.messages.count(line) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are absent")
def test_real_vega(caplog):
    """The count rates of Vega in all filters agree with direct integrals within 0.05 %."""
    spectrum = REAL / "alpha_lyr_stis_009.fits"
    rates = expected_rates(spectrum, REAL / "throughputs", area=25.4, gain=1.6)
    assert "read in micron: NIRISS.F090W.CLEARP.IMAGER.txt and 11 more" in caplog.text
    star = fits.getdata(spectrum)
    for name, row in zip(FILTERS, rates, strict=True):
        curve = np.loadtxt(REAL / "throughputs" / f"NIRISS.{name}.CLEARP.IMAGER.txt")
        micron = np.linspace(curve[0, 0], curve[-1, 0], 400_001)
        flux = np.interp(1e4 * micron, star["WAVELENGTH"], star["FLUX"])  # erg/s/cm^2/Angstrom
        energy = 1.986446e-12 / micron  # of a photon, erg
        rate = flux / energy * np.interp(micron, *curve.T)
        electrons = np.trapezoid(rate, 1e4 * micron) * 25.4e4
        assert row["electron_rate"] == pytest.approx(electrons, rel=5e-4)
        assert row["count_rate"] == pytest.approx(electrons / 1.6, rel=5e-4)
    quote("fluxcal", "all twelve filters, it agrees with a direct integral within 0.05 %")


# --- command line ------------------------------------------------------------------------


@pytest.mark.usefixtures("throughputs")
def test_command_line(table, tmp_path, monkeypatch, capsys):
    """The commands lead from tables of dithers to ratios."""
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
    # The total of both dithers equals that of their mean.
    assert main(["fluxcal", "total", "1_ee.ecsv", "2_ee.ecsv", "--psf", ".", "-o", "two.ecsv"]) == 0
    np.testing.assert_allclose(read_table("two.ecsv")["count_rate"][0], totals["count_rate"][0])


def test_environment_variables(throughputs, tmp_path, monkeypatch, capsys):
    """NIS_SYNPHOT leads to throughput curves, PYSYN_CDBS to spectra that are not found as given."""
    (tmp_path / "cdbs" / "calspec").mkdir(parents=True)
    (tmp_path / "star.fits").rename(tmp_path / "cdbs" / "calspec" / "star.fits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIS_SYNPHOT", raising=False)
    monkeypatch.delenv("PYSYN_CDBS", raising=False)
    expected = ["fluxcal", "expected"]
    assert main([*expected, "cdbs/calspec/star.fits"]) == 1
    assert "give --throughputs, or set NIS_SYNPHOT" in capsys.readouterr().err
    monkeypatch.setenv("NIS_SYNPHOT", str(throughputs))
    monkeypatch.setenv("PYSYN_CDBS", "cdbs")
    assert main([*expected, "star.fits"]) == 0
    table = read_table("expected.ecsv")
    np.testing.assert_array_equal(table["missing"][[0, -1]], "-")
    assert table.meta["THROUGHPUTS"] == str(throughputs)
    assert main([*expected, "moon.fits"]) == 1
    message = "moon.fits: no such file, neither as given nor in cdbs/calspec"
    assert message in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*expected, "star.fits", "--throughputs", "empty"]) == 1
    assert "no rate of any filter: no throughput curve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("mean nothing.ecsv", "nothing.ecsv: no such file"),
        ("mean text.ecsv", "text.ecsv: cannot be read as an ECSV table"),
        ("mean empty.ecsv", "empty.ecsv: column radius is missing"),
        ("mean good.ecsv -o good.ecsv", "good.ecsv is an input"),
        ("total good.ecsv --psf .", "good.ecsv: FILTER is F999W, not one of NIRISS imaging"),
        ("total growth.ecsv --psf .", "no rate of any filter: .: contains 0 tables f090w_psf"),
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
