"""Figures of traces and spectra; each function draws one on given axes."""

import numpy as np
from bottleneck import nanmedian

from soss_background.extract.metrics import sum_light
from soss_background.steps.figures import BAD, COLOURS, show_image

__all__ = [
    "draw_frame",
    "draw_merged",
    "draw_orders",
    "draw_snr",
    "draw_trace_residuals",
    "draw_white_light",
]


def draw_frame(ax, image, limits, unit, rows=()):
    """Draw an image of the detector, and traces given by their ``rows``."""
    show_image(ax, image, unit, vmin=limits[0], vmax=limits[1])
    for row in rows:
        ax.plot(row, color=BAD, lw=0.6)


def draw_trace_residuals(ax, slices):
    """Draw the residuals of the centroids of slices about the traces."""
    for order, colour in zip(np.unique(slices["order"]), COLOURS, strict=False):
        mine = slices[slices["order"] == order]
        used, found = mine["used"] == 1, mine["detected"] == 1
        ax.plot(mine["column"][used], mine["residual"][used], ".", c=colour, label=f"order {order}")
        clipped = found & ~used
        ax.plot(mine["column"][clipped], mine["residual"][clipped], "x", color=colour)
    ax.axhline(0, color="0.6", lw=0.6)
    used = slices["residual"][slices["used"] == 1]
    limit = 1.2 * np.max(np.abs(used)) if used.size else 1
    ax.set(xlabel="column", ylabel="residual [pixels]", ylim=(-limit, limit))
    ax.legend()


def draw_orders(ax, orders, unit):
    """Draw the median spectrum of each order, by box and by optimal extraction."""
    for (order, each), colour in zip(orders.items(), COLOURS, strict=False):
        extraction = each.extraction
        box = nanmedian(extraction.box_flux, axis=0)
        ax.plot(each.wavelength, box, color=colour, lw=1.5, alpha=0.4)
        optimal = nanmedian(extraction.flux, axis=0)
        ax.plot(each.wavelength, optimal, color=colour, lw=0.6, label=f"order {order}")
    ax.set(xlabel="wavelength [micron]", ylabel=_label(unit))
    ax.legend()


def draw_merged(ax, table, unit, scale="linear"):
    """Draw the merged spectrum, see `~soss_background.extract.spectra.merge_orders`."""
    _draw_by_order(ax, table, "flux")
    ax.set(xlabel="wavelength [micron]", ylabel=_label(unit), yscale=scale)


def _label(unit):
    """Return the label of the axis of a median flux."""
    return f"median flux [{unit}{' per column' if unit == 'DN/s' else ''}]"


def draw_snr(ax, table):
    """Draw the signal-to-noise ratio of the merged spectrum."""
    _draw_by_order(ax, table, "snr")
    ax.set(xlabel="wavelength [micron]", ylabel="SNR of the median", ylim=(0, None))


def _draw_by_order(ax, table, column):
    """Draw a column of the merged spectrum, each order in its colour."""
    for order in np.unique(table["order"]):
        values = np.where(table["order"] == order, table[column], np.nan)
        ax.plot(
            table["wavelength"], values, ".", ms=2, c=COLOURS[order - 1], label=f"order {order}"
        )
    ax.legend()


def draw_white_light(ax, orders):
    """Draw the flux of each order in each integration, relative to its median."""
    for (order, each), colour in zip(orders.items(), COLOURS, strict=False):
        light, error = sum_light(each.extraction)
        if nanmedian(error) < 0.1:
            style = {"fmt": ".", "color": colour, "label": f"order {order}"}
            ax.errorbar(np.arange(len(light)) + 1, light, error, **style)
    ax.set(xlabel="integration", ylabel="flux of all columns / median")
    ax.ticklabel_format(useOffset=False)
    if ax.lines:
        ax.legend()
