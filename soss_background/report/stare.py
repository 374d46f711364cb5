"""Report on the spectra of an exposure: traces, spectra, quality, and provenance."""

from functools import partial

import jwst
import numpy as np

from soss_background import __version__
from soss_background.extract.guide import GUIDE
from soss_background.extract.metrics import compare_scatter
from soss_background.extract.units import find_unit
from soss_background.io.exposures import header_of
from soss_background.report import stare_plots as plots
from soss_background.report.figures import ReportFigure
from soss_background.report.html import Report, Section

__all__ = ["report_spectra"]

# Largest residual of the sky in the colour scale, as a fraction of the sky, and smallest ratio of
# scatter to error of a light curve that is reported.
_RESIDUAL, _NOISY = 0.03, 1.3


def report_spectra(exposure, frames, traces, extracted, qc, run):
    """
    Describe the spectra of an exposure.

    Parameters
    ----------
    exposure : `~stdatamodels.jwst.datamodels.ImageModel`
        Mean of the integrations, of which only the metadata are used.
    frames : dict of ndarray, shape (ny, nx)
        Images of the detector by caption; NaN in reference pixels. The first is the exposure as it
        came, the last the exposure that is extracted, shown with its traces; between them the sky
        may come first.
    traces : `~soss_background.SossTracesModel`
        The traces.
    extracted : `~soss_background.extract.optimal_extract_step.Extracted`
        The spectra.
    qc : ndarray
        Table of metrics.
    run : dict
        ``command`` and ``parameters``.

    Returns
    -------
    report : `~soss_background.report.html.Report`
        The report.
    """
    orders, unit = extracted.orders, extracted.unit
    rows = [each.row for each in orders.values()]
    figures = _frame_figures(frames, rows, find_unit(header_of(exposure)))
    figures += _spectrum_figures(traces, orders, extracted.merged, unit)
    sections = [Section("Traces and spectra", figures, _describe_scatter(orders))]
    name = exposure.meta.filename
    records = {"facts": _facts(exposure.meta), "versions": _versions(exposure.meta)}
    return Report(name, qc, sections, [run], GUIDE, **records)


def _facts(meta):
    """Return target, date and configuration of an exposure by label."""
    pwcpos = meta.instrument.pupil_position
    values = {
        "Program": meta.observation.program_number,
        "Target": meta.target.catalog_name or meta.target.proposer_name,
        "Observation": meta.observation.observation_number,
        "Date": meta.observation.date,
        "Subarray": meta.subarray.name,
        "Pupil wheel": None if pwcpos is None else f"{pwcpos:.3f}\N{DEGREE SIGN}",
        "Integrations": meta.exposure.nints,
    }
    return {label: str(value) for label, value in values.items() if value is not None}


def _versions(meta):
    """Return reference files and software versions of an exposure by label."""
    values = {
        "Flat": meta.ref_file.flat.name,
        "soss_background": __version__,
        "jwst": jwst.__version__,
        "Calibrated by jwst": meta.calibration_software_version,
        "CRDS context": meta.ref_file.crds.context_used,
    }
    return {label: str(value) for label, value in values.items() if value is not None}


def _describe_scatter(orders):
    """Return a sentence for each order whose light curve scatters more than its errors."""
    sentences = []
    for order, each in orders.items():
        scatter, error = compare_scatter(each.extraction)
        if scatter > _NOISY * error:
            sentences.append(
                f"The light curve of order {order} scatters by {100 * scatter:.2g} %, "
                f"{scatter / error:.1f} times its errors: 1/f noise or pointing jitter, which are "
                "not in ERR, or cosmic rays that remain."
            )
    return " ".join(sentences)


def _frame_figures(frames, rows, unit):
    """List the figures of detector images; the last shows the traces."""
    figures, sky = [], frames.get("The sky")
    for number, (caption, image) in enumerate(frames.items(), 1):
        limits, shown = tuple(np.nanpercentile(image, [1, 90])), ()
        if number == len(frames):
            shown = rows
            if sky is not None:
                limit = _RESIDUAL * np.nanmedian(sky)
                limits, caption = (-limit, limit), f"{caption}; colours at 3 % of the sky"
        elif number > 1:
            limits = tuple(np.nanpercentile(image, [0.5, 99.5]))
        settings = {"image": image, "limits": limits, "rows": shown, "unit": unit}
        figures.append(
            ReportFigure(f"frame{number}", caption, partial(plots.draw_frame, **settings))
        )
    return figures


def _spectrum_figures(traces, orders, merged, unit):
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
            partial(plots.draw_orders, orders=orders, unit=unit),
        ),
        ReportFigure(
            "merged",
            "Merged spectrum: at each wavelength the order with the higher signal-to-noise ratio",
            partial(plots.draw_merged, table=merged, unit=unit),
        ),
        ReportFigure(
            "merged_log",
            "Merged spectrum, logarithmic scale",
            partial(plots.draw_merged, table=merged, unit=unit, scale="log"),
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
