"""Extraction of all orders of an exposure."""

import logging

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.contamination import Contamination, estimate_contamination
from soss_background.extract.optimal import Order, extract_order
from soss_background.extract.profile import cut_band
from soss_background.sky.traces import ORDERS

__all__ = ["cut_bands", "extract_orders"]

log = logging.getLogger(__name__)

# Distances from a fainter and from a brighter order within which pixels do not enter the profile.
_NEAR, _BRIGHT_NEAR = 18, 40


def cut_bands(traces, mean, half_width):
    """
    Cut the aperture of each order.

    Parameters
    ----------
    traces : `~soss_background.SossTracesModel`
        The traces.
    mean : ndarray of float, shape (ny, nx)
        Mean of the integrations, DN/s; NaN where there is no measurement.
    half_width : float
        Half of the width of the aperture, pixels.

    Returns
    -------
    bands : dict
        The `~soss_background.extract.profile.Band` of each order that has a measurement.
    """
    bands = {}
    for order in ORDERS:
        band = cut_band(traces.rows(order, mean.shape[1])[0], mean.shape, half_width)
        if np.any(np.isfinite(band.take(mean)) & (band.weight > 0)):
            bands[order] = band
    return bands


def extract_orders(apertures, traces, mean, *, subtract_orders, **settings):
    """
    Extract the spectra of all orders.

    Parameters
    ----------
    apertures : `~soss_background.extract.frames.Apertures`
        The integrations of all segments.
    traces : `~soss_background.SossTracesModel`
        The traces.
    mean : ndarray of float, shape (ny, nx)
        Mean of the integrations, DN/s; NaN where there is no measurement.
    subtract_orders : bool
        Whether to subtract the flux of the other orders from the pixels of an order, as far as it
        is known, and to extract it again.
    **settings
        See `~soss_background.extract.optimal.extract_order`.

    Returns
    -------
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order.
    """
    places = {order: traces.rows(order, mean.shape[1]) for order in apertures.bands}
    rows = {order: row for order, (row, _) in places.items()}
    extractions = {}
    for order, band in apertures.bands.items():
        free = _find_free(order, band, rows)
        extractions[order] = extract_order(
            *apertures.take(order), band, profile_mask=free, progress=f"Order {order}", **settings
        )
    found = estimate_contamination(mean, rows, extractions)
    if found is None:
        log.warning("Contamination unknown: too few pixels between the orders, or no flux")
        nothing = {
            order: np.full(len(each.columns), np.nan) for order, each in apertures.bands.items()
        }
        found = {order: Contamination(each, {}, each) for order, each in nothing.items()}
    elif subtract_orders:
        curves = {order: _light_curve(each) for order, each in extractions.items()}
        for order, band in apertures.bands.items():
            light, variances = apertures.take(order)
            for other, each in found[order].light.items():
                light -= curves[other][:, np.newaxis, np.newaxis] * each.astype(np.float32)
            extractions[order] = extract_order(
                light, variances, band, profile_mask=_find_free(order, band, rows),
                progress=f"Order {order} alone", **settings,
            )  # fmt: skip
    orders = {}
    for order, extraction in extractions.items():
        row, wavelength = places[order]
        wavelength = wavelength[extraction.band.columns]
        fraction, _, beyond = found[order]
        orders[order] = Order(row, wavelength, extraction, fraction, beyond)
    return orders


def _light_curve(extraction):
    """Return the flux of each integration relative to the median, shape (nints,)."""
    flux = extraction.flux
    ratio = flux / np.where(nanmedian(flux, axis=0) > 0, nanmedian(flux, axis=0), np.nan)
    # Bright columns have the least noise.
    bright = nanmedian(flux / extraction.error, axis=0)
    bright = bright >= np.nanmedian(bright) if np.isfinite(bright).any() else bright > 0
    curve = nanmedian(ratio[:, bright], axis=1)
    return np.where(np.isfinite(curve), curve, 1)


def _find_free(order, band, rows):
    """Find the pixels of a band that are far from all other orders."""
    free = np.ones(band.rows.shape, dtype=bool)
    for other, row in rows.items():
        if other != order:
            reach = _NEAR if other > order else _BRIGHT_NEAR
            free &= ~(np.abs(band.rows - row[band.columns, np.newaxis]) < reach)
    return free
