"""Figures of the flux calibration, on axes of the caller."""

import numpy as np
from bottleneck import nanmedian
from matplotlib.figure import Figure

from soss_background.steps.figures import BAD, COLOURS, FAINT

__all__ = ["draw_brightness", "draw_growth", "draw_ratios", "save_figure"]

# Distance of the symbols of two subarrays of a filter, in units of that of two filters.
_SHIFT = 0.15


def draw_growth(ax, table, psf=None):
    """
    Draw a curve of growth, and that of the PSF.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    table : `~astropy.table.Table`
        ``radius``, ``count_rate`` and ``error``.
    psf : `~soss_background.fluxcal.psf.Psf`, optional
        The PSF, scaled to the star between 5 and 10 pixels.
    """
    radius, rate, error = (np.asarray(table[key]) for key in ("radius", "count_rate", "error"))
    ax.errorbar(radius, rate, error, fmt="o", ms=4, color=COLOURS[0], label=_name(table))
    if psf is not None:
        near = (radius >= 5) & (radius <= 10)
        total = nanmedian((rate / psf.energy(radius))[near if near.any() else slice(None)])
        fine = np.linspace(0, 1.1 * radius[-1], 400)
        ax.plot(fine, total * psf.energy(fine), color=BAD, lw=1, label="PSF")
        ax.axhline(total, color=FAINT, lw=0.8, ls="--", label="total")
    ax.set(xlabel="radius [pixels]", ylabel="count rate [DN/s]")
    ax.margins(y=0.1)
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower right")


def draw_brightness(ax, table):
    """
    Draw a profile of surface brightness.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    table : `~astropy.table.Table`
        ``radius``, ``surface_brightness`` and ``error``.
    """
    value, error = (np.asarray(table[key]) for key in ("surface_brightness", "error"))
    ax.errorbar(table["radius"], value, error, fmt="o", ms=4, color=COLOURS[0], label=_name(table))
    ax.axhline(0, color=FAINT, lw=0.8)
    # The axis is linear where noise may cause negative values.
    noise = nanmedian(error)
    if noise > 0:
        ax.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(noise)))
    ax.margins(y=0.1)
    ax.set(xlabel="radius [pixels]", ylabel="surface brightness [DN/s/pixel]")
    ax.legend()


def draw_ratios(ax, table):
    """
    Draw the ratios of measured to expected count rates, subarrays side by side.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    table : `~astropy.table.Table`
        ``filter``, ``subarray``, ``ratio`` and ``ratio_error``.
    """
    filters = list(dict.fromkeys(table["filter"]))
    place = np.array([filters.index(name) for name in table["filter"]])
    names = sorted(set(table["subarray"][np.isfinite(table["ratio"])]))
    for number, name in enumerate(names):
        rows = table["subarray"] == name
        shifted = place[rows] + _SHIFT * (number - (len(names) - 1) / 2)
        ax.errorbar(
            shifted, table["ratio"][rows], table["ratio_error"][rows],
            fmt="o", ms=4, color=COLOURS[number % len(COLOURS)], label=name,
        )  # fmt: skip
    if len(names) > 1:
        ax.legend()
    ax.axhline(1, color=FAINT, lw=0.8)
    ax.set_xticks(range(len(filters)), filters, rotation=45, ha="right")
    ax.margins(x=0.05, y=0.1)
    ax.set(ylabel="measured / expected count rate")


def save_figure(draw, path):
    """Save as PNG a figure that a function draws on axes."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    draw(figure.subplots())
    figure.savefig(path, dpi=150)


def _name(table):
    """Return the label of a measurement: target, filter and subarray."""
    words = [table.meta.get(key) for key in ("TARGNAME", "FILTER", "SUBARRAY")]
    return ", ".join(filter(None, words)) or "star"
