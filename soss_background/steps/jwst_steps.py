"""Steps of jwst that also run if CRDS cannot be reached."""

import logging
from typing import ClassVar

import numpy as np
from crds.core.exceptions import CrdsError
from jwst.flatfield import FlatFieldStep as JwstFlatFieldStep
from jwst.photom import PhotomStep as JwstPhotomStep
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError, one_line
from soss_background.numerics.threads import split_rows
from soss_background.steps.base import SkyflatMixin
from soss_background.steps.crds_access import catch_crds_exit, crds_reachable, no_reference_error
from soss_background.steps.parameters import check_flat, name_item

__all__ = ["FlatFieldStep", "PhotomStep"]

log = logging.getLogger(__name__)

# Number of blocks that a cube is flat-fielded in, and fewest integrations of a block.
_BLOCKS, _FEWEST = 32, 4
_EXPOSURES = (datamodels.ImageModel, datamodels.CubeModel)

# Units of calibrated spectra, by their labels in jwst.
_LABELS = {"MJy": "Jy", "MJy^2": "Jy^2"}

# Planes that flat-fielding changes, and the one that it adds.
_PLANES, _ADDED = ("data", "err", "dq", "var_poisson", "var_rnoise"), "var_flat"


class FlatFieldStep(SkyflatMixin, JwstFlatFieldStep):
    """The flat-field step of jwst, which also runs if CRDS cannot be reached."""

    # The other types of jwst's step are for NIRSpec.
    reference_file_types: ClassVar = ["flat"]

    _flat_path = _flat = None

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own step."""
        return JwstFlatFieldStep.get_config_reftype()

    def get_ref_override(self, reference_file_type):
        """Return the user's flat, given by either of jwst's two parameters."""
        override = super().get_ref_override(reference_file_type)
        if override and self.user_supplied_flat:
            raise SkyflatError("override_flat and user_supplied_flat are given: give one of them")
        return override or self.user_supplied_flat

    def get_reference_file(self, input_file, reference_file_type):
        """Return the flat, or raise an error that lists the alternatives."""
        if self.get_ref_override(reference_file_type) is None and not crds_reachable():
            raise no_reference_error(reference_file_type, "CRDS cannot be reached")
        return _ask_crds(super().get_reference_file, input_file, reference_file_type, "flat_field")

    def check(self, header):
        """Raise if the user names a flat, but an exposure was divided by a different one."""
        check_flat(header, self.get_ref_override("flat"))

    def process(self, input_data):
        """Flat-field an exposure; a cube in blocks, since jwst's step holds copies of planes."""
        for name in ("var_poisson", "var_rnoise"):
            if isinstance(input_data, _EXPOSURES) and getattr(input_data, name) is None:
                fault = f"{name.upper()} is missing, which the flat-field correction needs"
                raise SkyflatError(f"{input_data.meta.filename}: {fault}")
        number = len(input_data.data) if isinstance(input_data, datamodels.CubeModel) else 1
        blocks = split_rows(number, max(number // _BLOCKS, _FEWEST))
        if len(blocks) == 1:
            return self._apply(input_data)
        cube = self.prepare_output(input_data)
        for block in blocks:
            part = datamodels.CubeModel(**{name: getattr(cube, name)[block] for name in _PLANES})
            part.update(cube)
            part = self._apply(part)
            if part.meta.cal_step.flat_field == "COMPLETE":
                _insert(part, cube, block)
        cube.meta.cal_step.flat_field = part.meta.cal_step.flat_field
        return cube

    def _apply(self, exposure):
        """Flat-field an exposure as jwst does; raise if its flat does not fit."""
        try:
            return super().process(exposure)
        except SkyflatError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as err:
            flat = name_item(self.get_ref_override("flat") or self._flat_path)
            fault = f"{flat} does not fit it ({one_line(err)})"
            raise SkyflatError(f"{name_item(exposure)}: {fault}") from err

    def _get_references(self, data, exposure_type):
        """Open the flat, once for all exposures that use it."""
        path = self.get_reference_file(data, "flat")
        if path == "N/A":
            return super()._get_references(data, exposure_type)
        if path != self._flat_path:
            self._flat_path, self._flat = path, datamodels.FlatModel(path)
            log.info("Using FLAT reference file: %s", path)
        return {"flat": self._flat}


def _insert(part, cube, block):
    """Insert integrations into a cube."""
    if getattr(cube, _ADDED) is None:
        setattr(cube, _ADDED, np.empty(cube.data.shape, dtype=np.float32))
    for name in (*_PLANES, _ADDED):
        getattr(cube, name)[block] = getattr(part, name)


class PhotomStep(SkyflatMixin, JwstPhotomStep):
    """The flux calibration of jwst, which also runs if CRDS cannot be reached."""

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own step."""
        return JwstPhotomStep.get_config_reftype()

    def process(self, input_data):
        """Calibrate spectra; name the unit of their flux."""
        # jwst names it MJy, and asks in a comment whether PHOTOM files hold Jy. They do: one of
        # CRDS gives a star that fills a tenth of the full well (program 1512) a flux of 0.2.
        spectra = super().process(input_data)
        for spec in spectra.spec:
            for column in spec.spec_table.columns:
                if column.unit in _LABELS:
                    column.unit = _LABELS[column.unit]
        return spectra

    def get_reference_file(self, input_file, reference_file_type):
        """Return a reference file; "N/A" for pixel areas, which spectra do not need."""
        if reference_file_type == "area":
            return "N/A"
        return _ask_crds(super().get_reference_file, input_file, reference_file_type, "photom")


def _ask_crds(ask, exposure, kind, step):
    """Return a reference file for a step, or raise an error that lists the alternatives."""
    try:
        with catch_crds_exit():
            return ask(exposure, kind)
    except CrdsError as err:
        raise no_reference_error(kind, f"CRDS gives none ({one_line(err)})", step) from err
