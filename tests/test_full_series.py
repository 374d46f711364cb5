"""Time series of the full detector: sky subtraction, spectra, and skyflats from them."""

import numpy as np
import pytest
from astropy.io import fits
from crds_cache import crds_at, make_cache
from helpers import cut_series, make_skyflat
from spec2_references import make_references
from stdatamodels.jwst import datamodels

from soss_background import (
    SkyflatPipeline,
    SkyflatSpec2Pipeline,
    SkyflatSubtractStep,
    SossStarePipeline,
)
from soss_background.detector import Window
from soss_background.mask.target import target_reach
from soss_background.simulate import Simulation, simulate_time_series

# Rows of two amplifiers, with all traces.
WINDOW = Window("FULL", 1500, 0, 548, 2048)
SETTINGS = Simulation(
    window=WINDOW, n_integrations=3, exposure_time=600.0, star_density=0, cosmic_rays=1e-6
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Simulate a time series in two segments, and the skyflat of its sky."""
    folder = tmp_path_factory.mktemp("full")
    path = simulate_time_series(folder, SETTINGS, target_flux=100.0)
    sky = fits.getdata(folder / "time_series_truth.fits", "SKY")
    make_skyflat(window=WINDOW, sky=0.9 * sky, flat="flat.fits").save(folder / "a_skyflat.fits")
    cut_series(path, folder / "cut", (1, 2))
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    """List the segments."""
    return sorted((folder / "cut").glob("*.fits"))


@pytest.fixture(scope="module")
def sky(folder):
    """Name the sky and the flat as parameters."""
    return {
        "skyflat": [str(folder / "a_skyflat.fits")],
        "override_flat": str(folder / "time_series_flat.fits"),
    }


def truth(folder, name):
    """Read an image of the truth."""
    return fits.getdata(folder / "time_series_truth.fits", name)


def test_subtract(folder, paths, sky):
    """The sky of all amplifiers agrees with the truth."""
    library = SkyflatSubtractStep.call(paths, **sky)
    expected, science = truth(folder, "SKY"), ~WINDOW.reference_pixels()
    error = library.fit.sky / truth(folder, "FLAT") - expected
    for band in WINDOW.amplifiers():
        inside = science[band] & (truth(folder, "FLAT")[band] > 0.5)
        assert abs(np.median(error[band][inside])) < 0.01 * np.median(expected)
    assert len(library) == 2


def test_spectra(folder, paths, sky):
    steps = {"skyflat_subtract": sky, "flat_field": {"override_flat": sky["override_flat"]}}
    spectra = SossStarePipeline.call(paths, steps=steps)
    assert [spec.spectral_order for spec in spectra.spec] == [1, 2, 3] * 2
    curve = truth(folder, "TRANSIT")["brightness"]
    # Flux in an aperture of 41 rows, in columns without other orders.
    target = truth(folder, "TARGET")
    flux = np.concatenate([spec.spec_table["FLUX"] for spec in spectra.spec[::3]])
    total = np.nansum(flux[:, 100:1500], axis=1)
    np.testing.assert_allclose(total / total.mean(), curve / curve.mean(), rtol=0.003)
    assert 0.5 < total.mean() / target[:, 500:1950].sum() < 1.1


def test_spec2(folder, paths, sky, tmp_path):
    """The pipeline runs up to the extraction, which jwst does not support for FULL."""
    references = make_references(tmp_path, folder / "time_series_flat.fits")
    steps = {"bkg_subtract": {"skyflat": sky["skyflat"]}, "extract_1d": {"skip": True}}
    with crds_at(make_cache(tmp_path / "cache", references), tmp_path):
        results = SkyflatSpec2Pipeline.call([str(path) for path in paths], steps=steps)
    levels = {model.meta.skyflat_subtract.skyleft for model in results}
    assert len(levels) == 1
    science = ~WINDOW.reference_pixels()
    science[150:] = False  # far from the target
    for model in results:
        assert model.meta.cal_step.bkg_subtract == model.meta.cal_step.flat_field == "COMPLETE"
        left = np.nanmedian(model.data[:, science] - truth(folder, "TARGET")[science])
        assert abs(left) < 0.02 * np.median(truth(folder, "SKY"))


# --- as source of a sky ------------------------------------------------------------------

TALL = Window("FULL", 700, 500, 1348, 256)


def test_reach_of_a_target():
    """A power law is extrapolated; without a target or free pixels the reach is 0."""
    distance = np.abs(np.arange(-1000, 100, 4.0))[:, np.newaxis] * np.ones(64)
    trace = np.where(distance < 20, 1e4, 0.5 * (np.maximum(distance, 20) / 60) ** -2)
    reach = target_reach(5 * (1 + trace), distance, 0.003)
    assert abs(reach / (60 * np.sqrt(0.5 / 0.003)) - 1) < 0.1
    assert target_reach(5 + 0 * trace, distance, 0.003) == 0
    near = distance[:, 0] < 700
    assert target_reach(5 * (1 + trace)[near], distance[near], 0.003) == 0


def test_a_target_in_the_source_of_a_sky(tmp_path, caplog):
    """The target's traces and wings are masked, which is recorded, and filled."""
    settings = Simulation(window=TALL, n_integrations=2, exposure_time=600.0, star_density=0)
    path = simulate_time_series(tmp_path / "series", settings, target_flux=200.0)
    paths = cut_series(path, tmp_path / "cut", (1, 1))
    flat = {"override_flat": str(tmp_path / "series" / "time_series_flat.fits")}
    skyflat = SkyflatPipeline.call(paths, steps={"flat_field": flat}, save_results=True)
    assert "2 of 2 exposures show the trace of a target" in caplog.text
    assert "the target is masked up to" in caplog.text
    expected = fits.getdata(tmp_path / "series" / "time_series_truth.fits", "SKY")
    error = (skyflat.bkgdn / expected - 1)[1792 - TALL.y0 : -4]
    left, right = error[:, :180], error[:, 230:]
    assert abs(np.median(left)) < 0.02
    assert abs(np.median(right)) < 0.02
    (product,) = tmp_path.glob("*_skyflat.fits")
    assert 100 < fits.getval(product, "TARGMASK") < 800
    with datamodels.open(product) as model:
        assert (model.masks[:, 1792 - TALL.y0 + 100 : -4] == 1).all()
        assert (model.dq[1792 - TALL.y0 + 100 : -4] & 1 == 1).all()
        assert {row["name"]: row["flag"] for row in model.qc}["target_trace"] == "fail"
