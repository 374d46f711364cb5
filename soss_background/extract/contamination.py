"""Flux of the other orders in the aperture of an order."""

from typing import NamedTuple

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian
from scipy.ndimage import map_coordinates
from scipy.optimize import lsq_linear
from scipy.signal import fftconvolve

from soss_background.numerics.cells import gather_blocks

__all__ = ["Contamination", "estimate_contamination"]

# Side of the blocks in which wings are computed, pixels; they change little within it.
_BLOCK = 4
# Radii of the parts of the wings, pixels. With twice as few, contamination in simulations is wrong
# by a tenth instead of a twentieth.
_RADII = (6.0, 12.0, 24.0, 48.0, 96.0, 192.0)
# Distance from a trace to which its wings are summed for the aperture correction, pixels.
_FAR = 400
# Tolerated error of the model of the wings, as a fraction, and clipping of blocks above it (stars).
_MODEL_ERROR, _CLIP, _CLIPPINGS = 0.05, 4.0, 3
# Fraction of other orders above which the flux of an order is too uncertain to be subtracted from
# others: that of order 2 at its red end. Without the limit, order 1 gets 0.6 % too faint there.
_DROWNED = 0.7
# Fewest blocks between the orders, and rounds of the estimate.
_FEWEST, _ROUNDS = 100, 4


class Contamination(NamedTuple):
    """
    Flux of the other orders in the aperture of an order.

    Attributes
    ----------
    fraction : ndarray of float, shape (n,)
        Fraction of the median flux that belongs to other orders; NaN where it is unknown.
    light : dict of ndarray, shape (n, m)
        Median count rate of each other order on the pixels of the band, DN/s; 0 where unknown.
    beyond : ndarray of float, shape (n,)
        Flux of the order beyond its aperture, to 400 pixels, relative to that in it.
    """

    fraction: np.ndarray
    light: dict
    beyond: np.ndarray


def estimate_contamination(image, rows, extractions):
    """
    Estimate the flux of other orders in the aperture of each order.

    Inside its aperture, an order has its fitted profile. Beyond it, it has wings: a radial profile
    that is the same for all wavelengths, a sum of Moffat functions with positive weights, fitted
    to the image between the orders. The flux of an order is that in its aperture without the flux
    of the others, which is found by iteration. Where more than 70 % of the measured flux of an
    order belongs to others, its own flux is assumed to be 0 in their apertures.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Mean count rates without sky, DN/s; NaN where there is no measurement.
    rows : dict of ndarray, shape (nx,)
        Row of the trace of each order in each column; NaN beyond it.
    extractions : dict
        The `~soss_background.extract.optimal.Extraction` of each order.

    Returns
    -------
    contamination : dict of `Contamination`, or None
        By order; None if there are too few pixels between the orders, or no order is bright.
    """
    # The flux of the box does not depend on the profile, in which the other orders are too.
    measured = {order: nanmedian(each.box_flux, axis=0) for order, each in extractions.items()}
    if not any(np.any(flux > 0) for flux in measured.values()):
        return None
    target, free = _bin(image, rows, extractions)
    if np.count_nonzero(free) < _FEWEST:
        return None
    own = measured
    for _ in range(_ROUNDS):
        bright = {order: _without_drowned(own[order], measured[order]) for order in extractions}
        spread = {
            order: _spread(
                rows[order], _fill(bright[order], each.band, image.shape[1]), target.shape
            )
            for order, each in extractions.items()
        }
        weights = _fit_wings(target, free, sum(spread.values()))
        wings = {order: np.tensordot(weights, parts, 1) for order, parts in spread.items()}
        light = {
            order: {
                other: _light_of(other, extractions, rows, bright[other], wings[other], each.band)
                for other in extractions
                if other != order
            }
            for order, each in extractions.items()
        }
        own = {
            order: measured[order] - _sum(light[order].values(), each.band)
            for order, each in extractions.items()
        }
    return {
        order: _summarise(
            order, measured, own[order], light[order], rows, extractions,
            _beyond(rows[order], own[order], each.band, target.shape, weights),
        )
        for order, each in extractions.items()
    }  # fmt: skip


def _without_drowned(own, measured):
    """Return the flux of an order, 0 where most of the measured flux belongs to other orders."""
    return np.where(own < (1 - _DROWNED) * measured, 0, own)


def _sum(light, band):
    """Return the sum of count rates of several orders over an aperture, shape (n,)."""
    return np.sum(band.weight * sum(light), axis=1)


def _bin(image, rows, extractions):
    """Return medians of blocks of an image, and True for blocks beyond all apertures."""
    free = np.isfinite(image)
    for order, each in extractions.items():
        reach = np.max(np.abs(each.band.offset)) + 1
        free &= ~(np.abs(np.arange(len(image))[:, np.newaxis] - rows[order]) < reach)
    blocks = gather_blocks(np.where(free, image, np.nan), (_BLOCK, _BLOCK))
    return nanmedian(blocks, axis=-1), np.isfinite(blocks).mean(axis=-1) > 0.5


def _fill(flux, band, number):
    """Return the positive flux of all columns, gaps interpolated; 0 beyond the trace."""
    known = flux > 0
    filled = np.zeros(number)
    if known.any():
        filled[band.columns] = np.interp(band.columns, band.columns[known], flux[known])
    return filled


def _spread(row, flux, shape):
    """Return the image of a trace spread by each Moffat function, in blocks, shape (k, my, mx)."""
    light = np.zeros(shape)
    columns = np.flatnonzero(np.isfinite(row))
    place = (row[columns] + 0.5) / _BLOCK - 0.5
    below = np.floor(place).astype(int)
    for block, share in ((below, below + 1 - place), (below + 1, place - below)):
        inside = (block >= 0) & (block < shape[0])
        where = (block[inside], columns[inside] // _BLOCK)
        np.add.at(light, where, (share * flux[columns])[inside])
    y, x = (_BLOCK * np.arange(1 - number, number) for number in shape)
    squared = y[:, np.newaxis] ** 2 + x**2
    return np.array(
        [
            fftconvolve(light, (1 + squared / radius**2) ** -1.5 / (2 * np.pi * radius**2), "same")
            for radius in _RADII
        ]
    )


def _fit_wings(target, free, parts):
    """Return the weights of the Moffat functions that fit blocks between the orders best."""
    values = target[free]
    # There may be a constant, too.
    design = np.vstack([parts[:, free], np.ones(len(values))]).T
    noise = mad_std(np.diff(np.where(free, target, np.nan), axis=1), ignore_nan=True) / np.sqrt(2)
    error = np.hypot(noise, _MODEL_ERROR * np.abs(values))
    bounds = np.append(np.zeros(len(_RADII)), -np.inf), np.inf
    used = np.ones(len(values), dtype=bool)
    for _ in range(_CLIPPINGS):
        scaled = design[used] / error[used, np.newaxis]
        weights = lsq_linear(scaled, values[used] / error[used], bounds).x
        used = values - design @ weights < _CLIP * error
    return weights[:-1]


def _light_of(order, extractions, rows, flux, wings, band):
    """Return the count rate of an order on the pixels of the band of another, shape (n, m)."""
    own, profile = extractions[order].band, extractions[order].profile
    grid = [(place + 0.5) / _BLOCK - 0.5 for place in (band.rows, band.columns[:, np.newaxis])]
    light = map_coordinates(wings, np.broadcast_arrays(*grid), order=1, mode="nearest")
    # Bands hold whole rows: a pixel of one is a pixel of the other.
    place = np.full(len(rows[order]), -1)
    place[own.columns] = np.arange(len(own.columns))
    place = place[band.columns]
    half = profile.shape[1] // 2
    row = rows[order][band.columns, np.newaxis]
    distance = band.rows - np.nan_to_num(row, nan=np.inf)
    near = (np.abs(distance) <= half - 1) & (place >= 0)[:, np.newaxis]
    across = np.where(near, band.rows - np.floor(np.nan_to_num(row) + 0.5) + half, 0).astype(int)
    core = np.clip(np.nan_to_num(flux), 0, None)[place, np.newaxis]
    return np.where(near, core * profile[place[:, np.newaxis], across], light) * band.inside


def _beyond(row, own, band, shape, weights):
    """Return the flux of the wings beyond an aperture relative to that in it, shape (n,)."""
    flux = _fill(own, band, len(row))
    margin = _FAR // _BLOCK
    tall = (shape[0] + 2 * margin, shape[1])
    wings = np.tensordot(weights, _spread(row + margin * _BLOCK, flux, tall), 1)
    half = np.max(np.sum(band.aperture, axis=1)) / 2
    place = (np.arange(tall[0]) + 0.5) * _BLOCK - 0.5 - margin * _BLOCK
    distance = np.abs(place[:, np.newaxis] - row[band.columns])
    outside = np.clip((distance - half) / _BLOCK + 0.5, 0, 1) * (distance <= _FAR)
    lost = _BLOCK * np.sum(outside * wings[:, band.columns // _BLOCK], axis=0)
    return lost / np.where(flux[band.columns] > 0, flux[band.columns], np.nan)


def _summarise(order, measured, own, light, rows, extractions, beyond):
    """Return the `Contamination` of an order; unknown where the flux of one is unknown."""
    columns = extractions[order].band.columns
    known = measured[order] > 0
    for other in light:
        flux = np.full(len(rows[other]), np.nan)
        flux[extractions[other].band.columns] = measured[other]
        known &= np.isfinite(flux[columns]) | ~np.isfinite(rows[other][columns])
    share = 1 - own / np.where(known, measured[order], 1)
    light = {other: np.where(known[:, np.newaxis], each, 0) for other, each in light.items()}
    return Contamination(np.where(known, np.clip(share, 0, 1), np.nan), light, beyond)
