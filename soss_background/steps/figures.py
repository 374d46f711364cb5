"""Colours and images of all figures of the package."""

import matplotlib as mpl

__all__ = ["BAD", "COLOURS", "FAINT", "show_image", "show_pixels"]

# Colours of lines, of bad data, and of lines in the background.
COLOURS, BAD, FAINT = ("#2a8fbd", "#e07b00", "#3a9d5d", "#b052c0"), "#d1495b", "0.6"


def show_image(ax, image, label, title="", cmap="viridis", **stretch):
    """
    Draw an image of the detector with its colour bar; NaN is grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    image : ndarray, shape (ny, nx)
        The image.
    label : str
        Label of the colour bar, with the unit.
    title : str, optional
        Title of the axes.
    cmap : str, optional
        Name of a colour map.
    **stretch
        See `matplotlib.axes.Axes.imshow`, for example ``vmin`` and ``vmax``.
    """
    shown = show_pixels(ax, image, cmap, **stretch)
    ax.set(title=title, xlabel="column", ylabel="row")
    ax.figure.colorbar(shown, ax=ax, label=label, shrink=0.85)


def show_pixels(ax, image, cmap, **stretch):
    """
    Draw an image of the detector alone; NaN is grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    image : ndarray, shape (ny, nx)
        The image.
    cmap : str
        Name of a colour map.
    **stretch
        See `matplotlib.axes.Axes.imshow`, for example ``vmin`` and ``vmax``.

    Returns
    -------
    shown : `~matplotlib.image.AxesImage`
        The image, for a colour bar.
    """
    colours = mpl.colormaps[cmap].with_extremes(bad=FAINT)
    return ax.imshow(image, origin="lower", cmap=colours, aspect="auto", **stretch)
