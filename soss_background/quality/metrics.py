"""Numbers that tell how good a skyflat is, found in nothing but the skyflat itself."""

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian
from stdatamodels.jwst.datamodels import dqflags

from soss_background.numerics.cells import gather_blocks
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.edge import find_edge, has_edge_columns, right_of_edge
from soss_background.steps.qc import Metric

__all__ = [
    "STEP_ROWS",
    "count_samples",
    "measure_exposures",
    "measure_levels",
    "measure_sky",
    "rows_about",
    "summarize_exposures",
]

_PIXEL = dqflags.pixel

# Full-frame rows at which the step is measured, and half of the rows that are averaged there.
STEP_ROWS = (256, 768, 1280, 1846)
_STEP_REACH = 32

# Fewer exposures than these at a pixel tell little of its noise, and nothing of star light.
_FEW = 3

# Percentage of the cells on each side whose limits tell of star light, which is bright and rare.
_TAIL = 1

# Rows and columns of the blocks that tell large scales, and part of a block that must be known.
_LARGE, _KNOWN = (64, 64), 0.5

# Rows that tell a median or a scatter: every fourth.
_SOME = np.s_[::4]

# Standard deviation of the Gaussian that denoises, away from the step, in pixels.
_DENOISING = (12.0, 12.0)


def summarize_exposures(table, stripe_rms):
    """
    Tell what the table of exposures tells of a skyflat.

    Parameters
    ----------
    table : ndarray, shape (n,)
        METADATA of the skyflat.
    stripe_rms : float or None
        1/f stripes of an exposure, rms in DN/s.

    Returns
    -------
    metrics : list of Metric
        Exposures used and rejected, masked fractions, scatter of the levels, deviations from the
        sky, stripes, and scatter about the sky relative to the errors of the exposures.
    """
    used = table["used"] == 1
    masked, scale = table["masked_fraction"][used], table["scale"][used]
    known, several = used.any(), used.sum() > 1
    told = several and np.mean(scale) > 0
    scatter = 100 * np.std(scale, ddof=1) / np.mean(scale) if told else None
    excess, worst, ratio = None, None, None
    if several and {"excess", "deviation"} <= set(table.dtype.names):
        excess, worst = np.median(table["excess"][used]), table["deviation"][used].max()
        ratio = worst / np.median(table["deviation"][used])
    return [
        Metric("exposures_used", used.sum(), "", "exposures that were combined"),
        Metric("exposures_rejected", (~used).sum(), "", "exposures that were left out"),
        Metric(
            "masked_median",
            np.median(masked) if known else None,
            "",
            "part of an exposure that is not used",
        ),
        Metric(
            "masked_worst",
            masked.max() if known else None,
            "",
            "part of the worst exposure that is not used",
        ),
        Metric("level_scatter", scatter, "%", "scatter of the levels of the exposures"),
        Metric("deviation_worst", worst, "%", "largest deviation of a used exposure from the sky"),
        Metric("deviation_ratio", ratio, "", "largest deviation from the sky over a typical one"),
        Metric("stripe_rms", stripe_rms, "DN/s", "1/f stripes of an exposure, rms"),
        Metric("excess", excess, "", "scatter of an exposure about the sky over its own ERR"),
    ]


def measure_sky(bkg, bkgdn, err, dq, window):
    """
    Measure a sky.

    Parameters
    ----------
    bkg, bkgdn, err : ndarray of float32, shape (ny, nx)
        The sky, the denoised sky (None if there is none), and the 1-sigma uncertainty of the
        first, DN/s.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags.
    window : `~soss_background.detector.Window`
        The pixels that these are.

    Returns
    -------
    metrics : list of Metric
        Filled and hot pixels, levels on both sides of the step and their ratio, place and width of
        the step at several rows, noise.
    """
    science = ~window.reference_pixels()
    metrics = [
        Metric("filled", _fraction(dq, "DO_NOT_USE", science), "", "part of BKG that is filled"),
        Metric("hot", _fraction(dq, "HOT", science), "", "part of the pixels found to be hot"),
    ]
    if bkgdn is not None:
        bad = dq & (_PIXEL["DO_NOT_USE"] | _PIXEL["HOT"]) > 0
        found = (science & ~bad & (err > 0))[_SOME]
        noise, err = (bkg - bkgdn)[_SOME][found], err[_SOME][found]
        metrics += [
            Metric("noise", _scatter(noise), "DN/s", "scatter of BKG about BKGDN"),
            Metric("noise_ratio", _scatter(noise / err), "", "scatter of BKG about BKGDN over ERR"),
        ]
    return metrics + measure_levels(bkg if bkgdn is None else bkgdn, window)


def measure_levels(sky, window):
    """
    Measure the levels of a sky, and its step.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
        A sky in DN/s.
    window : `~soss_background.detector.Window`
        The pixels that these are.

    Returns
    -------
    metrics : list of Metric
        Levels on both sides of the step and their ratio, place and width of the step at several
        rows.
    """
    metrics = _measure_sides(sky[_SOME], ~window.reference_pixels()[_SOME], window)
    for row in STEP_ROWS:
        rows = rows_about(row, window)
        if rows is not None:
            metrics += _measure_step(sky[rows], window, row)
    return metrics


def rows_about(row, window):
    """
    Find the rows that are averaged to measure the step.

    Parameters
    ----------
    row : int
        Full-frame row in their middle.
    window : `~soss_background.detector.Window`
        The pixels that there are.

    Returns
    -------
    rows : slice or None
        Rows of the window; None if it has less than half of them.
    """
    first, last = np.clip(row - window.y0 + np.array([-_STEP_REACH, _STEP_REACH]), 0, window.ny)
    return slice(first, last) if last - first >= _STEP_REACH else None


def _measure_sides(sky, science, window):
    """Measure the levels on both sides of the step."""
    right = right_of_edge(np.where(science, sky, np.median(sky[science])), window.x0)
    # What is not there has no level; what is there and is not found has one that is not known.
    unknown = np.nan if has_edge_columns(window.nx, window.x0) else None
    left = np.median(sky[science & ~right])
    beyond = np.median(sky[science & right]) if right.any() else unknown
    return [
        Metric("level_left", left, "DN/s", "median of the sky left of the step"),
        Metric("level_right", beyond, "DN/s", "median of the sky right of the step"),
        Metric("level_ratio", beyond and beyond / left, "", "level right over that left"),
    ]


def _measure_step(sky, window, row):
    """Measure place and width of the step at some rows."""
    if not has_edge_columns(window.nx, window.x0):
        return []
    places = [find_edge(sky, window.x0, part) for part in (0.1, 0.5, 0.9)]
    low, middle, high = (np.nan if place is None else place for place in places)
    column, at = middle + window.x0, f"at row {row} of FULL"
    return [
        Metric(f"step_column_{row}", column, "pixel", f"column of half of the step {at}"),
        Metric(f"step_width_{row}", high - low, "pixel", f"10 to 90 % of the step {at}"),
    ]


def _fraction(dq, flag, science):
    """Tell which part of the science pixels has a flag."""
    return np.mean(dq[science] & _PIXEL[flag] > 0)


def _scatter(values):
    """Measure the standard deviation of normal values with outliers."""
    return mad_std(values) if values.size else np.nan


def count_samples(masks):
    """
    Count the exposures that were used at each pixel.

    Parameters
    ----------
    masks : iterable of ndarray of uint8, shape (ny, nx)
        1 where a pixel of an exposure was left out.

    Returns
    -------
    coverage : ndarray of int, shape (ny, nx)
        Number of exposures.
    """
    return sum((mask == 0).astype(np.int16) for mask in masks)


def measure_exposures(images, masks, bkg, err, coverage, science):
    """
    Compare the exposures of a skyflat with their sky.

    Parameters
    ----------
    images : iterable of ndarray of float32, shape (ny, nx)
        The exposures that were combined, at their common level, DN/s.
    masks : iterable of ndarray of uint8, shape (ny, nx)
        1 where a pixel of an exposure was left out.
    bkg, err : ndarray of float32, shape (ny, nx)
        Their sky and its 1-sigma uncertainty, DN/s.
    coverage : ndarray of int, shape (ny, nx)
        Number of exposures at each pixel, see `count_samples`.
    science : ndarray of bool, shape (ny, nx)
        True for pixels that are not reference pixels.

    Returns
    -------
    metrics : list of Metric
        Pixels with few samples, reduced chi-square about the sky, star light that is left, and
        differences between two halves of the exposures.
    """
    level = np.median(bkg[science])
    sums = np.zeros((2, *bkg.shape), dtype=np.float32)
    counts = np.zeros((2, *bkg.shape), dtype=np.int16)
    squares, tails, number = np.zeros_like(bkg), [], 0
    for image, mask in zip(images, masks, strict=True):
        good = (mask == 0) & np.isfinite(image) & science
        if not good.any():
            continue
        rest = np.where(good, image - bkg, 0)
        sums[number % 2] += rest
        counts[number % 2] += good
        squares += rest**2
        # Of two samples, what one has more the other has less.
        tails.append(_asymmetry(rest, good & (coverage >= _FEW)))
        number += 1
    total = counts.sum(axis=0)
    several = number > 1
    few = np.mean(total[science] < _FEW)
    star_light = 100 * np.nanmean(tails) / level if np.isfinite(tails).any() else None
    denoised, jackknife = _compare_halves(sums, counts, err) if several else (None, None)
    return [
        Metric("few_samples", few, "", f"part of the pixels with fewer than {_FEW} samples"),
        Metric(
            "chi2",
            _chi2(squares, total, err) if several else None,
            "",
            "reduced chi-square of the exposures about BKG",
        ),
        Metric(
            "star_light",
            star_light,
            "%",
            "star light that is left: asymmetry of the residuals",
        ),
        Metric(
            "denoised_ratio",
            denoised,
            "",
            "noise of BKGDN over that expected by ERR, by two halves of the exposures",
        ),
        Metric(
            "jackknife",
            jackknife and 100 * jackknife / level,
            "%",
            "half of the largest difference of two halves on large scales",
        ),
    ]


def _asymmetry(rest, good):
    """Tell by how much the brightest cells are farther from the middle than the darkest."""
    number, total = (gather_blocks(np.where(good, plane, 0)).sum(axis=-1) for plane in (good, rest))
    if not number.any():
        return np.nan
    cells = total[number > 0] / number[number > 0]
    low, middle, high = np.percentile(cells, [_TAIL, 50, 100 - _TAIL])
    return high + low - 2 * middle


def _chi2(squares, count, err):
    """Compare the scatter of samples with the uncertainty of their mean."""
    several = (count > 1) & (err > 0)
    # An exposure is part of the sky that it is compared with.
    freedom = np.sum(count - 1, where=several)
    relative = np.divide(squares, count * err**2, out=np.zeros_like(squares), where=several)
    return np.sum(relative, dtype=float) / freedom if freedom else np.nan


def _compare_halves(sums, counts, err):
    """Compare the skies of every other exposure: noise over that expected, largest difference."""
    both = (counts > 0).all(axis=0) & (err > 0)
    if not both.any():
        return np.nan, np.nan
    halves = np.divide(sums, counts, out=np.zeros_like(sums), where=both)
    difference = (halves[0] - halves[1]) / 2
    # ERR is the uncertainty of the mean of all samples.
    product = 4 * np.where(both, counts[0].astype(np.float32) * counts[1], 1)
    variance = np.where(both, (err * counts.sum(axis=0)) ** 2 / product, 0)
    smooth = gaussian_filter(difference, _DENOISING)
    # The square of a Gaussian is a narrower one, and lower.
    narrower = tuple(np.array(_DENOISING) / np.sqrt(2))
    expected = gaussian_filter(variance, narrower) / (4 * np.pi * np.prod(_DENOISING))
    some = both[_SOME]
    pulls = smooth[_SOME][some] / np.sqrt(expected[_SOME][some])
    there = np.isfinite(gather_blocks(np.ones_like(err), _LARGE)).sum(axis=-1)
    blocks = gather_blocks(np.where(both, difference, np.nan), _LARGE)
    known = np.isfinite(blocks).sum(axis=-1) >= _KNOWN * there
    large = np.max(np.abs(nanmedian(blocks, axis=-1)[known])) if known.any() else np.nan
    return _scatter(pulls), large
