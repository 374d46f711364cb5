"""Scene before the flat field: the dispersed sky, and field stars with their SOSS traces.

Arrays are in DN/s. Everything is defined in full-frame pixels and evaluated inside a window, so
that an image of a subarray or a small window is a cutout of the full frame.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline, PchipInterpolator, RectBivariateSpline
from scipy.signal import fftconvolve
from scipy.special import expit, gamma

from soss_background.detector import FULL, PWCPOS
from soss_background.simulate.streams import random_stream
from soss_background.simulate.traces import ORDERS, get_trace
from soss_background.sky.commissioning import SKY_COLUMNS, SKY_RATES, commissioning_profile

__all__ = [
    "Stars",
    "draw_stars",
    "dither_offsets",
    "sky_image",
    "star_image",
    "step_shift",
    "step_weight",
]

# --- the sky -----------------------------------------------------------------------------
# Columns of the edge, between which the order's sky rises from 0 to its full level.
STEP_FOOT, STEP_TOP = 680.0, 756.0
# The row to which these columns refer, and about which the sky's pattern rotates.
SKY_ROW = 1846.0
# The edge leans by 0.025 columns per row there (measured in the template and in a SUBSTRIP256
# frame); a sine of this amplitude (columns) and period (rows) keeps it near column 700.
LEAN_AMPLITUDE, LEAN_PERIOD = 6.4, 1600.0
# Structure in two dimensions, fractions of the sky: rms of each Legendre coefficient of the broad
# structure (3 to 8 % peak to peak), and of each spline coefficient of the medium-scale structure.
BROAD_RMS, MEDIUM_RMS = 0.006, 0.003
# Distance between the knots of the medium-scale structure, pixels.
MEDIUM_KNOTS = 40


def step_shift(rows, pwcpos=PWCPOS):
    """Return the shift of the sky's pattern towards larger columns in full-frame rows, pixels."""
    # The pattern turns with the wheel.
    offset = np.asarray(rows, dtype=float) - SKY_ROW
    lean = LEAN_AMPLITUDE * np.sin(2 * np.pi * offset / LEAN_PERIOD)
    return lean - np.tan(np.radians(pwcpos - PWCPOS)) * offset


def step_weight(columns):
    """Return 0 in columns left of the edge, 1 right of it, from the profile without its shift."""
    rates = commissioning_profile(np.clip(columns, STEP_FOOT, STEP_TOP))
    ends = commissioning_profile([STEP_FOOT, STEP_TOP])
    return (rates - ends[0]) / (ends[1] - ends[0])


def sky_image(window, *, contrast=1.0, pwcpos=PWCPOS, profile=None, structure=1.0, seed=1):
    """
    Compute the sky at its commissioning level.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        Pixels to compute.
    contrast : float, optional
        Factor of the sky right of its edge.
    pwcpos : float, optional
        Position of the pupil wheel, degrees.
    profile : ndarray, shape (2048,), optional
        Sky along the columns, DN/s, instead of the tabulated commissioning profile; columns
        without flux (reference pixels) are filled from their neighbours.
    structure : float, optional
        Factor of the structure in two dimensions (about 1 % rms broad, 0.3 % on scales of 50 to
        100 pixels); 0 leaves only the column profile.
    seed : int, optional
        Seed of that structure.

    Returns
    -------
    sky : ndarray of float32, shape (ny, nx)
        Surface brightness, DN/s.
    """
    if profile is None:
        columns, rates = SKY_COLUMNS, SKY_RATES
    else:
        columns = np.flatnonzero(np.asarray(profile) > 0)
        rates = np.asarray(profile, dtype=float)[columns]
    rows = window.y0 + np.arange(window.ny)
    shifted = window.x0 + np.arange(window.nx) - step_shift(rows, pwcpos)[:, np.newaxis]
    shifted = np.clip(shifted, columns[0], columns[-1])
    sky = PchipInterpolator(columns, rates)(shifted)
    if contrast != 1:
        sky *= 1 + (contrast - 1) * step_weight(shifted)
    if structure:
        sky *= 1 + structure * _structure(window, seed)
    return sky.astype(np.float32)


def _structure(window, seed):
    """Return the fractional structure of the sky in two dimensions."""
    rng = random_stream(seed, "sky")
    rows = window.y0 + np.arange(window.ny)
    columns = window.x0 + np.arange(window.nx)
    vander = np.polynomial.legendre.legvander
    # The structure is 0 in SKY_ROW, where the profile is given.
    along_y = vander(rows / 1023.5 - 1, 3) - vander([SKY_ROW / 1023.5 - 1], 3)
    along_x = vander(columns / 1023.5 - 1, 2)
    broad = along_y[:, 1:] @ rng.normal(scale=BROAD_RMS, size=(3, 3)) @ along_x.T
    knots = np.arange(-3, FULL.nx // MEDIUM_KNOTS + 5) * MEDIUM_KNOTS
    number = len(knots) - 4
    medium = rng.normal(scale=MEDIUM_RMS / 0.48, size=(number, number))
    spline_y = BSpline.design_matrix(rows, knots, 3)
    spline_x = BSpline.design_matrix(columns, knots, 3)
    return broad + spline_y @ (spline_x @ medium.T).T


# --- the stars ---------------------------------------------------------------------------
# Full-frame position of the zeroth order, where the wavelength of order 1 extrapolates to 0.
ORDER0_COLUMN, ORDER0_ROW = 2920.0, 1970.0
# Its peak relative to the star's flux, and the number of trace columns with the same total flux.
ORDER0_PEAK, ORDER0_LENGTH = 2.0, 7.0
# Smallest and largest flux of a field star, DN/s (blank fields have no bright stars); between them
# the cumulative number scales as flux ** -SLOPE. NUMBER stars at density 1.
FAINTEST, BRIGHTEST, SLOPE, NUMBER = 0.03, 40.0, 0.9, 160
# Ranges of the stars' offsets from the target, pixels: they exceed the detector on all sides.
FIELD_X, FIELD_Y = (-2400.0, 1900.0), (-2350.0, 500.0)
# Temperatures of the stars, K: mean, rms, smallest.
TEMPERATURES = (4500.0, 1000.0, 2800.0)
# A core is drawn where it is brighter than this, DN/s, and within this distance, pixels.
FAINTEST_LIGHT, REACH = 3e-4, 70
# Wings: core radius (pixels) and height relative to the trace's core, measured above and below the
# trace of the hot star near column 2000: 1 % of the core at 26 pixels from its centre, 0.5 % at 48,
# 0.2 % at 84, 0.07 % at 170.
WING_RADIUS, WING_HEIGHT, WING_POWER = 16.0, 0.03, 0.8
# Side of the cells in which the wings are computed, and margin around the detector, pixels.
CELL, MARGIN = 8, 320


class Stars(NamedTuple):
    """
    Stars of a field, arrays of shape (n,).

    Attributes
    ----------
    x, y : ndarray
        Offset from the position of a SOSS target, pixels.
    flux : ndarray
        Peak across the first order's trace at 1.25 micron, DN/s.
    temperature : ndarray
        Temperature of the star's black-body spectrum, K.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    temperature: np.ndarray


def _trace_profile(radius):
    """Return the defocused cross-dispersion profile: two horns 16 pixels apart, soft edges."""
    horns = 0.45 + 0.42 * np.exp(-(((radius - 8) / 2) ** 2)) + 0.05 * np.cos(np.pi * radius / 2)
    skirt = 0.2 * np.exp(-np.clip(radius - 11, 0, None) / 4)
    return horns * expit((11 - radius) / 0.8) + skirt


# The profile as a table, OVERSAMPLING points per pixel.
OVERSAMPLING = 20
TRACE_PROFILE = _trace_profile(np.arange((REACH + 2) * OVERSAMPLING) / OVERSAMPLING)
TRACE_PROFILE = (TRACE_PROFILE / TRACE_PROFILE.max()).astype(np.float32)


def draw_stars(density=1.0, seed=1):
    """
    Draw the stars of a field larger than the detector.

    Parameters
    ----------
    density : float, optional
        0 for none; 1 for a moderate field, in which faint flux of stars (more than 0.3 % of the
        sky) falls on about half of the full frame; 3 for a crowded one.
    seed : int, optional
        Seed.

    Returns
    -------
    stars : `Stars`
        The stars, brightest last.
    """
    rng = random_stream(seed, "stars")
    number = round(NUMBER * density)
    mean, rms, smallest = TEMPERATURES
    share = rng.uniform((FAINTEST / BRIGHTEST) ** SLOPE, 1, number)
    return Stars(
        x=rng.uniform(*FIELD_X, number),
        y=rng.uniform(*FIELD_Y, number),
        flux=np.sort(FAINTEST * share ** (-1 / SLOPE)),
        temperature=np.maximum(rng.normal(mean, rms, number), smallest),
    )


def star_image(window, stars, dither=(0.0, 0.0), pwcpos=PWCPOS):
    """
    Compute the image of stars: traces of orders 1 to 3, images of order 0, and their wings.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        Pixels to compute.
    stars : `Stars`
        The stars.
    dither : tuple of float, optional
        Shift (x, y) of the whole field on the detector, pixels.
    pwcpos : float, optional
        Position of the pupil wheel, degrees.

    Returns
    -------
    light : ndarray of float32, shape (ny, nx)
        Count rate of all stars, DN/s.
    """
    # A margin of rows holds traces that leave the window. The canvas is transposed because traces
    # are wide along columns.
    margin = 2 * REACH + 4
    canvas = np.zeros((window.nx, window.ny + 2 * margin), dtype=np.float32)
    traces = [get_trace(order, pwcpos) for order in ORDERS]
    images, points = [], [np.zeros((3, 0))]
    for star_x, star_y, flux, temperature in zip(*stars, strict=True):
        x, y = star_x + dither[0], star_y + dither[1]
        for trace in traces:
            spectrum = trace.spectrum(flux, temperature)
            _add_trace(canvas, margin, window, trace, spectrum, x, y)
            points.append((trace.x + x, trace.y + y, spectrum))
        column, row = x + ORDER0_COLUMN, y + ORDER0_ROW
        # The zeroth order's field begins at the edge: no image lies left of it.
        if column > 700 + step_shift(row, pwcpos):
            images.append((column, row, ORDER0_PEAK * flux))
            points.append(([column], [row], [ORDER0_LENGTH * ORDER0_PEAK * flux]))
    light = canvas[:, margin : margin + window.ny].T + _wings(window, *np.hstack(points))
    for image in images:
        _add_order0(light, window, *image)
    return light


def _add_trace(canvas, margin, window, trace, spectrum, x, y):
    """Add one trace to a transposed canvas with a margin of rows on both sides."""
    reach = _reach(spectrum.max())
    columns = np.arange(window.nx)
    place = window.x0 + columns - x
    centre = np.interp(place, trace.x, trace.y) + y - window.y0
    light = np.interp(place, trace.x, spectrum, left=0, right=0)
    seen = (light > FAINTEST_LIGHT) & (centre > -reach) & (centre < window.ny + reach)
    if not seen.any():
        return
    columns, centre, light = columns[seen], centre[seen], light[seen].astype(np.float32)
    rows = np.floor(centre).astype(int)[:, np.newaxis] + np.arange(-reach, reach + 1)
    index = np.abs(rows - centre[:, np.newaxis]) * OVERSAMPLING + 0.5
    values = TRACE_PROFILE[index.astype(np.int32)]
    values *= light[:, np.newaxis]
    canvas[columns[:, np.newaxis], rows + margin] += values


def _reach(peak):
    """Return the distance, whole pixels, beyond which a core is too faint to be drawn."""
    bright = np.flatnonzero(TRACE_PROFILE * peak > FAINTEST_LIGHT)
    return 1 if bright.size == 0 else min(int(bright[-1]) // OVERSAMPLING + 1, REACH)


def _wings(window, x, y, light):
    """Return the wings of points of flux, interpolated in cells that all windows share, DN/s."""
    number = (FULL.nx + 2 * MARGIN) // CELL
    cells = np.zeros((number + 1, number + 1))
    column, row = (x + MARGIN) / CELL - 0.5, (y + MARGIN) / CELL - 0.5
    inside = (column > 0) & (column < number - 1) & (row > 0) & (row < number - 1)
    column, row, light = column[inside], row[inside], light[inside]
    left, below = column.astype(int), row.astype(int)
    for right in (0, 1):
        for above in (0, 1):
            share = np.abs(1 - right - column + left) * np.abs(1 - above - row + below)
            np.add.at(cells, (below + above, left + right), share * light)
    radius = np.arange(-number, number + 1) * CELL / WING_RADIUS
    kernel = (1 + radius**2 + radius[:, np.newaxis] ** 2) ** -(WING_POWER + 0.5)
    # Its integral along a straight trace is WING_HEIGHT in the middle.
    kernel *= WING_HEIGHT * gamma(WING_POWER + 0.5) / gamma(WING_POWER)
    kernel /= WING_RADIUS * np.sqrt(np.pi)
    wings = fftconvolve(cells, kernel, mode="same")
    centres = (np.arange(number + 1) + 0.5) * CELL - MARGIN
    spline = RectBivariateSpline(centres, centres, wings)
    return spline(window.y0 + np.arange(window.ny), window.x0 + np.arange(window.nx)).astype("f4")


def _add_order0(light, window, column, row, peak):
    """Add an image of order 0."""
    rows = _overlap(row, window.y0, window.ny)
    columns = _overlap(column, window.x0, window.nx)
    if rows.size and columns.size:
        stamp = peak * _order0_shape(columns - column, (rows - row)[:, np.newaxis])
        light[np.ix_(rows - window.y0, columns - window.x0)] += stamp.astype(np.float32)


def _overlap(centre, start, number):
    """Return the pixels of a window's axis within reach of a centre."""
    first = max(int(centre) - REACH, start)
    return np.arange(first, max(first, min(int(centre) + REACH + 1, start + number)))


def _order0_shape(x, y):
    """Return the image of order 0: a body of 8 by 20 pixels, two horns upwards, a halo."""
    half = 2.0 + 0.4 * np.clip(y - 2, 0, None)
    ridges = np.exp(-(((x - half) / 2.2) ** 2)) + np.exp(-(((x + half) / 2.2) ** 2))
    body = expit((y + 13) / 1.25) * (0.8 + 0.2 * np.cos(np.pi * (y - 4) / 7))
    fading = np.exp(-np.clip(y - 4, 0, None) / 5)
    halo = 0.1 * np.exp(-(x**2 + (y / 1.5) ** 2) / 64)
    return 0.8 * ridges * body * fading + halo


def dither_offsets(number, seed=1):
    """Return field shifts (x, y), pixels, shape (number, 2), of a jittered two-row mosaic."""
    if number == 1:
        return np.zeros((1, 2))
    per_row = -(-number // 2)
    index = np.arange(number)
    x = (index % per_row - (per_row - 1) / 2) * 150.0
    y = (index // per_row - 0.5) * 80.0
    jitter = random_stream(seed, "dither").uniform(-6, 6, size=(number, 2))
    return np.column_stack([x, y]) + jitter
