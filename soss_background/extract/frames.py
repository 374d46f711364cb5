"""Arrays of an exposure that the steps of the stare recipe share."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from bottleneck import nanmean

from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_pwcpos, find_window
from soss_background.numerics.integrations import usable_pixels

__all__ = ["Frames", "mean_image", "read_frames"]


@dataclass(frozen=True, repr=False)
class Frames:
    """
    The integrations of an exposure, and their mean.

    Attributes
    ----------
    name : str
        Name of the exposure.
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and their uncertainties, DN/s, without the uncertainty of the flat, which is the
        same in all integrations and proportional to the count rate.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.
    window : `~soss_background.detector.Window`
        The pixels of the detector.
    pwcpos : float
        Position of the pupil wheel, degrees.
    """

    name: str
    data: np.ndarray
    err: np.ndarray
    good: np.ndarray
    window: Window
    pwcpos: float

    @cached_property
    def mean(self):
        """Mean of the usable pixels, DN/s; NaN where there is none."""
        return mean_image(self.data, self.good)


def read_frames(exposure):
    """
    Read the integrations of an exposure.

    Parameters
    ----------
    exposure : data model
        An image, or a cube of integrations.

    Returns
    -------
    frames : Frames
        The integrations.

    Raises
    ------
    SkyflatError
        If it is not a SOSS exposure, or has no usable pixel.
    """
    name, window = exposure.meta.filename, find_window(exposure)
    planes = (exposure.data, _scatter(exposure), exposure.dq)
    data, err, dq = (plane.reshape(-1, *window.shape) for plane in planes)
    good = usable_pixels(data, err, dq)
    if not good.any():
        raise SkyflatError(f"{name}: no usable pixel")
    return Frames(name, data, err, good, window, find_pwcpos(exposure))


def _scatter(exposure):
    """Return the errors without the uncertainty of the flat."""
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
