"""Posterior of linear components of an exposure with 1/f stripes and faint light."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from soss_background.numerics.robust import MAD_TO_SIGMA

__all__ = ["Cells", "Posterior", "find_posterior"]

# Iterations between the amplitudes and the faint light.
_ITERATIONS = 5

# Cells get a low weight if they are more standard deviations than this below the model.
_DARK_OUTLIER = 6.0

# Smallest relative weight of a cell with light.
_LEAST = 0.02

# Scatter of the sky from column to column that no prior describes, as a fraction of the sky. Half
# and twice the value change simulated levels by less than a tenth of their errors.
_COLUMN_SCATTER = 0.003


class Cells(NamedTuple):
    """
    Cells of an exposure that show the sky, column by column.

    Attributes
    ----------
    clear : ndarray of bool, shape (my, mx)
        True for the cells.
    values, sigma : ndarray of float, shape (n,)
        Count rates and the scatter of single cells, DN/s.
    share : ndarray of float, shape (n,)
        Relative weight of each cell: below 1, since neighbours share errors of the model.
    starts : ndarray of int, shape (k,)
        First cell of each column that has cells.
    sides : list of ndarray of bool, shape (n,)
        Cells of each side of the edge.
    level : float
        Median of the sky, DN/s.
    """

    clear: np.ndarray
    values: np.ndarray
    sigma: np.ndarray
    share: np.ndarray
    starts: np.ndarray
    sides: list
    level: float

    @classmethod
    def gather(cls, clear, values, sigma, common, sides, level):
        """Gather cells; ``common`` is the scatter of the model that neighbours share, DN/s."""
        columns = np.nonzero(clear.T)[0]
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        sigma, common = _take(sigma, clear), _take(common, clear)
        share = sigma**2 / (sigma**2 + common**2)
        sides = [_take(side, clear) for side in sides]
        return cls(clear, _take(values, clear), sigma, share, starts, sides, level)

    def spread(self, columns):
        """Repeat a value of each column for all of its cells."""
        return np.repeat(columns, np.diff(self.starts, append=len(self.values)))


def _take(image, clear):
    """Return the cells of one or several images, column by column, as float."""
    return np.swapaxes(image, -1, -2)[..., clear.T].astype(
        image.dtype if image.dtype == bool else float
    )


class Posterior(NamedTuple):
    """
    The posterior of amplitudes.

    Attributes
    ----------
    amplitudes : ndarray of float, shape (n,)
        The amplitudes.
    covariance : ndarray of float, shape (n, n)
        Their covariance.
    stripes : ndarray of float, shape (k,)
        Stripes of the columns that have cells, DN/s.
    faint : list of `~soss_background.subtract.light.FaintLight`
        Statistics of the faint light on each side of the edge.
    chi2 : float
        Reduced chi-square of the cells, including faint light.
    """

    amplitudes: np.ndarray
    covariance: np.ndarray
    stripes: np.ndarray
    faint: list
    chi2: float


def find_posterior(components, cells, model, stripes, faint):
    """
    Find the amplitudes of components, the stripes, and the statistics of faint light.

    Stripes are normal deviates whose rms follows from the differences of neighbouring columns; the
    amplitudes are marginalised over them.

    Parameters
    ----------
    components : `~soss_background.subtract.components.Components`
        The components.
    cells : `Cells`
        The cells.
    model : ndarray of float, shape (my, mx)
        Current sky and wings, DN/s.
    stripes : ndarray of float, shape (k,)
        Current stripes.
    faint : list of `~soss_background.subtract.light.FaintLight`
        Current statistics of the faint light on each side of the edge; empty to ignore it.

    Returns
    -------
    posterior : `Posterior`
        The posterior.
    """
    design = _take(components.images, cells.clear).T
    fixed = _take(components.wings, cells.clear)
    model = _take(model, cells.clear)
    for _ in range(_ITERATIONS):
        residual = cells.values - model - cells.spread(stripes)
        lit, light, faint = _expect_light(residual, cells, faint)
        # One iteration of Newton's method. Cells with light get a low weight, as do cells below the
        # model, where the subtracted wings were too large.
        dark = np.minimum(residual / cells.sigma / _DARK_OUTLIER, 0)
        trust = 1 / (cells.sigma * (1 + dark**2)) ** 2
        weight = np.maximum(1 - lit, _LEAST) * trust
        target = (residual - lit * light) * trust / weight + model + cells.spread(stripes) - fixed
        weight *= cells.share
        variance = _stripe_variance(weight, target + fixed - model, cells.starts)
        variance += (_COLUMN_SCATTER * cells.level) ** 2
        factor, amplitudes = _solve(components, design, cells.starts, weight, target, variance)
        model = fixed + design @ amplitudes
        rest = np.add.reduceat(weight * (target + fixed - model), cells.starts)
        stripes = rest / (1 / variance + np.add.reduceat(weight, cells.starts))
    weight /= cells.share
    explained = residual - lit * light
    chi2 = float(np.sum(explained**2 * weight) / np.sum(weight * cells.sigma**2))
    covariance = factor(np.eye(len(amplitudes))) * max(chi2, 1)
    return Posterior(amplitudes, covariance, stripes, faint, chi2)


def _stripe_variance(weight, residual, starts):
    """Return the variance of stripes from differences of neighbours, which share sky and wings."""
    total = np.add.reduceat(weight, starts)
    stripes = np.add.reduceat(weight * residual, starts) / total
    if stripes.size < 2:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(np.diff(stripes)))) ** 2 / 2


def _expect_light(residual, cells, faint):
    """Return the probability of faint light in cells, its brightness, and new statistics."""
    lit, light, found = np.zeros_like(residual), np.zeros_like(residual), []
    for side, statistics in zip(cells.sides, faint, strict=False):
        if side.any():
            lit[side], light[side] = statistics.expect(residual[side], cells.sigma[side])
            statistics = statistics.update(lit[side], light[side])
        found.append(statistics)
    return lit, light, found


def _solve(components, design, starts, weight, target, variance):
    """Return the solver of the normal equations, and the amplitudes."""
    weighted = weight[:, np.newaxis] * design
    sums = np.add.reduceat(weighted, starts)
    shared = 1 / (1 / variance + np.add.reduceat(weight, starts))
    hessian = design.T @ weighted - sums.T @ (shared[:, np.newaxis] * sums) + components.precision
    known = shared * np.add.reduceat(weight * target, starts)
    gradient = weighted.T @ target - sums.T @ known + components.gradient
    scale = np.sqrt(np.diag(hessian))
    scale[scale == 0] = 1
    root = linalg.cho_factor(hessian / np.outer(scale, scale) + 1e-9 * np.eye(len(scale)))

    def solve(values):
        scaled = scale if values.ndim == 1 else scale[:, np.newaxis]
        return linalg.cho_solve(root, values / scaled) / scaled

    return solve, solve(gradient)
