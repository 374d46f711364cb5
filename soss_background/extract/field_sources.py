"""Sources between the orders of a target, on top of its wings."""

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian

from soss_background.extract.inter_order import fit_light
from soss_background.numerics.cells import bin_smooth, bin_to_cells, cell_bands, expand_cells
from soss_background.sky.sources import detect_light

__all__ = ["find_sources"]

# Distances of the nodes of the wings from a trace, in units of the half width of the trace. For a
# half width of 20 pixels, the wings of simulated stars (J = 9 to 13) are mistaken for sources in 20
# to 35 % of the pixels outside the traces if only smooth light is fitted, with the wings in 5 %.
_NODES = np.array([1.0, 1.2, 1.45, 1.75, 2.5, 4.0, 8.0])
# Tolerated errors of the wings in the fit, and of wings and smooth light in the detection, as
# fractions of the light in a cell.
_FIT_ERROR, _LIGHT_ERROR = 0.05, 0.1
# Cells brighter than the fit by this many standard deviations are rejected, and number of fits.
_CLIP, _ROUNDS = 3.0, 6
# Degree of the spline of smooth light, significance of a source, and cells by which it grows.
_DEGREE, _SIGMA, _GROW = 3, 4.0, 1
# Fewest pixels of a column that must be free of sources.
_FEWEST = 16


def find_sources(image, err, rows, half_width, free, amplifiers):
    """
    Find sources that stand out from smooth light and the wings of the orders.

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        Count rates without sky and their 1-sigma uncertainties, DN/s; NaN where there is no
        measurement.
    rows : sequence of ndarray of float, shape (nx,)
        Row of the trace of each order; NaN beyond it.
    half_width : float
        Half width of the traces, pixels.
    free : ndarray of bool, shape (ny, nx)
        True for pixels outside the traces.
    amplifiers : list of slice
        Rows of each amplifier; remaining stripes of its columns are not mistaken for sources.

    Returns
    -------
    sources : ndarray of bool, shape (ny, nx)
        True for the pixels of cells with sources. A column that sources would fill has no sources.

    Raises
    ------
    ValueError
        If there are too few pixels outside the traces.
    """
    light = _fit_wings(image, err, rows, half_width, free)
    light += fit_light(image - light, free, degree=_DEGREE, smoothing=0)
    cells, noise = bin_to_cells(image - light, err, np.isfinite(image) & free)
    noise = np.hypot(noise, _LIGHT_ERROR * bin_smooth(np.abs(light)))
    for band in cell_bands(amplifiers):
        cells[band] -= np.nan_to_num(nanmedian(cells[band], axis=0))
    sources = detect_light(cells, noise, _SIGMA, np.zeros_like(cells), _GROW, calibrate=True)
    sources = expand_cells(sources, image.shape)
    for part in amplifiers:
        left = np.count_nonzero(free[part] & ~sources[part], axis=0)
        sources[part] &= left >= _FEWEST
    return sources


def _fit_wings(image, err, rows, half_width, free):
    """Fit wings: one profile for all orders and columns, times the flux of each column."""
    hats = _wing_images(image, rows, half_width)
    cells, noise = bin_to_cells(image, err, np.isfinite(image) & free)
    parts = np.array([bin_smooth(np.where(free, hat, np.nan)) for hat in hats])
    known = np.isfinite(cells) & (noise > 0) & np.isfinite(parts).all(axis=0)
    if not known.any():
        raise ValueError("too few pixels between the orders")
    # The light between the orders may have a constant, too.
    design = np.vstack([parts[:, known], np.ones(np.count_nonzero(known))]).T
    weight = 1 / np.hypot(noise, _FIT_ERROR * np.abs(cells))[known]
    used = np.ones(len(weight), dtype=bool)
    for _ in range(_ROUNDS):
        scaled = weight[used, np.newaxis] * design[used]
        profile = np.linalg.lstsq(scaled, (weight * cells[known])[used])[0]
        residual = weight * (cells[known] - design @ profile)
        used = residual < _CLIP * max(mad_std(residual[used]), 1)
    return np.tensordot(profile[:-1], hats, 1)


def _wing_images(image, rows, half_width):
    """Return the flux that each node of the profile adds to the wings, shape (n, ny, nx)."""
    nodes, place = np.log(half_width * _NODES), np.arange(len(image))[:, np.newaxis]
    images = np.zeros((len(_NODES), *image.shape), dtype=np.float32)
    for row in rows:
        distance = np.abs(place - row)
        flux = np.nansum(np.where(distance < half_width, image, 0), axis=0)
        away = np.log(np.maximum(np.nan_to_num(distance, nan=np.inf), 1))
        for total, hat in zip(images, np.eye(len(nodes)), strict=True):
            total += flux * np.interp(away, nodes, hat)
    return images
