"""Integrations of an exposure, which the steps of SossStarePipeline share."""

from dataclasses import dataclass

import numpy as np
from bottleneck import nanmean

from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_pwcpos, find_window
from soss_background.numerics.integrations import split_cube, usable_pixels

__all__ = ["Frames", "average_usable", "read_frames"]


@dataclass(frozen=True, repr=False)
class Frames:
    """
    The integrations of an exposure.

    Attributes
    ----------
    name : str
        File name of the exposure.
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and uncertainties, DN/s.
    dq : ndarray of uint32, shape (nints, ny, nx)
        JWST data quality flags.
    var_flat : ndarray of float, shape (nints, ny, nx), or None
        Variance of the flat, which all integrations share, (DN/s)^2.
    mean : ndarray of float32, shape (ny, nx)
        Mean of the usable pixels, DN/s; NaN where there is none.
    count : ndarray of int, shape (ny, nx)
        Number of integrations in which a pixel is usable.
    window : `~soss_background.detector.Window`
        Pixels of the detector.
    pwcpos : float
        Position of the pupil wheel, degrees.
    """

    name: str
    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_flat: np.ndarray | None
    mean: np.ndarray
    count: np.ndarray
    window: Window
    pwcpos: float

    def image(self, number):
        """Return the usable pixels of an integration, shape (ny, nx), DN/s; NaN elsewhere."""
        planes = (plane[number] for plane in (self.data, self.err, self.dq))
        return np.where(usable_pixels(*planes), self.data[number], np.nan)

    def take(self, band):
        """
        Return the integrations of the pixels of an aperture.

        Parameters
        ----------
        band : `~soss_background.extract.profile.Band`
            The aperture.

        Returns
        -------
        light, variance : ndarray of float, shape (nints, n, m)
            Count rates, DN/s, and their variances without that of the flat, (DN/s)^2; NaN where
            there is no usable pixel.
        """
        data, err = band.take(self.data), band.take(self.err)
        good = usable_pixels(data, err, band.take(self.dq)) & band.inside
        variance = err**2
        if self.var_flat is not None:
            scatter = variance - np.nan_to_num(band.take(self.var_flat))
            variance = np.where(scatter > 0, scatter, variance)
        return np.where(good, data, np.nan), np.where(good, variance, np.nan)


def read_frames(exposure):
    """Return the `Frames` of an image or cube; raise SkyflatError if no pixel is usable."""
    name, window = exposure.meta.filename, find_window(exposure)
    flat = getattr(exposure, "var_flat", None)
    if flat is not None and flat.shape != exposure.err.shape:
        flat = None
    planes = (exposure.data, exposure.err, exposure.dq, flat)
    planes = [each if each is None else each.reshape(-1, *window.shape) for each in planes]
    mean, count = average_usable(*planes[:3])
    if not count.any():
        raise SkyflatError(f"{name}: no usable pixel")
    return Frames(name, *planes, mean, count, window, find_pwcpos(exposure))


def average_usable(data, err, dq):
    """
    Average the usable pixels of all integrations, in one pass over blocks of rows.

    Parameters
    ----------
    data, err : ndarray of float, shape (nints, ny, nx)
        Count rates and uncertainties, DN/s.
    dq : ndarray of uint32, shape (nints, ny, nx)
        JWST data quality flags.

    Returns
    -------
    mean, count : ndarray, shape (ny, nx)
        Mean, DN/s, NaN where there is none, and number of the usable pixels.
    """
    mean = np.empty(data.shape[1:], dtype=np.float32)
    count = np.empty(mean.shape, dtype=int)
    for rows in split_cube(data.shape):
        block = data[:, rows]
        good = usable_pixels(block, err[:, rows], dq[:, rows])
        mean[rows] = nanmean(np.where(good, block, np.nan), axis=0)
        count[rows] = np.count_nonzero(good, axis=0)
    return mean, count
