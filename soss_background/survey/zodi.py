"""Levels of the sky compared with the zodiacal light predicted by a model of the dust."""

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

# Wavelength of the maximum of the first order, which is also the shortest wavelength of the dust
# model of Kelsall et al. (1998, ApJ 508, 44).
WAVELENGTH = 1.25 * u.micron

# Units of surface brightness, of levels, and of their ratio.
_BRIGHTNESS, _LEVEL = u.MJy / u.sr, u.DN / u.s

# Distance of L2 from the Sun relative to that of the Earth.
_L2 = 1.01

# Robust standard deviations beyond which ratios are clipped, and fewest ratios for clipping.
_CLIP, _ENOUGH = 5.0, 8

# Fraction of a normal distribution below one standard deviation.
_ONE_SIGMA = 0.8413


def sun_angle(pointing, place=None):
    """Return the solar elongation of a pointing; for arguments see `predict_levels`."""
    pointing = _direction(pointing)
    away = _telescope(pointing.obstime, place).represent_as(UnitSphericalRepresentation)
    cosine = -pointing.cartesian.dot(away.to_cartesian())
    return np.arccos(np.clip(cosine, -1, 1)).to(u.deg)


def _direction(pointing):
    """Return a pointing as a direction in the ecliptic frame, without a distance."""
    if pointing.obstime is None:
        raise ValueError("the pointing has no obstime, the time of the observation")
    direction = pointing.represent_as(UnitSphericalRepresentation)
    turned = SkyCoord(direction, frame=pointing.frame.replicate_without_data())
    ecliptic = turned.transform_to(BarycentricMeanEcliptic())
    return SkyCoord(ecliptic.lon, ecliptic.lat, frame=ecliptic.frame, obstime=pointing.obstime)


def _telescope(time, place):
    """Return the position of the telescope relative to the Sun, in the ecliptic frame."""
    sun = get_body_barycentric("sun", time).xyz
    if place is None:
        from_sun = _L2 * (get_body_barycentric("earth", time).xyz - sun)
    else:
        from_sun = place - sun
    # Only rotate, since a difference of positions does not depend on the origin.
    turned = SkyCoord(*from_sun, frame="icrs", representation_type="cartesian")
    return turned.transform_to(BarycentricMeanEcliptic()).cartesian


def predict_brightness(pointing, place=None):
    """Predict the zodiacal light at 1.25 micron; for arguments and errors see `predict_levels`."""
    pointing = _direction(pointing)
    position = _telescope(pointing.obstime, place).xyz.to(u.AU)
    return _model().evaluate(pointing, obspos=position)[0].to(_BRIGHTNESS)


@functools.cache
def _model():
    """Create the model once (zodipy, San et al. 2024, JOSS 9, 6648)."""
    # zodipy is optional.
    import zodipy

    return zodipy.Model(WAVELENGTH, name="dirbe")


def fit_levels(levels, brightness):
    """
    Fit the ratio of measured levels to the zodiacal light.

    Parameters
    ----------
    levels : dict of ndarray, shape (n,)
        Levels of n skies by the side of the edge, DN/s.
    brightness : `~astropy.units.Quantity` or ndarray, shape (n,)
        Predictions of `predict_brightness`, in MJy/sr if they have no unit; NaN where unknown.

    Returns
    -------
    fit : `~astropy.table.Table`
        For each ``side``: ``ratio`` (DN/s per MJy/sr, geometric mean of the ratios), ``scatter``
        (their standard deviation, percent; NaN for fewer than two), and their ``number``. From
        eight or more ratios, outliers by more than five robust standard deviations are left out.
    """
    brightness, rows = u.Quantity(brightness, _BRIGHTNESS).value, []
    for side, level in levels.items():
        ratios = np.asarray(level, dtype=float) / brightness
        kept = _without_outliers(np.log(ratios[ratios > 0]))
        scatter = 100 * np.std(kept, ddof=1) if kept.size > 1 else np.nan
        ratio = np.exp(np.mean(kept)) if kept.size else np.nan
        rows.append({"side": side, "ratio": ratio, "scatter": scatter, "number": kept.size})
    fit = Table(rows, units={"ratio": _LEVEL / _BRIGHTNESS, "scatter": "%"})
    fit.meta["wavelength"] = str(WAVELENGTH)
    return fit


def _without_outliers(values):
    """Return the values without outliers, if there are enough to identify them."""
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
        The pointing of the telescope, with its ``obstime``.
    place : `~astropy.units.Quantity`, shape (3,), optional
        Barycentric position of the telescope, ICRS; by default the Lagrange point L2.

    Returns
    -------
    levels : dict of tuple of `~astropy.units.Quantity`
        Level and its uncertainty, by the side of the edge. The uncertainty is half of the interval
        that contains 68 % of further skies, by Student's distribution: it includes the scatter
        about the fit and the uncertainty of the ratio itself.

    Raises
    ------
    ImportError
        If zodipy, which provides the model, is not installed.
    ValueError
        If the pointing has no ``obstime``.
    """
    brightness = predict_brightness(pointing, place).to_value(_BRIGHTNESS)
    levels = {}
    for row in fit:
        level, number, width = row["ratio"] * brightness * _LEVEL, row["number"], np.nan
        if number > 1:
            width = stdtrit(number - 1, _ONE_SIGMA) * np.sqrt(1 + 1 / number)
        levels[str(row["side"])] = (level, level * row["scatter"] / 100 * width)
    return levels
