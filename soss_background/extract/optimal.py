"""Optimal and box extraction of an order, integration by integration."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmean, nanmedian
from scipy.ndimage import maximum_filter1d, median_filter
from tqdm import tqdm

from soss_background.extract.profile import Band, fit_profile

__all__ = ["Extraction", "Order", "extract_order", "photon_variance"]

# Integrations that it takes to tell cosmic rays by comparing them with each other.
_FEW = 5
# How far a fitted profile may be off, and the light of an integration from that of the others (the
# trace moves by hundredths of a pixel), parts of the light of a pixel and its neighbours.
_TOLERANCE, _MOTION = 0.05, 0.02
# Part of the light of a column that must be seen.
_SEEN = 0.5
# Pixels that tell a first flux: those of at least this part of the brightest of their column.
_BRIGHT = 0.3
# How much larger than those of other integrations the variance of a pixel must be to count.
_NOISIER = 2.0
# Columns from which a pixel that is always hot stands out.
_NEAR = 9
# Rejections of cosmic rays in an integration.
_ROUNDS = 2


class Extraction(NamedTuple):
    """
    Spectra of an order.

    Attributes
    ----------
    band : `~soss_background.extract.profile.Band`
        The aperture.
    profile : ndarray of float, shape (n, m)
        Part of the light of the aperture that falls on each of its pixels.
    flux, error : ndarray of float, shape (nints, n)
        Light in the aperture by optimal extraction, and its uncertainty, DN/s; NaN where too little
        of a column is seen.
    box_flux, box_error : ndarray of float, shape (nints, n)
        The same, summed over the aperture; bad pixels are replaced by what the profile tells.
    number : ndarray of float, shape (nints, n)
        Pixels used, the outermost in part.
    seen : ndarray of float, shape (nints, n)
        Part of the light of the column that falls on these.
    response : ndarray of float, shape (n, m)
        What each pixel adds to the optimal flux, mean over the integrations.
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


class Order(NamedTuple):
    """
    All that is known of an order.

    Attributes
    ----------
    row : ndarray of float, shape (nx,)
        Row of the trace in each column of the exposure; NaN beyond it.
    wavelength : ndarray of float, shape (n,)
        Wavelength of the columns that were extracted, micron.
    extraction : `Extraction`
        The spectra.
    contamination : ndarray of float, shape (n,)
        Part of the mean flux that is of other orders.
    """

    row: np.ndarray
    wavelength: np.ndarray
    extraction: Extraction
    contamination: np.ndarray


def photon_variance(mean, variance, bright):
    """
    Separate the variance of the light of the target from all other.

    The variance of an integration is estimated from its own noisy counts, so that low ones weigh
    more, and a weighted mean comes out low. Photons of the target are therefore counted by the
    model of its light. The slope of the variance with the light is the same in all pixels.

    Parameters
    ----------
    mean : ndarray of float, shape (n, m)
        Mean of the integrations, DN/s.
    variance : ndarray of float, shape (n, m)
        Mean of the variances of an integration, (DN/s)^2.
    bright : ndarray of bool, shape (n, m)
        Pixels that hold a measurement.

    Returns
    -------
    other : ndarray of float, shape (n, m)
        Variance without the light of the target.
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


def extract_order(cube, err, good, band, *, degree, n_sigma, profile_mask=None, progress=None):
    """
    Extract the spectra of an order.

    Optimal extraction (Horne 1986, PASP 98, 609): the mean of what each pixel tells of the light
    of its column, weighted by profile and variance. Pixels that deviate from what the other
    integrations let expect (of fewer than five integrations: from the profile) are cosmic rays and
    left out, as are those that deviate from the profile in the mean; 2 per cent of the light (5 for
    the profile) are allowed for motion and faults.

    Parameters
    ----------
    cube, err : ndarray of float, shape (nints, ny, nx)
        Count rates without sky, and their uncertainties, DN/s.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.
    band : `~soss_background.extract.profile.Band`
        The aperture.
    degree : int
        Degree of the polynomials of the profile along the dispersion.
    n_sigma : float
        Significance above which a pixel is a cosmic ray.
    profile_mask : ndarray of bool, shape (n, m), optional
        Pixels of the band that may tell the profile; all, if it is not given.
    progress : str, optional
        What a bar of progress says, if there is to be one.

    Returns
    -------
    extraction : `Extraction`
        The spectra.
    """
    good = band.take(good) & band.inside
    light = np.where(good, band.take(cube), np.nan)
    variances = np.where(good, band.take(err) ** 2, np.nan)
    average = nanmedian if len(light) >= _FEW else nanmean
    mean, variance = average(light, axis=0), average(variances, axis=0)
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
    spectra, response = [], np.zeros_like(profile)
    bar = {"desc": progress, "total": len(light), "disable": None if progress else True}
    for each, ok, own in tqdm(zip(light, good, variances, strict=True), **bar):
        noise = other, slope, _compare(own, variance)
        *spectrum, share = _extract_integration(
            each, ok, band, profile, expected, noise, n_sigma, tolerance
        )
        spectra.append(spectrum)
        response += share / len(light)
    return Extraction(band, profile, *map(np.array, zip(*spectra, strict=True)), response)


def _find_hot(mean, variance, sure, profile, n_sigma):
    """Find pixels that stand out from the profile, and from the columns near, in the mean."""
    model = np.clip(_robust_flux(mean, sure, profile), 0, None)[:, np.newaxis] * profile
    # Faults of the profile, and light of other orders, are in the columns near too.
    expected = model + median_filter(np.where(sure, mean - model, 0), (_NEAR, 1))
    faults = _TOLERANCE * maximum_filter1d(np.maximum(expected, model), 3, axis=1)
    return sure & (np.abs(mean - expected) > n_sigma * np.hypot(np.sqrt(variance), faults))


def _compare(variance, typical):
    """
    Tell how much noisier an integration is than a typical one.

    Single pixels count if their ramp was cut short; smaller differences are noise of the counts.
    """
    ratio = variance / typical
    whole = np.nan_to_num(nanmedian(ratio), nan=1.0)
    return np.where(ratio > _NOISIER * whole, ratio, whole)


def _expect(light, good, profile, band):
    """Tell what part of the light of a column falls on each pixel in a typical integration."""
    filled = np.where(good, light, 0)
    seen = np.sum(np.where(good, band.weight * profile, 0), axis=2)
    flux = np.sum(band.weight * filled, axis=2) / np.where(seen > 0, seen, np.inf)
    flux = np.where(flux > 0, flux, np.nan)[..., np.newaxis]
    expected = nanmedian(light / flux, axis=0)
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
        # The trace may move: what counts is the light of the neighbours too.
        faults = tolerance * maximum_filter1d(model, 3, axis=1)
        good &= np.abs(light - scale[:, np.newaxis] * expected) < n_sigma * np.hypot(
            np.sqrt(variance), faults
        )
        scale, share = _solve(light, good, band.weight, expected, variance)
    flux, response = _solve(light, good, band.weight, profile, variance)
    error = np.sqrt(np.sum(response**2 * variance, axis=1))
    filled = np.where(good, light, scale[:, np.newaxis] * expected)
    box = np.sum(band.aperture * filled, axis=1)
    # What replaces a bad pixel comes of the good ones.
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
    """Find the flux that half of the bright pixels of a column exceed: cosmic rays do not count."""
    bright = good & (expected > _BRIGHT * np.max(expected, axis=1, keepdims=True))
    ratio = np.where(bright, light / np.where(bright, expected, 1), np.nan)
    return np.nan_to_num(nanmedian(ratio, axis=1))


def _solve(light, good, weight, profile, variance):
    """Find the flux of each column, and what each pixel adds to it."""
    gain = np.where(good, weight * profile / variance, 0)
    norm = np.sum(gain * profile, axis=1, keepdims=True)
    response = gain / np.where(norm > 0, norm, np.inf)
    return np.sum(response * light, axis=1), response
