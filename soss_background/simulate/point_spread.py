"""The point-spread function of a simulation: cores of traces, images of order 0, wings.

Arrays are in DN/s. The reference follows the trace of a hot star (program 1512) and the traces in
a deep F277W stack.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import RectBivariateSpline
from scipy.signal import fftconvolve
from scipy.special import expit, gamma

from soss_background.detector import FULL

__all__ = [
    "CORES",
    "OVERSAMPLING",
    "REACH",
    "REFERENCE_SPREAD",
    "WINGS",
    "PointSpread",
    "galaxy_profile",
    "order0_shape",
    "spread_wings",
    "trace_profile",
]

# Shapes of the core and of the wings.
CORES = ("horns", "flat", "gaussian")
WINGS = ("reference", "none", "cut", "power law", "exponential")
# A core is drawn within this distance, pixels, from a table with this number of points per pixel.
REACH, OVERSAMPLING = 90, 20
# Half width of the reference core at half height, pixels.
HALF_WIDTH = 11.0
# Standard deviation of the Gaussian trace of a galaxy, pixels: twice as broad as that of a star.
GALAXY_SIGMA = 2 * HALF_WIDTH / 1.177
# Wings: core radius (pixels) and height relative to the trace's core, measured above and below the
# trace of the hot star near column 2000: 1 % of the core at 26 pixels from its centre, 0.5 % at 48,
# 0.2 % at 84, 0.07 % at 170.
WING_RADIUS, WING_HEIGHT, WING_POWER = 16.0, 0.03, 0.8
# Distance over which wings of the kind "cut" end, pixels.
CUT_WIDTH = 4.0
# Side of the cells in which the wings are computed, and margin around the detector, pixels.
CELL, MARGIN = 8, 320


@dataclass(frozen=True)
class PointSpread:
    """
    A point-spread function.

    Attributes
    ----------
    core : str
        Profile across a trace: "horns", "flat" or "gaussian".
    width : float
        Factor of the core's width.
    wings : str
        "reference", "none", "cut" (the reference up to a radius), "power law" or "exponential".
    wing_scale : float
        Radius where wings of the kind "cut" end, or scale length of the "exponential", pixels;
        the exponent of a "power law".
    wing_height : float
        Brightness of the wings in the middle of a trace relative to the core.

    Raises
    ------
    ValueError
        If the core, the wings, or their scale are not valid.
    """

    core: str = "horns"
    width: float = 1.0
    wings: str = "reference"
    wing_scale: float = 0.0
    wing_height: float = WING_HEIGHT

    def __post_init__(self):
        """Check the names and the scale."""
        if self.core not in CORES or self.wings not in WINGS:
            raise ValueError(f"no core {self.core!r} or no wings {self.wings!r}")
        least = {"power law": 1, "cut": 0, "exponential": 0}.get(self.wings, -np.inf)
        if not self.wing_scale > least:
            raise ValueError(f"wings {self.wings!r}: wing_scale must be greater than {least}")


REFERENCE_SPREAD = PointSpread()


@lru_cache(maxsize=8)
def trace_profile(spread):
    """Return the profile across a trace, peak 1, at OVERSAMPLING points per pixel from 0."""
    radius = _radii() / spread.width
    if spread.core == "gaussian":
        profile = np.exp(-np.log(2) * (radius / HALF_WIDTH) ** 2)
    else:
        skirt = 0.2 * np.exp(-np.clip(radius - 11, 0, None) / 4)
        profile = _core_top(radius, spread.core) * expit((HALF_WIDTH - radius) / 0.8) + skirt
    return (profile / profile.max()).astype(np.float32)


def _core_top(radius, core):
    """Return the top of a core: flat, or two horns 16 pixels apart."""
    if core == "flat":
        return np.full(radius.shape, 0.8)
    return 0.45 + 0.42 * np.exp(-(((radius - 8) / 2) ** 2)) + 0.05 * np.cos(np.pi * radius / 2)


@lru_cache(maxsize=1)
def galaxy_profile():
    """Return the Gaussian profile across the trace of a galaxy, as `trace_profile`."""
    return np.exp(-((_radii() / GALAXY_SIGMA) ** 2) / 2).astype(np.float32)


def _radii():
    """Return the distances of the points of a profile's table, pixels."""
    return np.arange((REACH + 2) * OVERSAMPLING) / OVERSAMPLING


def order0_shape(x, y, spread):
    """Return the image of order 0: a body of 8 by 20 pixels, two horns upwards, a halo."""
    x, y = x / spread.width, y / spread.width
    half = 2.0 + 0.4 * np.clip(y - 2, 0, None)
    ridges = np.exp(-(((x - half) / 2.2) ** 2)) + np.exp(-(((x + half) / 2.2) ** 2))
    body = expit((y + 13) / 1.25) * (0.8 + 0.2 * np.cos(np.pi * (y - 4) / 7))
    fading = np.exp(-np.clip(y - 4, 0, None) / 5)
    halo = 0.1 * np.exp(-(x**2 + (y / 1.5) ** 2) / 64)
    return 0.8 * ridges * body * fading + halo


def spread_wings(window, x, y, light, spread):
    """Return the wings of points of flux, interpolated in cells that all windows share, DN/s."""
    if spread.wings == "none" or len(light) == 0:
        return np.zeros(window.shape, dtype=np.float32)
    number = (FULL.nx + 2 * MARGIN) // CELL
    cells = _bin_points(x, y, light, number)
    offset = np.arange(-number, number + 1) * CELL
    wings = fftconvolve(cells, _wing_kernel(offset, spread), mode="same")
    centres = (np.arange(number + 1) + 0.5) * CELL - MARGIN
    spline = RectBivariateSpline(centres, centres, wings)
    return spline(window.y0 + np.arange(window.ny), window.x0 + np.arange(window.nx)).astype("f4")


def _bin_points(x, y, light, number):
    """Return the flux of points in cells, each shared by its four neighbours."""
    cells = np.zeros((number + 1, number + 1))
    column, row = (x + MARGIN) / CELL - 0.5, (y + MARGIN) / CELL - 0.5
    inside = (column > 0) & (column < number - 1) & (row > 0) & (row < number - 1)
    column, row, light = column[inside], row[inside], light[inside]
    left, below = column.astype(int), row.astype(int)
    for right in (0, 1):
        for above in (0, 1):
            share = np.abs(1 - right - column + left) * np.abs(1 - above - row + below)
            np.add.at(cells, (below + above, left + right), share * light)
    return cells


def _wing_kernel(offset, spread):
    """Return the wings of a point; their integral along a straight trace is the wing height."""
    squared = offset**2 + offset[:, np.newaxis] ** 2
    if spread.wings == "exponential":
        kernel = np.exp(-np.sqrt(squared) / spread.wing_scale)
        return kernel * spread.wing_height / (CELL * kernel[len(offset) // 2].sum())
    power = spread.wing_scale / 2 if spread.wings == "power law" else WING_POWER + 0.5
    kernel = (1 + squared / WING_RADIUS**2) ** -power
    kernel *= spread.wing_height * gamma(power) / gamma(power - 0.5)
    kernel /= WING_RADIUS * np.sqrt(np.pi)
    if spread.wings == "cut":
        kernel *= expit((spread.wing_scale - np.sqrt(squared)) / CUT_WIDTH)
    return kernel
