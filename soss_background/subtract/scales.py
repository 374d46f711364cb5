"""Changes of the sky from integration to integration."""

import numpy as np

from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.threads import map_parallel

__all__ = ["measure_scales"]

# Deviations from the mean are clipped at this many robust standard deviations.
_OUTLIER = 4.0


def measure_scales(data, sky, used):
    """
    Measure the level of the sky in each integration relative to that of their mean.

    Stars and their wings do not change, and cancel in the difference of an integration and the
    mean.

    Parameters
    ----------
    data : ndarray of float, shape (nints, ny, nx)
        Count rates in DN/s.
    sky : ndarray of float, shape (ny, nx)
        Sky of their mean in DN/s.
    used : ndarray of bool, shape (ny, nx)
        Pixels that show the sky.

    Returns
    -------
    scales : ndarray of float, shape (nints,)
        Levels, with a mean of one.
    """
    weight = sky[used] / np.sum(sky[used] ** 2)
    samples = np.array([integration[used] for integration in data])
    mean = np.nanmean(samples, axis=0)

    def measure(sample):
        difference = np.nan_to_num(sample - mean)
        limit = _OUTLIER * MAD_TO_SIGMA * np.median(np.abs(difference))
        return np.sum(weight * np.clip(difference, -limit, limit))

    scales = np.array(map_parallel(measure, samples))
    return 1 + scales - scales.mean()
