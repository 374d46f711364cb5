"""The pictures of a report: which there are, and how they are drawn into a page or a file."""

import base64
import functools
import io
import re
from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from soss_background.report import skyflat_plots as plots

__all__ = [
    "DPI",
    "Picture",
    "draw",
    "embed",
    "picture_exposures",
    "picture_profiles",
    "picture_scatter",
    "picture_sky",
    "picture_vetting",
]

# Takes the colour of the page's text, whatever that is, in pictures of lines.
_PAGE_INK = "#010203"

_STYLE = {
    "font.size": 9,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",
    "axes.facecolor": "none",
}

# Pixels an inch of what is drawn in pixels.
DPI = 130

# Inches.
_SIZE, _SMALL_SIZE = (5.2, 4.2), (4.4, 2.2)


class Picture(NamedTuple):
    """
    A picture of a report.

    Attributes
    ----------
    name : str
        What it is called, as a file too.
    caption : str
        What it shows.
    draw : callable
        Draws it on the axes that it is given.
    small : bool
        True for a pair of images without scales, which takes two axes.
    """

    name: str
    caption: str
    draw: Callable
    small: bool = False


def picture_sky(planes, err, window, coverage=None):
    """
    Show the planes of a skyflat.

    Parameters
    ----------
    planes : dict of ndarray, shape (ny, nx)
        BKG, and BKGDN if there is one, DN/s.
    err : ndarray, shape (ny, nx)
        ERR, DN/s.
    window : `~soss_background.detector.Window`
        The pixels that these are.
    coverage : ndarray of int, shape (ny, nx), optional
        Number of exposures at each pixel.

    Returns
    -------
    pictures : list of Picture
        A picture a plane.
    """
    best = list(planes.values())[-1]
    limits = tuple(np.percentile(best[~window.reference_pixels()], [0.2, 99.8]))
    captions = {"BKG": "BKG: the empirical sky", "BKGDN": "BKGDN: the same, denoised"}
    pictures = [
        _picture(key.lower(), captions[key], plots.draw_sky, plane, window, limits=limits)
        for key, plane in planes.items()
    ]
    caption = "Structure of the sky: what it has beyond its column profile, stars that are left too"
    pictures.append(_picture("structure", caption, plots.draw_structure, best, window))
    pictures.append(_picture("err", "ERR: 1-sigma uncertainty of BKG", plots.draw_sky, err, window))
    if coverage is not None:
        caption = "How many exposures were used at each pixel"
        pictures.append(_picture("coverage", caption, plots.draw_coverage, coverage, window))
    return pictures


def picture_profiles(planes, window):
    """
    Show profiles and step of a skyflat.

    Parameters
    ----------
    planes : dict of ndarray, shape (ny, nx)
        BKG, and BKGDN if there is one, DN/s.
    window : `~soss_background.detector.Window`
        The pixels that these are.

    Returns
    -------
    pictures : list of Picture
        Along the columns, the step, along the rows.
    """
    best = list(planes.values())[-1]
    step = "The step at some rows, from 0 left of it to 1 right of it; dotted: half of its light"
    rows = "Medians over the columns left and right of the step"
    return [
        _picture(
            "column_profile", "Median over the rows", plots.draw_column_profile, planes, window
        ),
        _picture("step", step, plots.draw_step, best, window),
        _picture("row_profiles", rows, plots.draw_row_profiles, best, window),
    ]


def picture_vetting(table, runs):
    """
    Show by how much exposures deviate from the sky.

    Parameters
    ----------
    table : ndarray, shape (n,)
        METADATA.
    runs : list of dict
        Runs that the skyflat was made with, whose parameters tell the threshold.

    Returns
    -------
    pictures : list of Picture
        One; none if the deviations are not known.
    """
    if "deviation" not in (table.dtype.names or ()):
        return []
    keys = ("steps.skyflat_combine.mad_threshold", "mad_threshold")
    known = [run["parameters"][key] for run in runs for key in keys if key in run["parameters"]]
    caption = "Deviation of each exposure from the sky, median over blocks of 32 x 64 pixels"
    threshold = known[-1] if known else None
    return [_picture("deviations", caption, plots.draw_vetting, table, threshold)]


def picture_scatter(views, variation, window):
    """
    Show the scatter of exposures about their sky.

    Parameters
    ----------
    views : list of `~soss_background.report.views.View`
        The exposures.
    variation : ndarray of float, shape (ny, nx)
        Coefficient of variation, per cent.
    window : `~soss_background.detector.Window`
        The pixels that these are.

    Returns
    -------
    pictures : list of Picture
        Coefficient of variation, histograms.
    """
    scatter = "Coefficient of variation: scatter of the exposures at each pixel"
    pulls = (
        "Residuals of the exposures in units of the scatter that ERR makes expect, one grey line "
        "an exposure; star light that is left lifts the right wing"
    )
    return [
        _picture("variation", scatter, plots.draw_variation, variation, window),
        _picture("pulls", pulls, plots.draw_pulls, views),
    ]


def picture_exposures(views, captions, limits):
    """
    Show each exposure with its mask, beside what it shows beyond the sky.

    Parameters
    ----------
    views : list of `~soss_background.report.views.View`
        The exposures.
    captions : list of str
        What they are.
    limits : tuple of float
        Values of the darkest and the brightest colour, DN/s.

    Returns
    -------
    pictures : list of Picture
        A small one an exposure.
    """

    def draw_pair(axes, view):
        plots.draw_exposure(axes[0], view, limits)
        plots.draw_residual(axes[1], view)

    return [
        Picture(f"exposure_{number:03d}", caption, functools.partial(draw_pair, view=view), True)
        for number, (view, caption) in enumerate(zip(views, captions, strict=True), 1)
    ]


def _picture(name, caption, function, *args, **kwargs):
    """Make a picture that a function draws."""
    return Picture(name, caption, lambda ax: function(ax, *args, **kwargs))


def draw(picture, ink="black", titled=False):
    """
    Draw a picture.

    Parameters
    ----------
    picture : Picture
        The picture.
    ink : str
        Colour of lines and letters.
    titled : bool
        True if the caption is its title.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The picture by itself.
    """
    colours = {f"{part}.color": ink for part in ("text", "xtick", "ytick")}
    colours |= {"axes.labelcolor": ink, "axes.edgecolor": ink}
    with mpl.rc_context(_STYLE | colours):
        figure = Figure(figsize=_SMALL_SIZE if picture.small else _SIZE, layout="constrained")
        axes = figure.subplots(1, 2) if picture.small else figure.subplots()
        picture.draw(axes)
        if titled:
            figure.suptitle(picture.caption, fontsize=8, wrap=True)
        if titled and picture.small:
            axes[0].set_title("as combined, mask outlined", fontsize=7)
            axes[1].set_title("beyond the sky, -1 to 1 %", fontsize=7)
    return figure


def embed(picture):
    """
    Draw a picture into a page: one without text in pixels, others such that text stays text.

    Parameters
    ----------
    picture : Picture
        The picture.

    Returns
    -------
    element : `~markupsafe.Markup`
        HTML that needs no other file; lines and letters have the colour of the page's text.
    """
    file, figure = io.BytesIO(), draw(picture, _PAGE_INK)
    if picture.small:
        figure.savefig(file, format="png", dpi=DPI, transparent=True)
        data = base64.b64encode(file.getvalue()).decode()
        return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, picture.caption)
    unsigned = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Ids that are those of this picture, and the same each time.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": picture.name}):
        figure.savefig(file, format="svg", dpi=DPI, transparent=True, metadata=unsigned)
    drawing = file.getvalue().decode()
    drawing = drawing[drawing.index("<svg") :].replace(_PAGE_INK, "currentColor")
    drawing = re.sub(r'(<g id=")', rf"\1{picture.name}_", drawing)
    return Markup(drawing)  # noqa: S704 - what matplotlib draws
