"""Fit the sky of an exposure that contains stars."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, ndimage, optimize

from soss_background.numerics.cells import CELL, bin_to_cells, expand_cells, expand_smoothly
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.sources import dark_scatter, detect_light
from soss_background.sky.templates import bin_smooth
from soss_background.subtract.light import FaintLight, make_wings

__all__ = ["NoSkyError", "SkyFit", "fit_sky"]

# Rounds that update mask, wings and sky, rounds without faint light, and iterations of the fit in
# each round.
_ROUNDS, _PLAIN_ROUNDS, _ITERATIONS = 10, 2, 5

# Light as a fraction of the sky: the limit above which it is masked in the first round, the factor
# of this limit from round to round, its final value, and the limit above which light has wings.
_FIRST_FLOOR, _TIGHTEN, _FLOOR, _CORE = 0.3, 0.4, 0.004, 0.08

# Distances from a target's trace within which cells belong to its core, and are not used, pixels.
_CORE_REACH, _REACH = 18, 20

# Uncertainty of the template as a fraction of the sky, and of the wings as a fraction of them.
_TEMPLATE_ERROR, _WING_ERROR = 0.004, 0.2

# Prior 1-sigma of the tilt of each side of the edge relative to the template, of the shift, pixels,
# of the relative difference of the levels on both sides, and of the fraction of light in a wing.
_TILT, _SHIFT, _CONTRAST, _WING = 0.0015, 4.0, 0.15, 0.01

# Largest first guess of the shift, and largest change of it in a round, pixels.
_LARGEST_GUESS, _LARGEST_SHIFT = 10, 3.0

# Cells on each side of the edge that are searched for it.
_AROUND_EDGE = 8

# Percentile of the cells, the first guess of a level.
_DARK = 15

# Fewest cells of a side of the edge for a fit, and rows of cells: fewer rows do
# not constrain the tilt along columns.
_FEWEST, _FEWEST_ROWS = 50, 3

# Fewest cells of a column for a measurement of its stripe.
_FEWEST_IN_COLUMN = 6

# Standard deviations of the surroundings of a cell, cells, and their largest excess as a fraction
# of the sky.
_GLOW, _LARGEST_GLOW = (2.0, 6.0), 0.5

# Standard deviations below the sky beyond which a cell gets a low weight.
_DARK_OUTLIER = 6.0

# Relative error of a level by star light, from simulated time series.
_LEFT_BY_STARS = 0.004

# Smallest relative weight of a cell with light.
_LEAST = 0.02


class NoSkyError(ValueError):
    """Raised when an exposure shows too little of the sky for a fit."""


@dataclass(frozen=True)
class SkyFit:
    """
    The sky of an exposure.

    Attributes
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty, DN/s.
    wings : ndarray of float32, shape (ny, nx)
        Wings of bright sources, fitted together with the sky, DN/s.
    used : ndarray of bool, shape (ny, nx)
        True for pixels used in the fit.
    level_left, level_right, level_left_err, level_right_err : float
        Levels left and right of the edge and their 1-sigma uncertainties, DN/s: scale factors of a
        template whose median left of the edge is one.
    shift : float
        Shift of the edge relative to the templates, pixels towards larger columns.
    chi2 : float
        Reduced chi-square of the cells used, including faint light; below one if the templates are
        better than assumed.
    """

    sky: np.ndarray
    err: np.ndarray
    wings: np.ndarray
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

    The sky is the mean of the templates, with a level on each side of the edge, a small shift,
    small tilts, and the deviations of the templates from their mean, weighted by their scatter.
    Detected stars are masked. Their wings, as wide as the detector, are fitted with the sky.
    Statistics describe light below the detection limit
    (`~soss_background.subtract.light.FaintLight`).

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        The exposure and its 1-sigma uncertainties, DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels that may be used.
    templates : `~soss_background.sky.templates.Templates`
        Skies for these pixels.
    distance : ndarray of float, shape (ny, nx)
        Distance from the nearest trace of the target, pixels; infinite if there is none.
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
    wings, clear = np.zeros_like(sky), np.zeros(sky.shape, dtype=bool)
    guess, glow = sky, _smooth_excess(cells - sky, known)
    error = np.sqrt(noise**2 + (_TEMPLATE_ERROR * sky) ** 2 + (_WING_ERROR * glow) ** 2)
    dim = known & (distance > _REACH) & (glow < _LARGEST_GLOW * sky)
    for round_ in range(_ROUNDS):
        # The first sky is a guess without wings.
        floor = max(_FIRST_FLOOR * _TIGHTEN**round_, _FLOOR) * guess
        residual = np.where(known, cells - sky - wings, np.nan)
        residual -= _find_stripes(residual, clear)
        light = detect_light(
            residual, np.hypot(noise, _WING_ERROR / 3 * wings), n_sigma, floor, 1, calibrate=True
        )
        clear = dim & ~light
        core = _find_core(cells - sky, noise, sky, light & known, known & (distance < _CORE_REACH))
        if np.count_nonzero(clear) < _FEWEST:
            raise NoSkyError("there is light everywhere")
        basis = _make_basis(templates, shift, level, core)
        views = [clear & side for side in sides]
        # Before the wings are known, they would count as faint light.
        faint = [FaintLight.guess(level) for _ in sides] if round_ >= _PLAIN_ROUNDS else []
        sigma = error * dark_scatter(((cells - sky - wings) / error)[clear])
        amplitudes, covariance, chi2 = _solve(basis, cells, sigma, sky + wings, views, faint)
        sky, wings = basis.sky(amplitudes), basis.wings(amplitudes)
        level, change = float(amplitudes[0]), amplitudes[2]
        if level <= 0:
            raise NoSkyError("what it shows is no sky")
        shift += float(np.clip(change, -_LARGEST_SHIFT, _LARGEST_SHIFT))
    model, model_err = _expand(basis, amplitudes, covariance, templates, shift, image.shape)
    errors = np.hypot(np.sqrt(np.diag(covariance)[:2]), _LEFT_BY_STARS * amplitudes[:2])
    return SkyFit(
        sky=model,
        err=model_err,
        wings=expand_smoothly(wings.astype(np.float32), image.shape),
        used=expand_cells(clear, image.shape) & usable,
        level_left=float(amplitudes[0]),
        level_right=float(amplitudes[1]),
        level_left_err=float(errors[0]),
        level_right_err=float(errors[1]),
        shift=shift,
        chi2=chi2,
    )


def _smooth_excess(excess, known):
    """Return the smoothed excess, since a cell's own noise must not set its weight."""
    smooth = gaussian_filter(np.where(known, excess, 0).astype(np.float32), _GLOW)
    return np.maximum(smooth / np.maximum(gaussian_filter(known.astype(np.float32), _GLOW), 0.1), 0)


def _guess(cells, known, templates):
    """Guess the levels from the darkest cells of each side of the edge, and the shift."""
    left, right = map(bin_smooth, templates.shifted(0.0))
    ratio = np.where(known, cells / (left + right), np.nan)
    levels, sides = np.zeros_like(cells), []
    for side in (left >= right, left < right):
        if np.count_nonzero(known & side) >= _FEWEST:
            levels[side] = np.nanpercentile(ratio[side], _DARK)
            sides.append(side)
    few_rows = np.count_nonzero(known.any(axis=1)) < _FEWEST_ROWS
    if few_rows or not sides or levels[sides[0]].max() <= 0:
        raise NoSkyError("too few pixels show a sky")
    level = float(levels[sides[0]].max())
    levels[levels <= 0] = level
    shift = _guess_shift(cells, known, templates, levels)
    return shift, level, levels * sum(map(bin_smooth, templates.shifted(shift))), sides


def _guess_shift(cells, known, templates, levels):
    """Find the shift with the smallest median difference of cells and template near the edge."""
    edge = np.flatnonzero((bin_smooth(templates.right) % 1 > 0).any(axis=0))
    if edge.size == 0:
        return 0.0
    near = slice(max(edge[0] - _AROUND_EDGE, 0), edge[-1] + _AROUND_EDGE)
    pixels = np.s_[:, near.start * CELL[1] : near.stop * CELL[1]]
    part = replace(templates, sky=templates.sky[pixels], right=templates.right[pixels])
    outer = levels[:, [near.start, min(near.stop, levels.shape[1]) - 1]].T[..., None]
    misfits = {}
    for shift in np.arange(-_LARGEST_GUESS, _LARGEST_GUESS + 0.1, 0.5):
        model = sum(
            level * bin_smooth(side) for level, side in zip(outer, part.shifted(shift), strict=True)
        )
        misfit = np.abs(cells[:, near] - model)[known[:, near]]
        misfits[shift] = np.median(misfit) if misfit.size else 0.0
    return float(min(misfits, key=misfits.get))


def _find_stripes(residual, clear):
    """Measure the 1/f stripes, which would be detected as light, in columns with clear cells."""
    enough = np.count_nonzero(clear, axis=0) >= _FEWEST_IN_COLUMN
    stripes = np.zeros(residual.shape[1], dtype=residual.dtype)
    stripes[enough] = np.nanmedian(np.where(clear, residual, np.nan)[:, enough], axis=0)
    return stripes


def _find_core(excess, noise, sky, light, near):
    """Select the bright light, which has wings, among detected sources and near the traces."""
    core = ndimage.binary_opening(light & (excess > _CORE * sky), np.ones((2, 2)))
    core |= near & (excess > np.maximum(3 * noise, _CORE / 4 * sky))
    return np.where(core, excess, 0)


@dataclass(frozen=True)
class _Basis:
    """
    Components of an exposure, in cells.

    Attributes
    ----------
    images : ndarray of float32, shape (n, my, mx)
        The sky left and right of the edge, its change by a shift of one pixel, its tilts,
        deviations of templates, wings.
    precision : ndarray of float, shape (n, n)
        Inverse prior covariance of the amplitudes about 0.
    n_sky : int
        Number of images of the sky.
    """

    images: np.ndarray
    precision: np.ndarray
    n_sky: int

    def sky(self, amplitudes):
        """Return the sky; the next round applies its shift."""
        amplitudes = amplitudes[: self.n_sky].copy()
        amplitudes[2] = 0
        return np.tensordot(amplitudes, self.images[: self.n_sky], 1)

    def wings(self, amplitudes):
        """Return the wings."""
        return np.tensordot(amplitudes[self.n_sky :], self.images[self.n_sky :], 1)


def _make_basis(templates, shift, level, core):
    """Compute the components of an exposure."""
    left, right = map(bin_smooth, templates.shifted(shift))
    before, after = (bin_smooth(sum(templates.shifted(shift + half))) for half in (-0.5, 0.5))
    slopes = (np.linspace(-1, 1, left.shape[0])[:, None], np.linspace(-1, 1, left.shape[1]))
    tilts = [level * slope * side for slope in slopes for side in (left, right)]
    deviations = [level * (left + right) * deviation for deviation in templates.deviations]
    sky = [left, right, level * (after - before), *tilts, *deviations]
    share = [1 / np.sqrt(len(deviations))] * len(deviations) if deviations else []
    wings = make_wings(core)
    prior = [np.inf, np.inf, _SHIFT, *[_TILT] * len(tilts), *share, *[_WING] * len(wings)]
    precision = np.diag(np.array(prior) ** -2.0)
    # The two levels are similar.
    precision[:2, :2] += np.array([[1, -1], [-1, 1]]) / (_CONTRAST * level) ** 2
    return _Basis(np.array([*sky, *wings], dtype=np.float32), precision, len(sky))


def _solve(basis, cells, sigma, model, views, faint):
    """Fit the amplitudes, and the statistics of faint light on each side of the edge."""
    clear = np.logical_or.reduce(views)
    design, inverse = basis.images[:, clear].T.astype(float), 1 / sigma[clear] ** 2
    at_side = [view[clear] for view in views]
    order = np.arange(len(basis.images))
    positive = (order < 2) | (order >= basis.n_sky)
    values, model = cells[clear].astype(float), model[clear].astype(float)
    faint = list(faint)
    for _ in range(_ITERATIONS):
        residual = values - model
        lit, light = np.zeros((2, len(values)))
        for number, (side, statistics) in enumerate(zip(at_side, faint, strict=False)):
            if side.any():
                lit[side], light[side] = statistics.expect(residual[side], sigma[clear][side])
                faint[number] = statistics.update(lit[side], light[side])
        # One iteration of Newton's method. Cells with light get a low weight, as do cells below the
        # sky, where too large wings were subtracted.
        trust = inverse / (1 + np.minimum(residual / sigma[clear] / _DARK_OUTLIER, 0) ** 2) ** 2
        weight = np.maximum(1 - lit, _LEAST) * trust
        score = ((1 - lit) * residual + lit * (residual - light)) * trust
        hessian = design.T @ (weight[:, None] * design) + basis.precision
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
    # A variable of any sign is the difference of two positive ones.
    both = np.hstack([root, -root[:, ~positive]])
    amplitudes = optimize.nnls(both, target, maxiter=100 * len(scale))[0]
    amplitudes[: len(scale)][~positive] -= amplitudes[len(scale) :]
    return amplitudes[: len(scale)] / scale


def _expand(basis, amplitudes, covariance, templates, shift, shape):
    """Return the sky of all pixels, and its uncertainty."""
    left, right = templates.shifted(shift)
    plain = amplitudes[0] * left + amplitudes[1] * right
    cells = np.tensordot(amplitudes[:2], basis.images[:2], 1)
    correction = np.divide(basis.sky(amplitudes), cells, out=np.ones_like(cells), where=cells > 0)
    images = basis.images[: basis.n_sky]
    part = covariance[: basis.n_sky, : basis.n_sky]
    variance = np.einsum("iyx,ij,jyx->yx", images, part, images, optimize=True)
    known = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    sky = plain * expand_smoothly(correction.astype(np.float32), shape)
    err = np.sqrt(
        expand_smoothly(known, shape) ** 2
        + (amplitudes[0] * templates.noise) ** 2
        + (_LEFT_BY_STARS * sky) ** 2
    )
    return sky.astype(np.float32), err.astype(np.float32)
