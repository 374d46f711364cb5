"""A library of exposures that reads from their files no more than is asked for."""

from astropy.io import fits
from jwst.datamodels import ModelLibrary
from stdatamodels.jwst import datamodels

__all__ = ["ExposureLibrary"]

# Models whose pixels are mapped to memory instead of being read.
_MAPPED = {model.__name__: model for model in (datamodels.ImageModel, datamodels.CubeModel)}


class ExposureLibrary(ModelLibrary):
    """
    A ModelLibrary whose files are mapped to memory, and whose headers are read but once.

    Parameters
    ----------
    *args, **kwargs
        See `~jwst.datamodels.ModelLibrary`.
    """

    def __init__(self, *args, **kwargs):
        self._headers = {}
        super().__init__(*args, **kwargs)

    def read_metadata(self, idx, flatten=True):
        """
        Read the metadata of an exposure.

        Parameters
        ----------
        idx : int
            Number of the exposure.
        flatten : bool
            Whether keys are joined by dots.

        Returns
        -------
        dict
            The metadata.
        """
        if not flatten:
            return super().read_metadata(idx, flatten=False)
        if idx not in self._headers:
            self._headers[idx] = super().read_metadata(idx)
        return dict(self._headers[idx])

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
        if modify:
            self._headers.pop(self._ledger[model] if index is None else index, None)
        super().shelve(model, index, modify)

    def finalize_result(self, step, reference_files_used):
        """
        Complete the headers of exposures, unless they are only passed on to the next step.

        Parameters
        ----------
        step : `~jwst.stpipe.Step`
            The step that has made the exposures.
        reference_files_used : list of tuple
            Kind and name of each reference file.
        """
        if step.parent is None or step.save_results:
            super().finalize_result(step, reference_files_used)

    def _datamodels_open(self, filename, **kwargs):
        """Open an exposure; its pixels are mapped to memory if it is of a kind that has many."""
        if str(filename).endswith(".fits"):
            with fits.open(filename) as hdus:
                model = _MAPPED.get(hdus[0].header.get("DATAMODL"))
                if model is not None:
                    return model(hdus)
        return super()._datamodels_open(filename, **kwargs)
