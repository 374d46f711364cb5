"""Independent streams of random numbers, so that one ingredient never disturbs another."""

import zlib

import numpy as np

__all__ = ["detector_rows", "random_stream"]

DETECTOR_COLUMNS = 2048


def random_stream(seed, name, *numbers):
    """
    Make the random generator of one ingredient.

    Parameters
    ----------
    seed : int
        Seed of the whole simulation.
    name : str
        Name of the ingredient.
    *numbers : int
        What else tells two streams apart: number of the exposure, of the row, ...

    Returns
    -------
    rng : `numpy.random.Generator`
        Generator that depends on nothing but the arguments.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode()), len(numbers), *numbers])


def detector_rows(window, draw, seed, name):
    """
    Draw random numbers that belong to detector pixels, whatever the window.

    Every detector row has its own stream, so that a pixel keeps its flat-field response or
    its defect in all subarrays, at a cost proportional to the rows of the window.

    Parameters
    ----------
    window : `~soss_background.detector.Window`
        Pixels to draw for.
    draw : callable
        Called as ``draw(rng, 2048)``; returns the numbers of one full detector row.
    seed : int
        Seed of the whole simulation.
    name : str
        Name of the ingredient.

    Returns
    -------
    numbers : ndarray of float32, shape (ny, nx)
        One number for every pixel of the window.
    """
    numbers = np.empty(window.shape, dtype=np.float32)
    columns = slice(window.x0, window.x0 + window.nx)
    for index in range(window.ny):
        rng = random_stream(seed, name, window.y0 + index)
        numbers[index] = draw(rng, DETECTOR_COLUMNS)[columns]
    return numbers
