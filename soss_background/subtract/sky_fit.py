"""Fit the sky of an exposure that contains stars."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from soss_background.numerics.cells import (
    CELL,
    bin_smooth,
    bin_to_cells,
    expand_cells,
    expand_smoothly,
)
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.edge import shift_columns
from soss_background.sky.sources import dark_scatter, detect_light
from soss_background.subtract.components import Components, find_components
from soss_background.subtract.light import FaintLight
from soss_background.subtract.pedestals import Pedestals
from soss_background.subtract.posterior import Cells, Posterior, find_posterior
from soss_background.subtract.wings import Wings

__all__ = ["NoSkyError", "SkyFit", "fit_sky"]

# Number of rounds, each of which updates mask, wings and sky, and number of rounds without faint
# light.
_ROUNDS, _PLAIN_ROUNDS = 10, 2

# Brightness limits as fractions of the sky: the limit above which light is masked in the first
# round, the factor of this limit from round to round, its final value, and the limit above which
# sources have wings.
_FIRST_FLOOR, _TIGHTEN, _FLOOR, _CORE = 0.3, 0.4, 0.004, 0.08

# Distances from the trace of a target within which cells belong to its core, and within which they
# are not used, pixels.
_CORE_REACH, _REACH = 18, 20

# Scatter of single cells about the model as a fraction of the sky and of the wings, and of the
# wings in the detection of light.
_SKY_SCATTER, _WING_SCATTER, _DETECTED_WINGS = 0.003, 0.03, 0.07

# Neighbouring cells share errors of the model, as fractions of sky, wings and smoothed excess. That
# of the sky is about 0.3 %; about 100 cells share it, so the weight of each cell is that of an
# error of 3 %. Tuned on 20 simulated exposures of SUBSTRIP256 with random families; half and twice
# these values change their levels by a third of the errors.
_SKY_COMMON, _WING_COMMON, _GLOW_COMMON = 0.03, 0.5, 0.5

# Uncertainty of the position of the edge in single cells, pixels: in the first round, and its
# smallest value.
_EDGE, _LEAST_EDGE = 5.0, 0.7

# Largest first guess of the shift, and largest change of the shift in a round, pixels.
_LARGEST_GUESS, _LARGEST_SHIFT = 10, 3.0

# Cells on each side of the expected edge in which it is searched.
_AROUND_EDGE = 8

# Percentile of the cells that is the first guess of a level.
_DARK = 15

# Fewest cells on a side of the edge for a fit, and fewest rows of cells that separate wings from
# the sky.
_FEWEST, _FEWEST_ROWS = 50, 3

# Standard deviations of the surroundings of a cell, cells.
_GLOW = (2.0, 6.0)

# Brightest wings of used cells, in units of the sky.
_BRIGHTEST_WINGS = 20.0

# Uncertainty of a level in units of the mean faint light, since smooth light looks like the sky,
# and factor of all errors, since errors of the model are neither normal nor independent. Tuned on
# 48 simulated exposures with random families; docs/subtract.txt lists the scatter of their levels.
_FAINT_ERROR, _ERROR_FACTOR = 4.0, 2.0


class NoSkyError(ValueError):
    """Exception for an exposure that shows too little of the sky for a fit."""


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
        Levels left and right of the edge and their 1-sigma uncertainties, DN/s: the median ratio of
        the sky to its prior mean, whose median left of the edge is one.
    shift : float
        Shift of the edge relative to the prior, pixels towards larger columns.
    chi2 : float
        Reduced chi-square of the cells used, including faint light; below one if the prior is
        better than assumed.
    misfit : float
        Rms of the deviations of the sky in units of those that the prior expects.
    pedestals : ndarray of float, shape (k,)
        Pedestals of blocks of columns, DN/s, which are no part of the sky; none if there is one
        block.
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
    misfit: float
    pedestals: np.ndarray


def fit_sky(
    image,
    err,
    usable,
    prior,
    distance,
    n_sigma=4.0,
    *,
    blocks=(slice(None),),
    pedestal_rms=0.0,
    sources=None,
):
    """
    Fit the sky of an exposure.

    The sky is the mean of its prior, with a level on each side of the edge, a shift of the edge,
    and smooth deviations, all with their prior variances. Detected stars are masked. Their wings
    are as wide as the detector and fitted with the sky
    (`~soss_background.subtract.wings.Wings`), as are the stripes of columns, and the pedestals of
    blocks of columns (`~soss_background.subtract.pedestals.Pedestals`). Statistics describe
    light below the detection limit (`~soss_background.subtract.light.FaintLight`).

    Parameters
    ----------
    image, err : ndarray of float, shape (ny, nx)
        The exposure and its 1-sigma uncertainties, DN/s.
    usable : ndarray of bool, shape (ny, nx)
        True for pixels that may be used.
    prior : `~soss_background.sky.sky_prior.SkyPrior`
        Prior model of the sky of these pixels.
    distance : ndarray of float, shape (ny, nx)
        Distance from the nearest trace of the target, pixels; infinite if there is none.
    n_sigma : float
        Significance above which light is masked.
    blocks : sequence of slice
        Columns that are read together and have a pedestal of their own.
    pedestal_rms : float
        Expected rms of the pedestals, DN/s; 0 if it is unknown.
    sources : ndarray of bool, shape (ny, nx), optional
        True for pixels of known sources, which are masked too.

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
    state, sides = _guess(cells, known, prior)
    pedestals = Pedestals.guess(blocks, image.shape[1], state.level, pedestal_rms)
    state = replace(state, pedestals=pedestals)
    glow = _smooth_excess(cells - state.sky, known)
    given = known & False if sources is None else bin_smooth(sources) > 0
    exposure = _Exposure(cells, noise, known, distance, glow, sides, n_sigma, given)
    for round_ in range(_ROUNDS):
        state = _improve(state, exposure, prior, round_)
    return _describe(state, prior, usable)


@dataclass(frozen=True)
class _Exposure:
    """An exposure in cells, shape (my, mx): count rates, noise, distances, excess, sources."""

    cells: np.ndarray
    noise: np.ndarray
    known: np.ndarray
    distance: np.ndarray
    glow: np.ndarray
    sides: list
    n_sigma: float
    sources: np.ndarray


@dataclass(frozen=True)
class _State:
    """Sky, wings (DN/s, in cells) and the quantities they are computed from, after a round."""

    shift: float
    level: float
    guess: np.ndarray
    sky: np.ndarray
    light: np.ndarray
    wings: Wings
    clear: np.ndarray
    stripes: np.ndarray
    pedestals: Pedestals | None = None
    components: Components | None = None
    posterior: Posterior | None = None

    @property
    def model(self):
        """Model of the cells without their stripes, DN/s."""
        return self.sky + self.light + self.pedestals.columns


def _improve(state, exposure, prior, round_):
    """Return the state after another round of mask, components and their posterior."""
    slope = prior.edge_slope(state.shift)
    error = state.level * np.abs(slope)
    found = _detect(state, exposure, error * max(_EDGE * 0.5**round_, _LEAST_EDGE), round_)
    dim = exposure.known & (exposure.distance > _REACH)
    clear = dim & ~found & (state.light < _BRIGHTEST_WINGS * state.sky)
    if np.count_nonzero(clear) < _FEWEST:
        raise NoSkyError("sources cover all pixels")
    core = _find_core(exposure, state.sky, found)
    components = find_components(
        prior, state.shift, state.level, slope, core, state.wings, state.pedestals
    )
    cells, stripes = _gather(state, exposure, clear, _LEAST_EDGE * error)
    # As long as the wings are unknown, they would be mistaken for faint light.
    faint = [FaintLight.guess(state.level) for _ in exposure.sides]
    faint = faint if round_ >= _PLAIN_ROUNDS else []
    posterior = find_posterior(components, cells, state.model, stripes, faint)
    amplitudes = posterior.amplitudes
    if amplitudes[0] <= 0:
        raise NoSkyError("the level of its sky is not above zero")
    wings = state.wings.changed(components.profile_change(amplitudes))
    light = wings.image(core) + components.factors(amplitudes)
    blocks = components.pedestals
    pedestals = state.pedestals.changed(amplitudes[blocks], posterior.covariance[blocks, blocks])
    columns = np.zeros(clear.shape[1])
    columns[clear.any(axis=0)] = posterior.stripes
    return replace(
        state,
        shift=state.shift + float(np.clip(amplitudes[2], -_LARGEST_SHIFT, _LARGEST_SHIFT)),
        level=float(amplitudes[0]),
        sky=components.sky(amplitudes),
        light=np.maximum(light, 0),
        wings=wings,
        clear=clear,
        stripes=columns,
        pedestals=pedestals,
        components=components,
        posterior=posterior,
    )


def _detect(state, exposure, edge_error, round_):
    """Return True for cells with detected light."""
    floor = max(_FIRST_FLOOR * _TIGHTEN**round_, _FLOOR) * state.guess
    residual = exposure.cells - state.model - state.stripes
    noise = np.sqrt(exposure.noise**2 + (_DETECTED_WINGS * state.light) ** 2 + edge_error**2)
    residual = np.where(exposure.known, residual, np.nan)
    found = detect_light(residual, noise, exposure.n_sigma, floor, 1, calibrate=True)
    return found | exposure.sources


def _gather(state, exposure, clear, edge_error):
    """Return the cells of the fit, with their errors, and the stripes of their columns."""
    scatter = (_SKY_SCATTER * state.sky, _WING_SCATTER * state.light, edge_error)
    sigma = np.sqrt(exposure.noise**2 + sum(each**2 for each in scatter))
    residual = exposure.cells - state.model - state.stripes
    sigma = sigma * dark_scatter((residual / sigma)[clear])
    shared = (_SKY_COMMON * state.sky, _WING_COMMON * state.light, _GLOW_COMMON * exposure.glow)
    common = np.sqrt(sum(each**2 for each in shared))
    level = float(np.median(state.sky[clear]))
    cells = Cells.gather(clear, exposure.cells, sigma, common, exposure.sides, level)
    return cells, state.stripes[clear.any(axis=0)]


def _smooth_excess(excess, known):
    """Return the smoothed excess, since the noise of a cell must not affect its weight."""
    smooth = gaussian_filter(np.where(known, excess, 0).astype(np.float32), _GLOW)
    return np.maximum(smooth / np.maximum(gaussian_filter(known.astype(np.float32), _GLOW), 0.1), 0)


def _guess(cells, known, prior):
    """Guess the levels from the darkest cells of each side of the edge, and the shift."""
    left, right = map(bin_smooth, prior.shifted(0.0))
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
    shift = _guess_shift(cells, known, prior, levels)
    sky = levels * bin_smooth(shift_columns(prior.sky, shift))
    dark, none = np.zeros_like(sky), np.zeros(sky.shape, dtype=bool)
    return _State(shift, level, sky, sky, dark, Wings.guess(), none, np.zeros(sky.shape[1])), sides


def _guess_shift(cells, known, prior, levels):
    """Find the shift with the smallest median difference of cells and prior near the edge."""
    edge = np.flatnonzero((bin_smooth(prior.right) % 1 > 0).any(axis=0))
    if edge.size == 0:
        return 0.0
    near = slice(max(edge[0] - _AROUND_EDGE, 0), edge[-1] + _AROUND_EDGE)
    pixels = np.s_[:, near.start * CELL[1] : near.stop * CELL[1]]
    if not known[:, near].any():
        return 0.0
    part = replace(prior, sky=prior.sky[pixels], right=prior.right[pixels])
    outer = levels[:, [near.start, min(near.stop, levels.shape[1]) - 1]].T[..., None]
    misfits = {}
    for shift in np.arange(-_LARGEST_GUESS, _LARGEST_GUESS + 0.1, 0.5):
        model = sum(
            level * bin_smooth(side) for level, side in zip(outer, part.shifted(shift), strict=True)
        )
        misfits[shift] = np.median(np.abs(cells[:, near] - model)[known[:, near]])
    return float(min(misfits, key=misfits.get))


def _find_core(exposure, sky, found):
    """Return the bright light, which has wings, of detected sources and near the traces."""
    excess = exposure.cells - sky
    bright = exposure.known & (excess > np.maximum(3 * exposure.noise, _CORE * sky))
    core = ndimage.binary_opening(found & bright, np.ones((2, 2)))
    core |= bright & (exposure.distance < _CORE_REACH)
    return np.where(core, excess, 0)


def _describe(state, prior, usable):
    """Return the fit of a state."""
    shape = prior.sky.shape
    sky = _expand(state, prior)
    misfit = _find_misfit(state, prior)
    levels, errors, fractions = _find_levels(state, prior, sky, max(misfit, 1))
    err = np.hypot(fractions * sky, levels[0] * prior.noise)
    return SkyFit(
        sky=sky.astype(np.float32),
        err=err.astype(np.float32),
        wings=expand_smoothly(state.light.astype(np.float32), shape),
        used=expand_cells(state.clear, shape) & usable,
        level_left=levels[0],
        level_right=levels[1],
        level_left_err=errors[0],
        level_right_err=errors[1],
        shift=state.shift,
        chi2=state.posterior.chi2,
        misfit=misfit,
        pedestals=state.pedestals.values,
    )


def _expand(state, prior):
    """Return the sky of all pixels."""
    amplitudes, images = state.posterior.amplitudes[:2], state.components.images[:2]
    plain = sum(
        level * side for level, side in zip(amplitudes, prior.shifted(state.shift), strict=True)
    )
    cells = np.tensordot(amplitudes, images, 1)
    factor = np.divide(state.sky, cells, out=np.ones_like(cells), where=cells > 0)
    return plain * expand_smoothly(factor.astype(np.float32), prior.sky.shape)


def _find_misfit(state, prior):
    """Return the rms of the deviations, relative to the rms that their prior expects."""
    number = state.components.n_sky
    part = slice(number - len(prior.deviations), number)
    expected = 1 - np.diag(state.posterior.covariance)[part]
    squares = np.sum(state.posterior.amplitudes[part] ** 2)
    return float(np.sqrt(squares / max(np.sum(np.maximum(expected, 0)), 1)))


def _pedestal_covariance(state):
    """Return the part of the covariance of the sky's amplitudes that pedestals cause."""
    sky, pedestals = slice(state.components.n_sky), state.components.pedestals
    covariance = state.posterior.covariance
    shared = covariance[sky, pedestals]
    return shared @ np.linalg.solve(covariance[pedestals, pedestals], shared.T)


def _find_levels(state, prior, sky, factor):
    """
    Return levels and errors of both sides, DN/s, and the relative error of each pixel.

    Errors grow by ``factor`` for a sky outside its prior (Birge 1932, Phys. Rev. 40, 207).
    """
    number = state.components.n_sky
    images = state.components.images[:number] / state.sky
    by_pedestals = _pedestal_covariance(state)
    covariance = state.posterior.covariance[:number, :number] - by_pedestals
    covariance = (factor * _ERROR_FACTOR) ** 2 * covariance + by_pedestals
    variance = np.einsum("iyx,ij,jyx->yx", images, covariance, images, optimize=True)
    mean = shift_columns(prior.sky, state.shift)
    # The level of a side without cells follows from the prior of the ratio.
    right = bin_smooth(shift_columns(prior.right, state.shift)) > 0.5
    sides = [side for side in (~right, right) if side.any()]
    missed = max(_FAINT_ERROR * faint.share * faint.mean for faint in state.posterior.faint)
    variance += (missed / state.level) ** 2
    levels, errors = [], []
    for side in sides:
        level = float(np.median((sky / mean)[expand_cells(side, sky.shape)]))
        average = images[:, side].mean(axis=1)
        error = np.sqrt(average @ covariance @ average + (missed / state.level) ** 2)
        levels.append(level)
        errors.append(level * float(error))
    if len(levels) == 1:
        levels, errors = levels * 2, errors * 2
    relative = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    return levels, errors, expand_smoothly(relative, sky.shape)
