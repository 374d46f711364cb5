"""The data model of traces."""

import numpy as np
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.registry import register

__all__ = ["SossTracesModel"]


@register
class SossTracesModel(JwstDataModel):
    """
    Traces of a NIRISS SOSS exposure.

    Attributes
    ----------
    traces : ndarray
        One row per column of an order: ``order``, ``column``, ``row`` (of the centre, pixels of the
        exposure counted from 0), ``expected`` (row before the fit), ``wavelength`` (micron).
    slices : ndarray
        One row per slice of an order: ``order``, ``column``, ``expected`` and measured ``row`` (NaN
        where there is none), ``peak`` above the background (median absolute deviations),
        ``crowded`` by another order, ``detected``, ``used`` in the fit, ``residual`` from it
        (pixels).
    """

    schema_url = "http://soss-background.readthedocs.io/schemas/traces.schema"

    def get_primary_array_name(self):
        """Return the name of the array that defines the model's shape."""
        return "traces"

    def rows(self, order, number):
        """
        Return the trace of an order in the columns of the exposure.

        Parameters
        ----------
        order : int
            Spectral order.
        number : int
            Number of columns.

        Returns
        -------
        row, wavelength : ndarray of float, shape (number,)
            Row of the centre and wavelength (micron) in each column; NaN beyond the trace.
        """
        mine = self.traces[self.traces["order"] == order]
        spread = np.full((2, number), np.nan)
        spread[:, mine["column"]] = mine["row"], mine["wavelength"]
        return spread
