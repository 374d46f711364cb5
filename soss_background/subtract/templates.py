"""What is known of the sky before an exposure is looked at: templates, brought to one step."""

from dataclasses import dataclass

import numpy as np

from soss_background.cells import gather_blocks
from soss_background.smoothing import gaussian_filter

__all__ = [
    "Templates",
    "align_templates",
    "bin_smooth",
    "find_step",
    "has_step_columns",
    "right_of_step",
    "shift_columns",
]

# Full-frame columns between which the step lies, wherever the pupil wheel stands.
_STEP_RANGE = (650, 770)

# Columns that the step takes before and after the one where half of its light has come.
_BEFORE, _AFTER = 20, 50

# Least rise of a sky that is a step, as a fraction of what is left of it.
_LEAST_STEP = 0.05

# Rows over which the shape of the step is averaged.
_STEP_ROWS = 4.0


@dataclass(frozen=True)
class Templates:
    """
    Skies whose steps are at one place.

    Attributes
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Their mean, with a median of one left of the step.
    right : ndarray of float32, shape (ny, nx)
        Part of the light that has come at the step: 0 left of it, 1 right of it.
    deviations : ndarray of float32, shape (n, my, mx)
        In cells, the deviations of the skies from their mean as fractions of it, after both sides
        of the step were brought to its levels; none for a single sky.
    noise : ndarray of float32, shape (ny, nx)
        1-sigma uncertainty of ``sky``.
    """

    sky: np.ndarray
    right: np.ndarray
    deviations: np.ndarray
    noise: np.ndarray

    def shifted(self, shift):
        """
        Shift the sky towards larger columns.

        Parameters
        ----------
        shift : float
            Pixels.

        Returns
        -------
        left, right : ndarray of float32, shape (ny, nx)
            What belongs to the left of the step and to its right; they add up to the sky.
        """
        sky, right = shift_columns(self.sky, shift), shift_columns(self.right, shift)
        return sky * (1 - right), sky * right


def align_templates(skies, noises, first_column=0):
    """
    Bring skies to a common place of the step and average them.

    The levels left and right of the step and its place change from sky to sky, and are fitted to
    every exposure; what is averaged is the rest.

    Parameters
    ----------
    skies, noises : sequence of ndarray of float, shape (ny, nx)
        Skies without gaps and their 1-sigma uncertainties, in one unit.
    first_column : int
        Full-frame column of their first column.

    Returns
    -------
    templates : Templates
        The mean, and how the skies deviate from it.

    Raises
    ------
    ValueError
        If some of the skies have a step and others have none.
    """
    places = [find_step(sky, first_column) for sky in skies]
    if places.count(None) not in (0, len(places)):
        raise ValueError(f"sky number {places.index(None) + 1} has no step, others have")
    if None in places:
        aligned, right = skies, np.zeros_like(skies[0])
    else:
        middle = np.mean(places)
        aligned = [
            shift_columns(sky, middle - place) for sky, place in zip(skies, places, strict=True)
        ]
        right = np.mean([_step_shape(sky, middle) for sky in aligned], axis=0)
    levels = np.array([_levels(sky, right) for sky in aligned])
    shapes = [
        sky / (left * (1 - right) + level * right)
        for sky, (left, level) in zip(aligned, levels, strict=True)
    ]
    shape, contrast = np.mean(shapes, axis=0), np.mean(levels[:, 1] / levels[:, 0])
    deviations = [bin_smooth(each / shape - 1) for each in shapes] if len(skies) > 1 else []
    squares = [(noise / left) ** 2 for noise, (left, _) in zip(noises, levels, strict=True)]
    return Templates(
        sky=(shape * (1 - right + contrast * right)).astype(np.float32),
        right=right.astype(np.float32),
        deviations=np.array(deviations, dtype=np.float32),
        noise=np.sqrt(np.sum(squares, axis=0) / len(skies) ** 2).astype(np.float32),
    )


def bin_smooth(image):
    """
    Average an image without outliers in cells.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Values.

    Returns
    -------
    means : ndarray of float32, shape (my, mx)
        Mean of each cell.
    """
    return np.nanmean(gather_blocks(image), axis=-1)


def shift_columns(image, shift):
    """
    Shift an image along its rows by linear interpolation.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Values; beyond the edges those of the outermost columns are taken.
    shift : float
        Pixels towards larger columns.

    Returns
    -------
    shifted : ndarray, shape (ny, nx)
        The shifted image.
    """
    place = np.clip(np.arange(image.shape[1]) - shift, 0, image.shape[1] - 1)
    left = np.minimum(place.astype(int), image.shape[1] - 2)
    share = (place - left).astype(image.dtype)
    return image[:, left] * (1 - share) + image[:, left + 1] * share


def has_step_columns(columns, first_column=0):
    """
    Tell whether an image has the columns in which the step lies.

    Parameters
    ----------
    columns : int
        Number of its columns.
    first_column : int
        Full-frame column of the first.

    Returns
    -------
    has : bool
        True if it has those columns, and enough on both sides.
    """
    low, high = (column - first_column for column in _STEP_RANGE)
    return low >= _BEFORE and high + _BEFORE <= columns


def find_step(sky, first_column=0, part=0.5):
    """
    Find the column where some part of the step's light has come.

    Parameters
    ----------
    sky : ndarray of float, shape (ny, nx)
        A sky without gaps, whose rows are averaged.
    first_column : int
        Full-frame column of its first column.
    part : float
        Part of the light.

    Returns
    -------
    column : float or None
        The column, counted from the first; None if the step is not in the image.
    """
    low, high = (column - first_column for column in _STEP_RANGE)
    if not has_step_columns(sky.shape[1], first_column):
        return None
    profile = np.median(sky, axis=0)
    foot, top = np.median(profile[low - _BEFORE : low]), np.median(profile[high : high + _BEFORE])
    if not top > (1 + _LEAST_STEP) * foot:
        return None
    risen = (profile[low:high] - foot) / (top - foot)
    middle = int(np.argmax(risen > 0.5))
    # Outwards from the middle: a noisy foot or top does not count.
    if part > 0.5:
        beyond = middle + int(np.argmax(risen[middle:] > part))
    else:
        beyond = 1 + int(np.flatnonzero(risen[:middle] <= part).max(initial=-1))
    if beyond == 0 or risen[beyond] <= part:
        return None
    return low + beyond - (risen[beyond] - part) / (risen[beyond] - risen[beyond - 1])


def right_of_step(sky, first_column=0):
    """
    Find the pixels where more than half of the step's light has come.

    Parameters
    ----------
    sky : ndarray of float, shape (ny, nx)
        A sky without gaps.
    first_column : int
        Full-frame column of its first column.

    Returns
    -------
    right : ndarray of bool, shape (ny, nx)
        True for pixels right of the step; all are left of it if there is none.
    """
    middle = find_step(sky, first_column)
    return np.zeros(sky.shape, dtype=bool) if middle is None else _step_shape(sky, middle) > 0.5


def _step_shape(sky, middle):
    """Tell how much of the step's light has come at each pixel."""
    foot, top = round(middle - _BEFORE), round(middle + _AFTER)
    smooth = gaussian_filter(sky.astype(np.float32), (_STEP_ROWS, 0), mode="edge")
    height = np.maximum(smooth[:, [top]] - smooth[:, [foot]], _LEAST_STEP * smooth[:, [foot]])
    right = (smooth - smooth[:, [foot]]) / height
    right[:, :foot], right[:, top:] = 0, 1
    return np.clip(right, 0, 1)


def _levels(sky, right):
    """Measure the level of a sky left and right of the step; they are one if there is no step."""
    left = np.median(sky[right == 0])
    return left, np.median(sky[right == 1]) if np.any(right == 1) else left
