"""Skyflats denoised with a library of others."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from soss_background import __version__
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError, count
from soss_background.io.files import add_history, check_output, save_datamodel
from soss_background.io.skyflats import open_skyflat
from soss_background.sky.stripes import estimate_stripes, spread_stripes

__all__ = ["denoise_library", "plan_denoised"]

# Keywords that describe the noise of a skyflat, and the step that writes them.
_NEEDED = {
    "smoothing_rows": ("DNROWS", "SkyflatDenoiseStep"),
    "smoothing_columns": ("DNCOLS", "SkyflatDenoiseStep"),
    "stripe_rms": ("STRIPES", "SkyflatCombineStep"),
}


def plan_denoised(library, folder):
    """
    Check that the skyflats of a library can be denoised, and return the files to write.

    Parameters
    ----------
    library : `~soss_background.io.sky_library.SkyLibrary`
        The skyflats.
    folder : `~pathlib.Path`
        Folder of the denoised skyflats.

    Returns
    -------
    paths : list of `~pathlib.Path`
        A file of the same name in the folder for each skyflat.

    Raises
    ------
    SkyflatError
        If all skyflats are of one visit, one lacks what denoising needs or has been denoised with
        a library already, or a file cannot be written.
    """
    names = [Path(row["name"]).name for row in library.rows]
    if len({row["visit"] for row in library.rows}) < 2:
        raise SkyflatError(
            f"{names[0]}: denoising needs skyflats of two or more visits "
            "(program, target or observation differ)"
        )
    paths = [folder / name for name in names]
    for item, name, path in zip(library.items, names, paths, strict=True):
        if names.count(name) > 1:
            raise SkyflatError(f"{name}: two skyflats have this name; denoise them separately")
        check_output(path)
        with open_skyflat(item) as skyflat:
            _check(skyflat, name)
    return paths


def _check(skyflat, name):
    """Raise unless a skyflat holds what denoising needs."""
    known = skyflat.meta.skyflat
    if skyflat.bkgdn is None:
        raise SkyflatError(f"{name}: it has no BKGDN; run SkyflatDenoiseStep first")
    if known.stripes_left is not None:
        raise SkyflatError(f"{name}: it has been denoised with a library already (DNLEFT)")
    for key, (keyword, step) in _NEEDED.items():
        if getattr(known, key) is None:
            raise SkyflatError(f"{name}: its {keyword} is missing; run {step} again")


def denoise_library(library, paths):
    """
    Subtract from each skyflat its stripes, estimated by the skyflats of the other visits.

    Parameters
    ----------
    library : `~soss_background.io.sky_library.SkyLibrary`
        The skyflats, which stay unchanged.
    paths : list of `~pathlib.Path`
        Files to write, see `plan_denoised`.

    Returns
    -------
    found : list of float
        Fraction of the variance of the stripes of each skyflat that was subtracted.
    """
    sigmas = []
    for item in library.items:
        with open_skyflat(item) as skyflat:
            sigmas.append(skyflat.meta.skyflat.smoothing_columns)
    stripes = estimate_stripes(library.comparison, library.place, sigmas)
    work = zip(library.items, library.rows, stripes, paths, strict=True)
    for item, row, each, path in tqdm(work, "Writing", len(paths), unit="skyflat", disable=None):
        others = [other["name"] for other in library.rows if other["visit"] != row["visit"]]
        with open_skyflat(item) as skyflat:
            denoised = skyflat.copy() if isinstance(item, SkyflatModel) else skyflat
            _subtract(denoised, each, library.place, others)
            save_datamodel(denoised, path)
    return [each.found for each in stripes]


def _subtract(skyflat, stripes, window, others):
    """Subtract stripes from BKGDN; record the remaining noise and the skyflats that were used."""
    known = skyflat.meta.skyflat
    image = spread_stripes(stripes, window, known.smoothing_rows)
    skyflat.bkgdn = np.where(window.reference_pixels(), 0, skyflat.bkgdn - image)
    known.stripes_left = float(np.sqrt(1 - stripes.found))
    if known.noise_factor is not None:
        square = known.noise_factor**2
        removed = stripes.found * stripes.variance / np.median(skyflat.err[skyflat.err > 0]) ** 2
        # The noise includes the stripes, so it cannot fall by a larger fraction than they do.
        known.noise_factor = float(np.sqrt(max(square - removed, (1 - stripes.found) * square)))
    # Earlier metrics describe the sky before its stripes were subtracted.
    skyflat.qc = skyflat.meta.cal_step.skyflat_quality = None
    skyflats = count(len(others), "skyflat")
    text = f"Denoised with {skyflats} of other visits by soss_background {__version__}"
    for line in (text, *(f"  {name}" for name in others)):
        add_history(skyflat, line)
