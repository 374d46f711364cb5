"""From an exposure to spectra: traces, extraction and products compared with the truth."""

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple
from unittest import mock

import jwst
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from bottleneck import nanmean
from helpers import checksums, run_program, strun
from jwst.white_light.white_light import white_light
from matplotlib.figure import Figure
from spec2_references import add_header
from stdatamodels.jwst import datamodels

from soss_background import (
    InterOrderBackgroundStep,
    OptimalExtractStep,
    SossStarePipeline,
    SossTracesModel,
    TraceFitStep,
    __version__,
)
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import SUBSTRIP96, SUBSTRIP256
from soss_background.errors import SkyflatError
from soss_background.extract.guide import GUIDE
from soss_background.extract.inter_order import fit_light
from soss_background.extract.metrics import METRICS, measure_spectra, sum_light
from soss_background.extract.response import read_standard
from soss_background.extract.spectra import merge_orders
from soss_background.report.stare import report_spectra
from soss_background.report.stare_plots import draw_white_light
from soss_background.simulate import Simulation, simulate_time_series
from soss_background.simulate.scene import Stars, star_image
from soss_background.simulate.traces import get_trace
from soss_background.sky.traces import ORDERS
from soss_background.steps.metric_ranges import flag_metrics, read_ranges

PIPELINE = "soss_background.SossStarePipeline"
# Functions that a run calls once, or once per order.
ONCE = {
    "soss_background.extract.flicker_noise_step.find_stripes": 1,
    "soss_background.subtract.skyflat_subtract_step.average_segments": 1,
    "soss_background.extract.optimal_extract_step.merge_orders": 0,  # only for products
    "soss_background.extract.orders.cut_band": len(ORDERS),
}
SETTINGS = Simulation(
    window=SUBSTRIP256,
    n_integrations=8,
    exposure_time=800.0,
    star_density=0,
    stripes=0.0,
    cosmic_rays=1e-6,
)


class Series(NamedTuple):
    """A simulated time series: the raw exposure, the exposure without sky and flat, the truth."""

    path: Path
    folder: Path
    exposure: datamodels.CubeModel
    target: np.ndarray
    brightness: np.ndarray


def simulate(folder, settings=SETTINGS, target_flux=200.0):
    """Simulate a transit, and remove the true flat and sky."""
    path = simulate_time_series(folder, settings, target_flux=target_flux)
    with fits.open(folder / "time_series_truth.fits") as truth:
        sky, flat = truth["SKY"].data, truth["FLAT"].data
        target, brightness = truth["TARGET"].data, truth["TRANSIT"].data["brightness"]
    with datamodels.open(path) as model:
        exposure = model.copy()
    exposure.data, exposure.err = exposure.data / flat - sky, exposure.err / flat
    return Series(path, folder, exposure, target.astype(float), brightness)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a star of moderate brightness."""
    return simulate(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def traces(series):
    """Find its traces."""
    return TraceFitStep.call(series.exposure)


@pytest.fixture(scope="module")
def results(series, traces):
    """Extract its spectra."""
    return OptimalExtractStep().extract(series.exposure, traces)


@pytest.fixture(scope="module")
def extracted(results):
    """Return the product, and the results for each order."""
    return results.make_spectra()[0], results.orders


def extract(exposure, traces=None):
    """Extract an exposure; return the product, and what it is made of."""
    results = OptimalExtractStep().extract(exposure, traces)
    return results.make_spectra()[0], results


def light_in(band, image):
    """Sum an image over an aperture."""
    return np.sum(band.weight * band.take(image), axis=1)


# --- traces ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "columns", "limit"),
    [(1, (500, 2030), 0.03), (2, (900, 1700), 0.1), (3, (50, 800), 0.2)],
)
def test_traces(traces, order, columns, limit):
    truth = get_trace(str(order))
    row, wavelength = traces.rows(order, 2048)
    inside = np.arange(*columns)
    error = row[inside] - (np.interp(inside, truth.x, truth.y) - SUBSTRIP256.y0)
    assert np.abs(error).max() < limit
    np.testing.assert_allclose(
        wavelength[inside], np.interp(inside, truth.x, truth.wavelength), rtol=1e-3
    )


def test_traces_of_a_wheel_that_is_elsewhere(series, caplog):
    """The trace is found even for a wrong position in the header, which the residuals show."""
    wrong = series.exposure.copy()
    wrong.meta.instrument.pupil_position = None
    assert len(TraceFitStep.call(wrong, slice_length=3000).traces) > 4000
    assert "PWCPOS is missing, 245.76 degrees are used instead" in caplog.text
    wrong.meta.instrument.pupil_position = 246.0
    traces = TraceFitStep.call(wrong)
    mine = traces.traces[traces.traces["order"] == 1]
    truth = get_trace("1")
    error = mine["row"] - (np.interp(mine["column"], truth.x, truth.y) - SUBSTRIP256.y0)
    inside = (mine["column"] > 500) & (mine["column"] < 2030)
    assert np.abs(mine["expected"] - mine["row"])[inside].max() > 3
    assert np.abs(error)[inside].max() < 0.1
    slices = traces.slices[traces.slices["order"] == 1]
    used = slices["used"] == 1
    assert np.abs(slices["residual"][used]).max() < 0.1
    assert set(slices["detected"][used]) == {1}


def test_traces_are_saved_and_used(series, traces, extracted, tmp_path):
    traces.save(tmp_path / "t_sosstraces.fits")
    with datamodels.open(tmp_path / "t_sosstraces.fits") as read:
        assert isinstance(read, SossTracesModel)
        np.testing.assert_array_equal(read.traces["row"], traces.traces["row"])
    again = OptimalExtractStep.call(series.exposure, traces=str(tmp_path / "t_sosstraces.fits"))
    # `extract` alone does not limit the threads of BLAS, which changes the last digits.
    np.testing.assert_allclose(
        again.spec[0].spec_table["FLUX"], extracted[0].spec[0].spec_table["FLUX"], rtol=1e-12
    )


def test_a_trace_that_is_too_faint(tmp_path, caplog):
    series = simulate(tmp_path, replace(SETTINGS, n_integrations=2), target_flux=0.05)
    traces = TraceFitStep.call(series.exposure, n_mad=20.0)
    np.testing.assert_array_equal(traces.traces["row"], traces.traces["expected"])
    assert not traces.slices["used"].any()
    assert "order 1: 0 of 100 slices show it alone, too few" in caplog.text
    spectra = OptimalExtractStep.call(series.exposure, traces=None)
    assert np.isfinite(spectra.spec[0].spec_table["FLUX"]).mean() > 0.9


# --- extraction --------------------------------------------------------------------------


def test_photon_noise(series, extracted):
    """Where the star is bright, the noise exceeds photon noise by at most 10 %."""
    each = extracted[1][1].extraction
    time = SETTINGS.exposure_time / SETTINGS.n_integrations
    inside = (each.band.columns > 1200) & (each.band.columns < 2000)
    truth = light_in(each.band, series.target)[inside]
    photons = np.sqrt(1.6 * truth * time)
    out = series.brightness > 0.999
    snr = np.nanmedian((each.flux / each.error)[out][:, inside], axis=0)
    assert np.median(snr / photons) > 0.9


def test_a_faint_star_gains_most(tmp_path):
    series = simulate(tmp_path, target_flux=10.0)
    each = OptimalExtractStep().extract(series.exposure).orders[1].extraction
    assert np.nanmedian(each.box_error / each.error) > 1.1
    truth = light_in(each.band, series.target)
    ratio = nanmean(each.flux / series.brightness[:, np.newaxis], axis=0) / truth
    inside = (each.band.columns > 600) & (each.band.columns < 2000)
    assert abs(np.nanmedian(ratio[inside]) - 1) < 0.005


def test_cosmic_rays_and_bad_pixels(series, traces, extracted):
    """Hit or lost pixels change the spectra by less than their errors."""
    hurt = series.exposure.copy()
    rows, _ = traces.rows(1, 2048)
    columns = np.arange(600, 2000, 50)
    middle = np.round(rows[columns]).astype(int)
    hurt.data[2, middle + 4, columns] += 500.0
    hurt.data[4, middle - 6, columns] = np.nan
    hurt.data[:, :, 1234] = np.nan
    product, results = extract(hurt, traces)
    before, after = extracted[1][1].extraction, results.orders[1].extraction
    places = np.searchsorted(before.band.columns, columns)
    for index in (2, 4):
        for name in ("flux", "box_flux"):
            change = (getattr(after, name) - getattr(before, name))[index, places]
            assert np.abs(change / before.error[index, places]).max() < 3
    lost = np.searchsorted(before.band.columns, 1234)
    assert np.isnan(after.flux[:, lost]).all()
    table = product.spec[0].spec_table
    place = np.argmin(np.abs(table["WAVELENGTH"][0] - results.orders[1].wavelength[lost]))
    assert (table["DQ"][:, place] & 1).all()
    assert not (extracted[0].spec[0].spec_table["DQ"][:, place] & 1).any()


def simulate_order(order, window):
    """Simulate an order of the star alone."""
    star = Stars(*np.array([[0.0], [0.0], [200.0], [6000.0]]))
    return star_image(window, star, orders=[str(order)]).astype(float)


@pytest.fixture(scope="module")
def parts():
    """Simulate each order of the star alone."""
    return {order: simulate_order(order, SUBSTRIP256) for order in ORDERS}


def test_aperture_correction(extracted, parts):
    """The flux of order 1 that falls beyond the aperture, to 400 pixels from the trace."""
    each = extracted[1][1]
    band = each.extraction.band
    inside = (band.columns > 400) & (band.columns < 1800)
    tall = simulate_order(1, replace(SUBSTRIP256, name="FULL", y0=1400, ny=848))
    total = np.sum(tall[:, band.columns[inside]], axis=0)
    truth = total / light_in(band, parts[1])[inside] - 1
    assert truth.min() > 0.05
    assert np.abs(each.beyond[inside] - truth).max() < 0.004
    assert abs(np.median(each.beyond[inside] - truth)) < 0.002


@pytest.mark.parametrize(
    ("order", "columns", "limit"), [(1, (500, 2030), 0.004), (2, (900, 1700), 0.008)]
)
def test_fluxes_are_true(series, extracted, parts, order, columns, limit):
    """Both methods return the flux of the order alone; its scatter agrees with the errors."""
    each = extracted[1][order].extraction
    truth = light_in(each.band, parts[order])
    inside = (each.band.columns >= columns[0]) & (each.band.columns < columns[1])
    for flux, error in ((each.flux, each.error), (each.box_flux, each.box_error)):
        ratio = flux / (series.brightness[:, np.newaxis] * truth)
        pull = (ratio - 1) * flux / error
        assert abs(np.nanmedian(ratio[:, inside]) - 1) < 0.001
        assert np.nanpercentile(np.abs(nanmean(ratio, axis=0)[inside] - 1), 95) < limit
        assert 0.9 < 1.4826 * np.nanmedian(np.abs(pull[:, inside])) < 1.1
    assert (each.error[:, inside] <= 1.001 * each.box_error[:, inside]).mean() > 0.99


@pytest.mark.parametrize("order", ORDERS)
def test_contamination(order, extracted, series, parts):
    """The flux of other orders agrees with the truth, and contaminated columns are flagged."""
    each = extracted[1][order]
    band, found = each.extraction.band, each.contamination
    true = 1 - light_in(band, parts[order]) / light_in(band, series.target)
    known = np.isfinite(found)
    assert known.mean() > 0.95
    strong = known & (true > 0.03)
    assert np.sum(((found > 0.8 * true) & (found < 1.15 * true))[strong]) >= 0.9 * np.sum(strong)
    assert np.abs(found - true)[known & ~strong].max() < 0.01
    rank = np.argsort(np.argsort(each.wavelength))
    column = extracted[0].spec[order - 1].spec_table["DQ"][0][rank]
    flagged = column & datamodels.dqflags.pixel["OTHER_BAD_PIXEL"] > 0
    assert flagged[true > 0.025].all()
    assert not flagged[known & (true < 0.007)].any()


@pytest.mark.parametrize(
    ("order", "columns", "before", "after"),
    [(1, (600, 1300), 0.003, 0.001), (2, (600, 900), 0.06, 0.005), (3, (100, 850), 0.015, 0.008)],
)
def test_other_orders_are_subtracted(
    order, columns, before, after, series, traces, extracted, parts
):
    """Bias of the flux, median over columns, without and with the subtraction."""
    plain = OptimalExtractStep(subtract_orders=False).extract(series.exposure, traces).orders
    for each, low, high in ((plain[order], before, 1), (extracted[1][order], -after, after)):
        spectrum = each.extraction
        band = spectrum.band
        inside = (band.columns >= columns[0]) & (band.columns < columns[1])
        truth = (series.brightness[:, np.newaxis] * light_in(band, parts[order]))[:, inside]
        for flux in (spectrum.flux, spectrum.box_flux):
            bias = np.nanmedian(np.nanmean(flux[:, inside] / truth, axis=0)) - 1
            assert low < bias < high
        share = 1 - light_in(band, parts[order]) / light_in(band, series.target)
        found = each.contamination[inside]
        assert abs(np.nanmedian(found / share[inside]) - 1) < 0.1


def test_cosmic_rays_stay_if_asked(series, traces):
    hurt = series.exposure.copy()
    rows, _ = traces.rows(1, 2048)
    columns = np.arange(600, 2000, 50)
    middle = np.round(rows[columns]).astype(int)
    hurt.data[2, middle + 4, columns] += 500.0
    for reject in (True, False):
        step = OptimalExtractStep(reject_cosmic_rays=reject)
        each = step.extract(hurt, traces).orders[1].extraction
        places = np.searchsorted(each.band.columns, columns)
        excess = np.median(each.box_flux[2, places] - each.box_flux[1, places])
        assert (excess > 400) != reject


def test_contamination_that_is_not_known(series, traces):
    """Where one order is lost, its contribution to the others is unknown."""
    lost = series.exposure.copy()
    rows, _ = traces.rows(1, 2048)
    columns = np.arange(700, 1000, 10)
    for column in columns:
        near = np.abs(np.arange(256) - rows[column]) < 17
        lost.dq[:, near, column] |= 1
    second = OptimalExtractStep().extract(lost, traces).orders[2]
    places = np.searchsorted(second.extraction.band.columns, columns)
    assert np.isfinite(second.extraction.flux[:, places]).all()
    assert np.isnan(second.contamination[places]).all()
    assert np.isfinite(second.contamination[places + 5]).all()


@pytest.mark.parametrize("half_width", [20.0, 40.0])
def test_the_red_end(half_width, series, traces, parts):
    """The profile is correct even where order 2 hides part of it."""
    step = OptimalExtractStep(half_width=half_width)
    each = step.extract(series.exposure, traces).orders[1].extraction
    ratio = nanmean(each.flux / series.brightness[:, np.newaxis], axis=0)
    ratio /= light_in(each.band, parts[1])
    for low, high in ((4, 100), (100, 300), (300, 500)):
        inside = (each.band.columns >= low) & (each.band.columns < high)
        assert abs(np.median(ratio[inside]) - 1) < 0.001 * half_width - 0.01, low


def test_errors_of_single_integrations(series, traces, extracted):
    """Noisier integrations have larger errors; the error of the flat is not part of them."""
    uneven = series.exposure.copy()
    uneven.err[3] *= 3
    columns = np.arange(800, 1800, 20)
    rows, _ = traces.rows(1, 2048)
    middle = np.round(rows[columns]).astype(int)
    uneven.err[5, middle, columns] *= 4
    uneven.var_flat = (0.01 * uneven.data) ** 2
    uneven.err = np.hypot(uneven.err, np.sqrt(uneven.var_flat))
    orders = OptimalExtractStep().extract(uneven, traces).orders
    before, after = extracted[1][1].extraction, orders[1].extraction
    ratio = after.error / before.error
    assert abs(np.nanmedian(ratio[3]) - 3) < 0.1
    assert np.nanmedian(np.abs(ratio[[0, 1, 2, 4, 6, 7]] - 1)) < 0.01
    places = np.searchsorted(before.band.columns, columns)
    assert np.median(ratio[5, places]) > 1.01
    assert np.median(ratio[5, places + 5]) < 1.005


def test_a_pixel_that_is_always_hot(series, traces, extracted):
    hot = series.exposure.copy()
    rows, _ = traces.rows(1, 2048)
    columns = np.arange(800, 1800, 100)
    middle = np.round(rows[columns]).astype(int)
    hot.data[:, middle + 3, columns] += 300.0
    orders = OptimalExtractStep().extract(hot, traces).orders
    before, after = extracted[1][1].extraction, orders[1].extraction
    places = np.searchsorted(before.band.columns, columns)
    change = (after.flux - before.flux)[:, places] / before.error[:, places]
    assert np.abs(np.median(change, axis=0)).max() < 3


def test_a_bright_star(tmp_path):
    """Overlapping orders are not lost, nor mistaken for cosmic rays."""
    series = simulate(tmp_path, replace(SETTINGS, n_integrations=6), target_flux=1000.0)
    moved = series.exposure
    # The trace of one integration moves by a twentieth of a pixel.
    moved.data[3] += 0.05 * np.gradient(moved.data[3], axis=0)
    spectra, results = extract(moved)
    for order, spec in zip(results.orders.values(), spectra.spec, strict=True):
        assert np.isfinite(order.extraction.flux).mean() > 0.97
        share = order.contamination[np.isfinite(order.contamination)]
        assert share.min() >= 0
        assert share.max() <= 1
        # Order 3 has wings of order 1 everywhere.
        assert (spec.spec_table["DQ"][0] > 0).mean() < 0.9 or spec.spectral_order == 3
    first = results.orders[1]
    assert np.nanmax(first.contamination) < 0.3
    hit = first.extraction.number / np.sum(first.extraction.band.weight, axis=1)
    assert np.median(hit[3]) > 0.99


@pytest.mark.parametrize("window", [SUBSTRIP96, SUBSTRIP256], ids=lambda window: window.name)
def test_one_image(window, tmp_path):
    """An image works like a cube; orders that leave the window are extracted within it."""
    settings = replace(SETTINGS, window=window, n_integrations=1)
    series = simulate(tmp_path, settings)
    image = datamodels.ImageModel(
        data=series.exposure.data[0], err=series.exposure.err[0], dq=series.exposure.dq[0]
    )
    image.update(series.exposure)
    spectra, results = extract(image)
    first = results.orders[1].extraction
    truth = light_in(first.band, series.target)
    inside = (first.band.columns > 300) & (first.band.columns < 2000)
    assert first.flux.shape[0] == 1
    ratio = first.flux[0, inside] / (series.brightness[0] * truth[inside])
    assert abs(np.nanmedian(ratio) - 1) < 0.003
    assert np.isfinite(ratio).mean() > 0.95
    assert len(spectra.spec[0].spec_table) == 1
    # Flux beyond the border of the window is lost.
    second = results.orders[2].extraction
    cut = np.sum(second.band.weight, axis=1) < 0.7 * np.sum(second.band.aperture, axis=1)
    assert cut.any()
    assert np.median(second.seen[0, cut]) < 0.9


def test_an_order_without_light(series, traces):
    """If an order is over-subtracted or masked, the other orders are still extracted."""
    faint = series.exposure.copy()
    faint.data -= 30.0
    product, results = extract(faint, traces)
    assert len(product.spec) == 3
    draw_white_light(Figure().subplots(), results.orders)
    unknown = {order: each.scaled(np.full(each.extraction.flux.shape[1], np.nan))
               for order, each in results.orders.items()}  # fmt: skip
    ax = Figure().subplots()
    draw_white_light(ax, unknown)
    assert not ax.lines
    rows, _ = traces.rows(3, 2048)
    masked = series.exposure.copy()
    near = np.abs(np.arange(256)[:, np.newaxis] - rows) < 30
    masked.dq[:, near] |= 1
    spectra = OptimalExtractStep.call(masked, traces)
    assert [spec.spectral_order for spec in spectra.spec] == [1, 2]
    # The extent of the wings is unknown, so all columns are flagged.
    dark = series.exposure.copy()
    dark.data -= 300.0
    for spec in OptimalExtractStep.call(dark, traces).spec:
        assert (spec.spec_table["DQ"] & datamodels.dqflags.pixel["OTHER_BAD_PIXEL"] > 0).all()


# --- products ----------------------------------------------------------------------------


def test_a_gap_of_one_order_is_filled_by_the_other(extracted):
    orders = dict(extracted[1])
    gap = (orders[1].wavelength > 0.95) & (orders[1].wavelength < 1.05)
    flux = np.where(gap, np.nan, orders[1].extraction.flux)
    orders[1] = orders[1]._replace(extraction=orders[1].extraction._replace(flux=flux))
    table = merge_orders(orders, 0.01, "DN/s")
    wave = orders[2].wavelength[np.isfinite(orders[2].extraction.flux).any(axis=0)]
    seen = (wave > 0.96) & (wave < 1.04)
    assert seen.sum() > 100
    assert np.isin(wave[seen], table["wavelength"][table["order"] == 2]).all()


def test_jwst_reads_the_spectra(extracted, series, tmp_path):
    extracted[0].save(tmp_path / "a_x1dints.fits")
    with datamodels.open(tmp_path / "a_x1dints.fits") as model:
        assert isinstance(model, datamodels.TSOMultiSpecModel)
        assert [spec.spectral_order for spec in model.spec] == [1, 2, 3]
        table = model.spec[0].spec_table
        assert table["FLUX"].shape == (8, 2040)
        assert (np.diff(table["WAVELENGTH"], axis=1) > 0).all()
        assert table.columns["FLUX"].unit == "DN/s"
        np.testing.assert_allclose(
            table["MJD-AVG"], series.exposure.int_times["int_mid_MJD_UTC"], rtol=1e-12
        )
        light = white_light(model)
    curve = np.array(light["whitelight_flux_order_1"])
    depth = 1 - curve[2:6].mean() / curve[[0, 7]].mean()
    truth = 1 - series.brightness[2:6].mean() / series.brightness[[0, 7]].mean()
    assert abs(depth - truth) < 3e-4


# --- between the orders ------------------------------------------------------------------


def test_light_between_the_orders(series):
    """A smooth light is found below the traces, too."""
    y, x = np.indices(SUBSTRIP256.shape)
    light = 2 + np.sin(x / 500) + y / 200
    bright = series.exposure.copy()
    for each_integration in (False, True):
        bright.data = series.exposure.data + light.astype("f4")
        settings = {"each_integration": each_integration, "degree": 4}
        plain = InterOrderBackgroundStep.call(series.exposure, **settings)
        result = InterOrderBackgroundStep.call(bright, **settings)
        left = np.nanmean(result.data - plain.data, axis=0)[:250, 10:-10]
        assert np.abs(left).max() < 0.3
        assert np.sqrt(np.nanmean(left**2)) < 0.08
    np.testing.assert_array_equal(bright.data, series.exposure.data + light.astype("f4"))


def test_smoothing_and_stars():
    rng = np.random.default_rng(1)
    image = 1 + 0.1 * rng.standard_normal((96, 512))
    image[40:56, 100:160] += 3
    free = np.ones(image.shape, dtype=bool)
    light = fit_light(image, free, degree=2, smoothing=3.0)
    assert np.abs(light - 1).max() < 0.05
    with pytest.raises(ValueError, match="too few pixels between the orders"):
        fit_light(image, free & (np.arange(512) < 64), degree=3, smoothing=0)


# --- the pipeline ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skyflat(tmp_path_factory, series):
    """Write a skyflat of the sky of the exposure."""
    sky = fits.getdata(series.folder / "time_series_truth.fits", "SKY")
    model = SkyflatModel(bkg=sky, bkgdn=sky.copy(), err=0.01 * sky, dq=np.zeros(sky.shape, "u4"))
    model.meta.skyflat.flat_correction = "COMPLETE"
    path = tmp_path_factory.mktemp("skyflat") / "nis_clear_gr700xd_skyflat.fits"
    model.save(path)
    return path


def test_pipeline(series, skyflat, extracted, tmp_path):
    """Run the pipeline as users do: all products, the metrics, the command to repeat it."""
    before = checksums([series.path])
    done = run_program(
        "strun",
        PIPELINE,
        series.path,
        f"--steps.skyflat_subtract.skyflat={skyflat}",
        f"--steps.flat_field.override_flat={series.folder / 'time_series_flat.fits'}",
        "--steps.optimal_extract.save_box=true",
        "--steps.optimal_extract.save_merged=true",
        "--steps.trace_fit.save_results=true",
        "--steps.skyflat_subtract.save_residual=true",
        "--log-file=run.log",
        home=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert checksums([series.path]) == before
    root = series.path.name.removesuffix("_rateints.fits")
    endings = ("x1dints.fits", "x1dboxints.fits", "spectrum.fits", "spectrum.ecsv")
    endings += ("sosstraces.fits", "skyflatresidual.fits", "stare.html", "stareqc.ecsv")
    assert {path.name for path in tmp_path.glob("jw*")} == {f"{root}_{end}" for end in endings}
    with datamodels.open(tmp_path / f"{root}_x1dints.fits") as model:
        flux = model.spec[0].spec_table["FLUX"][0]
    header = fits.getheader(tmp_path / f"{root}_x1dints.fits")
    command = "strun soss_background.SossStarePipeline"
    assert str(header["HISTORY"]).count(command) == 1
    assert header["SKYLEFT"] > 0
    assert command in str(fits.getheader(tmp_path / f"{root}_spectrum.fits", 1)["HISTORY"])
    truth = extracted[0].spec[0].spec_table["FLUX"][0]
    assert abs(np.nanmedian(flux / truth) - 1) < 0.003
    qc = Table.read(tmp_path / f"{root}_stareqc.ecsv")
    values = dict(zip(qc["name"], qc["value"], strict=True))
    assert values["orders"] == 3
    assert values["slices"] == 300
    assert values["snr_order_1"] > values["snr_order_2"] > values["snr_order_3"] > 1
    assert "fail" not in qc["flag"]
    merged = Table.read(tmp_path / f"{root}_spectrum.ecsv")
    assert set(merged["order"]) == {1, 2}
    assert (np.diff(merged["wavelength"]) > 0).all()
    assert merged.meta["EXPOSURE"] == series.path.name
    assert merged.meta["HISTORY"][0].startswith(command)
    assert merged["wavelength"].min() < 0.6 < 2.8 < merged["wavelength"].max()
    residual = fits.getdata(tmp_path / f"{root}_skyflatresidual.fits")
    assert abs(np.nanmedian(residual[200:245, 50:300])) < 0.3
    page = (tmp_path / f"{root}_stare.html").read_text()
    for text in ("snr_order_1", "white_light", "To repeat it", str(skyflat)):
        assert text in page
    # The log ends with the table, the name of the log file, the command and the last product.
    ends = ("snr_order_1", f"kept in {tmp_path / 'run.log'}", "To repeat this run:", "x1dints.fits")
    places = [done.stderr.rindex(text) for text in ends]
    assert places == sorted(places)
    assert done.stderr.count("Saved") >= 8


def test_report(series, skyflat, tmp_path):
    """Run the pipeline; its report states the facts and shows the sky and what it leaves."""
    steps = {
        "skyflat_subtract": {"skyflat": [str(skyflat)]},
        "flat_field": {"override_flat": str(series.folder / "time_series_flat.fits")},
        "inter_order_background": {"skip": False, "save_light": True},
    }
    place = "soss_background.pipeline.stare.report_spectra"
    with mock.patch(place, wraps=report_spectra) as spy:
        SossStarePipeline.call(
            str(series.path), steps=steps, output_dir=str(tmp_path), save_results=True
        )
    exposure, frames, *_ = spy.call_args.args
    report = report_spectra(*spy.call_args.args)
    text = next(tmp_path.glob("*_stare.html")).read_text()
    meta = exposure.meta
    facts = {
        "Target": meta.target.catalog_name,
        "Date": meta.observation.date,
        "Subarray": "SUBSTRIP256",
        "Pupil wheel": "245.760\N{DEGREE SIGN}",
    }
    assert facts.items() <= report.facts.items()
    versions = {"soss_background": __version__, "jwst": jwst.__version__}
    assert versions.items() <= report.versions.items()
    for label, value in (facts | versions).items():
        assert f"<dt>{label}</dt><dd>{value}</dd>" in text
    first, sky, light, last = report.sections[0].figures[:4]
    reference = SUBSTRIP256.reference_pixels()
    for figure in (first, sky, light, last):
        image = figure.draw.keywords["image"]
        assert np.isnan(image[reference]).all()
        assert np.isfinite(image[~reference]).mean() > 0.95
    truth = fits.getdata(series.folder / "time_series_truth.fits", "SKY")[~reference]
    # The scale of the sky does not reach down to the reference pixels, which are 0.
    limits = np.percentile(truth, [0.5, 99.5])
    np.testing.assert_allclose(sky.draw.keywords["limits"], limits, rtol=0.05)
    limit = 0.03 * np.median(truth)
    np.testing.assert_allclose(last.draw.keywords["limits"], (-limit, limit), rtol=0.03)
    assert len(last.draw.keywords["rows"]) == 3
    assert last.caption == "The exposure without its sky, and the traces; colours at 3 % of the sky"
    assert light.caption == "Smooth light between the orders"
    (path,) = tmp_path.glob("*_interorderlight.fits")
    saved = fits.getdata(path)
    np.testing.assert_array_equal(saved[~reference], frames[light.caption][~reference])
    assert (saved[reference] == 0).all()


def test_metrics_have_advice(series, traces, results):
    """Each metric belongs to a group of the report, and its name links to its meaning."""
    assert {name for group in GUIDE.values() for name in group} == set(METRICS)
    dtype = SkyflatModel().get_dtype("qc")
    values = measure_spectra({order: each.extraction for order, each in results.orders.items()})
    qc = flag_metrics(values, METRICS, read_ranges(None, METRICS), dtype)
    frames = {"The exposure": series.exposure.data[0]}
    report = report_spectra(series.exposure, frames, traces, results, qc, {})
    assert "Spectra" in report.groups
    assert "Other" not in report.groups
    for text in (text for _, text in report.advice["Spectra"].values()):
        assert text in GUIDE["Spectra"].values()


def test_scatter_of_light_curves(series, traces, results):
    """A sentence states the scatter of a light curve that exceeds its errors, and only then."""
    rng = np.random.default_rng(1)
    each = results.orders[1].extraction
    number = 40
    calm = each.flux[0] + each.error[0] * rng.standard_normal((number, each.flux.shape[1]))
    error = np.tile(each.error[0], (number, 1))
    frames, texts = {"The exposure": series.exposure.data[0]}, []
    for jitter in (0.0, 0.002):
        flux = calm * (1 + jitter * rng.standard_normal((number, 1)))
        orders = {1: results.orders[1]._replace(extraction=each._replace(flux=flux, error=error))}
        noisy = replace(results, orders=orders)
        report = report_spectra(series.exposure, frames, traces, noisy, [], {})
        texts.append(report.sections[0].text)
    assert texts[0] == ""
    found = re.fullmatch(
        r"The light curve of order 1 scatters by (\S+) %, (\S+) times its errors: .*", texts[1]
    )
    scatter, ratio = map(float, found.groups())
    assert 0.15 < scatter < 0.27
    light, error = sum_light(orders[1].extraction)
    assert ratio == pytest.approx(scatter / (100 * np.median(error)), rel=0.05)


def test_pipeline_in_a_notebook(series, skyflat, tmp_path):
    """A model is unchanged, failed metrics end the run if requested, and nothing runs twice."""
    ranges = tmp_path / "ranges.yaml"
    ranges.write_text("snr_order_1: [1e6, .inf]")
    with datamodels.open(series.path) as model:
        before = model.data.copy()
        steps = {
            "skyflat_subtract": {"skyflat": [str(skyflat)]},
            "flat_field": {"override_flat": str(series.folder / "time_series_flat.fits")},
            "inter_order_background": {"skip": False},
        }
        spectra = SossStarePipeline.call(model, steps=steps)
        np.testing.assert_array_equal(model.data, before)
        assert len(spectra.spec) == 3
        del steps["inter_order_background"]
        with ExitStack() as stack:
            spies = [
                stack.enter_context(mock.patch(place, wraps=resolve_name(place))) for place in ONCE
            ]
            with pytest.raises(SkyflatError, match="snr_order_1 is .*, not 1e\\+06 to inf"):
                SossStarePipeline.call(model, steps=steps, ranges=str(ranges), fail_on_qc=True)
    assert [spy.call_count for spy in spies] == list(ONCE.values())
    assert list(tmp_path.iterdir()) == [ranges]


# --- flux calibration --------------------------------------------------------------------


def black_body(wavelength):
    """Return the wavelength (micron) and flux (erg/s/cm^2/Angstrom) of the simulated star."""
    return 1e-13 * wavelength**-5 / np.expm1(14387.77 / (wavelength * 6000.0))


def test_response_of_a_standard(series, traces, tmp_path):
    """The simulated star is a black body: its response is the throughput of the simulator."""
    wavelength = np.linspace(0.4, 3.5, 3000)
    columns = {
        "WAVELENGTH": ("ANGSTROMS", 1e4 * wavelength),
        "FLUX": ("FLAM", black_body(wavelength)),
    }
    columns = [fits.Column(k, "D", unit=unit, array=array) for k, (unit, array) in columns.items()]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "star.fits")
    step = OptimalExtractStep(standard=str(tmp_path / "star.fits"))
    step.output_dir = str(tmp_path)
    response = step.extract(series.exposure, traces).response
    step.run(series.exposure, traces)
    for order, (low, high) in {1: (0.95, 2.6), 2: (0.62, 0.8)}.items():
        mine = response[response["order"] == order]
        mine = mine[(mine["wavelength"] > low) & (mine["wavelength"] < high)]
        truth = get_trace(str(order))
        rising = np.argsort(truth.wavelength)
        blaze = np.interp(mine["wavelength"], truth.wavelength[rising], truth.throughput[rising])
        for name, power in (("fit", 1), ("efficiency", 0)):
            ratio = mine[name] / (blaze * mine["wavelength"] ** power)
            if name == "efficiency":
                ratio = ratio * np.abs(np.gradient(mine["wavelength"]))
            assert np.std(ratio) / np.mean(ratio) < 0.03
    saved = Table.read(next(tmp_path.glob("*_response.ecsv")))
    assert saved["wavelength"].unit == u.micron
    assert str(saved["response"].unit) == str(saved["fit"].unit) == "m2 DN um / (W s)"
    np.testing.assert_allclose(saved["fit"], response["fit"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"WAVELENGTH": [1.0]}, "column FLUX is missing"),
        ({"WAVELENGTH": [1.0, 2.0] * u.s, "FLUX": [1.0, 1.0]}, "WAVELENGTH in 's'"),
        ({"WAVELENGTH": [1.0, 2.0], "FLUX": [1.0, 1.0] * u.m}, "FLUX in 'm' are not a spectrum"),
    ],
)
def test_standards_that_are_none(series, columns, message, tmp_path):
    Table(columns).write(tmp_path / "star.ecsv")
    with pytest.raises(SkyflatError, match=f"star.ecsv: .*{message}"):
        OptimalExtractStep.call(series.exposure, standard=str(tmp_path / "star.ecsv"))
    with pytest.raises(SkyflatError, match="none.fits: no such file"):
        OptimalExtractStep.call(series.exposure, standard="none.fits")


def test_a_standard_in_jansky(tmp_path):
    """Fluxes per frequency and per wavelength are the same spectrum."""
    wavelength = np.linspace(0.6, 2.8, 50) * u.micron
    flux = 1e-13 * wavelength.value**-3 * u.W / u.m**2 / u.micron
    spectra = []
    for number, unit in enumerate((flux.unit, u.Jy)):
        values = flux.to(unit, u.spectral_density(wavelength))
        Table({"WAVELENGTH": wavelength, "FLUX": values}).write(tmp_path / f"{number}.ecsv")
        spectra.append(read_standard(tmp_path / f"{number}.ecsv"))
    np.testing.assert_allclose(spectra[0]["flux"], flux.value)
    np.testing.assert_allclose(spectra[1]["flux"], flux.value)


def test_photom(series, tmp_path):
    """jwst's own step calibrates the spectra with a given reference file."""
    model = datamodels.NisSossPhotomModel()
    add_header(model, "PHOTOM")
    table = np.zeros(3, dtype=_photom_dtype())
    table["filter"], table["pupil"], table["order"] = "CLEAR", "GR700XD", [1, 2, 3]
    table["photmj"], table["nelem"] = [2.0, 3.0, 4.0], 2
    table["wavelength"], table["relresponse"] = [0.1, 10.0], 1.0
    model.phot_table = table
    model.save(tmp_path / "photom.fits")
    steps = {
        "skyflat_subtract": {"skip": True},
        "clean_flicker_noise": {"skip": True},
        "photom": {"override_photom": str(tmp_path / "photom.fits")},
    }
    spectra = SossStarePipeline.call(series.exposure, steps=steps)
    plain = OptimalExtractStep.call(series.exposure)
    assert spectra.meta.cal_step.photom == "COMPLETE"
    for spec, before, factor in zip(spectra.spec, plain.spec, (2, 3, 4), strict=True):
        assert spec.spec_table.columns["FLUX"].unit == "Jy"
        np.testing.assert_allclose(
            spec.spec_table["FLUX"], factor * before.spec_table["FLUX"], rtol=1e-4
        )


def test_a_reference_file_that_is_not_applied(series, monkeypatch):
    """The run fails, whereas jwst would skip the step."""
    pipeline = SossStarePipeline()
    pipeline.photom.override_photom = "photom.fits"
    monkeypatch.setattr(pipeline.photom, "run", lambda model: model)
    with pytest.raises(SkyflatError, match="photom.fits was not applied, does it fit"):
        pipeline._calibrate("photom", series.exposure)
    for parameters, message in (
        ({"optimal_extract": {"standard": "no.txt"}}, "no.txt: no such file"),
        ({"optimal_extract": {"traces": str(series.path)}}, "holds no traces"),
        ({"photom": {"override_photom": "no.fits"}}, "no.fits: no such file"),
    ):
        with pytest.raises(SkyflatError, match=message):
            SossStarePipeline.call("not_opened.fits", steps=parameters)


def _photom_dtype():
    plain = [("filter", "S12"), ("pupil", "S15"), ("order", "<i2"), ("photmj", "<f4")]
    plain += [("uncertainty", "<f4"), ("nelem", "<i2")]
    vectors = ("wavelength", "relresponse", "reluncertainty")
    return plain + [(name, "<f4", (2,)) for name in vectors]


def test_what_may_be_left_out(series, traces, tmp_path):
    """Sky subtraction may be skipped and traces be given, but orders must be extracted."""
    mine = traces.copy()
    mine.traces["wavelength"] += 0.001
    mine.save(tmp_path / "mine.fits")
    flat = f"--steps.flat_field.override_flat={series.folder / 'time_series_flat.fits'}"
    sky = "--steps.skyflat_subtract.skip=true"
    given = "--steps.optimal_extract.traces=mine.fits"
    strun(PIPELINE, series.path, flat, sky, given, "--output_file=other")
    assert {path.name for path in tmp_path.glob("other_*")} == {
        f"other_{end}" for end in ("x1dints.fits", "stare.html", "stareqc.ecsv")
    }
    expected = mine.traces["wavelength"][mine.traces["order"] == 1]
    with datamodels.open(tmp_path / "other_x1dints.fits") as model:
        found = model.spec[0].spec_table["WAVELENGTH"][0]
    np.testing.assert_array_equal(found, np.sort(expected))
    qc = Table.read(next(tmp_path.glob("*_stareqc.ecsv")))
    assert list(qc["name"][qc["flag"] == "fail"]) == ["sky_subtracted"]
    assert np.isnan(qc["value"][qc["name"] == "sky_misfit"])
    page = next(tmp_path.glob("*_stare.html"))
    assert "The exposure, and the traces" in page.read_text()
    for name in ("trace_fit", "optimal_extract"):
        with pytest.raises(SkyflatError, match="trace_fit and optimal_extract cannot be skipped"):
            strun(PIPELINE, series.path, flat, sky, f"--steps.{name}.skip=true")
    for limits in ("[2, 1]", "[.nan, 1]"):
        (tmp_path / "ranges.yaml").write_text(f"snr: {limits}")
        with pytest.raises(SkyflatError, match=r"ranges.yaml: snr: .* ends before it begins"):
            strun(PIPELINE, "nothing.fits", "--ranges=ranges.yaml")
    page.unlink()
    with pytest.raises(SkyflatError, match="sky_subtracted is 0, not 1 to 1"):
        strun(PIPELINE, series.path, flat, sky, "--fail_on_qc=true")
    assert len(list(tmp_path.glob("*_stare.html"))) == 1


# --- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", [TraceFitStep, OptimalExtractStep, InterOrderBackgroundStep])
def test_what_cannot_be_used(step, series, tmp_path):
    masked = series.exposure.copy()
    masked.dq = masked.dq | 1
    with pytest.raises(SkyflatError, match="no usable pixel"):
        step.call(masked)
    other = series.exposure.copy()
    other.meta.instrument.filter = "F277W"
    with pytest.raises(SkyflatError, match="FILTER is F277W, not CLEAR"):
        step.call(other)
    other.meta.instrument.filter = "CLEAR"
    other.meta.subarray.name = "SUBSTRIP96"
    with pytest.raises(
        SkyflatError, match="SUBARRAY is SUBSTRIP96, its pixels are those of SUBSTR"
    ):
        step.call(other)
    moved = series.exposure.copy()
    moved.meta.subarray.ystart = 1
    with pytest.raises(SkyflatError, match="SUBSTRT1 and SUBSTRT2 are not those of SUBSTRIP256"):
        step.call(moved)
    with pytest.raises(SkyflatError, match="nothing.fits: no such file"):
        step.call(str(tmp_path / "nothing.fits"))


def test_traces_of_other_pixels(series, traces, tmp_path):
    other = traces.copy()
    other.meta.subarray.name = "SUBSTRIP96"
    with pytest.raises(SkyflatError, match="is SUBSTRIP256, that of the traces SUBSTRIP96"):
        OptimalExtractStep.call(series.exposure, other)
    (tmp_path / "star.txt").write_text("nothing\n")
    with pytest.raises(SkyflatError, match="star.txt: column WAVELENGTH is missing"):
        OptimalExtractStep.call(series.exposure, standard=str(tmp_path / "star.txt"))


def test_traces_of_other_columns(series, traces):
    other = traces.copy()
    other.traces["column"][0] = 2048
    with pytest.raises(SkyflatError, match="its columns are not those of the traces"):
        OptimalExtractStep.call(series.exposure, other)


def test_traces_that_are_none(series, traces, tmp_path):
    with pytest.raises(SkyflatError, match="holds no traces, see TraceFitStep"):
        OptimalExtractStep.call(series.exposure, traces=str(series.path))
    path = tmp_path / "cut_sosstraces.fits"
    traces.copy().save(path)
    fits.delval(path, "TTYPE1", "TRACES")
    with pytest.raises(SkyflatError, match="cut_sosstraces.fits: cannot be read"):
        OptimalExtractStep.call(series.exposure, traces=str(path))


def test_input_is_not_written_over(series, tmp_path):
    path = tmp_path / "a_x1dints.fits"
    path.write_bytes(series.path.read_bytes())
    with pytest.raises(SkyflatError, match="is an input"):
        strun("soss_background.OptimalExtractStep", path)
