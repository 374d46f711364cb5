"""A library of exposures that reads only requested data from their files."""

import mmap
from pathlib import Path

import numpy as np
from astropy.io import fits
from jwst.datamodels import ModelLibrary
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.io.checks import check_model
from soss_background.io.files import explain_write_fault
from soss_background.io.opening import guess_class, is_fits
from soss_background.io.store import StoredArray
from soss_background.numerics.integrations import (
    average_integrations,
    split_cube,
    usable_pixels,
)
from soss_background.numerics.threads import map_parallel

__all__ = [
    "ExposureLibrary",
    "as_image",
    "check_count_rates",
    "check_exposure",
    "exposure_planes",
    "find_pixel_fault",
]

# Models whose pixels are mapped to memory instead of being read.
_KINDS = (datamodels.ImageModel, datamodels.CubeModel)


class ExposureLibrary(ModelLibrary):
    """
    A ModelLibrary of images, whose pixels take memory only while they are borrowed.

    Cubes are averaged when they are borrowed. A changed exposure keeps its metadata in memory and
    its pixels in files without a header.

    Parameters
    ----------
    association : dict
        The association, with absolute paths of FITS or ASDF files.
    headers : list of dict
        Flattened metadata of each exposure.
    folder : `~pathlib.Path`, optional
        Folder for the pixels of changed exposures; by default they stay in memory.

    Attributes
    ----------
    summaries : `~soss_background.numerics.summaries.ExposureSummaries` or None
        Summaries that a step leaves for the next one; None once an exposure is changed.
    """

    def __init__(self, association, headers=(), folder=None):
        super().__init__(association)
        self.summaries = None
        self._headers, self._folder, self._stored = headers, folder, {}

    def read_metadata(self, idx, flatten=True):
        """Return the metadata of an unchanged exposure without reading its file again."""
        if idx in self._loaded_models or not flatten:
            return super().read_metadata(idx, flatten)
        return self._assign_member_to_meta(dict(self._headers[idx]), self._members[idx], flatten)

    def shelve(self, model, index=None, modify=True):
        """Return an exposure to the library, which keeps its changes if ``modify``."""
        index = self._ledger.get(model) if index is None else index
        super().shelve(model, index, modify)
        if modify:
            self.summaries = None
        if self._folder is None:
            return
        if modify or index in self._stored:
            self._store(self._loaded_models[index], index)
        else:
            del self._loaded_models[index]

    def finalize_result(self, *args):
        """Finalize the exposures; their pixels, and so their summaries, do not change."""
        summaries = self.summaries
        super().finalize_result(*args)
        self.summaries = summaries

    def _store(self, model, index):
        """Write the pixels of an exposure to files, and map these to memory instead."""
        known = self._stored.get(index, {})

        def store(name, plane):
            stored = known.get(name)
            if not (stored and isinstance(plane.base, mmap.mmap) and plane.filename == stored.path):
                kind = plane.dtype.newbyteorder("=")
                stored = StoredArray(self._folder, plane.shape, kind)
                with explain_write_fault(self._folder):
                    stored.path.write_bytes(np.ascontiguousarray(plane, kind))
            return stored

        planes = {name: part for name, part in model.instance.items() if np.ndim(part) > 1}
        stored = map_parallel(store, planes.keys(), planes.values())
        self._stored[index] = dict(zip(planes, stored, strict=True))
        for name, array in self._stored[index].items():
            # Open a new map, since the touched pages of a map count as memory in use.
            setattr(model, name, array.map("r+"))

    def _filename_to_group_id(self, filename):
        """Return a separate group for every exposure, since NIRISS has only one detector."""
        return Path(filename).stem

    def _datamodels_open(self, filename, **kwargs):
        """Open an exposure as an image."""
        if is_fits(filename):
            with fits.open(filename) as hdus:
                kind = guess_class(hdus)
                if kind in _KINDS:
                    # Assignments need no check: saving validates the model.
                    return as_image(kind(hdus, validate_on_assignment=False))
        return as_image(super()._datamodels_open(filename, **kwargs))


def as_image(model):
    """Return an image unchanged, a cube as the mean of its integrations; raise if unusable."""
    check_count_rates(model)
    if fault := find_pixel_fault(model):
        raise SkyflatError(f"{model.meta.filename}: {fault}")
    if not isinstance(model, datamodels.CubeModel):
        return model
    planes = average_integrations(*exposure_planes(model))
    image = datamodels.ImageModel(**planes, validate_on_assignment=False)
    image.update(model)
    return image


def check_exposure(model):
    """Raise unless a model is an image or a cube with all of its planes."""
    name = model.meta.filename
    is_known = isinstance(model, _KINDS) and model.data is not None
    if is_known:
        check_model(model, name)
    if not is_known or model.data.ndim not in (2, 3):
        raise SkyflatError(f"{name}: neither a rate nor a rateints exposure")


def check_count_rates(model):
    """Raise unless a model is an image or a cube in DN/s."""
    check_exposure(model)
    if model.meta.bunit_data not in (None, "DN/s"):
        raise SkyflatError(f"{model.meta.filename}: BUNIT is {model.meta.bunit_data}, not DN/s")


def find_pixel_fault(model):
    """Return why an exposure has no usable pixel, or None; few rows are searched."""
    planes, lowest, highest = (model.data, model.err, model.dq), np.inf, -np.inf
    for rows in split_cube(model.data.shape):
        data, err, dq = (plane[..., rows, :] for plane in planes)
        values = data[usable_pixels(data, err, dq)]
        lowest = min(lowest, values.min(initial=np.inf))
        highest = max(highest, values.max(initial=-np.inf))
        if lowest < highest:
            return None
    if lowest > highest:
        return "no usable pixel (all are NaN, flagged DO_NOT_USE, or of zero or NaN error)"
    return f"all usable pixels have the same value, {lowest:g}"


def exposure_planes(model):
    """Return data, err, dq and both variances of an image or cube, each (nints, ny, nx)."""
    variances = [
        np.broadcast_to(np.float32(0), model.err.shape) if variance is None else variance
        for variance in (model.var_poisson, model.var_rnoise)
    ]
    shape = (-1, *model.data.shape[-2:])
    return [plane.reshape(shape) for plane in (model.data, model.err, model.dq, *variances)]
