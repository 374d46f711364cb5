"""The pipeline calwebb_spec2 with this package's step in place of bkg_subtract."""

import logging
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from types import MethodType
from typing import ClassVar

from crds.core.exceptions import CrdsError
from jwst.assign_wcs.util import NoDataOnDetectorError
from jwst.pipeline import Spec2Pipeline

from soss_background.datamodels.names import show
from soss_background.errors import SkyflatError, one_line
from soss_background.io.associations import group_members
from soss_background.io.exposures import find_fault, root_name
from soss_background.io.files import note_inputs
from soss_background.io.segments import group_segments
from soss_background.pipeline.background import background_skyflats, check_combined
from soss_background.steps.base import SkyflatMixin, is_list
from soss_background.steps.crds_access import catch_crds_exit, crds_reachable
from soss_background.subtract.skyflat_subtract_step import SkyflatSubtractStep

__all__ = ["SkyflatSpec2Pipeline"]

log = logging.getLogger(__name__)


class SkyflatSpec2Pipeline(SkyflatMixin, Spec2Pipeline):
    """
    Calibrate SOSS exposures: jwst's Spec2Pipeline, whose ``bkg_subtract`` is SkyflatSubtractStep.

    The pipeline combines background members of an association, which jwst ignores for SOSS, into a
    skyflat for this step. The segments of an exposure get one sky, and are calibrated one by one.

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
                # jwst's steps fail for names that do not fit into a FITS header, and leave partial
                # files.
                step.save_model = MethodType(SkyflatMixin.save_model, step)

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own pipeline."""
        return Spec2Pipeline.get_config_reftype()

    def _precache_references(self, input_file):
        """Raise SkyflatError, before any work is done, if CRDS fails, which ends the program."""
        try:
            with catch_crds_exit():
                super()._precache_references(input_file)
        except CrdsError as err:
            reason = f"gives none ({one_line(err)})" if crds_reachable() else "cannot be reached"
            remedy = "set CRDS_PATH (and CRDS_SERVER_URL) to reach CRDS"
            raise SkyflatError(f"No reference files: CRDS {reason}, {remedy}") from err

    def process(self, *inputs):
        """
        Calibrate exposures.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, level-2 association, data model, or list of these
            Exposures, segments of time series in any order, folders or wildcards of these, or
            associations.

        Returns
        -------
        list of `~stdatamodels.jwst.datamodels.JwstDataModel`
            The calibrated exposures and segments.

        Raises
        ------
        SkyflatError
            If a sky that the user names cannot be subtracted.
        """
        association = self._associate(inputs)
        self._exposures = self._group(association)
        self._check(self._exposures)
        self._faults, self._fits, self._made = [], {}, {}
        results = super().process(association)
        if self._faults and self.fail_on_exception:
            raise self._faults[0]
        return results

    def plan(self, *inputs):
        """Return the exposures among inputs, and the names of the calibrated segments."""
        association = self._associate(inputs)
        exposures = self._group(association)
        kinds = {
            source: header.get("meta.model_type")
            for each in exposures
            for source, header in zip(each.sources, each.headers, strict=True)
        }
        names = []
        for product in association["products"]:
            source, _ = _as_member(product)
            suffix = "calints" if kinds[source] == "CubeModel" else "cal"
            # As jwst's pipeline names it.
            names.append(Path(self.make_output_path(product["name"], suffix=suffix)).name)
        return exposures, names

    def _group(self, association):
        """Return the exposures of an association with a product for each segment."""
        members = map(_as_member, association["products"])
        return group_segments(list(members), self.open_whole)

    def _associate(self, inputs):
        """Return an association with a product for each segment."""
        items = [each for item in inputs for each in (item if is_list(item) else [item])]
        if not items:
            raise SkyflatError("No exposures are given")
        associations = [self.load_as_level2_asn(item) for item in items]
        products = [product for each in associations for product in each["products"]]
        joined = copy(associations[0])  # a given association is not changed
        joined.data = joined.data | {
            "products": [part for each in products for part in _split(each)]
        }
        return joined

    def _check(self, exposures):
        """Raise if the user's sky cannot be subtracted; ignore exposures of other modes."""
        if self.bkg_subtract.skip:
            return
        for segments in exposures:
            note_inputs([segments.sources, segments.background])
        exposures = [each for each in exposures if not find_fault(each.headers[0])] or exposures
        self.bkg_subtract.check(exposures)
        for segments in exposures:
            check_combined(self.bkg_subtract, segments)

    def process_exposure_product(self, exp_product, *args, **kwargs):
        """
        Calibrate an exposure or a segment.

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
        source, _ = _as_member(exp_product)
        (segments,) = (each for each in self._exposures if source in each.sources)
        if isinstance(self._fits.get(segments), SkyflatError):
            return None  # as for an earlier segment
        try:
            with self._fitted_sky(segments), _errors_in_one_line(segments, source):
                result = super().process_exposure_product(exp_product, *args, **kwargs)
        except SkyflatError as err:
            # jwst would print a traceback and continue, so `process` raises the error.
            log.error("%s", err)  # noqa: TRY400 - a traceback would hide the line
            self._faults.append(err)
            return None
        if result is not None and result.meta.cal_step.bkg_subtract is None:
            result.meta.cal_step.bkg_subtract = "SKIPPED"
        return result

    @contextmanager
    def _fitted_sky(self, segments):
        """Give bkg_subtract the sky of an exposure; skip it if there is none."""
        step, skip = self.bkg_subtract, self.bkg_subtract.skip
        if segments not in self._fits:
            try:
                with background_skyflats(step, segments, self._made):
                    self._fits[segments] = None if step.skip else self._fit(segments)
            except SkyflatError as err:
                self._fits[segments] = err
                raise
        step.fitted = self._fits[segments]
        step.skip = skip or step.fitted is None
        try:
            yield
        finally:
            step.skip, step.fitted = skip, None

    def _fit(self, segments):
        """Fit the sky of an exposure; keep no segment in memory."""
        fit = self.bkg_subtract.fit(segments)
        segments.release()
        return fit


@contextmanager
def _errors_in_one_line(segments, source):
    """Raise SkyflatError for an error of a jwst step; its traceback is logged as DEBUG."""
    try:
        yield
    except (SkyflatError, NoDataOnDetectorError):
        raise
    except Exception as err:
        name = segments.names[segments.sources.index(source)]
        log.debug("%s", name, exc_info=True)
        raise SkyflatError(f"{name}: {type(err).__name__}: {one_line(err)}") from err


def _as_member(product):
    """Return the science exposure of a product, and its background exposures."""
    members = group_members(product)
    (science,) = members["science"]
    return Path(science) if isinstance(science, str) else science, members["background"]


def _split(product):
    """Return a product for each segment of a product."""
    science = group_members(product)["science"]
    if len(science) == 1:
        return [product]
    if not science:
        raise SkyflatError(f"product {show(product['name'])} has no science member")
    others = [each for each in product["members"] if each["exptype"].lower() != "science"]
    return [
        {"name": root_name(name), "members": [{"expname": name, "exptype": "science"}, *others]}
        for name in science
    ]
