"""What the steps that measure a star have in common."""

import logging
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import GAIN, PIXEL_SCALE, imaging_filter
from soss_background.errors import SkyflatError
from soss_background.fluxcal.aperture import CORE, find_star, measure_sky, replace_pixels
from soss_background.fluxcal.plots import save_picture
from soss_background.io.exposures import find_fault
from soss_background.steps.base import SkyflatStep
from soss_background.steps.provenance import wrap_command

__all__ = ["Star", "StarStep"]

log = logging.getLogger(__name__)

_DO_NOT_USE, _SATURATED = (dqflags.pixel[name] for name in ("DO_NOT_USE", "SATURATED"))
_REQUIRED = {"meta.instrument.name": ("INSTRUME", "NIRISS")}
# Parts of the keywords that tell where on the sky a pixel is.
_WCS = ("crpix", "crval", "ctype", "cunit", "cdelt", "pc")


class Star(NamedTuple):
    """
    An image of a star.

    Attributes
    ----------
    image : ndarray of float, shape (ny, nx)
        Count rates, DN/s.
    bad : ndarray of bool, shape (ny, nx)
        True for pixels without a measurement.
    position : tuple of float
        Column and row of the star, pixels from 0.
    distance : ndarray of float, shape (ny, nx)
        Distance of pixels from the star.
    sky : `~soss_background.fluxcal.aperture.Sky`
        The sky about it.
    time : float
        Exposure time, s.
    meta : dict
        What a table tells of it.
    """

    image: np.ndarray
    bad: np.ndarray
    position: tuple
    distance: np.ndarray
    sky: tuple
    time: float
    meta: dict


class StarStep(SkyflatStep):
    """Base class of the steps that measure the image of a single star."""

    spec = f"""
    x = float(default=None)  # Column of the star, about [pixels from 0; default: where the WCS has the target]
    y = float(default=None)  # Row of the star, about [pixels from 0; default: where the WCS has the target]
    n_sigma = float(default=3.0, min=1.0)  # Pixels that deviate more from the sky are left out [sigma]
    gain = float(default={GAIN}, min=0.1)  # Gain [electrons/DN]
    pixel_scale = float(default={PIXEL_SCALE}, min=0.001)  # Side of a pixel [arcsec]
    save_plot = boolean(default=True)  # With the table, save a picture of it
    """  # noqa: E501

    def check_radii(self):
        """
        Make sure that radii increase.

        Returns
        -------
        radii : ndarray of float
            The radii, pixels.

        Raises
        ------
        SkyflatError
            If they do not.
        """
        for name in ("radii", "sky_annulus"):
            radii = np.array(getattr(self, name), dtype=float)
            if not (radii[0] > 0 and (np.diff(radii) > 0).all()):
                raise SkyflatError(f"{name} must be positive and increase")
        return np.array(self.radii, dtype=float)

    def find(self, init):
        """
        Open an image, and find its star.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The image, ``_rate`` or ``_cal``.

        Returns
        -------
        star : `Star`
            The star.

        Raises
        ------
        SkyflatError
            If the image cannot be used, or shows no star there.
        """
        model = self.open_exposure(init)
        try:
            return self._find(model)
        except ValueError as err:
            raise SkyflatError(f"{model.meta.filename}: {err}") from err

    def _find(self, model):
        """Find the star of an image."""
        if fault := find_fault(model.to_flat_dict(include_arrays=False), _REQUIRED):
            raise ValueError(fault)
        if model.data.ndim != 2:
            raise ValueError("a cube of integrations, give the _rate file")
        wheels = model.meta.instrument.filter, model.meta.instrument.pupil
        name, time = imaging_filter(wheels), exposure_time(model)
        image = to_count_rates(model)
        flags = np.zeros(image.shape, int) if model.dq is None else model.dq
        bad = ~np.isfinite(image) | (flags & _DO_NOT_USE > 0)
        position = self._place(model)
        sky = measure_sky(image, bad, position, self.sky_annulus, self.n_sigma)
        near = distances(image.shape, position) < 15
        whole, _ = replace_pixels(image, bad, bad & near, "surface")
        position = find_star(whole, ~np.isfinite(whole), position, sky)
        sky = measure_sky(image, bad, position, self.sky_annulus, self.n_sigma)
        distance = distances(image.shape, position)
        saturated, useless = (
            int(np.count_nonzero(plane[distance <= CORE]))
            for plane in (flags & _SATURATED > 0, bad)
        )
        log.log(
            logging.WARNING if saturated + useless else logging.INFO,
            "%s: %s, star at x = %.2f, y = %.2f, within %g pixels %d saturated, %d bad; "
            "sky %.4g DN/s, sigma %.3g",
            model.meta.filename, name, *position, CORE, saturated, useless, sky.mean, sky.sigma,
        )  # fmt: skip
        meta = {
            "EXPOSURE": model.meta.filename,
            "TARGNAME": model.meta.target.catalog_name,
            "FILTER": name,
            "TIME": time,
            "GAIN": self.gain,
            "X": position[0],
            "Y": position[1],
            "SKY": sky.mean,
            "SKYSIGMA": sky.sigma,
            "SKYNPIX": sky.number,
            "NSATURAT": saturated,
            "NBAD": useless,
            "SOFTWARE": f"soss_background {version('soss_background')}",
            "HISTORY": wrap_command(self.describe_run()["command"]),
        }
        return Star(image, bad, position, distance, sky, time, meta)

    def _place(self, model):
        """Tell where the star should be."""
        given = [value is not None for value in (self.x, self.y)]
        if any(given) and not all(given):
            raise ValueError("x and y are to be given both, or none of them")
        position = (self.x, self.y) if all(given) else locate_target(model)
        ny, nx = model.data.shape
        if not (-0.5 <= position[0] <= nx - 0.5 and -0.5 <= position[1] <= ny - 0.5):
            where = "x and y are" if all(given) else "the WCS has the target"
            raise ValueError(f"{where} outside of the image: give x and y")
        return position

    def finish(self, table, draw):
        """
        Save a table and its picture, if products are saved.

        Parameters
        ----------
        table : `~astropy.table.Table`
            The table; gets radii in arcseconds.
        draw : callable
            Draws the picture on axes.
        """
        table.add_column(table["radius"] * self.pixel_scale, 1, "radius_arcsec")
        table["radius"].unit, table["radius_arcsec"].unit = "pixel", "arcsec"
        if not self.save_results:
            return
        name = table.meta["EXPOSURE"]
        self.save_product(partial(table.write, format="ascii.ecsv"), name, self.suffix, "ecsv")
        if self.save_plot:
            self.save_product(partial(save_picture, draw), name, self.suffix, "png")


def exposure_time(model):
    """Tell the time that a count rate was measured in."""
    exposure = model.meta.exposure
    time = exposure.exposure_time or exposure.effective_exposure_time
    if not (time and time > 0):
        raise ValueError("keyword EFFEXPTM is missing, or not positive")
    return time


def to_count_rates(model):
    """Bring an image to DN/s."""
    data = np.where(np.isfinite(model.data), model.data, np.nan).astype(float)
    calibrated = model.meta.cal_step.photom == "COMPLETE"
    unit = (model.meta.bunit_data or ("MJy/sr" if calibrated else "DN/s")).strip()
    if unit.upper() == "DN/S":
        return data
    if unit.upper() != "MJY/SR":
        raise ValueError(f"BUNIT is {unit}, not DN/s or MJy/sr")
    factor = model.meta.photometry.conversion_megajanskys
    if not (factor and factor > 0):
        raise ValueError("in MJy/sr, but keyword PHOTMJSR is missing")
    return data / factor


def locate_target(model):
    """Tell where the target is by the WCS."""
    target, info = model.meta.target, model.meta.wcsinfo.instance
    if None in (target.ra, target.dec) or not {"crval1", "crval2"} <= set(info):
        raise ValueError("its header tells no place of the target: give x and y")
    place = SkyCoord(target.ra, target.dec, unit="deg")
    wcs = getattr(model.meta, "wcs", None)
    if wcs is None:
        cards = {key.upper(): value for key, value in info.items() if key.startswith(_WCS)}
        wcs = WCS(fits.Header(cards))
    return tuple(float(value) for value in wcs.world_to_pixel(place))


def distances(shape, position):
    """Measure how far pixels are from a place."""
    rows, columns = np.indices(shape)
    return np.hypot(columns - position[0], rows - position[1])
