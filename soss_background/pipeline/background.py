"""Skyflats from the background exposures of an association."""

import logging
from contextlib import contextmanager

from soss_background.io.exposures import find_fault
from soss_background.pipeline.skyflat import SkyflatPipeline
from soss_background.steps.crds_access import crds_reachable
from soss_background.subtract.skyflat_subtract_step import IGNORED

__all__ = ["background_skyflats", "find_skyflats"]

log = logging.getLogger(__name__)


@contextmanager
def background_skyflats(step, segments):
    """Give a step the skyflat of background exposures while it runs; skip other than SOSS."""
    given, skip, background = step.skyflat, step.skip, segments.background
    fault = find_fault(segments.headers[0])
    if fault and not skip:
        log.warning("%s: sky not subtracted, %s", segments.name, fault)
    if background and (given or step.get_ref_override("bkg")):
        log.warning("%s: %s", segments.name, IGNORED)
    step.skip = skip or bool(fault)
    step.skyflat = find_skyflats(step, background)
    try:
        yield
    finally:
        step.skyflat, step.skip = given, skip


def find_skyflats(step, background):
    """Return the user's skyflats, or else that of the background exposures, or None."""
    if step.skip or step.skyflat or step.get_ref_override("bkg") or not background:
        return step.skyflat
    pipeline = SkyflatPipeline()
    pipeline.output_dir = step.search_attr("output_dir")
    flat = step.given_flat() or (None if crds_reachable() else "N/A")
    pipeline.flat_field.override_flat, pipeline.flat_field.skip = flat, flat == "N/A"
    skyflat = pipeline.run(list(background))
    skyflat.images = skyflat.masks = skyflat.meta.bunit_images = None  # not needed any more
    return [skyflat]
