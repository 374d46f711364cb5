"""The step that extracts spectra."""

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.io import fits
from bottleneck import nanmedian

from soss_background.datamodels.traces import SossTracesModel
from soss_background.detector import GAIN
from soss_background.errors import SkyflatError
from soss_background.extract.contamination import estimate_contamination, measure_wings
from soss_background.extract.frames import as_cubes, mean_image
from soss_background.extract.optimal import Order, extract_order
from soss_background.extract.profile import cut_band
from soss_background.extract.response import measure_response, read_standard
from soss_background.extract.spectra import make_spectra, merge_orders
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.io.exposures import read_header
from soss_background.sky.traces import ORDERS
from soss_background.steps.base import SkyflatStep
from soss_background.steps.provenance import wrap_command

__all__ = ["OptimalExtractStep"]

log = logging.getLogger(__name__)

# Pixels nearer to the trace of a fainter and of a brighter order tell nothing of the profile.
_NEAR, _BRIGHT_NEAR = 18, 40


class OptimalExtractStep(SkyflatStep):
    """
    Extract the spectra of a SOSS exposure.

    Attributes
    ----------
    orders : dict
        After a run, all that is known of each order, see `~soss_background.extract.optimal.Order`.
    response : `~astropy.table.Table` or None
        After a run on a standard star, see `~soss_background.extract.response.measure_response`.
    """

    class_alias = "optimal_extract"

    spec = f"""
    traces = string(default=None)  # Traces of the exposure, as TraceFitStep saves them [default: they are fitted]
    half_width = float(default=20.0, min=5.0, max=60.0)  # Half of the width of the aperture [pixels]
    degree = integer(default=6, min=0)  # Degree of the polynomials of the profile along the dispersion
    n_sigma = float(default=6.0, min=1.0)  # Significance above which a pixel is a cosmic ray [sigma]
    max_contamination = float(default=0.01, min=0.0)  # Columns of which a larger part of the light is of other orders are flagged
    standard = string(default=None)  # Model spectrum of a standard star, to measure response and efficiency
    response_degree = integer(default=5, min=0)  # Degree of the polynomial through the logarithm of the response of an order
    gain = float(default={GAIN}, min=0.0)  # Gain, for the efficiency [electrons/DN]
    save_box = boolean(default=False)  # Save the spectra of the box too
    save_merged = boolean(default=False)  # Save the median spectrum of all orders, as FITS and as text
    suffix = string(default='x1dints')  # Default suffix for output files
    """  # noqa: E501

    orders: ClassVar = {}
    response = None

    def process(self, init, traces=None):
        """
        Extract the spectra of an exposure, order by order and integration by integration.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure without its sky, ``_rate``, ``_rateints`` or ``_calints``; unchanged.
        traces : str, `~pathlib.Path` or `~soss_background.SossTracesModel`, optional
            Its traces; they are fitted if they are not given.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
            The spectra of optimal extraction.

        Raises
        ------
        SkyflatError
            If a file cannot be read, or no pixel can be used.
        """
        standard = read_standard(self.standard) if self.standard else None
        exposure = self.open_exposure(init)
        done = {"its sky is in it": "bkg_subtract", "not flat-fielded": "flat_field"}
        for fault, key in done.items():
            if getattr(exposure.meta.cal_step, key) != "COMPLETE":
                log.warning("%s: %s", exposure.meta.filename, fault)
        traces = self._find_traces(exposure, traces or self.traces)
        _check_subarray(exposure, traces)
        data, err, good = as_cubes(exposure)
        places = {order: traces.rows(order, data.shape[-1]) for order in ORDERS}
        rows = {order: row for order, (row, _) in places.items() if self._is_seen(row, good)}
        if not rows:
            raise SkyflatError(f"{exposure.meta.filename}: no order has a usable pixel")
        extractions = {order: self._extract(order, rows, data, err, good) for order in rows}
        contamination = self._contamination(mean_image(data, good), rows, extractions)
        self.orders = {}
        for order, each in extractions.items():
            wavelength = places[order][1][each.band.columns]
            self.orders[order] = Order(rows[order], wavelength, each, contamination[order])
        self._report(exposure.meta.filename)
        spectra = make_spectra(exposure, self.orders, self.max_contamination)
        if self.save_box:
            box = make_spectra(exposure, self.orders, self.max_contamination, box=True)
            self.save_model(box, suffix="x1dboxints", force=True)
        if self.save_merged:
            merged = merge_orders(self.orders, self.max_contamination)
            self._save_table(merged, exposure, "spectrum")
        if standard:
            self.response = measure_response(
                self.orders,
                standard,
                gain=self.gain,
                degree=self.response_degree,
                max_contamination=self.max_contamination,
            )
            self._save_table(self.response, exposure, "response")
        return spectra

    def _is_seen(self, row, good):
        """Tell whether an order has a usable pixel."""
        band = cut_band(row, good.shape[-2:], self.half_width)
        return bool(np.any(band.take(good) & (band.weight > 0)))

    def _report(self, name):
        """Tell how good the spectra are."""
        for order, (_, _, extraction, contamination) in self.orders.items():
            snr = nanmedian(extraction.flux / extraction.error)
            share = 1 - np.mean(contamination <= self.max_contamination)
            log.info(
                "%s: order %d: median SNR %.1f, %.0f %% of the columns have light of other orders",
                name, order, snr, 100 * share,
            )  # fmt: skip

    def _find_traces(self, exposure, traces):
        """Open the traces that are given, or fit them."""
        if traces is None:
            return TraceFitStep().run(exposure)
        if isinstance(traces, SossTracesModel):
            return traces
        return open_traces(Path(traces))

    def _extract(self, order, rows, data, err, good):
        """Extract an order."""
        band = cut_band(rows[order], data.shape[-2:], self.half_width)
        free = np.ones(band.rows.shape, dtype=bool)
        for other, row in rows.items():
            if other != order:
                reach = _NEAR if other > order else _BRIGHT_NEAR
                free &= ~(np.abs(band.rows - row[band.columns, np.newaxis]) < reach)
        settings = {"degree": self.degree, "n_sigma": self.n_sigma, "profile_mask": free}
        return extract_order(data, err, good, band, progress=f"Order {order}", **settings)

    def _contamination(self, image, rows, extractions):
        """Estimate the part of the light that is of other orders; NaN if nothing tells it."""
        first = min(rows)
        flux = np.full(image.shape[1], np.nan)
        flux[extractions[first].band.columns] = nanmedian(extractions[first].flux, axis=0)
        others = [row for order, row in rows.items() if order != first]
        wings = measure_wings(image, rows[first], others, flux)
        if wings is None:
            log.warning("The light of other orders cannot be told: no column shows one alone")
            unknown = {key: len(each.band.columns) for key, each in extractions.items()}
            return {key: np.full(number, np.nan) for key, number in unknown.items()}
        return estimate_contamination(rows, extractions, wings)

    def _save_table(self, table, exposure, suffix):
        """Write a table as FITS and as text."""
        name, target = exposure.meta.filename, exposure.meta.target.catalog_name
        command = wrap_command(self.describe_run()["command"])
        table.meta = {"EXPOSURE": name, "TARGNAME": target, "HISTORY": command}
        as_text = partial(table.write, format="ascii.ecsv")
        writers = {"fits": partial(_write_fits, table), "ecsv": as_text}
        for extension, write in writers.items():
            self.save_product(write, name, suffix, extension)


def _write_fits(table, path):
    """Write a table with its units as they are: FITS itself knows no DN."""
    plain = table.copy()
    for column in plain.columns.values():
        column.unit = None
    hdu = fits.table_to_hdu(plain)
    for name in table.colnames:
        if table[name].unit:
            hdu.columns[name].unit = str(table[name].unit).replace(" ", "")
    hdu.writeto(path)


def _check_subarray(exposure, traces):
    """Make sure that traces are those of the pixels of an exposure."""
    keys = ("name", "xstart", "ystart")
    mine, theirs = (
        [getattr(model.meta.subarray, key) for key in keys] for model in (exposure, traces)
    )
    if mine != theirs:
        raise SkyflatError(
            f"{exposure.meta.filename}: its subarray is {mine[0]}, that of the traces {theirs[0]}"
        )


def open_traces(path):
    """
    Open traces.

    Parameters
    ----------
    path : `~pathlib.Path`
        A file as TraceFitStep saves it.

    Returns
    -------
    `~soss_background.SossTracesModel`
        The traces.

    Raises
    ------
    SkyflatError
        If it cannot be read, or holds no traces.
    """
    if read_header(path).get("meta.model_type") != SossTracesModel.__name__:
        raise SkyflatError(f"{path}: holds no traces, see TraceFitStep")
    return SossTracesModel(path)
