"""What the steps of the stare recipe take out of an exposure."""

import numpy as np
from bottleneck import nanmean

from soss_background.errors import SkyflatError
from soss_background.numerics.integrations import usable_pixels

__all__ = ["as_cubes", "mean_image"]


def as_cubes(exposure):
    """
    Take data, errors and usable pixels of an exposure.

    Parameters
    ----------
    exposure : data model
        An image, or a cube of integrations.

    Returns
    -------
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and their uncertainties, DN/s, without that of the flat: it is the same in all
        integrations, and grows with the light.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.

    Raises
    ------
    SkyflatError
        If no pixel can be used.
    """
    planes = (exposure.data, _scatter(exposure), exposure.dq)
    data, err, dq = (plane.reshape(-1, *plane.shape[-2:]) for plane in planes)
    good = usable_pixels(data, err, dq)
    if not good.any():
        raise SkyflatError(f"{exposure.meta.filename}: no usable pixel")
    return data, err, good


def _scatter(exposure):
    """Take the part of the errors that scatters from integration to integration."""
    flat = getattr(exposure, "var_flat", None)
    if flat is None or flat.shape != exposure.err.shape:
        return exposure.err
    variance = exposure.err**2 - np.nan_to_num(flat)
    return np.sqrt(np.where(variance > 0, variance, exposure.err**2))


def mean_image(data, good):
    """
    Average the integrations of an exposure.

    Parameters
    ----------
    data : ndarray of float, shape (nints, ny, nx)
        Count rates, DN/s.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.

    Returns
    -------
    image : ndarray of float, shape (ny, nx)
        Mean of the usable pixels, DN/s; NaN where there is none.
    """
    return nanmean(np.where(good, data, np.nan), axis=0)
