"""Find exposures whose sky differs from that of the others."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian

from soss_background.numerics.cells import find_same_level, gather_blocks, subtract_common_sky

__all__ = ["MUCH_WORSE", "Vetting", "vet_exposures"]

# Fraction of an exposure that must be unmasked to measure its level.
_MIN_UNMASKED = 0.01

# Rows and columns of the blocks of cells that are compared: stray light is wider than stars.
_BLOCK = (8, 8)

# Deviation relative to that of the other exposures, since in a crowded field all deviate.
MUCH_WORSE = 3.0


class Vetting(NamedTuple):
    """
    Comparison of exposures with the sky of the others.

    Attributes
    ----------
    reasons : list of str
        Why an exposure is left out; empty if it is not.
    deviations : ndarray of float, shape (n,)
        Median absolute deviation of each exposure from the sky of those that are kept, in percent
        of it (the unit of METADATA), at its level and without stripes; NaN without a comparison.
    """

    reasons: list
    deviations: np.ndarray


def vet_exposures(cells, noise, sources, mad_threshold=0.05, excluded=(), bands=None):
    """
    Compare exposures with their common sky, and find those that deviate from it.

    The worst exposure is left out, and the others are compared again. Masked cells are compared
    too, since stray light and persistence extend beyond the mask of their brightest pixels.

    Parameters
    ----------
    cells, noise : ndarray of float32, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN if missing.
    sources : ndarray of bool, shape (n, my, mx)
        True for masked cells.
    mad_threshold : float
        Median absolute deviation from the common sky, as a fraction of it, above which an exposure
        is left out if it also deviates three times as much as a typical one.
    excluded : collection of int
        Exposures that are left out in any case.
    bands : list of slice, optional
        Rows of cells of each amplifier; by default there is one.

    Returns
    -------
    vetting : Vetting
        The reasons to leave out exposures, and the deviation of each.
    """
    reasons = ["left out by hand" if index in excluded else "" for index in range(len(cells))]
    unmasked = np.mean(np.isfinite(cells) & ~sources, axis=(1, 2))
    left = np.array([index for index, reason in enumerate(reasons) if not reason], dtype=int)
    for index in left[unmasked[left] < _MIN_UNMASKED]:
        reasons[index] = "hardly any unmasked pixel"
    left = left[unmasked[left] >= _MIN_UNMASKED]
    # With two exposures, the outlier is ambiguous.
    if len(left) > 2:
        alike = find_same_level(cells[left])
        for index in left[~alike]:
            reasons[index] = "level far from that of the others"
        left = left[alike]
    deviations = np.full(len(cells), np.nan)
    while len(left) > 1:
        deviations[left], sky = _compare(cells[left], noise[left], sources[left], bands)
        if len(left) == 2:
            break
        suspect = left[np.argmax(deviations[left])]
        others = left[left != suspect]
        # The suspect is compared with the sky of the others.
        typical, sky_of_others = _compare(cells[others], noise[others], sources[others], bands)
        deviation = _deviation_from(sky_of_others, cells[suspect], sources[suspect], bands)
        if deviation < max(100 * mad_threshold, MUCH_WORSE * np.median(typical)):
            break
        reasons[suspect] = f"deviates by {deviation:.1f} % from the others"
        left = others
    if len(left) > 1:
        for index in set(range(len(cells))) - set(left.tolist()):
            deviations[index] = _deviation_from(sky, cells[index], sources[index], bands)
    return Vetting(reasons, deviations)


def _compare(cells, noise, sources, bands):
    """Return the deviations of exposures from their sky in percent, and the sky."""
    residuals, sky, _ = subtract_common_sky(cells, noise, sources, bands)
    return np.array([_median_deviation(image / sky) for image in residuals]), sky


def _deviation_from(sky, cells, sources, bands):
    """Return the deviation of an exposure from a sky in percent, at its level, without stripes."""
    ratio = cells / sky
    off_source = np.where(sources, np.nan, ratio)
    level = nanmedian(off_source)
    for band in bands or [slice(None)]:
        ratio[band] -= np.nan_to_num(nanmedian(off_source[band], axis=0) - level)
    return _median_deviation(ratio / level - 1)


def _median_deviation(relative):
    """Return the median absolute value of blocks in percent."""
    return 100 * nanmedian(np.abs(nanmedian(gather_blocks(relative, _BLOCK), axis=-1)))
