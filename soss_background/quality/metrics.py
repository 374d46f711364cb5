"""Numbers that tell how good a skyflat is, found in nothing but the skyflat itself."""

from typing import NamedTuple

import numpy as np
from bottleneck import nanmedian
from stdatamodels.jwst.datamodels import dqflags

from soss_background.cells import gather_blocks
from soss_background.smoothing import gaussian_filter
from soss_background.subtract.templates import find_step, right_of_step

__all__ = [
    "STEP_ROWS",
    "Metric",
    "measure_exposures",
    "measure_sky",
    "rows_about",
    "summarize_exposures",
]

_PIXEL = dqflags.pixel

# Standard deviation of normal values, relative to their median absolute deviation.
_MAD_TO_SIGMA = 1.4826

# Full-frame rows at which the step is measured, and half of the rows that are averaged there.
STEP_ROWS = (256, 768, 1280, 1846)
_STEP_REACH = 32

# Fewer exposures than these at a pixel tell little of its noise.
_FEW = 3

# Percentage of the cells on each side whose limits tell of star light, which is bright and rare.
_TAIL = 1

# Rows and columns of the blocks that tell large scales, and part of a block that must be known.
_LARGE, _KNOWN = (64, 64), 0.5

# Rows that tell a median or a scatter: every fourth.
_SOME = np.s_[::4]

# Standard deviation of the Gaussian that denoises, away from the step, in pixels.
_DENOISING = (12.0, 12.0)


class Metric(NamedTuple):
    """
    A number that tells how good a skyflat is.

    Attributes
    ----------
    name : str
        What it is called.
    value : float
        The number, NaN if it could not be measured.
    unit : str
        Its unit, empty for numbers and ratios.
    comment : str
        What it means.
    """

    name: str
    value: float
    unit: str
    comment: str


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
        Exposures used and rejected, masked fractions, scatter of the levels.
    """
    used = table["used"] == 1
    masked, scale = table["masked_fraction"][used], table["scale"][used]
    scatter = 100 * np.std(scale, ddof=1) / np.mean(scale) if used.sum() > 1 else np.nan
    return [
        Metric("exposures_used", used.sum(), "", "exposures that were combined"),
        Metric("exposures_rejected", (~used).sum(), "", "exposures that were left out"),
        Metric("masked_median", np.median(masked), "", "part of an exposure that is not used"),
        Metric("masked_worst", masked.max(), "", "the same, of the worst exposure"),
        Metric("level_scatter", scatter, "%", "scatter of the levels of the exposures"),
        Metric(
            "stripes",
            np.nan if stripe_rms is None else stripe_rms,
            "DN/s",
            "1/f stripes of an exposure, rms",
        ),
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
            Metric("noise", _sigma(noise), "DN/s", "scatter of BKG about BKGDN"),
            Metric("noise_ratio", _sigma(noise / err), "", "the same in units of ERR"),
        ]
    sky = bkg if bkgdn is None else bkgdn
    metrics += _measure_levels(sky[_SOME], science[_SOME], window.x0)
    for row in STEP_ROWS:
        rows = rows_about(row, window)
        if rows is not None:
            metrics += _measure_step(sky[rows], window.x0, row)
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


def _measure_levels(sky, science, first_column):
    """Measure the levels on both sides of the step."""
    right = right_of_step(np.where(science, sky, np.median(sky[science])), first_column)
    left, beyond = (
        np.median(sky[side]) if side.any() else np.nan
        for side in (science & ~right, science & right)
    )
    return [
        Metric("level_left", left, "DN/s", "median of the sky left of the step"),
        Metric("level_right", beyond, "DN/s", "the same right of it"),
        Metric("level_ratio", beyond / left, "", "level right over that left"),
    ]


def _measure_step(sky, first_column, row):
    """Measure place and width of the step at some rows."""
    places = [find_step(sky, first_column, part) for part in (0.1, 0.5, 0.9)]
    low, middle, high = (np.nan if place is None else place for place in places)
    column, at = middle + first_column, f"at row {row} of FULL"
    return [
        Metric(f"step_column_{row}", column, "pixel", f"column of half of the step {at}"),
        Metric(f"step_width_{row}", high - low, "pixel", f"10 to 90 % of the step {at}"),
    ]


def _fraction(dq, flag, science):
    """Tell which part of the science pixels has a flag."""
    return np.mean(dq[science] & _PIXEL[flag] > 0)


def _sigma(values):
    """Measure the standard deviation of normal values with outliers."""
    return _MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))) if values.size else np.nan


def measure_exposures(images, masks, bkg, err, science):
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
    squares, tails = np.zeros_like(bkg), []
    for image, mask in zip(images, masks, strict=True):
        good = (mask == 0) & np.isfinite(image) & science
        if not good.any():
            continue
        rest = np.where(good, image - bkg, 0)
        half = len(tails) % 2
        sums[half] += rest
        counts[half] += good
        squares += rest**2
        tails.append(_asymmetry(rest, good) / level)
    total = counts.sum(axis=0)
    return [
        Metric(
            "few_samples",
            np.mean(total[science] < _FEW),
            "",
            f"part of the pixels with fewer than {_FEW} samples",
        ),
        Metric("chi2", _chi2(squares, total, err), "", "reduced, of the exposures about BKG"),
        Metric("star_light", 100 * np.mean(tails), "%", "asymmetry of what is not in the sky"),
        *_compare_halves(sums, counts, err, level),
    ]


def _asymmetry(rest, good):
    """Tell by how much the brightest cells are farther from the middle than the darkest."""
    number, total = (gather_blocks(plane).sum(axis=-1) for plane in (good, rest))
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


def _compare_halves(sums, counts, err, level):
    """Compare the skies of every other exposure."""
    both = (counts > 0).all(axis=0) & (err > 0)
    if not both.any():
        return []
    halves = np.divide(sums, counts, out=np.zeros_like(sums), where=both)
    difference = (halves[0] - halves[1]) / 2
    coverage = gaussian_filter(both.astype(np.float32), _DENOISING)
    inside = both & (coverage > _KNOWN)
    smooth = gaussian_filter(difference, _DENOISING)[inside] / coverage[inside]
    # What a Gaussian leaves of noise from pixel to pixel.
    expected = err[inside] / (2 * np.sqrt(np.pi * np.prod(_DENOISING)))
    blocks = gather_blocks(np.where(both, difference, np.nan), _LARGE)
    known = np.mean(np.isfinite(blocks), axis=-1) > _KNOWN
    large = np.max(np.abs(nanmedian(blocks, axis=-1)[known]), initial=0)
    return [
        Metric(
            "denoised_ratio",
            _sigma(smooth[_SOME] / expected[_SOME]),
            "",
            "noise of BKGDN over that expected by ERR, by two halves of the exposures",
        ),
        Metric(
            "jackknife",
            100 * large / level,
            "%",
            "half of the largest difference of two halves on large scales",
        ),
    ]
