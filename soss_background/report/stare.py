"""Report on the spectra of an exposure: traces, spectra, quality, and provenance."""

from functools import partial

import numpy as np

from soss_background.report import stare_plots as plots
from soss_background.report.figures import ReportFigure
from soss_background.report.html import Report, Section

__all__ = ["report_spectra"]


def report_spectra(name, frames, traces, orders, merged, qc, run):
    """Return the `Report` on the spectra; ``frames`` (DN/s) by caption, the last with traces."""
    figures = _frame_figures(frames, [each.row for each in orders.values()])
    figures += _spectrum_figures(traces, orders, merged)
    return Report(name, qc, [Section("Traces and spectra", figures)], [run])


def _frame_figures(frames, rows):
    """List the figures of detector images; the last shows the traces."""
    figures = []
    for number, (caption, image) in enumerate(frames.items(), 1):
        limits = tuple(np.nanpercentile(image, [1, 90]))
        shown = rows if number == len(frames) else ()
        draw = partial(plots.draw_frame, image=image, limits=limits, rows=shown)
        figures.append(ReportFigure(f"frame{number}", caption, draw))
    return figures


def _spectrum_figures(traces, orders, merged):
    """List the figures of traces and spectra."""
    return [
        ReportFigure(
            "residuals",
            "Centroids of slices about the fitted traces; crosses were clipped",
            partial(plots.draw_trace_residuals, slices=np.array(traces.slices)),
        ),
        ReportFigure(
            "orders",
            "Median spectra of the orders: optimal extraction (thin), box extraction (broad)",
            partial(plots.draw_orders, orders=orders),
        ),
        ReportFigure(
            "merged",
            "Merged spectrum: at each wavelength the order with the higher signal-to-noise ratio",
            partial(plots.draw_merged, table=merged),
        ),
        ReportFigure(
            "merged_log",
            "Merged spectrum, logarithmic scale",
            partial(plots.draw_merged, table=merged, scale="log"),
        ),
        ReportFigure(
            "snr",
            "Signal-to-noise ratio of the merged spectrum",
            partial(plots.draw_snr, table=merged),
        ),
        ReportFigure(
            "white_light",
            "Flux of all columns in each integration",
            partial(plots.draw_white_light, orders=orders),
        ),
    ]
