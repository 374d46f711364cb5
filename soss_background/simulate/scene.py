"""What the telescope sees: the dispersed sky, and the field stars with their SOSS traces.

Pure NumPy arrays in DN/s, before the flat field. Everything is defined in full-frame pixels
and then evaluated inside a window, so that a subarray or a small window is a true cut.
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
# The columns between which the order's light rises from nothing to its full strength.
STEP_FOOT, STEP_TOP = 680.0, 756.0
# The row at which the numbers above hold, and about which traces rotate too.
SKY_ROW = 1846.0
# The edge leans by 0.025 columns a row there (measured in the template and in a SUBSTRIP256
# frame); a sine of this amplitude (columns) and period (rows) keeps it near column 700.
LEAN_AMPLITUDE, LEAN_PERIOD = 6.4, 1600.0
# Structure in two dimensions, fractions of the sky: rms of each Legendre coefficient of the
# broad part (which makes 3 to 8 per cent from its lowest to its highest place), and of the
# medium-scale part.
BROAD_RMS, MEDIUM_RMS = 0.006, 0.003
# Distance of the knots of the medium-scale structure, pixels.
MEDIUM_KNOTS = 40


def step_shift(rows, pwcpos=PWCPOS):
    """
    Tell how far the sky's pattern is shifted along a row.

    Parameters
    ----------
    rows : ndarray
        Full-frame rows.
    pwcpos : float, optional
        Position of the pupil wheel, degrees; the pattern turns with the wheel.

    Returns
    -------
    shift : ndarray
        Shift towards larger columns, pixels; 0 at row 1846 and the commanded position.
    """
    offset = np.asarray(rows, dtype=float) - SKY_ROW
    lean = LEAN_AMPLITUDE * np.sin(2 * np.pi * offset / LEAN_PERIOD)
    return lean - np.tan(np.radians(pwcpos - PWCPOS)) * offset


def step_weight(columns):
    """
    Tell how much of the light that begins at the step reaches a column of the profile.

    Parameters
    ----------
    columns : ndarray
        Columns of the profile, that is to say without `step_shift`.

    Returns
    -------
    weight : ndarray
        0 left of the step, 1 right of it.
    """
    rates = commissioning_profile(np.clip(columns, STEP_FOOT, STEP_TOP))
    ends = commissioning_profile([STEP_FOOT, STEP_TOP])
    return (rates - ends[0]) / (ends[1] - ends[0])


def sky_image(window, *, contrast=1.0, pwcpos=PWCPOS, profile=None, structure=1.0, seed=1):
    """
    Make the sky at its commissioning level.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        Pixels to compute.
    contrast : float, optional
        Multiplies the light right of the step.
    pwcpos : float, optional
        Position of the pupil wheel, degrees.
    profile : ndarray, shape (2048,), optional
        Sky along the columns, DN/s, instead of the tabulated commissioning profile; columns
        without light (reference pixels) are filled from their neighbours.
    structure : float, optional
        Multiplies the structure in two dimensions (about 1 per cent rms broad, 0.3 per cent
        on scales of 50 to 100 pixels); 0 leaves only the column profile.
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
    # The profile is that of SKY_ROW: only departures from this row are free.
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
# The zeroth order: where the wavelength of the first order extrapolates to 0, full frame.
ORDER0_COLUMN, ORDER0_ROW = 2920.0, 1970.0
# Its peak relative to the star's flux, and how many columns of a trace hold as much light.
ORDER0_PEAK, ORDER0_LENGTH = 2.0, 7.0
# Smallest and largest flux of a field star, DN/s (blank fields are chosen to be blank);
# between them the cumulative number goes as flux ** -SLOPE; number at density 1.
FAINTEST, BRIGHTEST, SLOPE, NUMBER = 0.03, 40.0, 0.9, 160
# Offsets of the stars from the target's place, pixels: larger than the detector all round.
FIELD_X, FIELD_Y = (-2400.0, 1900.0), (-2350.0, 500.0)
# Temperatures of the stars, K: mean, rms, smallest.
TEMPERATURES = (4500.0, 1000.0, 2800.0)
# Light of a core fainter than this is not drawn, DN/s; nor is core further out, pixels.
FAINTEST_LIGHT, REACH = 3e-4, 70
# Wings: core radius (pixels) and height relative to the trace's core, as above and below the
# trace of the hot star near column 2000: 1 per cent of the core at 26 pixels from its centre,
# 0.5 at 48, 0.2 at 84, 0.07 at 170.
WING_RADIUS, WING_HEIGHT, WING_POWER = 16.0, 0.03, 0.8
# Size of the cells in which the wings are computed, and margin of the detector, pixels.
CELL, MARGIN = 8, 320


class Stars(NamedTuple):
    """
    Stars of a field.

    Attributes
    ----------
    x, y : ndarray, shape (n,)
        Offset from the place of a SOSS target, pixels.
    flux : ndarray, shape (n,)
        Peak across the first order's trace at 1.25 micron, DN/s.
    temperature : ndarray, shape (n,)
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


# The profile as a table, OVERSAMPLING points a pixel.
OVERSAMPLING = 20
TRACE_PROFILE = _trace_profile(np.arange((REACH + 2) * OVERSAMPLING) / OVERSAMPLING)
TRACE_PROFILE = (TRACE_PROFILE / TRACE_PROFILE.max()).astype(np.float32)


def draw_stars(density=1.0, seed=1):
    """
    Draw the stars of a field larger than the detector.

    Parameters
    ----------
    density : float, optional
        0 for none; 1 for a moderate field, in which faint light of stars (more than 0.3 per
        cent of the sky) falls on about half of the full frame; 3 for a crowded one.
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
    Make the light of stars: traces of orders 1 to 3, images of order 0, and their wings.

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
        Light of all stars, DN/s.
    """
    # A margin of rows spares the bookkeeping of traces that leave the window; the canvas is
    # transposed because traces are wide along columns.
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
        # The step is where the zeroth order's field begins: no image lies left of it.
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
    """
    Spread a little of the light over the detector.

    The wings are smooth, so they are computed in cells and interpolated; the cells are the
    same for all windows.
    """
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
    """
    Lay out a mosaic of two rows of pointings with a little jitter.

    Parameters
    ----------
    number : int
        Number of exposures; ten give the 5 x 2 mosaic of the calibration programs.
    seed : int, optional
        Seed of the jitter.

    Returns
    -------
    offsets : ndarray of float, shape (number, 2)
        Shift (x, y) of the field on the detector, pixels, about 150 apart in x and 80 in y; a
        single exposure is not dithered.
    """
    if number == 1:
        return np.zeros((1, 2))
    per_row = -(-number // 2)
    index = np.arange(number)
    x = (index % per_row - (per_row - 1) / 2) * 150.0
    y = (index // per_row - 0.5) * 80.0
    jitter = random_stream(seed, "dither").uniform(-6, 6, size=(number, 2))
    return np.column_stack([x, y]) + jitter
