"""
Bias and scatter of extracted spectra: this package, jwst's ATOCA, specreduce's HorneExtract.

A simulated star without sky, SUBSTRIP256, five integrations with photon and read noise. The truth
is the flux of each order alone in a box of 40 pixels. ATOCA gets reference files of the simulator:
the true traces, wavelengths, throughputs and profiles of each order, wings included, and the true
flux as an estimate. HorneExtract gets the true traces and fits its profile.

    python extraction.py [--flux DN/s]
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels

from soss_background import OptimalExtractStep
from soss_background.detector import PWCPOS, SUBSTRIP256
from soss_background.simulate.scene import Stars, star_image
from soss_background.simulate.traces import ORDERS, get_trace

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from spec2_references import add_header, make_pastasoss, make_speckernel

# Bands of each order, micron.
BANDS = {
    1: [(0.9, 1.4), (1.4, 1.9), (1.9, 2.4), (2.4, 2.8)],
    2: [(0.6, 0.7), (0.7, 0.85), (0.85, 1.0), (1.0, 1.15)],
    3: [(0.72, 0.78), (0.78, 0.92)],
}
N_INTEGRATIONS, EXPOSURE_TIME, TEMPERATURE = 5, 100.0, 6000.0
GAIN, READ_NOISE, HALF_WIDTH = 1.6, 0.1, 20.0
# Variance of pixels that HorneExtract is not to use, (DN/s)^2.
UNUSED = 1e12


def simulate(flux):
    """Return an exposure, and the true count rates of each order, DN/s."""
    star = Stars(*np.array([[0.0], [0.0], [flux], [TEMPERATURE]]))
    light = {
        int(order): star_image(SUBSTRIP256, star, orders=[order]).astype(float) for order in ORDERS
    }
    total = sum(light.values())
    variance = total / (GAIN * EXPOSURE_TIME) + READ_NOISE**2
    noise = np.random.default_rng(1).standard_normal((N_INTEGRATIONS, *total.shape))
    model = datamodels.CubeModel(data=(total + noise * np.sqrt(variance)).astype("f4"))
    model.err = np.broadcast_to(np.sqrt(variance), noise.shape).astype("f4").copy()
    model.dq = np.zeros(noise.shape, "u4")
    meta, window = model.meta, SUBSTRIP256
    meta.filename = "star_rateints.fits"
    meta.instrument.name, meta.exposure.type = "NIRISS", "NIS_SOSS"
    meta.instrument.filter, meta.instrument.pupil = "CLEAR", "GR700XD"
    meta.instrument.pupil_position, meta.subarray.name = PWCPOS, window.name
    meta.subarray.xstart, meta.subarray.ystart = window.x0 + 1, window.y0 + 1
    meta.subarray.xsize, meta.subarray.ysize = window.nx, window.ny
    meta.cal_step.bkg_subtract = meta.cal_step.flat_field = "COMPLETE"
    return model, light


def true_rows(order):
    """Return the true row of the trace in each column of SUBSTRIP256."""
    trace = get_trace(str(order))
    return np.interp(np.arange(SUBSTRIP256.nx), trace.x, trace.y) - SUBSTRIP256.y0


def extract_ours(model, **settings):
    """Return wavelength and flux (nints, n) of each order, optimal and box."""
    orders = OptimalExtractStep(half_width=HALF_WIDTH, **settings).extract(model).orders
    return [
        {order: (each.wavelength, getattr(each.extraction, kind)) for order, each in orders.items()}
        for kind in ("flux", "box_flux")
    ]


def make_estimate(path, light):
    """
    Write the flux from which ATOCA chooses its grid and its range of Tikhonov factors.

    Its own estimate uses pixels of order 1 with less than 1e-4 of the flux of order 2. The wings of
    order 2 leave none redward of 1.4 micron, and the extrapolated estimate diverges.
    """
    trace = get_trace("1")
    columns = np.arange(SUBSTRIP256.nx)[::-1]
    wavelength, throughput = (
        np.interp(columns, trace.x, values) for values in (trace.wavelength, trace.throughput)
    )
    table = np.zeros(len(columns), dtype=datamodels.SpecModel().get_dtype("spec_table"))
    table["WAVELENGTH"] = wavelength
    table["FLUX"] = 1e3 * light[columns] / (throughput * wavelength)
    with datamodels.SpecModel(spec_table=table) as estimate:
        estimate.save(path)


def extract_atoca(model, light, folder):
    """Return the same by jwst's ATOCA, with reference files of the simulator."""
    from jwst.extract_1d.soss_extract.soss_extract import run_extract1d

    make_pastasoss(folder / "pastasoss.asdf")
    make_speckernel(folder / "speckernel.fits")
    make_estimate(folder / "estimate.fits", light[1].sum(axis=0))
    with datamodels.SpecProfileModel() as profiles:
        for order, image in light.items():
            norm = image.sum(axis=0)
            data = (image / np.where(norm > 0, norm, 1)).astype(np.float32)
            single = datamodels.SpecProfileSingleModel(data=data)
            single.order, single.oversampling, single.padding = order, 1, 0
            profiles.profile.append(single)
        add_header(profiles, "SPECPROFILE")
        profiles.save(folder / "specprofile.fits")
    names = ("pastasoss.asdf", "specprofile.fits", "speckernel.fits")
    settings = {
        "order_3": True, "threshold": 1e-2, "n_os": 2, "tikfac": None, "width": 2 * HALF_WIDTH,
        "bad_pix": "masking", "subtract_background": False, "rtol": 1e-4, "max_grid_size": 20000,
        "wave_grid_in": None, "wave_grid_out": None, "estimate": str(folder / "estimate.fits"),
        "atoca": True, "model": False,
    }  # fmt: skip
    files = [str(folder / name) for name in names]
    spectra, *_ = run_extract1d(model, *files, SUBSTRIP256.name, "CLEAR", settings)
    found = {}
    for spec in spectra.spec:
        table = spec.spec_table
        found[spec.spectral_order] = (np.array(table["WAVELENGTH"][0]), np.array(table["FLUX"]))
    return found


def extract_horne(model):
    """Return the same by specreduce, with an interpolated profile."""
    from astropy import units as u
    from specreduce.extract import HorneExtract
    from specreduce.tracing import ArrayTrace

    found = {}
    for order in BANDS:
        rows, trace = true_rows(order), get_trace(str(order))
        columns = np.flatnonzero((rows > HALF_WIDTH) & (rows < SUBSTRIP256.ny - HALF_WIDTH))
        wavelength = np.interp(columns, trace.x, trace.wavelength)
        part = slice(columns[0], columns[-1] + 1)
        far = np.abs(np.arange(SUBSTRIP256.ny)[:, np.newaxis] - rows) > HALF_WIDTH
        fluxes = []
        for data, err in zip(model.data, model.err, strict=True):
            image = np.where(far, 0, data)[:, part].astype(float)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                spectrum = HorneExtract(
                    image, ArrayTrace(image, rows[part]),
                    variance=np.where(far[:, part], UNUSED, err[:, part].astype(float) ** 2),
                    mask=np.zeros(image.shape, dtype=bool), unit=u.DN / u.s,
                    spatial_profile="interpolated_profile", bkgrd_prof=None,
                )()  # fmt: skip
            fluxes.append(spectrum.flux.value[columns - columns[0]])
        found[order] = wavelength, np.array(fluxes)
    return found


def compare(spectra, light):
    """Print bias and scatter of each band, percent, in each column of the table."""
    print(f"{'':24}" + "".join(f"{name:>22}" for name in spectra))
    for order, bands in BANDS.items():
        trace = get_trace(str(order))
        columns = np.arange(SUBSTRIP256.nx)
        distance = np.abs(np.arange(SUBSTRIP256.ny)[:, np.newaxis] - true_rows(order))
        truth = np.sum(light[order] * np.clip(HALF_WIDTH + 0.5 - distance, 0, 1), axis=0)
        known = np.interp(columns, trace.x, trace.wavelength)
        for low, high in bands:
            cells = ""
            for found in spectra.values():
                wavelength, flux = found[order]
                expected = np.interp(-wavelength, -known, truth)
                inside = (wavelength > low) & (wavelength < high)
                ratio = flux[:, inside] / expected[inside]
                bias = np.nanmedian(ratio) - 1
                scatter = 1.4826 * np.nanmedian(np.abs(ratio - np.nanmedian(ratio, axis=0)))
                cells += f"{100 * bias:12.2f}{100 * scatter:10.2f}"
            print(f"order {order} {low:5.2f} to {high:.2f} {cells}", flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--flux", type=float, default=200.0, help="peak of order 1, DN/s")
    model, light = simulate(parser.parse_args().flux)
    spectra, seconds = {}, {}

    def run(extract, names, *args, **settings):
        start = time.process_time()
        results = extract(model, *args, **settings)
        results = results if isinstance(results, list) else [results]
        spectra.update(zip(names, results, strict=True))
        seconds[names[0]] = time.process_time() - start

    run(extract_ours, ("optimal", "box"))
    run(extract_ours, ("optimal, others in", "box, others in"), subtract_orders=False)
    run(extract_horne, ("HorneExtract",))
    with tempfile.TemporaryDirectory() as folder:
        run(extract_atoca, ("ATOCA",), light, Path(folder))
    print("Bias and scatter of an integration, %: medians over the columns of a band")
    compare(spectra, light)
    print("Processor time, s:", ", ".join(f"{key} {value:.0f}" for key, value in seconds.items()))


if __name__ == "__main__":
    main()
