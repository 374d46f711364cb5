"""Prior of the sky of one exposure: a mean with deviations, each with its variance."""

from dataclasses import dataclass

import numpy as np

from soss_background.numerics.cells import bin_smooth
from soss_background.sky.edge import shift_columns
from soss_background.sky.learning import learn_sky

__all__ = ["SkyPrior", "build_prior", "cut_prior"]

# Fraction of the variance that the deviations of a prior contain.
_VARIANCE = 0.999


@dataclass(frozen=True)
class SkyPrior:
    """
    Prior of the sky of an exposure.

    The sky is ``sky * (1 + sum(a[k] * deviations[k]))`` with amplitudes ``a`` of mean 0 and
    variance 1, times a level.

    Attributes
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Mean sky, with a median of one left of the edge and of the mean ratio right of it.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    noise : ndarray of float32, shape (ny, nx)
        1-sigma uncertainty of ``sky``, without that of the deviations.
    deviations : ndarray of float32, shape (k, my, mx)
        Fractional deviations in cells (`soss_background.numerics.cells.CELL`), each of 1 sigma, the
        largest first; each has a mean of zero on both sides of the edge.
    ratio_rms : float
        Relative 1-sigma uncertainty of the ratio of the levels right and left.
    shift_rms : float
        1-sigma uncertainty of the position of the edge, pixels.
    """

    sky: np.ndarray
    right: np.ndarray
    noise: np.ndarray
    deviations: np.ndarray
    ratio_rms: float
    shift_rms: float

    def shifted(self, shift):
        """Return the sky left and right of the edge, shifted by pixels towards larger columns."""
        sky, right = shift_columns(self.sky, shift), shift_columns(self.right, shift)
        return sky * (1 - right), sky * right

    def edge_slope(self, shift, step=0.5):
        """Return the change of the sky with the position of the edge, per pixel, in cells."""
        before, after = (
            bin_smooth(shift_columns(self.sky, shift + move)) for move in (-step, step)
        )
        return (after - before) / (2 * step)


def build_prior(skies, window, *, pwcpos=None):
    """
    Build the prior of a sky from one or more skies of a window.

    Parameters
    ----------
    skies : sequence of `~soss_background.sky.averaging.Sky`
        Skies of the same pixels, all in the same unit.
    window : `~soss_background.detector.Window`
        Their pixels.
    pwcpos : float, optional
        Pupil wheel position of the exposure, degrees; it determines where the edge is.

    Returns
    -------
    prior : SkyPrior
        The prior.

    Raises
    ------
    ValueError
        If some of the skies have an edge and others have none.
    """
    return cut_prior(learn_sky(skies, window), window, window, pwcpos=pwcpos)


def cut_prior(statistics, place, window, *, divisor=None, pwcpos=None):
    """
    Cut the prior of a window out of the statistics of skies.

    Parameters
    ----------
    statistics : `~soss_background.sky.learning.SkyStatistics`
        Statistics of skies.
    place, window : `~soss_background.detector.Window`
        Pixels of the skies, and of the prior, which are a subset.
    divisor : ndarray of float, shape (ny, nx), optional
        Divide the skies by it, for example by the flat.
    pwcpos : float, optional
        Pupil wheel position of the exposure, degrees; it determines where the edge is.

    Returns
    -------
    prior : SkyPrior
        The prior.
    """
    row, column = window.y0 - place.y0, window.x0 - place.x0
    inside = np.s_[row : row + window.ny, column : column + window.nx]
    planes = [getattr(statistics, name)[inside] for name in ("shape", "err", "right")]
    if pwcpos is not None and statistics.pwcpos_slope:
        shift = statistics.pwcpos_slope * (pwcpos - statistics.pwcpos)
        planes = [shift_columns(plane, shift) for plane in planes]
    shape, err, right = planes
    scale = 1 + (statistics.ratio - 1) * right
    if divisor is not None:
        scale = scale / divisor
    sky, noise = shape * scale, err * scale
    level = np.median(sky[right == 0]) if np.any(right == 0) else statistics.ratio
    deviations, offset = _find_deviations(statistics, (row, column), right)
    widened = np.sqrt(1 + 1 / statistics.number)
    return SkyPrior(
        sky=(sky / level).astype(np.float32),
        right=right,
        noise=(noise / level).astype(np.float32),
        deviations=deviations,
        ratio_rms=float(np.hypot(widened * statistics.ratio_rms, offset)),
        shift_rms=widened * statistics.shift_rms,
    )


def _find_deviations(statistics, first, right):
    """Return the deviations of a prior, and the relative rms of the ratio due to their means."""
    grid = statistics.grid
    basis = grid.sample_basis(right, first)
    means, covariance = grid.means(basis), statistics.covariance()
    centre = grid.centre(means)
    values = _principal_values(centre @ covariance @ centre.T, basis)
    images = grid.cell_images(values, right, first).astype(np.float32)
    contrast = means[1] - means[0] if means.any(axis=1).all() else np.zeros(grid.size)
    return images, np.sqrt(max(contrast @ covariance @ contrast, 0))


def _principal_values(covariance, basis):
    """Return the values at the nodes, shape (k, size), of the principal deviations of 1 sigma."""
    variances, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(variances, 0))
    found, rotation = np.linalg.eigh(scaled.T @ (basis.T @ basis) @ scaled)
    found, rotation = found[::-1], rotation[:, ::-1]
    number = 1 + np.searchsorted(np.cumsum(found), _VARIANCE * found.sum())
    return (scaled @ rotation[:, :number]).T
