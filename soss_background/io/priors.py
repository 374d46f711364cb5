"""Prior of the sky of an exposure: a sky model, templates, or a smooth surface."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from soss_background.datamodels.sky_model import SkyModel
from soss_background.detector import has_edge
from soss_background.errors import SkyflatError
from soss_background.io.sky_models import (
    find_cover,
    name_sky_model,
    open_sky_model,
    read_statistics,
)
from soss_background.io.templates import inspect_sky, read_templates
from soss_background.sky.sky_prior import build_prior, cut_prior
from soss_background.sky.smooth_prior import build_smooth_prior

__all__ = ["SkySource", "check_alone", "read_sky"]


@dataclass(frozen=True)
class SkySource:
    """
    A sky model, templates, or a smooth surface, for the pixels of an exposure.

    Attributes
    ----------
    states : list of tuple of str and bool
        Name of the sky model or of each template, and whether it is flat-fielded; empty for a
        smooth surface.
    number : int
        Number of templates, or of the skyflats of the sky model.
    flags : ndarray of uint32, shape (ny, nx)
        JWST data quality flags that all of them share.
    make_prior : callable
        Returns the `~soss_background.sky.sky_prior.SkyPrior`. Its argument is the flat by which
        skies that are not flat-fielded are divided, or None.
    """

    states: list
    number: int
    flags: np.ndarray
    make_prior: Callable


def check_alone(sources):
    """Raise if a sky model is given together with other skies."""
    for source in sources if len(sources) > 1 else ():
        if inspect_sky(source).kind is SkyModel:
            name = name_sky_model(source, source) if isinstance(source, SkyModel) else source
            raise SkyflatError(f"{name}: a sky model is used alone, not with other skies")


def read_sky(sources, window, pwcpos, filter_name="CLEAR"):
    """
    Read a sky model or templates.

    Parameters
    ----------
    sources : list of `~pathlib.Path`, data models or arrays
        One sky model, or skyflats, BKG reference files and arrays; without an edge there may be
        none, for a smooth surface.
    window : `~soss_background.detector.Window`
        Pixels of the exposure.
    pwcpos : float
        Pupil wheel position of the exposure, degrees.
    filter_name : str
        FILTER of the exposure.

    Returns
    -------
    sky : SkySource
        The sky.

    Raises
    ------
    SkyflatError
        If a source cannot be read, or lacks these pixels.
    """
    if sources and inspect_sky(sources[0]).kind is SkyModel:
        return _from_model(sources[0], window, pwcpos)
    templates = [template for each in sources for template in read_templates(each, window)]
    return SkySource(
        [(each.name, each.flat_fielded) for each in templates],
        len(templates),
        _common_flags(templates, window),
        partial(_build, templates, window, pwcpos, filter_name),
    )


def _from_model(source, window, pwcpos):
    """Return the sky of a sky model."""
    with open_sky_model(source) as model:
        name = name_sky_model(source, model)
        place, statistics = find_cover(model, window, name), read_statistics(model)
        fielded = model.meta.skyflat.flat_correction == "COMPLETE"
    row, column = window.y0 - place.y0, window.x0 - place.x0
    flags = statistics.dq[row : row + window.ny, column : column + window.nx]

    def make_prior(flat):
        divisor = None if fielded else flat
        return cut_prior(statistics, place, window, divisor=divisor, pwcpos=pwcpos)

    return SkySource([(name, fielded)], len(statistics.weights), flags, make_prior)


def _common_flags(templates, window):
    """Return the flags that all templates share; 0 without a template."""
    if not templates:
        return np.zeros(window.shape, dtype=np.uint32)
    return np.bitwise_and.reduce([each.dq for each in templates])


def _build(templates, window, pwcpos, filter_name, flat):
    """Build the prior of templates; those that are not flat-fielded are divided by the flat."""
    skies = [
        each if flat is None or each.flat_fielded else each.divided(flat) for each in templates
    ]
    if not has_edge(filter_name):
        return build_smooth_prior(window, skies)
    try:
        return build_prior(skies, window, pwcpos=pwcpos)
    except ValueError as err:
        raise SkyflatError(str(err)) from err
