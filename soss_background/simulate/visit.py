"""Simulated visits with known truth: dithered exposures of blank sky, or a transit."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst.datamodels import dqflags
from tqdm import tqdm

from soss_background.io.files import check_folder, save_whole
from soss_background.simulate.detector_effects import (
    SNOWBALL_TIME,
    cosmic_rays,
    draw_defects,
    flag_saturation,
    integrate,
    missing_columns,
    snowballs,
)
from soss_background.simulate.dispersed_sky import plain_sky, sky_image
from soss_background.simulate.exposures import write_association, write_exposure, write_flat
from soss_background.simulate.headers import exposure_name
from soss_background.simulate.ramps import read_groups, write_ramps
from soss_background.simulate.scene import Stars, dither_offsets, draw_stars, star_image
from soss_background.simulate.settings import Simulation
from soss_background.simulate.streams import random_stream
from soss_background.simulate.stripes import draw_stripes

__all__ = [
    "Exposure",
    "observe",
    "observe_exposures",
    "simulate_time_series",
    "simulate_visit",
    "true_sky",
    "variations",
]

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
        Output folder of the exposures, ``flat.fits``, ``truth.fits`` and the association. The
        truth holds the true sky at unit response. If the flat reference file has errors, they limit
        the accuracy of skyflats on small scales.
    simulation : `Simulation`, optional
        The settings; the defaults give ten dithered FULL exposures of a moderate field.

    Returns
    -------
    association : `~pathlib.Path`
        The association file.
    """
    simulation = simulation or Simulation()
    directory = Path(directory)
    check_folder(directory)
    defects = draw_defects(simulation)
    number = simulation.n_exposures
    rows, lights = [], np.zeros((number, *simulation.window.shape), dtype=np.float32)
    exposures = observe_exposures(simulation, defects)
    progress = tqdm(exposures, desc="simulating", total=number, disable=None)
    for index, exposure in enumerate(progress):
        lights[index] = exposure.light
        name = exposure_name(simulation, index + 1)
        rows.append((name, exposure.level, exposure.contrast, *exposure.dither))
        planes = (exposure.images, exposure.errors, exposure.dq)
        where = {"number": index + 1, "dither": exposure.dither}
        write_exposure(directory / name, *planes, simulation=simulation, **where)
    write_flat(directory / "flat.fits", defects.reference_flat, defects.flat_dq, simulation)
    table = Table(rows=rows, names=("filename", "level", "contrast", "dither_x", "dither_y"))
    truth = _truth_images(simulation, defects, lights)
    truth.append(fits.BinTableHDU(table, name="LEVELS"))
    if simulation.families:
        families = Table(rows=simulation.families, names=("nuisance", "family"))
        truth.append(fits.BinTableHDU(families, name="FAMILIES"))
    save_whole(truth.writeto, directory / "truth.fits")
    return write_association(directory, [row[0] for row in rows], simulation)


class Exposure(NamedTuple):
    """
    An exposure of a visit.

    Attributes
    ----------
    images, errors : ndarray of float32, shape (n_integrations, ny, nx)
        Count rates and their uncertainties, DN/s, before the flat field is divided out.
    dq : ndarray of uint32, shape (n_integrations, ny, nx)
        Flags.
    stripes : ndarray of float32, shape (n_integrations, ny, nx)
        Stripes and pedestals in the images, DN/s.
    light : ndarray of float32, shape (ny, nx)
        Count rate of the stars, with their persistence, before the flat field is applied, DN/s.
    level, contrast : float
        Level and edge contrast of the sky relative to the settings.
    dither : tuple of float
        Shift (x, y) of the field on the detector, pixels.
    """

    images: np.ndarray
    errors: np.ndarray
    dq: np.ndarray
    stripes: np.ndarray
    light: np.ndarray
    level: float
    contrast: float
    dither: tuple


def observe_exposures(simulation, defects):
    """
    Simulate the exposures of a visit, one after the other.

    Parameters
    ----------
    simulation : `Simulation`
        The settings.
    defects : `~soss_background.simulate.detector_effects.Defects`
        Properties of the detector.

    Yields
    ------
    exposure : Exposure
        The next exposure.
    """
    stars = _draw_field(simulation)
    dithers = dither_offsets(simulation.n_exposures, simulation.seed)
    levels, contrasts = variations(simulation)
    persistent = np.zeros(simulation.window.shape, dtype=np.float32)
    for index, (level, contrast) in enumerate(zip(levels, contrasts, strict=True)):
        dither = tuple(map(float, dithers[index]))
        light = _star_light(simulation, stars, dither)
        seen = light + persistent
        persistent = np.float32(simulation.persistence_decay) * persistent
        persistent += np.float32(simulation.persistence) * light
        rate = true_sky(simulation, level, contrast) + seen
        planes = _observe([rate] * simulation.n_integrations, defects, simulation, index)
        yield Exposure(*planes, seen, float(level), float(contrast), dither)


def _draw_field(simulation):
    """Draw the field stars of a simulation."""
    return draw_stars(
        simulation.star_density,
        simulation.seed,
        slope=simulation.star_slope,
        spectra=simulation.star_spectra,
        galaxies=simulation.galaxies,
    )


def _star_light(simulation, stars, dither=(0.0, 0.0)):
    """Return the count rate of stars at a dither (x, y), float32 (ny, nx), DN/s."""
    return star_image(
        simulation.window,
        stars,
        dither,
        simulation.pwcpos,
        spread=simulation.spread,
        trace_shifts=simulation.trace_shifts,
        shape=simulation.sky_shape,
        order0=simulation.order0,
        filter_name=simulation.filter_name,
    )


def simulate_time_series(
    directory, simulation, *, target_flux=500.0, transit_depth=0.01, ramps=False, f277w=False
):
    """
    Simulate one undithered exposure of a star with a transit.

    Parameters
    ----------
    directory : str or `~pathlib.Path`
        Output folder of the exposure, ``time_series_flat.fits`` and ``time_series_truth.fits``;
        with ``f277w`` also of the second exposure.
    simulation : `Simulation`
        The settings; the number of exposures is ignored.
    target_flux : float, optional
        Peak across the target's first order at 1.25 micron, DN/s.
    transit_depth : float, optional
        Fraction of the target's flux that is lost in mid-transit, at all wavelengths.
    ramps : bool, optional
        Whether to write the groups of the integrations, too, as a ``_ramp`` file.
    f277w : bool, optional
        Whether to write an exposure of the same field with F277W, too, whose sky, field stars and
        target become F277W_SKY, F277W_STARS and F277W_TARGET of the truth.

    Returns
    -------
    exposure : `~pathlib.Path`
        The ``_rateints`` file.
    """
    simulation = replace(simulation, n_exposures=1)
    directory = Path(directory)
    check_folder(directory)
    defects = draw_defects(simulation)
    field = _draw_field(simulation)
    light = _star_light(simulation, field)
    star = Stars(*(np.array([value]) for value in (0.0, 0.0, target_flux, TARGET_TEMPERATURE)))
    target = _star_light(simulation, star)
    steady = true_sky(simulation) + light
    blocks = simulation.window.column_blocks()
    curve = transit_curve(simulation.n_integrations * len(blocks), transit_depth)
    if len(blocks) > 1:
        curve = curve.reshape(-1, len(blocks))
    exposure = observe(_transit(steady, target, curve, blocks), defects, simulation, 0)
    path = directory / exposure_name(simulation, 1, time_series=True)
    write_exposure(path, *exposure, simulation=simulation, time_series=True)
    if ramps:
        rates = enumerate(_transit(steady, target, curve, blocks))
        groups = [read_groups(rate, defects, simulation, number) for number, rate in rates]
        write_ramps(path, np.array(groups), defects.dq, simulation)
    flat = directory / "time_series_flat.fits"
    write_flat(flat, defects.reference_flat, defects.flat_dq, simulation)
    truth = _truth_images(simulation, defects, light[np.newaxis])
    truth.append(fits.ImageHDU(target, name="TARGET"))
    table = Table([np.arange(len(curve)) + 1, curve], names=("integration", "brightness"))
    truth.append(fits.BinTableHDU(table, name="TRANSIT"))
    if f277w:
        scene = _add_f277w(directory, simulation, defects, field, star)
        truth += [fits.ImageHDU(plane, name=f"F277W_{name}") for name, plane in scene.items()]
    save_whole(truth.writeto, directory / "time_series_truth.fits")
    return path


def _add_f277w(directory, simulation, defects, field, star):
    """Write the exposure with F277W that follows a time series; return sky, stars and target."""
    simulation = replace(simulation, filter_name="F277W")
    stars, target = (_star_light(simulation, each) for each in (field, star))
    scene = {"SKY": true_sky(simulation), "STARS": stars, "TARGET": target}
    rates = [sum(scene.values())] * simulation.n_integrations
    planes = observe(rates, defects, simulation, 1)
    path = directory / exposure_name(simulation, 2, time_series=True)
    write_exposure(path, *planes, simulation=simulation, number=2, time_series=True)
    return scene


def _transit(steady, target, curve, blocks):
    """Yield the count rate of each integration, float32 (ny, nx), DN/s."""
    for row in curve:
        brightness = np.ones(target.shape[1], dtype=np.float32)
        for columns, value in zip(blocks, np.atleast_1d(row), strict=True):
            brightness[columns] = value
        yield steady + brightness * target


def transit_curve(number, depth):
    """Return the relative flux of a trapezoidal transit in the middle half, shape (number,)."""
    phase = np.abs((np.arange(number) + 0.5) / number - 0.5) / 0.5
    return 1 - depth * np.clip((0.5 - phase) / INGRESS + 0.5, 0, 1)


def observe(rates, defects, simulation, exposure):
    """Return images, errors (DN/s) and flags, shape (n, ny, nx), of count rates (ny, nx), DN/s."""
    return _observe(rates, defects, simulation, exposure)[:3]


def _observe(rates, defects, simulation, exposure):
    """Return images, errors, flags, and the stripes in the images, as `observe`."""
    shape = (simulation.n_integrations, *simulation.window.shape)
    images, errors, stripes = (np.empty(shape, dtype=np.float32) for _ in range(3))
    dq = np.empty(shape, dtype=np.uint32)
    for index, rate in enumerate(rates):
        images[index], errors[index], dq[index], stripes[index] = _read_out(
            rate, defects, simulation, exposure, index
        )
    return images, errors, dq, stripes


def _read_out(light, defects, simulation, exposure, integration):
    """Return count rate, uncertainty, flags and stripes of one integration."""
    window, time = simulation.window, simulation.integration_time
    # The number of flagged cosmic rays determines how many numbers are drawn from this stream, so
    # the settings of cosmic rays change the noise. Other settings do not.
    rng = random_stream(simulation.seed, "readout", exposure, integration)
    dq = defects.dq.copy()
    expected = simulation.cosmic_rays * time
    hits = cosmic_rays(window.shape, expected, simulation.unflagged_cosmic_rays, rng)
    dq[hits.jump] |= PIXEL["JUMP_DET"]
    snow = _draw_snowballs(simulation, exposure, integration, dq)
    slope, error = integrate(
        light * defects.flat * defects.alive + defects.excess + hits.excess + snow,
        time=time,
        photon_noise=simulation.photon_noise,
        read_noise=simulation.slope_noise,
        jump=hits.jump,
        rng=rng,
    )
    stripes = draw_stripes(simulation, exposure, integration, rng)
    slope += stripes
    flag_saturation(slope, dq, time, simulation.groups)
    if simulation.lost:
        lost = rng.random(window.shape, dtype=np.float32) < simulation.lost
        dq[lost] |= PIXEL["DO_NOT_USE"]
        slope[lost] = np.nan
    error[np.isnan(slope)] = np.nan
    error *= np.float32(simulation.error_factor)
    reference = window.reference_pixels()
    slope[reference], error[reference], dq[reference] = 0, 0, defects.dq[reference]
    error[:, missing_columns(window)] = simulation.slope_noise  # as from calwebb_detector1
    return slope, error, dq, stripes


def _draw_snowballs(simulation, exposure, integration, dq):
    """Draw snowballs and flag their cores in place; return their count rate (ny, nx), DN/s."""
    if not simulation.snowballs:
        return np.zeros(simulation.window.shape, dtype=np.float32)
    time = simulation.integration_time
    number = simulation.snowballs * time / SNOWBALL_TIME
    rng = random_stream(simulation.seed, "snowballs", exposure, integration)
    core, excess = snowballs(simulation.window, number, time, rng)
    dq[core] |= PIXEL["JUMP_DET"] | PIXEL["DO_NOT_USE"]
    return excess


def variations(simulation):
    """Return level and edge contrast of each exposure, each with a mean of exactly 1."""
    rng = random_stream(simulation.seed, "levels")
    deviations = rng.standard_normal((2, simulation.n_exposures))
    deviations -= deviations.mean(axis=1, keepdims=True)
    drift = np.linspace(-0.5, 0.5, simulation.n_exposures) if simulation.n_exposures > 1 else 0
    levels = 1 + simulation.level_scatter * deviations[0] + simulation.level_drift * drift
    return levels, 1 + simulation.colour_scatter * deviations[1]


def true_sky(simulation, level=1.0, contrast=1.0):
    """Return the sky of an exposure, float32 (ny, nx), DN/s, relative to the settings."""
    if simulation.filter_name == "F277W":
        sky = plain_sky(simulation.window, simulation.seed)
        return sky * np.float32(level * simulation.sky_level)
    sky = sky_image(
        simulation.window,
        contrast=contrast * simulation.step_contrast,
        pwcpos=simulation.pwcpos,
        profile=simulation.sky_profile,
        structure=simulation.sky_structure,
        seed=simulation.seed,
        shape=simulation.sky_shape,
    )
    return sky * np.float32(level * simulation.sky_level)


def _truth_images(simulation, defects, lights):
    """Return the HDUs that the truth files of all simulations contain."""
    # SKY is the true sky at unit response, even if the flat reference file has errors: on small
    # scales no skyflat can be better than these errors.
    return fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(true_sky(simulation), name="SKY"),
            fits.ImageHDU(lights, name="STARS"),
            fits.ImageHDU(defects.flat, name="FLAT"),
            fits.ImageHDU(defects.reference_flat, name="REFFLAT"),
            fits.ImageHDU(defects.unflagged, name="UNFLAGGED_HOT"),
        ]
    )
