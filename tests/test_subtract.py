"""Subtract the sky from science exposures."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from crds_cache import crds_at, make_cache
from helpers import as_sky, checksums, make_skyflat, strun
from numpy.testing import assert_allclose
from stdatamodels.jwst import datamodels

from soss_background import (
    SkyflatModel,
    SkyflatPipeline,
    SkyflatSubtractStep,
    SossStarePipeline,
)
from soss_background.associations import make_background_associations
from soss_background.detector import FULL, SUBSTRIP96, SUBSTRIP256, Window
from soss_background.errors import SkyflatError
from soss_background.io import templates
from soss_background.io.priors import read_sky
from soss_background.io.segments import Segments
from soss_background.io.skyflats import find_files
from soss_background.io.templates import inspect_sky, read_templates
from soss_background.pipeline import background
from soss_background.pipeline.background import background_skyflats, combine_skyflat
from soss_background.quality.metrics import METRICS
from soss_background.simulate import (
    PointSpread,
    Simulation,
    draw_stars,
    simulate_time_series,
    simulate_visit,
    sky_image,
    star_image,
)
from soss_background.simulate.scene import Stars
from soss_background.sky.edge import shift_columns
from soss_background.sky.sky_prior import build_prior
from soss_background.sky.traces import trace_distance
from soss_background.steps.metric_ranges import flag_metrics
from soss_background.subtract import skyflat_subtract_step
from soss_background.subtract.light import FaintLight
from soss_background.subtract.scales import measure_scales
from soss_background.subtract.sky_fit import NoSkyError, fit_sky
from soss_background.subtract.wings import Wings

STEP = "soss_background.SkyflatSubtractStep"


def make_sky(window=SUBSTRIP256, level=1.0, contrast=1.0, shift=0.0):
    """Simulate a sky with a shifted edge."""
    moved = Window(window.name, window.y0, window.x0 - shift, window.ny, window.nx)
    return level * sky_image(moved, contrast=contrast, structure=0)


def observe(sky, light=0.0, noise=0.3, stripes=0.0, seed=1):
    """Add light, noise and stripes; return image and errors."""
    rng = np.random.default_rng(seed)
    image = sky + light + noise * rng.standard_normal(sky.shape)
    image += stripes * rng.standard_normal(sky.shape[1])
    return image.astype(np.float32), np.full(sky.shape, noise, dtype=np.float32)


def fit(image, err, prior, window=SUBSTRIP256):
    usable = ~window.reference_pixels()
    return fit_sky(image, err, usable, prior, trace_distance(window, 245.76))


def errors(found, sky, window=SUBSTRIP256):
    """Return the errors left and right, the rms, and the rms at the edge, percent of the sky."""
    science = ~window.reference_pixels()
    error = 100 * (found - sky) / np.median(sky[science])
    columns = np.arange(window.nx)
    left, right = science & (columns < 670), science & (columns > 760)
    edge = science & (abs(columns - 705) < 20)
    rms = [np.sqrt(np.mean(error[part] ** 2)) for part in (science, edge)]
    return [np.median(error[left]), np.median(error[right]), *rms]


@pytest.fixture(scope="module")
def prior():
    """Build the prior of five skies that differ from those of the exposures."""
    skies = [
        make_sky(level=0.7 + 0.1 * i, contrast=0.92 + 0.04 * i, shift=2 * i - 4) for i in range(5)
    ]
    return build_prior([as_sky(sky, SUBSTRIP256) for sky in skies], SUBSTRIP256)


@pytest.fixture(scope="module")
def single_prior():
    """Build the prior of one sky."""
    return build_prior([as_sky(make_sky(), SUBSTRIP256, 0.002)], SUBSTRIP256)


def test_shift():
    image = np.arange(20.0, dtype=np.float32).reshape(2, 10) ** 2
    assert_allclose(shift_columns(image, 0), image)
    assert_allclose(shift_columns(image, 3)[:, 3:], image[:, :-3])
    half = shift_columns(image, -0.5)
    assert_allclose(half[:, :-1], (image[:, 1:] + image[:, :-1]) / 2)


def test_a_window_without_an_edge():
    window = Window("FULL", 1800, 1000, 64, 256)
    prior = build_prior([as_sky(make_sky(window), window, 0)], window)
    assert not prior.right.any()
    sky = make_sky(window, level=0.6)
    usable, distance = ~window.reference_pixels(), np.full(sky.shape, np.inf)
    found = fit_sky(*observe(sky), usable, prior, distance)
    assert abs(np.median(found.sky / sky) - 1) < 0.003


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_faint_light_does_not_bias_a_level(share):
    """Light in some of the cells, below or above the noise, does not bias the level."""
    rng = np.random.default_rng(3)
    residual = 0.01 * rng.standard_normal(20_000)
    residual += rng.exponential(0.04, residual.size) * (rng.random(residual.size) < share)
    statistics, level, sigma = FaintLight.guess(5.0), 0.0, np.full(residual.size, 0.01)
    for _ in range(60):
        lit, light = statistics.expect(residual - level, sigma)
        statistics = statistics.update(lit, light)
        score = (1 - lit) * (residual - level) + lit * (residual - level - light)
        level += score.sum() / np.maximum(1 - lit, 0.02).sum()
    assert abs(level) < 0.0012
    assert abs(np.median(residual)) > 3 * abs(level) or share == 0
    assert abs(statistics.share - share) < 0.1


def test_wings_of_a_point():
    """Wings fall outwards from the point; images of nodes are their derivatives."""
    core = np.zeros((64, 128))
    core[32, 64] = 100
    wings = Wings.guess()
    flux = wings.images(core).sum(axis=0)
    assert_allclose(flux[32, 64], flux.max(), rtol=1e-5)
    assert np.all(np.diff(flux[32, 66:]) < 0)
    assert np.all(np.diff(flux[36:, 64]) < 0)
    change = np.zeros_like(wings.logarithm)
    change[3] = 1e-3
    derivative = (wings.changed(change).images(core).sum(axis=0) - flux) / 1e-3
    assert_allclose(derivative, wings.images(core)[3], atol=1e-3 * flux.max())


def test_prior_of_wings():
    """The prior constrains steep wings less than shallow wings."""
    logarithm = Wings.guess().logarithm
    outwards = np.arange(len(logarithm))
    steep, shallow = (
        np.abs(Wings(logarithm + slope * outwards).prior()[1]).max() for slope in (-2, 2)
    )
    assert steep < 0.2 * shallow


@pytest.mark.parametrize(
    ("level", "contrast", "shift"), [(0.5, 0.95, -5.0), (1.0, 1.05, 0.3), (1.5, 1.1, 5.0)]
)
def test_level_contrast_and_shift(prior, level, contrast, shift):
    sky = make_sky(level=level, contrast=contrast, shift=shift)
    found = fit(*observe(sky), prior)
    left, right, rms, edge = errors(found.sky, sky)
    assert abs(left) < 0.3
    assert abs(right) < 0.3
    assert rms < 0.4
    assert edge < 0.5
    assert_allclose(found.shift, shift, atol=0.3)
    assert_allclose(found.level_left, 4.7 * level, rtol=0.03)
    assert found.chi2 < 1.5
    assert found.used.mean() > 0.5


@pytest.mark.parametrize("flux", [35.0, 220.0, 1400.0])
def test_light_of_stars(prior, flux):
    """A target with wings, and field stars, hardly change the fitted sky."""
    sky = make_sky(level=0.8, contrast=1.04, shift=-2)
    target = Stars(*(np.array([value]) for value in (0.0, 0.0, flux, 9400.0)))
    light = star_image(SUBSTRIP256, target) + star_image(SUBSTRIP256, draw_stars(1.0, 5))
    found = fit(*observe(sky, light), prior)
    left, right, rms, edge = errors(found.sky, sky)
    # The darkest tenth of the pixels has more light than that.
    assert abs(left) < 0.9
    assert abs(right) < 1.5
    assert rms < 1.6
    assert edge < 2.5
    missed = np.abs(light - found.wings)[found.used] / sky[found.used]
    assert np.median(missed) < 0.05


def test_stripes_do_not_bias(prior):
    """Stripes do not bias the sky, even in a single integration, where they exceed the noise."""
    sky = make_sky(level=0.9, shift=1)
    results = [
        errors(fit(*observe(sky, stripes=0.2, seed=seed), prior).sky, sky) for seed in range(4)
    ]
    assert np.abs(np.mean(results, axis=0)[:2]).max() < 0.4


def test_uncertainty(prior, single_prior):
    """A star and few templates increase the uncertainty of a sky."""
    sky = make_sky()
    star = star_image(SUBSTRIP256, Stars(*(np.array([value]) for value in (0.0, 0.0, 220, 9400.0))))
    science = ~SUBSTRIP256.reference_pixels()
    stated = []
    for light, known in ((0, prior), (star, prior), (star, single_prior)):
        found = fit(*observe(sky, light), known)
        assert np.all(found.err[science] > 0)
        assert abs(found.sky - sky)[science].mean() < 2 * found.err[science].mean()
        stated.append(found.level_right_err / found.level_right)
    assert 0.0003 < stated[0] < stated[1] < stated[2] < 0.05


def smooth_deviation(rms, seed):
    """Draw a smooth change of the sky along the columns."""
    rng = np.random.default_rng(seed)
    place = np.linspace(-1, 1, SUBSTRIP256.nx)
    deviation = np.polynomial.legendre.legval(place, [0, *rng.standard_normal(4)])
    return 1 + rms * deviation / deviation.std()


def test_a_sky_without_stars(single_prior):
    """Deviations of the sky at the expected traces are not mistaken for a target."""
    for seed in range(2):
        sky = make_sky() * smooth_deviation(0.025, seed)
        found = fit(*observe(sky, noise=0.1, seed=seed), single_prior)
        assert np.abs(errors(found.sky, sky)[:2]).max() < 0.5
        assert found.wings.max() < 0.01 * np.median(sky)


def test_a_sky_beyond_its_prior(single_prior):
    """The errors grow, since the prior describes neither the shape nor the level of the sky."""
    fits = [
        fit(*observe(make_sky() * smooth_deviation(rms, seed=3)), single_prior)
        for rms in (0.015, 0.15)
    ]
    near, far = (found.level_left_err / found.level_left for found in fits)
    assert fits[0].misfit < 2
    assert fits[1].misfit > 5
    assert far > 3 * near


@pytest.mark.parametrize(("first", "last"), [(685, 2048), (0, 730), (560, 850)])
def test_columns_without_sky(single_prior, first, last):
    """A hidden side gets the uncertainty of the ratio, and the edge is not shifted."""
    sky = make_sky(level=0.8, contrast=1.1)
    usable = ~SUBSTRIP256.reference_pixels()
    usable[:, first:last] = False
    distance = trace_distance(SUBSTRIP256, 245.76)
    found = fit_sky(*observe(sky, noise=0.1), usable, single_prior, distance)
    truth = 0.8 * 4.69, 0.8 * 4.69 * 1.1
    levels = (found.level_left, found.level_right)
    stated = (found.level_left_err, found.level_right_err)
    hidden = ((first, last) == (0, 730), (first, last) == (685, 2048))
    for level, error, true, unseen in zip(levels, stated, truth, hidden, strict=True):
        assert abs(level - true) < (error if unseen else 0.02 * true)
        assert (error > 0.1 * level) == unseen
    assert abs(found.shift) < 3


@pytest.mark.parametrize("wings", ["none", "cut", "exponential", "reference"])
def test_a_sky_of_another_shape(single_prior, wings):
    """Wings do not absorb deviations of the sky of any shape; errors are as stated."""
    spread = PointSpread(wings=wings, wing_scale={"cut": 60.0, "exponential": 40.0}.get(wings, 0))
    star = Stars(*(np.array([value]) for value in (0.0, 0.0, 220.0, 9400.0)))
    light, pulls = star_image(SUBSTRIP256, star, spread=spread), []
    for seed in range(2):
        sky = make_sky(level=0.8) * smooth_deviation(0.015, seed)
        found = fit(*observe(sky, light, seed=seed), single_prior)
        left, right, *_ = errors(found.sky, sky)
        assert abs(right) < 1 or wings == "exponential"
        pulls += [
            left / (100 * found.level_left_err / found.level_left),
            right / (100 * found.level_right_err / found.level_right),
        ]
    assert np.median(np.abs(pulls)) < 1
    assert np.max(np.abs(pulls)) < 2


def test_nothing_to_fit(prior):
    image, err = observe(make_sky())
    distance = trace_distance(SUBSTRIP256, 245.76)
    with pytest.raises(NoSkyError, match="too few pixels show a sky"):
        fit_sky(image, err, np.zeros(image.shape, dtype=bool), prior, distance)
    with pytest.raises(NoSkyError, match="too few pixels show a sky"):
        fit_sky(-image, err, ~SUBSTRIP256.reference_pixels(), prior, distance)


def test_traces():
    distance = trace_distance(SUBSTRIP256, 245.76)
    assert distance.shape == SUBSTRIP256.shape
    assert distance[:, 100].min() < 1
    assert trace_distance(Window("FULL", 0, 0, 4, 2048), 245.76).min() > 1700
    assert_allclose(trace_distance(SUBSTRIP96, 245.76), distance[10:106])
    assert_allclose(trace_distance(FULL, 245.76)[1792:], distance)


def test_scales():
    rng = np.random.default_rng(1)
    sky = np.full((40, 50), 5.0)
    truth = 1 + 0.02 * np.linspace(-1, 1, 12) + 0.01 * (np.arange(12) % 2 - 0.5)
    light = rng.exponential(3.0, sky.shape)
    data = truth[:, None, None] * sky + light + 0.1 * rng.standard_normal((12, *sky.shape))
    data[3, ::2], data[5] = np.nan, np.nan
    exposure = np.nanmean(data, axis=0), truth.mean() * sky, np.ones(sky.shape, dtype=bool)
    scales = measure_scales(data, *exposure)
    known = np.arange(12) != 5
    assert_allclose(scales[known], truth[known] / truth.mean(), atol=0.002)
    assert scales[5] == 1
    np.testing.assert_array_equal(measure_scales(data[:3], *exposure), scales[:3])
    assert np.all(measure_scales(data[:1], data[0], *exposure[1:]) == 1)


# --- files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a time series; return its file, its flat and its truth."""
    folder = tmp_path_factory.mktemp("series")
    settings = Simulation(
        window=SUBSTRIP256,
        seed=4,
        n_integrations=4,
        exposure_time=400.0,
        star_density=0.0,
        sky_level=0.8,
    )
    path = simulate_time_series(folder, settings, target_flux=100.0)
    with fits.open(folder / "time_series_truth.fits") as hdus:
        truth = {name: hdus[name].data.astype(float) for name in ("SKY", "FLAT")}
    return path, folder / "time_series_flat.fits", truth


@pytest.fixture(scope="module")
def skyflat(tmp_path_factory):
    """Write a skyflat of the full detector: the commissioning sky."""
    model = SkyflatModel()
    sky = sky_image(FULL, structure=0)
    reference = FULL.reference_pixels()
    model.bkg = np.where(reference, 0, sky).astype(np.float32)
    model.bkgdn = model.bkg.copy()
    model.err = np.where(reference, 0, 0.01 * sky).astype(np.float32)
    model.dq = np.where(reference, 2**31, 0).astype(np.uint32)
    model.dq[1900, 1000] = 2048 + 1
    model.meta.skyflat.flat_correction = "COMPLETE"
    path = tmp_path_factory.mktemp("skyflat") / "nis_clear_gr700xd_skyflat.fits"
    model.save(path)
    return path


def call(path, flat, **settings):
    """Run the step from Python."""
    return SkyflatSubtractStep.call(path, override_flat=str(flat), **settings)


def test_standalone(series, skyflat, tmp_path, caplog):
    """By strun, the sky is subtracted, saved if requested, and recorded in the header."""
    path, flat, truth = series
    before = checksums([path, skyflat, flat])
    options = ["--save_background=true", "--save_mask=true", f"--override_flat={flat}"]
    strun(STEP, path, f"--skyflat={skyflat}", *options)
    assert checksums([path, skyflat, flat]) == before
    root = path.name.removesuffix("_rateints.fits")
    found = {p.name.removeprefix(root + "_") for p in tmp_path.glob("*.fits")}
    assert found == {"skyflatsubtract.fits", "skyflatbackground.fits", "skyflatused.fits"}
    with (
        datamodels.open(tmp_path / f"{root}_skyflatsubtract.fits") as result,
        datamodels.open(tmp_path / f"{root}_skyflatbackground.fits") as background,
        datamodels.open(path) as original,
        fits.open(tmp_path / f"{root}_skyflatsubtract.fits") as hdus,
    ):
        removed = np.nan_to_num(original.data - result.data).mean(axis=0)
        science = np.isfinite(result.data).all(axis=0) & ~SUBSTRIP256.reference_pixels()
        assert_allclose(background.data[science], removed[science], atol=2e-3)
        sky, flat_field = truth["SKY"], truth["FLAT"]
        # In the state of the exposure: not flat-fielded.
        error = (background.data / flat_field - sky)[science] / np.median(sky)
        assert abs(np.median(error)) < 0.005
        assert np.std(error) < 0.02
        wrong = (background.data - sky)[science] / np.median(sky)
        assert np.std(wrong) > 1.2 * np.std(error)
        assert np.all(result.err[:, science] > original.err[:, science])
        assert np.all(removed[SUBSTRIP256.reference_pixels()] == 0)
        assert result.meta.cal_step.bkg_subtract == "COMPLETE"
        assert result.dq[0, 1900 - 1792, 1000] & 2048
        assert not (result.dq[0, 1900 - 1792, 1000] & ~original.dq[0, 108, 1000]) & 1
        header = hdus[0].header
        assert_allclose(header["SKYLEFT"], 0.8 * 4.7, rtol=0.05)
        assert 0 < header["SKYFRAC"] < 1
        assert header["SKYNTEMP"] == 1
        assert "SKYLEFT" in str(header["HISTORY"])
        # The log has the level as the image shows it.
        seen = np.median(background.data[4:, 4:600])
        (said,) = re.findall(
            rf"{path.name}: the sky is ([\d.]+) \+/- [\d.]+ DN/s left", caplog.text
        )
        assert_allclose(float(said), seen, rtol=0.01)
        fitted = result.meta.skyflat_subtract.instance
        assert fitted["templates"] == [skyflat.name]
        assert fitted["scales"] == [1.0] * 4


def test_poor_templates_are_warned_about(series, tmp_path, caplog):
    """Templates with failed metrics, or that do not fit the exposure, cause a warning."""
    path, flat, _ = series
    bend = 1 + 0.3 * np.linspace(-1, 1, SUBSTRIP256.nx) ** 2
    poor = make_skyflat(sky=sky_image(SUBSTRIP256) * bend, flat=flat.name)
    poor.qc = flag_metrics(
        {"jackknife": 1.46}, METRICS, {"jackknife": (0, 1)}, poor.get_dtype("qc")
    )
    poor.save(tmp_path / "poor_skyflat.fits")
    result = call(path, flat, skyflat=["poor_skyflat.fits"])
    assert "poor_skyflat.fits: its quality is poor: jackknife is 1.46, not 0 to 1" in caplog.text
    assert f"{path.name}: its sky differs" in caplog.text
    assert result.meta.skyflat_subtract.skymisft > 3


def test_inputs_and_their_headers_are_kept(series, skyflat):
    path, flat, _ = series
    with datamodels.open(path) as model:
        model.extra_fits = {"PRIMARY": {"header": [["MYKEY", 7, "mine"]]}}
        before = model.data.copy()
        result = call(model, flat, skyflat=[str(skyflat)])
        np.testing.assert_array_equal(model.data, before)
        assert model.meta.cal_step.bkg_subtract is None
    cards = {card[0]: card[1] for card in result.extra_fits.PRIMARY.header}
    assert cards["MYKEY"] == 7
    assert cards["SKYNTEMP"] == 1


def test_flat_state(series, skyflat):
    """The sky is subtracted in the flat state of the exposure; a missing flat is an error."""
    path, flat, truth = series
    with datamodels.open(path) as model:
        plain = call(model, flat, skyflat=[str(skyflat)])
        model.data /= truth["FLAT"]
        model.err /= truth["FLAT"]
        model.meta.cal_step.flat_field = "COMPLETE"
        # No flat is needed: both are flat-fielded.
        fielded = SkyflatSubtractStep.call(model, skyflat=[str(skyflat)])
    science = ~SUBSTRIP256.reference_pixels() & np.isfinite(plain.data[0])
    difference = (fielded.data[0] * truth["FLAT"] - plain.data[0])[science]
    assert np.percentile(np.abs(difference), 99) < 0.02
    message = "nis_clear_gr700xd_skyflat.fits is flat-fielded and .* is not: give --override_flat="
    with pytest.raises(SkyflatError, match=message):
        SkyflatSubtractStep.call(path, skyflat=[str(skyflat)])


def test_reference_file(series, tmp_path):
    """A BKG reference file for jwst's step is not flat-fielded and has several templates."""
    path, _, truth = series
    skies = [make_sky(level=level, contrast=c) for level, c in ((0.6, 0.95), (1.2, 1.05))]
    flat_field = np.where(truth["FLAT"] > 0, truth["FLAT"], 1)
    reference = datamodels.SossBkgModel(data=np.array(skies) * flat_field)
    reference.save(tmp_path / "bkg.fits")
    for settings in ({"override_bkg": str(tmp_path / "bkg.fits")}, {"skyflat": ["bkg.fits"]}):
        result = SkyflatSubtractStep.call(path, save_background=True, **settings)
        assert result.meta.cal_step.bkg_subtract == "COMPLETE"
        assert result.meta.skyflat_subtract.instance["skyntemp"] == 2
        background = fits.getdata(next(tmp_path.glob("*_skyflatbackground.fits")))
        science = ~SUBSTRIP256.reference_pixels()
        error = (background / flat_field - truth["SKY"])[science]
        assert abs(np.median(error)) < 0.005 * np.median(truth["SKY"])


def test_subarrays(skyflat, tmp_path):
    """A subarray is cut from FULL by the keywords of the exposure; FULL uses all of it."""
    full = sky_image(FULL, structure=0)
    for window in (SUBSTRIP96, SUBSTRIP256, FULL, Window("FULL", 1900, 600, 64, 512)):
        (template,) = read_templates(skyflat, window)
        inside = ~window.reference_pixels()
        assert_allclose(template.sky[inside], full[window.slices][inside])
        assert np.all(template.sky > 0)
    with SkyflatModel(skyflat) as model:
        for name in ("bkg", "bkgdn", "err", "dq"):
            setattr(model, name, getattr(model, name)[SUBSTRIP96.slices])
        model.save(tmp_path / "strip_skyflat.fits")
    with pytest.raises(
        SkyflatError,
        match="strip_skyflat.fits: its SUBSTRIP96 lacks .*: give one of FULL or",
    ):
        read_templates(tmp_path / "strip_skyflat.fits", SUBSTRIP256)


def test_files_of_templates(skyflat, series, tmp_path):
    assert find_files([str(skyflat), f"{skyflat.parent}/*.fits"]) == [skyflat]
    with pytest.raises(SkyflatError, match="none.fits: no such file"):
        SkyflatSubtractStep.call(series[0], skyflat=["none.fits"])
    with pytest.raises(SkyflatError, match="neither a skyflat nor a BKG reference"):
        SkyflatSubtractStep.call(series[0], skyflat=[str(series[0])])
    with pytest.raises(SkyflatError, match="CRDS cannot be reached"):
        SkyflatSubtractStep.call(series[0])
    # Two files of the same name are distinguished: one is flat-fielded, the other is not.
    (tmp_path / "other").mkdir()
    with SkyflatModel(skyflat) as model:
        model.meta.skyflat.flat_correction = "SKIPPED"
        model.save(tmp_path / "other" / skyflat.name)
    both = [str(skyflat), str(tmp_path / "other" / skyflat.name)]
    with pytest.raises(SkyflatError, match="is flat-fielded and .* is not"):
        strun(STEP, series[0], f"--skyflat={','.join(both)}")
    assert not list(tmp_path.glob("*.fits"))


# jwst warns of associations whose members are elsewhere.
@pytest.mark.filterwarnings("ignore:Input association file contains path:UserWarning")
def test_background_exposures(series, skyflat, tmp_path, caplog):
    """A pipeline combines exposures of blank sky into the template; the step alone does not."""
    path, flat, truth = series
    settings = Simulation(
        window=SUBSTRIP256, seed=4, n_exposures=3, n_integrations=1, star_density=0.0
    )
    visit = simulate_visit(tmp_path / "visit", replace(settings, sky_level=0.8))
    background = sorted(visit.parent.glob("*_rateints.fits"))
    (row,) = make_background_associations([path], background, tmp_path)
    ways = "Run SkyflatSpec2Pipeline or SossStarePipeline, .*skyflat=FILE"
    step = SkyflatSubtractStep()
    with pytest.raises(SkyflatError, match=ways):
        step.run(row["association"])
    with pytest.raises(SkyflatError, match=f"{path.name}: this step does not combine .*{ways}"):
        step.run(str(path), [str(exposure) for exposure in background])
    assert not list(tmp_path.glob("*.fits"))
    step.skyflat, step.override_flat = [str(skyflat)], str(flat)
    result = step.run(row["association"])
    assert result.meta.skyflat_subtract.instance["templates"] == [skyflat.name]
    assert f"{path.name}: its background exposures are ignored" in caplog.text
    pipeline = SossStarePipeline()
    pipeline.skyflat_subtract.override_flat = pipeline.flat_field.override_flat = str(flat)
    members = [str(exposure) for exposure in background]
    pipeline.skyflat_subtract.skyflat = combine_skyflat(pipeline.skyflat_subtract, members)
    result = pipeline.skyflat_subtract.run(str(path))
    assert result.meta.cal_step.bkg_subtract == "COMPLETE"
    (template,) = result.meta.skyflat_subtract.instance["templates"]
    assert template.startswith("nis_clear_gr700xd_LON")
    with datamodels.open(path) as original:
        removed = np.nanmean(original.data - result.data, axis=0) / truth["FLAT"]
    science = ~SUBSTRIP256.reference_pixels()
    error = (removed - truth["SKY"])[science] / np.median(truth["SKY"])
    assert abs(np.nanmedian(error)) < 0.02


@pytest.mark.parametrize("name", ["skip", "skyflat", "override_bkg"])
def test_no_skyflat_is_made_that_is_not_needed(series, skyflat, name, caplog):
    """No skyflat is created for an exposure whose sky is given or not subtracted."""
    step = SkyflatSubtractStep()
    setattr(step, name, True if name == "skip" else str(skyflat))
    (segments,) = step.open_segments(str(series[0]))
    segments.background, given = ["no_such_file.fits"], step.skyflat
    with background_skyflats(step, segments, {}):
        assert step.skyflat == given
    assert ("background exposures are ignored" in caplog.text) == (name != "skip")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"meta.instrument.filter": "F380M"}, "FILTER is F380M, not CLEAR or F277W"),
        ({"meta.exposure.type": "NIS_WFSS"}, "EXP_TYPE is NIS_WFSS"),
        ({"meta.subarray.ystart": 1900}, "SUBSTRT1 and SUBSTRT2 are not those of SUBSTRIP256"),
        ({"meta.subarray.ystart": 1}, "SUBSTRT1 and SUBSTRT2 are not those of SUBSTRIP256"),
        ({"meta.subarray.ystart": None}, "keyword SUBSTRT1 or SUBSTRT2 is missing"),
        ({"dq": 1}, "no usable pixel"),
    ],
)
def test_what_cannot_be_subtracted(series, skyflat, edit, reason, tmp_path):
    """A skyflat that the user names is applied, or the run fails."""
    path, flat, _ = series
    with datamodels.open(path) as model:
        for key, value in edit.items():
            model[key] = model.dq | np.uint32(1) if key == "dq" else value
        with pytest.raises(SkyflatError, match=f"{path.name}: .*{reason}"):
            call(model, flat, skyflat=[str(skyflat)], save_results=True)
    assert not list(tmp_path.iterdir())


def test_nothing_named_and_nothing_subtracted(series, tmp_path, caplog):
    """A missing sky in CRDS is not an error; the unchanged exposure gets no suffix."""
    environment = make_cache(tmp_path / "cache", {"bkg": None, "flat": None, "pastasoss": None})
    with crds_at(environment, tmp_path):
        strun(STEP, series[0])
    assert "sky not subtracted, CRDS has no BKG reference file for it" in caplog.text
    assert not list(tmp_path.glob("*.fits"))


def test_not_twice(series, skyflat, tmp_path):
    """The step refuses a sky-subtracted exposure; a pipeline leaves it unchanged."""
    path, flat, _ = series
    with datamodels.open(path) as model:
        model.meta.cal_step.bkg_subtract = "COMPLETE"
        with pytest.raises(SkyflatError, match="sky has been subtracted already"):
            call(model, flat, skyflat=[str(skyflat)])
        with pytest.raises(SkyflatError, match="sky has been subtracted already"):
            SkyflatSubtractStep.call(model)
        pipeline = SossStarePipeline()
        assert pipeline.skyflat_subtract.run(model) is model
        pipeline.skyflat_subtract.skyflat = skyflat
        with pytest.raises(SkyflatError, match="sky has been subtracted already"):
            pipeline.run(model)
    assert not list(tmp_path.iterdir())


def test_a_flat_that_is_not_needed(series, skyflat, tmp_path):
    """Both are flat-fielded: only the flat of the exposure may be named."""
    path, flat, _ = series
    with datamodels.open(path) as model:
        model.meta.cal_step.flat_field = "COMPLETE"
        model.meta.ref_file.flat.name = "crds://jwst_flat.fits"
        with pytest.raises(SkyflatError, match=f"R_FLAT is 'crds.*{flat.name} cannot be applied"):
            call(model, flat, skyflat=skyflat, save_results=True)
        pipeline = SossStarePipeline()
        pipeline.flat_field.override_flat = str(flat)
        with pytest.raises(SkyflatError, match=f"R_FLAT is 'crds.*{flat.name} cannot be applied"):
            pipeline.run(model)
    assert not list(tmp_path.iterdir())


def test_either_skyflats_or_a_reference_file(series, skyflat):
    with pytest.raises(SkyflatError, match="skyflat and override_bkg are given"):
        SkyflatSubtractStep.call(series[0], skyflat=skyflat, override_bkg=str(skyflat))


@pytest.mark.parametrize("kind", ["str", "path", "wildcard", "folder", "model"])
def test_a_skyflat_in_any_form(kind, skyflat, series):
    """In an attribute, the constructor and the parameters of a pipeline."""
    value = {
        "str": str(skyflat),
        "path": skyflat,
        "wildcard": f"{skyflat.parent}/nis*_skyflat.fits",
        "folder": skyflat.parent,
        "model": SkyflatModel(skyflat),
    }[kind]
    by_attribute = SkyflatSubtractStep()
    by_attribute.skyflat = value
    steps = {"skyflat_subtract": {"skyflat": value}}
    config, _ = SossStarePipeline.build_config(None, steps=steps)
    pipeline = SossStarePipeline.from_config_section(config)
    with datamodels.open(series[0]) as exposure:
        header = exposure.copy()
    for step in (by_attribute, SkyflatSubtractStep(skyflat=value), pipeline.skyflat_subtract):
        ((name, _),) = read_sky(step._find_sources(header, []), SUBSTRIP96, 245.76).states
        assert name == skyflat.name
        expected = skyflat.name if kind == "model" else str(value)
        assert step.get_pars()["skyflat"] == [expected]


def test_each_template_is_inspected_once(series, skyflat, tmp_path, monkeypatch):
    """Pipeline, step and fit inspect a template once, and again if it has changed."""

    def count(place, name):
        original, given = getattr(place, name), []

        def note(*args):
            given.append(args[0])
            return original(*args)

        monkeypatch.setattr(place, name, note)
        return given

    monkeypatch.setattr(skyflat_subtract_step, "fit_sky", stop_fit)
    found, checks = count(templates, "find_kind"), count(SkyflatSubtractStep, "check")
    folder = tmp_path / "library"
    folder.mkdir()
    for name in ("a_skyflat.fits", "b_skyflat.fits"):
        shutil.copy(skyflat, folder / name)
    pipeline = SossStarePipeline()
    pipeline.skyflat_subtract.skyflat = folder
    pipeline.flat_field.override_flat = series[1]
    for number in (1, 2):
        with pytest.raises(SkyflatError, match="sky not subtracted, no fit"):
            pipeline.run(series[0])
        assert len(checks) == number
    assert sorted(path.name for path in found) == ["a_skyflat.fits", "b_skyflat.fits"]
    assert inspect_sky(folder / "a_skyflat.fits").flat_fielded
    with SkyflatModel(skyflat) as model:
        model.meta.skyflat.flat_correction = "SKIPPED"
        model.save(folder / "a_skyflat.fits")
    assert not inspect_sky(folder / "a_skyflat.fits").flat_fielded


def stop_fit(*_, **__):
    """Fit no sky."""
    raise NoSkyError("no fit")


def test_skyflat_and_flat_in_memory(series, skyflat):
    """Models give the same result as their files, and are recorded by name."""
    path, flat, _ = series
    with SkyflatModel(skyflat) as sky, datamodels.FlatModel(flat) as model:
        step = SkyflatSubtractStep(skyflat=sky, override_flat=model)
        result = step.run(path)
    assert_allclose(result.data, call(path, flat, skyflat=skyflat).data)
    command = step.describe_run()["command"]
    assert f"--skyflat={skyflat.name} --override_flat={flat.name}" in command


def test_a_single_image(series, skyflat, tmp_path):
    path, flat, _ = series
    with datamodels.open(path) as cube:
        image = datamodels.ImageModel(data=cube.data[1], err=cube.err[1], dq=cube.dq[1])
        image.update(cube)
        settings = {"scale_mode": "integration", "save_residual": True}
        result = call(image, flat, skyflat=[str(skyflat)], **settings)
        usable = (image.err > 0) & (image.dq & 1 == 0)
        expected = result.data / np.where(usable, image.err, np.nan)
    assert result.data.shape == SUBSTRIP256.shape
    assert result.meta.cal_step.bkg_subtract == "COMPLETE"
    assert abs(np.nanmedian(result.data[210:250, 100:600])) < 0.05
    residual = fits.getdata(next(tmp_path.glob("*_skyflatresidual.fits")))
    assert_allclose(residual, expected, rtol=1e-4, atol=1e-4)


def test_scales_of_a_drifting_series(series, skyflat, tmp_path):
    """The scales follow a drift of the sky."""
    path, flat, truth = series
    sky, flat_field = truth["SKY"], truth["FLAT"]
    levels = np.array([0.94, 0.98, 1.02, 1.06])
    with datamodels.open(path) as model:
        model.data += ((levels - 1)[:, None, None] * sky * flat_field).astype(np.float32)
        settings = {"scale_mode": "integration", "save_mask": True}
        result = call(model, flat, skyflat=[str(skyflat)], **settings)
        removed = (model.data - result.data) / flat_field
    assert_allclose(result.meta.skyflat_subtract.instance["scales"], levels, atol=0.006)
    assert result.meta.skyflat_subtract.instance["scale_mode"] == "integration"
    science = ~SUBSTRIP256.reference_pixels() & np.isfinite(removed).all(axis=0)
    for plane, level in zip(removed, levels, strict=True):
        assert abs(np.median((plane - level * sky)[science])) < 0.01 * np.median(sky)
    with datamodels.open(next(tmp_path.glob("*_skyflatused.fits"))) as used:
        assert 0.05 < used.mask.mean() < 0.95
        assert not used.mask[SUBSTRIP256.reference_pixels()].any()
        assert not used.mask[trace_distance(SUBSTRIP256, 245.76) < 15].any()


def test_parameters_are_saved_and_used_again(series, skyflat, tmp_path):
    path, flat, _ = series
    options = [f"--skyflat={skyflat}", f"--override_flat={flat}", "--scale_mode=integration"]
    strun(STEP, path, *options, "--save-parameters=pars.asdf")
    first = next(tmp_path.glob("*_skyflatsubtract.fits"))
    data = fits.getdata(first)
    first.unlink()
    strun("pars.asdf", path, f"--override_flat={flat}")
    np.testing.assert_array_equal(fits.getdata(first), data)


def test_files_of_other_programs(series, skyflat, tmp_path):
    """An exposure and a skyflat that astropy has saved work without ASDF and DATAMODL."""
    path, flat, _ = series
    for name in (path, skyflat):
        with fits.open(name) as hdus:
            del hdus["ASDF"], hdus[0].header["DATAMODL"]
            hdus.writeto(tmp_path / name.name)
    result = call(path.name, flat, skyflat=skyflat.name)
    assert_allclose(result.data, call(path, flat, skyflat=skyflat).data)


def test_a_time_series_makes_no_skyflat(series, caplog):
    """The target is reported before stars are masked, and by the quality of the product."""
    skyflat = SkyflatPipeline.call(series[0], steps={"flat_field": {"skip": True}})
    first = next(record for record in caplog.records if record.levelname == "WARNING")
    assert "TSOVISIT is true, as in a time series of a target" in first.getMessage()
    assert "1 of 1 exposures show the trace of a target" in caplog.text
    qc = {row["name"]: row for row in skyflat.qc}
    assert qc["target_trace"]["flag"] == qc["filled"]["flag"] == "fail"
    assert qc["target_trace"]["value"] > 1


def test_files_that_do_not_belong_together(series, skyflat):
    """Wildcards that match other files, and exposures that are given twice, are errors."""
    with pytest.raises(SkyflatError, match="time_series_truth.fits: cannot be read"):
        strun(STEP, f"{series[0].parent}/*.fits", f"--skyflat={skyflat}")
    for others in ([series[0]], [series[0], series[0]]):
        with pytest.raises(SkyflatError, match="the same exposure as"):
            strun(STEP, series[0], *others, f"--skyflat={skyflat}")


def test_inputs_are_never_replaced(series, skyflat):
    path, flat, _ = series
    options = [f"--skyflat={skyflat}", f"--override_flat={flat}", f"--output_dir={path.parent}"]
    before = checksums([path])
    with pytest.raises(SkyflatError, match="is an input"):
        strun(STEP, path, *options, "--suffix=rateints")
    assert checksums([path]) == before


def test_inputs_that_are_no_exposures(series, skyflat, tmp_path):
    truncated = tmp_path / "truncated_rateints.fits"
    truncated.write_bytes(series[0].read_bytes()[:100_000])
    for name, fault in (("none.fits", "no such file"), (truncated, "truncated")):
        with pytest.raises(SkyflatError, match=f"{name}: {fault}"):
            SkyflatSubtractStep.call(str(name), skyflat=[str(skyflat)])
    broken = tmp_path / "broken_skyflat.fits"
    broken.write_bytes(skyflat.read_bytes()[:9_000_000])
    with pytest.raises(SkyflatError, match="broken_skyflat.fits: truncated in extension"):
        call(series[0], series[1], skyflat=[str(broken)])
    content = {"asn_type": "spec2", "asn_id": "a", "asn_pool": "none"}
    content["products"] = [{"name": "x", "members": []}]
    (tmp_path / "none_asn.json").write_text(json.dumps(content))
    with pytest.raises(SkyflatError, match="none_asn.json: product x has no science member"):
        SkyflatSubtractStep.call(tmp_path / "none_asn.json", skyflat=[str(skyflat)])


def test_templates_with_and_without_an_edge(series, tmp_path):
    slope = np.broadcast_to(np.linspace(5, 5.1, SUBSTRIP256.nx), SUBSTRIP256.shape)
    skies = np.array([make_sky(), slope])
    datamodels.SossBkgModel(data=skies).save(tmp_path / "odd.fits")
    with pytest.raises(SkyflatError, match=r"odd.fits\[2\]: its sky has no edge"):
        SkyflatSubtractStep.call(series[0], skyflat=["odd.fits"])
    datamodels.SossBkgModel(data=skies[1:]).save(tmp_path / "plain.fits")
    result = SkyflatSubtractStep.call(series[0], skyflat=["plain.fits"])
    assert result.meta.cal_step.bkg_subtract == "COMPLETE"


def test_one_usable_row_is_too_little(single_prior):
    image, err = observe(make_sky())
    usable = np.zeros(image.shape, bool)
    usable[100] = True
    with pytest.raises(NoSkyError, match="too few pixels show a sky"):
        fit_sky(image, err, usable, single_prior, trace_distance(SUBSTRIP256, 245.76))


def test_skyflats_of_background_exposures_last_for_one_run(monkeypatch):
    """The next run of the same pipeline uses its own background exposures."""
    step, found = SkyflatSubtractStep(), iter([["first"], ["second"]])
    monkeypatch.setattr(background, "combine_skyflat", lambda *_: next(found))
    monkeypatch.setattr(background, "find_fault", lambda _: None)
    segments = Segments(["a.fits"], [{}], None, ["b.fits"])
    with background.background_skyflats(step, segments, {}):
        assert step.skyflat == ["first"]
    assert step.skyflat is None
    with (
        pytest.raises(OSError, match="broken"),
        background.background_skyflats(step, segments, {}),
    ):
        raise OSError("broken")
    assert step.skyflat is None
