"""Groups of integrations: linear ramps with photon noise, read noise and 1/f noise."""

import numpy as np
from stdatamodels.jwst import datamodels

from soss_background.detector import GAIN
from soss_background.io.files import save_datamodel
from soss_background.simulate.headers import header
from soss_background.simulate.streams import random_stream
from soss_background.simulate.stripes import stripe_pattern

__all__ = ["read_groups", "write_ramps"]


def read_groups(rate, defects, simulation, integration):
    """
    Read out the groups of one integration.

    The noise of a group is chosen so that a least-squares slope has the read noise and stripes of
    the settings. There are no cosmic rays, and no saturation.

    Parameters
    ----------
    rate : ndarray of float32, shape (ny, nx)
        True count rate, DN/s.
    defects : `~soss_background.simulate.detector_effects.Defects`
        Properties of the detector.
    simulation : `~soss_background.simulate.Simulation`
        The settings.
    integration : int
        Number of the integration, from 0.

    Returns
    -------
    groups : ndarray of float32, shape (ngroups, ny, nx)
        Counts, DN.
    """
    number, time = simulation.groups, simulation.integration_time / simulation.groups
    rng = random_stream(simulation.seed, "groups", integration)
    gain = rate * defects.flat * defects.alive + defects.excess
    # Standard deviation of the mean of groups about a line, see the docstring.
    lever = time * np.sqrt(number * (number**2 - 1) / 12)
    groups = np.empty((number, *rate.shape), dtype=np.float32)
    counts = np.zeros_like(rate)
    for group in groups:
        counts += gain * time
        if simulation.photon_noise:
            photons = np.sqrt(np.maximum(gain, 0) * time / GAIN)
            counts += photons * rng.standard_normal(rate.shape, dtype=np.float32)
        noise = rng.standard_normal(rate.shape, dtype=np.float32)
        group[:] = counts + np.float32(simulation.slope_noise * lever) * noise
        stripes = simulation.stripes * lever
        group += stripe_pattern(simulation.window, stripes, rng, power=simulation.stripe_power)
    groups[:, simulation.window.reference_pixels()] = 0
    return groups


def write_ramps(rateints, groups, dq, simulation):
    """Write groups (n, ngroups, ny, nx), DN, and flags (ny, nx) as _ramp next to the _rateints."""
    path = rateints.with_name(rateints.name.replace("rateints", "ramp"))
    with datamodels.RampModel(data=groups, pixeldq=dq) as model:
        model.groupdq = np.zeros(groups.shape, dtype=np.uint8)
        model.update({"meta": header(simulation, 1, (0.0, 0.0), time_series=True)})
        model.meta.cal_step.ramp_fit = model.meta.cal_step.gain_scale = None
        model.meta.filename = path.name
        save_datamodel(model, path)
