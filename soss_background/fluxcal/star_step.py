"""Base class of the steps that measure a star."""

import gc
import logging
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from stdatamodels.jwst.datamodels import dqflags

from soss_background.detector import GAIN, PIXEL_SCALE, imaging_filter
from soss_background.errors import SkyflatError
from soss_background.fluxcal.aperture import CORE, Sky, distances, find_star
from soss_background.fluxcal.plots import save_figure
from soss_background.io.exposures import check_repetition, find_fault, header_of
from soss_background.io.segments import progress
from soss_background.steps.base import SkyflatStep, is_list
from soss_background.steps.parameters import name_item
from soss_background.steps.provenance import wrap_command

__all__ = ["Star", "StarStep"]

log = logging.getLogger(__name__)

_DO_NOT_USE, _SATURATED = (dqflags.pixel[name] for name in ("DO_NOT_USE", "SATURATED"))
_REQUIRED = {
    "meta.instrument.name": ("INSTRUME", "NIRISS"),
    "meta.subarray.name": ("SUBARRAY", None),
}
# First characters of the WCS keywords.
_WCS = ("crpix", "crval", "ctype", "cunit", "cdelt", "pc")


class Star(NamedTuple):
    """An image of a star."""

    image: np.ndarray  # count rates, DN/s
    bad: np.ndarray  # True for pixels without a measurement
    position: tuple  # column and row of the star, pixels from 0
    distance: np.ndarray  # of pixels from the star
    sky: Sky
    time: float  # exposure time, s
    meta: dict  # metadata of the tables measured on it


class StarStep(SkyflatStep):
    """Base class of the steps that measure the image of a single star."""

    spec = f"""
    x = float(default=None)  # Approximate column of the star [pixels from 0; default: the target according to the WCS]
    y = float(default=None)  # Approximate row of the star [pixels from 0; default: the target according to the WCS]
    n_sigma = float(default=3.0, min=1.0)  # Ignore pixels that deviate from the sky by more than this [sigma]
    gain = float(default={GAIN}, min=0.1)  # Gain [electrons/DN]
    pixel_scale = float(default={PIXEL_SCALE}, min=0.001)  # Side of a pixel [arcsec]
    save_plot = boolean(default=True)  # Save a figure with the table
    """  # noqa: E501

    def process(self, *inputs):
        """
        Measure a star in one or several images.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            The images, ``_rate`` or ``_cal``; names may contain wildcards. Models are unchanged.

        Returns
        -------
        table : `~astropy.table.Table` or list of `~astropy.table.Table`
            The table of one image, see `measure`; a list of tables, in the order of the images, if
            there are several or the input is a list. ``meta`` holds the setup of the image, and the
            position and sky of the star.

        Raises
        ------
        SkyflatError
            If parameters or an image cannot be used, two images are of the same exposure, or there
            is no star at the position. Nothing is saved then.
        """
        self.check_parameters()
        images = self._list_images(inputs)
        measured = []
        for image in progress(images, "Measuring", "image"):
            measured.append(self._measure(image))
            gc.collect()  # data models refer to themselves
        for index, (table, draw) in enumerate(measured):
            numbers = {"exposure": index} if len(measured) > 1 else {}
            self._save(table, draw, **numbers)
        tables = [table for table, _ in measured]
        return tables if len(tables) > 1 or is_list(inputs[0]) else tables[0]

    def check_parameters(self):
        """Raise SkyflatError unless the radii of the measurement and of the sky increase."""
        for name in ("radii", "sky_annulus"):
            radii = getattr(self, name)
            if not (radii[0] > 0 and (np.diff(radii) > 0).all()):
                raise SkyflatError(f"{name} must be positive and increase")

    def measure(self, star):
        """Return the table of a `Star`, and a function that draws it on axes."""
        raise NotImplementedError

    def _list_images(self, inputs):
        """List the paths and models of the images; raise if two are of the same exposure."""
        items = [each for item in inputs for each in (item if is_list(item) else [item])]
        images = [image for item in items for image, _ in self.list_members(item)]
        if not images:
            raise SkyflatError("No images are given")
        check_repetition([header_of(image) | {"name": name_item(image)} for image in images])
        return images

    def _measure(self, image):
        """Measure an image; return its table with all radii, and a function that draws it."""
        table, draw = self.measure(self._find(image))
        radius = table["radius"]
        table.add_column(radius * self.pixel_scale, 1, "radius_arcsec")
        table["radius"].unit, table["radius_arcsec"].unit = u.pixel, u.arcsec
        return table, draw

    def _find(self, image):
        """Return the `Star` of an image; raise SkyflatError if it is unusable or shows no star."""
        model = self.open_exposure(image)
        try:
            return self._find_star(model)
        except ValueError as err:
            raise SkyflatError(f"{model.meta.filename}: {err}") from err

    def _find_star(self, model):
        """Find the star in the model of an image."""
        if fault := find_fault(model.to_flat_dict(include_arrays=False), _REQUIRED):
            raise ValueError(fault)
        if model.data.ndim != 2:
            raise ValueError("a cube of integrations: give the _rate file instead")
        name = imaging_filter((model.meta.instrument.filter, model.meta.instrument.pupil))
        time, image = _exposure_time(model), _to_count_rates(model)
        bad = ~np.isfinite(image) | (model.dq & _DO_NOT_USE > 0)
        guess = self._guess_position(model)
        position, sky = find_star(image, bad, guess, self.sky_annulus, self.n_sigma)
        distance = distances(image.shape, position)
        core = distance <= CORE
        n_saturated = int(np.count_nonzero(model.dq[core] & _SATURATED))
        n_bad = int(np.count_nonzero(bad[core]))
        log.log(
            logging.WARNING if n_saturated + n_bad else logging.INFO,
            "%s: %s, star at x = %.2f, y = %.2f; within %g pixels %d saturated, %d bad; "
            "sky %.4g DN/s, sigma %.3g DN/s",
            model.meta.filename, name, *position, CORE, n_saturated, n_bad, sky.mean, sky.sigma,
        )  # fmt: skip
        meta = {
            "EXPOSURE": model.meta.filename,
            "TARGNAME": model.meta.target.catalog_name,
            "FILTER": name,
            "SUBARRAY": model.meta.subarray.name,
            "TIME": time,
            "GAIN": self.gain,
            "X": position[0],
            "Y": position[1],
            "SKYANNULUS": list(self.sky_annulus),
            "SKY": sky.mean,
            "SKYSIGMA": sky.sigma,
            "SKYNPIX": sky.number,
            "NSATURAT": n_saturated,
            "NBAD": n_bad,
            "SOFTWARE": f"soss_background {version('soss_background')}",
            "HISTORY": wrap_command(self.describe_run()["command"]),
        }
        return Star(image, bad, position, distance, sky, time, meta)

    def _guess_position(self, model):
        """Return the position that the user gives, otherwise that of the target."""
        if (self.x is None) != (self.y is None):
            raise ValueError("give both x and y, or neither")
        given = self.x is not None
        position = (self.x, self.y) if given else _locate_target(model)
        ny, nx = model.data.shape
        if not (-0.5 <= position[0] <= nx - 0.5 and -0.5 <= position[1] <= ny - 0.5):
            if given:
                raise ValueError("x and y are outside the image")
            raise ValueError("the target is outside the image according to the WCS: give x and y")
        return position

    def _save(self, table, draw, **numbers):
        """Save a table and its figure; ``numbers`` distinguish products of a given name."""
        if not self.save_results:
            return
        name, suffix = table.meta["EXPOSURE"], self.suffix
        write = partial(table.write, format="ascii.ecsv")
        self.save_product(write, name, suffix, "ecsv", **numbers)
        if self.save_plot:
            self.save_product(partial(save_figure, draw), name, suffix, "png", **numbers)


def _exposure_time(model):
    """Return the exposure time of a model."""
    exposure = model.meta.exposure
    time = exposure.exposure_time or exposure.effective_exposure_time
    if not (time and time > 0):
        raise ValueError("keyword EFFEXPTM is missing or not positive")
    return time


def _to_count_rates(model):
    """Convert an image to DN/s; replace values that are not finite by NaN."""
    data = np.where(np.isfinite(model.data), model.data, np.nan).astype(float)
    calibrated = model.meta.cal_step.photom == "COMPLETE"
    unit = (model.meta.bunit_data or ("MJy/sr" if calibrated else "DN/s")).strip()
    if unit.upper() == "DN/S":
        return data
    if unit.upper() != "MJY/SR":
        raise ValueError(f"BUNIT is {unit}, not DN/s or MJy/sr")
    factor = model.meta.photometry.conversion_megajanskys
    if not (factor and factor > 0):
        raise ValueError("its unit is MJy/sr, but keyword PHOTMJSR is missing")
    return data / factor


def _locate_target(model):
    """Return column and row of the target according to the WCS."""
    target, info = model.meta.target, model.meta.wcsinfo.instance
    if None in (target.ra, target.dec) or not {"crval1", "crval2"} <= set(info):
        raise ValueError("its header lacks the position of the target: give x and y")
    place = SkyCoord(target.ra, target.dec, unit="deg")
    wcs = getattr(model.meta, "wcs", None)
    if wcs is None:
        cards = {key.upper(): value for key, value in info.items() if key.startswith(_WCS)}
        wcs = WCS(fits.Header(cards))
    return tuple(float(value) for value in wcs.world_to_pixel(place))
