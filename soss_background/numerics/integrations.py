"""The mean of the integrations of an exposure."""

import math

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.numerics.threads import map_parallel, split_rows

__all__ = ["average_integrations", "split_cube", "usable_pixels"]

_DO_NOT_USE = dqflags.pixel["DO_NOT_USE"]

# Planes of an averaged exposure.
_NAMES = ("data", "err", "dq", "var_poisson", "var_rnoise")

# Pixels averaged at a time, of all integrations together: temporary arrays fit into a cache.
_PIXELS = 200_000


def usable_pixels(data, err, dq):
    """Return True where data are finite, err is finite and positive, and DO_NOT_USE is not set."""
    return np.isfinite(data) & np.isfinite(err) & (err > 0) & (dq & _DO_NOT_USE == 0)


def average_integrations(data, err, dq, var_poisson, var_rnoise):
    """
    Reduce a cube to its inverse-variance mean, pixel by pixel, in one pass over blocks of rows.

    The Poisson variance of an integration is estimated from its own noisy counts. Low counts would
    get a higher weight and bias the mean low, by a few tenths of a percent of a faint sky. The
    weights therefore use the mean Poisson variance of the integrations.

    Parameters
    ----------
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and their 1-sigma uncertainties in DN/s.
    dq : ndarray of int, shape (nints, ny, nx)
        JWST data quality flags.
    var_poisson, var_rnoise : ndarray of float, shape (nints, ny, nx)
        Variances in (DN/s)^2.

    Returns
    -------
    averages : dict of ndarray, each of shape (ny, nx)
        ``data``, ``err``, ``dq``, ``var_poisson``, ``var_rnoise``. Where no integration is usable,
        data and err are NaN and DO_NOT_USE is set; elsewhere the flags are those of the usable
        integrations.
    """
    planes = (data, err, dq, var_poisson, var_rnoise)
    kinds = {name: dq.dtype if name == "dq" else np.float32 for name in _NAMES}
    averages = {name: np.empty(data.shape[1:], kind) for name, kind in kinds.items()}

    def average(rows):
        part = _average_rows(*(_native(plane[:, rows]) for plane in planes))
        for name, values in part.items():
            averages[name][rows] = values

    map_parallel(average, split_cube(data.shape))
    return averages


def split_cube(shape):
    """Return slices that split the rows of an image or cube of this shape into small blocks."""
    *planes, rows, columns = shape
    return split_rows(rows, max(_PIXELS // (math.prod(planes) * columns), 1))


def _native(part):
    """Convert an array from a file to native byte order, for speed."""
    return part.astype(part.dtype.newbyteorder("="), copy=False)


def _average_rows(data, err, dq, var_poisson, var_rnoise):
    """Average rows of a cube, see `average_integrations`."""
    usable = usable_pixels(data, err, dq)
    data, err, poisson, rnoise = (
        np.where(usable, plane, 0) for plane in (data, err, np.fmax(var_poisson, 0), var_rnoise)
    )
    count = np.maximum(usable.sum(axis=0, dtype=np.float32), 1)
    squared = err * err
    variance = np.maximum(squared - poisson, 0) + poisson.sum(axis=0) / count
    weight = usable / np.where(usable, variance, 1)
    total = weight.sum(axis=0)
    any_usable = total > 0
    weight /= np.where(any_usable, total, 1)
    weight_squared = weight * weight

    def add(weights, planes):
        return np.einsum("iyx,iyx->yx", weights, planes)

    flags = np.bitwise_or.reduce(dq * usable, axis=0)
    bad_flags = np.bitwise_or.reduce(dq, axis=0) | _DO_NOT_USE
    return {
        "data": np.where(any_usable, add(weight, data), np.nan),
        "err": np.where(any_usable, np.sqrt(add(weight_squared, squared)), np.nan),
        "dq": np.where(any_usable, flags, bad_flags),
        "var_poisson": add(weight_squared, poisson),
        "var_rnoise": add(weight_squared, rnoise),
    }
