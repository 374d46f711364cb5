"""The step that denoises a skyflat."""

import logging
from typing import ClassVar

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.denoise.smooth_sky import denoise_sky, noise_factor
from soss_background.errors import SkyflatError
from soss_background.steps.base import SkyflatStep

__all__ = ["SkyflatDenoiseStep"]

log = logging.getLogger(__name__)

_BAD = sum(dqflags.pixel[name] for name in ("DO_NOT_USE", "HOT", "OTHER_BAD_PIXEL"))


class SkyflatDenoiseStep(SkyflatStep):
    """Denoise the sky of a skyflat."""

    class_alias = "skyflat_denoise"

    input_suffixes: ClassVar = ("skyflatcombine", "skyflatquality", "skyflat")

    spec = """
    sigma_rows = float(default=12.0, min=0.1)  # Smoothing along columns: standard deviation of a Gaussian [pixels]
    sigma_columns = float(default=12.0, min=0.1)  # Smoothing along rows: standard deviation of a Gaussian [pixels]
    sigma_edge = float(default=1.5, min=0.1)  # Smoothing along rows at a second, faint edge [pixels]
    suffix = string(default='skyflatdenoise')  # Default suffix for output files
    """  # noqa: E501

    def process(self, init):
        """
        Denoise a skyflat.

        Parameters
        ----------
        init : str, `~pathlib.Path` or SkyflatModel
            The skyflat; a model is left unchanged unless the step is part of a pipeline.

        Returns
        -------
        SkyflatModel
            The skyflat with its ``bkgdn``.

        Raises
        ------
        SkyflatError
            If it is not a skyflat, or no pixel shows the sky.
        """
        skyflat = self.open_skyflat(init)
        good = skyflat.dq & _BAD == 0
        names = ("sigma_rows", "sigma_columns", "sigma_edge")
        parameters = {name: getattr(self, name) for name in names}
        try:
            denoised = denoise_sky(skyflat.bkg, skyflat.err, good, **parameters)
        except ValueError as err:
            raise SkyflatError(f"{skyflat.meta.filename}: {err}") from err
        denoised[skyflat.dq & dqflags.pixel["REFERENCE_PIXEL"] > 0] = 0
        skyflat.bkgdn = denoised
        skyflat.meta.bunit_bkgdn = "DN/s"
        self._describe(skyflat, good & (skyflat.err > 0))
        skyflat.meta.cal_step.skyflat_denoise = "COMPLETE"
        # Earlier metrics describe the sky before it was denoised.
        skyflat.qc = skyflat.meta.cal_step.skyflat_quality = None
        log.info("Denoised from %d of %d pixels", np.count_nonzero(good), good.size)
        return skyflat

    def _describe(self, skyflat, good):
        """Store the smoothing, and the factor by which it lowers noise, if stripes are known."""
        meta = skyflat.meta.skyflat
        meta.smoothing_rows, meta.smoothing_columns = self.sigma_rows, self.sigma_columns
        meta.noise_factor = meta.stripes_left = None
        if meta.stripe_rms is None:
            return
        variance = meta.stripe_rms**2 / max(meta.n_samples or 1, 1)
        stripes = min(variance / np.median(skyflat.err[good]) ** 2, 1)
        columns = skyflat.bkg.shape[1]
        slope = -1.0 if meta.stripe_slope is None else meta.stripe_slope
        sigmas = (self.sigma_rows, self.sigma_columns)
        meta.noise_factor = noise_factor(*sigmas, columns, stripes, slope)
