"""Smooth deviations of a sky, given by their values on a coarse grid of nodes for each side."""

from dataclasses import dataclass

import numpy as np

__all__ = ["NodeGrid", "block_centres", "make_grid"]

# Rows and columns between nodes. The sky's colour changes it over some hundred columns, and its
# changes along columns are slower.
_SPACING = (256, 128)


@dataclass(frozen=True)
class NodeGrid:
    """
    Nodes of the deviations of a sky, left and right of the edge.

    Attributes
    ----------
    rows, columns : ndarray of float, shape (my,), (mx,)
        Pixels of the nodes.
    n_left : int
        Number of the node columns of the left side; beyond them its values do not change.
    first_right : int
        Index of the first node column of the right side; before it its values do not change.
    """

    rows: np.ndarray
    columns: np.ndarray
    n_left: int
    first_right: int

    @property
    def sides(self):
        """Slices of the values of the left and of the right side, in a vector of all values."""
        left = len(self.rows) * self.n_left
        return slice(0, left), slice(left, left + len(self.rows) * len(self._at_right))

    @property
    def size(self):
        """Number of values of both sides."""
        return self.sides[1].stop

    @property
    def _at_left(self):
        return self.columns[: self.n_left]

    @property
    def _at_right(self):
        return self.columns[self.first_right :]

    def basis(self, rows, columns, right):
        """
        Return the deviation of each pixel for a value of one at each node.

        Parameters
        ----------
        rows, columns : ndarray of float, shape (ny,), (nx,)
            Pixels.
        right : ndarray of float, shape (ny, nx)
            Fraction of the edge's height at them.

        Returns
        -------
        basis : ndarray of float, shape (ny * nx, size)
            The deviations.
        """
        along = _interpolation(rows, self.rows)
        parts = []
        for nodes, side in ((self._at_left, 1 - right), (self._at_right, right)):
            across = _interpolation(columns, nodes)
            part = np.einsum("yx,yr,xc->yxrc", side, along, across, optimize=True)
            parts.append(part.reshape(right.size, -1))
        return np.concatenate(parts, axis=1)

    def images(self, values, rows, columns, right):
        """Return the deviations, shape (n, ny, nx), for values at the nodes, shape (n, size)."""
        along, images = _interpolation(rows, self.rows), 0
        places = ((self._at_left, 1 - right), (self._at_right, right))
        for part, (nodes, side) in zip(self.sides, places, strict=True):
            at_nodes = values[:, part].reshape(len(values), len(self.rows), len(nodes))
            images = images + side * (along @ at_nodes @ _interpolation(columns, nodes).T)
        return images

    def prior(self, lengths):
        """
        Return the prior covariance of the values, with a variance of one.

        Parameters
        ----------
        lengths : tuple of float
            Correlation lengths along columns and along rows, pixels.

        Returns
        -------
        covariance : ndarray of float, shape (size, size)
            Squared exponentials of the distance; the sides are independent.
        """
        covariance = np.zeros((self.size, self.size))
        along = _correlation(self.rows, lengths[0])
        for part, nodes in zip(self.sides, (self._at_left, self._at_right), strict=True):
            covariance[part, part] = np.kron(along, _correlation(nodes, lengths[1]))
        return covariance

    def means(self, basis, weight=1.0):
        """Return the matrix, shape (2, size), whose product with values is the mean of each side.

        Parameters
        ----------
        basis : ndarray of float, shape (n, size)
            Deviations of pixels, see `basis`.
        weight : float or ndarray of float, shape (n,)
            Weights of the pixels.
        """
        total = np.sum(np.reshape(weight, (-1, 1)) * basis, axis=0)
        means = np.zeros((2, self.size))
        for mean, part in zip(means, self.sides, strict=True):
            if total[part].any():
                mean[part] = total[part] / total[part].sum()
        return means

    def centre(self, means):
        """Return the matrix that subtracts from values the mean of their side, see `means`."""
        matrix = np.eye(self.size)
        for mean, part in zip(means, self.sides, strict=True):
            matrix[part] -= mean
        return matrix


def make_grid(shape, right):
    """Return the nodes of a window of a shape, (ny, nx), with the edge of ``right``, (ny, nx)."""
    rows, columns = (
        np.linspace(0, length - 1, max(2, 1 + round((length - 1) / spacing)))
        for length, spacing in zip(shape, _SPACING, strict=True)
    )
    # The last column with a left side, and the first with a right side, of any row.
    at_left, at_right = (np.flatnonzero((side > 0.5).any(axis=0)) for side in (1 - right, right))
    n_left = 1 + np.searchsorted(columns, at_left[-1]) if at_left.size else 0
    first = np.searchsorted(columns, at_right[0], "right") - 1 if at_right.size else len(columns)
    return NodeGrid(rows, columns, int(n_left), int(first))


def block_centres(shape, block):
    """Return the rows and columns of the centres of blocks of pixels."""
    return tuple(
        (np.arange(-(-length // side)) + 0.5) * side - 0.5
        for length, side in zip(shape, block, strict=True)
    )


def _interpolation(places, nodes):
    """Return the matrix of linear interpolation between nodes; values beyond do not change."""
    unit = np.eye(len(nodes))
    matrix = [np.interp(places, nodes, row) for row in unit]
    return np.reshape(matrix, (len(nodes), len(places))).T


def _correlation(places, length):
    """Return a squared exponential of the distances between places."""
    return np.exp(-0.5 * ((places[:, None] - places) / length) ** 2)
