"""The level of the sky beside the zodiacal light that a model of the dust predicts."""

import functools

import numpy as np
from astropy import units as u
from astropy.coordinates import (
    BarycentricMeanEcliptic,
    SkyCoord,
    UnitSphericalRepresentation,
    get_body_barycentric,
)
from astropy.stats import sigma_clip
from astropy.table import Table
from scipy.special import stdtrit

__all__ = [
    "WAVELENGTH",
    "fit_levels",
    "predict_brightness",
    "predict_levels",
    "sun_angle",
]

# Where the first order is brightest, and the shortest wavelength of the model of Kelsall et al.
# (1998, ApJ 508, 44).
WAVELENGTH = 1.25 * u.micron

# Distance of L2 from the Sun, in that of the Earth.
_L2 = 1.01

# Ratios farther from the others are outliers, robust sigma; and the fewest that can tell.
_CLIP, _ENOUGH = 5.0, 8

# Part of a normal distribution below one standard deviation.
_ONE_SIGMA = 0.8413


def sun_angle(pointing, place=None):
    """
    Measure the solar elongation, the angle between a pointing and the Sun.

    Parameters
    ----------
    pointing : `~astropy.coordinates.SkyCoord`
        Where the telescope looks, with its ``obstime``.
    place : `~astropy.units.Quantity`, shape (3,), optional
        The telescope's barycentric place, ICRS; by default the Lagrange point L2.

    Returns
    -------
    angle : float
        Elongation in degrees.

    Raises
    ------
    ValueError
        If the pointing has no ``obstime``.
    """
    pointing = _direction(pointing)
    away = _telescope(pointing.obstime, place).represent_as(UnitSphericalRepresentation)
    cosine = -pointing.cartesian.dot(away.to_cartesian())
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).value)


def _direction(pointing):
    """Turn a pointing, however far its object, into a direction in the ecliptic frame."""
    if pointing.obstime is None:
        raise ValueError("the pointing has no obstime, which tells when the telescope looks there")
    direction = pointing.represent_as(UnitSphericalRepresentation)
    turned = SkyCoord(direction, frame=pointing.frame.replicate_without_data())
    ecliptic = turned.transform_to(BarycentricMeanEcliptic())
    return SkyCoord(ecliptic.lon, ecliptic.lat, frame=ecliptic.frame, obstime=pointing.obstime)


def _telescope(time, place):
    """Find the telescope as seen from the Sun, in the ecliptic frame."""
    sun = get_body_barycentric("sun", time).xyz
    if place is None:
        from_sun = _L2 * (get_body_barycentric("earth", time).xyz - sun)
    else:
        from_sun = place - sun
    # Only turned: the frame's origin is of no account to a vector.
    turned = SkyCoord(*from_sun, frame="icrs", representation_type="cartesian")
    return turned.transform_to(BarycentricMeanEcliptic()).cartesian


def predict_brightness(pointing, place=None):
    """
    Predict the zodiacal light at 1.25 micron.

    Parameters
    ----------
    pointing : `~astropy.coordinates.SkyCoord`
        Where the telescope looks, with its ``obstime``.
    place : `~astropy.units.Quantity`, shape (3,), optional
        The telescope's barycentric place, ICRS; by default the Lagrange point L2.

    Returns
    -------
    brightness : float
        Surface brightness in MJy/sr.

    Raises
    ------
    ImportError
        If zodipy, which has the model, is not installed.
    ValueError
        If the pointing has no ``obstime``.

    References
    ----------
    San et al. 2024, Journal of Open Source Software 9, 6648 (zodipy); Kelsall et al. 1998, ApJ
    508, 44 (the model of the dust).
    """
    pointing = _direction(pointing)
    position = _telescope(pointing.obstime, place).xyz.to(u.AU)
    return _model().evaluate(pointing, obspos=position).to_value(u.MJy / u.sr).item()


@functools.cache
def _model():
    """Make the model once."""
    # Here, since it is optional.
    import zodipy

    return zodipy.Model(WAVELENGTH, name="dirbe")


def fit_levels(levels, brightness):
    """
    Fit the ratio of measured levels to the zodiacal light.

    Parameters
    ----------
    levels : dict of ndarray, shape (n,)
        Levels of n skies in DN/s, by the side of the step.
    brightness : ndarray, shape (n,)
        Predictions in MJy/sr, see `predict_brightness`; NaN where there is none.

    Returns
    -------
    fit : `~astropy.table.Table`
        For each ``side``: ``ratio`` (DN/s per MJy/sr, geometric mean of the ratios), ``scatter``
        (their standard deviation, per cent), and their ``number``. Of eight or more, those that
        are off by more than five robust sigma are left out. The scatter of fewer than two is NaN.
    """
    rows = []
    for side, level in levels.items():
        ratios = np.asarray(level, dtype=float) / brightness
        kept = _without_outliers(np.log(ratios[ratios > 0]))
        scatter = 100 * np.std(kept, ddof=1) if kept.size > 1 else np.nan
        ratio = np.exp(np.mean(kept)) if kept.size else np.nan
        rows.append({"side": side, "ratio": ratio, "scatter": scatter, "number": kept.size})
    fit = Table(rows, units={"ratio": "DN sr / (s MJy)", "scatter": "%"})
    fit.meta["wavelength"] = str(WAVELENGTH)
    return fit


def _without_outliers(values):
    """Leave out what is far from the rest, if there are enough to tell."""
    if len(values) < _ENOUGH:
        return values
    return sigma_clip(values, _CLIP, stdfunc="mad_std", masked=False)


def predict_levels(fit, pointing, place=None):
    """
    Predict the level of the SOSS sky for a pointing and a date.

    Parameters
    ----------
    fit : `~astropy.table.Table`
        See `fit_levels`; ``soss-background characterize`` writes it to ``zodiacal_light.ecsv``.
    pointing : `~astropy.coordinates.SkyCoord`
        Where the telescope looks, with its ``obstime``.
    place : `~astropy.units.Quantity`, shape (3,), optional
        The telescope's barycentric place, ICRS; by default the Lagrange point L2.

    Returns
    -------
    levels : dict of tuple of float
        Level and its uncertainty in DN/s, by the side of the step. The uncertainty is half of the
        interval that holds 68 per cent of further skies: the scatter about the fit, and that of
        the ratio itself, by Student's distribution if the fit is of few skies.

    Raises
    ------
    ImportError
        If zodipy, which has the model, is not installed.
    ValueError
        If the pointing has no ``obstime``.
    """
    brightness = predict_brightness(pointing, place)
    levels = {}
    for row in fit:
        level, number = row["ratio"] * brightness, row["number"]
        width = stdtrit(number - 1, _ONE_SIGMA) * np.sqrt(1 + 1 / number) if number > 1 else np.nan
        levels[str(row["side"])] = (float(level), float(level * row["scatter"] / 100 * width))
    return levels
