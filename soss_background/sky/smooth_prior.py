"""Prior of a sky without an edge: a smooth surface, or templates times a smooth surface."""

import numpy as np
from numpy.polynomial.legendre import legvander

from soss_background.numerics.cells import CELL
from soss_background.sky.sky_prior import SkyPrior

__all__ = ["build_smooth_prior"]

# Degrees of the surface along rows and columns, and its rms as a fraction of the sky: without a
# template, and the deviation from one. Terms of higher order fall with its square. In three
# simulated exposures with F277W the rms error is 0.10 % of the level and 0.65 % of the shape. Half
# the rms gives 0.59 % of the shape, twice the rms 0.66 %; half the degrees give 0.28 % and 1.1 %,
# twice the degrees 0.08 % and 0.73 %. With a template the errors are 0.17 % and 0.92 %, and half
# the rms of the deviation gives 0.21 % and 1.2 %.
_DEGREES, _RMS, _TEMPLATE_RMS = (4, 2), 0.3, 0.03

# Such a sky has no edge to shift: any small rms, pixels, serves.
_SHIFT_RMS = 1e-3


def build_smooth_prior(window, skies=()):
    """
    Build the prior of a sky without an edge.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        The pixels.
    skies : sequence of `~soss_background.sky.averaging.Sky`, optional
        Skies of the same pixels, in one unit; by default the mean sky is a constant.

    Returns
    -------
    prior : `~soss_background.sky.sky_prior.SkyPrior`
        The prior, whose deviations are Legendre polynomials in column and row.
    """
    mean, variance = np.ones(window.shape), np.zeros(window.shape)
    if skies:
        levels = [np.median(each.sky) for each in skies]
        pairs = list(zip(skies, levels, strict=True))
        mean = sum(each.sky / level for each, level in pairs) / len(skies)
        variance = sum((each.noise / level) ** 2 for each, level in pairs) / len(skies) ** 2
    return SkyPrior(
        sky=mean.astype(np.float32),
        right=np.zeros(window.shape, dtype=np.float32),
        noise=np.sqrt(variance).astype(np.float32),
        deviations=(_TEMPLATE_RMS if skies else _RMS) * _surfaces(window),
        ratio_rms=1.0,
        shift_rms=_SHIFT_RMS,
    )


def _surfaces(window):
    """Return products of Legendre polynomials in cells, float32, shape (n, my, mx)."""
    along_x, along_y = (
        legvander(np.minimum((np.arange(0, length, size) + size / 2) / length, 1) * 2 - 1, degree)
        for length, size, degree in zip(window.shape[::-1], CELL[::-1], _DEGREES, strict=True)
    )
    surfaces = [
        np.outer(along_y[:, j], along_x[:, i]) / (i + j) ** 2
        for j in range(along_y.shape[1])
        for i in range(along_x.shape[1])
        if i + j > 0
    ]
    return np.array(surfaces, dtype=np.float32)
