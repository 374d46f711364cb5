"""Wings of bright sources: a radial profile that falls smoothly from the traces outwards.

The optics scatter a small fraction of the flux over large distances. The profile is the exponential
of a function that is linear in the logarithm of the distance between nodes, so that wings are
positive, and its prior constrains slopes: a power law near r^-2.5, which may steepen anywhere
(truncated wings, exponential halos) but hardly flatten (a second sky).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import linalg
from scipy.signal import fftconvolve

from soss_background.numerics.cells import CELL

__all__ = ["Wings"]

# Distances of the nodes, pixels, and the profile's prior slopes between them, d ln / d ln r. Beyond
# 84 pixels a real trace (program 1512) falls as r^-2.5.
_NODES = np.array([16.0, 25.0, 40.0, 63.0, 100.0, 160.0, 250.0, 400.0])
_SLOPES = np.array([-2.4, -2.4, -2.4, -2.4, -2.5, -2.7, -3.0])

# 1 sigma of a slope that is steeper and of one that is shallower than its prior, of an offset that
# all slopes share, and of the change of slope at a node. Steep slopes and changes have the tails of
# a Student distribution. Half and twice these values change simulated levels by less than their
# errors.
_STEEPER, _SHALLOWER, _SHARED, _CHANGE = 0.8, 0.4, 0.3, 0.6

# 1 sigma of the logarithm of the profile at the second node.
_HEIGHT = 1.0

# Wings of a real trace: fraction of the flux across the trace that a pixel at its centre gets from
# the wings, and the radius of their core, pixels.
_FRACTION, _CORE_RADIUS = 0.03 / 18, 16.0

# Shallowest slope beyond the last node.
_OUTER = -2.0

# Largest change of the logarithm in an iteration.
_LARGEST_CHANGE = 1.0

# Number of cells of padding beyond the first and last column, and of outermost columns whose mean
# fills it.
_MARGIN, _END = 48, 3

# Largest distance along rows and columns of the image, cells.
_REACH = (96, 200)


@dataclass(frozen=True)
class Wings:
    """
    The radial profile of the wings of all sources.

    Attributes
    ----------
    logarithm : ndarray of float, shape (n,)
        Natural logarithm of the profile at the nodes: flux in a cell relative to that of a source
        in one cell.
    """

    logarithm: np.ndarray

    @classmethod
    def guess(cls):
        """Return the wings of a real trace."""
        height = _FRACTION / (_CORE_RADIUS * np.sqrt(np.pi)) * CELL[0] * CELL[1]
        return cls(np.log(height) - 1.3 * np.log1p((_NODES / _CORE_RADIUS) ** 2))

    def images(self, core):
        """
        Compute the flux that each node adds to the wings.

        Parameters
        ----------
        core : ndarray of float, shape (my, mx)
            Flux of the sources in cells, DN/s.

        Returns
        -------
        images : ndarray of float32, shape (n, my, mx)
            Flux, DN/s. Their sum is the wings; each image is the derivative of the wings with
            respect to the logarithm at its node.
        """
        hats, profile = self._profile(core.shape)
        return np.array([_spread(core, profile * hat) for hat in hats])

    def image(self, core):
        """Return the wings of sources, DN/s, shape (my, mx), see `images`."""
        return _spread(core, self._profile(core.shape)[1])

    def _profile(self, shape):
        """Return the weight of each node and the profile at each cell of a kernel."""
        hats, distance = _node_weights(shape)
        outside = np.maximum(distance - np.log(_NODES[-1]), 0)
        last = (self.logarithm[-1] - self.logarithm[-2]) / np.log(_NODES[-1] / _NODES[-2])
        return hats, np.exp(np.tensordot(self.logarithm, hats, 1) + min(last, _OUTER) * outside)

    def prior(self):
        """Return precision (n, n) and gradient (n,) of the prior of a change of the logarithm."""
        slope = np.diff(np.eye(len(_NODES)), axis=0) / np.diff(np.log(_NODES))[:, np.newaxis]
        change = np.diff(slope, axis=0)
        deviations = slope @ self.logarithm - _SLOPES
        changes = change @ self.logarithm
        height = np.eye(len(_NODES))[[1]]
        rows = np.vstack([height, slope, change])
        values = np.hstack([self.logarithm[1] - Wings.guess().logarithm[1], deviations, changes])
        steep = _student_precision(deviations, _STEEPER)
        slopes = np.where(deviations > 0, _SHALLOWER**-2, steep)
        precision = linalg.block_diag(
            _HEIGHT**-2,
            np.linalg.inv(np.diag(1 / slopes) + _SHARED**2),
            np.diag(_student_precision(changes, _CHANGE)),
        )
        return rows.T @ precision @ rows, -rows.T @ precision @ values

    def changed(self, change):
        """Return the wings with a changed logarithm."""
        change = np.clip(change, -_LARGEST_CHANGE, _LARGEST_CHANGE)
        return replace(self, logarithm=self.logarithm + change)


def _student_precision(value, sigma):
    """Return the precision of a value with two degrees of freedom, for iterated least squares."""
    return sigma**-2 / (1 + 0.5 * (value / sigma) ** 2)


def _spread(core, kernel):
    """Return the flux of sources convolved with a kernel, float32, shape (my, mx)."""
    padded = _extend(core.astype(np.float32))
    spread = fftconvolve(padded, kernel.astype(np.float32), mode="same")
    return spread[:, _MARGIN:-_MARGIN]


@lru_cache(maxsize=1)
def _node_weights(shape):
    """Return the weight of each node and the logarithm of the distance at each cell of a kernel."""
    lengths = (shape[0], shape[1] + _MARGIN)
    reach = [min(length - 1, limit) for length, limit in zip(lengths, _REACH, strict=True)]
    rows, columns = (
        size * np.arange(-cells, cells + 1) for size, cells in zip(CELL, reach, strict=True)
    )
    distance = np.log(np.maximum(np.hypot(rows[:, np.newaxis], columns), max(CELL)))
    nodes = np.log(_NODES)
    return np.array([np.interp(distance, nodes, hat) for hat in np.eye(len(nodes))]), distance


def _extend(core):
    """Pad an image with the means of its outermost columns on both sides."""
    ends = [core[:, part].mean(axis=1, keepdims=True) for part in (np.s_[:_END], np.s_[-_END:])]
    first, last = (np.repeat(end, _MARGIN, axis=1) for end in ends)
    return np.hstack([first, core, last])
