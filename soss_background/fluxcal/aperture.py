"""Photometry of a single star in circles and rings."""

from typing import NamedTuple

import numpy as np
from astropy.stats import sigma_clip
from photutils.aperture import CircularAnnulus
from photutils.centroids import centroid_com, centroid_sources
from photutils.profiles import CurveOfGrowth

__all__ = ["CORE", "Sky", "find_star", "grow", "measure_rings", "measure_sky", "replace_pixels"]

# Radius within which pixels are left as they are, pixels.
CORE = 5.0

# Side of the box of a centroid, pixels, and how often it follows the star.
_BOX, _STEPS = 7, 10
# A star's box is this many standard deviations brighter than the sky.
_SEEN = 5.0
# Half of the side of the box that tells what a pixel should be, by the way it is told; a box with
# fewer good pixels than that grows, pixels.
_REACH, _ENOUGH, _FAR = {"surface": 2, "median": 3}, 12, 6


class Sky(NamedTuple):
    """
    The sky about a star.

    Attributes
    ----------
    mean, sigma : float
        Mean and standard deviation of a pixel, DN/s.
    number : int
        Number of pixels.
    """

    mean: float
    sigma: float
    number: int


def measure_sky(image, bad, position, annulus, n_sigma):
    """
    Measure the clipped mean of the sky in a ring about a star.

    Deviations are told by the median absolute deviation, which light of a neighbour hardly moves.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s.
    bad : ndarray of bool, shape (ny, nx)
        True for pixels without a measurement.
    position : tuple of float
        Column and row of the star, pixels from 0.
    annulus : tuple of float
        Inner and outer radius, pixels.
    n_sigma : float
        Pixels that deviate by more standard deviations are left out.

    Returns
    -------
    sky : `Sky`
        The sky.

    Raises
    ------
    ValueError
        If the ring has fewer than ten pixels that can be used.
    """
    values = _take(image, bad, position, annulus)
    kept = sigma_clip(values, sigma=n_sigma, maxiters=10, stdfunc="mad_std", masked=False)
    if len(kept) < 10:
        raise ValueError(f"only {len(kept)} good pixels of sky")
    return Sky(float(np.mean(kept)), float(np.std(kept, ddof=1)), len(kept))


def _take(image, bad, position, ring):
    """List the good pixels in a ring."""
    return CircularAnnulus(position, *ring).to_mask(method="center").get_values(image, mask=bad)


def find_star(image, bad, position, sky):
    """
    Find the centroid of a star: the centre of mass of a box of 7 pixels, which follows it.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s.
    bad : ndarray of bool, shape (ny, nx)
        True for pixels without a measurement.
    position : tuple of float
        Column and row of the star, about, pixels from 0.
    sky : `Sky`
        The sky.

    Returns
    -------
    position : tuple of float
        Column and row, pixels from 0.

    Raises
    ------
    ValueError
        If there is no star.
    """
    light = np.where(bad, 0, image - sky.mean)
    seen = set()
    for _ in range(_STEPS):
        column, row = (round(value) for value in position)
        half = _BOX // 2
        if not (half <= column < image.shape[1] - half and half <= row < image.shape[0] - half):
            raise ValueError(f"the star at x = {column}, y = {row} is not, or not whole, in it")
        box = light[row - half : row + half + 1, column - half : column + half + 1]
        if not box.sum() > _SEEN * sky.sigma * _BOX:
            raise ValueError(f"no star at x = {column}, y = {row}")
        if (column, row) in seen:
            break
        seen.add((column, row))
        x, y = centroid_sources(light, column, row, box_size=_BOX, centroid_func=centroid_com)
        position = float(x[0]), float(y[0])
    return position


def replace_pixels(image, bad, wrong, how):
    """
    Replace pixels by what their neighbours tell.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s.
    bad : ndarray of bool, shape (ny, nx)
        True for pixels without a measurement, which tell nothing of others.
    wrong : ndarray of bool, shape (ny, nx)
        True for pixels that are replaced, and tell nothing of others either.
    how : {"surface", "median"}
        A polynomial surface of second degree through the pixels around, 5 by 5, or their median,
        7 by 7.

    Returns
    -------
    mended, error : ndarray of float, shape (ny, nx)
        The image with these pixels replaced, NaN where fewer than 12 of the 13 by 13 pixels around
        are good; and what the replaced are uncertain by, which is how much their neighbours deviate
        from the surface or from their median, 0 elsewhere.
    """
    mended = np.array(image, dtype=float)
    good, error = np.where(bad | wrong, np.nan, mended), np.zeros(mended.shape)
    tell = {"surface": _surface, "median": _median}[how]
    for row, column in np.argwhere(wrong):
        neighbours = _neighbours(good, row, column, _REACH[how])
        value = tell(*neighbours) if len(neighbours[0]) else (np.nan, np.nan)
        mended[row, column], error[row, column] = value
    return mended, error


def _neighbours(image, row, column, reach):
    """List the known pixels around one: how far away they are, and their values."""
    for half in range(reach, _FAR + 1):
        top, left = max(row - half, 0), max(column - half, 0)
        box = image[top : row + half + 1, left : column + half + 1]
        y, x = np.nonzero(np.isfinite(box))
        if len(y) >= _ENOUGH:
            return y + top - row, x + left - column, box[y, x]
    return np.array([]), np.array([]), np.array([])


def _surface(y, x, values):
    """Fit a surface of second degree; take its value in the middle, and how far values deviate."""
    design = np.stack([np.ones(len(y)), x, y, x * y, x**2, y**2], axis=1)
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    residual = values - design @ coefficients
    return coefficients[0], np.sqrt(np.sum(residual**2) / (len(values) - len(coefficients)))


def _median(_y, _x, values):
    """Take the median, and how far values deviate."""
    return np.median(values), np.std(values)


def grow(image, guess, position, radii, sky, *, gain, time):
    """
    Measure the curve of growth of a star.

    The variance of a count rate is that of its photons, of the noise of the pixels in the circle,
    of the mean of the sky under it, and of pixels that were replaced.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s; NaN where there is no measurement.
    guess : ndarray of float, shape (ny, nx)
        What replaced pixels are uncertain by, DN/s; 0 for all others.
    position : tuple of float
        Column and row of the star, pixels from 0.
    radii : sequence of float, shape (n,)
        Radii of circles, at least two and increasing, pixels.
    sky : `Sky`
        The sky.
    gain : float
        Electrons of a DN.
    time : float
        Exposure time, s.

    Returns
    -------
    rate, error : ndarray of float, shape (n,)
        Count rates without sky and their errors, DN/s; NaN where the circle is not all measured.
    """
    unknown = ~np.isfinite(image)
    guess = np.nan_to_num(guess)
    growth = CurveOfGrowth(image - sky.mean, position, radii, error=guess, mask=unknown)
    area = np.pi * np.square(growth.radius)
    rate = np.where(growth.area > area * (1 - 1e-6), growth.profile, np.nan)
    variance = np.maximum(rate, 0) / (gain * time) + growth.profile_error**2
    variance += area * sky.sigma**2 + area**2 * sky.sigma**2 / sky.number
    return rate, np.sqrt(variance)


def measure_rings(image, bad, position, rings, sky, *, n_sigma, gain, time):
    """
    Measure the mean surface brightness of a star in rings.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s.
    bad : ndarray of bool, shape (ny, nx)
        True for pixels without a measurement, which are left out.
    position : tuple of float
        Column and row of the star, pixels from 0.
    rings : sequence of tuple of float, shape (n, 2)
        Inner and outer radii, pixels.
    sky : `Sky`
        The sky.
    n_sigma : float
        Pixels below the sky by more standard deviations are left out; infinite for none.
    gain : float
        Electrons of a DN.
    time : float
        Exposure time, s.

    Returns
    -------
    brightness, error : ndarray of float, shape (n,)
        Mean brightness without sky and its error, DN/s a pixel; NaN in a ring without good pixels.
    number, clipped : ndarray of int, shape (n,)
        Pixels that were averaged, and those that were too low.
    """
    light = image - sky.mean
    table = []
    for ring in rings:
        values = _take(light, bad, position, ring)
        kept = values[values > -n_sigma * sky.sigma]
        mean = np.mean(kept) if len(kept) else np.nan
        variance = (max(mean, 0) / (gain * time) + sky.sigma**2) / max(len(kept), 1)
        error = np.sqrt(variance + sky.sigma**2 / sky.number) if len(kept) else np.nan
        table.append((mean, error, len(kept), len(values) - len(kept)))
    brightness, error, number, clipped = (np.array(column) for column in zip(*table, strict=True))
    return brightness, error, number, clipped
