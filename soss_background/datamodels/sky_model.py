"""The data model of a sky model."""

from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.registry import register

__all__ = ["SkyModel"]


@register
class SkyModel(JwstDataModel):
    """
    Mean and variation of the sky of NIRISS SOSS exposures, learned from skyflats.

    Attributes
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Mean sky, with a median of one on each side of the edge.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    err : ndarray of float32, shape (ny, nx)
        1-sigma uncertainty of ``sky`` as the shape of a new sky, without its smooth deviations.
    dq : ndarray of uint32, shape (ny, nx)
        Data quality flags (`stdatamodels.jwst.datamodels.dqflags`) that all skyflats share.
    components : ndarray of float32, shape (k, 2, my, mx), or None
        Components of the variation left and right of the edge, at nodes, with bilinear
        interpolation between them; the first and last nodes are the first and last pixels of
        ``sky``. None without components.
    variances : ndarray, shape (k,)
        ``variance`` of each ``component`` as a fraction of the sky squared, and its ``fraction`` of
        the variance of the smooth deviations.
    edge : ndarray, shape (ny,)
        ``column`` and ``width`` (10 to 90 %) of the edge in each ``row``, pixels; empty if there is
        no edge.
    trends : ndarray
        Significant trends of level and ratio with ecliptic latitude and season, see
        `soss_background.sky.trends.fit_trends`.
    members : ndarray, shape (n,)
        One row per skyflat: its observation, level, weight.
    """

    schema_url = "http://soss-background.readthedocs.io/schemas/skymodel.schema"

    def get_primary_array_name(self):
        """Return the name of the array that defines the model's shape."""
        return "sky"
