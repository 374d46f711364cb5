"""Headers as in the archive: pointing, position of the telescope and times."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord, get_body_barycentric
from astropy.time import Time, TimeDelta

from soss_background.detector import FULL, PIXEL_SCALE, SUPERSTRIPES

__all__ = ["Clock", "Pointing", "block_times", "exposure_name", "header", "integration_times"]

# Seconds from the end of an exposure to the start of the next one: slew, settle, reset.
OVERHEAD = 60.0
# Distance of the telescope from the Earth, away from the Sun, km: the second Lagrange point.
L2_DISTANCE = 1.5e6
SPEED_OF_LIGHT = 299792.458  # km/s
# Aperture; its reference point in one-based full-frame pixels (x, y); the same on the
# telescope's focal plane (V2, V3), arcsec.
APERTURES = {
    "FULL": ("NIS_CEN", (1024.5, 1024.5), (-289.97, -697.72)),
    "SUBSTRIP256": ("NIS_SUBSTRIP256", (1024.5, 1881.0), (-290.58, -641.54)),
    "SUBSTRIP96": ("NIS_SUBSTRIP96", (1024.5, 1851.0), (-290.56, -643.51)),
}
APERTURES |= dict.fromkeys(SUPERSTRIPES, APERTURES["SUBSTRIP256"])
# Angle from V3 to the detector's y axis, degrees; the detector's x axis is opposite to V2.
V3_TO_Y, PARITY = -0.57, -1
FAST_AXIS, SLOW_AXIS = -2, -1
DETECTOR1_STEPS = (
    "dq_init", "saturation", "superbias", "refpix", "linearity", "dark_sub", "jump",
    "ramp_fit", "gain_scale",
)  # fmt: skip


@dataclass(frozen=True)
class Clock:
    """Start (`~astropy.time.Time`, UTC) and duration (s) of an exposure."""

    start: Time
    duration: float

    @classmethod
    def of_exposure(cls, simulation, number):
        """Return the times of an exposure of a visit, numbered from 1."""
        before = (number - 1) * (simulation.exposure_time + OVERHEAD)
        start = Time(simulation.start, scale="utc") + TimeDelta(before, format="sec")
        return cls(start, simulation.exposure_time)

    def at(self, fraction):
        """Return the time after a fraction of the exposure."""
        return self.start + TimeDelta(fraction * self.duration, format="sec")


@dataclass(frozen=True)
class Pointing:
    """
    Position and pointing of the telescope.

    Attributes
    ----------
    axis, reference : `~astropy.coordinates.SkyCoord`
        Directions of the V1 axis and of the aperture's reference point, ICRS.
    pa_v3 : float
        Position angle of V3, degrees.
    earth, telescope : ndarray, shape (3,)
        Barycentric equatorial positions, km.
    """

    axis: SkyCoord
    reference: SkyCoord
    pa_v3: float
    earth: np.ndarray
    telescope: np.ndarray

    @classmethod
    def of_exposure(cls, simulation, clock, dither):
        """Return the pointing that shifts the field by a dither (x, y), pixels on the detector."""
        earth, telescope = _positions(clock.at(0.5))
        ecliptic = SkyCoord(
            simulation.lon * u.deg, simulation.lat * u.deg, frame=BarycentricMeanEcliptic()
        )
        nominal = ecliptic.icrs
        # The Sun is on the side of the sunshield, in the direction of -V3; the telescope does not
        # roll during a visit.
        _, first = _positions(Time(simulation.start, scale="utc"))
        sun = SkyCoord(*-first, representation_type="cartesian")
        sun.representation_type = "unitspherical"
        pa_v3 = (nominal.position_angle(sun).deg + 180) % 360
        motion = (pa_v3 + V3_TO_Y - np.degrees(np.arctan2(-dither[0], -dither[1]))) * u.deg
        axis = nominal.directional_offset_by(motion, np.hypot(*dither) * PIXEL_SCALE * u.arcsec)
        v2, v3 = APERTURES[simulation.window.name][2]
        to_aperture = (pa_v3 + np.degrees(np.arctan2(v2, v3))) * u.deg
        reference = axis.directional_offset_by(to_aperture, np.hypot(v2, v3) * u.arcsec)
        return cls(axis, reference, pa_v3, earth, telescope)

    def light_time(self):
        """Return the time by which light passes the telescope before the barycentre, s."""
        towards = self.axis.cartesian.xyz.value
        return float(towards @ self.telescope) / SPEED_OF_LIGHT


def _positions(time):
    """Return the barycentric positions of the Earth and of the telescope, km."""
    earth = get_body_barycentric("earth", time).xyz.to_value(u.km)
    return earth, earth * (1 + L2_DISTANCE / np.linalg.norm(earth))


def exposure_name(simulation, number, *, suffix="rateints", time_series=False):
    """Return the file name that the archive gives to an exposure, numbered from 1."""
    activity, exposure = _place_in_visit(simulation, number)
    visit = f"jw{int(simulation.program):05d}{int(simulation.observation):03d}001"
    segment = "-seg001" if time_series else ""
    return f"{visit}_031{activity:02d}_{exposure:05d}{segment}_nis_{suffix}.fits"


def _place_in_visit(simulation, number):
    """Return the number of the row of the mosaic, and of the exposure in that row, from 1."""
    per_row = -(-simulation.n_exposures // 2)
    row, place = divmod(number - 1, per_row)
    return row + 1, place + 1


def header(simulation, number=1, dither=(0.0, 0.0), *, time_series=False):
    """Return the ``meta`` tree of an exposure whose field is shifted by a dither (x, y), pixels."""
    clock = Clock.of_exposure(simulation, number)
    pointing = Pointing.of_exposure(simulation, clock, dither)
    return {
        "telescope": "JWST",
        "origin": "STSCI",
        "bunit_data": "DN/s",
        "bunit_err": "DN/s",
        "instrument": instrument(simulation),
        "subarray": subarray(simulation.window),
        "observation": _observation(simulation, number, clock),
        "visit": {
            "type": "PRIME_TARGETED_FIXED",
            "start_time": simulation.start.replace("T", " "),
            "total_exposures": simulation.n_exposures,
            "tsovisit": time_series,
        },
        "exposure": _exposure(simulation, number, clock),
        "target": _target(simulation, pointing.reference),
        "dither": {
            "primary_type": "NONE",
            "position_number": number,
            "total_points": simulation.n_exposures,
            "x_offset": -dither[0] * PIXEL_SCALE,
            "y_offset": -dither[1] * PIXEL_SCALE,
        },
        "aperture": {
            "name": APERTURES[simulation.window.name][0],
            "pps_name": APERTURES[simulation.window.name][0],
            "position_angle": (pointing.pa_v3 + V3_TO_Y) % 360,
        },
        "pointing": {
            "ra_v1": pointing.axis.ra.deg,
            "dec_v1": pointing.axis.dec.deg,
            "pa_v3": pointing.pa_v3,
        },
        "wcsinfo": _wcs(simulation.window, pointing),
        "coordinates": {"reference_frame": "ICRS"},
        "ephemeris": _ephemeris(clock, pointing),
        "cal_step": dict.fromkeys(DETECTOR1_STEPS, "COMPLETE"),
    }


def instrument(simulation):
    """Return the ``meta.instrument`` tree."""
    return {
        "name": "NIRISS",
        "detector": "NIS",
        "filter": simulation.filter_name,
        "pupil": "GR700XD",
        "pupil_position": simulation.pwcpos,
    }


def subarray(window):
    """Return the ``meta.subarray`` tree of a window."""
    return {
        "name": window.name,
        "xstart": window.x0 + 1,
        "ystart": window.y0 + 1,
        "xsize": window.nx,
        "ysize": window.ny,
        "fastaxis": FAST_AXIS,
        "slowaxis": SLOW_AXIS,
    }


def _observation(simulation, number, clock):
    activity, exposure = _place_in_visit(simulation, number)
    date, time = clock.start.isot.split("T")
    program, observation = f"{int(simulation.program):05d}", f"{int(simulation.observation):03d}"
    return {
        "date": date,
        "time": time,
        "date_beg": clock.start.isot,
        "date_end": clock.at(1).isot,
        "obs_id": f"V{program}{observation}001P0000000003{101 + activity - 1}",
        "visit_id": f"{program}{observation}001",
        "program_number": program,
        "observation_number": observation,
        "visit_number": "001",
        "visit_group": "03",
        "sequence_id": "1",
        "activity_id": f"{activity:02d}",
        "exposure_number": f"{exposure:05d}",
        "template": "NIRISS Single-Object Slitless Spectroscopy",
    }


def _exposure(simulation, number, clock):
    times = {}
    for name, fraction in (("start", 0), ("mid", 0.5), ("end", 1)):
        mjd = clock.at(fraction).mjd
        times |= {f"{name}_time": mjd, f"{name}_time_mjd": mjd}
    group_time = simulation.integration_time / simulation.groups
    return times | {
        "type": "NIS_SOSS",
        "count": number,
        "readpatt": "NISRAPID",
        "nints": simulation.n_integrations,
        "integration_start": 1,
        "integration_end": simulation.n_integrations,
        "ngroups": simulation.groups,
        "nframes": 1,
        "groupgap": 0,
        "noutputs": 4 if simulation.window.shape == FULL.shape else 1,
        "frame_time": group_time,
        "group_time": group_time,
        "integration_time": simulation.integration_time,
        "exposure_time": simulation.exposure_time,
        "effective_exposure_time": simulation.exposure_time,
        "measurement_time": simulation.exposure_time,
        "duration": simulation.exposure_time,
        "nresets_at_start": 1,
        "nresets_between_ints": 1,
        "segment_number": 1,
        "segment_total": 1,
    }


def _target(simulation, position):
    return {
        "proposer_name": simulation.target,
        "catalog_name": simulation.target,
        "type": "FIXED",
        "ra": position.ra.deg,
        "dec": position.dec.deg,
        "source_type_apt": "UNKNOWN",
    }


def _wcs(window, pointing):
    reference_x, reference_y = APERTURES[window.name][1]
    v2, v3 = APERTURES[window.name][2]
    turn = np.radians(pointing.pa_v3 - PARITY * V3_TO_Y)
    return {
        "wcsaxes": 2,
        "ctype1": "RA---TAN",
        "ctype2": "DEC--TAN",
        "cunit1": "deg",
        "cunit2": "deg",
        "crpix1": reference_x - window.x0,
        "crpix2": reference_y - window.y0,
        "crval1": pointing.reference.ra.deg,
        "crval2": pointing.reference.dec.deg,
        "cdelt1": PIXEL_SCALE / 3600,
        "cdelt2": PIXEL_SCALE / 3600,
        "pc1_1": PARITY * np.cos(turn),
        "pc1_2": np.sin(turn),
        "pc2_1": -PARITY * np.sin(turn),
        "pc2_2": np.cos(turn),
        "ra_ref": pointing.reference.ra.deg,
        "dec_ref": pointing.reference.dec.deg,
        "roll_ref": pointing.pa_v3,
        "v2_ref": v2,
        "v3_ref": v3,
        "vparity": PARITY,
        "v3yangle": V3_TO_Y,
        "dispersion_direction": 1,
    }


def _ephemeris(clock, pointing):
    meta = {"reference_frame": "EME2000", "type": "Predicted", "time": clock.at(0.5).mjd}
    from_earth = pointing.telescope - pointing.earth
    for axis, barycentric, geocentric in zip("xyz", pointing.telescope, from_earth, strict=True):
        meta[f"spatial_{axis}_bary"] = barycentric
        meta[f"spatial_{axis}_geo"] = geocentric * 1000
    return meta


def integration_times(simulation, number=1):
    """List number, start, middle and end, MJD (UTC) and barycentric MJD (TDB), by integration."""
    times = _split_exposure(simulation, number, simulation.n_integrations)
    return [(index + 1, *row) for index, row in enumerate(times)]


def block_times(simulation, number=1):
    """List integration, block of columns, and times as `integration_times`, by block."""
    blocks = len(simulation.window.column_blocks())
    times = _split_exposure(simulation, number, simulation.n_integrations * blocks)
    return [(index // blocks + 1, index % blocks + 1, *row) for index, row in enumerate(times)]


def _split_exposure(simulation, number, count):
    """List start, middle and end, MJD (UTC) and barycentric MJD (TDB), of equal parts."""
    clock = Clock.of_exposure(simulation, number)
    pointing = Pointing.of_exposure(simulation, clock, (0.0, 0.0))
    delay = TimeDelta(pointing.light_time(), format="sec")
    rows = []
    for index in range(count):
        times = [clock.at((index + part) / count) for part in (0, 0.5, 1)]
        utc = [time.mjd for time in times]
        tdb = [(time.tdb + delay).mjd for time in times]
        rows.append((*utc, *tdb))
    return rows
