"""Average skies with different levels and edge positions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from soss_background.numerics.cells import bin_smooth
from soss_background.sky.edge import edge_shape, find_edge, shift_columns

__all__ = ["AverageSky", "Sky", "average_skies"]

# Expected relative difference of a sky from the mean. The weight of a sky depends on this and on
# its noise; half or twice this value changes only the weights of skies noisier than 1 %.
_DIFFERENCE = 0.015

# Flags of pixels whose sky is interpolated from their surroundings.
_BAD = sum(
    dqflags.pixel[name] for name in ("DO_NOT_USE", "HOT", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL")
)


class Sky(NamedTuple):
    """
    A sky of a library, in DN/s.

    Attributes
    ----------
    sky, noise : ndarray of float32, shape (ny, nx)
        The sky, without gaps, and its 1-sigma uncertainty.
    white : ndarray of float32, shape (ny, nx)
        Uncertainty of its pixels before they were smoothed, which is independent in each pixel.
    dq : ndarray of uint32, shape (ny, nx)
        JWST data quality flags.
    name : str
        Its name in messages.
    visit : object
        Label of its visit, since skies of one visit show the same sky; None if unknown.
    stripes, slope : float
        Rms of its 1/f stripes, and power-law index of their power spectrum.
    pwcpos : float
        Pupil wheel position, degrees; NaN if unknown.
    smooth_error : float
        1-sigma uncertainty on large scales, as a fraction of the sky.
    flat_fielded : bool
        Whether the sky is divided by the flat.
    """

    sky: np.ndarray
    noise: np.ndarray
    white: np.ndarray
    dq: np.ndarray
    name: str
    visit: object = None
    stripes: float = 0.0
    slope: float = -1.0
    pwcpos: float = np.nan
    smooth_error: float = 0.0
    flat_fielded: bool = True

    def divided(self, flat):
        """Return the sky divided by a flat."""
        planes = {name: getattr(self, name) / flat for name in ("sky", "noise", "white")}
        return self._replace(flat_fielded=True, **planes)


@dataclass(frozen=True)
class AverageSky:
    """
    Mean of the skies, and the quantities that are needed to compare them.

    Attributes
    ----------
    shape, err : ndarray of float32, shape (ny, nx)
        Mean with a median of one on each side of the edge, and its 1-sigma uncertainty.
    right : ndarray of float32, shape (ny, nx)
        Fraction of the edge's height: 0 left of the edge, 1 right of it.
    levels : ndarray of float, shape (n, 2)
        Levels of the skies left and right of the edge; equal if there is none.
    places : ndarray of float, shape (n,)
        Columns of the edge; NaN if there is none.
    weights : ndarray of float, shape (n,)
        Weights of the skies; their sum is one.
    cells, noises, white, share : ndarray of float32, shape (n, my, mx)
        The skies at the levels and the edge position of the mean, in cells, the noise of their
        pixels, the same before they were smoothed, and the fraction of usable pixels.
    dq : ndarray of uint32, shape (ny, nx)
        Flags that all skies have in common.
    visits : list
        Labels of their visits.
    stripes, slopes, pwcpos : ndarray of float, shape (n,)
        See `Sky`.
    """

    shape: np.ndarray
    err: np.ndarray
    right: np.ndarray
    levels: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    cells: np.ndarray
    noises: np.ndarray
    white: np.ndarray
    share: np.ndarray
    dq: np.ndarray
    visits: list
    stripes: np.ndarray
    slopes: np.ndarray
    pwcpos: np.ndarray


def average_skies(skies, first_column=0):
    """
    Shift skies to a common edge position, match their levels on both sides, and average them.

    Parameters
    ----------
    skies : sequence of Sky
        The skies, read twice, one at a time.
    first_column : int
        Full-frame column of their first column.

    Returns
    -------
    average : AverageSky
        The mean.

    Raises
    ------
    ValueError
        If some of the skies have an edge and others have none.
    """
    first = _find_common_edge(skies, first_column)
    shifts = np.nan_to_num(np.mean(first.places) - first.places)
    total = square = 0
    flags = np.uint32(-1 % 2**32)
    levels, binned, labels = [], [], []
    for sky, shift, weight in zip(skies, shifts, first.weights, strict=True):
        planes = [_move(each, shift) for each in (sky.sky, sky.noise, sky.white)]
        left, level = _measure_levels(planes[0], first.right)
        planes = [each / (left + (level - left) * first.right) for each in planes]
        total = total + np.float32(weight) * planes[0]
        square = square + np.float32(weight**2) * planes[1] ** 2
        binned.append([bin_smooth(each) for each in (*planes, sky.dq & _BAD == 0)])
        flags = flags & sky.dq
        levels.append((left, level))
        labels.append((sky.stripes, sky.slope, sky.pwcpos))
    medians = _measure_levels(total, first.right)
    scale = medians[0] + (medians[1] - medians[0]) * first.right
    return AverageSky(
        (total / scale).astype(np.float32),
        (np.sqrt(square) / scale).astype(np.float32),
        first.right,
        np.array(levels) * medians,
        first.places,
        first.weights,
        *np.moveaxis(np.array(binned), 1, 0),
        flags,
        first.visits,
        *np.array(labels).T,
    )


class _First(NamedTuple):
    """Result of the first pass, see `AverageSky`."""

    places: np.ndarray
    right: np.ndarray
    weights: np.ndarray
    visits: list


def _find_common_edge(skies, first_column):
    """Find the edges, the rise of an edge at their mean position, and weights of the skies."""
    places, noises, total, names, visits = [], [], 0, [], []
    for number, sky in enumerate(skies):
        place = find_edge(sky.sky, first_column)
        places.append(np.nan if place is None else place)
        shift = np.nan_to_num(places[0] - places[-1])
        level = np.median(sky.sky)
        total = total + _move(sky.sky, shift) / level
        noises.append(np.hypot(np.median(sky.noise) / level, sky.smooth_error))
        names.append(sky.name)
        visits.append(number if sky.visit is None else sky.visit)
    missing = np.isnan(places)
    if missing.any() and not missing.all():
        one, other = names[missing.argmax()], names[missing.argmin()]
        raise ValueError(f"{one}: its sky has no edge, but that of {other} has one")
    right = np.zeros(total.shape, dtype=np.float32)
    if not missing.any():
        middle = np.mean(places)
        right = edge_shape(_move(total, middle - places[0]), middle).astype(np.float32)
    # All skies of a visit together have the weight of one sky.
    number = np.array([visits.count(visit) for visit in visits])
    weights = 1 / (number * _DIFFERENCE**2 + np.square(noises))
    return _First(np.array(places), right, weights / weights.sum(), visits)


def _move(image, shift):
    """Shift an image; return it unchanged if the shift is zero."""
    return shift_columns(image, shift) if shift else image


def _measure_levels(sky, right):
    """Measure the level of a sky left and right of the edge; equal if the sky has one side only."""
    sides = [sky[right == part] for part in (0, 1)]
    known = [np.median(side) for side in sides if side.size]
    return known[0], known[-1]
