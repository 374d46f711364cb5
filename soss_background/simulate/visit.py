"""Simulated visits with known truth: dithered exposures of blank sky, or a transit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst.datamodels import dqflags
from tqdm import tqdm

from soss_background.simulate.detector_effects import (
    cosmic_rays,
    draw_defects,
    flag_saturation,
    integrate,
    stripe_pattern,
)
from soss_background.simulate.exposures import write_association, write_exposure, write_flat
from soss_background.simulate.headers import exposure_name
from soss_background.simulate.scene import Stars, dither_offsets, draw_stars, sky_image, star_image
from soss_background.simulate.settings import Simulation
from soss_background.simulate.streams import random_stream

__all__ = ["observe", "simulate_time_series", "simulate_visit", "true_sky", "variations"]

PIXEL = dqflags.pixel
# Duration of the ingress, and of the egress, as a fraction of the transit's duration.
INGRESS = 0.1
# Temperature of the target of a time series, K.
TARGET_TEMPERATURE = 6000.0


def simulate_visit(directory, simulation=None):
    """
    Simulate the dithered blank-sky exposures of a visit.

    Parameters
    ----------
    directory : str or `~pathlib.Path`
        Output folder of the exposures, ``flat.fits``, ``truth.fits`` and the association.
    simulation : `Simulation`, optional
        The settings; the defaults give ten dithered FULL exposures of a moderate field.

    Returns
    -------
    association : `~pathlib.Path`
        The association file.
    """
    simulation = simulation or Simulation()
    directory = _make_directory(directory)
    defects = draw_defects(simulation)
    stars = draw_stars(simulation.star_density, simulation.seed)
    dithers = dither_offsets(simulation.n_exposures, simulation.seed)
    levels, contrasts = variations(simulation)
    names, lights = [], np.zeros((len(dithers), *simulation.window.shape), dtype=np.float32)
    for index, dither in enumerate(tqdm(dithers, desc="simulating", disable=None)):
        lights[index] = star_image(simulation.window, stars, dither, simulation.pwcpos)
        rate = true_sky(simulation, levels[index], contrasts[index]) + lights[index]
        exposure = observe([rate] * simulation.n_integrations, defects, simulation, index)
        names.append(exposure_name(simulation, index + 1))
        where = {"number": index + 1, "dither": tuple(dither)}
        write_exposure(directory / names[-1], *exposure, simulation=simulation, **where)
    write_flat(directory / "flat.fits", defects.flat, defects.flat_dq, simulation)
    table = Table(
        [names, levels, contrasts, dithers[:, 0], dithers[:, 1]],
        names=("filename", "level", "contrast", "dither_x", "dither_y"),
    )
    truth = _truth_images(simulation, defects, lights)
    truth.append(fits.BinTableHDU(table, name="LEVELS"))
    truth.writeto(directory / "truth.fits", overwrite=True)
    return write_association(directory, names, simulation)


def simulate_time_series(directory, simulation, *, target_flux=500.0, transit_depth=0.01):
    """
    Simulate one undithered exposure of a star with a transit.

    Parameters
    ----------
    directory : str or `~pathlib.Path`
        Output folder of the exposure, ``time_series_flat.fits`` and ``time_series_truth.fits``.
    simulation : `Simulation`
        The settings; the number of exposures is ignored.
    target_flux : float, optional
        Peak across the target's first order at 1.25 micron, DN/s.
    transit_depth : float, optional
        Fraction of the target's flux that is lost in mid-transit, at all wavelengths.

    Returns
    -------
    exposure : `~pathlib.Path`
        The ``_rateints`` file.
    """
    simulation = replace(simulation, n_exposures=1)
    directory = _make_directory(directory)
    defects = draw_defects(simulation)
    window, pwcpos = simulation.window, simulation.pwcpos
    stars = draw_stars(simulation.star_density, simulation.seed)
    light = star_image(window, stars, pwcpos=pwcpos)
    star = Stars(*(np.array([value]) for value in (0.0, 0.0, target_flux, TARGET_TEMPERATURE)))
    target = star_image(window, star, pwcpos=pwcpos)
    steady = true_sky(simulation) + light
    curve = transit_curve(simulation.n_integrations, transit_depth)
    rates = (steady + np.float32(brightness) * target for brightness in curve)
    exposure = observe(rates, defects, simulation, 0)
    path = directory / exposure_name(simulation, 1, time_series=True)
    write_exposure(path, *exposure, simulation=simulation, time_series=True)
    write_flat(directory / "time_series_flat.fits", defects.flat, defects.flat_dq, simulation)
    truth = _truth_images(simulation, defects, light[np.newaxis])
    truth.append(fits.ImageHDU(target, name="TARGET"))
    table = Table([np.arange(len(curve)) + 1, curve], names=("integration", "brightness"))
    truth.append(fits.BinTableHDU(table, name="TRANSIT"))
    truth.writeto(directory / "time_series_truth.fits", overwrite=True)
    return path


def transit_curve(number, depth):
    """Return the relative flux of a trapezoidal transit in the middle half, shape (number,)."""
    phase = np.abs((np.arange(number) + 0.5) / number - 0.5) / 0.5
    return 1 - depth * np.clip((0.5 - phase) / INGRESS + 0.5, 0, 1)


def observe(rates, defects, simulation, exposure):
    """Return images, errors (DN/s) and flags, shape (n, ny, nx), of count rates (ny, nx), DN/s."""
    shape = (simulation.n_integrations, *simulation.window.shape)
    images, errors = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    dq = np.empty(shape, dtype=np.uint32)
    for index, rate in enumerate(rates):
        rng = random_stream(simulation.seed, "readout", exposure, index)
        images[index], errors[index], dq[index] = _read_out(rate, defects, simulation, rng)
    return images, errors, dq


def _read_out(light, defects, simulation, rng):
    """Return count rate, uncertainty and flags of one integration."""
    window, time = simulation.window, simulation.integration_time
    dq = defects.dq.copy()
    hits = cosmic_rays(
        window.shape, simulation.cosmic_rays * time, simulation.unflagged_cosmic_rays, rng
    )
    dq[hits.jump] |= PIXEL["JUMP_DET"]
    slope, error = integrate(
        light * defects.flat * defects.alive + defects.excess + hits.excess,
        time=time,
        photon_noise=simulation.photon_noise,
        read_noise=simulation.slope_noise,
        jump=hits.jump,
        rng=rng,
    )
    slope += stripe_pattern(window, simulation.stripes, rng)
    flag_saturation(slope, dq, time, simulation.groups)
    if simulation.lost:
        lost = rng.random(window.shape, dtype=np.float32) < simulation.lost
        dq[lost] |= PIXEL["DO_NOT_USE"]
        slope[lost] = np.nan
    error[np.isnan(slope)] = np.nan
    reference = window.reference_pixels()
    slope[reference], error[reference], dq[reference] = 0, 0, defects.dq[reference]
    return slope, error, dq


def _make_directory(directory):
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def variations(simulation):
    """Return level and edge contrast of each exposure, each with a mean of exactly 1."""
    rng = random_stream(simulation.seed, "levels")
    deviations = rng.standard_normal((2, simulation.n_exposures))
    deviations -= deviations.mean(axis=1, keepdims=True)
    levels = 1 + simulation.level_scatter * deviations[0]
    return levels, 1 + simulation.colour_scatter * deviations[1]


def true_sky(simulation, level=1.0, contrast=1.0):
    """Return the sky of an exposure, float32 (ny, nx), DN/s, relative to the settings."""
    sky = sky_image(
        simulation.window,
        contrast=contrast * simulation.step_contrast,
        pwcpos=simulation.pwcpos,
        profile=simulation.sky_profile,
        structure=simulation.sky_structure,
        seed=simulation.seed,
    )
    return sky * np.float32(level * simulation.sky_level)


def _truth_images(simulation, defects, lights):
    """Return the HDUs that the truth files of all simulations contain."""
    return fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(true_sky(simulation), name="SKY"),
            fits.ImageHDU(lights, name="STARS"),
            fits.ImageHDU(defects.flat, name="FLAT"),
            fits.ImageHDU(defects.unflagged, name="UNFLAGGED_HOT"),
        ]
    )
