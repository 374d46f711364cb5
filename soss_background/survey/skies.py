"""Survey of many skyflats: a table of their levels and edges, and their binned skies."""

from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.table import Table
from astropy.time import Time
from tqdm import tqdm

from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.io.skyflats import (
    check_clear,
    describe_skyflat,
    find_place,
    name_skyflat,
    open_skyflat,
    used_exposures,
)
from soss_background.io.templates import from_skyflat
from soss_background.quality.metrics import measure_levels
from soss_background.sky.match import bin_sky
from soss_background.survey.zodi import sun_angle

__all__ = ["find_pointing", "survey_skies"]

# Number of blocks along the columns of compared skies, and columns of a block.
_BLOCKS, _BLOCK_COLUMNS = 64, 4

# Columns of the telescope's position.
_PLACE = ("jwst_x", "jwst_y", "jwst_z")


class Survey(NamedTuple):
    """Table of skyflats (see `survey_skies`), their skies in blocks, and their pixels."""

    table: Table
    skies: list
    window: Window


def survey_skies(skyflats):
    """
    Measure skyflats, which are opened one at a time.

    Parameters
    ----------
    skyflats : sequence of SkyflatModel or `~pathlib.Path`
        Skyflats of the same pixels.

    Returns
    -------
    survey : Survey
        The table has one row per skyflat: FILE, PROGRAM, TARGPROP, LON, LAT, DOY, PWCPOS and
        NSAMPS as in the headers, ``mjd`` (mean mid-time), ``elongation`` (angle to the Sun,
        degrees), ``jwst_x`` to ``jwst_z`` (mean barycentric position of the telescope, ICRS, km;
        NaN if unknown), and the values of `soss_background.quality.metrics.measure_levels` for
        the denoised sky.

    Raises
    ------
    SkyflatError
        If a file is not a skyflat, holds no sky, or covers pixels that differ from those of the
        first.
    """
    rows, skies, windows = [], [], {}
    for skyflat in tqdm(skyflats, "Reading skyflats", unit="skyflat", disable=None):
        row, sky, window = _measure(skyflat)
        rows.append(row)
        skies.append(sky)
        windows.setdefault(window, row["FILE"])
    if len(windows) > 1:
        (first, one), (second, other) = list(windows.items())[:2]
        raise SkyflatError(
            f"{other}: {second.name} of {second.shape}, but {one} is {first.name} of {first.shape}"
        )
    units = {"LON": "deg", "LAT": "deg", "PWCPOS": "deg", "elongation": "deg", "mjd": "d"}
    units |= dict.fromkeys(_PLACE, "km")
    units |= dict.fromkeys(("level_left", "level_right"), "DN / s")
    table = Table(rows)
    for column in table.colnames:
        table[column].unit = "pixel" if column.startswith("step_") else units.get(column)
    return Survey(table, skies, window)


def _measure(skyflat):
    """Measure a skyflat; return a row of the table, its sky in blocks, and its pixels."""
    with open_skyflat(skyflat) as model:
        name = name_skyflat(skyflat, model)
        check_clear(model, name)
        window = find_place(model, model.bkg.shape, name)
        template = from_skyflat(model, window, name)
        row = {"FILE": name} | describe_skyflat(model) | _when_and_where(model)
    row["DOY"] = row["DOY"] or np.nan
    row["elongation"] = np.nan
    if np.isfinite(row["mjd"]):
        row["elongation"] = sun_angle(*find_pointing(row)).to_value(u.deg)
    levels = measure_levels(template.sky, window)
    levels = {name: np.nan if value is None else float(value) for name, value in levels.items()}
    block = (max(1, window.ny // _BLOCKS), _BLOCK_COLUMNS)
    binned = bin_sky(template.sky, ~window.reference_pixels(), window.x0, block)
    return row | levels, binned, window


def _when_and_where(model):
    """Return the mean time of the exposures and the mean position of the telescope."""
    used = used_exposures(model)
    if used is None:
        mjd = model.meta.exposure.mid_time
        return {"mjd": np.nan if mjd is None else mjd} | dict.fromkeys(_PLACE, np.nan)
    columns = ("mid_time_mjd", *(f"{key}_bary" for key in _PLACE))
    means = [float(np.mean(used[column])) for column in columns]
    return dict(zip(("mjd", *_PLACE), means, strict=True))


def find_pointing(row):
    """Return the pointing of a row of the table, and the telescope's position or None."""
    time = Time(row["mjd"], format="mjd", scale="utc")
    frame = BarycentricMeanEcliptic()
    pointing = SkyCoord(row["LON"], row["LAT"], unit="deg", frame=frame, obstime=time)
    place = np.array([row[key] for key in _PLACE], dtype=float)
    return pointing, place * u.km if np.isfinite(place).all() and place.any() else None
