"""Extraction of all orders of an exposure."""

import logging

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.contamination import estimate_contamination, measure_wings
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


def extract_orders(apertures, traces, mean, *, degree, n_sigma):
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
    degree, n_sigma : int, float
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
        settings = {"degree": degree, "n_sigma": n_sigma, "progress": f"Order {order}"}
        free = _find_free(order, band, rows)
        extractions[order] = extract_order(
            *apertures.take(order), band, profile_mask=free, **settings
        )
    contamination = _find_contamination(mean, rows, extractions) if rows else {}
    orders = {}
    for order, extraction in extractions.items():
        row, wavelength = places[order]
        wavelength = wavelength[extraction.band.columns]
        orders[order] = Order(row, wavelength, extraction, contamination[order])
    return orders


def _find_free(order, band, rows):
    """Find the pixels of a band that are far from all other orders."""
    free = np.ones(band.rows.shape, dtype=bool)
    for other, row in rows.items():
        if other != order:
            reach = _NEAR if other > order else _BRIGHT_NEAR
            free &= ~(np.abs(band.rows - row[band.columns, np.newaxis]) < reach)
    return free


def _find_contamination(mean, rows, extractions):
    """Estimate the fraction of the flux of other orders; NaN where it is unknown."""
    first = min(rows)
    flux = np.full(mean.shape[1], np.nan)
    flux[extractions[first].band.columns] = nanmedian(extractions[first].flux, axis=0)
    others = [row for order, row in rows.items() if order != first]
    wings = measure_wings(mean, rows[first], others, flux)
    if wings is None:
        log.warning("Contamination unknown: no column shows an order alone")
        return {key: np.full(len(each.band.columns), np.nan) for key, each in extractions.items()}
    return estimate_contamination(rows, extractions, wings)
