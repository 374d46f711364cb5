"""Prior model of the sky, built from aligned templates."""

from dataclasses import dataclass

import numpy as np

from soss_background.numerics.cells import gather_blocks
from soss_background.sky.edge import edge_shape, find_edge

__all__ = [
    "Templates",
    "align_templates",
    "bin_smooth",
    "shift_columns",
]


@dataclass(frozen=True)
class Templates:
    """
    Skies with a common edge position.

    Attributes
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Mean of the skies, with a median of one left of the edge.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    deviations : ndarray of float32, shape (n, my, mx)
        Fractional deviations of the skies from their mean in cells, after the levels on both sides
        of the edge were matched; empty for a single sky.
    noise : ndarray of float32, shape (ny, nx)
        1-sigma uncertainty of ``sky``.
    """

    sky: np.ndarray
    right: np.ndarray
    deviations: np.ndarray
    noise: np.ndarray

    def shifted(self, shift):
        """Return the sky left and right of the edge, shifted by pixels towards larger columns."""
        sky, right = shift_columns(self.sky, shift), shift_columns(self.right, shift)
        return sky * (1 - right), sky * right


def align_templates(skies, noises, first_column=0):
    """
    Shift skies to a common edge position and average them.

    The position of the edge and the levels left and right of it change from sky to sky, and are
    fitted to every exposure; they are removed before averaging.

    Parameters
    ----------
    skies, noises : sequence of ndarray of float, shape (ny, nx)
        Skies without gaps and their 1-sigma uncertainties, in one unit.
    first_column : int
        Full-frame column of their first column.

    Returns
    -------
    templates : Templates
        The mean, and the deviations of the skies from it.

    Raises
    ------
    ValueError
        If some of the skies have an edge and others have none.
    """
    places = [find_edge(sky, first_column) for sky in skies]
    if places.count(None) not in (0, len(places)):
        raise ValueError(f"sky number {places.index(None) + 1} has no edge, others have")
    if None in places:
        aligned, right = skies, np.zeros_like(skies[0])
    else:
        middle = np.mean(places)
        aligned = [
            shift_columns(sky, middle - place) for sky, place in zip(skies, places, strict=True)
        ]
        right = np.mean([edge_shape(sky, middle) for sky in aligned], axis=0)
    levels = np.array([_levels(sky, right) for sky in aligned])
    shapes = [
        sky / (left * (1 - right) + level * right)
        for sky, (left, level) in zip(aligned, levels, strict=True)
    ]
    shape, contrast = np.mean(shapes, axis=0), np.mean(levels[:, 1] / levels[:, 0])
    deviations = [bin_smooth(each / shape - 1) for each in shapes] if len(skies) > 1 else []
    squares = [(noise / left) ** 2 for noise, (left, _) in zip(noises, levels, strict=True)]
    return Templates(
        sky=(shape * (1 - right + contrast * right)).astype(np.float32),
        right=right.astype(np.float32),
        deviations=np.array(deviations, dtype=np.float32),
        noise=np.sqrt(np.sum(squares, axis=0) / len(skies) ** 2).astype(np.float32),
    )


def bin_smooth(image):
    """Return the mean of each cell, float32, shape (my, mx), without outlier rejection."""
    return np.nanmean(gather_blocks(image), axis=-1)


def shift_columns(image, shift):
    """Shift an image to larger columns by linear interpolation; repeat the outermost column."""
    place = np.clip(np.arange(image.shape[1]) - shift, 0, image.shape[1] - 1)
    left = np.minimum(place.astype(int), image.shape[1] - 2)
    share = (place - left).astype(image.dtype)
    return image[:, left] * (1 - share) + image[:, left + 1] * share


def _levels(sky, right):
    """Measure the level of a sky left and right of the edge; without an edge they are equal."""
    left = np.median(sky[right == 0])
    return left, np.median(sky[right == 1]) if np.any(right == 1) else left
