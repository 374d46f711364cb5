"""Write the skies that represent a sky model as the BKG reference file of jwst's step."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst import datamodels

from soss_background import __version__
from soss_background.detector import SUBARRAYS
from soss_background.errors import SkyflatError, count
from soss_background.io.sky_models import (
    find_cover,
    name_sky_model,
    open_sky_model,
    read_statistics,
)
from soss_background.io.templates import cut_planes, read_flat
from soss_background.reference.candidates import find_flat, locate_flat
from soss_background.reference.keywords import (
    USEAFTER,
    check_pedigree,
    check_subarray,
    check_useafter,
    describe,
)
from soss_background.reference.representatives import represent_prior
from soss_background.sky.sky_prior import cut_prior

__all__ = ["make_model_reference"]


def make_model_reference(
    model,
    subarray="SUBSTRIP256",
    *,
    number=12,
    flat=None,
    useafter=USEAFTER,
    author=None,
    pedigree="MODEL",
    description=None,
):
    """
    Create a BKG reference file of the skies that represent a sky model best.

    jwst's step subtracts the best of its templates without changing its shape. The templates
    minimize the mean square of the residual, see
    `soss_background.reference.representatives.represent_prior`.

    Parameters
    ----------
    model : str, `~pathlib.Path` or SkyModel
        The sky model.
    subarray : {"SUBSTRIP256", "SUBSTRIP96", "FULL"}
        Pixels of the library. jwst itself cuts SUBSTRIP96 from SUBSTRIP256.
    number : int
        Number of templates.
    flat : str or `~pathlib.Path`, optional
        FLAT reference file; by default that of the model.
    useafter, author, pedigree, description : str, optional
        Values of keywords. By default a date before all SOSS exposures, the author of the model,
        MODEL, and the number of skies.

    Returns
    -------
    reference : `~stdatamodels.jwst.datamodels.SossBkgModel`
        The library, one plane for each template, DN/s. Its HISTORY lists the skyflats of the model.
    table : `~astropy.table.Table`
        A row for each template, which the extension TEMPLATES has too: its number (``TEMPLATE``),
        the fraction of the skies that it fits best (``SHARE``), and the shift
        of its edge from the mean, pixels (``SHIFT``).

    Raises
    ------
    SkyflatError
        If a parameter is not valid, the model cannot be read or lacks these pixels, or its flat is
        unknown or not available.
    """
    check_subarray(subarray)
    if number < 1:
        raise SkyflatError("A library has at least one template")
    window = SUBARRAYS[subarray]
    texts = {
        "useafter": check_useafter(useafter),
        "pedigree": check_pedigree(pedigree),
        "description": description or f"{count(number, 'sky')} of a sky model of SOSS, {subarray}",
    }
    with open_sky_model(model) as opened:
        name = name_sky_model(model, opened)
        place = find_cover(opened, window, name)
        flat = find_flat(opened, name, flat)
        factor = read_flat(locate_flat(flat, name), window) if flat else np.float32(1)
        factor = factor * np.float32(opened.meta.sky_model.level_median)
        prior = cut_prior(read_statistics(opened), place, window)
        skies, shares, shifts = represent_prior(prior, number)
        skies[:, window.reference_pixels()] = 0
        (dq,) = cut_planes(opened, [opened.dq], window, name)
        members = list(opened.members["filename"].astype(str))
        texts["author"] = author or opened.meta.author or "soss_background"
    reference = datamodels.SossBkgModel(
        data=skies * factor,
        err=np.repeat([prior.noise * factor], number, axis=0),
        dq=np.repeat([dq], number, axis=0),
    )
    numbers = np.arange(1, number + 1)
    table = Table({"TEMPLATE": numbers, "SHARE": shares, "SHIFT": shifts})
    table["SHIFT"].unit = "pixel"
    reference.extra_fits = {"TEMPLATES": {"data": fits.table_to_hdu(table).data}}
    describe(reference, window, texts)
    _add_history(reference, name, members, flat)
    for column in ("SHARE", "SHIFT"):
        table[column].format = ".2f"
    return reference, table


def _add_history(reference, name, members, flat):
    """Record the sky model and its skyflats."""
    lines = [
        f"Made of the sky model {name} by soss_background {__version__}",
        f"  multiplied by {Path(flat).name}" if flat else "  not flat-fielded",
        *(f"Skyflat of the model: {member}" for member in members),
    ]
    for line in lines:
        reference.add_history_entry(line)
