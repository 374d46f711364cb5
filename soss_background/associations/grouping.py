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
        Program, target and observation.
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
        Program, target and observation.
    number : int
        0 if the observation has no other group, else 1, 2, ... in order of time.
    exposures : list of Exposure
        The exposures in order of time.
    """

    observation: tuple
    number: int
    exposures: list


def group_exposures(exposures, gap_days=1.0, by_pwcpos=None):
    """List the groups of exposures, by program, target, observation and time."""
    # The start of an exposure is at most gap_days after that of the previous one; the pupil wheel
    # positions of a group differ by at most by_pwcpos degrees, if it is given.
    groups = []
    for observation, members in itertools.groupby(sorted(exposures), attrgetter("observation")):
        sequences = [
            sequence
            for position in _split_by_pwcpos(list(members), by_pwcpos)
            for sequence in _split_by_time(position, timedelta(days=gap_days))
        ]
        first = 1 if len(sequences) > 1 else 0
        for number, sequence in enumerate(sorted(sequences), first):
            groups.append(Group(observation, number, sequence))
    return groups


def _split_by_pwcpos(exposures, tolerance):
    """Separate exposures whose pupil wheel positions differ; sort each group by time."""
    if tolerance is None:
        return [exposures]
    parts = _split(
        sorted(exposures, key=attrgetter("pwcpos")),
        lambda part, exposure: round(exposure.pwcpos - part[0].pwcpos, _DIGITS) > tolerance,
    )
    return [sorted(part) for part in parts]


def _split_by_time(exposures, gap):
    """Split exposures, sorted by time, at gaps."""
    return _split(exposures, lambda part, exposure: exposure.start - part[-1].start > gap)


def _split(exposures, is_apart):
    """Split a list before each exposure that is apart from the preceding group."""
    parts = []
    for exposure in exposures:
        if not parts or is_apart(parts[-1], exposure):
            parts.append([])
        parts[-1].append(exposure)
    return parts
