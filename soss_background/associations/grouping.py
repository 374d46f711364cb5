"""Group exposures that belong together."""

import itertools
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

__all__ = ["Exposure", "Group", "group_exposures"]

# Pupil wheel positions are given in degrees with fewer digits than this.
_DIGITS = 6


class Exposure(NamedTuple):
    """
    The keywords that assign an exposure to a group.

    Attributes
    ----------
    observation : tuple of str
        Program, target, observation and filter.
    start : `datetime.datetime`
        Start of the exposure, DATE-BEG.
    path : `pathlib.Path`
        The file.
    pwcpos : float or None
        Pupil wheel position, degrees.
    """

    observation: tuple
    start: datetime
    path: Path
    pwcpos: float | None = None


class Group(NamedTuple):
    """
    The exposures of one skyflat.

    Attributes
    ----------
    observation : tuple of str
        Program, target, observation and filter.
    number : int
        Number of the group in its observation and filter, in order of time, from 0.
    exposures : list of Exposure
        The exposures in order of time.
    """

    observation: tuple
    number: int
    exposures: list


def group_exposures(exposures, gap_days=1.0, by_pwcpos=None):
    """
    List the groups of exposures, by program, target, observation, filter and time.

    Later exposures change neither the earlier groups nor their numbers.

    Parameters
    ----------
    exposures : iterable of Exposure
        Exposures in any order.
    gap_days : float, optional
        Longest time from the start of an exposure to that of the next, days.
    by_pwcpos : float, optional
        Largest difference between pupil wheel positions of a group, degrees; unlimited by default.

    Returns
    -------
    groups : list of Group
        The groups, in order of observation and time.
    """
    gap, groups = timedelta(days=gap_days), []
    for observation, members in itertools.groupby(sorted(exposures), attrgetter("observation")):
        sequences = []
        for exposure in members:
            fitting = (each for each in sequences if _continues(each, exposure, gap, by_pwcpos))
            sequence = next(fitting, None)
            if sequence is None:
                sequences.append([exposure])
            else:
                sequence.append(exposure)
        groups += [Group(observation, *numbered) for numbered in enumerate(sequences)]
    return groups


def _continues(sequence, exposure, gap, tolerance):
    """Return whether an exposure continues a sequence of earlier ones."""
    if exposure.start - sequence[-1].start > gap:
        return False
    if tolerance is None:
        return True
    positions = [each.pwcpos for each in (*sequence, exposure)]
    return round(max(positions) - min(positions), _DIGITS) <= tolerance
