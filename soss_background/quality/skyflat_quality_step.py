"""The step that measures how good a skyflat is."""

from soss_background.io.skyflats import find_place
from soss_background.quality.metrics import (
    count_samples,
    measure_exposures,
    measure_sky,
    summarize_exposures,
)
from soss_background.steps.base import SkyflatStep
from soss_background.steps.qc import judge_metrics, tell_of_failures

__all__ = ["SkyflatQualityStep"]


class SkyflatQualityStep(SkyflatStep):
    """Measure how good a skyflat is."""

    class_alias = "skyflat_quality"

    # Those of simulated visits, sparse to crowded, lie inside.
    spec = """
    exposures_used_range = float_list(min=2, max=2, default=list(3, inf))  # Exposures that were combined
    exposures_rejected_range = float_list(min=2, max=2, default=None)  # Exposures that were left out
    masked_median_range = float_list(min=2, max=2, default=list(0, 0.85))  # Part of an exposure that is not used, median
    masked_worst_range = float_list(min=2, max=2, default=list(0, 0.95))  # The same, of the worst exposure
    level_scatter_range = float_list(min=2, max=2, default=list(0, 5))  # Scatter of the levels of the exposures [per cent]
    deviation_worst_range = float_list(min=2, max=2, default=list(0, 5))  # Largest deviation of a used exposure from the sky [per cent]
    deviation_ratio_range = float_list(min=2, max=2, default=list(1, 4))  # The same over that of a typical exposure
    stripe_rms_range = float_list(min=2, max=2, default=list(0, 1))  # 1/f stripes of an exposure, rms [DN/s]
    excess_range = float_list(min=2, max=2, default=list(0.7, 1.5))  # Scatter of an exposure about the sky over its own ERR, median
    filled_range = float_list(min=2, max=2, default=list(0, 0.1))  # Part of BKG that had to be filled
    hot_range = float_list(min=2, max=2, default=list(0, 0.03))  # Part of the pixels that are found to be hot
    level_left_range = float_list(min=2, max=2, default=list(0.5, 20))  # Level left of the step [DN/s]
    level_right_range = float_list(min=2, max=2, default=list(0.5, 30))  # Level right of the step [DN/s]
    level_ratio_range = float_list(min=2, max=2, default=list(1.1, 2.2))  # Level right of the step over that left of it
    step_column_range = float_list(min=2, max=2, default=list(680, 725))  # Column of half of the step, of any row
    step_width_range = float_list(min=2, max=2, default=list(10, 80))  # Width of the step from 10 to 90 per cent, of any row [pixels]
    noise_range = float_list(min=2, max=2, default=None)  # Scatter of BKG about BKGDN [DN/s]
    noise_ratio_range = float_list(min=2, max=2, default=list(0.5, 1.25))  # Scatter of BKG about BKGDN over ERR
    denoised_ratio_range = float_list(min=2, max=2, default=list(0.5, 2))  # Noise of BKGDN over that expected by ERR
    few_samples_range = float_list(min=2, max=2, default=list(0, 0.75))  # Part of the pixels with fewer than three samples
    chi2_range = float_list(min=2, max=2, default=list(0.5, 1.3))  # Reduced chi-square of the exposures about BKG
    star_light_range = float_list(min=2, max=2, default=list(-0.3, 0.3))  # Asymmetry of what is left of the exposures [per cent of the sky]
    jackknife_range = float_list(min=2, max=2, default=list(0, 1))  # Largest difference of two halves of the exposures on large scales, halved [per cent]
    fail_on_qc = boolean(default=False)  # End with an error if a metric is out of its range
    suffix = string(default='skyflatquality')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init):
        """
        Measure a skyflat.

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
            If a metric is out of its range and ``fail_on_qc`` is set, or a range ends before it
            begins.
        """
        skyflat = self.open_skyflat(init)
        name = skyflat.meta.filename or "skyflat"
        window = find_place(skyflat, skyflat.bkg.shape, name)
        metrics = []
        if skyflat.metadata is not None:
            metrics += summarize_exposures(skyflat.metadata, skyflat.meta.skyflat.stripe_rms)
        metrics += measure_sky(skyflat.bkg, skyflat.bkgdn, skyflat.err, skyflat.dq, window)
        if skyflat.images is not None and skyflat.masks is not None:
            coverage = count_samples(skyflat.masks)
            planes = (skyflat.images, skyflat.masks, skyflat.bkg, skyflat.err)
            metrics += measure_exposures(*planes, coverage, ~window.reference_pixels())
        skyflat.qc = judge_metrics(self, metrics, skyflat.get_dtype("qc"))
        tell_of_failures(self, skyflat.qc, name)
        skyflat.meta.cal_step.skyflat_quality = "COMPLETE"
        return skyflat
