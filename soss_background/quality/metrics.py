"""Metrics of a skyflat, measured in the skyflat itself, and their definitions."""

import numpy as np
from astropy.stats import mad_std
from bottleneck import nanmedian
from stdatamodels.jwst.datamodels import dqflags

from soss_background.datamodels.quality_table import FRACTION
from soss_background.detector import PWCPOS, has_edge
from soss_background.numerics.cells import gather_blocks
from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.sky.edge import find_edge, has_edge_columns, right_of_edge
from soss_background.sky.traces import BRIGHT_TRACE, trace_distance, trace_excess
from soss_background.steps.metric_ranges import Metric

__all__ = ["METRICS", "count_samples", "measure_exposures", "measure_levels", "measure_sky"]

_PIXEL = dqflags.pixel

# Full-frame rows at which the edge is measured, and half of the rows that are averaged there.
EDGE_ROWS = (256, 768, 1280, 1846)
_EDGE_REACH = 32

# Fewest exposures at a pixel for measuring its noise, or for separating star light from sky.
_FEW = 3

# Fewest pixels of a column whose median can show a stripe.
_FEWEST_PIXELS = 16

# Percentile of the cells, from both ends, that is compared to detect star light, which is bright
# and rare.
_TAIL = 1

# Rows and columns of the blocks in which large scales are measured, and smallest fraction of a
# block that must be known.
_LARGE, _KNOWN = (64, 64), 0.5

# Standard deviation in pixels of the Gaussian along columns that searches for stripes.
_STRIPE_LENGTH = 48

# Every fourth row is enough for a median or a scatter.
_SOME = np.s_[::4]

# Metrics of the table of exposures and of the exposures themselves, in the order of QC.
_OF_EXPOSURES = (
    "exposures_used",
    "exposures_rejected",
    "masked_median",
    "masked_worst",
    "level_scatter",
    "deviation_worst",
    "deviation_ratio",
    "stripe_rms",
    "excess",
)
_OF_RESIDUALS = (
    "few_samples",
    "chi2",
    "stripes_left",
    "star_light",
    "target_trace",
    "denoised_ratio",
    "jackknife",
)

# The default ranges contain simulated visits of five to ten exposures of sparse to crowded fields.
METRICS = {
    "exposures_used": Metric("", (3, np.inf), "number of combined exposures"),
    "exposures_rejected": Metric("", None, "number of exposures that were left out"),
    "masked_median": Metric(FRACTION, (0, 0.85), "median unused fraction of an exposure"),
    "masked_worst": Metric(FRACTION, (0, 0.95), "unused fraction of the worst exposure"),
    "level_scatter": Metric("%", (0, 5), "standard deviation of the levels of the exposures"),
    "deviation_worst": Metric("%", (0, 5), "largest deviation of a used exposure from the sky"),
    "deviation_ratio": Metric("", (1, 4), "largest over median deviation from the sky"),
    "stripe_rms": Metric("DN/s", (0, 1), "rms of the 1/f stripes of an exposure"),
    "excess": Metric(
        "", (0.7, 1.5), "scatter of an exposure about the sky over its own ERR, median"
    ),
    "filled": Metric(FRACTION, (0, 0.1), "fraction of the pixels of BKG that are filled"),
    "hot": Metric(FRACTION, (0, 0.03), "fraction of the pixels that are flagged HOT"),
    "noise": Metric("DN/s", None, "scatter of BKG about BKGDN"),
    "noise_ratio": Metric("", (0.5, 1.25), "scatter of BKG about BKGDN over ERR"),
    "level": Metric("DN/s", (0.05, 20), "median of a sky without an edge (F277W)"),
    "level_left": Metric("DN/s", (0.5, 20), "median of the sky left of the edge"),
    "level_right": Metric("DN/s", (0.5, 30), "median of the sky right of the edge"),
    "level_ratio": Metric("", (1.1, 2.2), "level right over level left of the edge"),
    "step_column": Metric(
        "pixel", (680, 725), "column at half the height of the edge, near a row of FULL"
    ),
    "step_width": Metric(
        "pixel", (10, 80), "width of the edge from 10 to 90 %, near a row of FULL"
    ),
    "few_samples": Metric(
        FRACTION, (0, 0.75), "fraction of the pixels with fewer than three samples"
    ),
    "chi2": Metric("", (0.5, 1.3), "reduced chi-square of the exposures about BKG"),
    "stripes_left": Metric(
        "",
        (0, 1.5),
        "remaining stripes of amplifiers in the exposures, over the noise of a column",
    ),
    "star_light": Metric("%", (-0.3, 0.3), "remaining flux of stars: asymmetry of the residuals"),
    "target_trace": Metric(
        "",
        (-BRIGHT_TRACE, BRIGHT_TRACE),
        "flux at the expected traces of a target over the flux beside them, minus 1",
    ),
    "denoised_ratio": Metric(
        "",
        (0.5, 2),
        "noise of BKGDN over that expected from ERR",
    ),
    "jackknife": Metric(
        "%",
        (0, 1),
        "half of the largest large-scale difference between halves of the exposures",
    ),
}


def summarize_exposures(table, stripe_rms):
    """Return the metrics of METADATA by name; ``stripe_rms`` is in DN/s or None."""
    rows = table[table["used"] == 1]
    values = dict.fromkeys(_OF_EXPOSURES)
    values["exposures_used"] = len(rows)
    values["exposures_rejected"] = len(table) - len(rows)
    values["stripe_rms"] = stripe_rms
    if len(rows):
        values["masked_median"] = np.median(rows["masked_fraction"])
        values["masked_worst"] = rows["masked_fraction"].max()
    if len(rows) < 2:
        return values
    if np.mean(rows["scale"]) > 0:
        values["level_scatter"] = 100 * np.std(rows["scale"], ddof=1) / np.mean(rows["scale"])
    if {"excess", "deviation"} <= set(table.dtype.names):
        values["excess"] = np.median(rows["excess"])
        values["deviation_worst"] = rows["deviation"].max()
        values["deviation_ratio"] = values["deviation_worst"] / np.median(rows["deviation"])
    return values


def measure_sky(bkg, bkgdn, err, dq, window, filter_name="CLEAR"):
    """Return the metrics of a sky (planes in DN/s, ``bkgdn`` may be None) by name."""
    science = ~window.reference_pixels()
    values = {
        "filled": _flagged_fraction(dq, "DO_NOT_USE", science),
        "hot": _flagged_fraction(dq, "HOT", science),
    }
    if bkgdn is not None:
        bad = dq & (_PIXEL["DO_NOT_USE"] | _PIXEL["HOT"]) > 0
        found = (science & ~bad & (err > 0))[_SOME]
        noise, err = (bkg - bkgdn)[_SOME][found], err[_SOME][found]
        values |= {"noise": _scatter(noise), "noise_ratio": _scatter(noise / err)}
    sky = bkg if bkgdn is None else bkgdn
    if not has_edge(filter_name):
        return values | {"level": np.median(sky[science])}
    return values | measure_levels(sky, window)


def measure_levels(sky, window):
    """Return levels (DN/s) on both sides of the edge, its columns and widths, by metric."""
    values = _measure_sides(sky[_SOME], ~window.reference_pixels()[_SOME], window)
    for row in EDGE_ROWS:
        rows = rows_about(row, window)
        if rows is not None and has_edge_columns(window.nx, window.x0):
            values |= _measure_edge(sky[rows], window, row)
    return values


def rows_about(row, window):
    """Return the rows (slice) of a window to measure the edge at a full-frame row, or None."""
    first, last = np.clip(row - window.y0 + np.array([-_EDGE_REACH, _EDGE_REACH]), 0, window.ny)
    return slice(first, last) if last - first >= _EDGE_REACH else None


def _measure_sides(sky, science, window):
    """Measure the levels on both sides of the edge."""
    right = right_of_edge(np.where(science, sky, np.median(sky[science])), window.x0)
    left = np.median(sky[science & ~right])
    if right.any():
        beyond = np.median(sky[science & right])
        return {"level_left": left, "level_right": beyond, "level_ratio": beyond / left}
    # NaN if the window contains an edge that is not found, None if it contains no edge.
    unknown = np.nan if has_edge_columns(window.nx, window.x0) else None
    return {"level_left": left, "level_right": unknown, "level_ratio": unknown}


def _measure_edge(sky, window, row):
    """Measure position and width of the edge at some rows."""
    columns = [find_edge(sky, window.x0, fraction) for fraction in (0.1, 0.5, 0.9)]
    low, middle, high = (np.nan if column is None else column for column in columns)
    return {f"step_column_{row}": middle + window.x0, f"step_width_{row}": high - low}


def _flagged_fraction(dq, flag, science):
    """Return the fraction of the science pixels with a flag."""
    return np.mean(dq[science] & _PIXEL[flag] > 0)


def _scatter(values):
    """Return the standard deviation of normal values with outliers."""
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


def measure_exposures(
    images, masks, bkg, err, coverage, window, bkgdn=None, smoothing=None, filter_name="CLEAR"
):
    """Return the metrics of exposures about their sky by name; ``masks`` are 1 at unused pixels."""
    science = ~window.reference_pixels()
    level = np.median(bkg[science])
    sums = np.zeros((2, *bkg.shape), dtype=np.float32)
    counts = np.zeros((2, *bkg.shape), dtype=np.int16)
    squares, tails, stripes, targets, number = np.zeros_like(bkg), [], [], [], 0
    distance = trace_distance(window, PWCPOS, filter_name=filter_name)
    for image, mask in zip(images, masks, strict=True):
        good = (mask == 0) & np.isfinite(image) & science
        if not good.any():
            continue
        residual = np.where(good, image - bkg, 0)
        sums[number % 2] += residual
        counts[number % 2] += good
        squares += residual**2
        # The residuals of two samples are always antisymmetric.
        tails.append(_asymmetry(residual, good & (coverage >= _FEW)))
        # A pixel that only one exposure shows has no residual.
        several = np.where(good & (coverage > 1), residual, np.nan)
        stripes += [_striping(several[band]) for band in window.amplifiers()]
        targets.append(trace_excess(np.where(science, image, np.nan), distance))
        number += 1
    total = counts.sum(axis=0)
    values = dict.fromkeys(_OF_RESIDUALS)
    values["few_samples"] = np.mean(total[science] < _FEW)
    if np.isfinite(tails).any():
        values["star_light"] = 100 * np.nanmean(tails) / level
    if np.isfinite(targets).any():
        values["target_trace"] = np.nanmedian(targets)
    if number > 1:
        values["chi2"] = _chi2(squares, total, err)
        if np.isfinite(stripes).any():
            values["stripes_left"] = np.nanmedian(stripes)
        difference, expected = _compare_halves(sums, counts, err)
        del squares, sums, counts  # free the memory of frames before the smoothing below
        values["jackknife"] = 100 * _largest_median(difference) / level
        if bkgdn is not None and smoothing is not None:
            values["denoised_ratio"] = _denoised_ratio(difference, expected, bkgdn, smoothing)
    return values


def _asymmetry(residual, good):
    """Return how much farther the brightest cells are from the median than the darkest."""
    number, total = (
        gather_blocks(np.where(good, plane, 0)).sum(axis=-1) for plane in (good, residual)
    )
    # Blocks at the border are padded with NaN.
    whole = number > 0
    if not whole.any():
        return np.nan
    cells = total[whole] / number[whole]
    low, middle, high = np.percentile(cells, [_TAIL, 50, 100 - _TAIL])
    return high + low - 2 * middle


def _striping(residual):
    """Return the scatter of the columns' medians about 0 over that of noise; NaN is unknown."""
    numbers, some = np.isfinite(residual).sum(axis=0), residual[_SOME]
    found, noise = numbers >= _FEWEST_PIXELS, _scatter(some[np.isfinite(some)])
    if not (found.any() and noise > 0):
        return np.nan
    medians = nanmedian(residual[:, found], axis=0) * np.sqrt(numbers[found] * 2 / np.pi)
    return MAD_TO_SIGMA * np.median(np.abs(medians)) / noise


def _chi2(squares, count, err):
    """Compare the scatter of samples with the uncertainty of their mean."""
    several = (count > 1) & (err > 0)
    # One degree of freedom is lost, since an exposure is part of its own sky.
    freedom = np.sum(count - 1, where=several)
    relative = np.divide(squares, count * err**2, out=np.zeros_like(squares), where=several)
    return np.sum(relative, dtype=float) / freedom if freedom else np.nan


def _compare_halves(sums, counts, err):
    """Return half the difference of the skies of every other exposure; its variance; reuse sums."""
    both = (counts > 0).all(axis=0) & (err > 0)
    halves = np.divide(sums, counts, out=sums, where=both)
    # ERR is the uncertainty of the mean of all samples.
    product = 4 * np.where(both, counts[0].astype(np.float32) * counts[1], 1)
    variance = np.where(both, (err * counts.sum(axis=0)) ** 2 / product, 0)
    return np.where(both, (halves[0] - halves[1]) / 2, np.nan), variance


def _denoised_ratio(difference, variance, bkgdn, smoothing):
    """Return the noise of a denoised sky over that expected: its smoothed halves, and stripes."""
    some = np.isfinite(difference)[_SOME]
    smooth = gaussian_filter(np.nan_to_num(difference), smoothing)
    # The square of a Gaussian is a narrower and lower Gaussian.
    narrower = tuple(np.array(smoothing) / np.sqrt(2))
    expected = gaussian_filter(variance, narrower) / (4 * np.pi * np.prod(smoothing))
    # Stripes that all exposures share are in both halves, but narrower than the smoothing.
    sigma = np.sqrt(expected[_SOME][some])
    noise = (smooth[_SOME][some], _narrow_stripes(bkgdn, smoothing[1])[some])
    return np.hypot(*(_scatter(plane / sigma) for plane in noise))


def _narrow_stripes(sky, sigma_columns):
    """Return the structure that a third of the smoothing removes, averaged along columns."""
    mean = gaussian_filter(sky, (_STRIPE_LENGTH, 0), "symmetric")[_SOME]
    sigma = (0, sigma_columns / 3)
    left = mean - gaussian_filter(mean, sigma, "symmetric")
    return left - gaussian_filter(left, sigma, "symmetric")


def _largest_median(image):
    """Return the largest absolute median of the large blocks that hold enough values."""
    blocks = gather_blocks(image, _LARGE)
    # Blocks at the border are padded with NaN.
    size = np.isfinite(gather_blocks(np.ones_like(image), _LARGE)).sum(axis=-1)
    known = np.isfinite(blocks).sum(axis=-1) >= _KNOWN * size
    return np.max(np.abs(nanmedian(blocks, axis=-1)[known])) if known.any() else np.nan
