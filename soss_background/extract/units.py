"""Units of exposures, and of the fluxes in their apertures."""

import numpy as np
from astropy import units as u

from soss_background.errors import SkyflatError

__all__ = [
    "COUNT_RATE",
    "FLUX",
    "FLUX_PER_WAVELENGTH",
    "find_flux_unit",
    "find_unit",
    "spectral_flux",
    "write_unit",
]

COUNT_RATE, FLUX, _SURFACE_BRIGHTNESS = "DN/s", "Jy", "MJy/sr"
FLUX_PER_WAVELENGTH = u.W / u.m**2 / u.micron


def find_unit(header):
    """Return BUNIT from flattened metadata; without it, that of the last step of calibration."""
    calibrated = header.get("meta.cal_step.photom") == "COMPLETE"
    return header.get("meta.bunit_data") or (_SURFACE_BRIGHTNESS if calibrated else COUNT_RATE)


def find_flux_unit(header, name):
    """
    Find the unit of the flux in an aperture.

    Parameters
    ----------
    header : dict
        Flattened metadata of an exposure.
    name : str
        Its file name.

    Returns
    -------
    unit : {"DN/s", "Jy"}
        Unit of the flux: Jy for exposures in MJy/sr.
    factor : float
        Flux for a sum of 1 over the pixels of the aperture.

    Raises
    ------
    SkyflatError
        If the exposure has another unit, or its pixel area (PIXAR_SR) is needed and missing.
    """
    unit = find_unit(header)
    if unit == COUNT_RATE:
        return COUNT_RATE, 1.0
    if unit != _SURFACE_BRIGHTNESS:
        raise SkyflatError(f"{name}: BUNIT is {unit}, neither DN/s nor MJy/sr")
    area = header.get("meta.photometry.pixelarea_steradians")
    if not area:
        raise SkyflatError(f"{name}: BUNIT is MJy/sr, but the pixel area (PIXAR_SR) is missing")
    return FLUX, 1e6 * area


def spectral_flux(wavelength):
    """Return the flux per wavelength, W/m^2/micron, of 1 Jy at wavelengths in micron."""
    equivalent = u.spectral_density(np.asarray(wavelength) * u.micron)
    return (1 * u.Jy).to_value(FLUX_PER_WAVELENGTH, equivalent)


def write_unit(unit):
    """Return a unit as the TUNIT of a table; unlike FITS, astropy has the unit DN."""
    return str(unit).replace(" ", "")
