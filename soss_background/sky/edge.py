"""Position and shape of the edge of the sky near column 700."""

import numpy as np

from soss_background.numerics.smoothing import gaussian_filter

__all__ = ["edge_shape", "find_edge", "has_edge_columns", "right_of_edge", "shift_columns"]

# Range of full-frame columns that contains the edge at any position of the pupil wheel.
_EDGE_RANGE = (650, 770)

# Extent of the edge left and right of the column of half its rise, columns.
_BEFORE, _AFTER = 20, 50

# Minimum rise of an edge, as a fraction of the sky left of it.
_LEAST_RISE = 0.05

# Rows over which the shape of the edge is averaged.
_EDGE_ROWS = 4.0


def has_edge_columns(columns, first_column=0):
    """Return whether an image has the columns where the edge lies, and enough on both sides."""
    low, high = (column - first_column for column in _EDGE_RANGE)
    return low >= _BEFORE and high + _BEFORE <= columns


def find_edge(sky, first_column=0, part=0.5):
    """Return the column (float) where the edge rises to ``part`` of its height, or None."""
    low, high = (column - first_column for column in _EDGE_RANGE)
    if not has_edge_columns(sky.shape[1], first_column):
        return None
    profile = np.median(sky, axis=0)
    foot, top = np.median(profile[low - _BEFORE : low]), np.median(profile[high : high + _BEFORE])
    if not top > (1 + _LEAST_RISE) * foot:
        return None
    risen = (profile[low:high] - foot) / (top - foot)
    middle = int(np.argmax(risen > 0.5))
    # Search outwards from the middle, so that noise at the foot or top has no effect.
    if part > 0.5:
        beyond = middle + int(np.argmax(risen[middle:] > part))
    else:
        beyond = 1 + int(np.flatnonzero(risen[:middle] <= part).max(initial=-1))
    if beyond == 0 or risen[beyond] <= part:
        return None
    return low + beyond - (risen[beyond] - part) / (risen[beyond] - risen[beyond - 1])


def right_of_edge(sky, first_column=0):
    """Return True for pixels right of the middle of the edge; False everywhere if there is none."""
    middle = find_edge(sky, first_column)
    return np.zeros(sky.shape, dtype=bool) if middle is None else edge_shape(sky, middle) > 0.5


def edge_shape(sky, middle):
    """Return the fraction of the edge's height at each pixel, shape (ny, nx)."""
    foot, top = round(middle - _BEFORE), round(middle + _AFTER)
    smooth = gaussian_filter(sky.astype(np.float32), (_EDGE_ROWS, 0), mode="edge")
    height = np.maximum(smooth[:, [top]] - smooth[:, [foot]], _LEAST_RISE * smooth[:, [foot]])
    right = (smooth - smooth[:, [foot]]) / height
    right[:, :foot], right[:, top:] = 0, 1
    return np.clip(right, 0, 1)


def shift_columns(image, shift):
    """Shift an image to larger columns by linear interpolation; repeat the outermost column."""
    place = np.clip(np.arange(image.shape[1]) - shift, 0, image.shape[1] - 1)
    left = np.minimum(place.astype(int), image.shape[1] - 2)
    share = (place - left).astype(image.dtype)
    return image[:, left] * (1 - share) + image[:, left + 1] * share
