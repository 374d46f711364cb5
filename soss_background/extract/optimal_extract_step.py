"""The step that extracts spectra."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.io import fits
from astropy.table import Table
from bottleneck import nanmedian

from soss_background.datamodels.header_text import to_ascii
from soss_background.datamodels.traces import SossTracesModel
from soss_background.detector import GAIN
from soss_background.errors import SkyflatError
from soss_background.extract.frames import Apertures, read_frames
from soss_background.extract.orders import cut_bands, extract_orders
from soss_background.extract.response import measure_response, read_standard
from soss_background.extract.spectra import join_spectra, make_spectra, merge_orders
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.io.exposures import read_header
from soss_background.io.files import explain_fault
from soss_background.steps.base import SkyflatStep
from soss_background.steps.provenance import wrap_command

__all__ = ["OptimalExtractStep"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Extracted:
    """
    Extraction results for an exposure.

    Attributes
    ----------
    apertures : `~soss_background.extract.frames.Apertures`
        The integrations of all segments.
    orders : dict
        The `~soss_background.extract.optimal.Order` of each order.
    merged : `~astropy.table.Table`
        Median spectrum of all orders, see `~soss_background.extract.spectra.merge_orders`.
    response : `~astropy.table.Table` or None
        Response of a standard star, see `~soss_background.extract.response.measure_response`.
    """

    apertures: Apertures
    orders: dict
    merged: Table
    response: Table | None

    def make_spectra(self, max_contamination, **kwargs):
        """Return the spectra of each segment, see `~soss_background.extract.spectra`."""
        spectra = []
        segments = zip(self.apertures.headers, self.apertures.slices(), strict=True)
        for header, integrations in segments:
            orders = {
                order: each._replace(extraction=each.extraction.cut(integrations))
                for order, each in self.orders.items()
            }
            spectra.append(make_spectra(header, orders, max_contamination, **kwargs))
        return spectra


class OptimalExtractStep(SkyflatStep):
    """Extract the spectra of a SOSS exposure."""

    class_alias = "optimal_extract"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise", "interorder", "sosstraces")
    named_files: ClassVar = ("traces", "standard")

    spec = f"""
    traces = string(default=None)  # Traces of the exposure, a file that TraceFitStep saved [default: they are fitted]
    half_width = float(default=20.0, min=5.0, max=60.0)  # Half of the width of the aperture [pixels]
    degree = integer(default=6, min=0)  # Degree of the polynomials of the profile along the dispersion
    n_sigma = float(default=6.0, min=1.0)  # Significance above which a pixel is a cosmic ray [sigma]
    max_contamination = float(default=0.01, min=0.0, max=1.0)  # Columns in which other orders contribute a larger fraction of the flux are flagged
    standard = string(default=None)  # Model spectrum of a standard star, to measure response and efficiency
    response_degree = integer(default=5, min=0)  # Degree of the polynomial through the logarithm of the response of an order
    gain = float(default={GAIN}, min=0.0)  # Gain, for the efficiency [electrons/DN]
    save_box = boolean(default=False)  # Save the spectra of box extraction, too
    save_merged = boolean(default=False)  # Save the median spectrum of all orders, as FITS and as ECSV
    suffix = string(default='x1dints')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init, traces=None, segments=None, keep=None):
        """
        Extract the spectra of an exposure, order by order and integration by integration.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure without its sky, ``_rate``, ``_rateints`` or ``_calints``; unchanged. The
            mean of the integrations if ``segments`` are given.
        traces : str, `~pathlib.Path` or `~soss_background.SossTracesModel`, optional
            Its traces, which are fitted by default.
        segments : `~soss_background.io.segments.SegmentLibrary`, optional
            Its segments; by default the exposure is the only one.
        keep : callable, optional
            Called with the result of `extract`.

        Returns
        -------
        list of `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
            The spectra of optimal extraction of each segment, DN/s; the model alone without
            ``segments``.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or no pixel can be used.
        """
        exposure = self.open_exposure(init)
        extracted = self.extract(exposure, traces, segments)
        if keep is not None:
            keep(extracted)
        if self.save_box:
            box = extracted.make_spectra(self.max_contamination, box=True)
            box = join_spectra(box, exposure.meta.filename)
            self.save_model(box, suffix="x1dboxints", force=True)
        if self.save_merged:
            self._save_table(extracted.merged, exposure, "spectrum")
        if extracted.response is not None:
            self._save_table(extracted.response, exposure, "response")
        spectra = extracted.make_spectra(self.max_contamination)
        return spectra[0] if segments is None else spectra

    def check(self):
        """Raise unless the files that the user names can be read."""
        if self.standard:
            read_standard(self.standard)
        if self.traces:
            open_traces(self.traces)

    def extract(self, init, traces=None, segments=None):
        """Extract an exposure without saving anything; for parameters and errors see `process`."""
        standard = read_standard(self.standard) if self.standard else None
        exposure = self.open_exposure(init)
        name, done = exposure.meta.filename, exposure.meta.cal_step
        if done.bkg_subtract != "COMPLETE":
            log.warning("%s: its sky is not subtracted", name)
        if done.flat_field != "COMPLETE":
            log.warning("%s: not flat-fielded", name)
        mean = read_frames(exposure).average()
        traces = self._find_traces(exposure, traces or self.traces)
        _check_subarray(exposure, traces)
        bands = cut_bands(traces, mean, self.half_width)
        if not bands:
            raise SkyflatError(f"{name}: no order has a usable pixel")
        apertures = Apertures(bands, None if segments is None else self.scratch())
        if segments is None:
            apertures.add(exposure)
        else:
            segments.visit(apertures.add, "Reading apertures")
        orders = extract_orders(apertures, traces, mean, degree=self.degree, n_sigma=self.n_sigma)
        self._report(name, orders)
        limit = self.max_contamination
        response = None
        if standard:
            settings = {"gain": self.gain, "degree": self.response_degree}
            response = measure_response(orders, standard, max_contamination=limit, **settings)
            if not np.isfinite(response["response"]).any():
                raise SkyflatError(f"{self.standard}: no flux at the wavelengths of {name}")
        return Extracted(apertures, orders, merge_orders(orders, limit), response)

    def _report(self, name, orders):
        """Log signal-to-noise ratios and contamination."""
        for order, (_, _, extraction, contamination) in orders.items():
            snr = nanmedian(extraction.flux / extraction.error)
            share = 1 - np.mean(contamination <= self.max_contamination)
            log.info(
                "%s: order %d: median SNR %.1f, %.0f %% of the columns have light of other orders",
                name, order, snr, 100 * share,
            )  # fmt: skip

    def _find_traces(self, exposure, traces):
        """Return the given traces, or fit them."""
        if traces is None:
            return TraceFitStep().run(exposure)
        return open_traces(traces)

    def _save_table(self, table, exposure, suffix):
        """Write a table as FITS and as ECSV."""
        name, target = exposure.meta.filename, exposure.meta.target.catalog_name
        command = wrap_command(self.describe_run()["command"])
        table.meta = {"EXPOSURE": name, "TARGNAME": target, "HISTORY": command}
        as_text = partial(table.write, format="ascii.ecsv")
        writers = {"fits": partial(_write_fits, table), "ecsv": as_text}
        for extension, write in writers.items():
            self.save_product(write, name, suffix, extension)


def _write_fits(table, path):
    """Write a table with its units unchanged: the FITS standard has no DN."""
    plain = table.copy()
    strings = {key: value for key, value in table.meta.items() if isinstance(value, str)}
    plain.meta |= {key: to_ascii(string) for key, string in strings.items()}
    for column in plain.columns.values():
        column.unit = None
    hdu = fits.table_to_hdu(plain)
    for name in table.colnames:
        if table[name].unit:
            hdu.columns[name].unit = str(table[name].unit).replace(" ", "")
    hdu.writeto(path)


def _check_subarray(exposure, traces):
    """Raise unless traces and exposure have the same pixels."""
    keys = ("name", "xstart", "ystart")
    mine, theirs = (
        [getattr(model.meta.subarray, key) for key in keys] for model in (exposure, traces)
    )
    if mine != theirs:
        raise SkyflatError(
            f"{exposure.meta.filename}: its subarray is {mine[0]}, that of the traces {theirs[0]}"
        )
    columns = traces.traces["column"]
    if np.setdiff1d(columns, np.arange(exposure.data.shape[-1])).size:
        raise SkyflatError(f"{exposure.meta.filename}: its columns are not those of the traces")


def open_traces(traces):
    """Return the traces of a product of TraceFitStep, a file or a model; raise if it has none."""
    if isinstance(traces, SossTracesModel):
        return traces
    path = Path(traces)
    if read_header(path).get("meta.model_type") != SossTracesModel.__name__:
        raise SkyflatError(f"{path}: holds no traces, see TraceFitStep")
    with explain_fault(path):
        model = SossTracesModel(path)
        if model.traces is None:
            raise SkyflatError(f"{path}: its table of traces is missing")
        return model
