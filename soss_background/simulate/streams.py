"""Independent random streams: a change of one ingredient leaves the others unchanged."""

import zlib

import numpy as np

__all__ = ["detector_rows", "random_stream"]

DETECTOR_COLUMNS = 2048


def random_stream(seed, name, *numbers):
    """Return the random generator that depends on the seed, the name and the numbers only."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), len(numbers), *numbers])


def detector_rows(window, draw, seed, name):
    """Return ``draw(rng, 2048)`` of each detector row, cut to a window, float32 (ny, nx)."""
    # One stream per row, so that a pixel has the same flat-field response or defect in all
    # subarrays, at a cost proportional to the rows of the window.
    numbers = np.empty(window.shape, dtype=np.float32)
    columns = slice(window.x0, window.x0 + window.nx)
    for index in range(window.ny):
        rng = random_stream(seed, name, window.y0 + index)
        numbers[index] = draw(rng, DETECTOR_COLUMNS)[columns]
    return numbers
