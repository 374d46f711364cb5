"""Spectra as products: jwst's model of time series, and the median spectrum of all orders."""

import numpy as np
from astropy.table import Table, vstack
from bottleneck import nanmedian
from jwst.datamodels.utils.tso_multispec import make_tso_specmodel
from jwst.extract_1d.extract import populate_time_keywords
from jwst.model_blender.blender import ModelBlender
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.extract.frames import TIME_TABLES
from soss_background.extract.units import FLUX, FLUX_PER_WAVELENGTH, spectral_flux

__all__ = ["find_factors", "join_spectra", "make_spectra", "merge_orders"]

_DO_NOT_USE = dqflags.pixel["DO_NOT_USE"]
# Flag of columns above ``max_contamination``, since jwst has no flag for contamination.
_CONTAMINATED = dqflags.pixel["OTHER_BAD_PIXEL"]


def make_spectra(exposure, orders, max_contamination, unit, *, box=False):
    """
    Return the spectra of all orders, a row per integration, sorted by wavelength.

    Parameters
    ----------
    exposure : `~stdatamodels.jwst.datamodels.CubeModel` or ``ImageModel``
        The exposure, or one of its segments; only its metadata and the shape of its data are used.
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order, with its integrations.
    max_contamination : float
        Largest fraction of the flux that other orders may contribute to a column without a flag.
    unit : str
        Unit of the fluxes.
    box : bool
        Whether to return the spectra of the box.

    Returns
    -------
    spectra : `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        The spectra.
    """
    first = exposure.meta.exposure.integration_start or 1
    spectra = datamodels.TSOMultiSpecModel()
    spectra.update(exposure, only="PRIMARY", extra_fits=True)
    for order, (_, wavelength, extraction, contamination, _) in orders.items():
        flux, error = extraction.flux, extraction.error
        if box:
            flux, error = extraction.box_flux, extraction.box_error
        rising = np.argsort(wavelength)
        flags = np.where(np.isfinite(flux), 0, _DO_NOT_USE)
        flags |= np.where(contamination <= max_contamination, 0, _CONTAMINATED)
        planes = {"FLUX": flux, "FLUX_ERROR": error, "DQ": flags, "NPIXELS": extraction.number}
        empty = _spectrum(order, wavelength[rising], unit)
        series = make_tso_specmodel([empty], segment=exposure.meta.exposure.segment_number)
        units = {column.name: column.unit for column in series.spec_table.columns}
        table = np.repeat(np.asarray(series.spec_table), len(flux))
        table["INT_NUM"] = first + np.arange(len(flux))
        for key, values in planes.items():
            table[key] = np.asarray(values)[:, rising]
        series.spec_table = table
        for name, its_unit in units.items():
            series.spec_table.columns[name].unit = its_unit
        spectra.spec.append(series)
    if getattr(exposure, "int_times", None) is not None:
        populate_time_keywords(exposure, spectra)
    for name in TIME_TABLES:
        if getattr(exposure, name, None) is not None:
            setattr(spectra, name, getattr(exposure, name).copy())
    spectra.meta.cal_step.extract_1d = "COMPLETE"
    if unit == FLUX:
        spectra.meta.cal_step.photom = "COMPLETE"
    return spectra


def find_factors(orders, spectra):
    """
    Find the fluxes for 1 DN/s in spectra that were calibrated.

    Parameters
    ----------
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order, DN/s.
    spectra : `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        The spectra of their first integrations, calibrated.

    Returns
    -------
    factors : dict of ndarray, shape (n,)
        Fluxes, Jy, in the columns of each order; NaN where there are none.
    """
    factors = {order: np.full(len(each.wavelength), np.nan) for order, each in orders.items()}
    for spec in spectra.spec:
        table, each = spec.spec_table, orders[spec.spectral_order]
        if table.columns["FLUX"].unit != FLUX:
            continue
        rising = np.argsort(each.wavelength)
        flux = each.extraction.flux[: len(table), rising]
        ratio = table["FLUX"] / np.where(flux == 0, np.nan, flux)
        factor = nanmedian(ratio, axis=0)
        factors[spec.spectral_order][rising] = np.where(factor > 0, factor, np.nan)
    return factors


def join_spectra(segments, name):
    """
    Return the spectra of all segments of an exposure as one product, as calwebb_tso3 does.

    Parameters
    ----------
    segments : list of `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        The spectra of each segment, in order of time.
    name : str
        File name of the exposure.

    Returns
    -------
    spectra : `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        A spectrum of each order and segment; a single segment is returned unchanged.
    """
    if len(segments) == 1:
        return segments[0]
    spectra, blender = datamodels.TSOMultiSpecModel(), ModelBlender()
    spectra.update(segments[0], only="PRIMARY", extra_fits=True)
    for segment in segments:
        spectra.spec.extend(segment.spec)
        blender.accumulate(segment)
    blender.finalize_model(spectra)
    for key in TIME_TABLES:
        times = [getattr(each, key) for each in segments if getattr(each, key, None) is not None]
        if times:
            setattr(spectra, key, np.concatenate(times))
    spectra.meta.filename = name
    return spectra


def _spectrum(order, wavelength, unit):
    """Create the model of an empty spectrum."""
    dtype = datamodels.SpecModel().get_dtype("spec_table")
    table = np.zeros(len(wavelength), dtype=dtype)
    for name in dtype.names:
        if dtype[name].kind == "f":
            table[name] = np.nan
    table["WAVELENGTH"] = wavelength
    spectrum = datamodels.SpecModel(spec_table=table)
    spectrum.spectral_order = order
    for column, its_unit in (("wavelength", "um"), ("flux", unit), ("flux_error", unit)):
        spectrum.spec_table.columns[column].unit = its_unit
    return spectrum


def merge_orders(orders, max_contamination, unit):
    """
    Merge the median spectra of all orders.

    Where two orders cover a wavelength, an order within ``max_contamination`` takes precedence,
    then the order with the higher signal-to-noise ratio.

    Parameters
    ----------
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order.
    max_contamination : float
        Largest fraction of the flux that other orders may contribute.
    unit : {"DN/s", "Jy"}
        Unit of the fluxes, DN/s per column or Jy.

    Returns
    -------
    table : `~astropy.table.Table`
        ``wavelength`` (micron), ``flux`` and ``error`` (of the median of the integrations),
        ``snr``, ``order``, ``contamination``, sorted by wavelength; fluxes in Jy also as
        ``flux_lambda`` and ``error_lambda`` (W/m^2/micron).
    """
    parts = []
    for order, (_, wavelength, extraction, contamination, _) in orders.items():
        number = np.sum(np.isfinite(extraction.flux), axis=0)
        # The median of n values of a normal distribution is this much noisier than their mean.
        noisier = np.where(number > 2, np.sqrt(np.pi / 2), 1)
        error = nanmedian(extraction.error, axis=0) * noisier / np.sqrt(np.maximum(number, 1))
        part = Table(
            {
                "wavelength": wavelength,
                "flux": nanmedian(extraction.flux, axis=0),
                "error": error,
            }
        )
        part["snr"] = part["flux"] / part["error"]
        part["order"], part["contamination"] = order, contamination
        part["snr"][~(part["error"] > 0)] = np.nan
        parts.append(part)
    kept = [part[_is_best(part, parts, max_contamination)] for part in parts]
    table = vstack(kept)
    table.sort("wavelength")
    for column, its_unit in (("wavelength", "um"), ("flux", unit), ("error", unit)):
        table[column].unit = its_unit
    if unit == FLUX:
        per_jansky = spectral_flux(table["wavelength"])
        for name in ("flux", "error"):
            table[f"{name}_lambda"] = table[name].data * per_jansky
            table[f"{name}_lambda"].unit = FLUX_PER_WAVELENGTH
    return table


def _is_best(part, parts, max_contamination):
    """Find the columns of an order whose wavelengths no other order measures better."""
    best = np.isfinite(part["snr"])
    for other in parts:
        if other is part:
            continue
        rising = np.argsort(other["wavelength"])
        wave = other["wavelength"][rising]
        snr, contamination = (
            np.interp(part["wavelength"], wave, other[name][rising], left=fill, right=fill)
            for name, fill in (("snr", np.nan), ("contamination", np.nan))
        )
        clean = part["contamination"] <= max_contamination
        rival_clean = contamination <= max_contamination
        better = (clean & ~rival_clean) | ((clean == rival_clean) & (part["snr"] >= snr))
        # The other order has no measurement in its gaps or beyond its ends.
        best &= better | ~np.isfinite(snr)
    return best
