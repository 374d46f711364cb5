"""The step that extracts spectra."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.io import fits
from astropy.table import Table
from bottleneck import nanmedian
from jwst.datamodels import ModelContainer

from soss_background.datamodels.header_text import to_ascii
from soss_background.datamodels.traces import SossTracesModel
from soss_background.detector import GAIN
from soss_background.errors import SkyflatError
from soss_background.extract.frames import Apertures, read_frames
from soss_background.extract.orders import cut_bands, extract_orders
from soss_background.extract.response import (
    flux_factors,
    measure_response,
    read_response,
    read_standard,
)
from soss_background.extract.spectra import join_spectra, make_spectra, merge_orders
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.extract.units import (
    COUNT_RATE,
    FLUX,
    find_flux_unit,
    find_unit,
    write_unit,
)
from soss_background.io.bad_pixels import flag_pixels
from soss_background.io.exposures import find_window, header_of, read_header
from soss_background.io.files import explain_fault
from soss_background.io.segments import SegmentLibrary, average_segments
from soss_background.steps.base import SkyflatStep
from soss_background.steps.parameters import BAD_PIXELS
from soss_background.steps.provenance import wrap_command

__all__ = ["OptimalExtractStep"]

log = logging.getLogger(__name__)

# Parameters that a response depends on, by the keywords of its file.
_NAMES = {"HALFWIDT": "half_width", "APERCORR": "aperture_correction"}

# Parameters that are passed to the algorithm.
_SETTINGS = ("degree", "n_sigma", "reject_cosmic_rays", "subtract_orders")


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
    unit : {"DN/s", "Jy"}
        Unit of the fluxes.
    max_contamination : float
        Largest fraction of the flux that other orders may contribute to a column without a flag.
    response : `~astropy.table.Table` or None
        Response of a standard star, see `~soss_background.extract.response.measure_response`.
    """

    apertures: Apertures
    orders: dict
    unit: str
    max_contamination: float
    response: Table | None = None

    @cached_property
    def merged(self):
        """Median spectrum, see `~soss_background.extract.spectra.merge_orders`."""
        return merge_orders(self.orders, self.max_contamination, self.unit)

    def calibrated(self, factors):
        """Return the results in Jy; ``factors`` are the fluxes for 1 DN/s, by order."""
        orders = {order: each.scaled(factors[order]) for order, each in self.orders.items()}
        return replace(self, orders=orders, unit=FLUX)

    def make_spectra(self, *, box=False):
        """Return the spectra of each segment, see `~soss_background.extract.spectra`."""
        spectra = []
        segments = zip(self.apertures.headers, self.apertures.slices(), strict=True)
        for header, integrations in segments:
            orders = {
                order: each._replace(extraction=each.extraction.cut(integrations))
                for order, each in self.orders.items()
            }
            spectra.append(make_spectra(header, orders, self.max_contamination, self.unit, box=box))
        return spectra


class SegmentSpectra(list):
    """
    The spectra of the segments of an exposure.

    Parameters
    ----------
    extracted : Extracted
        Exposure, profiles and orders from which they are computed.

    Attributes
    ----------
    extracted : Extracted
        See the parameter.
    """

    def __init__(self, extracted):
        super().__init__(extracted.make_spectra())
        self.extracted = extracted


class OptimalExtractStep(SkyflatStep):
    """Extract the spectra of a SOSS exposure."""

    class_alias = "optimal_extract"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise", "interorder", "sosstraces")
    named_files: ClassVar = ("traces", "standard", "response", "bad_pixels")

    spec = f"""
    traces = string(default=None)  # File of the traces, saved by TraceFitStep [default: they are fitted]
    half_width = float(default=20.0, min=5.0, max=60.0)  # Half width of the aperture [pixels]
    degree = integer(default=6, min=0)  # Degree of the polynomials of the profile along the dispersion
    n_sigma = float(default=6.0, min=1.0)  # Significance above which a pixel is a cosmic ray [sigma]
    reject_cosmic_rays = boolean(default=True)  # Reject pixels that deviate from the other integrations, or from the profile
    subtract_orders = boolean(default=True)  # Subtract the flux of the other orders, as far as it is known
    max_contamination = float(default=0.01, min=0.0, max=1.0)  # Fraction of the flux that other orders may contribute; columns above it are flagged
    aperture_correction = boolean(default=False)  # Correct the spectra for the flux beyond the aperture
    standard = string(default=None)  # Model spectrum of a standard star, from which response and efficiency are measured
    response = string(default=None)  # File of a response, saved by a run with standard, that calibrates the spectra to Jy
    response_degree = integer(default=5, min=0)  # Degree of the polynomial through the logarithm of the response of an order
    gain = float(default={GAIN}, min=0.0)  # Gain from which the efficiency is computed [electrons/DN]
    {BAD_PIXELS}
    save_box = boolean(default=False)  # Save the spectra of box extraction too
    save_merged = boolean(default=False)  # Save the median spectrum of all orders, as FITS and as ECSV
    suffix = string(default='x1dints')  # Default suffix for output files
    """  # noqa: E501

    def process(self, *inputs):
        """
        Extract the spectra of exposures, order by order and integration by integration.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            Exposures without their sky, ``_rate``, ``_rateints`` or ``_calints``, and segments of
            time series in any order, unchanged; and their traces, a
            `~soss_background.SossTracesModel`, which are fitted by default. A pipeline may give the
            `~soss_background.io.segments.SegmentLibrary` of an exposure instead, the mean of all
            its integrations, and the traces.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
            The spectra of optimal extraction of all segments; DN/s, or Jy if there is a
            ``response``, or the exposure is in MJy/sr. A `~jwst.datamodels.ModelContainer` of
            these for several exposures. In a pipeline, `SegmentSpectra`.

        Raises
        ------
        SkyflatError
            If a file cannot be read, an exposure is neither in DN/s nor in MJy/sr, or no pixel can
            be used.
        """
        if isinstance(inputs[0], SegmentLibrary):
            return SegmentSpectra(self._extract(*inputs))
        traces = [each for each in inputs if isinstance(each, SossTracesModel)]
        others = [each for each in inputs if not isinstance(each, SossTracesModel)]
        self.check()
        exposures = self.open_segments(*others)
        self.check_output_file(exposures)
        for segments in exposures:
            self.check_unit(segments.headers[0], segments.name)
            self.check_outputs(segments.name, *segments.names)
        results = [self._save_all(segments, *traces) for segments in exposures]
        return results[0] if len(results) == 1 else ModelContainer(results)

    def check(self):
        """Raise unless the files that the user names can be read."""
        if self.response:
            self._read_response()
        if self.standard:
            read_standard(self.standard)
        if self.traces:
            open_traces(self.traces)

    def check_unit(self, header, name):
        """Raise unless the unit of an exposure suits what is asked for."""
        unit, _ = find_flux_unit(header, name)
        for key in ("standard", "response"):
            if getattr(self, key) and unit != COUNT_RATE:
                raise SkyflatError(f"{name}: BUNIT is {find_unit(header)}, but {key} needs DN/s")

    def extract(self, exposure, traces=None):
        """Return what is extracted of one exposure, `Extracted`; save nothing."""
        (segments,) = self.open_segments(exposure)
        return self._extract_segments(segments, traces)

    def _save_all(self, segments, traces=None):
        """Extract an exposure; save what is asked for, and the spectra of several segments."""
        extracted = self._extract_segments(segments, traces)
        self.save_extras(extracted, segments.name)
        return save_segments(self, extracted.make_spectra(), segments)

    def _extract_segments(self, segments, traces):
        """Extract the spectra of the segments of an exposure."""
        return self._extract(segments.library(), average_segments(segments)[0], traces)

    def _extract(self, library, mean, traces=None):
        """Extract the spectra of a library of segments, given the mean of all integrations."""
        name, done = mean.meta.filename, mean.meta.cal_step
        unit, factor = find_flux_unit(header_of(mean), name)
        bad = self.read_bad_pixels(find_window(mean))
        library = library.then(partial(flag_pixels, bad))
        if done.bkg_subtract != "COMPLETE":
            log.warning("%s: its sky is not subtracted", name)
        if done.flat_field != "COMPLETE":
            log.warning("%s: not flat-fielded", name)
        traces = self._find_traces(mean, traces or self.traces)
        _check_subarray(mean, traces)
        image = read_frames(mean).image(0)
        if bad is not None:
            image[bad] = np.nan
        bands = cut_bands(traces, image, self.half_width)
        if not bands:
            raise SkyflatError(f"{name}: no order has a usable pixel")
        apertures = Apertures(bands, self.scratch())
        library.visit(apertures.add, "Reading apertures")
        settings = {name: getattr(self, name) for name in _SETTINGS}
        orders = extract_orders(apertures, traces, image, **settings)
        apertures.clear()
        self._report(name, orders)
        if self.aperture_correction:
            orders = _correct_apertures(orders, name)
        orders = {order: each.scaled(factor) for order, each in orders.items()}
        extracted = Extracted(apertures, orders, unit, self.max_contamination)
        if self.standard:
            extracted = replace(extracted, response=self._measure_response(orders, name))
        return self._apply_response(extracted, name) if self.response else extracted

    def _measure_response(self, orders, name):
        """Return the response from a standard star."""
        settings = {"gain": self.gain, "degree": self.response_degree}
        settings["max_contamination"] = self.max_contamination
        response = measure_response(orders, read_standard(self.standard), **settings)
        if not np.isfinite(response["response"]).any():
            raise SkyflatError(f"{self.standard}: has no flux at the wavelengths of {name}")
        response.meta |= self._describe_aperture()
        return response

    def _describe_aperture(self):
        """Return the parameters on which a response depends, by keyword."""
        return {"HALFWIDT": self.half_width, "APERCORR": self.aperture_correction}

    def _read_response(self):
        """Return the response that the user gives; raise if it is that of another aperture."""
        response = read_response(self.response)
        for key, value in self._describe_aperture().items():
            found = response.meta.get(key, value)
            if found != value:
                raise SkyflatError(f"{self.response}: its {_NAMES[key]} is {found}, not {value}")
        return response

    def _apply_response(self, extracted, name):
        """Return the results in Jy."""
        wavelengths = {order: each.wavelength for order, each in extracted.orders.items()}
        factors = flux_factors(self._read_response(), wavelengths)
        known = {order: np.isfinite(factor).any() for order, factor in factors.items()}
        if not any(known.values()):
            raise SkyflatError(f"{self.response}: has no response at the wavelengths of {name}")
        for order in (order for order, is_known in known.items() if not is_known):
            log.warning("%s: order %d has no response in %s", name, order, self.response)
        return extracted.calibrated(factors)

    def save_extras(self, extracted, name):
        """Save the spectra of the box, the merged spectrum and the response, as asked for."""
        if self.save_box:
            box = join_spectra(extracted.make_spectra(box=True), name)
            self.save_model(box, suffix="x1dboxints", force=True)
        if self.save_merged:
            self._save_table(extracted.merged, extracted, name, "spectrum")
        if extracted.response is not None:
            self._save_table(extracted.response, extracted, name, "response")

    def _report(self, name, orders):
        """Log signal-to-noise ratios and contamination."""
        for order, each in orders.items():
            snr = nanmedian(each.extraction.flux / each.extraction.error)
            share = 1 - np.mean(each.contamination <= self.max_contamination)
            log.info(
                "%s: order %d: median SNR %.1f, flux of other orders in %.0f %% of the columns",
                name, order, snr, 100 * share,
            )  # fmt: skip

    def _find_traces(self, exposure, traces):
        """Return the given traces, or fit them to the mean of the integrations."""
        if traces is None:
            return TraceFitStep(bad_pixels=self.bad_pixels).fit(exposure)
        return open_traces(traces)

    def _save_table(self, table, extracted, name, suffix):
        """Write a table as FITS and as ECSV."""
        target = extracted.apertures.headers[0].meta.target.catalog_name
        command = wrap_command(self.describe_run()["command"])
        table.meta |= {"EXPOSURE": name, "TARGNAME": target, "HISTORY": command}
        as_text = partial(table.write, format="ascii.ecsv")
        writers = {"fits": partial(_write_fits, table), "ecsv": as_text}
        for extension, write in writers.items():
            self.save_product(write, name, suffix, extension)


def _correct_apertures(orders, name):
    """Return the orders with the flux beyond their apertures; raise if it is unknown."""
    if not all(np.isfinite(each.beyond).any() for each in orders.values()):
        raise SkyflatError(f"{name}: no aperture correction, the wings cannot be measured")
    return {order: each.scaled(1 + each.beyond) for order, each in orders.items()}


def save_segments(step, spectra, segments):
    """
    Save the spectra of each segment, and return those of the exposure, see `join_spectra`.

    Parameters
    ----------
    step : `~soss_background.steps.base.SkyflatMixin`
        The step or pipeline that saves its results.
    spectra : list of `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        The spectra of each segment; a single one is not saved here.
    segments : `~soss_background.io.segments.Segments`
        The segments.

    Returns
    -------
    spectra : `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
        The spectra of all segments.
    """
    if len(spectra) > 1:
        for number, each in zip(segments.numbers, spectra, strict=True):
            step.finalize_result(each, [])
            step.save_model(each, segment=f"seg{number:03d}")
    return join_spectra(spectra, segments.name)


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
            hdu.columns[name].unit = write_unit(table[name].unit)
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
