"""The step that subtracts a saved sky, or adds it back."""

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar

from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.io.exposures import IDENTITY
from soss_background.io.library import check_count_rates
from soss_background.io.saved_skies import is_fielded, open_saved_sky
from soss_background.io.segments import SegmentLibrary
from soss_background.steps.base import SkyflatStep
from soss_background.subtract.saved_sky import change_ramps, change_rates, group_times

__all__ = ["SavedSkyStep"]

log = logging.getLogger(__name__)

_KINDS = (datamodels.ImageModel, datamodels.CubeModel, datamodels.RampModel)

# Keywords that ramps need.
_TIMES = {"group_time": "TGROUP", "frame_time": "TFRAME", "nframes": "NFRAMES"}

# Planes of ramps that the step changes, and their extensions.
_PLANES = {"data": "SCI", "pixeldq": "PIXELDQ"}


class SavedSkyStep(SkyflatStep):
    """Subtract the sky that SkyflatSubtractStep saved from ramps or count rates, or add it back."""

    class_alias = "saved_sky"

    input_suffixes: ClassVar = ("flickernoise",)

    spec = """
    sky = string(default=None)  # File of the sky of the exposure, saved by SkyflatSubtractStep with save_background
    add = boolean(default=False)  # Add the sky back instead of subtracting it
    suffix = string(default='savedsky')  # Default suffix for output files
    """  # noqa: E501

    named_files: ClassVar = ("sky",)

    def process(self, *inputs):
        """
        Subtract a saved sky, or add it back.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, association, or list of these
            The exposure or its segments, count rates (DN/s) or linear ramps (DN); models are left
            unchanged unless the step is part of a pipeline.

        Returns
        -------
        `~stdatamodels.jwst.datamodels.JwstDataModel`
            The exposure without the sky, or with it; S_BKDSUB records which. Several exposures or
            segments are a `~soss_background.io.segments.SegmentLibrary` of these.

        Raises
        ------
        SkyflatError
            If no sky is given, a file cannot be read, the sky is that of another exposure, of other
            pixels or another flat state, or it has been subtracted, or added back, already.
        """
        if not self.sky:
            raise SkyflatError("sky is missing: give what SkyflatSubtractStep saves (sky=FILE)")
        exposures = self.open_segments(*inputs)
        self.check_outputs(*(name for segments in exposures for name in segments.names))
        with open_saved_sky(self.sky) as saved:
            sky = saved.copy()
        for segments in exposures:
            for index in range(len(segments)):
                self._check(segments.read(index), sky)
        change = partial(self._change, sky)
        return SegmentLibrary.join([each.library().then(change) for each in exposures]).unpacked()

    def _check(self, model, saved):
        """Raise unless the sky can be subtracted from the exposure, or added back."""
        if isinstance(model, datamodels.RampModel):
            _check_ramps(model)
        else:
            check_count_rates(model)
        name = model.meta.filename
        if saved.meta.skyflat_subtract.scale_mode != "exposure":
            raise SkyflatError(
                f"{self.sky}: its level differs from integration to integration: save it with "
                "scale_mode=exposure"
            )
        others = _describe(saved)
        for keyword, value in _describe(model).items():
            if value != others[keyword]:
                raise SkyflatError(
                    f"{name}: {keyword}: {value}, that of {self.sky}: {others[keyword]}"
                )
        subtracted = model.meta.cal_step.bkg_subtract == "COMPLETE"
        if subtracted and not self.add:
            raise SkyflatError(f"{name}: its sky has been subtracted already")
        if self.add and not subtracted:
            raise SkyflatError(f"{name}: its sky is not subtracted, and cannot be added back")

    def _change(self, saved, model):
        """Subtract the sky, or add it back, in place; return the exposure."""
        sky = saved.data if self.add else -saved.data
        # Added back, the flags stay: some may be those of the exposure.
        if isinstance(model, datamodels.RampModel):
            model.pixeldq |= saved.dq
            change_ramps(model.data, sky, _group_times(model))
        else:
            model.dq |= saved.dq
            cube, errors = (plane.reshape(-1, *sky.shape) for plane in (model.data, model.err))
            change_rates(cube, errors, sky, saved.err**2 * (-1 if self.add else 1))
        verb = "added back" if self.add else "subtracted"
        model.meta.cal_step.bkg_subtract = None if self.add else "COMPLETE"
        model.add_history_entry(f"soss_background {verb} the sky of {Path(self.sky).name}")
        log.info("%s: %s the sky of %s", model.meta.filename, verb, self.sky)
        return model


def _describe(model):
    """Return the values that an exposure and its sky must share, by keyword."""
    header = model.to_flat_dict(include_arrays=False)
    return {key.rpartition(".")[2]: header.get(key) for key in IDENTITY} | {
        "SUBARRAY": model.meta.subarray.name,
        "shape": model.data.shape[-2:],
        "flat-fielded (S_FLAT is COMPLETE)": is_fielded(model),
    }


def _check_ramps(model):
    """Raise unless ramps are linear, and have the keywords and planes that the step needs."""
    name = model.meta.filename
    if model.meta.cal_step.linearity != "COMPLETE":
        raise SkyflatError(f"{name}: its ramps are not linear (S_LINEAR is not COMPLETE)")
    for key, keyword in _TIMES.items():
        if not getattr(model.meta.exposure, key):
            raise SkyflatError(f"{name}: {keyword} is missing")
    for key, extension in _PLANES.items():
        if getattr(model, key) is None:
            raise SkyflatError(f"{name}: {extension} is missing")


def _group_times(model):
    """Return the time of each group of ramps, s."""
    exposure = model.meta.exposure
    return group_times(
        model.data.shape[1],
        group_time=exposure.group_time,
        frame_time=exposure.frame_time,
        n_frames=exposure.nframes,
    )
