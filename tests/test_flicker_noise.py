"""1/f noise of integrations: measured and subtracted stripes, compared with the truth."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from bottleneck import nanmean
from helpers import cut_series
from stdatamodels.jwst import datamodels

from soss_background import FlickerNoiseStep, OptimalExtractStep, SossStarePipeline
from soss_background.detector import SUBSTRIP96, Window
from soss_background.errors import SkyflatError
from soss_background.extract.field_sources import find_sources
from soss_background.extract.flicker_noise import Scene, find_stripes, measure_columns
from soss_background.simulate import Simulation, simulate_time_series

NY, NX, NINTS, SIGMA = 96, 512, 12, 0.3
ROWS = np.linspace(-1, 1, NY)[:, np.newaxis]
# Distance from the trace of a target, and the half width of the trace, pixels.
TRACE, HALF_WIDTH = 35 + 0.02 * np.arange(NX), 16
DISTANCE = np.abs(np.arange(NY)[:, np.newaxis] - TRACE)


def draw_stripes(rms, seed=1):
    """Return levels and slopes with a 1/f spectrum along the columns, both (n, nx)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((2, NINTS, NX)))
    spectrum[..., 1:] *= np.arange(1, NX // 2 + 1) ** -0.5
    noise = np.fft.irfft(spectrum, NX)
    level, slope = rms * noise / noise.std()
    return level, 0.05 * slope


def make_target():
    """Return a trace with wings, in which the flux changes along the columns."""
    distance = np.abs(np.arange(NY)[:, np.newaxis] - 35 - 0.02 * np.arange(NX))
    return (np.exp(-((distance / 8) ** 4)) + 0.5 * (distance + 8) ** -1.5) * np.geomspace(
        9, 900, NX
    )


def fit(images):
    """Fit the stripes of images whose target is at the trace of `make_target`."""
    trace = DISTANCE < HALF_WIDTH
    variance = np.full((NY, NX), SIGMA**2 / len(images))
    scene = Scene(nanmean(images, axis=0), variance, trace, ~trace)
    columns = measure_columns(lambda number: images[number], len(images), scene)
    (stripes,) = find_stripes([columns], NY)
    return np.array([stripes.image(number) for number in range(len(images))])


def relative(stripes):
    """Return stripes relative to their mean over the integrations."""
    return stripes - stripes.mean(axis=0)


def as_images(level, slope):
    """Return the images of stripes."""
    return level[:, np.newaxis] + slope[:, np.newaxis] * ROWS


@pytest.mark.parametrize("rms", [0.03, 0.3])
def test_stripes_are_measured(rms):
    """The error is at most that of a mean of free pixels of a column; outliers are ignored."""
    rng = np.random.default_rng(2)
    stripes = as_images(*draw_stripes(rms))
    images = make_target() + stripes + SIGMA * rng.standard_normal(stripes.shape)
    images[3, 80:83, 100:103] = 1e4
    images[:, 90, 200:300] = np.nan
    error = fit(images) - relative(stripes)
    assert np.sqrt(np.mean(error**2)) < min(1.1 * SIGMA / np.sqrt(NY - 32), 0.9 * rms)
    assert np.abs(error[3, NY // 2, 95:108]).max() < 5 * SIGMA / np.sqrt(NY - 32)


def test_nothing_is_subtracted_without_stripes():
    """The noise of the measurement, 0.04 DN/s per column, is not added to the integrations."""
    images = make_target() + SIGMA * np.random.default_rng(3).standard_normal((NINTS, NY, NX))
    assert np.std(fit(images)) < 0.005


def test_a_transit_leaves_no_trace():
    """The stripes contain nothing of a transit, whose depth varies, and which changes the wings."""
    depth = 0.02 + 0.01 * np.sin(np.arange(NX) / 7)
    curve = 1 - np.clip(3 - np.abs(np.arange(NINTS) - 5.5), 0, 1)[:, np.newaxis] * depth
    target = make_target()
    images = curve[:, np.newaxis] * target
    wings = np.abs((images - images.mean(axis=0))[:, 60:80]).max()
    assert wings > 0.05
    assert np.abs(fit(images)).max() < 1e-3 * wings
    stripes = as_images(*draw_stripes(0.3))
    assert np.abs(fit(images + stripes) - relative(stripes)).max() < 0.005


def test_columns_without_free_pixels_are_interpolated():
    level = np.linspace(-1, 1, NINTS)[:, np.newaxis] * np.linspace(1, 2, NX)
    images = np.repeat(level[:, np.newaxis], NY, axis=1)
    images[:, :, 40:50] = np.nan
    np.testing.assert_allclose(
        fit(images), relative(np.repeat(level[:, np.newaxis], NY, 1)), atol=1e-3
    )
    images[:] = np.nan
    images[:, :2] = 1.0
    np.testing.assert_array_equal(fit(images), 0)


def test_sources():
    """A star is found on wings that are as bright; stripes and wings are not sources."""
    free = DISTANCE >= HALF_WIDTH
    rng = np.random.default_rng(4)
    image = make_target() + as_images(*draw_stripes(0.1))[0] + 0.05 * rng.standard_normal((NY, NX))
    error = np.full(image.shape, 0.05)
    settings = {"half_width": HALF_WIDTH, "free": free, "amplifiers": [slice(0, NY)]}
    assert np.mean(find_sources(image, error, [TRACE], **settings)[free]) < 0.05
    image[72:80, 200:260] += 1.0
    assert find_sources(image, error, [TRACE], **settings)[72:80, 200:260].all()
    image[60:, 100:140] += 5.0  # a column without its sources would have no pixel
    free[:60, 100:140] = False
    assert not find_sources(image, error, [TRACE], **settings)[:, 100:140].any()


# --- the step ----------------------------------------------------------------------------

SETTINGS = Simulation(
    seed=5,
    window=SUBSTRIP96,
    n_integrations=12,
    exposure_time=600.0,
    star_density=0,
    stripes=0.2,
    flat_pixel_rms=0,
    flat_large_rms=0,
)


def simulate(folder, settings=SETTINGS):
    """Simulate a time series; return its path, the series without sky, and the target's flux."""
    path = simulate_time_series(folder, settings, target_flux=220.0)
    with fits.open(folder / "time_series_truth.fits") as truth:
        sky, curve = truth["SKY"].data, truth["TRANSIT"].data["brightness"]
    with datamodels.open(path) as model:
        exposure = model.copy()
    exposure.data = exposure.data - sky
    exposure.meta.cal_step.bkg_subtract = "COMPLETE"
    return path, exposure, curve


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a time series with and without stripes."""
    folder = tmp_path_factory.mktemp("series")
    striped, plain = folder / "striped", folder / "plain"
    return *simulate(striped), simulate(plain, replace(SETTINGS, stripes=0.0))[1]


def scatter(exposure, curve):
    """Return the relative scatter of the red half of order 1."""
    extraction = OptimalExtractStep().extract(exposure).orders[1].extraction
    flux = np.nansum(extraction.flux[:, :1000], axis=1) / curve
    return np.std(flux) / np.mean(flux)


def test_light_curves(series):
    """The scatter of a light curve agrees with that without stripes within its uncertainty."""
    _, exposure, curve, plain = series
    before = exposure.data.copy()
    cleaned = FlickerNoiseStep.call(exposure)
    np.testing.assert_array_equal(exposure.data, before)
    least = scatter(plain, curve)
    assert scatter(exposure, curve) > 5 * least
    assert scatter(cleaned, curve) < 1.3 * least
    assert cleaned.meta.cal_step.clean_flicker_noise == "COMPLETE"
    # No noise is added; the mean of the integrations, reference pixels and errors are unchanged.
    difference = cleaned.data - before
    assert np.std(nanmean(difference, axis=0)) < 0.01
    assert np.nanstd(difference) == pytest.approx(0.2, rel=0.2)
    assert not difference[:, :, :4].any()
    np.testing.assert_array_equal(cleaned.err, exposure.err)


def test_segments_in_the_pipeline(series, tmp_path):
    """Segments are cleaned as one exposure."""
    path, exposure, curve, _ = series
    whole = tmp_path / path.name
    exposure.copy().save(whole)
    paths = cut_series(whole, tmp_path / "segments", (5, 7))
    steps = {"skyflat_subtract": {"skip": True}, "flat_field": {"skip": True}}
    curves = []
    for files in (whole, paths):
        spectra = SossStarePipeline.call(files, steps=steps)
        assert spectra.meta.cal_step.clean_flicker_noise == "COMPLETE"
        first = [spec.spec_table["FLUX"] for spec in spectra.spec if spec.spectral_order == 1]
        curves.append(np.nansum(np.concatenate(first), axis=1) / curve)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-6)


@pytest.fixture(scope="module")
def segments(series, tmp_path_factory):
    """Cut the time series into two segments; return them, and the cleaned data of each."""
    folder = tmp_path_factory.mktemp("segments")
    whole = folder / series[0].name.replace("rateints", "skyflatsubtract")
    series[1].copy().save(whole)
    cleaned = FlickerNoiseStep.call(str(whole)).data
    return cut_series(whole, folder / "cut", (5, 7)), (cleaned[:5], cleaned[5:])


def test_segments_alone(segments, tmp_path):
    """Segments are compared with the mean of all, and each is saved under its own name."""
    paths, expected = segments
    wildcard = str(paths[0].parent / "*.fits")
    FlickerNoiseStep.call(wildcard, save_results=True, output_dir=str(tmp_path))
    for path, data in zip(paths, expected, strict=True):
        saved = tmp_path / path.name.replace("skyflatsubtract", "flickernoise")
        with datamodels.open(saved) as model:
            np.testing.assert_allclose(model.data, data, atol=1e-4)
            assert model.meta.cal_step.clean_flicker_noise == "COMPLETE"


def test_segments_of_one_file_name(segments, tmp_path):
    """Segments that differ only in their folders are refused, as their products would."""
    paths, _ = segments
    copies = [tmp_path / str(number) / "rateints.fits" for number in range(len(paths))]
    for path, copy in zip(paths, copies, strict=True):
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
    with pytest.raises(SkyflatError, match="have the file name rateints.fits"):
        FlickerNoiseStep.call(copies)


def test_models_are_left_unchanged(segments):
    paths, expected = segments
    models = [datamodels.CubeModel(path) for path in paths]
    before = [model.data.copy() for model in models]
    cleaned = FlickerNoiseStep.call(models).visit(lambda model: model.data.copy(), "Reading")
    for model, old, data, part in zip(models, before, cleaned, expected, strict=True):
        np.testing.assert_allclose(data, part, atol=1e-4)
        np.testing.assert_array_equal(model.data, old)
        model.close()


def test_one_segment_of_several(series, caplog):
    """A warning lists the segments that are missing from the mean."""
    segment = series[1].copy()
    segment.meta.exposure.segment_number, segment.meta.exposure.segment_total = 1, 3
    FlickerNoiseStep.call(segment)
    assert "segments 2-3 of 3 missing (EXSEGNUM, EXSEGTOT)" in caplog.text


def test_product(series, tmp_path):
    """The step runs alone on a product of SkyflatSubtractStep, and its product is a time series."""
    name = series[0].name.replace("rateints", "skyflatsubtract")
    series[1].copy().save(tmp_path / name)
    FlickerNoiseStep.call(str(tmp_path / name), save_results=True)
    saved = tmp_path / name.replace("skyflatsubtract", "flickernoise")
    with datamodels.open(saved) as model:
        assert isinstance(model, datamodels.CubeModel)
        assert model.meta.cal_step.clean_flicker_noise == "COMPLETE"
        assert len(model.int_times) == SETTINGS.n_integrations
        np.testing.assert_array_equal(model.data, FlickerNoiseStep.call(series[1]).data)


def test_amplifiers(tmp_path):
    """Each amplifier of FULL has its own stripes, even without a trace."""
    window = Window("FULL", 1440, 600, 400, 512)
    settings = replace(SETTINGS, window=window, stripe_sharing=0.0, pedestals=0.1)
    _, exposure, _ = simulate(tmp_path / "striped", settings)
    _, plain, _ = simulate(tmp_path / "plain", replace(settings, stripes=0.0, pedestals=0.0))
    before = relative(exposure.data - plain.data)
    cleaned = FlickerNoiseStep.call(exposure)
    after = relative(cleaned.data - plain.data)
    for rows in window.amplifiers():
        assert np.nanstd(after[:, rows]) < 0.25 * np.nanstd(before[:, rows])


def test_single_integrations(series):
    """Without a comparison, the step fails alone and is skipped in a pipeline."""
    one = series[1].copy()
    image = datamodels.ImageModel(data=one.data[0], err=one.err[0], dq=one.dq[0])
    image.update(one)
    image.var_poisson, image.var_rnoise = one.var_poisson[0], one.var_rnoise[0]
    with pytest.raises(SkyflatError, match="noise not subtracted, one integration, which"):
        FlickerNoiseStep.call(image)
    steps = {"skyflat_subtract": {"skip": True}, "flat_field": {"skip": True}}
    spectra = SossStarePipeline.call(image, steps=steps)
    assert spectra.meta.cal_step.clean_flicker_noise == "SKIPPED"


def test_sky_in_the_image(series, caplog):
    """Without sky subtraction, the step fails alone; a pipeline warns and continues."""
    sky = series[1].copy()
    sky.data += 5
    sky.meta.cal_step.bkg_subtract = None
    fault = "1/f noise not subtracted, its sky is not subtracted"
    with pytest.raises(SkyflatError, match=fault):
        FlickerNoiseStep.call(sky)
    steps = {"skyflat_subtract": {"skip": True}, "flat_field": {"skip": True}}
    spectra = SossStarePipeline.call(sky, steps=steps)
    assert fault in caplog.text
    assert spectra.meta.cal_step.clean_flicker_noise == "SKIPPED"


def test_flat_fielded_exposures(series, caplog):
    """The noise is subtracted, with a warning."""
    fielded = series[1].copy()
    fielded.meta.cal_step.flat_field = "COMPLETE"
    cleaned = FlickerNoiseStep.call(fielded)
    assert "flat-fielded (S_FLAT is COMPLETE)" in caplog.text
    np.testing.assert_array_equal(cleaned.data, FlickerNoiseStep.call(series[1]).data)


def test_pipeline(series):
    """The pipeline subtracts the noise by default."""
    _, exposure, curve, _ = series
    steps = {"skyflat_subtract": {"skip": True}, "flat_field": {"skip": True}}
    cleaned = SossStarePipeline.call(exposure, steps=steps)
    assert cleaned.meta.cal_step.clean_flicker_noise == "COMPLETE"
    steps["clean_flicker_noise"] = {"skip": True}
    striped = SossStarePipeline.call(exposure, steps=steps)
    tables = (spectra.spec[0].spec_table["FLUX"] for spectra in (cleaned, striped))
    noises = [np.std(np.nansum(flux, axis=1) / curve) for flux in tables]
    assert noises[0] < 0.8 * noises[1]


def test_too_few_pixels(series, caplog):
    """With too few pixels, the step fails alone; a pipeline continues without it."""
    narrow = series[1].copy()
    narrow.dq[:, 12:] = 1
    with pytest.raises(SkyflatError, match="too few pixels between the orders"):
        FlickerNoiseStep.call(narrow, half_width=60)
    steps = {"skyflat_subtract": {"skip": True}, "flat_field": {"skip": True}}
    steps["clean_flicker_noise"] = {"half_width": 60}
    spectra = SossStarePipeline.call(series[1], steps=steps)
    assert spectra.meta.cal_step.clean_flicker_noise == "SKIPPED"
    assert "1/f noise not subtracted, too few pixels between the orders" in caplog.text
