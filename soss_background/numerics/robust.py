"""Robust statistics."""

from astropy.stats import mad_std

__all__ = ["MAD_TO_SIGMA"]

# Standard deviation of normal values relative to their median absolute deviation. Where the centre
# is known, it avoids the second median of `astropy.stats.mad_std`.
MAD_TO_SIGMA = float(mad_std([-1.0, 1.0]))
