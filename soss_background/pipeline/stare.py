"""The pipeline from a SOSS exposure to vetted quick-look spectra."""

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.table import Table
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.extract.frames import as_cubes, mean_image
from soss_background.extract.inter_order_background_step import InterOrderBackgroundStep
from soss_background.extract.metrics import (
    measure_frame,
    measure_spectra,
    measure_steps,
    measure_traces,
)
from soss_background.extract.optimal_extract_step import OptimalExtractStep, open_traces
from soss_background.extract.spectra import merge_orders
from soss_background.extract.trace_fit_step import TraceFitStep
from soss_background.io.exposures import find_window
from soss_background.report.stare import StareReport
from soss_background.steps.base import SkyflatPipelineBase
from soss_background.steps.crds_access import crds_reachable
from soss_background.steps.jwst_steps import FlatFieldStep, PhotomStep
from soss_background.steps.provenance import name_log_files, wrap_command
from soss_background.steps.qc import collect_ranges, judge_metrics, tell_of_failures
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep

__all__ = ["SossStarePipeline"]

log = logging.getLogger(__name__)


class SossStarePipeline(SkyflatPipelineBase):
    """
    Make vetted quick-look spectra of a SOSS exposure.

    The steps are skyflat_subtract, flat_field, inter_order_background (off by default), trace_fit,
    optimal_extract and photom.
    """

    class_alias = "soss_stare"

    spec = """
    save_report = boolean(default=True)  # With the products, save a page that shows them, and the metrics as a table
    sky_subtracted_range = float_list(min=2, max=2, default=list(1, 1))  # 1 if the sky was subtracted, else 0
    flat_fielded_range = float_list(min=2, max=2, default=list(1, 1))  # 1 if the exposure was flat-fielded, else 0
    bad_fraction_range = float_list(min=2, max=2, default=list(0, 0.1))  # Part of the pixels that cannot be used
    inter_order_mean_range = float_list(min=2, max=2, default=None)  # Mean between the orders [DN/s]
    orders_range = float_list(min=2, max=2, default=list(2, 3))  # Orders of which a trace was found
    detected_fraction_range = float_list(min=2, max=2, default=list(0.4, 1))  # Part of the slices, those that another order comes near apart, that show a trace
    clipped_fraction_range = float_list(min=2, max=2, default=list(0, 0.3))  # Part of these that was left out of the fit
    residual_x_min_range = float_list(min=2, max=2, default=list(-1, 0))  # Trace residuals along x, smallest [pixels]
    residual_x_max_range = float_list(min=2, max=2, default=list(0, 1))  # Trace residuals along x, largest [pixels]
    residual_x_sd_range = float_list(min=2, max=2, default=list(0, 0.3))  # Trace residuals along x, standard deviation [pixels]
    residual_y_min_range = float_list(min=2, max=2, default=list(-2, 0))  # Trace residuals along y, smallest [pixels]
    residual_y_max_range = float_list(min=2, max=2, default=list(0, 2))  # Trace residuals along y, largest [pixels]
    residual_y_sd_range = float_list(min=2, max=2, default=list(0, 0.5))  # Trace residuals along y, standard deviation [pixels]
    snr_range = float_list(min=2, max=2, default=list(3, inf))  # Median signal-to-noise ratio of a column of an integration
    snr_order_1_range = float_list(min=2, max=2, default=list(5, inf))  # The same of order 1
    snr_order_2_range = float_list(min=2, max=2, default=None)  # The same of order 2
    snr_order_3_range = float_list(min=2, max=2, default=None)  # The same of order 3
    efficiency_range = float_list(min=2, max=2, default=None)  # Median part of the photons of a standard star that is detected
    fail_on_qc = boolean(default=False)  # End with an error if a metric is out of its range
    """  # noqa: E501

    step_defs: ClassVar = {
        "skyflat_subtract": SkyflatSubtractStep,
        "flat_field": FlatFieldStep,
        "inter_order_background": InterOrderBackgroundStep,
        "trace_fit": TraceFitStep,
        "optimal_extract": OptimalExtractStep,
        "photom": PhotomStep,
    }

    # Each step looks for its own.
    prefetch_references = False

    # Keeps no exposure in files while it works.
    in_memory = True

    def process(self, init):
        """
        Take an exposure through all steps.

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
        collect_ranges(self.get_pars())  # before any work is done
        exposure = self.skyflat_subtract.run(
            init.copy() if isinstance(init, JwstDataModel) else init
        )
        if not isinstance(exposure, JwstDataModel):
            exposure = self.trace_fit.open_exposure(exposure)
        frames = self._frames(exposure)
        if exposure.meta.cal_step.flat_field != "COMPLETE":
            exposure = self._calibrate(self.flat_field, "flat", exposure)
        exposure = self.inter_order_background.run(exposure)
        if self.optimal_extract.traces:
            traces = open_traces(Path(self.optimal_extract.traces))
        else:
            traces = self.trace_fit.run(exposure)
        spectra = self.optimal_extract.run(exposure, traces)
        spectra = self._calibrate(self.photom, "photom", spectra)
        self._judge(exposure, frames, traces)
        return spectra

    def default_suffix(self):
        """Name the suffix of products."""
        return "x1dints"

    def _calibrate(self, step, kind, model):
        """Run a step of jwst, if its reference file can be had."""
        if step.get_ref_override(kind) is None and not crds_reachable():
            log.warning("%s is left out: CRDS cannot be reached", type(step).__name__)
            return model
        return step.run(model)

    def _judge(self, exposure, frames, traces):
        """Measure the quality, tell of it, and show it."""
        name, orders = exposure.meta.filename, self.optimal_extract.orders
        data, _, good = as_cubes(exposure)
        image, reference = mean_image(data, good), find_window(exposure).reference_pixels()
        metrics = measure_steps(exposure)
        metrics += measure_frame(image, good, [each.row for each in orders.values()], reference)
        metrics += measure_traces(traces.slices, traces.traces)
        response = self.optimal_extract.response
        # Columns without a fit have light of other orders too.
        known = None if response is None else np.isfinite(response["fit"])
        efficiency = None if response is None else response["efficiency"][known]
        extractions = {order: each.extraction for order, each in orders.items()}
        metrics += measure_spectra(extractions, efficiency)
        qc = judge_metrics(self, metrics, SkyflatModel().get_dtype("qc"))
        run = self.describe_run()
        if self.save_results and self.save_report:
            caption = "The exposure without its sky" if frames else "The exposure"
            frames[f"{caption}, and the traces"] = np.where(reference, np.nan, image)
            merged = merge_orders(orders, self.optimal_extract.max_contamination)
            report = StareReport(name, frames, traces, orders, merged, qc, run)
            self.save_product(report.save_html, name, "stare", "html")
            as_text = partial(Table(qc).write, format="ascii.ecsv")
            self.save_product(as_text, name, "stareqc", "ecsv")
        tell_of_failures(self, qc, name)
        for path in name_log_files():
            log.info("The log is kept in %s", path)
        for line in ("To repeat it:", *wrap_command(run["command"])):
            log.info("%s", line)

    def _frames(self, exposure):
        """Show the exposure as it came, and its sky, if that was subtracted."""
        sky = self.skyflat_subtract.sky
        if sky is None:
            return {}
        data, _, good = as_cubes(exposure)
        return {
            "The exposure, mean of the integrations": mean_image(data, good) + sky,
            "The sky": sky,
        }
