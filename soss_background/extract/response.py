"""Response and efficiency from the spectrum of a standard star, and fluxes by a response."""

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.table import Table, vstack
from bottleneck import nanmedian

from soss_background.detector import COLLECTING_AREA
from soss_background.errors import SkyflatError
from soss_background.extract.units import FLUX_PER_WAVELENGTH, spectral_flux, write_unit
from soss_background.io.curves import FLUX, read_curve
from soss_background.io.files import explain_fault
from soss_background.io.quiet import ignore_warnings
from soss_background.numerics.polynomial import fit_clipped

__all__ = ["flux_factors", "measure_response", "read_response", "read_standard"]

_RESPONSE = u.Unit("DN m2 um / (s W)")

# Standard deviations beyond which columns are clipped, and number of clippings.
_CLIP, _ITERATIONS = 3.0, 5


def read_standard(path):
    """Return a star's ``wavelength`` (micron) and ``flux`` (W/m^2/micron), see `read_curve`."""
    wavelength, flux = read_curve(path, "FLUX", FLUX, "cannot be read as a spectrum")
    try:
        wavelength = wavelength.to(u.micron)
        flux = flux.to(FLUX_PER_WAVELENGTH, u.spectral_density(wavelength))
    except u.UnitConversionError as err:
        raise SkyflatError(
            f"{path}: WAVELENGTH in '{wavelength.unit}' and FLUX in '{flux.unit}' are not a "
            "spectrum: give the flux per wavelength (such as W m-2 micron-1) or frequency (Jy)"
        ) from err
    return Table({"wavelength": wavelength, "flux": flux})


def measure_response(orders, standard, *, gain, degree, max_contamination):
    """
    Compare the spectrum of a standard star with its model.

    Parameters
    ----------
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order.
    standard : `~astropy.table.Table`
        The model, see `read_standard`.
    gain : float
        Electrons per DN.
    degree : int
        Degree of the polynomial through the logarithm of the response of an order; columns that
        deviate by more than three standard deviations, such as lines, are clipped.
    max_contamination : float
        Columns in which other orders contribute a larger fraction of the flux are ignored.

    Returns
    -------
    table : `~astropy.table.Table`
        ``order``, ``wavelength`` (micron), ``response`` (DN/s for 1 W/m^2/micron), ``fit`` (its
        polynomial; NaN beyond the columns used) and ``efficiency`` (electrons per photon that
        reaches the telescope) of each column.
    """
    tables = []
    for order, each in orders.items():
        flux = nanmedian(each.extraction.flux, axis=0)
        model = np.interp(
            each.wavelength, standard["wavelength"], standard["flux"], left=np.nan, right=np.nan
        )
        width = np.abs(np.gradient(each.wavelength))
        power = model * width * u.W / u.m**2 * (COLLECTING_AREA * u.m**2)
        photon = constants.h * constants.c / (each.wavelength * u.micron)
        photons = (power / photon).to_value(1 / u.s)
        response = flux / np.where(model > 0, model, np.nan)
        table = Table({"wavelength": each.wavelength, "response": response})
        clean = (response > 0) & (each.contamination <= max_contamination)
        table["fit"] = _fit(each.wavelength, response, clean, degree)
        table["efficiency"] = gain * flux / np.where(photons > 0, photons, np.nan)
        table["order"] = order
        tables.append(table["order", "wavelength", "response", "fit", "efficiency"])
    table = vstack(tables)
    table["wavelength"].unit = "um"
    table["response"].unit = table["fit"].unit = _RESPONSE
    return table


def read_response(path):
    """Return ``order``, ``wavelength`` (micron) and ``fit`` of a saved response, by wavelength."""
    with explain_fault(path, "cannot be read as a response"), ignore_warnings(u.UnitsWarning):
        table = Table.read(path)
        for name in ("order", "wavelength", "fit"):
            if name not in table.colnames:
                raise SkyflatError(f"{path}: not a response, column {name} is missing")
        unit = table["fit"].unit
        # The unit of a FITS table is a string, since the FITS standard has no DN.
        if unit != _RESPONSE and str(unit) != write_unit(_RESPONSE):
            raise SkyflatError(f"{path}: its unit is {unit}, not {_RESPONSE}")
        table = table[np.asarray(table["fit"], float) > 0]
        table.sort("wavelength")
        return table


def flux_factors(response, wavelengths):
    """
    Compute the fluxes for 1 DN/s in a column.

    Parameters
    ----------
    response : `~astropy.table.Table`
        See `read_response`.
    wavelengths : dict of ndarray, shape (n,)
        Wavelengths of the columns of each order, micron.

    Returns
    -------
    factors : dict of ndarray, shape (n,)
        Fluxes, Jy; NaN beyond the response of the order.
    """
    factors = {}
    for order, wavelength in wavelengths.items():
        mine = response[response["order"] == order]
        factors[order] = np.full(len(wavelength), np.nan)
        if len(mine) > 0:
            fit = np.interp(wavelength, mine["wavelength"], np.log(mine["fit"]), np.nan, np.nan)
            factors[order] = np.exp(-fit) / spectral_flux(wavelength)
    return factors


def _fit(wavelength, response, used, degree):
    """Fit a polynomial to the logarithm of a response in the usable columns."""
    values = np.log(np.where(response > 0, response, 1))
    settings = {"degree": degree, "n_sigma": _CLIP, "iterations": _ITERATIONS}
    fit, used = fit_clipped(wavelength, values, used, **settings)
    if fit is None:
        return np.full(len(response), np.nan)
    beyond = (wavelength < wavelength[used].min()) | (wavelength > wavelength[used].max())
    return np.where(beyond, np.nan, np.exp(fit(wavelength)))
