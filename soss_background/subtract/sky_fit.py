"""Fit the sky of an exposure with light of stars in it."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, ndimage, optimize

from soss_background.cells import bin_to_cells, expand_cells, expand_smoothly
from soss_background.mask.source_mask import detect_light
from soss_background.subtract.light import FaintLight, make_wings
from soss_background.subtract.templates import bin_smooth

__all__ = ["NoSkyError", "SkyFit", "fit_sky"]

# Rounds in which masks, wings and sky are made of each other, and steps of the fit in each.
_ROUNDS, _STEPS = 8, 5

# Faint light that is left as it is, as a fraction of the sky; light that has wings.
_FLOOR, _CORE = 0.006, 0.08

# Pixels from the centre of a target's trace that are its core, and that are not used.
_CORE_REACH, _REACH = 18, 20

# How well the template is known, as a fraction of the sky, and the wings, of themselves.
_TEMPLATE_ERROR, _WING_ERROR = 0.004, 0.2

# 1-sigma of the tilt of each side of the step relative to the template, and of the shift, pixels.
_TILT, _SHIFT = 0.0015, 4.0

# Largest change of the shift in a round, pixels.
_LARGEST_SHIFT = 3.0

# Percentile of the cells that is the first guess of a level.
_DARK = 15

# Fewest cells of a side of the step that a fit can be made of.
_FEWEST = 50

# Least weight of a cell that is full of light.
_LEAST = 0.02


class NoSkyError(ValueError):
    """An exposure shows too little of the sky for a fit."""


@dataclass(frozen=True)
class SkyFit:
    """
    The sky of an exposure.

    Attributes
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty in DN/s.
    used : ndarray of bool, shape (ny, nx)
        True for pixels that the fit was made of.
    level_left, level_right : float
        Levels of the sky left and right of the step in DN/s: scale factors of a template whose
        median left of the step is one.
    level_left_err, level_right_err : float
        Their 1-sigma uncertainties.
    shift : float
        Shift of the step relative to the templates, pixels towards larger columns.
    chi2 : float
        Reduced chi-square of the cells used, faint light included.
    """

    sky: np.ndarray
    err: np.ndarray
    used: np.ndarray
    level_left: float
    level_right: float
    level_left_err: float
    level_right_err: float
    shift: float
    chi2: float


def fit_sky(image, err, usable, templates, distance, n_sigma=4.0):
    """
    Fit the sky of an exposure.

    The sky is the mean of the templates, with a level of its own on each side of the step, a small
    shift, small tilts, and as much of the deviations of the templates from their mean as they are
    worth. Over it lie stars: what stands out is masked; its wings, as wide as the detector, are
    fitted with the sky; light too faint to be found is accounted for by its statistics.

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        The exposure and its 1-sigma uncertainties in DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels that may be used.
    templates : `~soss_background.subtract.templates.Templates`
        Skies for these pixels.
    distance : ndarray of float, shape (ny, nx)
        Distance from the nearest trace of the target in pixels; infinite if there is none.
    n_sigma : float
        Significance above which light is masked.

    Returns
    -------
    fit : SkyFit
        The sky.

    Raises
    ------
    NoSkyError
        If too little of the exposure shows the sky.
    """
    cells, noise = bin_to_cells(image, err, usable)
    known, distance = np.isfinite(cells) & (noise > 0), bin_smooth(distance)
    shift, level, sky, sides = _guess(cells, known, templates)
    wings, faint = np.zeros_like(sky), [FaintLight(level) for _ in sides]
    for _ in range(_ROUNDS):
        clear, core = _look_for_light(cells, noise, known, sky, wings, distance, n_sigma)
        basis = _make_basis(templates, shift, level, core)
        sigma = np.sqrt(noise**2 + (_TEMPLATE_ERROR * sky) ** 2 + (_WING_ERROR * wings) ** 2)
        views = [clear & side for side in sides]
        amplitudes, covariance, chi2 = _solve(basis, cells, sigma, sky + wings, views, faint)
        sky, wings = basis.sky(amplitudes), basis.wings(amplitudes)
        level, change = amplitudes[0], amplitudes[2]
        shift += float(np.clip(change, -_LARGEST_SHIFT, _LARGEST_SHIFT))
    model, model_err = _expand(basis, amplitudes, covariance, templates, shift, image.shape)
    errors = np.sqrt(np.diag(covariance))
    return SkyFit(
        sky=model,
        err=model_err,
        used=expand_cells(clear, image.shape) & usable,
        level_left=float(amplitudes[0]),
        level_right=float(amplitudes[1]),
        level_left_err=float(errors[0]),
        level_right_err=float(errors[1]),
        shift=shift,
        chi2=chi2,
    )


def _guess(cells, known, templates):
    """Guess the levels from the darkest cells of each side of the step."""
    left, right = map(bin_smooth, templates.shifted(0.0))
    ratio = np.where(known, cells / (left + right), np.nan)
    sky, sides = np.zeros_like(cells), []
    for side in (left >= right, left < right):
        if np.count_nonzero(known & side) >= _FEWEST:
            sky[side] = np.nanpercentile(ratio[side], _DARK)
            sides.append(side)
    if not sides or sky[sides[0]].max() <= 0:
        raise NoSkyError("too few pixels show a sky")
    level = float(sky[sides[0]].max())
    sky[sky <= 0] = level
    return 0.0, level, sky * (left + right), sides


def _look_for_light(cells, noise, known, sky, wings, distance, n_sigma):
    """Find the cells that show the sky alone, and the bright light that has wings."""
    sigma = np.sqrt(noise**2 + (_WING_ERROR * wings) ** 2 / 9)
    residual = np.where(known, cells - sky - wings, np.nan)
    near = distance < _CORE_REACH
    light = detect_light(residual, sigma, n_sigma, _FLOOR * sky, 1) | near
    clear = known & ~light & (distance > _REACH)
    excess = np.where(known, cells - sky, 0)
    core = ndimage.binary_opening(light & (excess > _CORE * sky), np.ones((2, 2)))
    core |= near & (excess > np.maximum(3 * noise, _CORE / 4 * sky))
    return clear, np.where(core, excess, 0)


@dataclass(frozen=True)
class _Basis:
    """
    What an exposure is made of.

    Attributes
    ----------
    images : ndarray of float32, shape (n, my, mx)
        In cells: the sky left and right of the step, its change by a shift of one pixel, its tilts,
        deviations of templates, wings.
    prior : ndarray of float, shape (n,)
        1-sigma of the amplitudes about 0, infinite if nothing is known.
    n_sky : int
        Number of images of the sky.
    """

    images: np.ndarray
    prior: np.ndarray
    n_sky: int

    def sky(self, amplitudes):
        """Make the sky; its shift is left to the next round."""
        amplitudes = amplitudes[: self.n_sky].copy()
        amplitudes[2] = 0
        return np.tensordot(amplitudes, self.images[: self.n_sky], 1)

    def wings(self, amplitudes):
        """Make the wings."""
        return np.tensordot(amplitudes[self.n_sky :], self.images[self.n_sky :], 1)


def _make_basis(templates, shift, level, core):
    """Make what an exposure is made of."""
    left, right = map(bin_smooth, templates.shifted(shift))
    before, after = (bin_smooth(sum(templates.shifted(shift + half))) for half in (-0.5, 0.5))
    slopes = (np.linspace(-1, 1, left.shape[0])[:, None], np.linspace(-1, 1, left.shape[1]))
    tilts = [level * slope * side for slope in slopes for side in (left, right)]
    deviations = [level * (left + right) * deviation for deviation in templates.deviations]
    sky = [left, right, level * (after - before), *tilts, *deviations]
    share = [1 / np.sqrt(len(deviations))] * len(deviations) if deviations else []
    wings = make_wings(core)
    prior = [np.inf, np.inf, _SHIFT, *[_TILT] * len(tilts), *share, *[np.inf] * len(wings)]
    return _Basis(np.array([*sky, *wings], dtype=np.float32), np.array(prior), len(sky))


def _solve(basis, cells, sigma, model, views, faint):
    """Fit the amplitudes, and learn what faint light there is on each side of the step."""
    clear = np.logical_or.reduce(views)
    design, inverse = basis.images[:, clear].T.astype(float), 1 / sigma[clear] ** 2
    at_side = [view[clear] for view in views]
    positive = np.isin(np.arange(len(basis.prior)), [0, 1]) | (
        np.arange(len(basis.prior)) >= basis.n_sky
    )
    values, model = cells[clear].astype(float), model[clear].astype(float)
    for _ in range(_STEPS):
        residual = values - model
        lit, light = np.empty((2, len(values)))
        for side, statistics in zip(at_side, faint, strict=True):
            lit[side], light[side] = statistics.expect(residual[side], sigma[clear][side])
        # A step of Newton's method: cells with light tell little of the sky.
        weight = np.maximum(1 - lit, _LEAST) * inverse
        score = ((1 - lit) * residual + lit * (residual - light)) * inverse
        hessian = design.T @ (weight[:, None] * design) + np.diag(basis.prior**-2.0)
        gradient = design.T @ (score + weight * model)
        amplitudes = _solve_bounded(hessian, gradient, positive)
        model = design @ amplitudes
    explained = residual - lit * light
    chi2 = float(np.sum(explained**2 * weight) / max(np.sum(weight / inverse), 1))
    return amplitudes, np.linalg.pinv(hessian) * max(chi2, 1), chi2


def _solve_bounded(hessian, gradient, positive):
    """Minimise a quadratic form with some of the variables positive."""
    scale = np.sqrt(np.diag(hessian))
    scale[scale == 0] = 1
    hessian = hessian / np.outer(scale, scale) + 1e-10 * np.eye(len(scale))
    root = linalg.cholesky(hessian)
    target = linalg.solve_triangular(root, gradient / scale, trans="T")
    bounds = (np.where(positive, 0, -np.inf), np.inf)
    return optimize.lsq_linear(root, target, bounds, method="bvls").x / scale


def _expand(basis, amplitudes, covariance, templates, shift, shape):
    """Make the sky of all pixels, and its uncertainty."""
    left, right = templates.shifted(shift)
    plain = amplitudes[0] * left + amplitudes[1] * right
    cells = np.tensordot(amplitudes[:2], basis.images[:2], 1)
    correction = np.divide(basis.sky(amplitudes), cells, out=np.ones_like(cells), where=cells > 0)
    images = basis.images[: basis.n_sky]
    part = covariance[: basis.n_sky, : basis.n_sky]
    variance = np.einsum("iyx,ij,jyx->yx", images, part, images, optimize=True)
    known = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    err = np.hypot(expand_smoothly(known, shape), amplitudes[0] * templates.noise)
    sky = plain * expand_smoothly(correction.astype(np.float32), shape)
    return sky.astype(np.float32), err.astype(np.float32)
