"""1/f stripes, and pedestals of the amplifiers or of the blocks of columns."""

import numpy as np

from soss_background.detector import AMPLIFIER_ROWS, FULL, SUPERSTRIPES
from soss_background.simulate.streams import DETECTOR_COLUMNS, random_stream

__all__ = ["draw_stripes", "stripe_pattern"]

AMPLIFIERS = FULL.ny // AMPLIFIER_ROWS
# Drift of the stripes along the columns at the first and last detector row, in units of their rms.
DRIFT = 0.3


def draw_stripes(simulation, exposure, integration, rng):
    """
    Return the stripes and pedestals of one integration.

    Parameters
    ----------
    simulation : `~soss_background.simulate.Simulation`
        The settings.
    exposure, integration : int
        Numbers of the exposure and of the integration, from 0.
    rng : `numpy.random.Generator`
        Source of random numbers for the stripes that all amplifiers share. The independent noise of
        each amplifier comes from other streams.

    Returns
    -------
    stripes : ndarray of float32, shape (ny, nx)
        Stripes and pedestals, DN/s.
    """
    window, seed = simulation.window, simulation.seed
    stripes = stripe_pattern(
        window,
        simulation.stripes,
        rng,
        power=simulation.stripe_power,
        sharing=simulation.stripe_sharing,
        own=random_stream(seed, "amplifier stripes", exposure, integration),
    )
    rng = random_stream(seed, "pedestals", exposure, integration)
    if window.name in SUPERSTRIPES:
        for columns in window.column_blocks():
            stripes[:, columns] += np.float32(simulation.pedestals * rng.standard_normal())
    else:
        pedestals = simulation.pedestals * rng.standard_normal(AMPLIFIERS)
        for rows, amplifier in _amplifiers(window):
            stripes[rows] += np.float32(pedestals[amplifier])
    return stripes


def stripe_pattern(window, rms, rng, *, power=1.0, sharing=1.0, own=None):
    """Return the 1/f noise of one integration, float32 (ny, nx), DN/s: a stripe per column."""
    # A level per column, and a drift along it.
    shared = _draw_levels(rng, power)
    levels = [shared] * AMPLIFIERS
    if sharing < 1:
        levels = [
            np.sqrt(sharing) * shared + np.sqrt(1 - sharing) * _draw_levels(own, power)
            for _ in range(AMPLIFIERS)
        ]
    columns = slice(window.x0, window.x0 + window.nx)
    along = ((window.y0 + np.arange(window.ny)) / 1023.5 - 1)[:, np.newaxis]
    stripes = np.empty(window.shape, dtype=np.float32)
    for rows, amplifier in _amplifiers(window):
        level, drift = levels[amplifier]
        stripes[rows] = rms * (level[columns] + DRIFT * along[rows] * drift[columns])
    return stripes


def _amplifiers(window):
    """Return the rows (of the window) of each amplifier, and its number."""
    return [(rows, (window.y0 + rows.start) // AMPLIFIER_ROWS) for rows in window.amplifiers()]


def _draw_levels(rng, power):
    """Return the levels and the drifts of all columns, in units of the rms, shape (2, 2048)."""
    return np.array([_draw_noise(rng, power), _draw_noise(rng, power)])


def _draw_noise(rng, power):
    """Return a series, one number per column, with mean 0, rms 1 and power spectrum 1/f**power."""
    spectrum = np.fft.rfft(rng.standard_normal(DETECTOR_COLUMNS))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, spectrum.size) ** (-power / 2)
    series = np.fft.irfft(spectrum, DETECTOR_COLUMNS)
    return series / series.std()
