"""The step that measures the quality of a skyflat."""

from typing import ClassVar

import numpy as np

from soss_background.errors import SkyflatError
from soss_background.io.skyflats import find_place
from soss_background.quality.metrics import (
    METRICS,
    count_samples,
    measure_exposures,
    measure_sky,
    summarize_exposures,
)
from soss_background.steps.base import SkyflatStep
from soss_background.steps.metric_ranges import flag_metrics, log_metrics, read_ranges

__all__ = ["SkyflatQualityStep"]


class SkyflatQualityStep(SkyflatStep):
    """Measure the quality of a skyflat."""

    class_alias = "skyflat_quality"

    input_suffixes: ClassVar = ("skyflatdenoise", "skyflatcombine", "skyflat")
    named_files: ClassVar = ("ranges",)
    named: ClassVar = ("fail_on_qc",)

    spec = """
    ranges = string(default=None)  # YAML or ECSV file of acceptable ranges that override the defaults
    fail_on_qc = boolean(default=False)  # End with an error if a metric is out of its range
    suffix = string(default='skyflatquality')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init):
        """
        Measure the quality of a skyflat.

        Parameters
        ----------
        init : str, `~pathlib.Path` or SkyflatModel
            The skyflat; a model is left unchanged unless the step is part of a pipeline.

        Returns
        -------
        SkyflatModel
            The skyflat with its ``qc``.

        Raises
        ------
        SkyflatError
            If the file of ranges cannot be used, BKGDN has no value in science pixels, or a metric
            is out of its range and ``fail_on_qc`` is set.
        """
        ranges = self.read_ranges()
        skyflat = self.open_skyflat(init)
        name = skyflat.meta.filename or "skyflat"
        window = find_place(skyflat, skyflat.bkg.shape, name)
        _check_denoised(skyflat, window, name)
        values = _measure(skyflat, window)
        skyflat.qc = flag_metrics(values, METRICS, ranges, skyflat.get_dtype("qc"))
        log_metrics(skyflat.qc, name, fail=self.fail_on_qc)
        skyflat.meta.cal_step.skyflat_quality = "COMPLETE"
        return skyflat

    def read_ranges(self):
        """Return the acceptable ranges, see `soss_background.steps.metric_ranges.read_ranges`."""
        return read_ranges(self.ranges, METRICS)


def _check_denoised(skyflat, window, name):
    """Raise if a denoised sky has gaps; the denoising step leaves none."""
    if skyflat.bkgdn is None:
        return
    missing = np.count_nonzero(~np.isfinite(skyflat.bkgdn) & ~window.reference_pixels())
    if missing:
        raise SkyflatError(f"{name}: BKGDN has no value in {missing} science pixels")


def _measure(skyflat, window):
    """Return the values of all metrics that a skyflat allows, by name."""
    values, filter_name = {}, skyflat.meta.instrument.filter or "CLEAR"
    if skyflat.metadata is not None:
        values |= summarize_exposures(skyflat.metadata, skyflat.meta.skyflat.stripe_rms)
    sky = (skyflat.bkg, skyflat.bkgdn, skyflat.err, skyflat.dq)
    values |= measure_sky(*sky, window, filter_name)
    if skyflat.images is not None and skyflat.masks is not None:
        coverage = count_samples(skyflat.masks)
        planes = (skyflat.images, skyflat.masks, skyflat.bkg, skyflat.err)
        meta = skyflat.meta.skyflat
        smoothing = (meta.smoothing_rows, meta.smoothing_columns)
        values |= measure_exposures(
            *planes,
            coverage,
            window,
            skyflat.bkgdn,
            None if None in smoothing else smoothing,
            filter_name,
        )
    return values
