"""Combine dithered exposures into one sky."""

from dataclasses import dataclass, replace

import numpy as np
from bottleneck import nanmedian, nanmin
from scipy import ndimage
from stdatamodels.jwst.datamodels import dqflags

from soss_background.cells import bin_to_cells, covered_cells, expand_smoothly
from soss_background.combine.star_light import model_star_light
from soss_background.combine.vetting import vet_exposures
from soss_background.integrations import usable_pixels
from soss_background.smoothing import fill_gaps

__all__ = ["CombinedSky", "NothingToCombineError", "combine_exposures"]

# Rounds of medians for the first guess of the levels.
_MEDIAN_ROUNDS = 3

# Rounds of sky, levels and stripes at the most, and the change of the stripes, in units of the
# noise of a pixel, that ends them.
_MAX_ROUNDS = 10
_SETTLED = 0.005

# Scatter at the least, relative to the errors: exposures without noise agree too well.
_LEAST_EXCESS = 0.1

# Rows among which a hot pixel is looked for: the sky is smooth along columns, steps across them.
_NEIGHBOURS = 9


class NothingToCombineError(ValueError):
    """No exposure can be used."""


@dataclass
class CombinedSky:
    """
    The sky of a set of exposures, and what it was made of.

    Attributes
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty in DN/s; 0 on reference pixels.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags of the sky.
    images : ndarray of float32, shape (n, ny, nx)
        The exposures in DN/s at their common level, without stripes and faint star light.
    left_out : ndarray of bool, shape (n, ny, nx)
        True where a pixel of an exposure was not used.
    scale : ndarray of float, shape (n,)
        Level of each exposure relative to their mean.
    offset : ndarray of float, shape (n,)
        Median over the columns of the stripes that were subtracted from each exposure, in DN/s.
    reasons : list of str
        Why an exposure was not used; empty if it was. One that was not is all left out, its
        image is as it came (0 on reference pixels), and it has no scale and no offset (NaN).
    """

    sky: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    images: np.ndarray
    left_out: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    reasons: list


def combine_exposures(
    images, errors, flags, sources, *, n_sigma=5.0, hot_sigma=6.0, mad_threshold=5.0
):
    """
    Average exposures at a common level, free of faint star light, stripes and outliers.

    Each exposure is modelled as ``scale * sky + stripes(column) + stars``, where the scales have
    a mean of one, what all exposures share in a column belongs to the sky, and the stars move
    with the dither (`soss_background.combine.star_light`). The weights are one number an exposure,
    since weights that follow the noisy error of each pixel bias the sky low.

    Parameters
    ----------
    images, errors : ndarray of float32, shape (n, ny, nx)
        Exposures and their 1-sigma uncertainties in DN/s.
    flags : ndarray of uint32, shape (n, ny, nx)
        JWST data quality flags of the exposures.
    sources : ndarray of bool, shape (n, ny, nx)
        True for pixels that are masked. They are not averaged, but tell of the stars whose wings
        reach beyond the masks.
    n_sigma : float
        Deviation from the sky, in units of its uncertainty, above which a sample is left out.
    hot_sigma : float
        Deviation from its neighbours in the column above which a pixel of the sky is hot.
    mad_threshold : float
        Deviation from the sky of the others, in per cent, above which an exposure is left out,
        see `soss_background.combine.vetting.vet_exposures`.

    Returns
    -------
    combined : CombinedSky
        The sky and its parts.

    Raises
    ------
    NothingToCombineError
        If no exposure can be used.
    """
    measured = usable_pixels(images, errors, flags)
    cells = _bin_exposures(images, errors, measured, sources)
    reasons = vet_exposures(*cells, mad_threshold)
    used = np.array([not reason for reason in reasons])
    if not used.any():
        raise NothingToCombineError(f"no exposure can be used: {reasons[0]}")
    # A slice spares the copies that a choice makes.
    keep = slice(None) if used.all() else used
    light = model_star_light(*(part[keep] for part in cells))
    light = np.array([expand_smoothly(image, images.shape[1:]) for image in light])
    stack = (images[keep] - light, errors[keep], flags[keep])
    combined = _combine_vetted(*stack, (measured & ~sources)[keep], n_sigma, hot_sigma)
    if used.all():
        return replace(combined, reasons=reasons)
    return _include_unused(combined, images, used, reasons)


def _include_unused(combined, images, used, reasons):
    """Make room among the exposures for those that were not used."""
    images, left_out = images.copy(), np.ones(images.shape, dtype=bool)
    images[used], left_out[used] = combined.images, combined.left_out
    images[:, combined.dq & dqflags.pixel["REFERENCE_PIXEL"] > 0] = 0
    scale, offset = np.full((2, len(used)), np.nan)
    scale[used], offset[used] = combined.scale, combined.offset
    return replace(
        combined, images=images, left_out=left_out, scale=scale, offset=offset, reasons=reasons
    )


def _combine_vetted(images, errors, flags, usable, n_sigma, hot_sigma):
    """Combine exposures of one sky, without their star light."""
    sigma = np.array([np.median(e[use]) for e, use in zip(errors, usable, strict=True)])
    levels, sky = _first_levels(images, usable)
    clean, excess = usable, np.ones(len(images))
    for _ in range(_MAX_ROUNDS):
        previous = levels
        levels, clean = _solve_levels(images, errors, usable, sky, levels, n_sigma * excess)
        matched = levels.match(images)
        weight = (1 / (excess * sigma) ** 2).astype(np.float32)
        sky, total = _weighted_mean(matched, weight, clean)
        excess = _noise_excess(matched, errors, clean, sky, weight, total)
        if np.std(levels.stripes - previous.stripes) < _SETTLED * np.median(sigma):
            break

    known = total > 0
    samples = zip(weight, excess, errors, clean, strict=True)
    variance = sum(np.where(use, (w * e * err) ** 2, 0) for w, e, err, use in samples)
    variance = variance / np.where(known, total, 1) ** 2 + levels.common_stripe_variance
    err = np.where(known, np.sqrt(variance), np.max(excess * sigma)).astype(np.float32)

    dq = _common_flags(flags, known)
    reference = dq & dqflags.pixel["REFERENCE_PIXEL"] > 0
    sky = fill_gaps(sky, known)
    dq |= _flag_outlying_pixels(sky, err, known, hot_sigma)
    for array in (sky, err, *matched):
        array[reference] = 0
    return CombinedSky(sky, err, dq, matched, ~clean, levels.scale, levels.offset, [])


def _bin_exposures(images, errors, measured, sources):
    """Bin exposures to cells: their means and noise, and whether they are masked."""
    stack = zip(images, errors, measured, strict=True)
    means, noise = zip(*(bin_to_cells(*exposure) for exposure in stack), strict=True)
    covered = [covered_cells(*pair) for pair in zip(sources, measured, strict=True)]
    return np.array(means), np.array(noise), np.array(covered)


@dataclass
class _Levels:
    """Scale (n,) and stripes (n, nx) of exposures."""

    scale: np.ndarray
    stripes: np.ndarray

    @property
    def offset(self):
        """Median of each exposure's stripes."""
        return np.median(self.stripes, axis=1)

    @property
    def common_stripe_variance(self):
        """Variance of the mean stripe of all exposures, which stays in the sky."""
        n = len(self.stripes)
        return np.mean(np.var(self.stripes, axis=0, ddof=1)) / n if n > 1 else 0.0

    def match(self, images):
        """Bring exposures to the common level."""
        return (images - self.stripes[:, None]) / self.scale[:, None, None]


def _first_levels(images, usable):
    """Guess levels and stripes, and the sky, by medians."""
    images = np.where(usable, images, np.nan)
    levels = _Levels(np.ones(len(images), dtype=np.float32), np.zeros_like(images[:, 0]))
    for _ in range(_MEDIAN_ROUNDS):
        # The exposures that show a pixel differ from pixel to pixel, hence their levels come first.
        sky = nanmedian(levels.match(images), axis=0)
        levels.scale[:] = [nanmedian(image / sky) for image in images]
    levels.scale /= levels.scale.mean()
    matched = levels.match(images)
    stripes = np.nan_to_num(nanmedian(matched - sky, axis=1))
    levels.stripes = stripes * levels.scale[:, None]
    matched -= stripes[:, None]
    # Of two samples one may be an outlier, and outliers are mostly bright.
    two = np.isfinite(matched).sum(axis=0) == 2
    return levels, np.where(two, nanmin(matched, axis=0), nanmedian(matched, axis=0))


def _solve_levels(images, errors, usable, sky, levels, thresholds):
    """Measure levels and stripes against a sky, and find the samples that agree with it."""
    scale, stripes, clean = [], [], []
    known = np.isfinite(sky)
    stack = zip(images, errors, usable, levels.stripes, thresholds, strict=True)
    for image, err, use, stripe, threshold in stack:
        # What stripes and levels have in common belongs to the levels.
        ratio = np.median((image / sky)[use & known])
        residual = image - ratio * sky
        good = use & (np.abs(residual - stripe) < threshold * err)
        count = np.maximum(good.sum(axis=0), 1)
        scale.append(ratio)
        stripes.append(np.sum(residual, axis=0, where=good) / count)
        clean.append(good)
    scale = np.array(scale, dtype=np.float32)
    stripes = np.array(stripes, dtype=np.float32)
    return _Levels(scale / scale.mean(), stripes - stripes.mean(axis=0)), np.array(clean)


def _weighted_mean(images, weight, usable):
    """Average exposures; return the mean, NaN where there is none, and the sum of the weights."""
    samples = list(zip(images, weight, usable, strict=True))
    total = sum(w * use for _, w, use in samples)
    weighted = sum(np.where(use, w * image, 0) for image, w, use in samples)
    return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0), total


def _noise_excess(images, errors, usable, sky, weight, total):
    """Compare the scatter of each exposure about the sky with its errors."""
    excess = []
    for image, err, use, w in zip(images, errors, usable, weight, strict=True):
        # An exposure is part of the sky it is compared with; alone, it is the sky.
        shared = use & (total > 1.001 * w)
        expected = err[shared] * np.sqrt(1 - w / total[shared])
        deviation = np.abs(image[shared] - sky[shared]) / expected
        excess.append(1.4826 * np.median(deviation) if shared.any() else 1.0)
    return np.maximum(excess, _LEAST_EXCESS)


def _common_flags(flags, measured):
    """Keep the flags that all exposures share; DO_NOT_USE tells where nothing was measured."""
    dq = np.bitwise_and.reduce(flags, axis=0)
    do_not_use = dqflags.pixel["DO_NOT_USE"]
    return np.where(measured, dq & ~np.uint32(do_not_use), dq | np.uint32(do_not_use))


def _flag_outlying_pixels(sky, err, measured, n_sigma):
    """Flag pixels that stand out of their column: what stands still is not star light."""
    neighbours = ndimage.median_filter(sky, size=(_NEIGHBOURS, 1))
    deviation = np.where(measured, sky - neighbours, 0)
    dq = np.zeros(sky.shape, dtype=np.uint32)
    dq[deviation > n_sigma * err] = dqflags.pixel["HOT"]
    dq[deviation < -n_sigma * err] = dqflags.pixel["OTHER_BAD_PIXEL"]
    return dq
