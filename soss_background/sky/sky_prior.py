"""Prior of the sky of one exposure: a mean with deviations, each with its variance."""

from dataclasses import dataclass

import numpy as np

from soss_background.numerics.cells import CELL, gather_blocks
from soss_background.sky.nodes import block_centres, make_grid
from soss_background.sky.templates import align_templates, shift_columns

__all__ = ["SkyPrior", "build_prior"]

# Prior of the deviations of a sky from the mean: rms, and correlation lengths along columns and
# along rows, pixels.
_RMS, _LENGTHS = 0.015, (1500.0, 300.0)

# Number of skies that the prior is worth.
_PSEUDO_SKIES = 4

# Prior rms of the ratio of the levels right and left, and of the position of the edge, pixels.
_RATIO_RMS, _SHIFT_RMS = 0.1, 4.0

# Fraction of the variance that the deviations of a prior hold.
_VARIANCE = 0.999

# Rows and columns of the blocks of pixels to which deviations are fitted.
_BLOCK = (16, 8)


@dataclass(frozen=True)
class SkyPrior:
    """
    Prior of the sky of an exposure.

    The sky is ``sky * (1 + sum(a[k] * deviations[k]))`` with amplitudes ``a`` of mean 0 and
    variance 1, times a level.

    Attributes
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Mean sky, with a median of one left of the edge, and of the mean ratio right of it.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    noise : ndarray of float32, shape (ny, nx)
        1-sigma uncertainty of ``sky``.
    deviations : ndarray of float32, shape (k, my, mx)
        Fractional deviations in cells (`soss_background.numerics.cells.CELL`), each of 1 sigma.
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


def build_prior(skies, noises, window):
    """
    Build the prior of a sky from one or more skies of a window.

    Parameters
    ----------
    skies, noises : sequence of ndarray of float, shape (ny, nx)
        Skies without gaps and their 1-sigma uncertainties, in one unit.
    window : `~soss_background.detector.Window`
        Their pixels.

    Returns
    -------
    prior : SkyPrior
        The prior.
    """
    templates, n = align_templates(skies, noises, window.x0), len(skies)
    grid = make_grid(window.shape, templates.right)
    basis = grid.basis(
        *block_centres(window.shape, _BLOCK), np.nanmean(gather_blocks(templates.right, _BLOCK), -1)
    )
    centre = grid.centre(grid.means(basis))
    covariance = _RMS**2 * centre @ grid.prior(_LENGTHS) @ centre.T
    if n > 1:
        deviations = [_fit(each, basis) for each in templates.deviations]
        sample = centre @ np.cov(np.array(deviations), rowvar=False) @ centre.T
        covariance = (_PSEUDO_SKIES * covariance + (n - 1) * sample) / (_PSEUDO_SKIES + n - 1)
    values = _principal_values((1 + 1 / n) * covariance, basis)
    right = np.nanmean(gather_blocks(templates.right), -1)
    return SkyPrior(
        sky=templates.sky,
        right=templates.right,
        noise=templates.noise,
        deviations=grid.images(values, *block_centres(window.shape, CELL), right).astype("f4"),
        ratio_rms=_RATIO_RMS * np.sqrt(1 + 1 / n),
        shift_rms=_SHIFT_RMS,
    )


def _fit(deviation, basis):
    """Fit the values at nodes to a deviation in cells."""
    rows, columns = (there // here for there, here in zip(_BLOCK, CELL, strict=True))
    blocks = np.nanmean(gather_blocks(deviation, (rows, columns)), axis=-1)
    return np.linalg.lstsq(basis, blocks.ravel(), rcond=1e-4)[0]


def _principal_values(covariance, basis):
    """Return the values at nodes, shape (k, size), of the principal deviations of 1 sigma."""
    variances, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(variances, 0))
    found, rotation = np.linalg.eigh(scaled.T @ (basis.T @ basis) @ scaled)
    found, rotation = found[::-1], rotation[:, ::-1]
    number = 1 + np.searchsorted(np.cumsum(found), _VARIANCE * found.sum())
    return (scaled @ rotation[:, :number]).T
