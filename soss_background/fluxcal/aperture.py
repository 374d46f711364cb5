"""Photometry of a single star in circles and annuli.

Images are count rates in DN/s, shape (ny, nx); `bad` is True for pixels without a measurement.
Positions are column and row, pixels from 0.
"""

from typing import NamedTuple

import numpy as np
from astropy.stats import sigma_clip
from photutils.aperture import CircularAnnulus
from photutils.centroids import centroid_com, centroid_sources
from photutils.profiles import CurveOfGrowth

__all__ = [
    "CORE",
    "Sky",
    "curve_of_growth",
    "distances",
    "find_doubtful",
    "find_star",
    "measure_annuli",
    "mend_star",
    "replace_pixels",
]

# Radius within which measured pixels keep their values, pixels.
CORE = 5.0

# Side of the box of a centroid, pixels, and largest number of iterations.
_BOX, _STEPS = 7, 10
# Distance from the expected position within which bad pixels are replaced to find a star, pixels.
_NEAR = 15.0
# Smallest mean excess of a star's box over the sky, standard deviations of a pixel of the sky.
_SEEN = 5.0
# Half of the side of the box of neighbours of a replaced pixel, by method. The box grows up to
# _FAR until it contains _ENOUGH good pixels.
_REACH, _ENOUGH, _FAR = {"surface": 2, "median": 3}, 12, 6
# Largest error of a measured circle due to bad pixels of the core, as a fraction of its count rate.
_DOUBTFUL = 0.02
# Half of a pixel's diagonal: a pixel overlaps a circle if its centre is at most this far outside.
_HALF_DIAGONAL = 0.71


class Sky(NamedTuple):
    """Sky around a star: mean and standard deviation of its pixels, DN/s, and their number."""

    mean: float
    sigma: float
    number: int


def find_star(image, bad, guess, annulus, n_sigma):
    """
    Find the star near a position.

    Parameters
    ----------
    image, bad : ndarray, shape (ny, nx)
        Count rates, DN/s; True for pixels without a measurement.
    guess : tuple of float
        Approximate column and row of the star.
    annulus : tuple of float
        Inner and outer radius of the sky annulus, pixels.
    n_sigma : float
        Pixels of the sky that deviate by more standard deviations are ignored.

    Returns
    -------
    position : tuple of float
        Column and row of the centroid.
    sky : `Sky`
        The sky around it.

    Raises
    ------
    ValueError
        If there is no star, it is cut off by the edge, or the annulus has too few good pixels.
    """
    sky = _measure_sky(image, bad, guess, annulus, n_sigma)
    near = distances(image.shape, guess) < _NEAR
    whole, _ = replace_pixels(image, bad, bad & near)
    position = _follow_centroid(np.nan_to_num(whole - sky.mean, posinf=0, neginf=0), guess, sky)
    return position, _measure_sky(image, bad, position, annulus, n_sigma)


def _measure_sky(image, bad, position, annulus, n_sigma):
    """Return the `Sky` of an annulus, clipped by the median absolute deviation."""
    # A neighbour hardly changes the median absolute deviation.
    values = _good_pixels(image, bad, position, annulus)
    kept = sigma_clip(values, sigma=n_sigma, maxiters=10, stdfunc="mad_std", masked=False)
    if len(kept) < 10:
        raise ValueError(f"only {len(kept)} good pixels of sky")
    return Sky(float(np.mean(kept)), float(np.std(kept, ddof=1)), len(kept))


def _good_pixels(image, bad, position, annulus):
    """List the good pixels whose centres lie in an annulus."""
    return CircularAnnulus(position, *annulus).to_mask(method="center").get_values(image, mask=bad)


def _follow_centroid(flux, position, sky):
    """Move a box to the centroid of its pixels until it stops; return the last centroid."""
    half, seen = _BOX // 2, set()
    for _ in range(_STEPS):
        column, row = (round(value) for value in position)
        box = np.s_[row - half : row + half + 1, column - half : column + half + 1]
        if min(row, column) < half or flux[box].shape != (_BOX, _BOX):
            raise ValueError(f"the star at x = {column}, y = {row} is cut off by the edge")
        if not flux[box].sum() > _SEEN * sky.sigma * _BOX:
            raise ValueError(f"no star at x = {column}, y = {row}")
        if (column, row) in seen:
            break
        seen.add((column, row))
        x, y = centroid_sources(flux, column, row, box_size=_BOX, centroid_func=centroid_com)
        position = float(x[0]), float(y[0])
    return position


def distances(shape, position):
    """Return the distance of each pixel of an image from a position (column, row)."""
    rows, columns = np.indices(shape)
    return np.hypot(columns - position[0], rows - position[1])


def replace_pixels(image, bad, wrong, how="surface"):
    """
    Replace pixels by estimates from good pixels nearby.

    Parameters
    ----------
    image, bad, wrong : ndarray, shape (ny, nx)
        Count rates, DN/s; True for pixels without a measurement; True for pixels to replace.
    how : {"surface", "median", "none"}, optional
        See `mend_star`.

    Returns
    -------
    replaced, error : ndarray of float, shape (ny, nx)
        The image with estimates, and the scatter of the neighbours of each (0 elsewhere); both are
        NaN where there are too few neighbours.
    """
    replaced = np.array(image, dtype=float)
    good, error = np.where(bad | wrong, np.nan, replaced), np.zeros(replaced.shape)
    replaced[wrong] = error[wrong] = np.nan
    if how == "none":
        return replaced, error
    estimate = {"surface": _fit_surface, "median": _take_median}[how]
    for row, column in np.argwhere(wrong):
        y, x, values = _find_neighbours(good, row, column, _REACH[how])
        if len(values):
            replaced[row, column], error[row, column] = estimate(y, x, values)
    return replaced, error


def _find_neighbours(image, row, column, reach):
    """Return offsets and values of the finite pixels around a pixel; none if they are too few."""
    for half in range(reach, _FAR + 1):
        top, left = max(row - half, 0), max(column - half, 0)
        box = image[top : row + half + 1, left : column + half + 1]
        y, x = np.nonzero(np.isfinite(box))
        if len(y) >= _ENOUGH:
            return y + top - row, x + left - column, box[y, x]
    return (), (), ()


def _fit_surface(y, x, values):
    """Fit a quadratic surface; return its value at the origin, and the scatter about it."""
    design = np.stack([np.ones(len(y)), x, y, x * y, x**2, y**2], axis=1)
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    residual = values - design @ coefficients
    return coefficients[0], np.sqrt(np.sum(residual**2) / (len(values) - len(coefficients)))


def _take_median(_y, _x, values):
    """Return the median and the scatter of the values."""
    return np.median(values), np.std(values)


def mend_star(image, bad, distance, sky, *, outer, how, n_sigma):
    """
    Replace bad pixels around a star, and estimate the error of those in its core.

    Beyond `CORE`, bad pixels are replaced and, if ``how`` is "median", so are low ones. In the
    core, where the flux is steep, only pixels without a value are replaced.

    Parameters
    ----------
    image, bad, distance : ndarray, shape (ny, nx)
        Count rates, DN/s; True for pixels without a measurement; distance from the star, pixels.
    sky : `Sky`
        The sky.
    outer : float
        Largest radius that is measured, pixels.
    how : {"surface", "median", "none"}
        Fit a quadratic surface to the 5 by 5 pixels around, use the median of 7 by 7, or set NaN.
    n_sigma : float
        Pixels below the sky by more than this number of standard deviations are low.

    Returns
    -------
    mended, error, doubt : ndarray of float, shape (ny, nx)
        The image with pixels replaced; uncertainty of replaced pixels and of bad pixels of the
        core; largest plausible error of the latter. Both are 0 elsewhere.
    number : int
        Number of replaced pixels.
    """
    core = distance <= CORE
    beyond = ~core & (distance < outer + 1)
    wrong = bad & (beyond | core & ~np.isfinite(image))
    if how == "median":
        wrong |= beyond & (image < sky.mean - n_sigma * sky.sigma)
    mended, error = replace_pixels(image, bad, wrong, how)
    # The value of a bad pixel may be anything between the sky and what its neighbours suggest.
    surface, _ = replace_pixels(image, bad, bad & core)
    change = np.nan_to_num(np.abs(image - surface))
    doubt = np.where(bad & core, np.maximum(change, np.abs(surface - sky.mean)), 0)
    return mended, np.maximum(error, doubt), doubt, np.count_nonzero(wrong & np.isfinite(mended))


def find_doubtful(rate, doubt, distance, radii):
    """Return True for circles whose count rates are uncertain by 2 % due to bad core pixels."""
    doubtful = np.zeros(len(radii), dtype=bool)
    for index, radius in enumerate(radii):
        inside = doubt[distance < radius + _HALF_DIAGONAL]
        doubtful[index] = np.sqrt(np.sum(inside**2)) > _DOUBTFUL * rate[index]
    return doubtful


def curve_of_growth(image, error, position, radii, sky, *, gain, time):
    """
    Measure the count rates of a star in circles.

    The variance is the sum of those of the photons, of the noise of the pixels in the circle, of
    the mean of the sky, and of replaced pixels.

    Parameters
    ----------
    image, error : ndarray, shape (ny, nx)
        Count rates with the sky, and uncertainties of replaced pixels, DN/s.
    position : tuple of float
        Column and row of the star.
    radii : array_like, shape (n,)
        Radii of the circles, pixels.
    sky : `Sky`
        The sky.
    gain, time : float
        Electrons per DN; exposure time, s.

    Returns
    -------
    rate, error : ndarray of float, shape (n,)
        Count rates without the sky, and uncertainties, DN/s; NaN for circles that contain pixels
        without a value.
    """
    unknown = ~np.isfinite(image)
    error = np.nan_to_num(error)
    growth = CurveOfGrowth(image - sky.mean, position, radii, error=error, mask=unknown)
    area = np.pi * np.square(growth.radius)
    rate = np.where(growth.area > area * (1 - 1e-6), growth.profile, np.nan)
    variance = np.maximum(rate, 0) / (gain * time) + growth.profile_error**2
    variance += area * sky.sigma**2 + area**2 * sky.sigma**2 / sky.number
    return rate, np.sqrt(variance)


def measure_annuli(image, position, annuli, sky, *, n_sigma, gain, time):
    """
    Measure the mean brightness in annuli.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Count rates with the sky, DN/s.
    position : tuple of float
        Column and row of the star.
    annuli : list of tuple
        Inner and outer radii of the n annuli, pixels.
    sky : `Sky`
        The sky.
    n_sigma : float
        Pixels below the sky by more than this number of standard deviations are ignored.
    gain, time : float
        Electrons per DN; exposure time, s.

    Returns
    -------
    brightness, error : ndarray of float, shape (n,)
        Mean brightness without the sky, and its uncertainty, DN/s per pixel.
    number, clipped : ndarray of int, shape (n,)
        Numbers of averaged and of ignored pixels.
    """
    brightness, error = np.full((2, len(annuli)), np.nan)
    number, clipped = np.zeros((2, len(annuli)), dtype=int)
    for index, annulus in enumerate(annuli):
        values = _good_pixels(image - sky.mean, ~np.isfinite(image), position, annulus)
        kept = values[values > -n_sigma * sky.sigma]
        number[index], clipped[index] = len(kept), len(values) - len(kept)
        if len(kept):
            mean = brightness[index] = np.mean(kept)
            variance = (max(mean, 0) / (gain * time) + sky.sigma**2) / len(kept)
            error[index] = np.sqrt(variance + sky.sigma**2 / sky.number)
    return brightness, error, number, clipped
