"""Integrations of an exposure, which the steps of SossStarePipeline share."""

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
    The integrations of an exposure.

    Attributes
    ----------
    name : str
        File name of the exposure.
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and uncertainties, DN/s, without the uncertainty of the flat, which all
        integrations share.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.
    window : `~soss_background.detector.Window`
        Pixels of the detector.
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
        """Mean of the usable pixels, shape (ny, nx), DN/s; NaN where there is none."""
        return mean_image(self.data, self.good)


def read_frames(exposure):
    """Return the `Frames` of an image or cube; raise SkyflatError if no pixel is usable."""
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
    """Return the mean of the usable pixels, shape (ny, nx), DN/s; NaN where there is none."""
    return nanmean(np.where(good, data, np.nan), axis=0)
