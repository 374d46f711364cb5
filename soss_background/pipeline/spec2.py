"""The pipeline calwebb_spec2 with this package's step in place of bkg_subtract."""

from types import MethodType
from typing import ClassVar

from jwst.pipeline import Spec2Pipeline

from soss_background.io.files import note_inputs
from soss_background.pipeline.background import background_skyflats
from soss_background.steps.base import SkyflatMixin
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep

__all__ = ["SkyflatSpec2Pipeline"]


class SkyflatSpec2Pipeline(SkyflatMixin, Spec2Pipeline):
    """
    Calibrate a SOSS exposure: jwst's Spec2Pipeline, whose ``bkg_subtract`` is SkyflatSubtractStep.

    The pipeline combines background members of an association, which jwst ignores for SOSS, into a
    skyflat for this step.

    Parameters
    ----------
    *args, **kwargs
        See `jwst.pipeline.Spec2Pipeline`.
    """

    class_alias = "skyflat_spec2"

    input_suffixes: ClassVar = ("skyflatsubtract",)

    step_defs = Spec2Pipeline.step_defs | {"bkg_subtract": SkyflatSubtractStep}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.step_defs:
            # jwst's own steps fail for names that FITS headers cannot hold, and save half files.
            step = getattr(self, name)
            step.save_model = MethodType(SkyflatMixin.save_model, step)

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own pipeline."""
        return Spec2Pipeline.get_config_reftype()

    def process_exposure_product(self, exp_product, *args, **kwargs):
        """
        Calibrate an exposure.

        Parameters
        ----------
        exp_product : dict
            A product of a level-2 association.
        *args, **kwargs
            See `jwst.pipeline.Spec2Pipeline`.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.JwstDataModel`
            The calibrated exposure.
        """
        members = {"science": [], "background": []}
        for member in exp_product["members"]:
            members.setdefault(member["exptype"].lower(), []).append(member["expname"])
            note_inputs(member["expname"])
        science = next(iter(members["science"]), None)
        background = members["background"] if science else []
        with background_skyflats(self.bkg_subtract, science, background):
            result = super().process_exposure_product(exp_product, *args, **kwargs)
        if result is not None and result.meta.cal_step.bkg_subtract is None:
            result.meta.cal_step.bkg_subtract = "SKIPPED"
        return result
