"""Find the exposures that do not show the sky of the others."""

import numpy as np
from bottleneck import nanmedian

from soss_background.cells import find_same_level, gather_blocks, subtract_common_sky

__all__ = ["vet_exposures"]

# Fraction of an exposure that must be unmasked to tell its level.
_MIN_UNMASKED = 0.01

# Rows and columns of the blocks of cells that are compared: stray light is wide, stars are not.
_BLOCK = (8, 8)

# Deviation relative to that of the other exposures: in a crowded field all deviate.
_MUCH_WORSE = 3.0


def vet_exposures(cells, noise, sources, mad_threshold=0.5):
    """
    Compare exposures with the sky they have in common, and find those that do not show it.

    The worst is left out, and the others are compared again. Light that comes with one exposure,
    stray or persistent, counts whether it is masked or not: where it is found there is more.

    Parameters
    ----------
    cells, noise : ndarray of float32, shape (n, my, mx)
        Means of cells of the exposures and their 1-sigma uncertainties in DN/s; NaN where there
        is none.
    sources : ndarray of bool, shape (n, my, mx)
        True for cells that are masked.
    mad_threshold : float
        Median absolute deviation from the common sky, in per cent of it, that is too much if it
        is also three times that of a typical exposure.

    Returns
    -------
    reasons : list of str
        Why an exposure is left out; empty if it is not.
    """
    reasons = [""] * len(cells)
    unmasked = np.mean(np.isfinite(cells) & ~sources, axis=(1, 2))
    left = np.arange(len(cells))
    for index in left[unmasked < _MIN_UNMASKED]:
        reasons[index] = "hardly anything unmasked"
    left = left[unmasked >= _MIN_UNMASKED]
    # Of two that differ nobody knows which is right.
    if len(left) > 2:
        alike = find_same_level(cells[left])
        for index in left[~alike]:
            reasons[index] = "level far from that of the others"
        left = left[alike]
    while len(left) > 2:
        deviations = _deviations(cells[left], noise[left], sources[left])
        worst = np.argmax(deviations)
        others = np.median(np.delete(deviations, worst))
        if deviations[worst] < max(mad_threshold, _MUCH_WORSE * others):
            break
        reasons[left[worst]] = f"deviates by {deviations[worst]:.1f} % from the others"
        left = np.delete(left, worst)
    return reasons


def _deviations(cells, noise, sources):
    """Measure the median absolute deviations of exposures from their sky in per cent."""
    residuals, sky, _ = subtract_common_sky(cells, noise, sources)
    blocks = (nanmedian(gather_blocks(image, _BLOCK), axis=-1) for image in residuals / sky)
    return np.array([100 * nanmedian(np.abs(image)) for image in blocks])
