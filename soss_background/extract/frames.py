"""Integrations of an exposure, and pixels of the apertures in all segments of a time series."""

from dataclasses import dataclass

import numpy as np

from soss_background.detector import Window
from soss_background.io.exposures import REQUIRED_CLEAR, find_pwcpos, find_window
from soss_background.io.store import StoredArray
from soss_background.numerics.integrations import usable_pixels
from soss_background.numerics.threads import split_rows

__all__ = ["TIME_TABLES", "Apertures", "Frames", "read_frames"]

# Tables of the times of integrations, and of the blocks of columns of superstripes.
TIME_TABLES = ("int_times", "int_times_stripe")

# Integrations of an aperture that are read at a time.
_BLOCK = 16


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
    window: Window
    pwcpos: float

    def image(self, number):
        """Return the usable pixels of an integration, shape (ny, nx), DN/s; NaN elsewhere."""
        planes = (plane[number] for plane in (self.data, self.err, self.dq))
        return np.where(usable_pixels(*planes), self.data[number], np.nan)

    def take(self, band, integrations=slice(None)):
        """
        Return integrations of the pixels of an aperture.

        Parameters
        ----------
        band : `~soss_background.extract.profile.Band`
            The aperture.
        integrations : slice
            The integrations; by default all.

        Returns
        -------
        light, variance : ndarray of float, shape (nints, n, m)
            Count rates, DN/s, and their variances without that of the flat, (DN/s)^2; NaN where
            there is no usable pixel.
        """
        planes = (self.data, self.err, self.dq)
        data, err, dq = (band.take(plane[integrations]) for plane in planes)
        good = usable_pixels(data, err, dq) & band.inside
        variance = err**2
        if self.var_flat is not None:
            scatter = variance - np.nan_to_num(band.take(self.var_flat[integrations]))
            variance = np.where(scatter > 0, scatter, variance)
        return np.where(good, data, np.nan), np.where(good, variance, np.nan)


def read_frames(exposure):
    """Return the `Frames` of an image or cube."""
    name, window = exposure.meta.filename, find_window(exposure, REQUIRED_CLEAR)
    flat = getattr(exposure, "var_flat", None)
    if flat is not None and flat.shape != exposure.err.shape:
        flat = None
    planes = (exposure.data, exposure.err, exposure.dq, flat)
    planes = [each if each is None else each.reshape(-1, *window.shape) for each in planes]
    return Frames(name, *planes, window, find_pwcpos(exposure))


class Apertures:
    """
    The integrations of all segments of an exposure in the apertures of its orders.

    Parameters
    ----------
    bands : dict
        The `~soss_background.extract.profile.Band` of each order.
    folder : `~pathlib.Path`, optional
        Folder for hidden files of the pixels; by default they stay in memory.

    Attributes
    ----------
    bands : dict
        See the parameter.
    headers : list of data models
        The segments without their pixels.
    total, bad : int
        Number of pixels of all integrations, and of those that are unusable; without reference
        pixels.
    """

    def __init__(self, bands, folder=None):
        self.bands, self._folder = bands, folder
        self.headers, self.total, self.bad = [], 0, 0
        self._samples = {order: [] for order in bands}

    def clear(self):
        """Forget all integrations."""
        self._samples.clear()

    def add(self, exposure):
        """Add the integrations of the next segment."""
        frames = read_frames(exposure)
        science = ~frames.window.reference_pixels()
        self.total += len(frames.data) * np.count_nonzero(science)
        for planes in zip(frames.data, frames.err, frames.dq, strict=True):
            self.bad += np.count_nonzero(science & ~usable_pixels(*planes))
        for order, band in self.bands.items():
            self._samples[order].append(self._store(frames, band))
        self.headers.append(_strip(exposure))

    def _store(self, frames, band):
        """Return count rates and variances in an aperture as arrays or files."""
        shape = (len(frames.data), *band.rows.shape)
        arrays = [self._create(shape) for _ in range(2)]
        for part in split_rows(len(frames.data), _BLOCK):
            for array, plane in zip(arrays, frames.take(band, part), strict=True):
                array[part] = plane
        return arrays

    def _create(self, shape):
        """Create an array, in memory or in a file."""
        if self._folder is None:
            return np.empty(shape, np.float32)
        return StoredArray(self._folder, shape, np.float32)

    def take(self, order):
        """Return count rates and variances of an order, see `Frames.take`."""
        parts = zip(*self._samples[order], strict=True)
        return [np.concatenate([stored[:] for stored in part]) for part in parts]

    def slices(self):
        """Return the integrations of each segment as a slice."""
        lengths = [header.data.shape[0] if header.data.ndim == 3 else 1 for header in self.headers]
        ends = np.cumsum(lengths)
        return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def _strip(exposure):
    """Return a copy of an exposure without its pixels, which takes no memory."""
    header = type(exposure)(validate_on_assignment=False)
    header.update(exposure, extra_fits=True)
    header.data = np.broadcast_to(np.float32(0), exposure.data.shape)
    for name in TIME_TABLES:
        if getattr(exposure, name, None) is not None:
            setattr(header, name, getattr(exposure, name).copy())
    return header
