"""Find the light of field stars in exposures of the sky.

Star light is positive, stretches along rows and moves with the dither; the sky is fixed. All
functions work on cells of pixels, see `soss_background.numerics.cells`.
"""

import functools

import numpy as np
from bottleneck import nanmedian
from scipy.special import ndtri

from soss_background.numerics.cells import find_same_level, subtract_common_sky
from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.threads import map_parallel
from soss_background.sky.sources import detect_light

__all__ = ["find_sources"]

# Height in cells of the bands in which the sky of a single exposure is estimated.
_BAND = 64

# Fraction of changed cells below which the masks have converged.
_SETTLED = 1e-3

# Accuracy of the sky of a single exposure, as a fraction of it.
_OWN_SKY_FRACTION = 0.03

# Percentile of the columns of a single exposure that certainly show the sky, and largest fractional
# excess of other columns over the profile of the sky at this level.
_DARKEST = 10
_PROFILE_TOLERANCE = 0.1


def find_sources(
    cells,
    noise,
    *,
    profile=None,
    n_sigma=4.0,
    min_fraction=0.003,
    grow=1,
    max_rounds=3,
    bands=None,
    dithered=True,
):
    """
    Mask star light in exposures of one sky.

    The first sky is a low-order statistic of the exposures, since in a crowded field the median
    is star light; then sky and masks improve each other. Without a second exposure of the same
    sky, the columns of the exposure give the sky.

    Parameters
    ----------
    cells, noise : ndarray of float, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties, DN/s; NaN where unknown.
    profile : ndarray of float, shape (mx,), optional
        Shape of the sky along rows, used where the columns of an exposure are full of stars.
    n_sigma : float
        Significance above which smoothed light is a source, in units of its noise.
    min_fraction : float
        Surface brightness above which light is a source, as a fraction of the sky.
    grow : int
        Cells by which a mask grows in each direction.
    max_rounds : int
        Largest number of iterations between sky and masks.
    bands : list of slice, optional
        Rows of cells of each amplifier; by default there is one.
    dithered : bool
        Whether stars move from exposure to exposure, so that exposures can be compared.

    Returns
    -------
    sources : ndarray of bool, shape (n, my, mx)
        True where there is star light, and everywhere in an exposure without any known cell.
    """
    sources = np.ones(cells.shape, dtype=bool)
    known = np.isfinite(cells).any(axis=(1, 2))
    if not known.any():
        return sources
    cells = cells[known]
    noise = np.array([_scatter(*pair) for pair in zip(cells, noise[known], strict=True)])
    known, alike = np.flatnonzero(known), find_same_level(cells)
    if dithered and np.count_nonzero(alike) > 1:
        options = (n_sigma, min_fraction, grow, max_rounds, bands)
        sources[known[alike]] = _compare_exposures(cells[alike], noise[alike], *options)
    else:
        alike[:] = False
    for index in np.flatnonzero(~alike):
        sources[known[index]] = _search_alone(cells[index], noise[index], profile, n_sigma, grow)
    return sources


def _compare_exposures(cells, noise, n_sigma, min_fraction, grow, max_rounds, bands):
    """Improve the sky of exposures and their masks in turn, until the masks converge."""
    sources = np.zeros(cells.shape, dtype=bool)
    for _ in range(max_rounds):
        residuals, sky, _ = subtract_common_sky(cells, noise, sources, bands)
        floor = min_fraction * np.abs(sky)
        detect = functools.partial(detect_light, n_sigma=n_sigma, floor=floor, grow=grow)
        found = np.array(map_parallel(detect, residuals, noise))
        if np.mean(found != sources) < _SETTLED:
            return found
        sources = found
    return sources


def _search_alone(cells, noise, profile, n_sigma, grow):
    """Find the sources of a single exposure of a sky."""
    sky = _column_sky(cells, noise)
    floor = _OWN_SKY_FRACTION * np.abs(sky)
    if profile is not None:
        sky = np.minimum(sky, _brightest_sky(sky, profile) + n_sigma * nanmedian(noise))
        # If the sky has been subtracted from the exposure, its uncertainty remains.
        floor = np.maximum(floor, _OWN_SKY_FRACTION / 3 * profile)
    return detect_light(cells - sky, noise, n_sigma, floor, grow)


def _scatter(image, noise):
    """Scale the expected noise of cells to the scatter between neighbours in a column."""
    excess = np.diff(image, axis=0) / np.sqrt(noise[1:] ** 2 + noise[:-1] ** 2)
    return noise * MAD_TO_SIGMA * np.nanmedian(np.abs(excess))


def _column_sky(image, noise):
    """Return the lower quartile of each column in bands of rows, corrected for its noise bias."""
    my, mx = image.shape
    bands = np.array_split(np.arange(my), max(1, my // _BAND))
    centres = np.array([rows.mean() for rows in bands])
    quartiles = np.array([_lower_quartile(image[rows]) for rows in bands])
    sky = np.full((my, mx), np.nan)
    for column, quartile in enumerate(quartiles.T):
        known = np.isfinite(quartile)
        if known.any():
            sky[:, column] = np.interp(np.arange(my), centres[known], quartile[known])
    known = np.isfinite(sky[0])
    for row in sky:
        row[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), row[known])
    return sky - ndtri(0.25) * np.nanmean(noise)


def _lower_quartile(rows):
    """Return the lower quartile of each column; NaN where nothing is known."""
    quartile, known = np.full(rows.shape[1], np.nan), np.isfinite(rows).any(axis=0)
    quartile[known] = np.nanpercentile(rows[:, known], 25, axis=0)
    return quartile


def _brightest_sky(sky, profile):
    """Scale a profile, left and right of its edge, to the darkest columns of a sky."""
    left = np.arange(len(profile)) < np.argmax(np.gradient(profile))
    limit = np.full(len(profile), np.inf)
    for side in (left, ~left):
        if side.any():
            level = np.percentile(sky[:, side] / profile[side], _DARKEST)
            limit[side] = (1 + _PROFILE_TOLERANCE) * max(level, 0) * profile[side]
    return limit
