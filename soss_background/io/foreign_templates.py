"""Sky templates of other programs as skyflats: ``.npy`` arrays, and skyflats of older scripts."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from stdatamodels.jwst.datamodels import dqflags

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.detector import FULL, REFERENCE_BORDER, SUBARRAYS
from soss_background.errors import SkyflatError
from soss_background.io.opening import is_fits
from soss_background.io.skyflats import find_subarray

__all__ = [
    "find_array_shape",
    "is_array",
    "is_trimmed",
    "is_trimmed_fielded",
    "open_array",
    "read_trimmed",
    "skyflats_of_array",
]

# Shape of the older scripts' planes: FULL without its reference pixels.
_TRIMMED = tuple(size - 2 * REFERENCE_BORDER for size in FULL.shape)

# Error of a median over that of a mean, for Gaussian noise.
_MEDIAN = np.sqrt(np.pi / 2)


def is_array(path):
    """Return whether the name of a file is that of an array."""
    return Path(path).suffix == ".npy"


def open_array(path):
    """Map an ``.npy`` file to memory; raise ValueError if it is truncated or holds objects."""
    return np.lib.format.open_memmap(path, mode="r")


def find_array_shape(path):
    """Return the shape of the images in an ``.npy`` file, None unless they can be templates."""
    try:
        array = open_array(path)
    except ValueError:  # of another type, or truncated
        return None
    shape = array.shape[-2:]
    known = shape in [window.shape for window in SUBARRAYS.values()]
    return shape if known and array.ndim in (2, 3) and _is_real(array) else None


def _is_real(array):
    """Return whether an array holds real numbers."""
    return array.dtype.kind in "fiu"


def skyflats_of_array(array, name):
    """
    Return the templates of an array as skyflats.

    They are flat-fielded: exoTEDRF subtracts its template after its flat-field step, and this
    template is smooth, without the pattern of a flat. Values of 0 or less and NaN are gaps. The
    uncertainty is the scatter of neighbouring columns.

    Parameters
    ----------
    array : ndarray of float, shape (ny, nx) or (n, ny, nx)
        Templates of a subarray or of the full detector, DN/s.
    name : str
        Name of the array.

    Returns
    -------
    skyflats : list of tuple of str and SkyflatModel
        Each template with its name.

    Raises
    ------
    SkyflatError
        If the array cannot hold templates.
    """
    if not _is_real(array):
        raise SkyflatError(f"{name}: its values are of the type {array.dtype}, not real numbers")
    if array.ndim not in (2, 3) or not array.size:
        raise SkyflatError(f"{name}: its shape {array.shape} is not that of one or more images")
    window = find_subarray(array.shape[-2:], name)
    if array.ndim == 2:
        return [(name, _make_skyflat(array, window, name))]
    return [
        (f"{name}[{number}]", _make_skyflat(image, window, f"{name}[{number}]"))
        for number, image in enumerate(array, 1)
    ]


def _make_skyflat(image, window, name):
    """Return a flat-fielded skyflat of an image."""
    sky = np.array(image, dtype=np.float32)
    known = np.isfinite(sky) & (sky > 0)
    if not known.any():
        raise SkyflatError(f"{name}: no sky in it")
    sky = np.where(known, sky, 0)
    skyflat = SkyflatModel(bkg=sky, err=_estimate_noise(sky, known), dq=_flag(known, window))
    skyflat.meta.skyflat.flat_correction = "COMPLETE"
    return skyflat


def _flag(known, window):
    """Return flags of gaps and reference pixels, uint32, shape (ny, nx)."""
    flags = np.where(known, 0, dqflags.pixel["DO_NOT_USE"])
    flags |= np.where(window.reference_pixels(), dqflags.pixel["REFERENCE_PIXEL"], 0)
    return flags.astype(np.uint32)


def _estimate_noise(sky, known):
    """
    Estimate the noise of a sky, of its pixels and stripes, from three neighbouring columns.

    The scatter is robust, so the few columns at the edge do not affect it.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Values, DN/s.
    known : ndarray of bool, shape (ny, nx)
        True for valid values, which are positive.

    Returns
    -------
    noise : ndarray of float32, shape (ny, nx)
        A constant fraction of the sky, DN/s; 0 in gaps.
    """
    near = known[:, :-2] & known[:, 1:-1] & known[:, 2:]
    if not near.any():
        return np.zeros_like(sky)
    left, middle, right = (part[near] for part in (sky[:, :-2], sky[:, 1:-1], sky[:, 2:]))
    fraction = mad_std((left + right) / (2 * middle) - 1) / np.sqrt(1.5)
    return np.where(known, fraction * sky, 0).astype(np.float32)


def is_trimmed(path):
    """Return whether a file is a skyflat without reference pixels, of the older scripts."""
    if not is_fits(path):
        return False
    with fits.open(path) as hdus:
        return "BKG" in hdus and hdus["BKG"].is_image and hdus["BKG"].shape == _TRIMMED


def is_trimmed_fielded(path):
    """Return whether a skyflat of the older scripts is flat-fielded, which is their default."""
    return fits.getheader(path).get("FLATCORR", True) in (True, "COMPLETE")


def read_trimmed(path):
    """
    Return a skyflat of the older scripts with reference pixels added.

    Their BKG is the median of exposures, but their ERR holds the uncertainties of the single
    exposures. The uncertainty of the median follows from the exposures that are not masked.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A FITS file with the extension BKG; BKGDN, ERR, DQ and MASKS are used if present.

    Returns
    -------
    skyflat : SkyflatModel
        The skyflat, in the geometry of FULL.
    """
    with fits.open(path) as hdus:
        names = ("BKG", "BKGDN", "ERR", "DQ", "MASKS")
        planes = {name: hdus[name].data for name in names if name in hdus}
    for name, plane in planes.items():
        if plane is None or plane.shape[-2:] != _TRIMMED:
            raise SkyflatError(f"{path}: {name} is not of {_TRIMMED[0]} x {_TRIMMED[1]} pixels")
    sky = planes["BKG"].astype(np.float32)
    known = np.isfinite(sky) & (sky > 0)
    err = planes.get("ERR")
    if err is None:
        err = _estimate_noise(sky, known)
    elif err.ndim == 3:
        err = _median_error(err, planes.get("MASKS"), path)
    flags = planes.get("DQ", np.zeros(_TRIMMED, dtype=np.uint32)).astype(np.uint32)
    if flags.ndim == 3:  # flags that all exposures share
        flags = np.bitwise_and.reduce(flags)
    skyflat = SkyflatModel(bkg=_pad(sky), err=_pad(err), dq=_flag(_pad(known), FULL) | _pad(flags))
    if "BKGDN" in planes:
        skyflat.bkgdn = _pad(planes["BKGDN"].astype(np.float32))
    state = "COMPLETE" if is_trimmed_fielded(path) else "SKIPPED"
    skyflat.meta.skyflat.flat_correction = state
    return skyflat


def _pad(plane):
    """Add a frame of zeros in place of the reference pixels."""
    return np.pad(plane, REFERENCE_BORDER)


def _median_error(errors, masks, path):
    """Return the uncertainty of the median of the exposures whose mask is 0."""
    used = np.isfinite(errors) & (errors > 0)
    if masks is not None:
        if masks.shape != errors.shape:
            raise SkyflatError(f"{path}: MASKS has the shape {masks.shape}, but ERR {errors.shape}")
        used &= masks == 0
    number = np.count_nonzero(used, axis=0)
    total = np.sqrt(np.sum(errors**2, axis=0, where=used))
    # The median of a single exposure has the noise of that exposure.
    factor = np.where(number > 2, _MEDIAN, 1) / np.maximum(number, 1)
    return (factor * total).astype(np.float32)
