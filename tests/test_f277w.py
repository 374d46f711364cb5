"""Exposures with F277W: their sky, and the sources that they show in a series with CLEAR."""

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from helpers import NOTHING_BUT_SKY, checksums, cut_series, edit_file, make_skyflat, strun
from numpy.testing import assert_allclose
from stdatamodels.jwst import datamodels
from test_real import REAL

from soss_background import (
    SkyflatModel,
    SkyflatPipeline,
    SkyflatSubtractStep,
    SossStarePipeline,
    make_sky_model,
)
from soss_background.associations import make_associations, make_background_associations
from soss_background.detector import PWCPOS, SUBSTRIP256, Window
from soss_background.errors import SkyflatError
from soss_background.io.priors import read_sky
from soss_background.simulate import Simulation, Stars, simulate_time_series, simulate_visit
from soss_background.simulate.dispersed_sky import plain_sky
from soss_background.simulate.scene import ORDER0_COLUMN, ORDER0_ROW, star_image
from soss_background.sky.smooth_prior import build_smooth_prior
from soss_background.sky.traces import trace_distance
from soss_background.subtract.contaminants import find_contaminants
from soss_background.subtract.sky_fit import fit_sky
from soss_background.survey.skies import survey_skies

STEP = "soss_background.SkyflatSubtractStep"
SCIENCE = ~SUBSTRIP256.reference_pixels()
NEAR = trace_distance(SUBSTRIP256, PWCPOS) <= 20
SETTINGS = Simulation(
    window=SUBSTRIP256, seed=5, n_integrations=4, exposure_time=400.0, star_density=1.0
)


def exposure(seed, density=1.0, flux=300.0, noise=0.02, stripes=0.015):
    """Simulate the mean of an exposure with F277W; return image, errors, sky and stars."""
    rng = np.random.default_rng(seed)
    settings = replace(SETTINGS, seed=seed, star_density=density)
    sky = plain_sky(SUBSTRIP256, seed)
    stars = field(settings, "F277W")
    image = sky + stars + target("F277W", flux)
    image += noise * rng.standard_normal(sky.shape) + stripes * rng.standard_normal(sky.shape[1])
    return image.astype("f4"), np.full(sky.shape, noise, "f4"), sky, stars


def target(filter_name, flux=300.0):
    star = Stars(*(np.array([value]) for value in (0.0, 0.0, flux, 6000.0)))
    return star_image(SUBSTRIP256, star, filter_name=filter_name)


def field(settings, filter_name):
    from soss_background.simulate.visit import _draw_field

    return star_image(SUBSTRIP256, _draw_field(settings), filter_name=filter_name)


def find_sources(image, err, **settings):
    settings = {"subtracted": False} | settings
    distance = trace_distance(SUBSTRIP256, PWCPOS, filter_name="F277W")
    return find_contaminants(image, err, SCIENCE, SUBSTRIP256, distance, **settings)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a time series and an exposure with F277W; return their files and the truth."""
    folder = tmp_path_factory.mktemp("series")
    path = simulate_time_series(folder, SETTINGS, target_flux=300.0, f277w=True)
    (other,) = (each for each in folder.glob("*_rateints.fits") if each != path)
    with fits.open(folder / "time_series_truth.fits") as hdus:
        truth = {hdu.name: hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None}
    return path, other, folder / "time_series_flat.fits", truth


@pytest.fixture(scope="module")
def skyflats(tmp_path_factory):
    """Write skyflats of both filters; return their paths by filter."""
    folder, paths = tmp_path_factory.mktemp("skyflats"), {}
    for name, sky in (("CLEAR", None), ("F277W", plain_sky(SUBSTRIP256, SETTINGS.seed))):
        skyflat = make_skyflat(5, sky=sky, flat="time_series_flat.fits")
        skyflat.meta.instrument.filter = name
        paths[name] = folder / f"nis_{name.lower()}_gr700xd_skyflat.fits"
        skyflat.save(paths[name])
    return paths


# --- the sky of F277W --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 5))
def test_smooth_fit(seed):
    """A level with an honest error, whatever the ramp of the sky, among stars and stripes."""
    image, err, sky, _ = exposure(seed, flux=[30, 300, 1500][seed % 3])
    distance = trace_distance(SUBSTRIP256, PWCPOS, filter_name="F277W")
    fit = fit_sky(image, err, SCIENCE, build_smooth_prior(SUBSTRIP256), distance)
    error = (fit.sky - sky)[SCIENCE]
    assert abs(np.median(error / sky[SCIENCE])) < 0.03
    assert abs(np.median(error)) < 3 * fit.level_left_err
    assert fit.level_left_err < 0.03 * fit.level_left
    assert (fit.level_left, fit.level_left_err) == (fit.level_right, fit.level_right_err)
    assert abs(fit.shift) < 0.01
    assert 0.1 < np.sqrt(np.mean((error / fit.err[SCIENCE]) ** 2)) < 2


def test_no_stars_no_error():
    sky = plain_sky(SUBSTRIP256, 2)
    distance = np.full(sky.shape, np.inf)
    fit = fit_sky(sky, 0 * sky + 0.01, SCIENCE, build_smooth_prior(SUBSTRIP256), distance)
    assert_allclose(fit.sky, sky, rtol=0.015)


def test_trace_of_the_filter():
    """The target is seen in the first 460 columns, with a margin of 50, and no second order."""
    plain, red = (trace_distance(SUBSTRIP256, PWCPOS, filter_name=x) for x in ("CLEAR", "F277W"))
    columns = np.flatnonzero(np.isfinite(red).any(axis=0))
    assert columns.max() in range(490, 520)
    assert np.all(red >= plain)
    light = target("F277W")
    assert light[(red <= 20)].sum() > 0.75 * light.sum()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real arrays are not here")
def test_response_to_a_sky_added_to_a_real_frame():
    """The level rises by what is added, and the sources stay the same."""
    frame = np.load(REAL / "wasp96b_f277w_substrip256.npy").astype("f4")
    err = np.sqrt(0.1**2 + np.clip(frame, 0, None) / 1.6 / 100).astype("f4")
    distance = trace_distance(SUBSTRIP256, PWCPOS, filter_name="F277W")
    prior, sky = build_smooth_prior(SUBSTRIP256), plain_sky(SUBSTRIP256, 4)
    low, high = (fit_sky(frame + k * sky, err, SCIENCE, prior, distance) for k in (1, 2))
    assert_allclose(np.median((high.sky - low.sky)[SCIENCE] / sky[SCIENCE]), 1, atol=0.02)
    # Boxes of images of order 0 and of sky that the eye finds, as in test_real.
    sources = find_sources(frame, err, subtracted=True)
    for y0, y1, x0, x1 in ((195, 220, 996, 1010), (95, 115, 1158, 1172), (25, 45, 1892, 1905)):
        assert sources[y0:y1, x0:x1].mean() > 0.9
    for y0, y1, x0, x1 in ((180, 250, 20, 400), (150, 230, 450, 700), (160, 190, 1100, 1240)):
        assert sources[y0:y1, x0:x1].mean() < 0.05
    assert_allclose(sources, find_sources(frame + sky, err), atol=1)
    both = sources & find_sources(frame + sky, err)
    assert both.sum() > 0.8 * sources.sum()


def test_nothing_named(series, tmp_path):
    """A smooth surface is fitted, subtracted and recorded; CRDS is not asked."""
    _, path, flat, truth = series
    before = checksums([path, flat])
    strun(STEP, path, f"--override_flat={flat}")
    assert checksums([path, flat]) == before
    (product,) = tmp_path.glob("*_skyflatsubtract.fits")
    with datamodels.open(product) as result, datamodels.open(path) as original:
        removed = np.nanmean(original.data - result.data, axis=0) / truth["FLAT"]
        sky = truth["F277W_SKY"]
        error = (removed - sky)[SCIENCE] / np.median(sky)
        assert abs(np.nanmedian(error)) < 0.03
        assert np.nanstd(error) < 0.06
        assert result.meta.cal_step.bkg_subtract == "COMPLETE"
        assert result.meta.skyflat_subtract.instance["templates"] == []
        assert not np.any(result.err < original.err)
    header = fits.getheader(product)
    assert header["SKYLEFT"] == header["SKYRIGHT"]
    assert abs(header["SKYLEFT"] - np.median(sky)) < 3 * header["SKYLERR"]
    assert header["SKYNTEMP"] == header["SKYSHIFT"] == 0
    assert "SKYF277W" not in header


def test_a_skyflat_of_the_filter(series, skyflats):
    _, path, flat, truth = series
    result = SkyflatSubtractStep.call(path, skyflat=skyflats["F277W"], override_flat=str(flat))
    with datamodels.open(path) as original:
        removed = np.nanmean(original.data - result.data, axis=0) / truth["FLAT"]
    error = (removed - truth["F277W_SKY"])[SCIENCE] / np.median(truth["F277W_SKY"])
    assert abs(np.nanmedian(error)) < 0.02
    assert np.nanstd(error) < 0.03
    assert result.meta.skyflat_subtract.instance["templates"] == [skyflats["F277W"].name]


def test_segments_get_one_sky(series, tmp_path):
    _, path, flat, _ = series
    whole = SkyflatSubtractStep.call(path, override_flat=str(flat))
    parts = cut_series(path, tmp_path / "cut", (1, 3))
    library = SkyflatSubtractStep.call(parts[::-1], override_flat=str(flat))
    data = np.concatenate(library.visit(lambda segment: segment.data.copy(), "Reading"))
    assert_allclose(data, whole.data, atol=1e-5)


@pytest.mark.parametrize("own", ["CLEAR", "F277W"])
def test_a_skyflat_of_another_filter(series, skyflats, own, tmp_path):
    path = dict(zip(("CLEAR", "F277W"), series[:2], strict=True))[own]
    other = {"CLEAR": "F277W", "F277W": "CLEAR"}[own]
    fault = f"FILTER is {other}, but {own} in {path.name}: a sky serves exposures with its own"
    for kind in ("skyflat", "override_bkg"):
        with pytest.raises(SkyflatError, match=fault):
            SkyflatSubtractStep.call(
                path, override_flat=str(series[2]), save_results=True, **{kind: skyflats[other]}
            )
    asn = {"products": [{"name": "a", "members": []}]}
    for exptype, each in (("science", path), ("background", series[own == "CLEAR"])):
        asn["products"][0]["members"].append({"expname": str(each), "exptype": exptype})
    (tmp_path / "a_asn.json").write_text(json.dumps(asn))
    with pytest.raises(SkyflatError, match=fault):
        SkyflatSubtractStep.call(tmp_path / "a_asn.json", override_flat=str(series[2]))
    assert [each.name for each in tmp_path.iterdir()] == ["a_asn.json"]


def test_models_and_spectra_are_those_of_clear(series, skyflats):
    for function in (make_sky_model, lambda path: survey_skies([path])):
        with pytest.raises(SkyflatError, match="FILTER is F277W, not CLEAR"):
            function(skyflats["F277W"])
    with pytest.raises(SkyflatError, match=f"{series[1].name}: FILTER is F277W, not CLEAR"):
        SossStarePipeline.call(series[1])


# --- skyflats ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """Simulate blank sky with F277W in pixels where the sky of CLEAR has its edge."""
    settings = Simulation(
        window=Window("FULL", 1856, 600, 128, 256), n_exposures=5, filter_name="F277W", seed=3
    )
    return simulate_visit(tmp_path_factory.mktemp("visit"), settings), settings


def test_skyflat(visit, tmp_path, caplog):
    """The sky is that of the truth, and no edge is looked for."""
    association, settings = visit
    flat = str(association.parent / "flat.fits")
    SkyflatPipeline.call(
        association, save_results=True, steps={"flat_field": {"override_flat": flat}}
    )
    (path,) = tmp_path.glob("*_skyflat.fits")
    assert path.name.startswith("nis_f277w_gr700xd_LON")
    with SkyflatModel(path) as skyflat:
        sky = plain_sky(settings.window, settings.seed)
        assert abs(np.median(skyflat.bkgdn / sky) - 1) < 0.02  # the stripes have 0.005 DN/s
        assert np.std(skyflat.bkgdn / sky) < 0.015
        metrics = {row["name"]: row["value"] for row in skyflat.qc}
        assert skyflat.meta.instrument.filter == "F277W"
    assert_allclose(metrics["level"], np.median(sky), rtol=0.02)
    assert not any(name.startswith(("level_left", "level_r", "step_")) for name in metrics)
    assert not [name for name in ("level", "chi2", "hot") if f"{name} is" in caplog.text]


def test_filters_are_not_mixed(visit, tmp_path):
    names = sorted(visit[0].parent.glob("jw*_rateints.fits"))[:2]
    models = [datamodels.open(name) for name in names]
    models[1].meta.instrument.filter = "CLEAR"
    with pytest.raises(SkyflatError, match="FILTER is CLEAR, but F277W in .*: filters cannot be"):
        SkyflatPipeline.call(models)
    for number, model in enumerate(models):
        model.meta.filename = f"exposure{number}_rateints.fits"
        model.save(tmp_path / model.meta.filename)
        model.close()
    table = make_associations(tmp_path.glob("*_rateints.fits"), tmp_path)
    assert sorted(table["n"]) == [1, 1]
    assert set(table["group"]) == {"000"}
    assert {name[:9] for name in table["product"]} == {"nis_clear", "nis_f277w"}
    assert sum("_f277w_000_skyflat_asn" in name for name in table["association"]) == 1
    with pytest.raises(SkyflatError, match="FILTER is F277W, but CLEAR in the background"):
        make_background_associations(names[:1], [tmp_path / "exposure1_rateints.fits"])


# --- sources of F277W in CLEAR -----------------------------------------------------------


def test_simulated_exposures_agree(series):
    """Images of order 0 are at one place, traces of F277W are part of those of CLEAR."""
    path, other, _, truth = series
    clear, red = truth["STARS"][0], truth["F277W_STARS"]
    assert np.all(red <= clear + 1e-3)
    with datamodels.open(path) as first, datamodels.open(other) as second:
        assert first.meta.instrument.filter == "CLEAR"
        assert second.meta.instrument.filter == "F277W"
        assert first.meta.pointing.instance == second.meta.pointing.instance
        assert second.meta.exposure.start_time > first.meta.exposure.end_time
    star = Stars(
        *(np.array([value]) for value in (1000 - ORDER0_COLUMN, 1900 - ORDER0_ROW, 9, 4e3))
    )
    images = [star_image(SUBSTRIP256, star, filter_name=name) for name in ("CLEAR", "F277W")]
    part = np.s_[80:136, 980:1020]
    ratio = images[1][part].max() / images[0][part].max()
    assert 0.05 < ratio < 0.3
    peaks = [np.unravel_index(np.argmax(image[part]), image[part].shape) for image in images]
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("seed", [11, 14, 21])
def test_sources(seed):
    """Bright sources are found also where the traces of CLEAR are, and hardly anything else."""
    image, err, _, stars = exposure(seed, density=2.0)
    found = find_sources(image, err)
    unseen = trace_distance(SUBSTRIP256, PWCPOS, filter_name="F277W") < 60
    bright = (stars > 0.1) & SCIENCE & ~unseen
    assert found[bright].mean() > 0.9
    assert found[(stars < 0.005) & ~unseen].mean() < 0.01
    dark = exposure(seed, density=0, flux=1500.0)
    assert find_sources(*dark[:2]).mean() < 0.003


def test_an_exposure_whose_sky_is_subtracted():
    image, err, sky, _ = exposure(11, density=2.0)
    found, again = find_sources(image, err), find_sources(image - sky, err, subtracted=True)
    assert np.mean(found & again) > 0.8 * np.mean(found | again) > 0


def test_sources_are_masked(series, skyflats, tmp_path):
    """The series gets the mask, the keyword, and a sky as good as without."""
    path, other, flat, truth = series
    before = checksums([path, other])
    options = [f"--skyflat={skyflats['CLEAR']}", f"--override_flat={flat}", "--save_mask=true"]
    step = strun(STEP, path, *options, f"--f277w={other}")
    assert checksums([path, other]) == before
    (product,) = tmp_path.glob("*_skyflatsubtract.fits")
    assert fits.getheader(product)["SKYF277W"] == other.name
    assert f"f277w={other}" in " ".join(fits.getheader(product)["HISTORY"]).replace(" ", "")
    with datamodels.open(next(tmp_path.glob("*_skyflatused.fits"))) as mask:
        used = mask.mask == 1
    (segments,) = step.open_segments(path)
    fit = step.fit(segments)
    stars = truth["F277W_STARS"]
    assert fit.contaminants[NEAR & (stars > 0.2)].mean() > 0.8
    assert not np.any(fit.contaminants & used)
    sky = truth["SKY"]
    error = (fit.sky / truth["FLAT"] - sky)[SCIENCE] / np.median(sky)
    assert abs(np.median(error)) < 0.02


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ({"instrument.filter": "CLEAR"}, "FILTER is CLEAR, not F277W"),
        ({"instrument.pupil": "CLEARP"}, "PUPIL is CLEARP, not GR700XD"),
        ({"pointing.dec_v1": 1.0}, "its pointing is .* pixels from that of"),
        ({"pointing.pa_v3": 1.0}, "PA_V3 is 1, but .* in"),
        ({"pointing.ra_v1": None}, "keyword RA_V1 is missing"),
        ({"instrument.pupil_position": 245.4}, "PWCPOS is 245.4, but 245.76 in"),
        ({"subarray.ystart": 1}, r"its pixels \(SUBSTRIP256\) are not those of"),
        ({"bunit_data": "MJy/sr"}, "BUNIT is MJy/sr, not DN/s"),
    ],
)
def test_another_exposure(series, skyflats, tmp_path, edit, fault):
    """The run ends before any work, and writes nothing."""
    path, other, flat, _ = series
    copy = tmp_path / "other_rateints.fits"
    copy.write_bytes(other.read_bytes())

    def change(model):
        for key, value in edit.items():
            model[f"meta.{key}"] = value

    edit_file(copy, change)
    with pytest.raises(SkyflatError, match=f"other_rateints.fits: {fault}"):
        SkyflatSubtractStep.call(
            path, skyflat=skyflats["CLEAR"], override_flat=str(flat), f277w=copy, save_results=True
        )
    assert list(tmp_path.iterdir()) == [copy]


def test_what_is_asked_for_is_done(series, skyflats, tmp_path):
    path, other, flat, _ = series
    named = {"f277w": other, "override_flat": str(flat), "save_results": True}
    with pytest.raises(SkyflatError, match="FILTER is F277W, not CLEAR, but f277w is given"):
        SkyflatSubtractStep.call(other, **named)
    with pytest.raises(SkyflatError, match="none_rateints.fits: no such file"):
        SkyflatSubtractStep.call(path, f277w="none_rateints.fits", skyflat=skyflats["CLEAR"])
    pipeline = SossStarePipeline()
    pipeline.skyflat_subtract.f277w, pipeline.skyflat_subtract.skip = other, True
    with pytest.raises(SkyflatError, match="skyflat_subtract.f277w is given, but"):
        pipeline.run(path)
    assert not list(tmp_path.iterdir())


def test_flat_fit_of_a_template():
    """With a skyflat, the surface is its deviation."""
    skyflat = make_skyflat(3, sky=plain_sky(SUBSTRIP256, 3), flat="flat.fits")
    prior = read_sky([skyflat], SUBSTRIP256, PWCPOS, "F277W").make_prior(None)
    assert not prior.right.any()
    assert_allclose(np.median(prior.sky), 1, atol=0.01)
    assert 0 < np.median(prior.noise) < 0.01
    assert np.sqrt(np.sum(prior.deviations**2, axis=0)).max() < 0.2


def test_settings_of_the_simulator():
    with pytest.raises(ValueError, match="filter_name is F380M"):
        Simulation(filter_name="F380M")
    quiet = Simulation(window=SUBSTRIP256, filter_name="F277W", **NOTHING_BUT_SKY)
    assert np.ptp(plain_sky(quiet.window, 1)) < 0.3
