"""How images are shown, in all pictures of the package."""

import matplotlib as mpl

__all__ = ["BAD", "COLOURS", "FAINT", "show_image", "show_pixels"]

# Colours of lines that are readable on white and on black; of what is bad, and of what is less.
COLOURS, BAD, FAINT = ("#2a8fbd", "#e07b00", "#3a9d5d", "#b052c0"), "#d1495b", "0.6"


def show_image(ax, image, label, title="", cmap="viridis", **stretch):
    """
    Show an image of the detector with its colour bar; what is NaN is grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Where it is drawn.
    image : ndarray, shape (ny, nx)
        The image.
    label : str
        What its values are, with their unit.
    title : str, optional
        What it is.
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
    Show an image of the detector by itself; what is NaN is grey.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Where it is drawn.
    image : ndarray, shape (ny, nx)
        The image.
    cmap : str
        Name of a colour map.
    **stretch
        See `matplotlib.axes.Axes.imshow`, for example ``vmin`` and ``vmax``.

    Returns
    -------
    shown : `~matplotlib.image.AxesImage`
        What a colour bar is made of.
    """
    colours = mpl.colormaps[cmap].with_extremes(bad=FAINT)
    return ax.imshow(image, origin="lower", cmap=colours, aspect="auto", **stretch)
