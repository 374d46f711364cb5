"""Figures of a report, drawn into PNG images that are embedded in HTML."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["ReportFigure"]

_STYLE = ["default", {"font.size": 9, "axes.linewidth": 0.6}]

# Sizes in inches: 0.01 inch is one CSS pixel if two figures, or three small ones, share a row.
_SIZE, _SMALL_SIZE = (5.8, 4.6), (3.7, 1.85)

# Two pixels per CSS pixel, so that figures are sharp on dense screens, too.
_DPI = 200


class ReportFigure(NamedTuple):
    """
    A figure of a report.

    Attributes
    ----------
    name, caption : str
        Its identifier in the report, and its description.
    draw : callable
        Function that draws it on given axes.
    small : bool
        True for a pair of images without scales, drawn on two axes.
    """

    name: str
    caption: str
    draw: Callable
    small: bool = False

    def encode(self):
        """Draw the figure and return it as the URL (str) of a PNG image."""
        with style.context(_STYLE):
            size = _SMALL_SIZE if self.small else _SIZE
            figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
            canvas, compressed = FigureCanvasAgg(figure), io.BytesIO()
            self.draw(figure.subplots(1, 2) if self.small else figure.subplots())
            canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        _reduce_colours(drawn).save(compressed, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(compressed.getvalue()).decode()}"


def _reduce_colours(image):
    """Reduce an image to 256 colours: a third of the size, with hardly a difference."""
    # A palette of some of the pixels is as good as one of all pixels, and takes a tenth of the
    # time.
    some = image.resize([length // 3 for length in image.size], Image.Resampling.NEAREST)
    palette = some.quantize(256, Image.Quantize.MAXCOVERAGE)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
