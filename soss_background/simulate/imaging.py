"""Images of a star in NIRISS imaging."""

from dataclasses import dataclass

import numpy as np
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import BEHIND_CLEARP, GAIN, PIXEL_SCALE

__all__ = ["StarImage", "simulate_star"]

# Side of an image, pixels, and number of subpixels along a pixel at which the PSF is evaluated.
_SIDE, _PARTS = 101, 11
# Right ascension and declination of the target, degrees.
_TARGET = (269.3, 68.1)
_BAD = dqflags.pixel["DO_NOT_USE"] | dqflags.pixel["DEAD"]


@dataclass(frozen=True)
class StarImage:
    """
    Settings of an image.

    Attributes
    ----------
    filter : str
        The filter.
    count_rate : float
        Count rate of the star, DN/s.
    x, y : float
        Column and row of the star, pixels from 0.
    sky, gradient : float
        Sky in the middle of the image, DN/s per pixel, and its rise along rows, DN/s per pixel
        over the width of the image.
    noise : float
        Noise of a pixel without that of photons, DN/s.
    time : float
        Exposure time, s.
    gain : float
        Electrons per DN.
    bad_fraction : float
        Fraction of bad pixels, half of them NaN.
    neighbour : tuple of float
        Count rate of another star relative to the first, and its distance in x and y, pixels.
    seed : int
        Seed of all random numbers.
    subarray : str
        Value of the SUBARRAY keyword.
    """

    filter: str = "F090W"
    count_rate: float = 1e5
    x: float = 50.0
    y: float = 50.0
    sky: float = 0.5
    gradient: float = 0.0
    noise: float = 0.05
    time: float = 100.0
    gain: float = GAIN
    bad_fraction: float = 0.0
    neighbour: tuple = (0.0, 0.0, 0.0)
    seed: int = 1
    subarray: str = "SUB128"


def simulate_star(psf, settings):
    """
    Simulate the image of a star.

    Parameters
    ----------
    psf : `~soss_background.fluxcal.psf.Psf`
        The PSF; the flux beyond its table is 0.
    settings : `StarImage`
        Settings of the image.

    Returns
    -------
    image : `~stdatamodels.jwst.datamodels.ImageModel`
        A ``_rate`` image, DN/s, whose WCS has the target at the star.
    """
    random = np.random.default_rng(settings.seed)
    brighter, dx, dy = settings.neighbour
    light = _spread(psf, settings.x, settings.y)
    if brighter:
        light = light + brighter * _spread(psf, settings.x + dx, settings.y + dy)
    slope = np.linspace(-0.5, 0.5, _SIDE) * settings.gradient
    light = settings.count_rate * light + settings.sky + slope
    electrons = settings.gain * settings.time
    data = random.poisson(light * electrons) / electrons
    data += random.normal(0, settings.noise, data.shape)
    dq = np.where(random.random(data.shape) < settings.bad_fraction, _BAD, 0).astype(np.uint32)
    lost = random.random(data.shape) < 0.5
    data = np.where(dq > 0, np.where(lost, np.nan, random.uniform(-50, 50, data.shape)), data)
    error = np.sqrt(light / electrons + settings.noise**2)
    image = datamodels.ImageModel(data=data.astype(np.float32), err=error.astype(np.float32), dq=dq)
    _describe(image, settings)
    return image


def _spread(psf, x, y):
    """Return the fraction of the flux of a star that falls on each pixel."""
    parts = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    near = [np.flatnonzero(np.abs(np.arange(_SIDE) - at) < psf.radius[-1] + 1) for at in (y, x)]
    rows, columns = ((each[:, np.newaxis] + parts).ravel() for each in near)
    light = psf.brightness(np.hypot(rows[:, np.newaxis] - y, columns - x))
    image = np.zeros((_SIDE, _SIDE))
    shape = (len(near[0]), _PARTS, len(near[1]), _PARTS)
    image[np.ix_(*near)] = light.reshape(shape).mean(axis=(1, 3))
    return image


def _describe(image, settings):
    """Set the header keywords."""
    image.meta.filename = f"jw01094001001_02101_{settings.seed:05d}_nis_rate.fits"
    red = settings.filter in BEHIND_CLEARP
    image.meta.instrument.name = "NIRISS"
    image.meta.instrument.detector = "NIS"
    image.meta.instrument.filter = settings.filter if red else "CLEAR"
    image.meta.instrument.pupil = "CLEARP" if red else settings.filter
    image.meta.subarray.name = settings.subarray
    image.meta.exposure.type = "NIS_IMAGE"
    image.meta.exposure.exposure_time = settings.time
    image.meta.observation.date, image.meta.observation.time = "2022-06-05", "00:00:00"
    image.meta.target.catalog_name = "STANDARD"
    image.meta.target.ra, image.meta.target.dec = _TARGET
    image.meta.bunit_data = image.meta.bunit_err = "DN/s"
    info = {"crpix1": settings.x + 1, "crpix2": settings.y + 1, "ctype1": "RA---TAN"}
    info |= {"ctype2": "DEC--TAN", "cunit1": "deg", "cunit2": "deg"}
    info |= {"crval1": _TARGET[0], "crval2": _TARGET[1]}
    info |= {"cdelt1": PIXEL_SCALE / 3600, "cdelt2": PIXEL_SCALE / 3600}
    info |= {"pc1_1": -1.0, "pc1_2": 0.0, "pc2_1": 0.0, "pc2_2": 1.0, "wcsaxes": 2}
    for key, value in info.items():
        setattr(image.meta.wcsinfo, key, value)
