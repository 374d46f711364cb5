"""Scene before the flat field: field stars and galaxies with their SOSS traces, and the dithers.

Arrays are in DN/s. Everything is defined in full-frame pixels and evaluated inside a window, so
that an image of a subarray or a small window is a cutout of the full frame.
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legval

from soss_background.detector import PWCPOS
from soss_background.simulate.dispersed_sky import REFERENCE_SHAPE, step_shift
from soss_background.simulate.point_spread import (
    OVERSAMPLING,
    REACH,
    REFERENCE_SPREAD,
    galaxy_profile,
    order0_shape,
    spread_wings,
    trace_profile,
)
from soss_background.simulate.streams import random_stream
from soss_background.simulate.traces import ORDERS, get_trace, passed_fraction

__all__ = [
    "SPECTRA",
    "Stars",
    "dither_offsets",
    "draw_stars",
    "star_image",
]

# Full-frame position of the zeroth order, where the wavelength of order 1 extrapolates to 0.
ORDER0_COLUMN, ORDER0_ROW = 2920.0, 1970.0
# Peak of the zeroth order relative to the flux of the star, and number of trace columns with the
# same total flux.
ORDER0_PEAK, ORDER0_LENGTH = 2.0, 7.0
# Smallest and largest flux of a field star, DN/s (blank fields have no bright stars); between them
# the cumulative number scales as flux ** -SLOPE. NUMBER stars at density 1.
FAINTEST, BRIGHTEST, SLOPE, NUMBER = 0.03, 40.0, 0.9, 160
# Ranges of the offsets of stars from the target, pixels; they extend beyond the detector.
FIELD_X, FIELD_Y = (-2400.0, 1900.0), (-2350.0, 500.0)
# Temperatures of the stars, K: mean, rms, smallest; range of those of all types.
TEMPERATURES, ALL_TEMPERATURES = (4500.0, 1000.0, 2800.0), (2800.0, 9000.0)
# Distributions of the spectra.
SPECTRA = ("cool", "all", "flat")
# A core is drawn where it is brighter than this, DN/s.
FAINTEST_LIGHT = 3e-4


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
        Temperature of the star's black-body spectrum, K; infinity for a flat spectrum.
    galaxy : ndarray of bool or None
        True for galaxies, whose traces are Gaussian and twice as broad; None for no galaxies.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    temperature: np.ndarray
    galaxy: np.ndarray | None = None


def draw_stars(density=1.0, seed=1, *, slope=SLOPE, spectra="cool", galaxies=0.0):
    """
    Draw the stars of a field larger than the detector.

    Parameters
    ----------
    density : float, optional
        0 for none; 1 for a moderate field, in which faint flux of stars (more than 0.3 % of the
        sky) falls on about half of the full frame; 3 for a crowded one.
    seed : int, optional
        Seed.
    slope : float, optional
        Slope of the cumulative number of stars with flux; larger for more faint stars.
    spectra : str, optional
        "cool" for black bodies of about 4500 K, "all" for 2800 to 9000 K, "flat" for a flat
        spectrum of photons.
    galaxies : float, optional
        Fraction of galaxies.

    Returns
    -------
    stars : `Stars`
        The stars, brightest last.

    Raises
    ------
    ValueError
        If there is no such distribution of spectra.
    """
    rng = random_stream(seed, "stars")
    number = round(NUMBER * density)
    share = rng.uniform((FAINTEST / BRIGHTEST) ** slope, 1, number)
    return Stars(
        x=rng.uniform(*FIELD_X, number),
        y=rng.uniform(*FIELD_Y, number),
        flux=np.sort(FAINTEST * share ** (-1 / slope)),
        temperature=_draw_temperatures(rng, number, spectra),
        galaxy=random_stream(seed, "galaxies").uniform(size=number) < galaxies,
    )


def _draw_temperatures(rng, number, spectra):
    """Draw the temperatures of stars, K."""
    if spectra == "flat":
        return np.full(number, np.inf)
    if spectra == "all":
        return rng.uniform(*ALL_TEMPERATURES, number)
    if spectra != "cool":
        raise ValueError(f"no spectra {spectra!r}; there are {', '.join(SPECTRA)}")
    mean, rms, smallest = TEMPERATURES
    return np.maximum(rng.normal(mean, rms, number), smallest)


def star_image(
    window,
    stars,
    dither=(0.0, 0.0),
    pwcpos=PWCPOS,
    *,
    spread=REFERENCE_SPREAD,
    trace_shifts=(),
    shape=REFERENCE_SHAPE,
    order0=True,
    orders=tuple(ORDERS),
    filter_name="CLEAR",
):
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
    spread : `~soss_background.simulate.PointSpread`, optional
        The point-spread function.
    trace_shifts : tuple of tuple of float, optional
        Shift of the traces of each order along the rows: coefficients of the Legendre polynomials
        over the detector's columns, pixels.
    shape : `~soss_background.simulate.SkyShape`, optional
        Shape of the sky, at whose edge the images of order 0 begin.
    order0 : bool, optional
        Whether to draw images of order 0.
    orders : sequence of str, optional
        Orders whose traces, with their wings, are drawn.
    filter_name : str, optional
        "CLEAR", or "F277W", which passes a part of order 1 and of order 0.

    Returns
    -------
    light : ndarray of float32, shape (ny, nx)
        Count rate of all stars, DN/s.
    """
    # A margin of rows contains traces that leave the window. The canvas is transposed because
    # traces are wide along columns.
    margin = 2 * REACH + 4
    canvas = np.zeros((window.nx, window.ny + 2 * margin), dtype=np.float32)
    traces = _get_traces(pwcpos, trace_shifts, filter_name)
    traces = [trace for order, trace in zip(ORDERS, traces, strict=True) if order in orders]
    galaxy = np.zeros(len(stars.x), dtype=bool) if stars.galaxy is None else stars.galaxy
    images, points = [], [np.zeros((3, 0))]
    for star_x, star_y, flux, temperature, broad in zip(*stars[:4], galaxy, strict=True):
        x, y = star_x + dither[0], star_y + dither[1]
        profile = galaxy_profile() if broad else trace_profile(spread)
        for trace in traces:
            spectrum = trace.spectrum(flux, temperature)
            _add_trace(canvas, margin, window, trace, spectrum, profile, x, y)
            points.append((trace.x + x, trace.y + y, spectrum))
        column, row = x + ORDER0_COLUMN, y + ORDER0_ROW
        # The field of the zeroth order begins at the edge: no image lies left of it.
        if order0 and column > 700 + shape.edge_shift + step_shift(row, pwcpos, shape):
            peak = ORDER0_PEAK * flux * passed_fraction(filter_name, temperature)
            images.append((column, row, peak))
            points.append(([column], [row], [ORDER0_LENGTH * peak]))
    light = canvas[:, margin : margin + window.ny].T
    light = light + spread_wings(window, *np.hstack(points), spread)
    for image in images:
        _add_order0(light, window, *image, spread)
    return light


def _get_traces(pwcpos, shifts, filter_name):
    """Return the traces of all orders, shifted."""
    traces = [get_trace(order, pwcpos, filter_name) for order in ORDERS]
    for index, coefficients in enumerate(shifts):
        trace = traces[index]
        shift = legval(np.clip(trace.x / 1023.5 - 1, -1, 1), coefficients)
        traces[index] = trace._replace(y=trace.y + shift)
    return traces


def _add_trace(canvas, margin, window, trace, spectrum, profile, x, y):
    """Add one trace to a transposed canvas with a margin of rows on both sides."""
    reach = _reach(profile, spectrum.max())
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
    values = profile[index.astype(np.int32)]
    values *= light[:, np.newaxis]
    canvas[columns[:, np.newaxis], rows + margin] += values


def _reach(profile, peak):
    """Return the distance, whole pixels, beyond which a core is too faint to be drawn."""
    bright = np.flatnonzero(profile * peak > FAINTEST_LIGHT)
    return 1 if bright.size == 0 else min(int(bright[-1]) // OVERSAMPLING + 1, REACH)


def _add_order0(light, window, column, row, peak, spread):
    """Add an image of order 0."""
    rows = _overlap(row, window.y0, window.ny)
    columns = _overlap(column, window.x0, window.nx)
    if rows.size and columns.size:
        stamp = peak * order0_shape(columns - column, (rows - row)[:, np.newaxis], spread)
        light[np.ix_(rows - window.y0, columns - window.x0)] += stamp.astype(np.float32)


def _overlap(centre, start, number):
    """Return the pixels of a window's axis within reach of a centre."""
    first = max(int(centre) - REACH, start)
    return np.arange(first, max(first, min(int(centre) + REACH + 1, start + number)))


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
