"""Skyflats from the background exposures of an association."""

import logging
from contextlib import contextmanager
from pathlib import Path

from soss_background import __version__
from soss_background.errors import SkyflatError
from soss_background.io.exposures import (
    describe_members,
    describe_products,
    find_fault,
    open_libraries,
)
from soss_background.io.files import unrecorded_inputs
from soss_background.io.products import find_change
from soss_background.pipeline.skyflat import SkyflatPipeline
from soss_background.report.skyflat import write_reports
from soss_background.steps.crds_access import crds_reachable
from soss_background.steps.parameters import settle_parameters
from soss_background.steps.provenance import list_parameters
from soss_background.subtract.skyflat_subtract_step import IGNORED

__all__ = ["background_skyflats", "check_combined", "combine_skyflat"]

log = logging.getLogger(__name__)


@contextmanager
def background_skyflats(step, segments, made):
    """
    Give a step the skyflat of background exposures while it runs; skip exposures other than SOSS.

    Parameters
    ----------
    step : `~soss_background.SkyflatSubtractStep`
        The step of a pipeline.
    segments : `~soss_background.io.segments.Segments`
        The science exposure.
    made : dict
        The skyflats that the run has created; other exposures reuse them.
    """
    given, skip, background = step.skyflat, step.skip, segments.background
    fault = find_fault(segments.headers[0])
    if fault and not skip:
        log.warning("%s: sky not subtracted, %s", segments.name, fault)
    step.skip = skip or bool(fault)
    if _combines(step, segments):
        key = tuple(each if isinstance(each, str | Path) else id(each) for each in background)
        made[key] = made.get(key) or combine_skyflat(step, background)
        step.skyflat = made[key]
    elif background and not step.skip:
        log.warning("%s: %s", segments.name, IGNORED)
    try:
        yield
    finally:
        step.skyflat, step.skip = given, skip


def check_combined(step, segments):
    """Raise if the user wants to save the skyflat of background exposures, but none is created."""
    if step.save_combined_background and not _combines(step, segments):
        raise SkyflatError(
            "save_combined_background is set, but no background exposures are combined: there are "
            "none, or another sky is given"
        )


def _combines(step, segments):
    """Return whether a skyflat is created from the background exposures of an exposure."""
    if step.skip or not segments.background:
        return False
    return not step.named_sources(segments.headers[0].get("meta.instrument.filter"))


def combine_skyflat(step, background):
    """Return the skyflat of background exposures, a model or a path, in a list."""
    pipeline = SkyflatPipeline()
    pipeline.output_dir = step.search_attr("output_dir")
    flat = step.given_flat() or (None if crds_reachable() else "N/A")
    pipeline.flat_field.override_flat, pipeline.flat_field.skip = flat, flat == "N/A"
    if step.save_combined_background:
        return [_save_skyflat(pipeline, background)]
    skyflat = pipeline.run(list(background))
    skyflat.images = skyflat.masks = skyflat.meta.bunit_images = None  # not needed any more
    return [skyflat]


def _save_skyflat(pipeline, background):
    """Return the path of the skyflat of exposures; create it unless it exists."""
    settle_parameters(pipeline)
    (library,) = open_libraries(list(background))
    (described,) = describe_products([library])
    path = Path(pipeline.make_output_path(described.name)).with_name(described.name)
    with unrecorded_inputs():
        members = describe_members(library)
        change = find_change(path, members, list_parameters(pipeline), __version__)
    if not change:
        log.info("Reusing %s: its exposures, parameters and version are the same", path)
        return str(path)
    log.info("Creating %s: %s", path, change)
    pipeline.save_results = True
    pipeline.run(list(background))
    write_reports([path], path.with_suffix(".html"))
    log.info("Saved its report in %s", path.with_suffix(".html"))
    return str(path)
