"""Effects of the detector: flat field, defects, cosmic rays, snowballs, noise and flags."""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import FULL, GAIN
from soss_background.simulate.streams import detector_rows, random_stream

__all__ = [
    "Defects",
    "Hits",
    "cosmic_rays",
    "draw_defects",
    "flag_saturation",
    "flat_field",
    "hot_pixels",
    "integrate",
    "missing_columns",
    "pixel_flags",
    "snowballs",
]

PIXEL = dqflags.pixel
# Counts (DN) above which a pixel saturates.
SATURATION = 60000.0
# Fraction of pixels without a usable flat field.
NO_FLAT = 5e-4
# Distance between the knots of the flat's large-scale structure, pixels.
FLAT_KNOTS = 256
# Excess of hot pixels, DN/s: cumulative number ~ excess ** -slope between smallest and largest. The
# slope is that of the outliers in a deep F277W stack.
HOT_SLOPE, HOT_LARGEST = 1.6, 1000.0
SMALLEST_KNOWN, SMALLEST_UNKNOWN = 5.0, 0.4
# Power law of the excess that unflagged cosmic rays leave, DN/s.
HIT_SLOPE, HIT_LARGEST = 1.0, 50.0
# Snowballs: smallest and largest radius, pixels; radius of the core relative to it; smallest and
# largest excess in the centre, DN/s in an integration of SNOWBALL_TIME seconds.
SNOWBALL_RADII, SNOWBALL_CORE = (5.0, 30.0), 0.5
SNOWBALL_EXCESS, SNOWBALL_TIME = (0.3, 3.0), 100.0


class Defects(NamedTuple):
    """
    Properties of the detector that all integrations share, arrays of shape (ny, nx).

    Attributes
    ----------
    flat : ndarray of float32
        Response of the pixels, mean 1 over the full detector.
    reference_flat : ndarray of float32
        The response according to the flat reference file.
    alive : ndarray of bool
        False for dead pixels.
    excess, unflagged : ndarray of float32
        Current of all hot pixels and of the unflagged ones, DN/s, not multiplied by the flat.
    dq, flat_dq : ndarray of uint32
        Flags of every integration, and of the flat reference file.
    """

    flat: np.ndarray
    reference_flat: np.ndarray
    alive: np.ndarray
    excess: np.ndarray
    unflagged: np.ndarray
    dq: np.ndarray
    flat_dq: np.ndarray


class Hits(NamedTuple):
    """
    Cosmic rays of one integration, arrays of shape (ny, nx).

    Attributes
    ----------
    jump : ndarray of bool
        True where a jump was detected: the ramp is cut there, and noisier.
    excess : ndarray of float32
        Count rate added by undetected hits, DN/s.
    """

    jump: np.ndarray
    excess: np.ndarray


def draw_defects(simulation):
    """Return the `Defects` of the detector of a `Simulation`."""
    window, seed = simulation.window, simulation.seed
    pixel_rms, large_rms = simulation.flat_pixel_rms, simulation.flat_large_rms
    flat = flat_field(window, pixel_rms=pixel_rms, large_rms=large_rms, seed=seed)
    errors = {"pixel_rms": simulation.flat_pixel_error, "large_rms": simulation.flat_large_error}
    dead = _chosen(window, simulation.dead, "dead", seed)
    flagged = hot_pixels(window, simulation.flagged_hot, known=True, seed=seed)
    unflagged = hot_pixels(window, simulation.unflagged_hot, known=False, seed=seed)
    useless = (flagged > 0) | dead | window.reference_pixels()
    unflagged[useless] = 0
    flat_dq = np.zeros(window.shape, dtype=np.uint32)
    if pixel_rms or large_rms:
        no_flat = _chosen(window, NO_FLAT, "no flat", seed)
        flat_dq[no_flat] = PIXEL["NO_FLAT_FIELD"] | PIXEL["DO_NOT_USE"]
    return Defects(
        flat=flat,
        reference_flat=flat * flat_field(window, **errors, seed=seed, name="flat error"),
        alive=~dead,
        excess=flagged + unflagged,
        unflagged=unflagged,
        dq=pixel_flags(window, hot=flagged > 0, dead=dead),
        flat_dq=flat_dq,
    )


def flat_field(window, *, pixel_rms=0.01, large_rms=0.02, seed=1, name="flat"):
    """Return the response of the pixels, float32 (ny, nx), mean 1 over the full detector."""
    noise = detector_rows(window, _normal, seed, name) * np.float32(pixel_rms)
    knots = np.arange(-3, FULL.nx // FLAT_KNOTS + 5) * FLAT_KNOTS
    number = len(knots) - 4
    rng = random_stream(seed, f"large {name}")
    weights = rng.normal(scale=large_rms / 0.48, size=(number, number))
    spline_y = BSpline.design_matrix(window.y0 + np.arange(window.ny), knots, 3)
    spline_x = BSpline.design_matrix(window.x0 + np.arange(window.nx), knots, 3)
    everywhere = BSpline.design_matrix(np.arange(FULL.nx), knots, 3).mean(axis=0)
    large = spline_y @ (spline_x @ weights.T).T - everywhere @ weights @ everywhere
    return np.clip(1 + large + noise, 0.1, None).astype(np.float32)


def _normal(rng, number):
    return rng.standard_normal(number, dtype=np.float32)


def _uniform(rng, number):
    return rng.random(number, dtype=np.float32)


def _chosen(window, fraction, name, seed):
    """Return True for a fraction of the detector's pixels."""
    return detector_rows(window, _uniform, seed, name) < fraction


def hot_pixels(window, fraction, *, known, seed=1):
    """Return the steady excess of hot pixels, float32 (ny, nx), DN/s; 0 for good pixels."""
    # The strong hot pixels are known to the masks of bad pixels.
    name = "known hot" if known else "unknown hot"
    smallest = SMALLEST_KNOWN if known else SMALLEST_UNKNOWN
    chance = detector_rows(window, _uniform, seed, name)
    hot = chance < fraction
    excess = np.zeros(window.shape, dtype=np.float32)
    excess[hot] = smallest * (np.maximum(chance[hot], 1e-9) / fraction) ** (-1 / HOT_SLOPE)
    return np.minimum(excess, HOT_LARGEST)


def pixel_flags(window, *, hot, dead):
    """Return the flags, uint32 (ny, nx), of hot, dead (both bool) and reference pixels."""
    dq = np.zeros(window.shape, dtype=np.uint32)
    reference = window.reference_pixels()
    for bad, name in ((hot, "HOT"), (dead, "DEAD")):
        dq[bad] |= PIXEL[name] | PIXEL["DO_NOT_USE"]
    dq[reference] = PIXEL["REFERENCE_PIXEL"] | PIXEL["DO_NOT_USE"]
    dq[:, missing_columns(window)] = PIXEL["REFERENCE_PIXEL"]
    return dq


def missing_columns(window):
    """Return True for the columns of a superstripe that are not read, shape (nx,)."""
    missing = np.ones(window.nx, dtype=bool)
    for columns in window.column_blocks():
        missing[columns] = False
    return missing


def cosmic_rays(shape, expected, unflagged, rng):
    """Return the `Hits` of one integration, from the expected number of hits per pixel."""
    jump, excess = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32)
    hits = rng.poisson(expected * shape[0] * shape[1])
    y, x = rng.uniform(0, shape[0], hits), rng.uniform(0, shape[1], hits)
    angle, length = rng.uniform(0, 2 * np.pi, hits), rng.geometric(0.4, hits)
    missed = rng.uniform(size=hits) < unflagged
    light = np.minimum(0.3 * rng.uniform(size=hits) ** (-1 / HIT_SLOPE), HIT_LARGEST)
    for step in range(length.max(initial=0)):
        rows = np.floor(y + step * np.sin(angle)).astype(int)
        columns = np.floor(x + step * np.cos(angle)).astype(int)
        inside = (step < length) & (rows >= 0) & (rows < shape[0])
        inside &= (columns >= 0) & (columns < shape[1])
        found, lost = inside & ~missed, inside & missed
        jump[rows[found], columns[found]] = True
        excess[rows[lost], columns[lost]] = light[lost]
    return Hits(jump, excess)


def snowballs(window, expected, time, rng):
    """
    Return the snowballs of one integration: disks with a flagged core and a fainter halo.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        Pixels to compute.
    expected : float
        Expected number of snowballs over the full detector.
    time : float
        Integration time, s.
    rng : `numpy.random.Generator`
        Source of random numbers.

    Returns
    -------
    core : ndarray of bool, shape (ny, nx)
        True in the cores.
    excess : ndarray of float32, shape (ny, nx)
        Count rate that they add, DN/s.
    """
    core, excess = np.zeros(window.shape, dtype=bool), np.zeros(window.shape, dtype=np.float32)
    number = rng.poisson(expected)
    rows = window.y0 + np.arange(window.ny)[:, np.newaxis]
    columns = window.x0 + np.arange(window.nx)
    centres = rng.uniform(0, FULL.ny, (number, 2))
    radii = rng.uniform(*SNOWBALL_RADII, number)
    peaks = np.exp(rng.uniform(*np.log(SNOWBALL_EXCESS), number)) * SNOWBALL_TIME / time
    for (y, x), radius, peak in zip(centres, radii, peaks, strict=True):
        near = np.hypot(rows - y, columns - x) / radius
        core |= near < SNOWBALL_CORE
        excess += (peak * np.clip(1 - near**2, 0, None)).astype(np.float32)
    return core, excess


def integrate(rate, *, time, photon_noise, read_noise, jump, rng):
    """
    Return the noisy slope that ramp fitting finds, and its uncertainty.

    Parameters
    ----------
    rate : ndarray of float32, shape (ny, nx)
        True count rate, DN/s.
    time : float
        Integration time, s.
    photon_noise : bool
        Whether to add photon noise.
    read_noise : float
        Read noise (rms) of the slope, DN/s.
    jump : ndarray of bool, shape (ny, nx)
        True where the ramp is cut by a jump.
    rng : `numpy.random.Generator`
        Source of random numbers.

    Returns
    -------
    slope, error : ndarray of float32, shape (ny, nx)
        Count rate and, as in the archive, its uncertainty from the noisy slope itself; DN/s.
    """
    penalty = np.ones(rate.shape, dtype=np.float32)
    # A ramp cut at a random place is 1 to 4 times as uncertain in variance.
    penalty[jump] = rng.uniform(1, 4, np.count_nonzero(jump))
    noise = np.full(rate.shape, read_noise**2, dtype=np.float32)
    if photon_noise:
        noise += np.maximum(rate, 0) / (GAIN * time)
    noise = np.sqrt(noise * penalty)
    slope = rate + noise * _normal(rng, rate.shape)
    variance = np.maximum(slope, 0) / np.float32(GAIN * time) + np.float32(read_noise**2)
    return slope, np.sqrt(variance * penalty)


def flag_saturation(slope, dq, time, groups):
    """Flag saturated pixels in place; set slopes that saturate within two groups to NaN."""
    counts = slope * time
    dq[counts > SATURATION] |= PIXEL["SATURATED"]
    lost = counts * 2 / groups > SATURATION
    dq[lost] |= PIXEL["DO_NOT_USE"]
    slope[lost] = np.nan
