"""Units of spectra, and their calibration by a response or a PHOTOM reference file."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from bottleneck import nanmedian
from helpers import make_skyflat, strun
from stdatamodels.jwst import datamodels
from test_real import REAL

from soss_background import (
    OptimalExtractStep,
    SkyflatSubtractStep,
    SossStarePipeline,
    TraceFitStep,
)
from soss_background.detector import SUBSTRIP96
from soss_background.errors import SkyflatError
from soss_background.simulate import Simulation, simulate_time_series

STEP, PIPELINE = "soss_background.OptimalExtractStep", "soss_background.SossStarePipeline"
SETTINGS = Simulation(
    window=SUBSTRIP96, n_integrations=3, exposure_time=600.0, star_density=0, stripes=0.0
)
AREA = 1.009e-13
# Other steps than the extraction are not needed.
SKIPPED = {
    "skyflat_subtract": {"skip": True},
    "clean_flicker_noise": {"skip": True},
    "flat_field": {"skip": True},
}


def simulate(folder, target_flux):
    """Simulate a star; remove sky and flat by the truth, and save it."""
    path = simulate_time_series(folder, SETTINGS, target_flux=target_flux)
    with fits.open(folder / "time_series_truth.fits") as truth:
        sky, flat = truth["SKY"].data, truth["FLAT"].data
    with datamodels.open(path) as model:
        exposure = model.copy()
    exposure.data, exposure.err = exposure.data / flat - sky, exposure.err / flat
    exposure.meta.cal_step.bkg_subtract = exposure.meta.cal_step.flat_field = "COMPLETE"
    exposure.save(path)
    return exposure


@pytest.fixture(scope="module")
def exposure(tmp_path_factory):
    """Simulate a star."""
    return simulate(tmp_path_factory.mktemp("star"), 200.0)


@pytest.fixture(scope="module")
def traces(exposure):
    """Find its traces."""
    return TraceFitStep.call(exposure)


@pytest.fixture(scope="module")
def plain(exposure, traces):
    """Extract its spectra in DN/s."""
    return OptimalExtractStep().extract(exposure, traces)


def in_surface_brightness(exposure, area=AREA):
    """Return an exposure as a _calints file in MJy/sr."""
    calibrated = exposure.copy()
    calibrated.meta.bunit_data = calibrated.meta.bunit_err = "MJy/sr"
    calibrated.meta.photometry.pixelarea_steradians = area
    return calibrated


# --- units -------------------------------------------------------------------------------


def test_surface_brightness_becomes_flux(exposure, traces, plain, tmp_path):
    """The sum over the aperture times the pixel area is a flux in Jy, also without BUNIT."""
    calibrated = in_surface_brightness(exposure)
    nameless = calibrated.copy()
    nameless.meta.bunit_data, nameless.meta.cal_step.photom = None, "COMPLETE"
    expected = plain.make_spectra()[0].spec[0].spec_table["FLUX"] * 1e6 * AREA
    for model in (calibrated, nameless):
        spectra = OptimalExtractStep.call(model, traces)
        spectra.save(tmp_path / "a_x1dints.fits", overwrite=True)
        with fits.open(tmp_path / "a_x1dints.fits") as hdus:
            units = [hdus["EXTRACT1D"].columns[name].unit for name in ("FLUX", "FLUX_ERROR")]
            flux = hdus["EXTRACT1D"].data["FLUX"]
        assert units == ["Jy", "Jy"]
        np.testing.assert_allclose(flux, expected, rtol=1e-6)


def test_units_that_are_refused(exposure, traces):
    step = OptimalExtractStep()
    other = in_surface_brightness(exposure)
    other.meta.bunit_data = "electron"
    with pytest.raises(SkyflatError, match="BUNIT is electron, neither DN/s nor MJy/sr"):
        step.run(other, traces)
    with pytest.raises(SkyflatError, match="BUNIT is MJy/sr, but the pixel area .PIXAR_SR. is"):
        step.run(in_surface_brightness(exposure, area=None), traces)


def test_units_in_the_pipeline(exposure, tmp_path):
    """A sky in DN/s is not subtracted from MJy/sr; without it, spectra are in Jy."""
    calibrated = in_surface_brightness(exposure)
    spectra = SossStarePipeline.call(calibrated, steps=SKIPPED)
    assert {spec.spec_table.columns["FLUX"].unit for spec in spectra.spec} == {"Jy"}
    calibrated.meta.cal_step.bkg_subtract = None
    make_skyflat(window=SUBSTRIP96).save(tmp_path / "a_skyflat.fits")
    steps = SKIPPED | {"skyflat_subtract": {"skyflat": [str(tmp_path / "a_skyflat.fits")]}}
    with pytest.raises(SkyflatError, match="BUNIT is MJy/sr, not DN/s"):
        SossStarePipeline.call(calibrated, steps=steps)
    steps = {name: value for name, value in SKIPPED.items() if name != "skyflat_subtract"}
    with pytest.raises(SkyflatError, match="BUNIT is MJy/sr and its sky is not subtracted: "):
        SossStarePipeline.call(calibrated, steps=steps, save_results=True)
    assert [path.name for path in tmp_path.glob("*")] == ["a_skyflat.fits"]


def test_segments_in_two_units(exposure, traces):
    first, second = exposure.copy(), in_surface_brightness(exposure)
    for number, each in enumerate((first, second), 1):
        each.meta.filename = f"a-seg00{number}_nis_calints.fits"
        each.meta.exposure.segment_number = number
    with pytest.raises(SkyflatError, match="BUNIT is MJy/sr, but DN/s in a-seg001"):
        OptimalExtractStep.call([first, second], traces)


# --- response ----------------------------------------------------------------------------


def star_flux(wavelength, target_flux=200.0):
    """Return the flux of a simulated star (a black body), W/m^2/micron; wavelength in micron."""
    return 1e-15 * target_flux * wavelength**-5 / np.expm1(14387.77 / (wavelength * 6000.0))


@pytest.fixture(scope="module")
def response(exposure, traces, tmp_path_factory):
    """Measure the response with the star as a standard; return the folder of its files."""
    folder = tmp_path_factory.mktemp("response")
    wavelength = np.linspace(0.4, 3.5, 3000) * u.micron
    flux = star_flux(wavelength.value) * u.W / u.m**2 / u.micron
    Table({"WAVELENGTH": wavelength, "FLUX": flux}).write(folder / "star.ecsv")
    step = OptimalExtractStep(standard=str(folder / "star.ecsv"))
    step.output_dir = str(folder)
    step.run(exposure, traces)
    return folder


@pytest.mark.parametrize("extension", ["fits", "ecsv"])
def test_response_calibrates_another_star(extension, response, tmp_path):
    """The flux of a fainter star in Jy and in W/m^2/micron is true, in all products."""
    simulate(tmp_path, 120.0)
    (path,) = response.glob(f"*_response.{extension}")
    (rates,) = tmp_path.glob("*_rateints.fits")
    strun(STEP, rates, f"--response={path}", "--save_merged=true", "--save_box=true")
    merged = Table.read(next(tmp_path.glob("*_spectrum.ecsv")))
    assert [merged[name].unit for name in ("flux", "flux_lambda")] == [
        u.Jy,
        u.W / u.m**2 / u.micron,
    ]
    clean = (merged["wavelength"] > 1.0) & (merged["wavelength"] < 2.5) & (merged["order"] == 1)
    wavelength = merged["wavelength"][clean].data * u.micron
    truth = star_flux(wavelength.value, 120.0) * u.W / u.m**2 / u.micron
    ratio = merged["flux_lambda"][clean] / truth.value
    assert abs(np.median(ratio) - 1) < 0.003
    assert np.percentile(np.abs(ratio - 1), 90) < 0.02
    np.testing.assert_allclose(
        merged["flux"][clean],
        (merged["flux_lambda"][clean].data * truth.unit).to_value(
            u.Jy, u.spectral_density(wavelength)
        ),
        rtol=1e-6,
    )
    for suffix in ("x1dints", "x1dboxints"):
        with fits.open(next(tmp_path.glob(f"*_{suffix}.fits"))) as hdus:
            assert hdus[0].header["S_PHOTOM"] == "COMPLETE"
            assert hdus["EXTRACT1D"].columns["FLUX"].unit == "Jy"
            table = hdus["EXTRACT1D"].data
        flux = np.interp(1.5, table["WAVELENGTH"][0], nanmedian(table["FLUX"], axis=0))
        expected = (star_flux(1.5, 120.0) * truth.unit).to_value(
            u.Jy, u.spectral_density(1.5 * u.micron)
        )
        assert abs(flux / expected - 1) < 0.02


def test_responses_that_are_refused(exposure, traces, response, tmp_path):
    (path,) = response.glob("*_response.ecsv")
    with pytest.raises(SkyflatError, match="its half_width is 20.0, not 15.0"):
        OptimalExtractStep(response=str(path), half_width=15.0).run(exposure, traces)
    with pytest.raises(SkyflatError, match="its aperture_correction is False, not True"):
        OptimalExtractStep(response=str(path), aperture_correction=True).run(exposure, traces)
    with pytest.raises(SkyflatError, match="BUNIT is MJy/sr, but response needs DN/s"):
        OptimalExtractStep(response=str(path)).run(in_surface_brightness(exposure), traces)
    with pytest.raises(SkyflatError, match="star.ecsv: not a response, column order is missing"):
        OptimalExtractStep(response=str(response / "star.ecsv")).run(exposure, traces)
    table = Table.read(path)
    table["fit"].unit = u.m
    table.write(tmp_path / "other.ecsv")
    with pytest.raises(SkyflatError, match="other.ecsv: its unit is m, not"):
        OptimalExtractStep(response=str(tmp_path / "other.ecsv")).run(exposure, traces)
    table = Table.read(path)
    table["wavelength"] += 10
    table.write(tmp_path / "far.ecsv")
    with pytest.raises(SkyflatError, match="far.ecsv: has no response at the wavelengths"):
        OptimalExtractStep(response=str(tmp_path / "far.ecsv")).run(exposure, traces)
    steps = SKIPPED | {"optimal_extract": {"response": str(path)}}
    with pytest.raises(SkyflatError, match="response and override_photom are given"):
        SossStarePipeline.call(exposure, steps=steps | {"photom": {"override_photom": str(path)}})


def test_an_order_without_response(exposure, traces, response, tmp_path, caplog):
    """Its fluxes are NaN and flagged, with a warning."""
    (path,) = response.glob("*_response.ecsv")
    table = Table.read(path)
    table[table["order"] == 1].write(tmp_path / "first.ecsv")
    spectra = OptimalExtractStep(response=str(tmp_path / "first.ecsv")).run(exposure, traces)
    assert "order 2 has no response in" in caplog.text
    table = spectra.spec[1].spec_table
    assert np.isnan(table["FLUX"]).all()
    assert (table["DQ"] & 1).all()


def test_aperture_correction_is_applied(exposure, traces, plain):
    corrected = OptimalExtractStep(aperture_correction=True).extract(exposure, traces)
    for order, each in plain.orders.items():
        for name in ("flux", "error", "box_flux", "box_error"):
            before, after = (
                getattr(every.extraction, name) for every in (each, corrected.orders[order])
            )
            np.testing.assert_allclose(after, (1 + each.beyond) * before, rtol=1e-6)
    assert np.nanmedian(plain.orders[1].beyond) > 0.03
    dark = exposure.copy()
    dark.data -= 300.0
    with pytest.raises(SkyflatError, match="no aperture correction, the wings cannot be measured"):
        OptimalExtractStep(aperture_correction=True).run(dark, traces)


# --- bad pixels --------------------------------------------------------------------------


def test_bad_pixels(exposure, traces, plain, tmp_path):
    """Pixels that are always too bright, and not found as such, are left out if listed."""
    rows, _ = traces.rows(1, 2048)
    columns = np.arange(800, 1800, 40)
    middle = np.round(rows[columns]).astype(int)
    hurt = exposure.copy()
    for offset in (-9, -8, -7):
        hurt.data[:, middle + offset, columns] *= 1.1
    places = np.concatenate([middle + offset for offset in (-9, -8, -7)])
    Table([np.tile(columns, 3), places], names=["x", "y"]).write(tmp_path / "bad.csv")
    plain = plain.orders[1].extraction
    bias = {}
    for bad_pixels in (None, str(tmp_path / "bad.csv")):
        each = OptimalExtractStep(bad_pixels=bad_pixels).extract(hurt, traces).orders[1].extraction
        where = np.searchsorted(each.band.columns, columns)
        for name in ("flux", "box_flux"):
            ratio = (getattr(each, name) / getattr(plain, name))[:, where]
            bias[name, bool(bad_pixels)] = np.median(np.abs(ratio - 1))
    assert (each.number[:, where] <= np.sum(each.band.weight, axis=1)[where] - 3).all()
    assert bias["flux", False] > 0.01
    assert max(bias["flux", True], bias["box_flux", True]) < 0.004
    slices = [
        TraceFitStep.call(hurt, bad_pixels=each, slice_length=1, n_slices=1200).slices
        for each in (None, str(tmp_path / "bad.csv"))
    ]
    assert not np.array_equal(slices[0]["row"], slices[1]["row"])


def test_bad_pixels_of_the_sky(exposure, tmp_path):
    """Listed pixels are flagged in what is saved, and take no part in the fit of the sky."""
    make_skyflat(window=SUBSTRIP96, flat="flat.fits").save(tmp_path / "a_skyflat.fits")
    bright = exposure.copy()
    bright.meta.cal_step.bkg_subtract = None
    bright.data += fits.getdata(tmp_path / "a_skyflat.fits", "BKGDN")
    before, used = bright.dq.copy(), []
    settings = {"skyflat": [str(tmp_path / "a_skyflat.fits")], "output_dir": str(tmp_path)}
    for bad_pixels in (None, str(tmp_path / "bad.fits")):
        results = SkyflatSubtractStep.call(
            bright, bad_pixels=bad_pixels, save_mask=True, **settings
        )
        used.append(fits.getdata(next(tmp_path.glob("*_skyflatused.fits")), "MASK") == 1)
        if bad_pixels is None:
            mask = used[0] & (np.arange(2048) % 3 == 0)
            fits.writeto(tmp_path / "bad.fits", mask.astype(np.uint8))
    assert mask.sum() > 1000
    assert (results.dq[:, mask] & 1).all()
    assert not used[1][mask].any()
    assert used[1].sum() > 0.5 * used[0].sum()
    np.testing.assert_array_equal(bright.dq, before)
    with pytest.raises(SkyflatError, match="bad.txt: no such file"):
        SossStarePipeline.call(bright, steps={"trace_fit": {"bad_pixels": "bad.txt"}})


# --- PHOTOM ------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="no real reference files")
def test_real_photom(exposure, plain, tmp_path):
    """A PHOTOM file of CRDS calibrates _x1dints, the box and the merged spectrum."""
    path = REAL / "jwst_niriss_photom_rev2.fits"
    steps = SKIPPED | {
        "photom": {"override_photom": str(path)},
        "optimal_extract": {"save_merged": True, "save_box": True},
    }
    spectra = SossStarePipeline.call(
        exposure, steps=steps, output_dir=str(tmp_path), save_report=False
    )
    rows = fits.getdata(path, 1)
    (row,) = rows[(rows["filter"] == "CLEAR") & (rows["order"] == 1)]
    known = slice(row["nelem"])
    table, before = spectra.spec[0].spec_table, plain.make_spectra()[0].spec[0].spec_table
    factor = row["photmj"] * np.interp(
        table["WAVELENGTH"][0], row["wavelength"][known], row["relresponse"][known]
    )
    assert table.columns["FLUX"].unit == "Jy"
    np.testing.assert_allclose(table["FLUX"], factor * before["FLUX"], rtol=2e-3)
    merged = Table.read(next(tmp_path.glob("*_spectrum.ecsv")))
    first = merged[merged["order"] == 1]
    expected = np.interp(
        first["wavelength"], table["WAVELENGTH"][0], nanmedian(table["FLUX"], axis=0)
    )
    np.testing.assert_allclose(first["flux"], expected, rtol=1e-3)
    assert merged["flux"].unit == u.Jy
    with fits.open(next(tmp_path.glob("*_x1dboxints.fits"))) as hdus:
        assert hdus["EXTRACT1D"].columns["FLUX"].unit == "Jy"
