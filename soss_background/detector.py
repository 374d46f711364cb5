"""The geometry of the NIRISS detector, in full-frame, zero-based [row, column] pixels.

In the DMS orientation used throughout, the detector is read out along columns, so 1/f noise appears
as vertical stripes.
"""

import math
from dataclasses import dataclass, replace

__all__ = [
    "AMPLIFIER_ROWS",
    "BEHIND_CLEARP",
    "COLLECTING_AREA",
    "FILTERS",
    "FULL",
    "GAIN",
    "PIXEL_SCALE",
    "PWCPOS",
    "PWCPOS_REACH",
    "SOSS_BANDS",
    "SUBARRAYS",
    "SUBSTRIP96",
    "SUBSTRIP256",
    "SUPERSTRIPES",
    "Window",
    "has_edge",
    "imaging_filter",
]

# Electrons per DN (JWST User Documentation, NIRISS Detector Performance).
GAIN = 1.6

# Collecting area of the telescope, m^2 (JWST User Documentation, JWST Telescope).
COLLECTING_AREA = 25.4

# Side of a pixel, arcsec (JWST User Documentation, NIRISS Detector Overview).
PIXEL_SCALE = 0.0656

# Nominal position of the pupil wheel for GR700XD, degrees, and the largest offset accepted from a
# header: the wheel repeats to 0.15 degrees.
PWCPOS, PWCPOS_REACH = 245.76, 0.3

# Rows of FULL that one of its four amplifiers reads (JWST User Documentation, NIRISS Detector
# Readout). Each has its own 1/f stripes and pedestal; a subarray is read through one.
AMPLIFIER_ROWS = 512

# Width of the frame of reference pixels around the full detector.
REFERENCE_BORDER = 4


@dataclass(frozen=True)
class Window:
    """
    A rectangle of detector pixels.

    Attributes
    ----------
    name : str
        Value of the SUBARRAY keyword.
    y0, x0 : int
        Full-frame, zero-based row and column of the first pixel.
    ny, nx : int
        Number of rows and columns.
    """

    name: str
    y0: int
    x0: int
    ny: int
    nx: int

    @property
    def shape(self):
        """Shape of an array that covers the window, (ny, nx)."""
        return (self.ny, self.nx)

    def covers(self, other):
        """Return whether all pixels of another window are in this one."""
        ends = (other.y0 + other.ny <= self.y0 + self.ny, other.x0 + other.nx <= self.x0 + self.nx)
        return self.y0 <= other.y0 and self.x0 <= other.x0 and all(ends)

    @property
    def slices(self):
        """Slices that cut the window out of a full frame."""
        return slice(self.y0, self.y0 + self.ny), slice(self.x0, self.x0 + self.nx)

    @property
    def extent(self):
        """Outer edges of the window in a figure: left, right, bottom, top."""
        return (self.x0 - 0.5, self.x0 + self.nx - 0.5, self.y0 - 0.5, self.y0 + self.ny - 0.5)

    def amplifiers(self):
        """List the slices of the window's rows that each amplifier reads; a subarray has one."""
        if self.name != FULL.name:
            return [slice(0, self.ny)]
        last = self.y0 + self.ny
        first = range(self.y0 // AMPLIFIER_ROWS * AMPLIFIER_ROWS, last, AMPLIFIER_ROWS)
        ends = [(max(row, self.y0), min(row + AMPLIFIER_ROWS, last)) for row in first]
        return [slice(start - self.y0, stop - self.y0) for start, stop in ends]

    def column_blocks(self):
        """
        List the blocks of columns that are read together, each with its own pedestal and time.

        Returns
        -------
        blocks : list of slice
            In the order of reading, the science columns of a superstripe from the last to the
            first. Other subarrays have one block of all columns.
        """
        width = _BLOCK_WIDTHS.get(self.name)
        if width is None:
            return [slice(0, self.nx)]
        ends = range(self.nx - REFERENCE_BORDER, REFERENCE_BORDER, -width)
        return [slice(end - width, end) for end in ends]

    def reference_pixels(self):
        """
        Find the reference pixels inside the window.

        Returns
        -------
        reference : ndarray of bool, shape (ny, nx)
            True for reference pixels.
        """
        import numpy as np  # imported late, since the console script only needs names

        border = np.ones(FULL.shape, dtype=bool)
        science = slice(REFERENCE_BORDER, -REFERENCE_BORDER)
        border[science, science] = False
        return border[self.slices]


FULL = Window("FULL", 0, 0, 2048, 2048)
SUBSTRIP256 = Window("SUBSTRIP256", 1792, 0, 256, 2048)
SUBSTRIP96 = Window("SUBSTRIP96", 1802, 0, 96, 2048)
SUBARRAYS = {window.name: window for window in (FULL, SUBSTRIP256, SUBSTRIP96)}

# Superstripes: SUBSTRIP256 read in blocks of columns, 120, 34, 10 or 3 of them, each at a time
# of its own. The stage calwebb_detector1 places them on the pixels of SUBSTRIP256; only the four
# reference columns at each end are missing (jwst, lib/stripe_utils.py: collate_superstripes).
_BLOCK_WIDTHS = {
    "SUB17STRIPE_SOSS": 17,
    "SUB60STRIPE_SOSS": 60,
    "SUB204STRIPE_SOSS": 204,
    "SUB680STRIPE_SOSS": 680,
}
SUPERSTRIPES = {name: replace(SUBSTRIP256, name=name) for name in _BLOCK_WIDTHS}

# Filters of SOSS exposures, and the range of wavelengths that they transmit with a margin, micron
# (JWST User Documentation, NIRISS Filters).
SOSS_BANDS = {"CLEAR": (0.0, math.inf), "F277W": (2.33, 3.23)}


def has_edge(filter_name):
    """Return whether the sky of a filter has the edge near column 700; CLEAR stands for None."""
    return filter_name != "F277W"


# In the order of their wavelengths.
FILTERS = (
    "F090W", "F115W", "F140M", "F150W", "F158M", "F200W",
    "F277W", "F356W", "F380M", "F430M", "F444W", "F480M",
)  # fmt: skip

# Values of a wheel without a filter; old headers lack it.
_EMPTY = ("CLEAR", "CLEARP", None)

# Filters of the filter wheel, used with CLEARP in the pupil wheel.
BEHIND_CLEARP = FILTERS[6:]


def imaging_filter(wheels):
    """Return the filter in one of two wheels; raise ValueError unless the other is empty."""
    found = [name for name in wheels if name in FILTERS]
    others = [name for name in wheels if name not in (*FILTERS, *_EMPTY)]
    if len(found) != 1 or others:
        raise ValueError(f"FILTER and PUPIL are {' and '.join(map(str, wheels))}: not one filter")
    return found[0]
