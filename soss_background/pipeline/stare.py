"""The pipeline from a SOSS exposure to vetted quick-look spectra."""

import logging
from functools import partial
from typing import ClassVar

import numpy as np
from astropy.table import Table
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.extract.flicker_noise_step import FlickerNoiseStep
from soss_background.extract.frames import read_frames
from soss_background.extract.inter_order_background_step import InterOrderBackgroundStep
from soss_background.extract.metrics import (
    METRICS,
    measure_frame,
    measure_spectra,
    measure_steps,
    measure_traces,
)
from soss_background.extract.optimal_extract_step import OptimalExtractStep, open_traces
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.io.exposures import header_of
from soss_background.pipeline.background import background_skyflats
from soss_background.report.stare import report_spectra
from soss_background.steps.base import SkyflatPipelineBase
from soss_background.steps.crds_access import crds_reachable
from soss_background.steps.jwst_steps import FlatFieldStep, PhotomStep
from soss_background.steps.metric_ranges import flag_metrics, log_metrics, read_ranges
from soss_background.steps.parameters import name_item
from soss_background.steps.provenance import name_log_files, wrap_command
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep, sort_members

__all__ = ["SossStarePipeline"]

log = logging.getLogger(__name__)


class SossStarePipeline(SkyflatPipelineBase):
    """
    Extract vetted quick-look spectra of a SOSS exposure.

    The steps are skyflat_subtract, clean_flicker_noise, flat_field, inter_order_background (off by
    default), trace_fit, optimal_extract and photom.
    """

    class_alias = "soss_stare"

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise", "interorder")

    spec = """
    save_report = boolean(default=True)  # With the products, save a report on them, and the metrics as a table
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

    # No temporary files.
    in_memory = True

    named_files: ClassVar = ("ranges",)

    def process(self, init):
        """
        Run all steps on an exposure.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            A SOSS exposure, ``_rate``, ``_rateints`` or ``_calints``, or an association of one with
            background exposures; a model is left unchanged.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.TSOMultiSpecModel`
            The spectra of optimal extraction; DN/s, or MJy if there is a photom reference file.

        Raises
        ------
        SkyflatError
            If the exposure cannot be used, or a metric is out of its range and ``fail_on_qc`` is
            set.
        """
        if self.trace_fit.skip or self.optimal_extract.skip:
            raise SkyflatError("trace_fit and optimal_extract cannot be skipped")
        # Find faults before any work is done.
        ranges = read_ranges(self.ranges, METRICS)
        self.optimal_extract.check()
        exposure, images = self._subtract_sky(init)
        exposure = self.clean_flicker_noise.run(exposure)
        if exposure.meta.cal_step.flat_field != "COMPLETE":
            exposure = self._calibrate(self.flat_field, "flat", exposure)
        exposure = self.inter_order_background.run(exposure)
        # Flat-fielding is the last step that needs the parts of the variance.
        exposure.var_poisson = exposure.var_rnoise = None
        frames = read_frames(exposure)
        if self.optimal_extract.traces:
            traces = open_traces(self.optimal_extract.traces)
        else:
            traces = self.trace_fit.run(exposure, frames)
        kept = []
        spectra = self.optimal_extract.run(exposure, traces, frames, kept.append)
        spectra = self._calibrate(self.photom, "photom", spectra)
        self._judge(exposure, images, frames, traces, *kept, ranges)
        return spectra

    def _subtract_sky(self, init):
        """Subtract the sky; return the exposure, and images for the report by their captions."""
        if isinstance(init, JwstDataModel):
            init = init.copy()
        step, images = self.skyflat_subtract, {}
        members = sort_members(self.load_as_level2_asn(init), init)
        (science,) = members["science"]
        if not step.skip:
            step.check(science, members["background"])
        self.flat_field.check(header_of(science))
        self.check_outputs(name_item(science))

        def keep(subtraction):
            images["The exposure, mean of the integrations"] = subtraction.image
            images["The sky"] = subtraction.sky

        with background_skyflats(step, science, members["background"]):
            exposure = step.run(science, [], keep)
        if not isinstance(exposure, JwstDataModel):
            exposure = self.trace_fit.open_exposure(exposure)
        return exposure, images

    def default_suffix(self):
        """Return the suffix of products."""
        return "x1dints"

    def _calibrate(self, step, kind, model):
        """Run a step of jwst if its reference file is available."""
        given = step.get_ref_override(kind)
        if given is None and not crds_reachable():
            log.warning("%s is skipped: CRDS cannot be reached", type(step).__name__)
            return model
        model, name = step.run(model), model.meta.filename
        status = getattr(model.meta.cal_step, step.class_alias)
        if given not in (None, "N/A") and status != "COMPLETE" and not step.skip:
            raise SkyflatError(f"{name}: {name_item(given)} was not applied, does it fit?")
        return model

    def _judge(self, exposure, images, frames, traces, extracted, ranges):
        """Measure the quality, log it, and write the report."""
        name, orders, response = exposure.meta.filename, extracted.orders, extracted.response
        reference = frames.window.reference_pixels()
        rows = [each.row for each in orders.values()]
        values = measure_steps(exposure)
        values |= measure_frame(frames, rows)
        values |= measure_traces(traces.slices, traces.traces)
        # Columns without a fit are contaminated by other orders.
        known = None if response is None else np.isfinite(response["fit"])
        efficiency = None if response is None else response["efficiency"][known]
        extractions = {order: each.extraction for order, each in orders.items()}
        values |= measure_spectra(extractions, efficiency)
        qc = flag_metrics(values, METRICS, ranges, SkyflatModel().get_dtype("qc"))
        run = self.describe_run()
        if self.save_results and self.save_report:
            caption = "The exposure without its sky" if images else "The exposure"
            images[f"{caption}, and the traces"] = np.where(reference, np.nan, frames.mean)
            report = report_spectra(name, images, traces, orders, extracted.merged, qc, run)
            self.save_product(report.save_html, name, "stare", "html")
            as_text = partial(Table(qc).write, format="ascii.ecsv")
            self.save_product(as_text, name, "stareqc", "ecsv")
        log_metrics(qc, name, fail=self.fail_on_qc)
        for path in name_log_files():
            log.info("The log is kept in %s", path)
        for line in ("To repeat it:", *wrap_command(run["command"])):
            log.info("%s", line)
