"""
Effect of the 1/f noise of single integrations on spectra, before and after each correction.

Sky-subtracted time series of a transit with integrations of 50 s are extracted without a
correction, after jwst's CleanFlickerNoiseStep (median_image, with the mask of this package), after
the difference from the scaled mean of the literature, and after the step of this package.

    python flicker.py [--integrations N] [--subarray NAME]
"""

import argparse
import logging
import tempfile
from dataclasses import replace
from unittest import mock

import numpy as np
from astropy.io import fits
from bottleneck import nanmedian
from jwst.clean_flicker_noise import clean_flicker_noise as jwst_step
from scenes import DEPTH, FLUX
from stdatamodels.jwst import datamodels

from soss_background import FlickerNoiseStep, OptimalExtractStep, TraceFitStep
from soss_background.detector import GAIN, PWCPOS, SUBARRAYS
from soss_background.io.library import as_image
from soss_background.numerics.integrations import usable_pixels
from soss_background.simulate import Simulation, simulate_time_series
from soss_background.simulate.streams import random_stream
from soss_background.simulate.stripes import draw_stripes
from soss_background.sky.traces import expected_trace

# J of the target, and rms of the stripes of an integration, DN/s.
MAGNITUDES, STRIPES = (9, 11, 13), (0.0, 0.02, 0.05, 0.2, 0.5)
# J of the target for which all methods are compared; for others, only that of this package.
COMPARED = 11
INTEGRATION_TIME, SEED = 50.0, 31
# Limits of the bands of the light curves, micron.
BANDS = ((0.85, 1.2), (1.2, 1.6), (1.6, 2.0), (2.0, 2.5), (2.5, 2.85))
# Half of the number of rows that are summed for the white light, as in jwst's step.
WHITE_LIGHT = 7.5


def simulate(magnitude, window, number, *, noise=True):
    """Return a time series without sky and stripes, its settings, and the flux of its target."""
    settings = {"exposure_time": number * INTEGRATION_TIME, "flat_pixel_rms": 0.0}
    settings |= {"flat_large_rms": 0.0, "star_density": 0.0, "stripes": 0.0}
    simulation = Simulation(SEED, window, n_integrations=number, **settings)
    observed = simulation
    if not noise:
        observed = replace(simulation, photon_noise=False, read_noise=1e-3, cosmic_rays=0.0)
    with tempfile.TemporaryDirectory() as folder:
        target = {"target_flux": FLUX[magnitude], "transit_depth": DEPTH}
        path = simulate_time_series(folder, observed, **target)
        with fits.open(path.parent / "time_series_truth.fits") as truth:
            sky, curve = truth["SKY"].data, np.array(truth["TRANSIT"].data["brightness"])
        with datamodels.CubeModel(path) as model:
            series = model.copy()
    if not noise:  # the errors are those of a noisy exposure
        photons = np.clip(series.data, 0, None) / (GAIN * INTEGRATION_TIME)
        series.err = np.sqrt(photons + simulation.slope_noise**2)
    series.data = series.data - sky
    series.meta.cal_step.bkg_subtract = series.meta.cal_step.flat_field = "COMPLETE"
    return series, simulation, curve


def add_stripes(series, simulation, rms):
    """Return a copy of a time series with stripes."""
    striped, simulation = series.copy(), replace(simulation, stripes=rms)
    for number, integration in enumerate(striped.data):
        rng = random_stream(SEED, "stripes", number)
        integration += draw_stripes(simulation, 0, number, rng)
    return striped


def find_scene(series):
    """Return the pixels that the step of this package uses, and the mean of the integrations."""
    return FlickerNoiseStep()._describe(as_image(series))


def scaled(series, average):
    """Return the average image of a time series times its white light, shape (n, ny, nx)."""
    row = expected_trace(1, SUBARRAYS[series.meta.subarray.name], PWCPOS).row
    near = np.abs(np.arange(series.data.shape[1])[:, np.newaxis] - row) < WHITE_LIGHT
    light = np.nansum(np.where(near, series.data, 0), axis=(1, 2), dtype=float)
    return (light / np.median(light))[:, np.newaxis, np.newaxis] * average


def clean_jwst(series):
    """Subtract the noise with jwst's step and the mask of this package."""
    series = series.copy()
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        mask = find_scene(series).free.astype(np.float32)
        datamodels.ImageModel(data=mask).save(file.name)
        # The scaled median of the step needs reference files for the white light.
        image = scaled(series, nanmedian(series.data, axis=0))
        with mock.patch.object(jwst_step, "make_median_image", return_value=image):
            result = jwst_step.do_correction(
                series, background_method="median_image", user_mask=file.name
            )
    return result[0]


def clean_scaled(series):
    """Subtract the weighted mean of each column of the difference from the scaled mean."""
    series, scene = series.copy(), find_scene(series)
    difference = series.data - scaled(series, scene.mean)
    good = scene.free & usable_pixels(series.data, series.err, series.dq)
    middle = nanmedian(np.where(good, difference, np.nan), axis=1)[:, np.newaxis]
    good &= np.abs(difference - middle) < 5 * np.sqrt(len(series.data) * scene.variance)
    weight = np.where(good, 1 / scene.variance, 0)
    total = weight.sum(axis=1, keepdims=True)
    stripes = np.sum(weight * np.where(good, difference, 0), axis=1, keepdims=True)
    series.data -= stripes / np.where(total > 0, total, 1)
    return series


METHODS = {
    "none": lambda series: series,
    "jwst": clean_jwst,
    "scaled mean": clean_scaled,
    "ours": FlickerNoiseStep.call,
}


def light_curves(series, traces):
    """Return the light curve of order 1 in each band, DN/s, and the scatter that ERR expects."""
    order = OptimalExtractStep().extract(series, traces).orders[1]
    flux, error = order.extraction.flux, order.extraction.error
    known = np.isfinite(flux).all(axis=0)
    for low, high in BANDS:
        band = known & (order.wavelength >= low) & (order.wavelength < high)
        light = flux[:, band].sum(axis=1)
        yield light, 1e6 * np.mean(np.sqrt(np.sum(error[:, band] ** 2, axis=1)) / light)


def measure_scatter(series, traces, curve):
    """Return the scatter of the light curve of each band without its transit, ppm."""
    curves = [light / curve for light, _ in light_curves(series, traces)]
    return np.array([1e6 * np.std(each, ddof=1) / np.mean(each) for each in curves])


def measure_depths(series, traces, curve):
    """Return the depth of the transit in each band, ppm."""
    shape = np.column_stack([np.ones_like(curve), curve - 1])
    fits_ = [np.linalg.lstsq(shape, light)[0] for light, _ in light_curves(series, traces)]
    return np.array([1e6 * DEPTH * slope / level for level, slope in fits_])


def show(name, values, form="8.2f"):
    """Print a row of the table."""
    print(f"{name:32}" + "".join(f"{value:{form}}" for value in values), flush=True)


def compare_scatter(magnitude, window, number):
    """Print the scatter of each correction relative to that without stripes."""
    series, simulation, curve = simulate(magnitude, window, number)
    traces = TraceFitStep.call(series)
    expected = [error for _, error in light_curves(series, traces)]
    plain = measure_scatter(series, traces, curve)
    show(f"J = {magnitude}: ERR, ppm", expected, "8.0f")
    show("without stripes, ppm", plain, "8.0f")
    for rms in STRIPES:
        striped = add_stripes(series, simulation, rms)
        for name, clean in METHODS.items():
            if (rms or name != "none") and (magnitude == COMPARED or name in ("none", "ours")):
                scatter = measure_scatter(clean(striped), traces, curve)
                show(f"  {rms:4} DN/s, {name}", scatter / plain)


def compare_depths(magnitude, window):
    """Print the change of the depth of a transit by each correction, without noise and stripes."""
    series, _, curve = simulate(magnitude, window, 16, noise=False)
    traces = TraceFitStep.call(series)
    for name, clean in METHODS.items():
        depths = measure_depths(clean(series), traces, curve)
        show(f"J = {magnitude}, {name}", depths - 1e6 * DEPTH, "8.1f")


def main():
    """Print the tables."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--integrations", type=int, default=40)
    parser.add_argument("--subarray", choices=SUBARRAYS, default="SUBSTRIP256")
    options = parser.parse_args()
    window = SUBARRAYS[options.subarray]
    print(f"{options.subarray}, order 1. Bands: {', '.join(f'{a}-{b}' for a, b in BANDS)} micron")
    print(f"Scatter of {options.integrations} integrations over that without stripes")
    for magnitude in MAGNITUDES:
        compare_scatter(magnitude, window, options.integrations)
    print(f"Bias of the depth of a transit of {100 * DEPTH:.0f} %, ppm, without noise and stripes")
    for magnitude in MAGNITUDES:
        compare_depths(magnitude, window)


if __name__ == "__main__":
    main()
