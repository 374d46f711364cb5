"""Simulated visits on which the accuracy is measured."""

from dataclasses import dataclass

import numpy as np

from soss_background.detector import Window
from soss_background.numerics.integrations import average_integrations
from soss_background.simulate import FAMILIES, Simulation, choose_families, draw_simulation
from soss_background.simulate.detector_effects import draw_defects
from soss_background.simulate.exposures import flat_uncertainty, split_variance
from soss_background.simulate.visit import observe_exposures, true_sky

__all__ = ["REFERENCE", "SETTINGS", "Visit", "list_visits", "observe_visit"]

REFERENCE = Simulation(seed=1)

# The first seed of the random visits.
_FIRST_DRAW = 1000

# Visits of other lengths, levels and densities, with the reference nuisances.
SETTINGS = {
    "reference": REFERENCE,
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
    "faint edge, wheel turned": Simulation(seed=12, step_contrast=0.8, pwcpos=245.9),
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


def list_visits(n_drawn=30):
    """
    List the visits of the benchmark.

    Parameters
    ----------
    n_drawn : int, optional
        Number of visits with all nuisances drawn at random.

    Returns
    -------
    visits : dict of dict of `~soss_background.simulate.Simulation`
        By group and name: those with all nuisances at random, with and without errors of the flat
        reference file, which no method can correct; the reference visit with one changed family;
        visits of other lengths, levels and densities.
    """
    drawn = {f"drawn {i}": draw_simulation(_FIRST_DRAW + i) for i in range(1, n_drawn + 1)}
    families = {}
    for nuisance, choices in FAMILIES.items():
        for family in choices:
            simulation = choose_families(REFERENCE, **{nuisance: family})
            if simulation != REFERENCE:
                families[f"{nuisance}={family}"] = simulation
    exact = {name: each for name, each in drawn.items() if each.flat_pixel_error == 0}
    return {
        "drawn, exact flat": exact,
        "drawn, flat with errors": {name: drawn[name] for name in drawn if name not in exact},
        "one family": families,
        "other settings": SETTINGS,
    }


@dataclass
class Visit:
    """
    The flat-fielded exposures of a visit, and the truth.

    Attributes
    ----------
    images, errors : ndarray of float32, shape (n, ny, nx)
        Exposures and their uncertainties in DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags.
    truth : ndarray of float32, shape (ny, nx)
        The sky in DN/s.
    light, stripes : ndarray of float32, shape (n, ny, nx)
        Star light (persistence included), and 1/f stripes and pedestals in the exposures, in DN/s.
    window : `~soss_background.detector.Window`
        The pixels.
    flat_error : float
        Relative uncertainty of the flat reference file.
    """

    images: np.ndarray
    errors: np.ndarray
    flags: np.ndarray
    truth: np.ndarray
    light: np.ndarray
    stripes: np.ndarray
    window: Window
    flat_error: float


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
    flat, response = defects.reference_flat, defects.flat / defects.reference_flat
    images, errors, light, stripes = np.empty((4, n, *window.shape), dtype=np.float32)
    flags = np.empty(images.shape, dtype=np.uint32)
    for i, exposure in enumerate(observe_exposures(simulation, defects)):
        mean, mean_stripes = _average(exposure, simulation)
        images[i] = mean["data"] / flat
        # Propagate the uncertainty of the flat as jwst's flat_field does.
        flat_error = images[i] * flat_uncertainty(simulation)
        errors[i] = np.hypot(mean["err"], flat_error) / flat
        flags[i] = mean["dq"] | defects.flat_dq
        light[i] = exposure.light * response
        stripes[i] = mean_stripes / flat
    return Visit(
        images,
        errors,
        flags,
        true_sky(simulation),
        light,
        stripes,
        window,
        flat_uncertainty(simulation),
    )


def _average(exposure, simulation):
    """Average the integrations of an exposure; return the mean and the stripes in it, DN/s."""
    errors, dq = exposure.errors, exposure.dq
    variances = split_variance(errors, simulation)
    mean, clean = (
        average_integrations(images, errors, dq, *variances)
        for images in (exposure.images, exposure.images - exposure.stripes)
    )
    return mean, np.nan_to_num(mean["data"] - clean["data"])
