"""Encircled energy of simulated images of the point spread function."""

import numpy as np
from astropy.io import fits
from astropy.table import Table

from soss_background.detector import FILTERS, PIXEL_SCALE
from soss_background.errors import SkyflatError
from soss_background.fluxcal.aperture import curve_of_growth, find_star
from soss_background.fluxcal.psf import check_psf
from soss_background.io.files import explain_fault

__all__ = ["measure_psf"]

# Extensions of WebbPSF and STPSF, the preferred one first: images with distortion and detector
# effects, as the star is observed, and in the pixels of the detector.
_EXTENSIONS = ("DET_DIST", "OVERDIST", "DET_SAMP", "OVERSAMP")
# Largest deviation of the pixel scale from that of the detector, as a fraction.
_SCALE_TOLERANCE = 0.03
# Step of the radii, pixels.
_STEP = 0.5
# Standard deviations beyond which pixels of the sky are ignored, as by `EncircledEnergyStep`.
_N_SIGMA = 3.0
# Decimals of the encircled energy; finer differences are rounding errors of the sums.
_DECIMALS = 7


def measure_psf(path, sky_annulus):
    """
    Measure the encircled energy of an image of the PSF by WebbPSF or STPSF.

    The image is measured as `~soss_background.EncircledEnergyStep` measures a star: in pixels of
    the detector, in exact circles around the centroid, and without the mean of the sky annulus, so
    that the wings in the annulus are subtracted from both. An oversampled image is binned.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        FITS file. Of several images, the first of DET_DIST, OVERDIST, DET_SAMP, OVERSAMP and the
        first extension is measured. FILTER and PIXELSCL (arcsec) are required.
    sky_annulus : tuple of float
        Inner and outer radius of the sky annulus, pixels of the detector.

    Returns
    -------
    table : `~astropy.table.Table`
        ``radius`` (pixels of the detector, up to the sky annulus), ``radius_arcsec`` and
        ``encircled_energy`` (fraction). ``meta`` records FILTER, the file and its extension.

    Raises
    ------
    SkyflatError
        If the file cannot be read, is of another instrument or no imaging filter, does not cover
        the sky annulus, or is not normalized.
    """
    image, header = _read_image(path)
    name, scale = _check_header(path, header)
    image = _bin_image(path, image, round(PIXEL_SCALE / scale))
    position, sky = _find_center(path, image, sky_annulus)
    radii = np.arange(_STEP, sky_annulus[0] + _STEP / 2, _STEP)
    settings = {"gain": 1.0, "time": 1.0}  # of the errors, which simulated images do not have
    energy, _ = curve_of_growth(image, 0 * image, position, radii, sky, **settings)
    energy = np.round(energy, _DECIMALS)
    check_psf(path, radii, energy)
    table = Table({"radius": radii, "radius_arcsec": radii * PIXEL_SCALE})
    table["encircled_energy"] = energy
    table["radius"].unit, table["radius_arcsec"].unit = "pixel", "arcsec"
    table.meta = {"FILTER": name, "IMAGE": str(path), "EXTNAME": header.get("EXTNAME", "PRIMARY")}
    table.meta["SKYANNULUS"] = list(sky_annulus)
    return table


def _read_image(path):
    """Return the preferred image of a file, and its header."""
    with explain_fault(path, "cannot be read as a FITS image"), fits.open(path) as hdus:
        images = [hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] == 2]
        if not images:
            raise SkyflatError(f"{path}: no image in it")
        named = {hdu.name: hdu for hdu in reversed(images)}
        hdu = next((named[name] for name in _EXTENSIONS if name in named), images[0])
        return np.array(hdu.data, dtype=float), dict(hdus[0].header) | dict(hdu.header)


def _check_header(path, header):
    """Return the filter and the pixel scale, arcsec."""
    instrument, name = header.get("INSTRUME", "NIRISS"), header.get("FILTER")
    if instrument != "NIRISS":
        raise SkyflatError(f"{path}: INSTRUME is {instrument}, not NIRISS")
    if name not in FILTERS:
        raise SkyflatError(f"{path}: FILTER is {name}, not one of NIRISS imaging")
    scale = header.get("PIXELSCL")
    if not isinstance(scale, float) or not scale > 0:
        raise SkyflatError(f"{path}: keyword PIXELSCL is missing, or not positive")
    factor = max(round(PIXEL_SCALE / scale), 1)
    if abs(factor * scale / PIXEL_SCALE - 1) > _SCALE_TOLERANCE:
        raise SkyflatError(
            f"{path}: PIXELSCL is {scale:g} arcsec, not a whole fraction of {PIXEL_SCALE} arcsec"
        )
    return name, scale


def _bin_image(path, image, factor):
    """Sum squares of pixels; raise SkyflatError unless they cover the image."""
    ny, nx = image.shape
    if ny % factor or nx % factor:
        raise SkyflatError(
            f"{path}: {nx} by {ny} pixels, not multiples of the oversampling {factor}"
        )
    return image.reshape(ny // factor, factor, nx // factor, factor).sum(axis=(1, 3))


def _find_center(path, image, sky_annulus):
    """Return the centroid near the middle of an image, and the sky around it."""
    bad = ~np.isfinite(image)
    middle = tuple((size - 1) / 2 for size in image.shape[::-1])
    if bad.any():
        raise SkyflatError(f"{path}: some of its pixels are not finite")
    if min(middle) + 0.5 < sky_annulus[1]:
        raise SkyflatError(
            f"{path}: covers {min(middle) + 0.5:g} pixels around its middle, the sky annulus needs "
            f"{sky_annulus[1]:g}: simulate a larger field"
        )
    try:
        return find_star(image, bad, middle, sky_annulus, _N_SIGMA)
    except ValueError as err:
        raise SkyflatError(f"{path}: {err}") from err
