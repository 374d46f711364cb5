"""A sky in count rates or in the groups of ramps."""

import numpy as np

__all__ = ["change_ramps", "change_rates", "group_times"]


def group_times(number, *, group_time, frame_time, n_frames):
    """
    Return the mean time since the reset of the frames that each group averages.

    Parameters
    ----------
    number : int
        Number of groups.
    group_time, frame_time : float
        Times between successive groups and between successive frames, s.
    n_frames : int
        Number of frames that a group averages.

    Returns
    -------
    times : ndarray of float, shape (number,)
        Times, s. Multiplied by the count rate of the sky in DN/s, they give its DN in each group.
    """
    return np.arange(number) * group_time + (n_frames + 1) / 2 * frame_time


def change_ramps(ramps, sky, times):
    """
    Add a sky to ramps in place.

    Parameters
    ----------
    ramps : ndarray of float32, shape (nints, ngroups, ny, nx)
        Counts, DN.
    sky : ndarray of float, shape (ny, nx)
        The sky, DN/s; negative to subtract it.
    times : ndarray of float, shape (ngroups,)
        Times of the groups, s, see `group_times`.
    """
    for ramp in ramps:
        for group, time in zip(ramp, times, strict=True):
            group += (time * sky).astype(np.float32)


def change_rates(cube, errors, sky, variance):
    """
    Add a sky to count rates, and a variance to their errors, in place.

    Parameters
    ----------
    cube, errors : ndarray of float32, shape (nints, ny, nx)
        Count rates and their 1-sigma uncertainties, DN/s.
    sky : ndarray of float, shape (ny, nx)
        The sky, DN/s; negative to subtract it.
    variance : ndarray of float, shape (ny, nx)
        Variance of the sky, (DN/s)^2; negative to remove it from the errors again.
    """
    for integration, error in zip(cube, errors, strict=True):
        integration += sky.astype(np.float32)
        error[:] = np.sqrt(np.maximum(error**2 + variance, 0))
