"""Changes of the sky from integration to integration."""

import numpy as np

from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.threads import map_parallel

__all__ = ["measure_scales"]

# Deviations from the mean are clipped at this many robust standard deviations.
_OUTLIER = 4.0


def measure_scales(data, mean, sky, used):
    """
    Measure the level of the sky in each integration, relative to that of the mean.

    Parameters
    ----------
    data : ndarray of float, shape (nints, ny, nx)
        Integrations, DN/s.
    mean, sky : ndarray of float, shape (ny, nx)
        Mean of all integrations of the exposure, and its sky, DN/s.
    used : ndarray of bool, shape (ny, nx)
        True for pixels used in the fit.

    Returns
    -------
    scales : ndarray of float, shape (nints,)
        The levels; 1 for an integration without a measurement.
    """
    mean, sky = mean[used], sky[used]

    def measure(integration):
        # Stars and their wings are constant, so they cancel in the difference from the mean.
        difference = integration[used] - mean
        known = np.isfinite(difference)
        if not known.any():
            return 1.0
        difference, template = difference[known], sky[known]
        limit = _OUTLIER * MAD_TO_SIGMA * np.median(np.abs(difference))
        return 1 + np.sum(template * np.clip(difference, -limit, limit)) / np.sum(template**2)

    return np.array(map_parallel(measure, data))
