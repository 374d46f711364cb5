"""How the sky of a time series changes from integration to integration."""

import numpy as np

from soss_background.numerics.threads import map_parallel

__all__ = ["SCALE_MODES", "measure_scales"]

SCALE_MODES = ("exposure", "integration", "smooth")

# Degree of the polynomial of a smooth change.
_DEGREE = 2

# Deviations from the mean, in robust standard deviations, that tell nothing of the sky.
_OUTLIER = 4.0


def measure_scales(data, sky, used, mode):
    """
    Measure the level of the sky in each integration relative to that of their mean.

    What stands still, stars and their wings too, drops out of the difference of an integration and
    the mean.

    Parameters
    ----------
    data : ndarray of float, shape (nints, ny, nx)
        Count rates in DN/s.
    sky : ndarray of float, shape (ny, nx)
        Sky of their mean in DN/s.
    used : ndarray of bool, shape (ny, nx)
        Pixels that show the sky.
    mode : {"exposure", "integration", "smooth"}
        One level for all integrations, a level for each, or a parabola in time.

    Returns
    -------
    scales : ndarray of float, shape (nints,)
        Levels, with a mean of one.
    """
    if mode == "exposure" or len(data) == 1:
        return np.ones(len(data))
    weight = sky[used] / np.sum(sky[used] ** 2)
    samples = np.array([integration[used] for integration in data])
    mean = np.nanmean(samples, axis=0)

    def measure(sample):
        difference = np.nan_to_num(sample - mean)
        scatter = 1.4826 * np.median(np.abs(difference))
        return np.sum(weight * np.clip(difference, -_OUTLIER * scatter, _OUTLIER * scatter))

    scales = np.array(map_parallel(measure, samples))
    if mode == "smooth":
        time = np.linspace(-1, 1, len(data))
        degree = min(_DEGREE, len(data) - 1)
        scales = np.polynomial.Polynomial.fit(time, scales, degree)(time)
    return 1 + scales - scales.mean()
