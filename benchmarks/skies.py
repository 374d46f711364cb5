"""Skies of simulated visits: ours, the limit, and ours with an ingredient removed."""

from dataclasses import replace

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.combine import sky
from soss_background.denoise import smooth_sky
from soss_background.io.store import Stack
from soss_background.mask import source_mask
from soss_background.numerics.cells import CELL, bin_to_cells, cell_bands, expand_cells
from soss_background.numerics.integrations import usable_pixels
from soss_background.sky import sources
from soss_background.sky.commissioning import commissioning_profile

__all__ = ["ABLATIONS", "limit_sky", "our_sky"]

_BAD = sum(dqflags.pixel[name] for name in ("DO_NOT_USE", "HOT", "OTHER_BAD_PIXEL"))


def our_sky(visit):
    """
    Mask, combine and denoise a visit, as the pipeline does.

    Parameters
    ----------
    visit : `datasets.Visit`
        The exposures.

    Returns
    -------
    combined : `~soss_background.combine.sky.CombinedSky`
        The sky before denoising.
    denoised : ndarray of float32, shape (ny, nx)
        The sky after it, in DN/s.
    """
    stack = list(zip(visit.images, visit.errors, visit.flags, strict=True))
    cells = [bin_to_cells(image, err, usable_pixels(image, err, dq)) for image, err, dq in stack]
    means, noise = (np.array(part) for part in zip(*cells, strict=True))
    profile = commissioning_profile((np.arange(means.shape[-1]) + 0.5) * CELL[1])
    bands = cell_bands(visit.window.amplifiers())
    sources = source_mask.find_sources(means, noise, profile=profile, bands=bands)
    sources = np.array([expand_cells(source, visit.truth.shape) for source in sources])
    return _combine_and_denoise(visit, sources)


def limit_sky(visit):
    """
    Combine and denoise a visit from which true star light and stripes are removed.

    Parameters
    ----------
    visit : `datasets.Visit`
        The exposures.

    Returns
    -------
    combined, denoised
        As `our_sky`.
    """
    visit = replace(visit, images=visit.images - visit.light - visit.stripes)
    return _combine_and_denoise(visit, np.zeros(visit.images.shape, dtype=bool))


def _combine_and_denoise(visit, sources):
    exposures = list(zip(visit.images, visit.errors, visit.flags, sources, strict=True))
    bands = visit.window.amplifiers()
    stack = Stack(len(exposures))
    combined = sky.combine_exposures(exposures, stack, bands=bands, flat_error=visit.flat_error)
    good = combined.dq & _BAD == 0
    return combined, smooth_sky.denoise_sky(combined.sky, combined.err, good)


def _no_light(cells, *_):
    return np.zeros_like(cells)


def _no_stripes(*arguments):
    levels = _REFINE(*arguments)
    levels.stripes[:] = 0
    return levels


def _no_levels(*arguments):
    levels = _REFINE(*arguments)
    levels.scale[:] = 1
    return levels


def _no_flags(image, *_):
    return np.zeros(image.shape, dtype=np.uint32)


def _no_sources(cells, *_, **__):
    return np.zeros(cells.shape, dtype=bool)


def _one_round(*arguments, **keywords):
    return _FIND(*arguments, max_rounds=1, **keywords)


def _no_edge(*_):
    return None


_REFINE = sky.refine_levels
_FIND = source_mask.find_sources

# Each ingredient, and its replacement.
ABLATIONS = {
    "star light not subtracted": (sky, "model_star_light", _no_light),
    "no masks, no star light": (source_mask, "find_sources", _no_sources),
    "masks of compact light only": (sources, "_SCALES", sources._SCALES[:1]),
    "masks not iterated": (source_mask, "find_sources", _one_round),
    "stripes not solved": (sky, "refine_levels", _no_stripes),
    "levels not solved": (sky, "refine_levels", _no_levels),
    "hot pixels not flagged": (sky, "_flag_outlying_pixels", _no_flags),
    "edge not modelled": (smooth_sky, "trace_edge", _no_edge),
}
