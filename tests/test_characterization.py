"""Variations of the sky: those of simulated skies are recovered."""

import weakref

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord, get_body_barycentric
from astropy.table import Table
from astropy.time import Time
from helpers import make_skyflat, run_program
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, Window
from soss_background.errors import SkyflatError
from soss_background.simulate import sky_image
from soss_background.sky.match import bin_sky
from soss_background.sky.trends import fit_trends
from soss_background.survey import characterization, zodi
from soss_background.survey import plots as survey_plots
from soss_background.survey import skies as survey
from soss_background.survey.characterization import characterize
from soss_background.survey.components import find_components
from soss_background.survey.skies import find_pointing, survey_skies
from soss_background.survey.zodi import fit_levels, predict_brightness, predict_levels, sun_angle

SMALL = Window("FULL", 224, 500, 64, 384)


def point(lon, lat, date):
    """Look at an ecliptic position on a date."""
    return SkyCoord(lon, lat, unit="deg", frame=BarycentricMeanEcliptic(), obstime=Time(date))


def draw_pointings(number, seed=1):
    """Draw positions and times that the telescope can look at."""
    rng = np.random.default_rng(seed)
    while number:
        mjd = rng.uniform(59800, 60900)
        lon, lat = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
        if 85 < sun_angle(point(lon, lat, Time(mjd, format="mjd"))).value < 135:
            number -= 1
            yield lon, lat, mjd


def observe(number, lon, lat, mjd, level=1.0, window=SMALL, **settings):
    """Make the skyflat of a pointing, with a sky of some level."""
    sky = level * sky_image(window, seed=number, **settings)
    skyflat = make_skyflat(number, window=window, sky=sky)
    time = Time(mjd, format="mjd")
    skyflat.metadata["mid_time_mjd"] = mjd
    place = 1.01 * get_body_barycentric("earth", time).xyz.to_value(u.km)
    for axis, value in zip("xyz", place, strict=True):
        skyflat.metadata[f"jwst_{axis}_bary"] = value
    skyflat.meta.skyflat.ecliptic_lon, skyflat.meta.skyflat.ecliptic_lat = lon, lat
    skyflat.meta.skyflat.day = time.to_datetime().timetuple().tm_yday
    return skyflat


# --- survey ------------------------------------------------------------------------------


def test_table():
    lon, lat, mjd = 200.0, 30.0, 60300.25
    skyflat = observe(1, lon, lat, mjd, level=0.8, structure=0)
    table, (binned,), window = survey_skies([skyflat])
    (row,) = table
    assert (row["FILE"], row["PROGRAM"]) == ("nis_clear_gr700xd_LON001_skyflat.fits", "04479")
    assert (row["LON"], row["LAT"], row["DOY"], row["mjd"]) == (lon, lat, 356, mjd)
    sky = 0.8 * sky_image(SMALL, structure=0)
    left, right = np.median(sky[:, :180]), np.median(sky[:, 230:])
    assert_allclose(row["level_left"], left, rtol=0.01)
    assert_allclose(row["level_ratio"], right / left, rtol=0.01)
    assert_allclose(row["step_column_256"], 700, atol=2)
    assert 15 < row["step_width_256"] < 50
    assert table["level_left"].unit == "DN / s"
    assert window == SMALL
    assert binned.sky.shape == (64, 96)


def test_pointing():
    skyflat = observe(1, 200.0, 30.0, 60300.25)
    (row,) = survey_skies([skyflat]).table
    pointing, place = find_pointing(row)
    assert pointing.obstime.mjd == 60300.25
    assert_allclose([pointing.lon.deg, pointing.lat.deg], [200, 30])
    assert_allclose(np.linalg.norm(place.to_value(u.AU)), 1.0, atol=0.02)
    # A header without an ephemeris.
    for unknown in (0.0, np.nan):
        for axis in "xyz":
            skyflat.metadata[f"jwst_{axis}_bary"] = unknown
        (row,) = survey_skies([skyflat]).table
        assert find_pointing(row)[1] is None
        assert row["elongation"] == sun_angle(pointing).value


def test_a_skyflat_without_a_table():
    """Values that are missing in the header are unknown."""
    skyflat = make_skyflat(1, window=SMALL)
    skyflat.metadata = skyflat.meta.skyflat.day = None
    (row,) = survey_skies([skyflat]).table
    assert np.isnan([row["mjd"], row["elongation"], row["DOY"]]).all()
    skyflat.meta.exposure.mid_time = 60264.0
    (row,) = survey_skies([skyflat]).table
    assert 0 < row["elongation"] < 180


def test_skies_of_different_pixels():
    skyflats = [make_skyflat(1, window=SMALL), make_skyflat(2, window=SUBSTRIP96)]
    fault = "LON002_skyflat.fits: SUBSTRIP96 of .*, but .*LON001_skyflat.fits is FULL of"
    with pytest.raises(SkyflatError, match=fault):
        survey_skies(skyflats)


# --- trends ------------------------------------------------------------------------------


def test_latitude_and_season_are_recovered():
    """The simulated trends are 0.4 % per degree, 6 % with the season, and a shift."""
    skyflats = []
    for number, (lon, lat, mjd) in enumerate(draw_pointings(40)):
        day = Time(mjd, format="mjd").to_datetime().timetuple().tm_yday
        season = 1 + 0.06 * np.cos(2 * np.pi * (day - 100) / 365.25)
        level = (1 - 0.004 * abs(lat)) * season
        pwcpos = 245.76 + 0.1 * np.sin(number)
        settings = {"pwcpos": pwcpos, "structure": 0, "contrast": 1 + 0.001 * abs(lat)}
        skyflats.append(observe(number, lon, lat, mjd, level, **settings))
        skyflats[-1].metadata["pwcpos"] = pwcpos
    table = survey_skies(skyflats).table
    quantities = {"level_left": True, "level_ratio": True, "step_column_256": False}
    left, ratio, step = fit_trends(table, quantities)
    mean = 1 - 0.004 * np.mean(np.abs(table["LAT"]))
    assert_allclose(left["latitude"], -0.4 / mean, atol=0.02)
    assert left["latitude_err"] < 0.02
    assert_allclose(left["season"], 6, atol=0.4)
    assert_allclose(left["peak"], 100, atol=4)
    assert_allclose(ratio["latitude"], 0.1 / 1.03, atol=0.01)
    assert ratio["season"] < 0.2
    # The edge of the simulator moves with the pupil wheel.
    moved = [sky_image(SMALL, pwcpos=pwcpos, structure=0) for pwcpos in (245.66, 245.86)]
    from_skies = survey_skies(
        [make_skyflat(number, window=SMALL, sky=sky) for number, sky in enumerate(moved)]
    ).table["step_column_256"]
    assert_allclose(step["pwcpos"], np.ptp(from_skies) / 0.2, rtol=0.1)
    assert step["pwcpos"] > 10 * step["pwcpos_err"]


def test_uncertainties_are_true():
    """The errors of many fits agree with their stated uncertainties."""
    rng = np.random.default_rng(3)
    pulls = []
    for _ in range(100):
        table = Table({"LAT": rng.uniform(-80, 80, 20), "DOY": rng.uniform(1, 365, 20)})
        table["PWCPOS"] = rng.uniform(245.6, 245.9, 20)
        noise = rng.standard_normal(20)
        wave = 2 * np.cos(2 * np.pi * (table["DOY"] - 50) / 365.25)
        table["q"] = 0.05 * np.abs(table["LAT"]) + wave + 3 * table["PWCPOS"] + noise
        (row,) = fit_trends(table, {"q": False})
        pulls.append(
            [
                (row["latitude"] - 0.05) / row["latitude_err"],
                (row["season"] - 2) / row["season_err"],
                (row["pwcpos"] - 3) / row["pwcpos_err"],
            ]
        )
    assert_allclose(np.std(pulls, axis=0), 1, atol=0.25)
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 0.3)


def test_skies_that_are_all_alike():
    """Skies of one pointing and one day, or of unknown days, have no trends."""
    table = Table({"LAT": 9 * [1.0], "DOY": 9 * [20.0], "PWCPOS": 9 * [245.76]})
    table["q"], table["constant"] = np.arange(9.0) + 1, 9 * [2.0]
    rows = [*fit_trends(table, {"q": True})]
    table["DOY"] = np.nan
    rows += fit_trends(table, {"q": True})
    assert np.isnan([[row["latitude"], row["season"], row["scatter"]] for row in rows]).all()
    assert [row["number"] for row in rows] == [9, 0]
    table["LAT"], table["DOY"] = np.arange(9.0), np.arange(1.0, 361.0, 40.0)
    (row,) = fit_trends(table, {"constant": False})
    assert (row["latitude"], row["season"]) == (0, 0)
    assert np.isnan(row["season_err"])


@pytest.mark.parametrize(
    ("number", "lat", "known"),
    [(5, 40.0, []), (20, 0.0, ["season", "pwcpos"]), (20, 40.0, ["latitude", "season", "pwcpos"])],
)
def test_what_cannot_be_fitted(number, lat, known):
    """Trends of too few skies, or of a single latitude, are not fitted."""
    rng = np.random.default_rng(1)
    table = Table({"LAT": lat * rng.uniform(-1, 1, number), "DOY": rng.uniform(1, 365, number)})
    table["PWCPOS"], table["q"] = rng.uniform(245.6, 245.9, number), rng.uniform(1, 2, number)
    (row,) = fit_trends(table, {"q": True})
    for name in ("latitude", "season", "pwcpos"):
        assert np.isfinite(row[name]) == np.isfinite(row[f"{name}_err"]) == (name in known)
    assert row["number"] == number


# --- components --------------------------------------------------------------------------


def test_components():
    """Two patterns of known strength are found for any levels; they are zero beyond the edge."""
    rng = np.random.default_rng(2)
    sky = sky_image(SMALL, structure=0)
    y, x = np.indices(SMALL.shape) / 20
    patterns = np.array([np.sin(x) * np.sin(y), np.cos(2 * x) * np.sin(y)])
    patterns[:, :, 180:230] = 0
    strengths = rng.standard_normal((12, 2))
    strengths = np.linalg.qr(strengths - strengths.mean(axis=0))[0] * [0.09, 0.03]
    science = np.ones(SMALL.shape, dtype=bool)
    science[:, :4] = False
    skies = []
    for pair in strengths:
        image = rng.uniform(0.5, 2) * sky * (1 + np.tensordot(pair, patterns, 1))
        skies.append(bin_sky(image, science, SMALL.x0, (1, 4)))
    mean, maps, scores, explained = find_components(skies)
    assert explained.sum() > 0.999
    sizes = np.mean(patterns[:, :, 4:] ** 2, axis=(1, 2)) * [9, 1]
    assert_allclose(explained[1] / explained[0], sizes[1] / sizes[0], rtol=0.1)
    assert np.isnan(maps[:, :, 0]).all()
    assert_allclose(np.nanmean(maps**2, axis=(1, 2)), 1, rtol=1e-6)
    for index in range(2):
        correlation = np.corrcoef(scores[:, index], strengths[:, index])[0, 1]
        assert abs(correlation) > 0.98
    expected = 100 * np.sqrt(np.mean(patterns[0, :, 4:] ** 2)) * np.std(strengths[:, 0])
    assert_allclose(np.std(scores[:, 0]), expected, rtol=0.1)
    assert np.isfinite(mean[:, 1:]).all()


def test_components_of_the_same_sky():
    sky = bin_sky(sky_image(SMALL, structure=0), np.ones(SMALL.shape, bool), SMALL.x0)
    assert_array_equal(find_components(3 * [sky]).explained, 0)


# --- zodiacal light ----------------------------------------------------------------------


def test_elongation():
    """At the equinox the Sun is at longitude 0, except for the precession since 2000."""
    assert sun_angle(point(90, 0, "2024-03-20T03:06")).unit == u.deg
    assert_allclose(sun_angle(point(90, 0, "2024-03-20T03:06")).value, 90, atol=0.4)
    assert_allclose(sun_angle(point(0, 0, "2024-03-20T03:06")).value, 0, atol=0.4)
    assert_allclose(sun_angle(point(123, 90, "2024-03-20T03:06")).value, 90, atol=0.1)
    # For a telescope next to the Earth, the Sun is where it is on another day.
    place = get_body_barycentric("earth", Time("2024-06-20")).xyz
    assert_allclose(sun_angle(point(90, 0, "2024-03-20T03:06"), place).value, 0, atol=1.5)


def test_brightness():
    """The brightness agrees with zodipy at L2, and grows towards the ecliptic and the Sun."""
    zodipy = pytest.importorskip("zodipy")
    pointing = point(9, -2, "2023-11-16")
    expected = zodipy.Model(1.25 * u.um).evaluate(pointing, obspos="semb-l2")[0]
    assert_allclose(predict_brightness(pointing), expected, rtol=1e-3)
    assert predict_brightness(point(9, 80, "2023-11-16")) < 0.6 * expected
    place = 0.9 * get_body_barycentric("earth", Time("2023-11-16")).xyz
    assert predict_brightness(pointing, place) > 1.1 * expected


def test_pointings_at_objects():
    """The distance of an object is ignored; the time of the observation is required."""
    target = SkyCoord(10, -5, 50, unit="deg, deg, pc")
    near = SkyCoord(target, obstime=Time("2023-11-16"))
    far = SkyCoord(10, -5, unit="deg", obstime=Time("2023-11-16"))
    assert_allclose(sun_angle(near).value, sun_angle(far).value, atol=1e-6)
    assert_allclose(predict_brightness(near).value, predict_brightness(far).value, rtol=1e-6)
    with pytest.raises(ValueError, match="the pointing has no obstime"):
        predict_brightness(target)


def test_fit_of_levels():
    rng = np.random.default_rng(4)
    brightness = rng.uniform(0.1, 0.4, 60)
    left = 20 * brightness * np.exp(0.05 * rng.standard_normal(60))
    left[3], brightness[7] = 50 * left[3], np.nan
    fit = fit_levels({"left": left, "right": 30 * brightness}, brightness)
    in_janskys = brightness * 1e6 * u.Jy / u.sr
    assert_allclose(fit_levels({"left": left}, in_janskys)["ratio"], fit["ratio"][:1])
    assert list(fit["side"]) == ["left", "right"]
    assert list(fit["number"]) == [58, 59]
    assert_allclose(fit["ratio"], [20, 30], rtol=0.02)
    assert_allclose(fit["scatter"], [5, 0], atol=1)


def test_an_outlier_among_a_few():
    """The clipping is robust: one of twelve values cannot be at four standard deviations."""
    rng = np.random.default_rng(6)
    brightness = rng.uniform(0.1, 0.4, 12)
    levels = 20 * brightness * np.exp(0.05 * rng.standard_normal(12))
    levels[5] *= 10
    levels[7] = -0.1
    (row,) = fit_levels({"left": levels}, brightness)
    assert row["number"] == 10
    assert_allclose(row["ratio"], 20, rtol=0.05)
    assert row["scatter"] < 10


@pytest.mark.parametrize("number", [3, 8, 30])
def test_uncertainty_of_a_prediction(number, monkeypatch):
    """The interval contains 68 % of further skies, even if it is based on three."""
    monkeypatch.setattr(zodi, "predict_brightness", lambda *_: 0.2 * u.MJy / u.sr)
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(1000):
        ratios = 20 * (1 + 0.05 * rng.standard_normal(number + 1))
        fit = fit_levels({"left": 0.2 * ratios[1:]}, np.full(number, 0.2))
        level, error = predict_levels(fit, None)["left"]
        inside += abs(0.2 * ratios[0] - level.value) < error.value
    assert_allclose(inside / 1000, 0.683, atol=0.045)


def test_a_fit_of_one_sky_has_no_uncertainty(monkeypatch):
    monkeypatch.setattr(zodi, "predict_brightness", lambda *_: 0.2 * u.MJy / u.sr)
    fit = fit_levels({"left": [4.0]}, np.array([0.2]))
    level, error = predict_levels(fit, None)["left"]
    assert_allclose(level.to_value(u.DN / u.s), 4)
    assert np.isnan(error)


# --- all of it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skyflats(tmp_path_factory):
    """Write twelve skyflats that follow the zodiacal light."""
    folder = tmp_path_factory.mktemp("skies")
    for number, (lon, lat, mjd) in enumerate(draw_pointings(12)):
        level = 5 * predict_brightness(point(lon, lat, Time(mjd, format="mjd"))).value
        skyflat = observe(number, lon, lat, mjd, level)
        skyflat.save(folder / f"sky_{number:02d}_skyflat.fits")
    return sorted(folder.glob("*.fits"))


def test_command_line(skyflats, tmp_path):
    """Run the command in a new process, with wildcards."""
    pattern = skyflats[0].parent / "*_skyflat.fits"
    done = run_program("soss-background", "characterize", pattern, "-o", "out", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 skyflats, see out" in done.stdout
    names = {"skies", "trends", "residuals", "components", "zodiacal_light"}
    tables = {name: Table.read(tmp_path / "out" / f"{name}.ecsv") for name in names}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {*names, "map"} - {"skies"}
    assert list(tables["skies"]["FILE"]) == [path.name for path in skyflats]
    sky = 5 * np.median(sky_image(SMALL, structure=0)[:, :180])
    fit = tables["zodiacal_light"]
    assert_allclose(fit["ratio"][0], sky, rtol=0.02)
    assert fit["scatter"].max() < 2
    # The fit predicts the fitted skies.
    row = tables["skies"][4]
    level, error = predict_levels(fit, *find_pointing(row))["right"]
    assert level.unit == error.unit == u.DN / u.s
    assert abs(level.value - row["level_right"]) < 4 * error.value < 0.1 * level.value


def test_a_few_skyflats(tmp_path):
    """Three skyflats suffice, although no trend can be fitted."""
    skyflats = [make_skyflat(number, window=SMALL) for number in (1, 2, 3)]
    tables = characterize(skyflats, tmp_path)
    assert np.isnan(tables["trends"]["latitude"]).all()
    residuals = np.array([list(row)[1:] for row in tables["residuals"]])
    assert_array_equal(np.diag(residuals), 0)
    assert np.all(residuals[~np.eye(3, dtype=bool)] > 0)
    assert_allclose(tables["components"]["together"][-1], 1)
    with pytest.raises(SkyflatError, match="2 different skyflats: a comparison needs 3 or more"):
        characterize(skyflats[:2], tmp_path)


def test_without_zodipy(skyflats, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ImportError("No module named 'zodipy'")

    monkeypatch.setattr(characterization, "predict_brightness", fail)
    tables = characterize(skyflats[:3], tmp_path)
    assert "zodiacal_light" not in tables
    assert "soss_background[zodi]" in caplog.text
    assert (tmp_path / "trends.png").is_file()


def test_skyflats_are_closed(skyflats, monkeypatch):
    """Three hundred skyflats need no more memory than their skies in blocks."""
    opened, read = [], survey.open_skyflat

    def watch(path):
        assert not any(model() for model in opened)
        model = read(path)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr(survey, "open_skyflat", watch)
    assert len(survey_skies(skyflats).skies) == 12


def test_nothing_is_written_for_what_is_no_skyflat(tmp_path, capsys):
    assert main(["characterize", "nothing.fits", "-o", "out"]) == 1
    assert "nothing.fits: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_plots(skyflats):
    table, skies, _ = survey_skies(skyflats[:4])
    ax = Figure().add_subplot(projection="mollweide")
    survey_plots.draw_map(ax, table)
    # Longitudes increase to the left.
    places = ax.collections[-1].get_offsets()
    assert_allclose(np.degrees(places[:, 0]) % 360, -table["LON"] % 360)
    ax = Figure().subplots()
    survey_plots.draw_trend(ax, table, "LAT", "level [DN/s]")
    assert_allclose(ax.lines[1].get_ydata(), table["level_right"])
    ax = Figure().subplots()
    survey_plots.draw_residuals(ax, np.arange(16.0).reshape(4, 4))
    shown = ax.images[0].get_array()
    assert shown.mask.diagonal().all()
    assert shown[1, 2] == 6
    ax = Figure().subplots()
    components = find_components(skies)
    survey_plots.draw_explained(ax, components)
    assert_allclose(ax.lines[0].get_ydata()[-1], 1)
