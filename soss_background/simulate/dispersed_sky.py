"""The dispersed sky of a simulation: its profile, edge and structure in two dimensions.

The profile belongs to the simulator: it uses no table of the algorithms. It agrees with the sky
measured in commissioning within 2 %.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legval, legvander
from scipy.interpolate import BSpline, PchipInterpolator
from scipy.special import expit

from soss_background.detector import FULL, PWCPOS
from soss_background.simulate.streams import random_stream

__all__ = [
    "REFERENCE_SHAPE",
    "FaintEdge",
    "Glow",
    "SkyShape",
    "edge_weight",
    "plain_sky",
    "sky_image",
    "sky_profile",
    "sky_structure",
    "step_shift",
]

# Foot of the edge, column, and scales on which the sky rises from it, columns: the softness of the
# foot, the edge itself, and a shoulder with a fraction of the rise.
EDGE_FOOT, FOOT_WIDTH, EDGE_WIDTH, SHOULDER_WIDTH, SHOULDER = 695.6, 2.0, 4.0, 28.0, 0.3
# Column of the steepest rise, and distance over which a change of the edge fades, columns.
EDGE_COLUMN, EDGE_REACH = 697.0, 150.0
# The reference row of the edge, about which the pattern of the sky rotates.
SKY_ROW = 1846.0
# The edge is tilted by 0.025 columns per row there (measured in the template and in a SUBSTRIP256
# frame); a sine of this amplitude (columns) and period (rows) keeps it near column 700.
LEAN_AMPLITUDE, LEAN_PERIOD = 6.4, 1600.0
# Structure in two dimensions, fractions of the sky: rms of each Legendre coefficient of the broad
# structure (3 to 8 % peak to peak), and of each spline coefficient of the medium-scale structure.
BROAD_RMS, MEDIUM_RMS = 0.006, 0.003
# Distance between the knots of the medium-scale structure and of the row structure, pixels.
MEDIUM_KNOTS, ROW_KNOTS = 40, 160
# Level of the sky of F277W, DN/s; rms of its ramp along rows and of its tilt along columns,
# fractions; smallest and largest width of the ramp, columns (the band spans 730 columns).
F277W_LEVEL, F277W_RAMP, F277W_TILT, F277W_WIDTHS = 0.45, 0.1, 0.04, (120.0, 300.0)
# Number of standard deviations of a logistic function between 10 % and 90 % of its rise.
LOGISTIC_RISE = 4.394


class FaintEdge(NamedTuple):
    """
    A second edge of the sky.

    Attributes
    ----------
    column, height, width : float
        Column, rise as a fraction of the sky, and columns between 10 % and 90 % of the rise.
    bend : float
        Factor of the tilt of the first edge; 0 for a vertical edge.
    """

    column: float
    height: float
    width: float
    bend: float


class Glow(NamedTuple):
    """
    A smooth glow in a corner or along a border of the detector.

    Attributes
    ----------
    height, scale : float
        Peak as a fraction of the sky, and standard deviation, pixels.
    x, y : float or None
        Full-frame position of the peak; None for a glow that does not depend on this coordinate.
    """

    height: float
    scale: float
    x: float | None
    y: float | None


@dataclass(frozen=True)
class SkyShape:
    """
    Shape of a sky.

    Attributes
    ----------
    edge_shift : float
        Shift of the edge towards larger columns.
    edge_width : float
        Factor of the edge's width.
    lean : float
        Factor of the wave of the edge's column with the row; 0 for none.
    curvature : float
        Displacement of the edge in row 0, columns; quadratic in the distance from row 1846.
    left_colour, right_colour : tuple of float
        Fractional changes of the profile on both sides of the edge: coefficients of the Legendre
        polynomials over the columns of that side, from the first order up.
    faint_edges : tuple of `FaintEdge`
        More edges.
    row_rms : float
        rms of a smooth structure along the rows, fraction of the sky.
    glow : `Glow` or None
        A smooth glow.
    """

    edge_shift: float = 0.0
    edge_width: float = 1.0
    lean: float = 1.0
    curvature: float = 0.0
    left_colour: tuple = ()
    right_colour: tuple = ()
    faint_edges: tuple = ()
    row_rms: float = 0.0
    glow: Glow | None = None


REFERENCE_SHAPE = SkyShape()


def sky_profile(columns):
    """Return the sky along full-frame columns (from 0), DN/s, flat-fielded."""
    columns = np.asarray(columns, dtype=float)
    left = 4.8 - 0.17 * expit((columns - 480) / 100)
    decline = 4.7 * -np.expm1(-((np.clip(columns - 250, 0, None) / 1600) ** 5.15))
    return left + (7.4 - decline - left) * edge_weight(columns)


def edge_weight(columns):
    """Return 0 in columns left of the edge and 1 right of it, for the unshifted profile."""
    columns = np.asarray(columns, dtype=float)
    # Distance right of the foot, with a smooth transition to 0 left of it.
    distance = FOOT_WIDTH * np.logaddexp(0, (columns - EDGE_FOOT) / FOOT_WIDTH)
    shoulder = 1 - SHOULDER * np.exp(-distance / SHOULDER_WIDTH)
    return -np.expm1(-distance / EDGE_WIDTH) * shoulder


def step_shift(rows, pwcpos=PWCPOS, shape=REFERENCE_SHAPE):
    """Return the shift of the sky's pattern towards larger columns in full-frame rows, pixels."""
    # The pattern rotates with the pupil wheel.
    offset = np.asarray(rows, dtype=float) - SKY_ROW
    lean = shape.lean * LEAN_AMPLITUDE * np.sin(2 * np.pi * offset / LEAN_PERIOD)
    bend = lean + shape.curvature * (offset / SKY_ROW) ** 2
    return bend - np.tan(np.radians(pwcpos - PWCPOS)) * offset


def sky_image(
    window,
    *,
    contrast=1.0,
    pwcpos=PWCPOS,
    profile=None,
    structure=1.0,
    seed=1,
    shape=REFERENCE_SHAPE,
):
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
        Sky along the columns, DN/s, instead of `sky_profile`; columns without flux (reference
        pixels) are filled from their neighbours.
    structure : float, optional
        Factor of the structure in two dimensions (about 1 % rms broad, 0.3 % on scales of 50 to
        100 pixels); 0 leaves only the column profile.
    seed : int, optional
        Seed of that structure.
    shape : `SkyShape`, optional
        Edge, colours and additional structure.

    Returns
    -------
    sky : ndarray of float32, shape (ny, nx)
        Surface brightness, DN/s.
    """
    rows, columns = _coordinates(window)
    shifted = columns - step_shift(rows, pwcpos, shape)[:, np.newaxis]
    warped = _move_edge(shifted, shape)
    sky = _interpolate(profile, warped) if profile is not None else sky_profile(warped)
    if contrast != 1:
        sky *= 1 + (contrast - 1) * edge_weight(warped)
    sky *= _colours(warped, shape)
    if structure:
        sky *= 1 + structure * sky_structure(window, seed)
    sky *= 1 + _additional_structure(window, shape, seed)
    return sky.astype(np.float32)


def plain_sky(window, seed=1):
    """Return the sky of F277W, which has no edge, DN/s, float32, shape (ny, nx)."""
    rng = random_stream(seed, "sky of F277W")
    rows, columns = _coordinates(window)
    height, tilt = rng.normal(scale=(F277W_RAMP, F277W_TILT))
    ramp = expit((columns - rng.uniform(0, FULL.nx)) / rng.uniform(*F277W_WIDTHS)) - 0.5
    wave = np.sin(np.pi * (rows - SKY_ROW) / FULL.ny)
    sky = 1 + height * ramp + tilt * wave[:, np.newaxis]
    return (F277W_LEVEL * sky).astype(np.float32)


def _coordinates(window):
    """Return the full-frame rows and columns of a window."""
    return window.y0 + np.arange(window.ny), window.x0 + np.arange(window.nx)


def _move_edge(columns, shape):
    """Return the columns of the reference sky that are seen in columns of a sky's shape."""
    if shape.edge_shift == 0 and shape.edge_width == 1:
        return columns
    offset = columns - EDGE_COLUMN - shape.edge_shift
    change = shape.edge_shift + offset * (1 - 1 / shape.edge_width)
    return columns - change * np.exp(-((offset / EDGE_REACH) ** 2))


def _interpolate(profile, columns):
    """Interpolate a profile of 2048 columns; ignore columns without flux."""
    profile = np.asarray(profile, dtype=float)
    known = np.flatnonzero(profile > 0)
    return PchipInterpolator(known, profile[known])(np.clip(columns, known[0], known[-1]))


def _colours(columns, shape):
    """Return the factor by which the colours of both sides change the profile."""
    factor = np.ones(columns.shape)
    right = edge_weight(columns)
    sides = (
        (shape.left_colour, 1 - right, 0.0, EDGE_COLUMN),
        (shape.right_colour, right, EDGE_COLUMN, FULL.nx - 1.0),
    )
    for coefficients, weight, first, last in sides:
        if coefficients:
            place = np.clip(2 * (columns - first) / (last - first) - 1, -1, 1)
            factor += weight * legval(place, (0, *coefficients))
    return factor


def sky_structure(window, seed):
    """Return the fractional structure of the sky in two dimensions."""
    rng = random_stream(seed, "sky")
    rows, columns = _coordinates(window)
    # The structure is 0 in SKY_ROW, where the profile is given.
    along_y = legvander(rows / 1023.5 - 1, 3) - legvander([SKY_ROW / 1023.5 - 1], 3)
    along_x = legvander(columns / 1023.5 - 1, 2)
    broad = along_y[:, 1:] @ rng.normal(scale=BROAD_RMS, size=(3, 3)) @ along_x.T
    spline_y, spline_x = (_splines(pixels, MEDIUM_KNOTS) for pixels in (rows, columns))
    number = spline_x.shape[1]
    medium = rng.normal(scale=MEDIUM_RMS / 0.48, size=(number, number))
    return broad + spline_y @ (spline_x @ medium.T).T


def _splines(pixels, spacing):
    """Return the values of cubic B-splines with knots at every ``spacing`` pixels."""
    knots = np.arange(-3, FULL.nx // spacing + 5) * spacing
    return BSpline.design_matrix(pixels, knots, 3)


def _additional_structure(window, shape, seed):
    """Return the sum of faint edges, row structure and glow, fractions of the sky."""
    rows, columns = _coordinates(window)
    total = np.zeros(window.shape)
    for edge in shape.faint_edges:
        place = columns - edge.column - edge.bend * step_shift(rows, shape=shape)[:, np.newaxis]
        total += edge.height * expit(LOGISTIC_RISE * place / edge.width)
    if shape.row_rms:
        total += shape.row_rms * _row_structure(rows, seed)[:, np.newaxis]
    if shape.glow:
        total += _glow(rows, columns, shape.glow)
    return total


def _row_structure(rows, seed):
    """Return a smooth function of the row, with mean 0 and rms 1 over the detector."""
    splines = _splines(np.arange(FULL.ny), ROW_KNOTS)
    values = splines @ random_stream(seed, "row structure").standard_normal(splines.shape[1])
    values = (values - values.mean()) / values.std()
    return values[rows]


def _glow(rows, columns, glow):
    """Return a glow as a fraction of the sky."""
    distance = np.zeros((len(rows), len(columns)))
    if glow.x is not None:
        distance += (columns - glow.x) ** 2
    if glow.y is not None:
        distance += (rows[:, np.newaxis] - glow.y) ** 2
    return glow.height * np.exp(-distance / (2 * glow.scale**2))
