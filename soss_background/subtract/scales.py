"""Changes of the sky from integration to integration."""

import numpy as np

from soss_background.numerics.robust import MAD_TO_SIGMA
from soss_background.numerics.threads import map_parallel

__all__ = ["measure_scales"]

# Deviations from the mean are clipped at this many robust standard deviations.
_OUTLIER = 4.0


def measure_scales(data, sky, used):
    """Return the level of the sky in each integration relative to their mean, shape (nints,)."""
    # Stars and their wings do not change, and cancel in the difference from the mean.
    weight = sky[used] / np.sum(sky[used] ** 2)
    mean = _mean_sample(data, used)

    def measure(integration):
        difference = np.nan_to_num(integration[used] - mean)
        limit = _OUTLIER * MAD_TO_SIGMA * np.median(np.abs(difference))
        return np.sum(weight * np.clip(difference, -limit, limit))

    scales = np.array(map_parallel(measure, data))
    return 1 + scales - scales.mean()


def _mean_sample(data, used):
    """Return the mean of the integrations in the pixels used, one integration at a time."""
    total = np.zeros(np.count_nonzero(used))
    number = np.zeros(total.shape, dtype=int)
    for integration in data:
        sample = integration[used]
        known = np.isfinite(sample)
        total[known] += sample[known]
        number += known
    return total / np.maximum(number, 1)
