"""The METADATA table: rows from headers of exposures, and their summary."""

import functools

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.time import Time

from soss_background.datamodels.header_text import to_ascii
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError

__all__ = [
    "UNITS",
    "describe_exposures",
    "describing_values",
    "mean_direction",
    "summarize",
]

# Columns read from headers: metadata path, FITS keyword, whether it is required.
_HEADER_COLUMNS = {
    "pwcpos": ("meta.instrument.pupil_position", "PWCPOS", False),
    "ra_v1": ("meta.pointing.ra_v1", "RA_V1", True),
    "dec_v1": ("meta.pointing.dec_v1", "DEC_V1", True),
    "pa_v3": ("meta.pointing.pa_v3", "PA_V3", False),
    "aper_pa": ("meta.aperture.position_angle", "PA_APER", False),
    "jwst_x_bary": ("meta.ephemeris.spatial_x_bary", "JWST_X", False),
    "jwst_y_bary": ("meta.ephemeris.spatial_y_bary", "JWST_Y", False),
    "jwst_z_bary": ("meta.ephemeris.spatial_z_bary", "JWST_Z", False),
    "jwst_x_geo": ("meta.ephemeris.spatial_x_geo", "OBSGEO-X", False),
    "jwst_y_geo": ("meta.ephemeris.spatial_y_geo", "OBSGEO-Y", False),
    "jwst_z_geo": ("meta.ephemeris.spatial_z_geo", "OBSGEO-Z", False),
}

# Other metadata that describe an exposure.
_TIME_KEYS = ("meta.exposure.mid_time_mjd", "meta.exposure.mid_time")
_OTHER_KEYS = (*_TIME_KEYS, "meta.exposure.nints", "meta.observation.observation_number")

# Columns beyond those of the schema: reason to leave out an exposure, its deviation from the sky,
# and its scatter about the sky relative to its errors.
_VETTING_COLUMNS = [("reason", "S64"), ("deviation", "f8"), ("excess", "f8")]

UNITS = {
    **dict.fromkeys(
        ["pwcpos", "ra_v1", "dec_v1", "pa_v3", "aper_pa", "ecliptic_lon", "ecliptic_lat"], "deg"
    ),
    **dict.fromkeys(["jwst_x_bary", "jwst_y_bary", "jwst_z_bary"], "km"),
    **dict.fromkeys(["jwst_x_geo", "jwst_y_geo", "jwst_z_geo"], "m"),
    "mid_time_mjd": "d",
}


def describing_values(header):
    """Return the values of a header that describe an exposure and name its product."""
    keys = [key for key, _, _ in _HEADER_COLUMNS.values()] + list(_OTHER_KEYS)
    return [header["name"], *(header.get(key) for key in keys)]


def describe_exposures(headers):
    """Return a row of METADATA per exposure; raise if a header lacks its pointing or time."""
    table = np.zeros(len(headers), dtype=_row_dtype())
    # FITS tables hold ASCII only.
    table["filename"] = [to_ascii(header["name"]) for header in headers]
    for column, (key, keyword, required) in _HEADER_COLUMNS.items():
        table[column] = [read_value(header, (key,), keyword, required) for header in headers]
    table["mid_time_mjd"] = [read_value(header, _TIME_KEYS, "MJD-AVG") for header in headers]
    table["nints"] = [header.get("meta.exposure.nints", 1) for header in headers]
    pointing = SkyCoord(table["ra_v1"], table["dec_v1"], unit="deg", frame="icrs")
    ecliptic = pointing.transform_to(BarycentricMeanEcliptic())
    table["ecliptic_lon"] = ecliptic.lon.deg
    table["ecliptic_lat"] = ecliptic.lat.deg
    table["day_of_year"] = [_day_of_year(mjd) for mjd in table["mid_time_mjd"]]
    return table


@functools.cache
def _row_dtype():
    """Return the columns of METADATA, with those of the vetting."""
    return np.dtype([*SkyflatModel().get_dtype("metadata").descr, *_VETTING_COLUMNS])


def summarize(table):
    """Return mean direction (degrees), year, and mean, first and last day of year, by keyword."""
    lon, lat = mean_direction(table["ecliptic_lon"], table["ecliptic_lat"])
    times = table["mid_time_mjd"]
    return {
        "ecliptic_lon": lon,
        "ecliptic_lat": lat,
        "year": _date(times.mean()).year,
        "day": _day_of_year(times.mean()),
        "day_min": _day_of_year(times.min()),
        "day_max": _day_of_year(times.max()),
    }


def mean_direction(lon, lat):
    """Return the direction of the mean unit vector, degrees, with longitude in [0, 360)."""
    mean = SkyCoord(lon, lat, unit=u.deg).cartesian.mean()
    direction = SkyCoord(mean).spherical
    return float(direction.lon.deg) % 360, float(direction.lat.deg)


def read_value(header, keys, keyword, required=True):
    """Return a number of a header; if it is missing, raise, or return NaN unless ``required``."""
    for key in keys:
        if header.get(key) is not None:
            return header[key]
    if required:
        raise SkyflatError(f"{header['name']}: keyword {keyword} is missing")
    return np.nan


def _day_of_year(mjd):
    """Return the calendar day of the year, 1 to 366."""
    return _date(mjd).timetuple().tm_yday


def _date(mjd):
    """Return the date and time of a Modified Julian Date, UTC."""
    return Time(mjd, format="mjd", scale="utc").to_datetime()
