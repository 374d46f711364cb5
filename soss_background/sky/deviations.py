"""Fit smooth deviations to skies, with the covariance of their noise."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import toeplitz

from soss_background.numerics.cells import CELL, gather_blocks
from soss_background.numerics.smoothing import twicing_response
from soss_background.sky.nodes import NodeGrid, block_centres

__all__ = [
    "LENGTHS",
    "SHARED",
    "Modes",
    "find_modes",
    "fit_modes",
    "stripe_correlation",
    "stripe_noise",
]

# Correlation lengths of the deviations along columns and along rows, pixels. Tuned on how well one
# of sixty simulated skies of random families predicts another in SUBSTRIP256. The log-likelihood is
# 219; half and twice the first length give 222 and 200, half and twice the second 213 and 210.
LENGTHS = (600.0, 300.0)

# Rows and columns of the blocks of pixels to which deviations are fitted.
_BLOCK = (16, 8)

# Error of a block that does not depend on its noise, as a fraction of the sky.
_FLOOR = 1e-3

# Fraction of the 1/f stripes that the amplifiers of FULL share: unknown, and different in each
# visit.
SHARED = 0.5

# Smallest eigenvalue of the nodes' weights, relative to the largest; it excludes nodes that hardly
# affect any pixel.
_LEAST_EIGENVALUE = 1e-6


@dataclass(frozen=True)
class Modes:
    """
    Orthonormal deviations: their mean square over the pixels is one, their mean on a side is zero.

    Attributes
    ----------
    grid : `~soss_background.sky.nodes.NodeGrid`
        The nodes.
    at_nodes : ndarray of float, shape (q, size)
        Values of the modes at the nodes.
    design : ndarray of float, shape (n, 2 + q)
        In blocks of pixels: left side, right side, and the modes.
    prior : ndarray of float, shape (q,)
        Prior variance of each mode for an rms of one, the largest first.
    """

    grid: NodeGrid
    at_nodes: np.ndarray
    design: np.ndarray
    prior: np.ndarray


def find_modes(right, grid):
    """Return the `Modes` of the nodes of a sky with an edge, ndarray of float, shape (ny, nx)."""
    blocks = np.nanmean(gather_blocks(right, _BLOCK), axis=-1)
    basis = grid.basis(*block_centres(right.shape, _BLOCK), blocks)
    centre = grid.centre(grid.means(basis))
    basis = basis @ centre
    weight = basis.T @ basis / len(basis)
    found, vectors = np.linalg.eigh(weight)
    kept = found > _LEAST_EIGENVALUE * found[-1]
    scaled = vectors[:, kept] / np.sqrt(found[kept])
    prior = scaled.T @ weight @ grid.correlation(LENGTHS) @ weight @ scaled
    variances, rotation = np.linalg.eigh(prior)
    at_nodes = centre @ scaled @ rotation[:, ::-1]
    sides = np.stack([1 - blocks, blocks], axis=-1).reshape(-1, 2)
    design = np.hstack([sides, basis @ at_nodes])
    return Modes(grid, at_nodes.T, design, np.maximum(variances[::-1], 0))


def fit_modes(modes, deviation, white, share):
    """
    Fit modes to the deviation of a sky.

    Parameters
    ----------
    modes : Modes
        The modes.
    deviation, white, share : ndarray of float, shape (my, mx)
        In cells: fractional deviation, noise of a pixel as a fraction of the sky, and fraction of
        usable pixels.

    Returns
    -------
    values : ndarray of float, shape (q,)
        Amplitudes of the modes.
    noise : ndarray of float, shape (q, q)
        Their covariance due to the noise of pixels.
    gain : ndarray of float, shape (q, n)
        Change of the amplitudes with the deviation of a block.
    """
    total = _sum_blocks(share)
    known = total > 0
    deviation, variance = (
        np.divide(_sum_blocks(share * each), total, out=np.zeros_like(total), where=known)
        for each in (deviation, white**2)
    )
    variance = np.divide(variance, total * np.prod(CELL), out=variance, where=known)
    weighted = modes.design.T * np.where(known, 1 / (variance + _FLOOR**2), 0)
    # The first two amplitudes are errors of the levels.
    gain = (np.linalg.pinv(weighted @ modes.design, hermitian=True) @ weighted)[2:]
    return gain @ deviation, (gain * variance) @ gain.T, gain


def stripe_noise(gain, relative, slope, amplifiers):
    """
    Return the covariance of amplitudes due to 1/f stripes.

    Parameters
    ----------
    gain : ndarray of float, shape (q, n)
        Change of the amplitudes with the deviation of a block, see `fit_modes`.
    relative : ndarray of float, shape (my, mx)
        Rms of the stripes as a fraction of the sky, in cells.
    slope : float
        Index of the power law of their power spectrum: 0 for white noise, -1 for 1/f noise.
    amplifiers : list of slice
        Rows of pixels that each amplifier reads.

    Returns
    -------
    noise : ndarray of float, shape (q, q)
        The covariance.
    """
    cells = _sum_blocks(np.ones_like(relative)).reshape(-1, relative.shape[1])
    response = gain.reshape(len(gain), *cells.shape) * (
        _sum_blocks(relative).reshape(cells.shape) / cells
    )
    first = np.unique([rows.start // _BLOCK[0] for rows in amplifiers])
    response = np.add.reduceat(response, first, axis=1)
    covariance = stripe_correlation(response.shape[2], slope)
    own = np.einsum("pax,xz,qaz->pq", response, covariance, response, optimize=True)
    response = response.sum(axis=1)
    return SHARED * response @ covariance @ response.T + (1 - SHARED) * own


def _sum_blocks(cells):
    """Return the sums of cells in each block, shape (n,)."""
    ratio = tuple(block // cell for block, cell in zip(_BLOCK, CELL, strict=True))
    return np.nansum(gather_blocks(cells, ratio), axis=-1, dtype=float).ravel()


def stripe_correlation(blocks, slope, sigma=0.0):
    """
    Return the covariance of stripes of unit variance, averaged over the columns of blocks.

    Parameters
    ----------
    blocks : int
        Number of blocks, of 8 columns each.
    slope : float
        Index of the power law of their power spectrum, see `stripe_noise`.
    sigma : float
        Standard deviation of the Gaussian that smooths the stripes along rows (twicing), pixels.

    Returns
    -------
    correlation : ndarray of float, shape (blocks, blocks)
        The covariance.
    """
    columns = max(blocks * _BLOCK[1], 2)
    frequency = np.fft.rfftfreq(columns)
    power = np.zeros_like(frequency)
    power[1:] = frequency[1:] ** slope
    power /= np.fft.irfft(power, columns)[0]
    averaged = power * (np.sinc(_BLOCK[1] * frequency) * twicing_response(frequency, sigma)) ** 2
    return toeplitz(np.fft.irfft(averaged, columns)[:: _BLOCK[1]][:blocks])
