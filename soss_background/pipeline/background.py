"""Skyflats from the background exposures of an association."""

from contextlib import contextmanager
from pathlib import Path

from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.io.exposures import find_fault, read_header
from soss_background.pipeline.skyflat import SkyflatPipeline
from soss_background.steps.crds_access import crds_reachable

__all__ = ["background_skyflats", "find_skyflats"]


@contextmanager
def background_skyflats(step, science, background):
    """Give a step the skyflat of background exposures while it runs."""
    given = step.skyflat
    step.skyflat = find_skyflats(step, science, background)
    try:
        yield
    finally:
        step.skyflat = given


def find_skyflats(step, science, background):
    """Return the user's skyflats or that of the background exposures; None if none is usable."""
    if step.skip or step.skyflat or step.get_ref_override("bkg") or not background:
        return step.skyflat
    is_model = isinstance(science, JwstDataModel)
    header = science.to_flat_dict() if is_model else read_header(Path(science))
    if find_fault(header) or header.get("meta.cal_step.bkg_subtract") == "COMPLETE":
        return None
    pipeline = SkyflatPipeline()
    pipeline.output_dir = step.search_attr("output_dir")
    flat = step.given_flat() or (None if crds_reachable() else "N/A")
    pipeline.flat_field.override_flat, pipeline.flat_field.skip = flat, flat == "N/A"
    skyflat = pipeline.run(list(background))
    skyflat.images = skyflat.masks = skyflat.meta.bunit_images = None  # not needed any more
    return [skyflat]
