"""The simulated visits that accuracy is judged on."""

from dataclasses import dataclass, replace

import numpy as np

from soss_background.detector import Window
from soss_background.numerics.integrations import average_integrations
from soss_background.simulate import Simulation, draw_stars, star_image
from soss_background.simulate.detector_effects import draw_defects
from soss_background.simulate.exposures import split_variance
from soss_background.simulate.scene import dither_offsets
from soss_background.simulate.visit import observe, true_sky, variations

__all__ = ["SIMULATIONS", "Visit", "observe_visit"]

SIMULATIONS = {
    "reference": Simulation(seed=1),
    "another seed": Simulation(seed=2),
    "a third seed": Simulation(seed=3),
    "sparse, faint sky": Simulation(seed=4, star_density=0.3, sky_level=0.6),
    "crowded": Simulation(seed=5, star_density=3.0),
    "crowded, 8 x 100 s": Simulation(
        seed=6, star_density=2.5, n_exposures=8, exposure_time=100.0, sky_level=1.5
    ),
    "5 x 600 s": Simulation(seed=7, n_exposures=5, exposure_time=600.0),
    "20 x 100 s": Simulation(seed=8, n_exposures=20, exposure_time=100.0, n_integrations=1),
    "no 1/f, even levels": Simulation(seed=9, stripes=0.0, level_scatter=0.0, colour_scatter=0.0),
    "1/f of 0.2 DN/s": Simulation(seed=10, stripes=0.2, exposure_time=150.0),
    "levels to 1 %": Simulation(seed=11, level_scatter=0.01, step_contrast=1.1),
    "faint step, wheel turned": Simulation(seed=12, step_contrast=0.8, pwcpos=245.9),
    "two integrations": Simulation(seed=13, n_integrations=2, sky_level=1.5, star_density=1.5),
    "worst of all": Simulation(
        seed=14,
        n_exposures=5,
        exposure_time=100.0,
        sky_level=0.5,
        step_contrast=1.15,
        star_density=3.0,
        stripes=0.2,
        level_scatter=0.01,
    ),
}


@dataclass
class Visit:
    """
    The flat-fielded exposures of a visit, and what is true of them.

    Attributes
    ----------
    images, errors : ndarray of float32, shape (n, ny, nx)
        Exposures and their uncertainties in DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags.
    truth : ndarray of float32, shape (ny, nx)
        The sky in DN/s.
    light, stripes : ndarray of float32, shape (n, ny, nx)
        Star light and 1/f stripes in the exposures, in DN/s.
    window : `~soss_background.detector.Window`
        The pixels.
    """

    images: np.ndarray
    errors: np.ndarray
    flags: np.ndarray
    truth: np.ndarray
    light: np.ndarray
    stripes: np.ndarray
    window: Window


def observe_visit(simulation):
    """
    Simulate a visit in memory, averaged over integrations and flat-fielded.

    Parameters
    ----------
    simulation : `~soss_background.simulate.Simulation`
        The settings.

    Returns
    -------
    visit : Visit
        Exposures and truth.
    """
    window, n = simulation.window, simulation.n_exposures
    defects = draw_defects(simulation)
    stars = draw_stars(simulation.star_density, simulation.seed)
    dithers = dither_offsets(n, simulation.seed)
    levels, contrasts = variations(simulation)
    images, errors, light, stripes = np.empty((4, n, *window.shape), dtype=np.float32)
    flags = np.empty(images.shape, dtype=np.uint32)
    for i in range(n):
        light[i] = star_image(window, stars, dithers[i], simulation.pwcpos)
        rate = levels[i] * true_sky(simulation, contrasts[i]) + light[i]
        # Noise does not depend on the stripes, hence the difference is stripes alone.
        exposure, still = (
            _expose(rate, defects, s, i) for s in (simulation, replace(simulation, stripes=0.0))
        )
        images[i] = exposure["data"] / defects.flat
        errors[i] = exposure["err"] / defects.flat
        flags[i] = exposure["dq"] | defects.flat_dq
        stripes[i] = np.nan_to_num((exposure["data"] - still["data"]) / defects.flat)
    return Visit(images, errors, flags, true_sky(simulation), light, stripes, window)


def _expose(rate, defects, simulation, index):
    """Read out an exposure and average its integrations."""
    images, errors, dq = observe([rate] * simulation.n_integrations, defects, simulation, index)
    return average_integrations(images, errors, dq, *split_variance(errors, simulation))
