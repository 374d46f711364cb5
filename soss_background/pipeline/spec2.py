"""The pipeline calwebb_spec2 with this package's step in place of bkg_subtract."""

import logging
from contextlib import ExitStack
from types import MethodType
from typing import ClassVar

from jwst.pipeline import Spec2Pipeline

from soss_background.errors import SkyflatError
from soss_background.io.exposures import find_fault, header_of
from soss_background.io.files import note_inputs
from soss_background.pipeline.background import background_skyflats
from soss_background.steps.base import SkyflatMixin
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep, group_members

__all__ = ["SkyflatSpec2Pipeline"]

log = logging.getLogger(__name__)


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

    input_suffixes: ClassVar = ("skyflatsubtract", "flickernoise")

    step_defs = Spec2Pipeline.step_defs | {"bkg_subtract": SkyflatSubtractStep}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.step_defs:
            step = getattr(self, name)
            if not isinstance(step, SkyflatMixin):
                # jwst's steps fail for names that no FITS header holds, and leave partial files.
                step.save_model = MethodType(SkyflatMixin.save_model, step)

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own pipeline."""
        return Spec2Pipeline.get_config_reftype()

    def process(self, data):
        """
        Calibrate the exposures of an association.

        Parameters
        ----------
        data : str, `~pathlib.Path`, level-2 association or data model
            An exposure, several (a folder or wildcard), or an association.

        Returns
        -------
        list of `~stdatamodels.jwst.datamodels.JwstDataModel`
            The calibrated exposures.

        Raises
        ------
        SkyflatError
            If a sky that the user names cannot be subtracted.
        """
        self._check(self.load_as_level2_asn(data)["products"])
        self._faults = []
        results = super().process(data)
        if self._faults and self.fail_on_exception:
            raise self._faults[0]
        return results

    def _check(self, products):
        """Raise if the sky that the user names cannot be subtracted; others may be in a mixture."""
        if self.bkg_subtract.skip:
            return
        for members in map(group_members, products):
            for science in members["science"][:1]:
                if len(products) == 1 or not find_fault(header_of(science)):
                    self.bkg_subtract.check(science, members["background"])

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
        members = group_members(exp_product)
        note_inputs([name for names in members.values() for name in names])
        try:
            with ExitStack() as stack:
                for science in members["science"][:1]:
                    given = (self.bkg_subtract, science, members["background"])
                    stack.enter_context(background_skyflats(*given))
                result = super().process_exposure_product(exp_product, *args, **kwargs)
        except SkyflatError as err:
            # jwst would print a traceback, and its loop passes nothing on: `process` raises it.
            log.error("%s", err)  # noqa: TRY400 - a traceback would hide the line
            self._faults.append(err)
            return None
        if result is not None and result.meta.cal_step.bkg_subtract is None:
            result.meta.cal_step.bkg_subtract = "SKIPPED"
        return result
