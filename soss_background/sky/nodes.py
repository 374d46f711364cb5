"""Smooth deviations of a sky, given by their values on a coarse grid of nodes for each side."""

from dataclasses import dataclass

import numpy as np

from soss_background.numerics.cells import CELL, bin_smooth

__all__ = ["NodeGrid", "block_centres", "make_grid"]

# Largest distance of nodes along columns and along rows: less than half of the correlation lengths
# of the prior. Half this distance doubles the time; with twice, interpolation distorts deviations.
_SPACING = (256, 128)

# Largest number of rows of cells that are sampled, which suffices since nodes are far apart.
_SAMPLE = 64


@dataclass(frozen=True)
class NodeGrid:
    """
    Nodes of the deviations of a sky, left and right of the edge.

    A deviation is a vector of ``size`` values, those of the left side first, row by row.

    Attributes
    ----------
    rows, columns : ndarray of float, shape (my,), (mx,)
        Pixels of the nodes.
    n_left : int
        Number of the node columns of the left side; its values are constant beyond them.
    first_right : int
        Index of the first node column of the right side; its values are constant before it.
    """

    rows: np.ndarray
    columns: np.ndarray
    n_left: int
    first_right: int

    @property
    def sides(self):
        """Slices of the values of the left and of the right side."""
        left = len(self.rows) * self.n_left
        return slice(0, left), slice(left, left + len(self.rows) * len(self._columns[1]))

    @property
    def size(self):
        """Number of values of both sides."""
        return self.sides[1].stop

    @property
    def _columns(self):
        """Node columns of the left and of the right side."""
        return self.columns[: self.n_left], self.columns[self.first_right :]

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
        along, parts = _interpolation(rows, self.rows), []
        for nodes, side in zip(self._columns, (1 - right, right), strict=True):
            across = _interpolation(columns, nodes)
            part = np.einsum("yx,yr,xc->yxrc", side, along, across, optimize=True)
            parts.append(part.reshape(right.size, -1))
        return np.concatenate(parts, axis=1)

    def sample_basis(self, right, first=(0, 0)):
        """Return the basis of some cells of a section of the sky, see `cell_images`."""
        rows, columns, cells = _place_cells(right, first)
        some = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(int))
        return self.basis(rows[some], columns, cells[some])

    def weights(self, right):
        """Return the matrix, shape (size, size), of the mean square of a deviation over pixels."""
        basis = self.sample_basis(right)
        return basis.T @ basis / len(basis)

    def cell_images(self, values, right, first=(0, 0)):
        """
        Return deviations in cells (`soss_background.numerics.cells.CELL`).

        Parameters
        ----------
        values : ndarray of float, shape (n, size)
            Values at the nodes.
        right : ndarray of float, shape (ny, nx)
            Fraction of the edge's height at pixels.
        first : tuple of int
            Row and column of the first of these pixels.

        Returns
        -------
        images : ndarray of float, shape (n, my, mx)
            The deviations.
        """
        rows, columns, cells = _place_cells(right, first)
        along, images = _interpolation(rows, self.rows), np.zeros((len(values), *cells.shape))
        sides = zip(self.sides, self._columns, (1 - cells, cells), strict=True)
        for part, nodes, side in sides:
            at_nodes = values[:, part].reshape(len(values), len(self.rows), len(nodes))
            images += side * (along @ at_nodes @ _interpolation(columns, nodes).T)
        return images

    def spread(self, values):
        """Return values at all nodes of both sides, shape (n, 2, my, mx), from shape (n, size)."""
        spread = np.zeros((len(values), 2, len(self.rows), len(self.columns)))
        for number, (part, nodes) in enumerate(zip(self.sides, self._columns, strict=True)):
            at_nodes = values[:, part].reshape(len(values), len(self.rows), len(nodes))
            spread[:, number] = at_nodes @ _interpolation(self.columns, nodes).T
        return spread

    def gather(self, spread):
        """Return the values at the nodes of each side, the inverse of `spread`."""
        left, right = spread[:, 0, :, : self.n_left], spread[:, 1, :, self.first_right :]
        return np.concatenate([side.reshape(len(spread), -1) for side in (left, right)], axis=1)

    def correlation(self, lengths):
        """
        Return the correlation of the values: squared exponentials of the nodes' distance.

        Parameters
        ----------
        lengths : tuple of float
            Correlation lengths along columns and along rows, pixels.

        Returns
        -------
        correlation : ndarray of float, shape (size, size)
            The correlation; the sides are independent.
        """
        correlation = np.zeros((self.size, self.size))
        along = _correlation(self.rows, lengths[0])
        for part, nodes in zip(self.sides, self._columns, strict=True):
            correlation[part, part] = np.kron(along, _correlation(nodes, lengths[1]))
        return correlation

    def means(self, basis):
        """Return a matrix, shape (2, size); its product with values is the mean of each side."""
        total, means = basis.sum(axis=0), np.zeros((2, self.size))
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


def make_grid(right, nodes=None):
    """
    Return the nodes of a sky.

    Parameters
    ----------
    right : ndarray of float, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    nodes : tuple of int, optional
        Number of rows and columns of nodes.

    Returns
    -------
    grid : NodeGrid
        The first and last nodes are at the first and last pixels.
    """
    if nodes is None:
        pairs = zip(right.shape, _SPACING, strict=True)
        nodes = [max(2, 1 + -(-(length - 1) // spacing)) for length, spacing in pairs]
    pairs = zip(right.shape, nodes, strict=True)
    rows, columns = (np.linspace(0, length - 1, number) for length, number in pairs)
    # The last column with a left side in any row, and the first with a right side.
    at_left, at_right = (np.flatnonzero((side > 0.5).any(axis=0)) for side in (1 - right, right))
    n_left = np.searchsorted(columns, at_left[-1]) + 1 if at_left.size else 0
    first = np.searchsorted(columns, at_right[0], "right") - 1 if at_right.size else len(columns)
    return NodeGrid(rows, columns, int(n_left), int(first))


def block_centres(shape, block):
    """Return the rows and columns of the centres of blocks of pixels."""
    pairs = zip(shape, block, strict=True)
    return tuple((np.arange(-(-length // side)) + 0.5) * side - 0.5 for length, side in pairs)


def _place_cells(right, first):
    """Return the centres of cells, and the fraction of the edge's height in them."""
    rows, columns = block_centres(right.shape, CELL)
    return first[0] + rows, first[1] + columns, bin_smooth(right)


def _interpolation(places, nodes):
    """Return the matrix of linear interpolation between nodes, constant beyond the last ones."""
    matrix = [np.interp(places, nodes, row) for row in np.eye(len(nodes))]
    return np.reshape(matrix, (len(nodes), len(places))).T


def _correlation(places, length):
    """Return a squared exponential of the distances between positions."""
    return np.exp(-0.5 * ((places[:, None] - places) / length) ** 2)
