"""Traces of a simulated star.

The simulator has its own traces, independent of the table that the algorithms read. On the
detector they agree with those of pastasoss 1.2.4 within 0.007 pixels, and within 1e-7 micron at the
nominal position of the pupil wheel. Order 3 has the rows of a real frame of a hot star (program
1512), and the wavelengths of the SPECTRACE reference file 0023, whose columns count from 1, within
0.0002 micron.
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy.interpolate import CubicSpline
from scipy.special import expit

from soss_background.detector import FULL, PWCPOS, SUBSTRIP256

__all__ = ["ORDERS", "SimulatedTrace", "get_trace", "passed_fraction"]

# Wavelength of the peak (micron), width (in the logarithm of the wavelength), band edges (micron)
# and height of the throughput. They match a star of 9400 K to the hot star of a real SUBSTRIP256
# frame (program 1512).
ORDERS = {
    "1": (1.20, 0.60, 0.62, 2.90, 1.0),
    "2": (0.74, 0.22, 0.56, 1.38, 0.27),
    "3": (0.82, 0.20, 0.70, 1.10, 0.011),
}
# Wavelengths between which F277W transmits, micron (JWST User Documentation, NIRISS Filters).
F277W_BAND = (2.413, 3.142)
# Wavelength (micron) at which the flux of a star is given; second radiation constant (micron K).
REFERENCE_WAVELENGTH, RADIATION = 1.25, 14387.77
# Columns beyond the detector that the band edges can reach, and number of columns at each end of a
# trace to which the extrapolating parabola is fitted.
EXTENSION, ENDS = 400, 200

# Orders 1 and 2 with the pupil wheel at its nominal position: first and last column, point about
# which they rotate, and SUBSTRIP256 rows at 41 evenly spaced columns (benchmarks/trace_table.py).
ROWS = {
    "1": (4, 2043, (1887.0, 54.0), [
        84.678, 82.478, 80.295, 78.131, 75.989, 73.869, 71.773, 69.703, 67.661, 65.649, 63.669,
        61.725, 59.819, 57.955, 56.134, 54.361, 52.637, 50.968, 49.364, 47.831, 46.381, 45.02,
        43.758, 42.603, 41.571, 40.699, 40.006, 39.509, 39.222, 39.161, 39.371, 39.932, 40.82,
        42.194, 44.175, 46.74, 50.083, 54.381, 59.825, 66.638, 75.133,
    ]),
    "2": (0, 2047, (1677.0, 200.0), [
        104.429, 103.231, 101.987, 100.756, 99.586, 98.515, 97.572, 96.78, 96.156, 95.712,
        95.455, 95.392, 95.528, 95.868, 96.418, 97.186, 98.185, 99.432, 100.95, 102.769,
        104.928, 107.477, 110.473, 113.988, 118.108, 122.93, 128.57, 135.16, 142.848, 151.804,
        162.217, 174.297, 188.279, 204.42, 223.003, 244.338, 268.761, 296.639, 328.368, 364.374,
        405.117,
    ]),
}  # fmt: skip
# Wavelengths: Chebyshev series over FULL.
WAVELENGTHS = {
    "1": [1.8293808, -0.997126, 0.0089058, 0.0034076, 0.0013197, 0.0005023],
    "2": [0.9377631, -0.4727788, 0.0116183, 0.0037448],
}
# Change of the wavelength at a column with the position of the wheel, micron per degree.
WAVELENGTH_SLOPES = {"1": -0.0095, "2": -0.0043}
# SUBSTRIP256 row of order 3 as a polynomial of the column in thousands, and its wavelengths, a
# Chebyshev series over some columns.
ORDER3_ROWS = [145.2510, 11.9728, 11.2301, 53.3315]
ORDER3_WAVELENGTHS = [0.855209, -0.227699, 0.009694, 0.0005, -0.000978]
ORDER3_COLUMNS = (-400, 1100)


class SimulatedTrace(NamedTuple):
    """
    Trace of one order of an undithered target, arrays of shape (n,).

    Attributes
    ----------
    x, y : ndarray
        Full-frame columns, one pixel apart, ascending, and row of the centre in each.
    wavelength : ndarray
        Wavelength, micron.
    throughput : ndarray
        Throughput relative to that of order 1 at 1.25 micron.
    """

    x: np.ndarray
    y: np.ndarray
    wavelength: np.ndarray
    throughput: np.ndarray

    def spectrum(self, flux, temperature):
        """Return the peak across the trace in every column, DN/s."""
        photons = _count_photons(self.wavelength, temperature)
        return flux * self.throughput * photons / _count_photons(REFERENCE_WAVELENGTH, temperature)


def passed_fraction(filter_name, temperature):
    """Return the fraction of a black body's photons, from 0.6 to 3.2 micron, that pass a filter."""
    wavelength = np.linspace(0.6, 3.2, 1000)
    photons = _count_photons(wavelength, temperature)
    return float(np.average(_transmission(filter_name, wavelength), weights=photons))


def _transmission(filter_name, wavelength):
    """Return the transmission of a filter."""
    if filter_name == "CLEAR":
        return np.ones_like(wavelength)
    blue, red = F277W_BAND
    return expit((wavelength - blue) / 0.01) * expit((red - wavelength) / 0.01)


def _count_photons(wavelength, temperature):
    """Return the photons of a black body per micron, in arbitrary units."""
    if np.isinf(temperature):
        return np.ones_like(wavelength)
    return wavelength**-4 / np.expm1(RADIATION / (wavelength * temperature))


def get_trace(order, pwcpos=PWCPOS, filter_name="CLEAR"):
    """Return the trace of order "1", "2" or "3", extrapolated to the edges of its band."""
    x = np.arange(-EXTENSION, FULL.nx + EXTENSION, dtype=float)
    if order == "3":
        known_x = np.arange(ORDER3_COLUMNS[0], ORDER3_COLUMNS[1] + 1.0)
        known = Chebyshev(ORDER3_WAVELENGTHS, domain=ORDER3_COLUMNS)(known_x)
        change = WAVELENGTH_SLOPES["1"] / 3 * (pwcpos - PWCPOS)
        wavelength = _extend(x, known_x, known + change)
        known_x, known_y = _rotate(x, Polynomial(ORDER3_ROWS)(x / 1000), pwcpos, ROWS["1"][2])
        y = np.interp(x, known_x, known_y)
    else:
        first, last, origin, rows = ROWS[order]
        columns = np.arange(first, last + 1.0)
        rows = CubicSpline(np.linspace(first, last, len(rows)), rows)(columns)
        known_x, known_y = _rotate(columns, rows, pwcpos, origin)
        y = _extend(x, known_x, known_y)
        known = Chebyshev(WAVELENGTHS[order], domain=[0, FULL.nx])(known_x)
        wavelength = _extend(x, known_x, known + WAVELENGTH_SLOPES[order] * (pwcpos - PWCPOS))
    scale = _throughput("1", REFERENCE_WAVELENGTH)
    throughput = _throughput(order, wavelength) * _transmission(filter_name, wavelength) / scale
    return SimulatedTrace(x, SUBSTRIP256.y0 + y, wavelength, throughput)


def _rotate(x, y, pwcpos, origin):
    """Rotate points with the pupil wheel about an origin."""
    rotated = (x - origin[0] + 1j * (y - origin[1])) * np.exp(1j * np.radians(pwcpos - PWCPOS))
    return rotated.real + origin[0], rotated.imag + origin[1]


def _extend(x, known_x, known):
    """Interpolate, and extrapolate with parabolas through the outermost points."""
    values = np.interp(x, known_x, known)
    for end, beyond in ((slice(ENDS), x < known_x[0]), (slice(-ENDS, None), x > known_x[-1])):
        parabola = Polynomial.fit(known_x[end], known[end], 2)
        values[beyond] = parabola(x[beyond])
    return values


def _throughput(order, wavelength):
    """Return the blaze of an order between its band edges."""
    peak, width, blue, red, height = ORDERS[order]
    blaze = height * np.exp(-((np.log(wavelength / peak) / width) ** 2))
    return blaze * expit((wavelength - blue) / 0.005) * expit((red - wavelength) / 0.01)
