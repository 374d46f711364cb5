"""Figure of a sky model: its mean, its scatter, and its components."""

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from soss_background.io.sky_models import read_statistics
from soss_background.io.skyflats import find_place
from soss_background.sky.sky_prior import cut_prior
from soss_background.steps.figures import COLOURS, FAINT, show_image

__all__ = ["draw_sky_model"]

_DPI = 120


def draw_sky_model(model):
    """
    Draw a sky model.

    Parameters
    ----------
    model : SkyModel
        The sky model.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Mean sky, expected deviations of a new sky, uncertainty without these deviations, rms of the
        components, and maps of the first two components.
    """
    window = find_place(model, model.sky.shape, "sky model")
    statistics = read_statistics(model)
    prior = cut_prior(statistics, window, window)
    with style.context(["default", {"font.size": 9}]):
        figure = Figure(figsize=(13, 7), dpi=_DPI, layout="constrained")
        top, bottom = figure.subplots(2, 3)
        _draw_prior(top, prior, window.extent)
        _draw_variances(bottom[0], statistics)
        maps = statistics.grid.cell_images(statistics.components, statistics.right)
        rms = 100 * np.sqrt(statistics.variances)
        for number, ax in enumerate(bottom[1:]):
            if number < len(maps):
                image, title = rms[number] * maps[number], f"Component {number + 1}"
                high = np.abs(image).max()
                stretch = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
                show_image(ax, image, "1 sigma [%]", title, extent=window.extent, **stretch)
            else:
                ax.set_axis_off()
    return figure


def _draw_prior(axes, prior, extent):
    """Draw the mean sky, the expected deviations, and the uncertainty without them."""
    deviations = 100 * np.sqrt(np.sum(prior.deviations**2, axis=0))
    others = 100 * prior.noise / prior.sky
    low, high = np.percentile(prior.sky, (0.5, 99.5))
    stretch = {"vmin": low, "vmax": high, "extent": extent}
    show_image(axes[0], prior.sky, "level left of the edge = 1", "Mean sky", **stretch)
    images = {"Smooth deviations of a new sky": deviations, "Other uncertainty": others}
    for ax, (title, image) in zip(axes[1:], images.items(), strict=True):
        stretch = {"vmin": 0, "vmax": np.percentile(image, 99.5), "extent": extent}
        show_image(ax, image, "1 sigma [%]", title, "magma", **stretch)


def _draw_variances(ax, statistics):
    """Draw the rms of each component, and that of the smooth scatter."""
    rms = 100 * np.sqrt(statistics.variances)
    if len(rms):
        ax.bar(np.arange(1, 1 + len(rms)), rms, color=COLOURS[0], label="components")
    ax.axhline(100 * statistics.smooth_rms, color=COLOURS[1], label="smooth scatter")
    ax.axhline(100 * statistics.scatter, color=FAINT, ls="--", label="scatter of a pixel")
    ax.set(xlabel="component", ylabel="rms [% of the sky]")
    ax.set_xlim(0.5, max(len(rms), 1) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.margins(y=0.3)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper right")
