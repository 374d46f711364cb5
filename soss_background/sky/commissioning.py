"""The GR700XD sky measured in commissioning."""

import numpy as np
from scipy.interpolate import PchipInterpolator

__all__ = ["SKY_COLUMNS", "SKY_RATES", "commissioning_profile"]

# Column and surface brightness (DN/s) of the commissioning GR700XD background (exoTEDRF's
# model_background96): median over the rows far from the edge, means over the central rows
# (full-frame rows 1838-1854) at the edge, since the median would blur it.
SKY_COLUMNS = np.array([
    0, 80, 200, 300, 400, 500, 600, 650, 680, 688, 690, 692, 694, 696, 698, 700, 702, 704, 706,
    708, 710, 712, 714, 718, 722, 726, 730, 736, 744, 756, 770, 786, 800, 840, 880, 920, 960,
    1000, 1040, 1080, 1120, 1160, 1200, 1280, 1360, 1440, 1520, 1600, 1680, 1760, 1840, 1920,
    2000, 2047,
], dtype=float)  # fmt: skip
SKY_RATES = np.array([
    4.822, 4.825, 4.749, 4.750, 4.745, 4.724, 4.655, 4.634, 4.650, 4.665, 4.693, 4.762, 4.924,
    5.287, 5.721, 6.043, 6.362, 6.577, 6.705, 6.823, 6.915, 6.969, 7.021, 7.043, 7.087, 7.136,
    7.181, 7.233, 7.268, 7.307, 7.371, 7.432, 7.415, 7.399, 7.390, 7.333, 7.314, 7.333, 7.313,
    7.257, 7.217, 7.136, 7.073, 6.901, 6.682, 6.437, 6.158, 5.812, 5.394, 4.927, 4.440, 4.022,
    3.634, 3.490,
])  # fmt: skip


def commissioning_profile(columns):
    """Return the commissioning sky at full-frame columns (from 0), DN/s, flat-fielded."""
    return PchipInterpolator(SKY_COLUMNS, SKY_RATES)(columns)
