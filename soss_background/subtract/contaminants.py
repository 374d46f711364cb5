"""Images of order 0 and field stars in an exposure with F277W.

F277W passes 2.4 to 3.1 micron. The target's order 1 covers the first 460 columns, and nothing of it
the others, so that sources show that the target's traces hide in CLEAR.
"""

import numpy as np
from bottleneck import nanmedian
from scipy import ndimage

from soss_background.numerics.cells import CELL, bin_smooth, bin_to_cells, expand_cells
from soss_background.sky.smooth_prior import build_smooth_prior
from soss_background.sky.sources import detect_light
from soss_background.subtract.sky_fit import DETECTED_WINGS, TRACE_REACH, fit_sky

__all__ = ["find_contaminants"]

# Sky that replaces one that has been subtracted, DN/s. Assumed, not tuned, since the fit needs a
# level above zero and no sky of F277W is published.
_LEVEL = 0.5

# Faintest source, DN/s. A trace is as bright in CLEAR, where this is 0.4 % of the sky; an image of
# order 0 is ten times as bright there. That is the limit of the fit in CLEAR, and is not tuned.
_FAINTEST = 0.02

# Distance from the border of the target's trace to the next sources that can be found, pixels.
# Assumed, not tuned: the trace and its wings hide closer ones.
_REACH = 24


def find_contaminants(image, err, usable, window, distance, *, subtracted, n_sigma=4.0):
    """
    Find the sources of an exposure with F277W.

    The sky, a smooth surface, is fitted together with the wings of the sources.

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        Mean of the integrations and its 1-sigma uncertainties, DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels that may be used.
    window : `~soss_background.detector.Window`
        The pixels.
    distance : ndarray of float, shape (ny, nx)
        Distance from the target's order 1, pixels, infinite beyond it.
    subtracted : bool
        Whether the sky has been subtracted.
    n_sigma : float
        Significance of a source.

    Returns
    -------
    sources : ndarray of bool, shape (ny, nx)
        True for the pixels of sources, to whole cells
        (`soss_background.numerics.cells.CELL`); False at the target's trace.

    Raises
    ------
    NoSkyError
        If too little of the exposure shows the sky.
    """
    image = image + _LEVEL if subtracted else image
    fit = fit_sky(image, err, usable, build_smooth_prior(window), distance, n_sigma)
    free = usable & (distance > TRACE_REACH)
    residual = _subtract_stripes(image - fit.sky - fit.wings, fit.used, free, window)
    cells, noise = bin_to_cells(residual, err, free)
    noise = np.hypot(noise, DETECTED_WINGS * bin_smooth(fit.wings))
    floor = np.full_like(cells, _FAINTEST)
    found = detect_light(cells, noise, n_sigma, floor, 1, calibrate=True)
    beside = ndimage.distance_transform_edt(bin_smooth(distance) > TRACE_REACH, sampling=CELL)
    return expand_cells(found & (beside > _REACH), image.shape)


def _subtract_stripes(residual, used, free, window):
    """Subtract the median of the used, or else of the free, pixels of each column of amplifiers."""
    residual = residual.copy()
    dark, known = (np.where(pixels, residual, np.nan) for pixels in (used, free))
    for band in window.amplifiers():
        stripes, others = (nanmedian(plane[band], axis=0) for plane in (dark, known))
        residual[band] -= np.nan_to_num(np.where(np.isnan(stripes), others, stripes))
    return residual
