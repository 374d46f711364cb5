"""JWST-format files: exposures, the flat-field reference, the association."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels

from soss_background.detector import SUPERSTRIPES
from soss_background.io.associations import save_association
from soss_background.io.files import save_datamodel
from soss_background.simulate.detector_effects import pixel_flags
from soss_background.simulate.headers import (
    block_times,
    header,
    instrument,
    integration_times,
    subarray,
)

__all__ = [
    "flat_uncertainty",
    "split_variance",
    "write_association",
    "write_exposure",
    "write_flat",
]

# Smallest uncertainty of the flat reference file.
FLAT_NOISE = 1e-4
# Log messages that the first pipeline stage stores in the file.
CALIBRATION_LOG = [
    "stpipe.Detector1Pipeline - INFO - Starting calwebb_detector1 ...",
    "stpipe.Detector1Pipeline - INFO - ... ending calwebb_detector1",
]


def write_exposure(
    path, images, errors, dq=None, *, simulation, number=1, dither=(0.0, 0.0), time_series=False
):
    """
    Write count rates as the archive's ``_rate`` or ``_rateints`` file with complete headers.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Output file; replaced if it exists.
    images : ndarray of float, shape (ny, nx) or (n_integrations, ny, nx)
        Count rates, DN/s, in the DMS orientation; a single image is written as ``_rate``.
    errors : ndarray of float, same shape
        1-sigma uncertainties, DN/s.
    dq : ndarray of uint32, same shape, optional
        Flags; by default only those of the reference pixels.
    simulation : `~soss_background.simulate.Simulation`
        The settings that fill the headers; its window must fit the images. The length of a cube
        replaces its number of integrations.
    number : int, optional
        Number of the exposure in its visit, from 1.
    dither : tuple of float, optional
        Shift (x, y) of the field on the detector, pixels.
    time_series : bool, optional
        Whether the exposure belongs to a time series of a star.

    Returns
    -------
    path : `~pathlib.Path`
        The file.

    Raises
    ------
    ValueError
        If the images do not have the shape of the window.
    """
    path, images = Path(path), np.asarray(images, dtype=np.float32)
    errors = np.asarray(errors, dtype=np.float32)
    window = simulation.window
    if images.shape[-2:] != window.shape or errors.shape != images.shape:
        raise ValueError(f"{path.name}: images {images.shape} do not fit {window}")
    if dq is None:
        good = np.zeros(window.shape, dtype=bool)
        dq = np.broadcast_to(pixel_flags(window, hot=good, dead=good), images.shape)
    if images.ndim == 3:
        simulation = replace(simulation, n_integrations=len(images))
    model_class = datamodels.CubeModel if images.ndim == 3 else datamodels.ImageModel
    with model_class(data=images, err=errors, dq=np.array(dq, dtype=np.uint32)) as model:
        model.var_poisson, model.var_rnoise = split_variance(errors, simulation)
        model.update({"meta": header(simulation, number, dither, time_series=time_series)})
        model.meta.filename = path.name
        model.cal_logs = {"calwebb_detector1": CALIBRATION_LOG}
        if images.ndim == 3:
            times = integration_times(simulation, number)
            model.int_times = np.array(times, dtype=model.get_dtype("int_times"))
            if window.name in SUPERSTRIPES:
                times = block_times(simulation, number)
                model.int_times_stripe = np.array(times, dtype=model.get_dtype("int_times_stripe"))
        save_datamodel(model, path)
    return path


def split_variance(errors, simulation):
    """Split the variance of integrations into photon noise and read noise, (DN/s)^2."""
    stated = np.float32((simulation.slope_noise * simulation.error_factor) ** 2)
    read_noise = np.minimum(errors**2, stated)
    return errors**2 - read_noise, read_noise


def flat_uncertainty(simulation):
    """Return the uncertainty of the flat reference file at a pixel, fraction."""
    errors = (FLAT_NOISE, simulation.flat_pixel_error, simulation.flat_large_error)
    return np.linalg.norm(errors)


def write_flat(path, flat, dq, simulation):
    """Write a flat-field reference file of response and flags (ny, nx); return its path."""
    path = Path(path)
    error = np.full_like(flat, flat_uncertainty(simulation))
    with datamodels.FlatModel(data=flat, dq=dq, err=error) as model:
        meta = {
            "telescope": "JWST",
            "reftype": "FLAT",
            "author": "soss_background simulator",
            "pedigree": "DUMMY",
            "description": "Flat field of a simulated NIRISS SOSS visit.",
            "useafter": "2022-01-01T00:00:00",
            "instrument": instrument(simulation),
            "subarray": subarray(simulation.window),
            "exposure": {"type": "NIS_SOSS"},
            "filename": path.name,
        }
        del meta["instrument"]["pupil_position"]
        model.update({"meta": meta})
        model.add_history_entry("Drawn at random by soss_background.simulate.")
        save_datamodel(model, path)
    return path


def write_association(directory, names, simulation):
    """Write the association of a visit in the folder of its exposures; return its path."""
    program, observation = f"{int(simulation.program):05d}", f"{int(simulation.observation):03d}"
    path = directory / f"jw{program}-o{observation}_skyflat_asn.json"
    save_association(
        path,
        [directory / name for name in names],
        f"jw{program}-o{observation}_niriss",
        program=program,
        target=simulation.target,
        observation=observation,
    )
    return path
