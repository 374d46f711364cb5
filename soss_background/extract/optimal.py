"""Optimal and box extraction of an order, integration by integration."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmean, nanmedian
from scipy.ndimage import maximum_filter1d, median_filter
from tqdm import tqdm

from soss_background.extract.profile import Band, fit_profile
from soss_background.numerics.threads import split_rows

__all__ = ["Extraction", "Order", "extract_order", "photon_variance"]

# Fewest integrations that are compared with each other to find cosmic rays.
_FEW = 5
# Tolerated errors of a fitted profile and of a typical integration, as fractions of the flux of a
# pixel and its neighbours: the trace moves by hundredths of a pixel.
_TOLERANCE, _MOTION = 0.05, 0.02
# Least fraction of the flux of a column that falls on usable pixels.
_SEEN = 0.5
# Smallest profile, relative to its maximum in the column, of pixels that are used for a first flux.
_BRIGHT = 0.3
# Smallest significant ratio of the relative variance of a pixel to that of the whole integration.
_NOISIER = 2.0
# Columns of the running median with which a hot pixel is compared.
_NEAR = 9
# Number of pixels, of all integrations together, that are averaged at a time.
_PIXELS = 2_000_000
# Number of iterations of cosmic-ray rejection in an integration.
_ROUNDS = 2


class Extraction(NamedTuple):
    """
    Spectra of an order.

    Attributes
    ----------
    band : `~soss_background.extract.profile.Band`
        The aperture.
    profile : ndarray of float, shape (n, m)
        Fraction of the flux in the aperture that falls on each of its pixels.
    flux, error : ndarray of float, shape (nints, n)
        Optimal flux in the aperture and its uncertainty; NaN where ``seen`` is below 0.5.
    box_flux, box_error : ndarray of float, shape (nints, n)
        Sum of the flux over the aperture and its uncertainty, DN/s; bad pixels are replaced by the
        fitted profile.
    number : ndarray of float, shape (nints, n)
        Number of pixels used; the outermost pixels count as fractions.
    seen : ndarray of float, shape (nints, n)
        Fraction of the flux of the column that falls on these pixels.
    response : ndarray of float, shape (n, m)
        Weight of each pixel in the optimal flux, mean over the integrations.
    """

    band: Band
    profile: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    box_flux: np.ndarray
    box_error: np.ndarray
    number: np.ndarray
    seen: np.ndarray
    response: np.ndarray

    def scaled(self, factor):
        """Return the spectra times a factor of each column, shape (n,), or of all."""
        names = ("flux", "error", "box_flux", "box_error")
        return self._replace(**{name: getattr(self, name) * factor for name in names})

    def cut(self, integrations):
        """Return the spectra of some integrations, given by a slice."""
        names = ("flux", "error", "box_flux", "box_error", "number", "seen")
        return self._replace(**{name: getattr(self, name)[integrations] for name in names})


class Order(NamedTuple):
    """
    Extraction results for one order.

    Attributes
    ----------
    row : ndarray of float, shape (nx,)
        Row of the trace in each column of the exposure; NaN beyond it.
    wavelength : ndarray of float, shape (n,)
        Wavelength of the extracted columns, micron.
    extraction : `Extraction`
        The spectra.
    contamination : ndarray of float, shape (n,)
        Fraction of the median flux that belongs to other orders.
    beyond : ndarray of float, shape (n,)
        Flux beyond the aperture relative to that in it.
    """

    row: np.ndarray
    wavelength: np.ndarray
    extraction: Extraction
    contamination: np.ndarray
    beyond: np.ndarray

    def scaled(self, factor):
        """Return the order with its spectra times a factor of each column, or of all."""
        return self._replace(extraction=self.extraction.scaled(factor))


def photon_variance(mean, variance, bright):
    """
    Separate the photon noise of the target from all other variance.

    Variances estimated from noisy count rates give low count rates more weight, which biases a
    weighted mean. `extract_order` computes the photon noise from a model of the flux instead. The
    slope of the variance with the flux is the same in all pixels.

    Parameters
    ----------
    mean, variance : ndarray of float, shape (n, m)
        Mean of the integrations, DN/s, and of their variances, (DN/s)^2.
    bright : ndarray of bool, shape (n, m)
        True for pixels that hold a measurement.

    Returns
    -------
    other : ndarray of float, shape (n, m)
        Variance without the photon noise of the target, (DN/s)^2.
    slope : float
        Variance added by 1 DN/s.
    """
    light = mean[bright]
    faint, strong = (light <= np.percentile(light, 20)), (light >= np.percentile(light, 80))
    values = variance[bright]
    rise = np.median(values[strong]) - np.median(values[faint])
    reach = np.median(light[strong]) - np.median(light[faint])
    slope = max(rise / reach, 0) if reach > 0 else 0.0
    floor = 0.2 * np.median(values[faint])
    return np.maximum(variance - slope * np.clip(mean, 0, None), floor), slope


def extract_order(
    light,
    variances,
    band,
    *,
    degree,
    n_sigma,
    reject_cosmic_rays=True,
    profile_mask=None,
    progress=None,
):
    """
    Extract the spectra of an order.

    Optimal extraction (Horne 1986, PASP 98, 609) averages the fluxes estimated from the pixels of
    a column, weighted by profile and variance. Pixels that deviate from the other integrations
    (from the profile if there are fewer than five) are rejected as cosmic rays. With five or more
    integrations, pixels whose mean deviates from the profile are rejected, too. Errors of the model
    of 2 % of the flux (5 % for the profile) are tolerated.

    Parameters
    ----------
    light, variances : ndarray of float, shape (nints, n, m)
        Count rates of the band without sky, DN/s, and their variances, (DN/s)^2; NaN where there is
        no measurement.
    band : `~soss_background.extract.profile.Band`
        The aperture.
    degree : int
        Degree of the polynomials of the profile along the dispersion.
    n_sigma : float
        Significance above which a pixel is a cosmic ray, or bad in the mean.
    reject_cosmic_rays : bool, optional
        Whether to reject cosmic rays.
    profile_mask : ndarray of bool, shape (n, m), optional
        True for pixels of the band used for the profile; by default all.
    progress : str, optional
        Label of a progress bar; by default there is none.

    Returns
    -------
    extraction : `Extraction`
        The spectra.
    """
    good = np.isfinite(light)
    average = nanmedian if len(light) >= _FEW else nanmean
    mean, variance = (_by_columns(average, plane) for plane in (light, variances))
    known = np.isfinite(mean) & (variance > 0)
    mean, variance = np.where(known, mean, 0), np.where(known, variance, 1)
    other, slope = photon_variance(mean, variance, known)
    alone = np.ones_like(known) if profile_mask is None else profile_mask
    profile = fit_profile(mean, variance / len(light), known & alone, band, degree)
    expected, tolerance = profile, _TOLERANCE
    if len(light) >= _FEW:
        sure = known & alone.all(axis=1, keepdims=True)
        good &= ~_find_hot(mean, variance / len(light), sure, profile, n_sigma)
        light = np.where(good, light, np.nan)
        expected, tolerance = _expect(light, good, profile, band), _MOTION
    limit = n_sigma if reject_cosmic_rays else np.inf
    spectra, response = [], np.zeros_like(profile)
    bar = {"desc": progress, "total": len(light), "disable": None if progress else True}
    for each, ok, own in tqdm(zip(light, good, variances, strict=True), **bar):
        noise = other, slope, _compare(own, variance)
        *spectrum, share = _extract_integration(
            each, ok, band, profile, expected, noise, limit, tolerance
        )
        spectra.append(spectrum)
        response += share / len(light)
    return Extraction(band, profile, *map(np.array, zip(*spectra, strict=True)), response)


def _find_hot(mean, variance, sure, profile, n_sigma):
    """Find pixels that deviate in the mean from the profile and from neighbouring columns."""
    model = np.clip(_robust_flux(mean, sure, profile), 0, None)[:, np.newaxis] * profile
    # Neighbouring columns share the errors of the profile and the flux of other orders.
    expected = model + median_filter(np.where(sure, mean - model, 0), (_NEAR, 1))
    faults = _TOLERANCE * maximum_filter1d(np.maximum(expected, model), 3, axis=1)
    return sure & (np.abs(mean - expected) > n_sigma * np.hypot(np.sqrt(variance), faults))


def _compare(variance, typical):
    """Return the variance of an integration relative to a typical one, shape (n, m)."""
    ratio = variance / typical
    whole = np.nan_to_num(nanmedian(ratio), nan=1.0)
    # A pixel differs significantly if its ramp was cut short; smaller differences are photon noise.
    return np.where(ratio > _NOISIER * whole, ratio, whole)


def _by_columns(average, planes):
    """Average arrays, shape (nints, n, m), over the integrations, in blocks of columns."""
    blocks = _split_columns(planes)
    return np.concatenate([average(planes[:, columns], axis=0) for columns in blocks])


def _split_columns(planes):
    """Return slices that split the columns of arrays, shape (nints, n, m), into small blocks."""
    number, columns, rows = planes.shape
    return split_rows(columns, max(_PIXELS // (number * rows), 1))


def _expect(light, good, profile, band):
    """Return the fraction of a column's flux on each pixel in a typical integration, (n, m)."""
    weight, expected = band.weight, np.empty_like(profile)
    for columns in _split_columns(light):
        part, seen, own = light[:, columns], good[:, columns], weight[columns]
        filled = np.where(seen, part, 0)
        share = np.sum(np.where(seen, own * profile[columns], 0), axis=2)
        flux = np.sum(own * filled, axis=2) / np.where(share > 0, share, np.inf)
        flux = np.where(flux > 0, flux, np.nan)[..., np.newaxis]
        expected[columns] = nanmedian(part / flux, axis=0)
    return np.where(np.isfinite(expected), expected, profile)


def _extract_integration(light, good, band, profile, expected, noise, n_sigma, tolerance):
    """Extract one integration."""
    other, slope, noisier = noise
    light = np.where(good, light, 0)
    good = good.copy()
    scale = _robust_flux(light, good, expected)
    for _ in range(_ROUNDS):
        model = np.clip(scale, 0, None)[:, np.newaxis] * np.clip(expected, 0, None)
        variance = noisier * (other + slope * model)
        # The trace may move, so the flux of neighbouring pixels matters, too.
        faults = tolerance * maximum_filter1d(model, 3, axis=1)
        good &= np.abs(light - scale[:, np.newaxis] * expected) < n_sigma * np.hypot(
            np.sqrt(variance), faults
        )
        scale, share = _solve(light, good, band.weight, expected, variance)
    flux, response = _solve(light, good, band.weight, profile, variance)
    error = np.sqrt(np.sum(response**2 * variance, axis=1))
    filled = np.where(good, light, scale[:, np.newaxis] * expected)
    box = np.sum(band.aperture * filled, axis=1)
    # The values of replaced pixels depend on the good ones.
    replaced = np.sum(np.where(good, 0, band.aperture * expected), axis=1, keepdims=True)
    gain = np.where(good, band.weight, 0) + replaced * share
    box_error = np.sqrt(np.sum(gain**2 * variance, axis=1))
    seen = np.sum(np.where(good, band.weight * profile, 0), axis=1)
    lost = seen < _SEEN
    flux, error, box, box_error = (
        np.where(lost, np.nan, values) for values in (flux, error, box, box_error)
    )
    return flux, error, box, box_error, np.sum(band.weight * good, axis=1), seen, response


def _robust_flux(light, good, expected):
    """Return the flux of each column, a median of bright pixels that is robust to cosmic rays."""
    bright = good & (expected > _BRIGHT * np.max(expected, axis=1, keepdims=True))
    ratio = np.where(bright, light / np.where(bright, expected, 1), np.nan)
    return np.nan_to_num(nanmedian(ratio, axis=1))


def _solve(light, good, weight, profile, variance):
    """Return the flux of each column, and the weight of each pixel in it."""
    gain = np.where(good, weight * profile / variance, 0)
    norm = np.sum(gain * profile, axis=1, keepdims=True)
    response = gain / np.where(norm > 0, norm, np.inf)
    return np.sum(response * light, axis=1), response
