"""Colours and detector images that all figures share."""

import matplotlib as mpl

__all__ = ["BAD", "COLOURS", "FAINT", "show_image", "show_pixels"]

# Colours of lines, of bad data, and of lines in the background.
COLOURS, BAD, FAINT = ("#2a8fbd", "#e07b00", "#3a9d5d", "#b052c0"), "#d1495b", "0.6"


def show_image(ax, image, label, title="", cmap="viridis", **stretch):
    """Draw a detector image with a colour bar; pass ``stretch`` to `imshow`; NaN is grey."""
    shown = show_pixels(ax, image, cmap, **stretch)
    ax.set(title=title, xlabel="column", ylabel="row")
    ax.figure.colorbar(shown, ax=ax, label=label, shrink=0.85)


def show_pixels(ax, image, cmap, **stretch):
    """Draw a detector image without colour bar; return the `AxesImage`; NaN is grey."""
    colours = mpl.colormaps[cmap].with_extremes(bad=FAINT)
    return ax.imshow(image, origin="lower", cmap=colours, aspect="auto", **stretch)
