"""A library of exposures that reads from their files no more than is asked for."""

import mmap
from pathlib import Path

import numpy as np
from astropy.io import fits
from jwst.datamodels import ModelLibrary
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.io.store import StoredArray
from soss_background.numerics.integrations import average_integrations, usable_pixels
from soss_background.numerics.threads import map_parallel, split_rows

__all__ = ["ExposureLibrary", "as_image"]

# Exposures, whose pixels are mapped to memory instead of being read.
_KINDS = {kind.__name__: kind for kind in (datamodels.ImageModel, datamodels.CubeModel)}

# Rows in which a usable pixel is looked for at a time.
_ROWS = 64


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
        The metadata of each exposure, flattened.
    folder : `~pathlib.Path`, optional
        Folder of the pixels of changed exposures; by default they are kept in memory.

    Attributes
    ----------
    summaries : `~soss_background.numerics.summaries.ExposureSummaries` or None
        Summaries of the exposures as they are, left by a step for the next one; None once an
        exposure is changed.
    """

    def __init__(self, association, headers, folder=None):
        super().__init__(association)
        self.summaries = None
        self._headers, self._folder, self._stored = headers, folder, {}

    def read_metadata(self, idx, flatten=True):
        """
        Read the metadata of an exposure, from its file but once.

        Parameters
        ----------
        idx : int
            Number of the exposure.
        flatten : bool
            Whether keys are joined by dots.

        Returns
        -------
        metadata : dict
            The metadata.
        """
        if idx in self._loaded_models or not flatten:
            return super().read_metadata(idx, flatten)
        return self._assign_member_to_meta(dict(self._headers[idx]), self._members[idx], flatten)

    def shelve(self, model, index=None, modify=True):
        """
        Return an exposure to the library.

        Parameters
        ----------
        model : `~stdatamodels.jwst.datamodels.JwstDataModel`
            The exposure.
        index : int, optional
            Its number.
        modify : bool
            Whether the library keeps what has been changed.
        """
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

    def _store(self, model, index):
        """Leave the pixels of an exposure to files, mapped to memory when they are asked for."""
        known = self._stored.get(index, {})

        def store(name, plane):
            stored = known.get(name)
            if not (stored and isinstance(plane.base, mmap.mmap) and plane.filename == stored.path):
                kind = plane.dtype.newbyteorder("=")
                stored = StoredArray(self._folder, plane.shape, kind)
                plane.astype(kind, copy=False).tofile(stored.path)
            return stored

        planes = {name: part for name, part in model.instance.items() if np.ndim(part) > 1}
        stored = map_parallel(store, planes.keys(), planes.values())
        self._stored[index] = dict(zip(planes, stored, strict=True))
        for name, array in self._stored[index].items():
            # A new map, since touched pages of a map count as memory in use.
            setattr(model, name, array.map("r+"))

    def _filename_to_group_id(self, filename):
        """Make every exposure a group of its own, since NIRISS has but one detector."""
        return Path(filename).stem

    def _datamodels_open(self, filename, **kwargs):
        """Open an exposure as an image."""
        if Path(filename).suffix == ".fits":
            with fits.open(filename) as hdus:
                kind = _KINDS.get(hdus[0].header.get("DATAMODL"))
                if kind is not None:
                    # Assignments need no check: what is saved will be checked.
                    return as_image(kind(hdus, validate_on_assignment=False))
        return as_image(super()._datamodels_open(filename, **kwargs))


def as_image(model):
    """
    Bring an exposure to a single image that has at least one usable pixel.

    Parameters
    ----------
    model : `~stdatamodels.jwst.datamodels.ImageModel` or \
            `~stdatamodels.jwst.datamodels.CubeModel`
        A rate or rateints exposure.

    Returns
    -------
    image : `~stdatamodels.jwst.datamodels.ImageModel`
        The input itself if it is an image, else the mean of its integrations
        (`soss_background.numerics.integrations.average_integrations`).

    Raises
    ------
    SkyflatError
        If the model is of another kind, lacks errors or has no usable pixel.
    """
    _check(model)
    return _average(model) if isinstance(model, datamodels.CubeModel) else model


def _check(model):
    """Raise unless a model is an exposure of which something can be used."""
    name = model.meta.filename
    kinds = (datamodels.ImageModel, datamodels.CubeModel)
    if not isinstance(model, kinds) or model.data is None or model.data.ndim not in (2, 3):
        raise SkyflatError(f"{name}: neither a rate nor a rateints exposure")
    if model.err is None or model.dq is None:
        raise SkyflatError(f"{name}: no ERR or no DQ array")
    if model.meta.bunit_data not in (None, "DN/s"):
        raise SkyflatError(f"{name}: BUNIT is {model.meta.bunit_data}, not DN/s")
    planes = (model.data, model.err, model.dq)
    blocks = split_rows(model.data.shape[-2], _ROWS)
    if not any(usable_pixels(*(plane[..., b, :] for plane in planes)).any() for b in blocks):
        raise SkyflatError(
            f"{name}: no usable pixel (all are NaN, flagged DO_NOT_USE, or of zero or NaN error)"
        )


def _average(cube):
    """Make an image of the integrations of a cube."""
    variances = [
        np.broadcast_to(np.float32(0), cube.err.shape) if variance is None else variance
        for variance in (cube.var_poisson, cube.var_rnoise)
    ]
    averages = average_integrations(cube.data, cube.err, cube.dq, *variances)
    image = datamodels.ImageModel(**averages, validate_on_assignment=False)
    image.update(cube)
    return image
