"""The memory of a run is that of its file, for any number of integrations."""

import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from helpers import make_skyflat
from jwst.flatfield import flat_field
from stdatamodels.jwst import datamodels

from soss_background import SkyflatSpec2Pipeline, SossStarePipeline
from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.extract import trace_fit_step
from soss_background.io.cubes import write_cube
from soss_background.simulate import Simulation, simulate_time_series
from soss_background.steps.jwst_steps import FlatFieldStep

WINDOW = Window("FULL", 1800, 500, 128, 256)
# Number of images of the size of an integration that a run holds in addition to the exposure.
IMAGES = 100


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Simulate a time series of many small integrations; return its file."""
    settings = Simulation(window=WINDOW, n_integrations=64, star_density=0.0)
    return simulate_time_series(tmp_path_factory.mktemp("series"), settings, target_flux=200.0)


def measure_peak(function, *arguments):
    """
    Return the peak memory that a function allocates after its imports, bytes.

    It runs in one thread, since each thread has its own block of pixels, and timing is random.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        function(*arguments)
        tracemalloc.start()
        function(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_a_pipeline_up_to_its_frames(series, tmp_path, monkeypatch):
    """The memory holds the file, the variance of the flat, and a block of integrations."""
    make_skyflat(window=WINDOW, flat="flat.fits", structure=0).save(tmp_path / "a_skyflat.fits")
    flat = {"override_flat": str(series.parent / "time_series_flat.fits")}
    subtract = {"skyflat": "a_skyflat.fits", "scale_mode": "integration", "save_results": True}

    def stop(*_, **__):
        raise SkyflatError("no trace is fitted")

    def run():
        with pytest.raises(SkyflatError, match="no trace is fitted"):
            SossStarePipeline.call(series, steps={"skyflat_subtract": subtract, "flat_field": flat})

    monkeypatch.setattr(trace_fit_step, "measure_slices", stop)
    limit = 1.4 * series.stat().st_size + IMAGES * 4 * np.prod(WINDOW.shape)
    assert measure_peak(run) < limit


def test_a_step_of_a_pipeline_does_not_copy_its_model(series, tmp_path):
    """In addition to the exposure, the memory holds images and blocks of integrations."""
    make_skyflat(window=WINDOW, flat="flat.fits", structure=0).save(tmp_path / "a_skyflat.fits")
    parameters = {"skyflat": "a_skyflat.fits"}
    parameters["override_flat"] = series.parent / "time_series_flat.fits"
    pipeline = SkyflatSpec2Pipeline(steps={"bkg_subtract": parameters})

    def subtract(cube):
        assert pipeline.bkg_subtract.run(cube).meta.cal_step.bkg_subtract == "COMPLETE"
        cube.meta.cal_step.bkg_subtract = None

    with datamodels.open(series) as cube:
        planes = [cube.data, cube.err, cube.dq, cube.var_poisson, cube.var_rnoise]
        peak = measure_peak(subtract, cube)
    assert peak < 0.8 * sum(plane.nbytes for plane in planes)


def test_a_cube_is_written_as_by_its_model(series, tmp_path):
    def write(cube):
        (tmp_path / "same" / "a.fits").unlink(missing_ok=True)
        write_cube(cube, tmp_path / "same" / "a.fits")

    with datamodels.open(series) as cube:
        cube.save(tmp_path / "a.fits")
        (tmp_path / "same").mkdir()
        peak = measure_peak(write, cube)
        assert peak < cube.dq.nbytes / 2
    left_out = {"ignore_keywords": ["DATE"], "ignore_hdus": ["ASDF"]}
    assert fits.FITSDiff(tmp_path / "a.fits", tmp_path / "same" / "a.fits", **left_out).identical
    with datamodels.open(tmp_path / "same" / "a.fits") as again:
        assert again.meta.filename == "a.fits"
        np.testing.assert_array_equal(again.dq, cube.dq)
        assert list(again.int_times["int_mid_MJD_UTC"]) == list(cube.int_times["int_mid_MJD_UTC"])


def test_a_cube_is_flat_fielded_as_by_jwst(series):
    """Flat-fielding in blocks gives an identical result."""
    flat = str(series.parent / "time_series_flat.fits")
    with datamodels.open(series) as cube:
        before = cube.data.copy()
        ours = FlatFieldStep.call(cube, override_flat=flat)
        with datamodels.FlatModel(flat) as reference:
            expected, _ = flat_field.do_correction(cube.copy(), flat=reference)
        np.testing.assert_array_equal(cube.data, before)
    assert ours.meta.cal_step.flat_field == expected.meta.cal_step.flat_field == "COMPLETE"
    for name in ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
