"""The data model of a skyflat."""

from stdatamodels.jwst.datamodels import JwstDataModel

__all__ = ["SkyflatModel"]


class SkyflatModel(JwstDataModel):
    """
    An empirical sky model of NIRISS SOSS exposures.

    Attributes
    ----------
    bkg : ndarray of float32, shape (ny, nx)
        The empirical sky, flat-fielded, in DN/s.
    bkgdn : ndarray of float32, shape (ny, nx)
        The same, denoised, in DN/s; finite on every science pixel.
    err : ndarray of float32, shape (ny, nx)
        The 1-sigma uncertainty of ``bkg`` in DN/s.
    dq : ndarray of uint32, shape (ny, nx)
        Data quality of ``bkg`` (`stdatamodels.jwst.datamodels.dqflags`): DO_NOT_USE where it had
        to be filled, HOT, REFERENCE_PIXEL, ...
    images : ndarray of float32, shape (n, ny, nx), or None
        The exposures as they were combined, in DN/s.
    masks : ndarray of uint8, shape (n, ny, nx), or None
        1 where a pixel of an exposure was left out, 0 where it was used.
    metadata : ndarray, shape (n,)
        One row an exposure: pointing, time, level.
    qc : ndarray or None
        Quality metrics, one a row.
    """

    schema_url = "http://soss-background.readthedocs.io/schemas/skyflat.schema"

    def get_primary_array_name(self):
        """Name the array that defines the model's shape."""
        return "bkg"
