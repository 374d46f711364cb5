"""Comparison of a skyflat with the truth of its simulation: metrics and a figure."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import block_reduce
from astropy.stats import mad_std
from bottleneck import nanmedian
from matplotlib.figure import Figure
from scipy import ndimage
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags

from soss_background.errors import SkyflatError
from soss_background.io.files import explain_fault
from soss_background.io.library import as_image
from soss_background.io.skyflats import open_skyflat
from soss_background.numerics.integrations import usable_pixels
from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.steps.figures import show_image

__all__ = [
    "Comparison",
    "compare_with_truth",
    "draw_comparison",
    "format_table",
    "plain_median",
    "sky_errors",
]

# Side of the blocks whose medians are used to measure the error on large scales, pixels.
_BLOCK = 32

# Columns on each side of the edge that count as near the edge.
_EDGE_REACH = 40


@dataclass
class Comparison:
    """
    A skyflat and the true sky.

    Attributes
    ----------
    name : str
        File name of the skyflat.
    truth, bkg, bkgdn, err : ndarray of float, shape (ny, nx)
        The true sky, and the planes of the skyflat, DN/s.
    science : ndarray of bool, shape (ny, nx)
        False for reference pixels.
    masks : ndarray of uint8, shape (n, ny, nx)
        The masks of the exposures.
    exposure : ndarray of float, shape (ny, nx)
        The first exposure, flat-fielded, DN/s.
    median : ndarray of float, shape (ny, nx)
        The sky of `plain_median`.
    """

    name: str
    truth: np.ndarray
    bkg: np.ndarray
    bkgdn: np.ndarray
    err: np.ndarray
    science: np.ndarray
    masks: np.ndarray
    exposure: np.ndarray
    median: np.ndarray


def compare_with_truth(skyflat, truth):
    """Return the `Comparison` of a skyflat file and a truth file; raise SkyflatError if unfit."""
    skyflat, truth = Path(skyflat), Path(truth)
    with explain_fault(truth, "not the truth of a simulation"), fits.open(truth) as hdus:
        sky = hdus["SKY"].data.astype(float)
        names = [truth.parent / name for name in hdus["LEVELS"].data["filename"]]
        flat = hdus["REFFLAT" if "REFFLAT" in hdus else "FLAT"].data.astype(float)
    with open_skyflat(skyflat) as model:
        planes = {key: getattr(model, key) for key in ("bkg", "bkgdn", "err", "masks")}
        for key, plane in planes.items():
            if plane is None or plane.shape[-2:] != sky.shape:
                raise SkyflatError(
                    f"{skyflat}: {key.upper()} is missing or differs in shape from the truth"
                )
        science = model.dq & dqflags.pixel["REFERENCE_PIXEL"] == 0
        images = _flat_field(names, flat)
        planes |= {"exposure": images[0].copy(), "median": plain_median(images)}
        return Comparison(skyflat.name, truth=sky, science=science, **planes)


def _flat_field(paths, flat):
    """Read exposures and divide them by the flat."""
    images = []
    for path in paths:
        with explain_fault(path), datamodels.open(path) as model:
            image = as_image(model)
            usable = usable_pixels(image.data, image.err, image.dq)
            images.append(np.where(usable, image.data / flat, np.nan).astype(np.float32))
    return np.array(images)


def plain_median(images):
    """Return the clipped median of exposures divided by their medians; change them in place."""
    images /= [[[nanmedian(image)]] for image in images]
    deviation = np.abs(images - nanmedian(images, axis=0))
    images[deviation > 3 * MAD_TO_SIGMA * nanmedian(deviation, axis=0)] = np.nan
    return nanmedian(images, axis=0)


def sky_errors(sky, truth, science):
    """
    Measure the errors of a sky after the best scale is applied.

    Parameters
    ----------
    sky, truth : ndarray of float, shape (ny, nx)
        A sky and the true one, DN/s.
    science : ndarray of bool, shape (ny, nx)
        True for pixels to use.

    Returns
    -------
    error : ndarray of float, shape (ny, nx)
        Errors in % of the median true sky; NaN outside of the used pixels.
    metrics : dict of float
        ``scatter`` (1.4826 times the median absolute deviation), ``p99`` (99th percentile of the
        absolute error), ``rms``, ``blocks`` (rms of the medians of blocks of 32 x 32 pixels)
        and ``edge`` (rms within 40 columns of the sky's edge), all in % of the median true sky.
    """
    finite = science & np.isfinite(sky)
    scale = np.median(sky[finite] / truth[finite])
    error = np.full(truth.shape, np.nan)
    error[finite] = 100 * (sky[finite] / scale - truth[finite]) / np.median(truth[finite])
    values = error[finite]
    column = steepest_column(truth, science)
    near = error[:, max(0, column - _EDGE_REACH) : column + _EDGE_REACH]
    metrics = {
        "scatter": mad_std(values),
        "p99": np.percentile(np.abs(values), 99),
        "rms": np.sqrt(np.mean(values**2)),
        "blocks": np.sqrt(np.mean(_block_medians(error) ** 2)),
        "edge": np.sqrt(np.nanmean(near**2)),
    }
    return error, {key: float(value) for key, value in metrics.items()}


def steepest_column(sky, science):
    """Return the column where a sky without noise rises most steeply."""
    columns = np.flatnonzero(science.any(axis=0))
    profile = np.median(sky[science.any(axis=1)][:, columns], axis=0)
    rise = np.gradient(ndimage.gaussian_filter1d(profile, 3))
    return int(columns[np.argmax(rise)])


def format_table(comparison):
    """Return a table of the errors of each plane as a string."""
    skies = {"median": comparison.median, "BKG": comparison.bkg, "BKGDN": comparison.bkgdn}
    lines = [
        "Errors in percent of the median sky, after the best scale is applied",
        f"{'':8}{'scatter':>10}{'99 %':>10}{'rms':>10}{'blocks':>10}{'edge':>10}",
    ]
    for name, sky in skies.items():
        _, metrics = sky_errors(sky, comparison.truth, comparison.science)
        lines.append(f"{name:8}" + "".join(f"{value:10.2f}" for value in metrics.values()))
    lines.append("median: plain sigma-clipped median of the exposures, flat-fielded, at one level")
    return "\n".join(lines)


def draw_comparison(comparison):
    """Return a figure of the sky, an exposure with its mask, the errors and the column profile."""
    figure = Figure(figsize=(13, 15), layout="constrained")
    axes = figure.subplot_mosaic(
        [["bkg", "bkgdn"], ["exposure", "masked"], ["error", "profile"], ["error", "difference"]],
        height_ratios=[3, 3, 2, 1],
    )
    figure.suptitle(comparison.name)
    error, metrics = sky_errors(comparison.bkgdn, comparison.truth, comparison.science)
    low, high = np.percentile(comparison.truth[comparison.science], [0.5, 99.5])
    stretch = {"vmin": 0.9 * low, "vmax": 1.1 * high}
    show_image(axes["bkg"], comparison.bkg, "DN/s", "BKG: the empirical sky", **stretch)
    show_image(axes["bkgdn"], comparison.bkgdn, "DN/s", "BKGDN: the same, denoised", **stretch)
    masked = np.where(comparison.masks[0] > 0, np.nan, comparison.exposure)
    show_image(axes["exposure"], comparison.exposure, "DN/s", "One exposure", **stretch)
    show_image(axes["masked"], masked, "DN/s", "The same, masked", **stretch)
    title = f"Error of BKGDN: {metrics['scatter']:.2f} % scatter, {metrics['rms']:.2f} % rms"
    show_image(axes["error"], error, "% of the median sky", title, vmin=-1, vmax=1, cmap="RdBu_r")
    _draw_profiles(axes["profile"], axes["difference"], comparison)
    return figure


def _draw_profiles(ax, below, comparison):
    """Draw the column profiles of truth and skyflat, and below their difference."""
    columns = np.flatnonzero(comparison.science.any(axis=0))
    rows = comparison.science.any(axis=1)
    truth, sky = (
        np.median(plane[rows][:, columns], axis=0) for plane in (comparison.truth, comparison.bkgdn)
    )
    sky = sky / np.median(sky / truth)
    ax.plot(columns, truth, color="0.6", lw=4, label="truth")
    ax.plot(columns, sky, color="C0", lw=1, label="BKGDN")
    ax.set(title="Column profile (median over rows)", ylabel="DN/s")
    ax.legend(loc="upper right")
    below.plot(columns, 100 * (sky - truth) / np.median(truth), color="C3", lw=0.7)
    below.axhline(0, color="0.5", lw=0.5)
    below.set(ylim=(-1, 1), xlabel="column", ylabel="BKGDN - truth [%]")


def _block_medians(image):
    """Return the medians of blocks of pixels; ignore NaN."""
    return block_reduce(image, _BLOCK, np.nanmedian)
