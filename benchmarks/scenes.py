"""Skyflats of simulated visits, created by the pipeline, and time series with other skies."""

import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels

from soss_background import SkyflatPipeline
from soss_background.detector import Window
from soss_background.io.templates import read_templates
from soss_background.numerics.integrations import average_integrations
from soss_background.simulate import (
    Simulation,
    draw_simulation,
    simulate_time_series,
    simulate_visit,
)

__all__ = ["DEPTH", "FLUX", "Scene", "draw_sky", "make_scene", "make_skyflats", "read_skyflat"]

# Peak of the first order at 1.25 micron, DN/s, of a star like that of a real frame of program 1512
# (J = 9.6, 800 DN/s there) at other magnitudes.
FLUX = {9: 1400.0, 11: 220.0, 13: 35.0, None: 1e-3}

# Depth of the transit, and integrations of a time series.
DEPTH, _INTEGRATIONS, _INTEGRATION_TIME = 0.01, 8, 250.0

# First seeds of the skyflats and of the scenes.
_FIRST_VISIT, _FIRST_SCENE = 24_000, 25_000


@dataclass
class Scene:
    """
    A time series of a target, and its truth.

    Attributes
    ----------
    cube, errors : ndarray of float32, shape (n, ny, nx)
        Integrations and their uncertainties, DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags.
    mean : dict of ndarray, shape (ny, nx)
        Mean of the integrations: data, err, dq.
    sky, target : ndarray of float32, shape (ny, nx)
        The sky, and the target outside its transit, DN/s.
    window : `~soss_background.detector.Window`
        The pixels.
    """

    cube: np.ndarray
    errors: np.ndarray
    flags: np.ndarray
    mean: dict
    sky: np.ndarray
    target: np.ndarray
    window: Window


def draw_sky(seed, window, *, families=None, **settings):
    """Draw settings with a random family of each nuisance, and a level of 0.5 to 1.5."""
    families = {"flat": "exact"} | (families or {})
    simulation = draw_simulation(seed, Simulation(window=window, **settings), **families)
    return replace(simulation, sky_level=float(np.random.default_rng(seed).uniform(0.5, 1.5)))


def make_skyflats(number, window, folder):
    """Return the paths of skyflats in a folder; create missing ones."""
    return [_make_skyflat(index, window, Path(folder)) for index in range(1, number + 1)]


def _make_skyflat(index, window, folder):
    """Simulate a visit of ten exposures and create its skyflat, unless it exists."""
    folder = folder / window.name
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{index:03d}_000_skyflat.fits"
    for path in folder.glob(f"*_{name}"):
        return path
    simulation = draw_sky(_FIRST_VISIT + index, window, observation=f"{index:03d}")
    with tempfile.TemporaryDirectory() as exposures:
        association = simulate_visit(Path(exposures) / "visit", simulation)
        steps = {
            "flat_field": {"override_flat": str(association.parent / "flat.fits")},
            "skyflat_combine": {"save_stack": False},
        }
        settings = {"output_dir": str(folder), "save_results": True}
        SkyflatPipeline.call(str(association), steps=steps, **settings)
    (path,) = folder.glob(f"*_{name}")
    return path


@cache
def read_skyflat(path, window):
    """Return the template of a skyflat for a window."""
    (template,) = read_templates(path, window)
    return template


def make_scene(window, magnitude, seed, *, has_stars=True, **families):
    """
    Observe the transit of a star with a sky that differs from those of all skyflats.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        The pixels.
    magnitude : int or None
        J of the target; None for no target.
    seed : int
        Number of the scene.
    has_stars : bool
        Whether there are field stars.
    **families : str
        Families of nuisances that are not drawn.

    Returns
    -------
    scene : Scene
        The time series.
    """
    simulation = draw_sky(
        _FIRST_SCENE + seed,
        window,
        families=families,
        n_integrations=_INTEGRATIONS,
        exposure_time=_INTEGRATIONS * _INTEGRATION_TIME,
    )
    # Neither method needs a flat, since all pixels have the same response.
    simulation = replace(simulation, flat_pixel_rms=0.0, flat_large_rms=0.0)
    if not has_stars:
        simulation = replace(simulation, star_density=0.0)
    target = {"target_flux": FLUX[magnitude], "transit_depth": DEPTH}
    with tempfile.TemporaryDirectory() as folder:
        path = simulate_time_series(folder, simulation, **target)
        with fits.open(path.parent / "time_series_truth.fits") as truth:
            sky, star = (truth[name].data.astype(np.float32) for name in ("SKY", "TARGET"))
        with datamodels.CubeModel(path) as model:
            names = ("data", "err", "dq", "var_poisson", "var_rnoise")
            planes = [np.array(getattr(model, name)) for name in names]
    mean = average_integrations(*planes)
    return Scene(*planes[:3], mean, sky, star, window)
