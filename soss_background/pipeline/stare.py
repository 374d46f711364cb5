"""The pipeline from a SOSS exposure to vetted quick-look spectra."""

import logging
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import numpy as np
from astropy.table import Table
from jwst.datamodels import ModelContainer

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.extract.flicker_noise_step import FlickerNoiseStep
from soss_background.extract.inter_order_background_step import InterOrderBackgroundStep
from soss_background.extract.metrics import (
    METRICS,
    list_metrics,
    measure_frame,
    measure_spectra,
    measure_steps,
    measure_traces,
)
from soss_background.extract.optimal_extract_step import (
    OptimalExtractStep,
    open_traces,
    save_segments,
)
from soss_background.extract.spectra import find_factors
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.extract.units import COUNT_RATE, FLUX, find_unit
from soss_background.io.exposures import (
    REQUIRED_CLEAR,
    find_fault,
    find_window,
    header_of,
    header_window,
    root_name,
)
from soss_background.io.segments import average_segments
from soss_background.pipeline.background import background_skyflats, check_combined
from soss_background.report.stare import report_spectra
from soss_background.steps.base import SkyflatPipelineBase
from soss_background.steps.crds_access import crds_reachable
from soss_background.steps.jwst_steps import FlatFieldStep, PhotomStep
from soss_background.steps.metric_ranges import flag_metrics, log_metrics, read_ranges
from soss_background.steps.parameters import name_item
from soss_background.steps.provenance import name_log_files, wrap_command
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep, with_edge

__all__ = ["SossStarePipeline"]

log = logging.getLogger(__name__)

# Types of the reference files of jwst's steps.
_REFERENCES = {"flat_field": "flat", "photom": "photom"}


class SossStarePipeline(SkyflatPipelineBase):
    """
    Extract vetted quick-look spectra of SOSS exposures.

    The steps are skyflat_subtract, clean_flicker_noise, flat_field, inter_order_background (off by
    default), trace_fit, optimal_extract and photom.
    """

    class_alias = "soss_stare"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise", "interorder")

    spec = """
    save_report = boolean(default=True)  # Save a report and a table of the metrics with the products
    ranges = string(default=None)  # YAML or ECSV file of acceptable ranges that override the defaults
    fail_on_qc = boolean(default=False)  # End with an error if a metric is out of its range
    """  # noqa: E501

    step_defs: ClassVar = {
        "skyflat_subtract": SkyflatSubtractStep,
        "clean_flicker_noise": FlickerNoiseStep,
        "flat_field": FlatFieldStep,
        "inter_order_background": InterOrderBackgroundStep,
        "trace_fit": TraceFitStep,
        "optimal_extract": OptimalExtractStep,
        "photom": PhotomStep,
    }

    # Each step finds its own reference files.
    prefetch_references = False

    named_files: ClassVar = ("ranges",)

    def process(self, *inputs):
        """
        Run all steps on each exposure.

        The segments of an exposure share the sky, the traces and the profiles.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            SOSS exposures, ``_rate``, ``_rateints`` or ``_calints``, and segments of time series
            in any order, or an association of these with background exposures; models are left
            unchanged.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
            The spectra of optimal extraction of all segments; DN/s, or Jy if there is a response
            or a PHOTOM reference file. A `~jwst.datamodels.ModelContainer` of these for several
            exposures.

        Raises
        ------
        SkyflatError
            If an exposure cannot be used, or a metric is out of its range and ``fail_on_qc`` is
            set.
        """
        if self.trace_fit.skip or self.optimal_extract.skip:
            raise SkyflatError("trace_fit and optimal_extract cannot be skipped")
        # Find faults before any work is done.
        read_ranges(self.ranges, METRICS)
        self.optimal_extract.check()
        exposures = _drop_f277w(self.open_segments(*inputs))
        self.check_output_file(exposures)
        for segments in exposures:
            if fault := find_fault(segments.headers[0], REQUIRED_CLEAR):
                raise SkyflatError(f"{segments.name}: {fault}")
        if not self.skyflat_subtract.skip:
            self.skyflat_subtract.check(exposures)
        for segments in exposures:
            self._check_sky(segments.headers[0], segments.name)
            check_combined(self.skyflat_subtract, segments)
            self.flat_field.check(segments.headers[0])
            self._check_units(segments.headers[0], segments.name)
            for step in (self.trace_fit, self.optimal_extract):
                if step.bad_pixels:
                    step.read_bad_pixels(header_window(segments.headers[0]))
            self.check_outputs(segments.name, *segments.names)
        made = {}
        results = [self._extract(segments, made) for segments in exposures]
        return results[0] if len(results) == 1 else ModelContainer(results)

    def _check_sky(self, header, name):
        """Raise if the sky is to be subtracted from an exposure that is not in DN/s."""
        is_subtracted = header.get("meta.cal_step.bkg_subtract") == "COMPLETE"
        if self.skyflat_subtract.skip or is_subtracted:
            return
        if (unit := find_unit(header)) != COUNT_RATE:
            raise SkyflatError(
                f"{name}: BUNIT is {unit} and its sky is not subtracted: subtract it in DN/s, or "
                "give --steps.skyflat_subtract.skip=true"
            )

    def _check_units(self, header, name):
        """Raise if the user names a PHOTOM reference file, and fluxes are calibrated already."""
        self.optimal_extract.check_unit(header, name)
        given = self.photom.get_ref_override("photom")
        if given in (None, "N/A"):
            return
        if self.optimal_extract.response:
            raise SkyflatError("response and override_photom are given: give one of them")
        if find_unit(header) != COUNT_RATE:
            fault = f"BUNIT is {find_unit(header)}, but override_photom needs DN/s"
            raise SkyflatError(f"{name}: {fault}")

    def _extract(self, segments, made):
        """Return the spectra of an exposure; save those of its segments."""
        library, mean, images = self._subtract_sky(segments, made)
        if not self.clean_flicker_noise.skip:
            library = self.clean_flicker_noise.run(library, mean)
        library, mean = self._flat_field(library, mean)
        if not self.inter_order_background.skip:
            library = self.inter_order_background.run(library, mean)
            images["Smooth light between the orders"] = library.fit
            mean.data -= library.fit
        traces = self.optimal_extract.traces or self.trace_fit.run(mean)
        spectra = self.optimal_extract.run(library, mean, traces)
        spectra, extracted = self._calibrate_spectra(spectra, spectra.extracted)
        self.optimal_extract.save_extras(extracted, segments.name)
        joined = save_segments(self, spectra, segments)
        self._judge(mean, images, open_traces(traces), extracted)
        return joined

    def _subtract_sky(self, segments, made):
        """Subtract the sky; return the segments, their mean, and images by their captions."""
        step, images = self.skyflat_subtract, {}
        with background_skyflats(step, segments, made):
            library = segments.library() if step.skip else step.run(segments)
        if library.fit is None:
            mean, _ = average_segments(segments)
        else:
            images["The exposure, mean of the integrations"] = library.fit.mean.data
            images["The sky"] = library.fit.sky
            mean = step.remove(library.fit, library.fit.mean.copy())
        return library, mean, images

    def _flat_field(self, library, mean):
        """Flat-field the segments of an exposure, unless they are, and their mean."""
        if mean.meta.cal_step.flat_field == "COMPLETE" or not self._is_available("flat_field"):
            return library.then(_drop_variances), _drop_variances(mean)

        def change(exposure):
            return _drop_variances(self._calibrate("flat_field", exposure))

        with _unsaved(self.flat_field):
            mean = change(mean)
        return library.then(change), mean

    def _calibrate_spectra(self, spectra, extracted):
        """Return the spectra and their orders, in Jy if there is a PHOTOM reference file."""
        if extracted.unit == FLUX or not self._is_available("photom"):
            return spectra, extracted
        spectra = [self._calibrate("photom", each) for each in spectra]
        if spectra[0].meta.cal_step.photom == "COMPLETE":
            extracted = extracted.calibrated(find_factors(extracted.orders, spectra[0]))
        return spectra, extracted

    def plan(self, *inputs):
        """Return the exposures among inputs, and the names of their spectra."""
        exposures = self.open_segments(*inputs)
        return exposures, [f"{root_name(each.name)}_x1dints.fits" for each in exposures]

    def default_suffix(self):
        """Return the suffix of products."""
        return "x1dints"

    def _is_available(self, name):
        """Return whether a step of jwst can look for its reference file; warn if it cannot."""
        step = getattr(self, name)
        if step.skip or step.get_ref_override(_REFERENCES[name]) or crds_reachable():
            return True
        log.warning("%s is skipped: CRDS cannot be reached", type(step).__name__)
        return False

    def _calibrate(self, name, model):
        """Run a step of jwst; raise if a reference file that the user names is not applied."""
        step = getattr(self, name)
        given = step.get_ref_override(_REFERENCES[name])
        model, file_name = step.run(model), model.meta.filename
        status = getattr(model.meta.cal_step, step.class_alias)
        if given not in (None, "N/A") and status != "COMPLETE" and not step.skip:
            raise SkyflatError(f"{file_name}: {name_item(given)} was not applied, does it fit?")
        return model

    def _judge(self, mean, images, traces, extracted):
        """Measure the quality, log it, and write the report."""
        name, orders, response = mean.meta.filename, extracted.orders, extracted.response
        reference = find_window(mean).reference_pixels()
        image = np.where(reference, np.nan, mean.data)
        rows = [each.row for each in orders.values()]
        values = measure_steps(mean)
        values |= measure_frame(image, extracted.apertures, rows)
        if find_unit(header_of(mean)) != COUNT_RATE:
            values["inter_order_mean"] = values["inter_order_sum"] = None
        values |= measure_traces(traces.slices, traces.traces)
        # Columns without a fit are contaminated by other orders.
        known = None if response is None else np.isfinite(response["fit"])
        efficiency = None if response is None else response["efficiency"][known]
        extractions = {order: each.extraction for order, each in orders.items()}
        values |= measure_spectra(extractions, efficiency)
        metrics = list_metrics(mean.meta.subarray.name)
        ranges = read_ranges(self.ranges, metrics)
        qc = flag_metrics(values, metrics, ranges, SkyflatModel().get_dtype("qc"))
        run = self.describe_run()
        if self.save_results and self.save_report:
            caption = "The exposure without its sky" if "The sky" in images else "The exposure"
            images[f"{caption}, and the traces"] = mean.data
            images = {key: np.where(reference, np.nan, each) for key, each in images.items()}
            report = report_spectra(mean, images, traces, extracted, qc, run)
            self.save_product(report.save_html, name, "stare", "html")
            as_text = partial(Table(qc).write, format="ascii.ecsv")
            self.save_product(as_text, name, "stareqc", "ecsv")
        log_metrics(qc, name, fail=self.fail_on_qc)
        for path in name_log_files():
            log.info("The log is kept in %s", path)
        log.info("To repeat this run:\n%s", "\n".join(wrap_command(run["command"])))


def _drop_f277w(exposures):
    """Return the exposures without those with F277W, which have no spectra, if there are others."""
    kept = with_edge(exposures)
    for segments in exposures:
        if segments not in kept:
            log.warning("%s: ignored, since FILTER is F277W", segments.name)
    return kept


def _drop_variances(exposure):
    """Drop the parts of the variance, which no later step needs, from an exposure; return it."""
    exposure.var_poisson = exposure.var_rnoise = None
    return exposure


@contextmanager
def _unsaved(step):
    """Prevent a step that runs on the mean of the integrations from saving its result."""
    given, step.save_results = step.save_results, False
    try:
        yield
    finally:
        step.save_results = given
