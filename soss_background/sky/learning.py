"""Learn the mean, the variation and the edge of the sky from many skies."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from soss_background.numerics.cells import bin_smooth, expand_smoothly
from soss_background.sky.averaging import AverageSky, average_skies
from soss_background.sky.deviations import (
    LENGTHS,
    Modes,
    find_modes,
    fit_modes,
    stripe_noise,
)
from soss_background.sky.edge_model import trace_edge
from soss_background.sky.nodes import NodeGrid, make_grid
from soss_background.sky.scatter import correlation_length, measure_scatter
from soss_background.sky.variation import (
    PSEUDO_SKIES,
    Visits,
    find_smooth,
    group_visits,
    learn_variation,
)

__all__ = ["Comparison", "SkyStatistics", "compare_skies", "describe_skies", "learn_sky"]

# Prior relative rms of the ratio of the levels on both sides, and prior rms of the position of the
# edge, pixels. Simulations and the few observed skies differ by as much.
_RATIO_RMS, _SHIFT_RMS = 0.1, 4.0

# Smallest range of pupil wheel positions (degrees) and fewest skies from which the motion of the
# edge is measured.
_LEAST_RANGE, _FEWEST = 0.1, 3


class Comparison(NamedTuple):
    """
    Skies compared with their mean.

    Attributes
    ----------
    average : `~soss_background.sky.averaging.AverageSky`
        The mean.
    modes : `~soss_background.sky.deviations.Modes`
        Modes of smooth deviations.
    deviations : ndarray of float32, shape (n, my, mx)
        Fractional deviations of the skies from the mean, in cells.
    values : ndarray of float, shape (n, q)
        Amplitudes of the modes in each sky.
    visits : `~soss_background.sky.variation.Visits`
        The amplitudes by visit, with the covariances of their noise.
    """

    average: AverageSky
    modes: Modes
    deviations: np.ndarray
    values: np.ndarray
    visits: Visits


@dataclass(frozen=True)
class SkyStatistics:
    """
    Common properties of skies, and their variation.

    A sky is ``level * shape * (1 - right + ratio * right) * (1 + deviation)``, and a deviation the
    sum of components and a smooth scatter.

    Attributes
    ----------
    shape, err : ndarray of float32, shape (ny, nx)
        Mean sky with a median of one on each side of the edge, and its 1-sigma uncertainty as the
        shape of a new sky, without smooth deviations.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags that all skies have in common.
    grid : `~soss_background.sky.nodes.NodeGrid`
        Nodes of the deviations.
    components : ndarray of float, shape (k, size)
        Values at the nodes of orthogonal components with a mean square of one over the pixels.
    variances : ndarray of float, shape (k,)
        Their variances, fractions of the sky squared.
    smooth_rms : float
        Rms of the smooth scatter, before the mean of each side is subtracted, as a fraction of the
        sky.
    lengths : tuple of float
        Its correlation lengths along columns and along rows, pixels.
    number : float
        Effective number of visits in the mean.
    ratio, ratio_rms : float
        Mean ratio of the levels right and left of the edge, and its relative rms among skies.
    shift_rms : float
        Rms of the position of the edge, pixels.
    pwcpos, pwcpos_slope : float
        Mean pupil wheel position, degrees (NaN if unknown), and columns that the edge moves per
        degree.
    scatter, correlation : float
        Median scatter of a pixel that neither components nor smooth scatter explain, as a fraction
        of the sky, and its correlation length along rows, pixels.
    edge : ndarray of float, shape (3, m)
        Row, column of the edge in it, and width of the edge from 10 to 90 %, pixels of the arrays;
        m is 0 if there is no edge.
    levels : ndarray of float, shape (n, 2)
        Levels of the skies left and right of the edge.
    shifts, weights : ndarray of float, shape (n,)
        Positions of their edges relative to the mean, pixels, and their weights in the mean.
    """

    shape: np.ndarray
    err: np.ndarray
    right: np.ndarray
    dq: np.ndarray
    grid: NodeGrid
    components: np.ndarray
    variances: np.ndarray
    smooth_rms: float
    lengths: tuple
    number: float
    ratio: float
    ratio_rms: float
    shift_rms: float
    pwcpos: float
    pwcpos_slope: float
    scatter: float
    correlation: float
    edge: np.ndarray
    levels: np.ndarray
    shifts: np.ndarray
    weights: np.ndarray

    def scatter_covariance(self):
        """Return the covariance of the values at the nodes due to the smooth scatter."""
        centre = self.grid.centre(self.grid.means(self.grid.sample_basis(self.right)))
        return self.smooth_rms**2 * centre @ self.grid.correlation(self.lengths) @ centre.T

    def covariance(self):
        """Return the covariance of the values at the nodes for a new sky about the mean."""
        scaled = self.components * np.sqrt(self.variances)[:, None]
        return (1 + 1 / self.number) * (scaled.T @ scaled + self.scatter_covariance())


def learn_sky(skies, window):
    """
    Estimate mean, variation and edge of skies.

    Parameters
    ----------
    skies : sequence of `~soss_background.sky.averaging.Sky`
        One or more skies of the same pixels, read twice, one at a time.
    window : `~soss_background.detector.Window`
        Their pixels.

    Returns
    -------
    statistics : SkyStatistics
        The statistics; for few skies, variances lie between those of the skies and those of a
        prior.

    Raises
    ------
    ValueError
        If some of the skies have an edge and others have none.
    """
    return describe_skies(compare_skies(skies, window), window)


def compare_skies(skies, window):
    """Return the `Comparison` of skies with their mean, see `learn_sky`."""
    average = average_skies(skies, window.x0)
    modes = find_modes(average.right, make_grid(average.right))
    deviations = average.cells / bin_smooth(average.shape) - 1
    values, noises = _fit_all(average, modes, deviations, window)
    visits = group_visits(values, noises, average.weights, average.visits)
    return Comparison(average, modes, deviations, values, visits)


def describe_skies(comparison, window):
    """Return the `SkyStatistics` of compared skies of a window."""
    average, modes, deviations, values, visits = comparison
    variation = learn_variation(visits, modes.prior)
    # Rough modes are part of the scatter of pixels.
    smooth = (values * find_smooth(modes.prior)) @ modes.at_nodes
    residuals = (deviations - modes.grid.cell_images(smooth, average.right)).astype(np.float32)
    scatter = measure_scatter(residuals, average.noises, average.weights, variation.number)
    spread = expand_smoothly(scatter, window.shape) * np.sqrt(1 + 1 / variation.number)
    return SkyStatistics(
        shape=average.shape,
        err=np.hypot(average.err, spread * average.shape),
        right=average.right,
        dq=average.dq,
        grid=modes.grid,
        components=variation.components @ modes.at_nodes,
        variances=variation.variances,
        smooth_rms=variation.smooth_rms,
        lengths=LENGTHS,
        number=variation.number,
        scatter=float(np.median(scatter)),
        correlation=correlation_length(residuals),
        edge=_trace(average),
        levels=average.levels,
        weights=average.weights,
        **_describe_levels(average, variation.number),
        **_describe_edge(average, variation.number),
    )


def _fit_all(average, modes, deviations, window):
    """Return the amplitudes of the modes in each sky, and the covariances of their noise."""
    values, noises = [], []
    shape, right = bin_smooth(average.shape), bin_smooth(average.right)
    # A deviation is not smooth at the edge, whose width and tilt vary.
    plain = (right == 0) | (right == 1)
    for index, deviation in enumerate(deviations):
        share = average.share[index] * plain
        found, noise, gain = fit_modes(modes, deviation, average.white[index], share)
        if average.stripes[index]:
            left, level = average.levels[index]
            relative = average.stripes[index] / (shape * (left * (1 - right) + level * right))
            noise += stripe_noise(gain, relative, average.slopes[index], window.amplifiers())
        values.append(found)
        noises.append(noise)
    return np.array(values), np.array(noises)


def _describe_levels(average, number):
    """Return the mean ratio of the sides and its relative rms."""
    ratios = average.levels[:, 1] / average.levels[:, 0]
    ratio = float(average.weights @ ratios)
    rms = _shrunk_rms(ratios / ratio, average.weights, number - 1, _RATIO_RMS)
    return {"ratio": ratio, "ratio_rms": rms}


def _describe_edge(average, number):
    """Return displacements of the edges from their mean, and the slope with wheel position."""
    shifts = average.places - average.places.mean()
    places, slope, freedom = average.pwcpos, 0.0, number - 1
    known = np.isfinite(places).all() and np.isfinite(shifts).all()
    rest = shifts
    if known and len(places) >= _FEWEST and np.ptp(places) > _LEAST_RANGE:
        slope, constant = np.polyfit(places, shifts, 1, w=np.sqrt(average.weights))
        rest, freedom = shifts - slope * places - constant, max(number - 2, 0)
    return {
        "shifts": shifts,
        "pwcpos": float(average.weights @ places),
        "pwcpos_slope": float(slope),
        "shift_rms": _shrunk_rms(rest, average.weights, freedom, _SHIFT_RMS),
    }


def _shrunk_rms(values, weights, freedom, prior):
    """Return the rms of values about their mean, a weighted mean with that of a prior."""
    if freedom <= 0 or not np.isfinite(values).all():
        return prior
    square = weights @ (values - weights @ values) ** 2 * (freedom + 1) / freedom
    total = PSEUDO_SKIES * prior**2 + freedom * square
    return float(np.sqrt(total / (PSEUDO_SKIES + freedom)))


def _trace(average):
    """Return row, column and width of the edge of the mean, see `SkyStatistics`."""
    left, right = average.levels.mean(axis=0)
    sky = average.shape * (1 + (right / left - 1) * average.right)
    edge = trace_edge(sky, np.ones_like(sky)) if average.right.any() else None
    if edge is None:
        return np.zeros((3, 0))
    low, high = (edge.distance[np.argmax(edge.rise > part)] for part in (0.1, 0.9))
    return np.array([np.arange(len(sky)), edge.column, edge.width * (high - low)])
