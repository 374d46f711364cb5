"""Extraction of all orders of an exposure."""

import logging

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.contamination import estimate_contamination, measure_wings
from soss_background.extract.optimal import Order, extract_order
from soss_background.extract.profile import cut_band
from soss_background.sky.traces import ORDERS

__all__ = ["extract_orders"]

log = logging.getLogger(__name__)

# Distances from a fainter and from a brighter order within which pixels do not enter the profile.
_NEAR, _BRIGHT_NEAR = 18, 40


def extract_orders(frames, traces, *, half_width, degree, n_sigma):
    """Return the `~soss_background.extract.optimal.Order` of each order with a usable pixel."""
    shape = frames.mean.shape
    places = {order: traces.rows(order, shape[1]) for order in ORDERS}
    bands = {}
    for order, (row, _) in places.items():
        band = cut_band(row, shape, half_width)
        if np.any((band.take(frames.count) > 0) & (band.weight > 0)):
            bands[order] = band
    rows = {order: places[order][0] for order in bands}
    extractions = {}
    for order, band in bands.items():
        settings = {"degree": degree, "n_sigma": n_sigma, "progress": f"Order {order}"}
        free = _find_free(order, band, rows)
        extractions[order] = extract_order(*frames.take(band), band, profile_mask=free, **settings)
    contamination = _find_contamination(frames, rows, extractions) if rows else {}
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


def _find_contamination(frames, rows, extractions):
    """Estimate the fraction of the flux of other orders; NaN where it is unknown."""
    first = min(rows)
    flux = np.full(frames.mean.shape[1], np.nan)
    flux[extractions[first].band.columns] = nanmedian(extractions[first].flux, axis=0)
    others = [row for order, row in rows.items() if order != first]
    wings = measure_wings(frames.mean, rows[first], others, flux)
    if wings is None:
        log.warning("%s: contamination unknown: no column shows an order alone", frames.name)
        return {key: np.full(len(each.band.columns), np.nan) for key, each in extractions.items()}
    return estimate_contamination(rows, extractions, wings)
