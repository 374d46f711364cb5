"""The mean of the integrations of an exposure."""

import math

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.numerics.threads import map_parallel, split_rows

__all__ = ["IntegrationMean", "average_integrations", "split_cube", "usable_pixels"]

_DO_NOT_USE = dqflags.pixel["DO_NOT_USE"]

# The missing reference columns of superstripes are 0 with a finite error, and not DO_NOT_USE.
_UNUSABLE = _DO_NOT_USE | dqflags.pixel["REFERENCE_PIXEL"]

# Sums over the integrations, float64: weights, weighted count rates, and weighted variances.
_SUMS = ("weight", "data", "err", "var_poisson", "var_rnoise")

# Pixels averaged at a time, of all integrations together: temporary arrays fit into a cache.
_PIXELS = 200_000


def usable_pixels(data, err, dq):
    """Return True for science pixels with finite data and positive err, and not DO_NOT_USE."""
    return np.isfinite(data) & np.isfinite(err) & (err > 0) & (dq & _UNUSABLE == 0)


class IntegrationMean:
    """
    Inverse-variance mean of integrations, pixel by pixel; cubes are added one by one.

    The Poisson variance of an integration is estimated from its own noisy counts. Integrations with
    low counts would get a higher weight and bias the mean of a faint sky low by a few tenths of a
    percent. The weights of a pixel therefore use one Poisson variance for all integrations, that of
    the first usable one. The mean does not depend on how integrations are split into cubes.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of an integration.

    Attributes
    ----------
    shape : tuple of int
        See the parameter.
    """

    def __init__(self, shape):
        self.shape = shape
        self._sums = {name: np.zeros(shape) for name in _SUMS}
        # Variances of the first usable integration; weights are relative to its weight.
        self._poisson, self._variance = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
        self._flags, self._all_flags = (np.zeros(shape, dtype=np.uint32) for _ in range(2))

    def add(self, data, err, dq, var_poisson, var_rnoise):
        """
        Add integrations, in one pass over blocks of rows.

        Parameters
        ----------
        data, err : ndarray of float, shape (nints, ny, nx)
            Count rates and their 1-sigma uncertainties in DN/s.
        dq : ndarray of int, shape (nints, ny, nx)
            JWST data quality flags.
        var_poisson, var_rnoise : ndarray of float, shape (nints, ny, nx)
            Variances in (DN/s)^2.
        """
        planes = (data, err, dq, var_poisson, var_rnoise)

        def add(rows):
            self._add_rows(rows, *(_native(plane[:, rows]) for plane in planes))

        map_parallel(add, split_cube(data.shape))

    def _add_rows(self, rows, data, err, dq, var_poisson, var_rnoise):
        """Add rows of a cube."""
        usable = usable_pixels(data, err, dq)
        data, err, poisson, rnoise = (
            np.where(usable, plane, 0) for plane in (data, err, np.fmax(var_poisson, 0), var_rnoise)
        )
        first, known = usable.argmax(axis=0)[np.newaxis], usable.any(axis=0)

        def remember(reference, plane):
            new = known & np.isnan(reference[rows])
            reference[rows][new] = np.take_along_axis(plane, first, axis=0)[0][new]

        squared = err * err
        remember(self._poisson, poisson)
        variance = np.maximum(squared - poisson, 0) + self._poisson[rows]
        # Without read noise, the variance is 0 where the first integration has no counts.
        variance = np.where(variance > 0, variance, squared)
        remember(self._variance, variance)
        weight = np.where(usable, self._variance[rows] / np.where(usable, variance, 1), 0)
        squares = weight * weight
        parts = (
            ("weight", weight),
            ("data", weight * data),
            ("err", squares * squared),
            ("var_poisson", squares * poisson),
            ("var_rnoise", squares * rnoise),
        )
        for name, part in parts:
            # In single precision, the sum would depend on the split into cubes.
            self._sums[name][rows] += part.sum(axis=0, dtype=float)
        self._flags[rows] |= np.bitwise_or.reduce(dq * usable, axis=0)
        self._all_flags[rows] |= np.bitwise_or.reduce(dq, axis=0)

    def planes(self):
        """
        Return the mean of all integrations that were added.

        Returns
        -------
        averages : dict of ndarray, each of shape (ny, nx)
            ``data``, ``err``, ``dq``, ``var_poisson``, ``var_rnoise``. Where no integration is
            usable, data and err are NaN and DO_NOT_USE is set; elsewhere the flags are those of
            the usable integrations.
        """
        total = self._sums["weight"]
        known = total > 0
        divisor = np.where(known, total, 1)
        variances = {
            name: self._sums[name] / divisor**2 for name in ("err", "var_poisson", "var_rnoise")
        }
        averages = variances | {
            "data": np.where(known, self._sums["data"] / divisor, np.nan),
            "err": np.where(known, np.sqrt(variances["err"]), np.nan),
        }
        averages = {name: plane.astype(np.float32) for name, plane in averages.items()}
        return averages | {"dq": np.where(known, self._flags, self._all_flags | _DO_NOT_USE)}


def average_integrations(data, err, dq, var_poisson, var_rnoise):
    """Return the `IntegrationMean` of a cube as a dictionary of planes, each of shape (ny, nx)."""
    mean = IntegrationMean(data.shape[1:])
    mean.add(data, err, dq, var_poisson, var_rnoise)
    return mean.planes()


def split_cube(shape):
    """Return slices that split the rows of an image or cube of this shape into small blocks."""
    *planes, rows, columns = shape
    return split_rows(rows, max(_PIXELS // (math.prod(planes) * columns), 1))


def _native(part):
    """Convert an array from a file to native byte order, for speed."""
    return part.astype(part.dtype.newbyteorder("="), copy=False)
