"""Skies that SkyflatSubtractStep saved with ``save_background``."""

from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.io.checks import check_model
from soss_background.io.exposures import find_window, read_header
from soss_background.io.files import explain_fault, save_whole
from soss_background.io.templates import read_flat

__all__ = ["export_sky", "is_fielded", "open_saved_sky"]

_NO_SKY = "not a sky that SkyflatSubtractStep saved"


@contextmanager
def open_saved_sky(path):
    """Open a saved sky as a context; raise SkyflatError for any other file."""
    if read_header(path).get("meta.model_type") != datamodels.ImageModel.__name__:
        raise SkyflatError(f"{path}: {_NO_SKY}")
    with ExitStack() as stack:
        with explain_fault(path):
            saved = stack.enter_context(datamodels.ImageModel(path))
            # An exposure without its sky is COMPLETE; other images lack the record of the fit.
            subtracted = saved.meta.cal_step.bkg_subtract == "COMPLETE"
            if subtracted or not hasattr(saved.meta, "skyflat_subtract"):
                raise SkyflatError(f"{path}: {_NO_SKY}")
            check_model(saved, path)
        # An error within the caller's context is not a fault of this file.
        yield saved


def is_fielded(model):
    """Return whether a model is flat-fielded."""
    return model.meta.cal_step.flat_field == "COMPLETE"


def export_sky(sky, output, flat=None):
    """
    Write a saved sky as an ``.npy`` array, the ``soss_background_file`` of exoTEDRF.

    exoTEDRF subtracts its background after the flat field, so that the array is flat-fielded.

    Parameters
    ----------
    sky : str or `~pathlib.Path`
        The saved sky.
    output : str or `~pathlib.Path`
        File to write: float64, shape (ny, nx) of the subarray, DN/s.
    flat : str or `~pathlib.Path`, optional
        Flat by which a sky that is not flat-fielded is divided.

    Raises
    ------
    SkyflatError
        If a file cannot be read, or a flat is missing or not needed.
    """
    with open_saved_sky(sky) as saved:
        fielded = is_fielded(saved)
        if fielded and flat:
            raise SkyflatError(f"{sky}: flat-fielded already, {flat} cannot be applied")
        if not fielded and not flat:
            raise SkyflatError(f"{sky}: not flat-fielded, give its flat (--flat FILE)")
        divisor = 1 if fielded else read_flat(flat, find_window(saved))
        array = np.asarray(saved.data / divisor, dtype=float)
    save_whole(partial(np.save, arr=array), Path(output))
