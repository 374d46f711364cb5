"""Comparison of skies after matching their levels left and right of the edge."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian
from tqdm import tqdm

from soss_background.numerics.cells import expand_cells, gather_blocks
from soss_background.sky.edge import right_of_edge

__all__ = [
    "BinnedSky",
    "at_sides",
    "bin_sky",
    "cross_residuals",
    "expand_levels",
    "match_levels",
]

# Rows and columns of a block: few columns, since skies differ most at the edge.
_BLOCK = (8, 2)


class BinnedSky(NamedTuple):
    """
    A sky in blocks of pixels.

    Attributes
    ----------
    sky : ndarray of float32, shape (my, mx)
        Median of each block in DN/s; NaN where no pixel is usable.
    right : ndarray of bool, shape (my, mx)
        True for blocks right of the edge.
    block : tuple of int
        Rows and columns of a block.
    """

    sky: np.ndarray
    right: np.ndarray
    block: tuple = _BLOCK


def bin_sky(sky, usable, first_column=0, block=_BLOCK):
    """Bin the usable pixels of a sky without gaps, DN/s, to a `BinnedSky`."""
    right = gather_blocks(right_of_edge(sky, first_column), block)
    return BinnedSky(
        nanmedian(gather_blocks(np.where(usable, sky, np.nan), block), axis=-1),
        np.nanmean(right, axis=-1) > 0.5,
        block,
    )


def match_levels(sky, template):
    """Return the median ratios of a sky to a template, left and right of the template's edge."""
    ratio = sky.sky / template.sky
    sides = ratio[~template.right], ratio[template.right]
    return tuple(float(nanmedian(side)) if side.size else 1.0 for side in sides)


def expand_levels(levels, template, shape):
    """Return the level of each pixel, shape (ny, nx), given those left and right of the edge."""
    return expand_cells(at_sides(levels, template), shape, template.block)


def at_sides(levels, template):
    """Return the level of each block, shape (my, mx), given those left and right of the edge."""
    left, right = np.float32(levels)
    return np.where(template.right, right, left)


def cross_residuals(skies):
    """
    Measure the residual of each sky after subtraction of each other sky.

    As in jwst's ``bkg_subtract``, a template gets a level on each side of its edge and is not
    shifted. That step, which must find the sky between stars, measures the levels in the darker
    half of the pixels, and right of the edge in columns up to 950.

    Parameters
    ----------
    skies : list of BinnedSky
        Skies of the same pixels.

    Returns
    -------
    residuals : ndarray of float, shape (n, n)
        Row i, column j: rms residual of sky i minus sky j, as a fraction of the median of sky i.
    """
    residuals = np.zeros((len(skies), len(skies)))
    for i, sky in enumerate(tqdm(skies, "Comparing skies", unit="sky", disable=None)):
        for j, template in enumerate(skies):
            if i != j:
                residuals[i, j] = _residual(sky, template)
    return residuals


def _residual(sky, template):
    """Subtract a template from a sky; return the rms as a fraction of the sky."""
    rest = sky.sky - template.sky * at_sides(match_levels(sky, template), template)
    return np.sqrt(np.nanmean(rest**2)) / nanmedian(sky.sky)
