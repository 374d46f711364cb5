"""Figures of a skyflat; each function draws one on given axes."""

import numpy as np
from bottleneck import nanmedian

from soss_background.combine.vetting import MUCH_WORSE
from soss_background.numerics.smoothing import gaussian_filter
from soss_background.quality.metrics import EDGE_ROWS, rows_about
from soss_background.report.views import PULL_EDGES
from soss_background.sky.edge import find_edge, right_of_edge
from soss_background.steps.figures import BAD, COLOURS, FAINT, show_image, show_pixels

__all__ = [
    "draw_column_profile",
    "draw_coverage",
    "draw_exposure",
    "draw_pulls",
    "draw_residual",
    "draw_row_profiles",
    "draw_sky",
    "draw_edge",
    "draw_structure",
    "draw_variation",
    "draw_vetting",
]

# Styles of two profiles, the first behind the second.
_LINES = ({"color": FAINT, "lw": 2}, {"color": COLOURS[0], "lw": 0.9})

# Columns before and after the edge that are drawn.
_EDGE_REACH = 60

# Residuals of exposures and structure of a sky at the ends of the colour map, percent.
_RESIDUAL_LIMIT, _STRUCTURE_LIMIT = 1.0, 2.0

# Standard deviations, rows and columns, of the Gaussian that smooths small residuals, in blocks of
# 8 x 8 pixels. Stars are long along rows; the noise of a block falls to a sixth.
_SMOOTHING = (1.0, 3.0)

# Height of the figure of deviations, in units of the largest.
_HEADROOM = 1.4


def draw_sky(ax, sky, window, label="DN/s", limits=None):
    """
    Draw a plane of a skyflat, its reference pixels in grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    sky : ndarray of float, shape (ny, nx)
        BKG, BKGDN or ERR, DN/s.
    window : `~soss_background.detector.Window`
        Detector pixels of the images.
    label : str, optional
        Label of the colour bar, with the unit.
    limits : tuple of float, optional
        Values at the ends of the colour map; by default the percentiles 0.5 and 99.5.
    """
    shown = _hide_reference(sky, window)
    low, high = np.nanpercentile(shown, [0.5, 99.5]) if limits is None else limits
    show_image(ax, shown, label, vmin=low, vmax=high, extent=window.extent)


def draw_structure(ax, sky, window):
    """Draw the deviation of a sky from its column profile, percent."""
    shown = _hide_reference(sky, window)
    relative = 100 * (shown / nanmedian(shown, axis=0) - 1)
    stretch = {"vmin": -_STRUCTURE_LIMIT, "vmax": _STRUCTURE_LIMIT, "cmap": "RdBu_r"}
    show_image(ax, relative, "% of the column's median", extent=window.extent, **stretch)


def _hide_reference(plane, window):
    """Replace reference pixels by NaN."""
    return np.where(window.reference_pixels(), np.nan, plane)


def draw_coverage(ax, coverage, window):
    """Draw the number of exposures used at each pixel, shape (ny, nx)."""
    highest = max(1, coverage.max())
    stretch = {"vmin": 0, "vmax": highest, "cmap": "cividis", "extent": window.extent}
    show_image(ax, _hide_reference(coverage, window), "exposures used", **stretch)


def draw_variation(ax, variation, window):
    """
    Draw the coefficient of variation.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    variation : ndarray of float, shape (ny, nx)
        In percent, see `soss_background.report.views.view_exposures`.
    window : `~soss_background.detector.Window`
        Detector pixels of the images.
    """
    known = variation[np.isfinite(variation)]
    high = np.percentile(known, 99) if known.size else 1
    stretch = {"vmin": 0, "vmax": high, "cmap": "magma", "extent": window.extent}
    show_image(ax, variation, "% of the sky", **stretch)


def draw_exposure(ax, view, limits):
    """Draw a `View` of an exposure, small, with its mask outlined; ``limits`` are in DN/s."""
    _draw_small(ax, view.image, "viridis", *limits)
    if 0 < view.masked.mean() < 1:
        ax.contour(view.masked, levels=[0.5], colors="#ff5a5a", linewidths=0.6)


def draw_residual(ax, view):
    """
    Draw the smoothed residual of an exposure, small; masked pixels are grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    view : `~soss_background.report.views.View`
        The exposure. The colours end at -1 and 1 % of the sky.
    """
    shown = _smooth(view.residual)
    _draw_small(ax, shown, "RdBu_r", -_RESIDUAL_LIMIT, _RESIDUAL_LIMIT)


def _smooth(image):
    """Smooth the known values of an image; those that are NaN stay NaN."""
    known = np.isfinite(image)
    weights = gaussian_filter(known.astype(np.float32), _SMOOTHING)
    smooth = gaussian_filter(np.where(known, image, 0).astype(np.float32), _SMOOTHING)
    return np.divide(smooth, weights, out=np.full(image.shape, np.nan, np.float32), where=known)


def _draw_small(ax, image, cmap, low, high):
    """Draw an image without ticks."""
    show_pixels(ax, image, cmap, vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])


def draw_column_profile(ax, planes, window):
    """Draw the medians over the rows of skies (DN/s), given by name."""
    for (name, sky), style in zip(planes.items(), _LINES, strict=False):
        profile = nanmedian(_hide_reference(sky, window), axis=0)
        ax.plot(window.x0 + np.arange(len(profile)), profile, label=name, **style)
    ax.set(xlabel="column", ylabel="median over rows [DN/s]")
    ax.legend(frameon=False)


def draw_row_profiles(ax, sky, window):
    """Draw the medians of a sky over the columns left and right of the edge."""
    right, science = right_of_edge(sky, window.x0), ~window.reference_pixels()
    for side, name, colour in ((~right, "left", COLOURS[0]), (right, "right", COLOURS[1])):
        if np.any(side & science):
            profile = nanmedian(np.where(side & science, sky, np.nan), axis=1)
            relative = 100 * (profile / nanmedian(profile) - 1)
            rows = window.y0 + np.arange(len(profile))
            ax.plot(rows, relative, color=colour, lw=0.8, label=f"{name} of the edge")
    ax.set(xlabel="row", ylabel="median over columns, relative to their median [%]")
    ax.legend(frameon=False)


def draw_edge(ax, sky, window):
    """Draw the edge at the rows where it is measured, each from 0 left of it to 1 right of it."""
    for row, colour in zip(EDGE_ROWS, COLOURS, strict=True):
        rows = rows_about(row, window)
        middle = None if rows is None else find_edge(sky[rows], window.x0)
        if middle is None:
            continue
        columns = np.arange(round(middle) - _EDGE_REACH, round(middle) + _EDGE_REACH)
        profile = np.median(sky[rows][:, columns], axis=0)
        low, high = np.median(profile[: _EDGE_REACH // 2]), np.median(profile[-_EDGE_REACH // 2 :])
        ax.plot(
            window.x0 + columns, (profile - low) / (high - low), color=colour, label=f"row {row}"
        )
        ax.axvline(window.x0 + middle, color=colour, lw=0.6, ls=":")
    ax.axhline(0.5, color=FAINT, lw=0.6)
    ax.set(xlabel="column", ylabel="fraction of the edge's height")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)


def draw_pulls(ax, views):
    """
    Draw histograms of the residuals of exposures in units of their expected scatter.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    views : list of `~soss_background.report.views.View`
        The exposures.
    """
    middle, width = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2, np.diff(PULL_EDGES)
    known = [view.pulls for view in views if view.pulls.any()]
    lines = [(pulls, {"color": FAINT, "lw": 0.5}) for pulls in known]
    if known:
        lines.append((np.sum(known, axis=0), {"color": COLOURS[0], "label": "all exposures"}))
    for pulls, style in lines:
        density = np.where(pulls > 0, pulls, np.nan) / (pulls.sum() * width)
        ax.step(middle, density, where="mid", **style)
    normal = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    ax.plot(middle, normal, color=BAD, ls="--", lw=1, label="expected from ERR")
    ax.set(yscale="log", ylim=(1e-7, 1), xlabel="(exposure - BKG) / sigma", ylabel="density")
    ax.legend(frameon=False, loc="lower center")


def draw_vetting(ax, table, mad_threshold=None):
    """
    Draw the deviations of exposures from their sky, and which were left out.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    table : ndarray, shape (n,)
        METADATA of a skyflat, with ``deviation``.
    mad_threshold : float, optional
        Deviation, as a fraction of the sky, above which an exposure is left out if it also exceeds
        three times that of a typical one.
    """
    number = np.arange(len(table)) + 1
    for used, colour, label in ((1, COLOURS[0], "used"), (0, BAD, "left out")):
        which = table["used"] == used
        if which.any():
            ax.bar(number[which], table["deviation"][which], color=colour, label=label)
    largest = np.max(table["deviation"], initial=0, where=np.isfinite(table["deviation"]))
    if largest > 0:
        ax.set_ylim(0, _HEADROOM * largest)
    if mad_threshold is not None:
        _mark_limit(ax, 100 * mad_threshold, "--", "mad_threshold")
    if np.any(table["used"] == 1):
        much_worse = MUCH_WORSE * nanmedian(table["deviation"][table["used"] == 1].astype(float))
        _mark_limit(ax, much_worse, ":", f"{MUCH_WORSE:g} times a typical one")
    ax.set(xlabel="exposure", ylabel="deviation from the sky [%]", xlim=(0.4, len(table) + 0.6))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, loc="upper center", ncols=2)


def _mark_limit(ax, value, style, label):
    """Draw a limit; the legend gives its value, and says if it lies above the figure."""
    above = ", above this figure" if value > ax.get_ylim()[1] else ""
    ax.axhline(value, color=FAINT, ls=style, label=f"{label}: {value:.2g} %{above}")
