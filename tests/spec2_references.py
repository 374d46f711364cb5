"""Reference files with which calwebb_spec2 runs on a simulated SOSS exposure."""

from pathlib import Path

import asdf
import numpy as np
from astropy.modeling.models import Tabular2D
from jwst.pipeline import Spec2Pipeline
from stdatamodels.jwst import datamodels

from soss_background.detector import FULL, SUBSTRIP256
from soss_background.simulate.traces import get_trace

ORDERS = (1, 2, 3)
# Column at which the trace of each order ends.
_LAST_COLUMNS = (2048, 1783, 860)
_PWCPOS = 245.76
# Half width of the spectral kernel, native pixels.
_HALF_WIDTH = 4


def make_references(folder, flat):
    """Write all reference files into a folder; map all types that spec2 needs to a file."""
    folder = Path(folder)
    pipeline = Spec2Pipeline()
    types = {
        kind for step in pipeline.step_defs for kind in getattr(pipeline, step).reference_file_types
    }
    references = dict.fromkeys(sorted(types)) | {"flat": flat}
    makers = {
        "specwcs": (make_specwcs, "specwcs.asdf"),
        "pastasoss": (make_pastasoss, "pastasoss.asdf"),
        "specprofile": (make_specprofile, "specprofile.fits"),
        "speckernel": (make_speckernel, "speckernel.fits"),
    }
    for kind, (make, name) in makers.items():
        make(folder / name)
        references[kind] = folder / name
    return references


def make_specwcs(path):
    """Write the wavelength of every pixel, which is that of the trace in its column."""
    rows = np.array([0.0, FULL.ny - 1.0])
    columns = np.arange(0.0, FULL.nx)
    tree = {}
    for order in ORDERS:
        trace = get_trace(str(order))
        wavelength = np.interp(columns, trace.x, trace.wavelength)
        tree[order] = Tabular2D(
            points=(rows, columns),
            lookup_table=np.tile(wavelength, (2, 1)),
            bounds_error=False,
            fill_value=np.nan,
        )
    asdf.AsdfFile(tree).write_to(path)


def make_pastasoss(path):
    """Write the traces of the simulator and their sensitivity."""
    traces, wavecals, throughputs = [], [], []
    for order, last in zip(ORDERS, _LAST_COLUMNS, strict=True):
        trace = get_trace(str(order))
        inside = (trace.x >= 0) & (trace.x < FULL.nx)
        x, y, wavelength = (
            trace.x[inside],
            trace.y[inside] - SUBSTRIP256.y0,
            trace.wavelength[inside],
        )
        traces.append(
            {
                "spectral_order": order,
                "pivot_x": 1677.0 if order == 2 else 1887.0,
                "pivot_y": 200.0 if order == 2 else 54.0,
                "trace": np.column_stack([x, y]),
                "cutoff": last,
            }
        )
        wavecals.append(
            {
                "spectral_order": order,
                "polynomial_degree": 5,
                "coefficients": _wavelength_polynomial(x, wavelength, 5),
                "scale_extents": np.array([[0.0, -0.25], [FULL.nx - 1.0, 0.25]]),
            }
        )
        rising = np.argsort(trace.wavelength)
        throughputs.append(
            {
                "spectral_order": order,
                "wavelength": trace.wavelength[rising],
                "throughput": _throughput_per_wavelength(trace)[rising],
            }
        )
    with datamodels.PastasossModel() as model:
        model.traces, model.wavecal_models, model.throughputs = traces, wavecals, throughputs
        for name, value in {
            "order2_separation_cutoff": [0.77, 0.95],
            "pwcpos_bounds": [_PWCPOS - 0.25, _PWCPOS + 0.25],
            "pwcpos_cmd": _PWCPOS,
            "soss_xdim": FULL.nx,
            "soss_ydim": 300,
            "subarray_ymin": SUBSTRIP256.y0,
            "wavemap_nwl": 5001,
            "wavemap_wlmin": 0.5,
            "wavemap_wlmax": 3.0,
        }.items():
            setattr(model.meta, name, value)
        _save(model, path, "PASTASOSS")


def _throughput_per_wavelength(trace):
    """Return the throughput of a trace per nanometre; that of the simulator is per pixel."""
    return trace.throughput / (1e3 * np.abs(np.gradient(trace.wavelength, trace.x)))


def _wavelength_polynomial(x, wavelength, degree):
    """Fit a polynomial in the column; the terms with the pupil wheel's position are zero."""
    fit = np.polynomial.Polynomial.fit(
        x, wavelength, degree, domain=[0, FULL.nx - 1], window=[0, 1]
    )
    coefficients = np.zeros((degree + 1) * (degree + 2) // 2)
    powers = np.arange(degree + 1)
    coefficients[powers * (powers + 1) // 2] = fit.coef
    return coefficients


def make_specprofile(path):
    """Write the profile across the traces, which a box extraction does not use."""
    rows = np.arange(SUBSTRIP256.ny)[:, np.newaxis]
    with datamodels.SpecProfileModel() as model:
        for order in ORDERS:
            trace = get_trace(str(order))
            centre = np.interp(np.arange(FULL.nx), trace.x, trace.y) - SUBSTRIP256.y0
            data = np.exp(-0.5 * ((rows - centre) / 6) ** 2)
            single = datamodels.SpecProfileSingleModel(data=data.astype(np.float32))
            single.order, single.oversampling, single.padding = order, 1, 0
            model.profile.append(single)
        _save(model, path, "SPECPROFILE")


def make_speckernel(path):
    """Write the kernel along the traces, which a box extraction does not use."""
    pixels = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, 10 * _HALF_WIDTH + 1)
    wavelengths = np.linspace(0.5, 3.0, 126)
    kernel = np.exp(-0.5 * pixels**2)
    shape = (len(pixels), len(wavelengths))
    with datamodels.SpecKernelModel() as model:
        model.wavelengths = np.broadcast_to(wavelengths, shape).astype(np.float32)
        model.kernels = np.tile(kernel[:, np.newaxis], shape[1]).astype(np.float32)
        model.meta.halfwidth = _HALF_WIDTH
        model.meta.spectral_oversampling = 5
        _save(model, path, "SPECKERNEL")


def _save(model, path, reftype):
    """Save a reference file."""
    add_header(model, reftype)
    model.save(path)


def add_header(model, reftype):
    """Set the header that all reference files share."""
    meta = {
        "telescope": "JWST",
        "reftype": reftype,
        "author": "soss_background tests",
        "pedigree": "DUMMY",
        "description": "Made of the traces of the simulator.",
        "useafter": "1900-01-01T00:00:00",
        "instrument": {"name": "NIRISS", "detector": "NIS"},
        "exposure": {"type": "NIS_SOSS"},
    }
    model.update({"meta": meta})
