"""Combine dithered exposures into one sky."""

import functools
from dataclasses import dataclass

import numpy as np
from bottleneck import move_median, nanmean, nanmedian
from stdatamodels.jwst.datamodels import dqflags

from soss_background.combine.levels import guess_levels, refine_levels, split_bands
from soss_background.combine.star_light import model_star_light
from soss_background.combine.vetting import vet_exposures
from soss_background.numerics.cells import CELL, cell_bands, covered_cells, expand_smoothly
from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.smoothing import fill_gaps
from soss_background.numerics.summaries import ExposureSummaries, unpack_pixels
from soss_background.numerics.threads import map_parallel

__all__ = ["CombinedSky", "NoSkyError", "NothingToCombineError", "combine_exposures"]

# Rows of all exposures together that are processed at a time, at least 4 of each.
_ROWS = 240

# Minimum scatter relative to the errors, for exposures without noise.
_LEAST_EXCESS = 0.1

# Rows of the running median for hot pixels, since the sky is smooth along columns.
_NEIGHBOURS = 9

# Number of values that suffice to measure a scatter.
_ENOUGH = 16384


class NothingToCombineError(ValueError):
    """Exception for a set of exposures of which none can be used."""


class NoSkyError(ValueError):
    """Exception for the exposure of number ``index``, which has no sky."""

    def __init__(self, index):
        super().__init__(index)
        self.index = index

    def __str__(self):
        """Return the message."""
        return f"exposure {self.index} has no sky, its median is not positive"


@dataclass
class CombinedSky:
    """
    Sky of a set of exposures, and the state of each exposure.

    Attributes
    ----------
    sky, err : ndarray of float32, shape (ny, nx)
        The sky and its 1-sigma uncertainty in DN/s; 0 on reference pixels.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags of the sky.
    images : ndarray of float32, shape (n, ny, nx)
        The exposures in DN/s at their common level, without stripes and faint stars. An exposure
        that was not used is unchanged, except that its reference pixels are 0.
    left_out : ndarray of uint8, shape (n, ny, nx)
        1 where a pixel of an exposure was not used, else 0.
    scale, offset, excess : ndarray of float, shape (n,)
        Level of each exposure relative to their mean; median of its stripes in DN/s; scatter about
        the sky relative to its errors. NaN if it was not used.
    stripe_rms, stripe_slope : float or None
        Median rms of the 1/f stripes of the exposures used in DN/s, and the index of the power law
        of their power spectrum; None if there is only one exposure.
    masked_fraction : ndarray of float, shape (n,)
        Fraction of the pixels of each exposure that were not used.
    deviation : ndarray of float, shape (n,)
        Median absolute deviation of each exposure from the sky of those used, in percent of it (the
        unit of METADATA); NaN without a comparison.
    reasons : list of str
        Why an exposure was not used; empty if it was.
    unmasked : int
        Number of exposures without a mask.
    """

    sky: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    images: np.ndarray
    left_out: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    stripe_rms: float | None
    stripe_slope: float | None
    excess: np.ndarray
    masked_fraction: np.ndarray
    deviation: np.ndarray
    reasons: list
    unmasked: int


def combine_exposures(
    exposures,
    stack,
    *,
    summaries=None,
    bands=None,
    bad=None,
    flat_error=0.0,
    n_sigma=5.0,
    hot_sigma=6.0,
    mad_threshold=0.05,
    excluded=(),
    gap_rows=8.0,
):
    """
    Average exposures at a common level, free of faint stars, stripes and outliers.

    Each exposure is modelled as ``scale * sky + stripes(amplifier, column) + stars``, where the
    scales have a mean of one, the sky includes the mean stripe of all exposures, and the stars move
    with the dither (`soss_background.combine.star_light`). Each exposure has a single weight, since
    weights that follow the noisy error of each pixel bias the sky low.

    Parameters
    ----------
    exposures : iterable of tuple
        For each exposure the image and its 1-sigma uncertainties in DN/s (ndarray of float32,
        shape (ny, nx)), its JWST data quality flags (uint32), and its mask (bool, True for masked
        pixels, or None). Masked pixels are not averaged, but help to model stars whose wings extend
        beyond the masks. The exposures are iterated twice.
    stack : `~soss_background.io.store.Stack`
        Storage of the exposures; in the end it holds ``images`` and ``left_out`` of the result.
    summaries : `~soss_background.numerics.summaries.ExposureSummaries`, optional
        Summaries of the exposures, if they exist already.
    bands : list of slice, optional
        Rows that each amplifier reads; by default there is one.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels that are masked in all exposures.
    flat_error : float or ndarray of float32, shape (ny, nx)
        Relative 1-sigma uncertainty of the flat field, which all exposures share.
    n_sigma : float
        Deviation from the sky, in units of its uncertainty, above which a sample is left out.
    hot_sigma : float
        Deviation from its neighbours in the column above which a pixel of the sky is hot.
    mad_threshold : float
        Fractional deviation from the others above which an exposure is left out, see
        `soss_background.combine.vetting.vet_exposures`.
    excluded : collection of int
        Exposures that are left out in any case.
    gap_rows : float
        Standard deviation along columns of the first Gaussian that fills gaps, pixels.

    Returns
    -------
    combined : CombinedSky
        The sky and the state of the exposures.

    Raises
    ------
    NoSkyError
        If the median of an exposure is not positive.
    NothingToCombineError
        If no exposure can be used.
    """
    summaries, covered, pixels, unmasked = _survey(exposures, summaries, bad)
    means, errors = summaries.cells()
    bands = bands or [slice(0, len(summaries.flags))]
    vetting = _vet(means, errors, covered, mad_threshold, excluded, cell_bands(bands))
    used = np.array([not reason for reason in vetting.reasons])
    # A slice avoids the copies of an index array.
    vetted = slice(None) if used.all() else np.flatnonzero(used)
    noise, flags = errors[vetted], summaries.flags
    light = _model_stars(means, noise, covered, vetted, cell_bands(bands))
    filled = _fill(stack, exposures, light, pixels, split_bands(bands)[0])
    strips = np.array([strip for strip, use in zip(filled, used, strict=True) if use])
    sigma = np.array([nanmedian(image) for image in noise]) * np.sqrt(np.prod(CELL))
    passes = _Passes(stack, vetted, sigma.astype(np.float32), bands)
    levels, sky, excess = passes.solve(strips, n_sigma)
    reference = flags & dqflags.pixel["REFERENCE_PIXEL"] > 0
    sky, variance, counts = passes.average(levels, sky, excess, n_sigma, reference)
    _leave_out(stack, np.flatnonzero(~used), reference)

    err = np.sqrt(variance + levels.common_stripe_variance + (flat_error * sky) ** 2)
    err[~np.isfinite(sky)] = np.max(excess * sigma)
    sky, dq = _complete(sky, err, flags, reference, hot_sigma, gap_rows)
    sky[reference] = err[reference] = 0
    unused = 1 - counts / sky.size
    scale, offset, scatter, unused = _expand(used, levels.scale, levels.offset, excess, unused)
    return CombinedSky(
        sky=sky,
        err=err,
        dq=dq,
        images=stack.whole("images"),
        left_out=stack.whole("left_out"),
        scale=scale,
        offset=offset,
        stripe_rms=levels.stripe_rms,
        stripe_slope=levels.stripe_slope,
        excess=scatter,
        masked_fraction=np.where(used, unused, 1),
        deviation=vetting.deviations,
        reasons=vetting.reasons,
        unmasked=unmasked,
    )


def _model_stars(means, noise, covered, vetted, bands):
    """Model the star light in the cells of the vetted exposures; it is 0 in the others."""
    light = np.zeros_like(means)
    light[vetted] = model_star_light(means[vetted], noise, covered[vetted], bands)
    return light


def _complete(sky, err, flags, reference, hot_sigma, gap_rows):
    """Fill the gaps of a sky; return it and its flags."""
    known = np.isfinite(sky)
    filled = fill_gaps(sky, known, needless=reference, sigma=(gap_rows, 1.0))
    dq = _common_flags(flags, known)
    return filled, dq | _flag_outlying_pixels(filled, err, known, hot_sigma)


def _vet(means, errors, covered, mad_threshold, excluded, bands):
    """Vet exposures; raise if one has no sky, or if none can be used."""
    for index, image in enumerate(means):
        if nanmedian(np.where(covered[index], np.nan, image)) <= 0:
            raise NoSkyError(index)
    vetting = vet_exposures(means, errors, covered, mad_threshold, excluded, bands)
    if all(vetting.reasons):
        reasons = "; ".join(dict.fromkeys(vetting.reasons))
        raise NothingToCombineError(f"no exposure can be used: {reasons}")
    return vetting


def _expand(used, *values):
    """Expand values of the used exposures to all exposures, with NaN for the others."""
    expanded = np.full((len(values), len(used)), np.nan)
    expanded[:, used] = values
    return expanded


def _survey(exposures, summaries, bad):
    """
    Find the masked cells, and the pixels that are usable and not masked.

    Return the summaries, created if there are none, the covered cells, the pixels as bits, and the
    number of exposures without a mask.
    """
    made = summaries is None
    summaries = ExposureSummaries() if made else summaries
    covered, used, unmasked = [], [], 0
    for index, (image, err, dq, masked) in enumerate(exposures):
        if made:
            summaries.add(image, err, dq)
        usable = summaries.usable(index)
        if masked is None:
            masked, unmasked = np.zeros_like(usable), unmasked + 1
        if bad is not None:
            masked = masked | bad
        covered.append(covered_cells(masked, usable))
        used.append(np.packbits(usable & ~masked))
    return summaries, np.array(covered), used, unmasked


def _fill(stack, exposures, light, used, blocks):
    """Store exposures without their stars in a stack; yield the medians of their strips."""
    for index, (image, err, *_) in enumerate(exposures):
        usable = unpack_pixels(used[index], image.shape)
        subtract_light = functools.partial(_subtract_light, image, usable, light[index])
        images, strips = zip(*map_parallel(subtract_light, blocks), strict=True)
        stack.put(index, np.concatenate(images), err, ~usable)
        yield np.array(strips)


def _subtract_light(image, usable, light, rows):
    """Subtract stars from rows; return the rows and the medians of their columns."""
    difference = image[rows] - expand_smoothly(light, image.shape, rows=rows)
    return difference, nanmedian(np.where(usable[rows], difference, np.nan), axis=0)


def _leave_out(stack, indices, reference):
    """Mark all pixels of exposures in a stack as not used."""
    for index in indices:
        stack.images[index] = np.where(reference, 0, stack.images[index])
        stack.left_out[index] = 1


class _Passes:
    """
    Iterate over the pixels of star-subtracted exposures of one sky, by blocks of rows.

    Parameters
    ----------
    stack : `~soss_background.io.store.Stack`
        The exposures.
    used : slice or ndarray of int
        Indices of the exposures used.
    sigma : ndarray of float32
        Typical uncertainty of a pixel of each exposure used, in DN/s.
    bands : list of slice
        Rows that each amplifier reads.
    """

    def __init__(self, stack, used, sigma, bands):
        self._stack, self._used, self._sigma, self._bands = stack, used, sigma, bands
        # Rows of a block, only a fraction of a strip if there are many exposures.
        self._rows = next(rows for rows in (16, 8, 4) if rows * len(sigma) <= _ROWS or rows == 4)

    def weight(self, excess):
        """Return the weights of exposures from their noise."""
        return 1 / (excess * self._sigma) ** 2

    def solve(self, strips, n_sigma):
        """Return the levels of exposures from their strips, a first sky, and its scatter."""
        blocks, numbers = split_bands(self._bands)
        guess = guess_levels(strips, numbers)
        sky, excess, *residuals = self.compare(guess, n_sigma)
        mean = np.array([nanmean(sky[rows], axis=0) for rows in blocks])
        weight = self.weight(excess)
        return refine_levels(guess, mean, *residuals, weight, numbers, blocks), sky, excess

    def compare(self, levels, n_sigma):
        """
        Compare exposures with their sky at guessed levels.

        Returns
        -------
        sky : ndarray of float32, shape (ny, nx)
            The mean of the exposures, NaN where no exposure is usable.
        excess : ndarray of float32, shape (n,)
            Scatter of each exposure about the sky, relative to its errors.
        residuals, count : ndarray of float32, shape (n, my, nx)
            See `soss_background.combine.levels.refine_levels`.
        """
        _, ny, nx = self._stack.shape
        strips, bands = split_bands(self._bands)
        sky, excess = np.empty((ny, nx), dtype=np.float32), []
        residuals, count = np.zeros((2, len(self._sigma), len(strips), nx), dtype=np.float32)

        def compare_strip(index, strip):
            for first in range(strip.start, strip.stop, self._rows):
                rows = slice(first, min(first + self._rows, strip.stop))
                found = self._compare_rows(rows, levels, bands[index], n_sigma)
                sky[rows], scatter, sums, numbers = found
                excess.append(scatter)
                residuals[:, index] += sums
                count[:, index] += numbers

        map_parallel(compare_strip, range(len(strips)), strips)
        excess = np.nan_to_num(nanmedian(np.array(excess), axis=0), nan=1)
        return sky, np.maximum(excess, _LEAST_EXCESS), residuals, count

    def _compare_rows(self, rows, levels, band, n_sigma):
        """Return the sky of rows, the scatter, and sum and number of residuals by column."""
        images, errors, usable = self._read(rows)
        matched = levels.match(images, band)
        np.copyto(matched, np.nan, where=~usable)
        guess = _typical(matched, usable)
        left = matched - guess
        # Errors may be too small, by a factor that is not known yet.
        limit = n_sigma * np.maximum(1, _scatter(left, errors))
        clean = np.abs(left) < limit[:, None, None] * errors
        weight = self.weight(1)
        mean, total = _weighted_mean(left, weight, clean)
        left = np.where(clean, left - mean, 0)
        sums, numbers = left.sum(axis=1), clean.sum(axis=1, dtype=np.float32)
        errors = np.where(clean, errors, 0)
        # An exposure contributes to the sky that it is compared with; a single one equals the sky.
        share = weight[:, None, None] / np.where(total > 0, total, np.inf)
        np.copyto(left, np.nan, where=~clean | (share > 0.999))
        scatter = _scatter(left, errors * np.sqrt(np.maximum(1 - share, 0)))
        return guess + mean, scatter, sums, numbers

    def average(self, levels, sky, excess, n_sigma, reference):
        """
        Average exposures, and store the averaged pixels in the stack.

        Returns
        -------
        sky, variance : ndarray of float32, shape (ny, nx)
            The mean of the exposures, NaN where no exposure is usable, and its variance without
            that of the stripes.
        counts : ndarray of int, shape (n,)
            Number of pixels of each exposure that are used.
        """

        def average_rows(rows, band):
            images, errors, usable = self._read(rows)
            matched = levels.match(images, band)
            left = matched - sky[rows]
            clean = usable & (np.abs(left) < (n_sigma * excess)[:, None, None] * errors)
            mean, total = _weighted_mean(left, weight, clean)
            errors = np.where(clean, errors, 0) * (weight * excess)[:, None, None]
            variance = np.sum(errors**2, axis=0) / np.where(total > 0, total, 1) ** 2
            matched[:, reference[rows]] = 0
            self._stack.images[self._used, rows] = matched
            self._stack.left_out[self._used, rows] = ~clean
            return sky[rows] + mean, variance, clean.sum(axis=(1, 2))

        weight = self.weight(excess)
        blocks = split_bands(self._bands, self._rows)
        means, variances, counts = zip(*map_parallel(average_rows, *blocks), strict=True)
        return np.concatenate(means), np.concatenate(variances), sum(counts)

    def _read(self, rows):
        """Read rows of the exposures, their errors, and True for usable pixels."""
        stack, key = self._stack, (self._used, rows)
        return stack.images[key], stack.errors[key], stack.left_out[key] == 0


def _typical(images, usable):
    """Return the median of exposures; their unusable pixels are NaN."""
    ordered, count = np.sort(images, axis=0), usable.sum(axis=0)
    low, high = (
        np.take_along_axis(ordered, middle[None], axis=0)[0]
        for middle in (np.maximum(count - 1, 0) // 2, count // 2)
    )
    # One of two samples may be an outlier, and most outliers are bright.
    return np.where(count == 2, low, (low + high) / 2)


def _scatter(deviations, errors):
    """Return the standard deviation of exposures relative to their errors, without NaN."""
    some = np.s_[:, :: 1 + deviations[0].size // _ENOUGH]
    relative = np.abs(deviations[some]) / errors[some]
    return MAD_TO_SIGMA * np.array([nanmedian(image) for image in relative], dtype=np.float32)


def _weighted_mean(images, weight, usable):
    """Average exposures; return the mean (NaN if no pixel is usable) and the sum of the weights."""
    np.copyto(images, 0, where=~usable)
    total = np.tensordot(weight, usable.astype(np.float32), axes=1)
    mean = np.tensordot(weight, images, axes=1)
    return np.divide(mean, total, out=np.full_like(total, np.nan), where=total > 0), total


def _common_flags(flags, measured):
    """Return the flags that all exposures share, with DO_NOT_USE where nothing was measured."""
    do_not_use = np.uint32(dqflags.pixel["DO_NOT_USE"])
    return np.where(measured, flags & ~do_not_use, flags | do_not_use)


def _flag_outlying_pixels(sky, err, measured, n_sigma):
    """Flag pixels that deviate from their column; they do not move, so they are not stars."""
    half = _NEIGHBOURS // 2
    padded = np.pad(sky, ((half, half), (0, 0)), mode="symmetric")
    neighbours = move_median(padded, _NEIGHBOURS, axis=0)[2 * half :]
    deviation = np.where(measured, sky - neighbours, 0)
    dq = np.zeros(sky.shape, dtype=np.uint32)
    dq[deviation > n_sigma * err] = dqflags.pixel["HOT"]
    dq[deviation < -n_sigma * err] = dqflags.pixel["OTHER_BAD_PIXEL"]
    return dq
