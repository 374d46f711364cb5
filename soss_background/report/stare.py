"""A page that shows the spectra of an exposure, their quality, and where they come from."""

from functools import partial

import numpy as np

from soss_background.report import stare_plots as plots
from soss_background.report.descriptions import describe_metric, judge
from soss_background.report.pictures import Picture
from soss_background.report.skyflat import write_page
from soss_background.steps.qc import failures

__all__ = ["StareReport"]


class StareReport:
    """
    All that a page shows of the spectra of an exposure.

    Parameters
    ----------
    name : str
        Name of the exposure.
    frames : dict of ndarray, shape (ny, nx)
        By their captions the images that are shown, DN/s.
    traces : `~soss_background.SossTracesModel`
        Its traces.
    orders : dict
        For each order its `~soss_background.extract.optimal.Order`.
    merged : `~astropy.table.Table`
        The spectrum of all orders.
    qc : ndarray
        The metrics with their ranges.
    run : dict
        ``command`` and ``parameters`` of the run.

    Attributes
    ----------
    qc : list of dict
        Metrics, made ready for people.
    verdict, flag : str
        How many metrics are in range, and whether all are.
    pictures : list of `~soss_background.report.pictures.Picture`
        The pictures.
    """

    def __init__(self, name, frames, traces, orders, merged, qc, run):
        self.name, self.run = name, run
        self.qc = [describe_metric(row) for row in qc]
        self.verdict, self.flag = judge(self.qc, failures(qc))
        rows = [each.row for each in orders.values()]
        self.pictures = [*picture_frames(frames, rows), *picture_spectra(traces, orders, merged)]

    def save_html(self, path):
        """
        Write a page that needs nothing else: no network, no other file.

        Parameters
        ----------
        path : `~pathlib.Path`
            The page.
        """
        write_page(path, "stare.html", title=self.name, report=self)


def picture_frames(frames, rows):
    """
    Show images of the detector.

    Parameters
    ----------
    frames : dict of ndarray, shape (ny, nx)
        The images by their captions, DN/s; the last is shown with the traces.
    rows : sequence of ndarray, shape (nx,)
        Rows of the traces.

    Returns
    -------
    pictures : list of `~soss_background.report.pictures.Picture`
        The pictures.
    """
    pictures = []
    for number, (caption, image) in enumerate(frames.items(), 1):
        limits = tuple(np.nanpercentile(image, [1, 90]))
        shown = rows if number == len(frames) else ()
        draw = partial(plots.draw_frame, image=image, limits=limits, rows=shown)
        pictures.append(Picture(f"frame{number}", caption, draw))
    return pictures


def picture_spectra(traces, orders, merged):
    """
    Show traces and spectra.

    Parameters
    ----------
    traces : `~soss_background.SossTracesModel`
        The traces.
    orders : dict
        For each order its `~soss_background.extract.optimal.Order`.
    merged : `~astropy.table.Table`
        The spectrum of all orders.

    Returns
    -------
    pictures : list of `~soss_background.report.pictures.Picture`
        The pictures.
    """
    shown = {
        "residuals": (
            "Centroids of slices about the fitted traces; crosses were left out",
            partial(plots.draw_trace_residuals, slices=np.array(traces.slices)),
        ),
        "orders": (
            "Median spectra of the orders: thin by optimal extraction, broad by the box",
            partial(plots.draw_orders, orders=orders),
        ),
        "merged": (
            "All orders: of each wavelength the order that shows it best",
            partial(plots.draw_merged, table=merged),
        ),
        "merged_log": (
            "The same in a logarithmic scale",
            partial(plots.draw_merged, table=merged, scale="log"),
        ),
        "snr": ("Its signal-to-noise ratio", partial(plots.draw_snr, table=merged)),
        "white_light": (
            "Light of all columns in each integration",
            partial(plots.draw_white_light, orders=orders),
        ),
    }
    return [Picture(name, *content) for name, content in shown.items()]
