"""The filters of NIRISS imaging."""

__all__ = ["BEHIND_CLEARP", "FILTERS", "imaging_filter"]

# In the order of their wavelengths.
FILTERS = (
    "F090W", "F115W", "F140M", "F150W", "F158M", "F200W",
    "F277W", "F356W", "F380M", "F430M", "F444W", "F480M",
)  # fmt: skip
# What the other wheel holds; old headers do not tell.
_EMPTY = ("CLEAR", "CLEARP", None)
# Those in the filter wheel, which are used with CLEARP in the pupil wheel.
BEHIND_CLEARP = FILTERS[6:]


def imaging_filter(wheels):
    """
    Tell the filter of an image.

    Parameters
    ----------
    wheels : sequence of str
        What the filter wheel and the pupil wheel hold: one of them the filter, the other nothing.

    Returns
    -------
    name : str
        The filter.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [name for name in wheels if name in FILTERS]
    others = [name for name in wheels if name not in (*FILTERS, *_EMPTY)]
    if len(found) != 1 or others:
        raise ValueError(f"FILTER and PUPIL are {' and '.join(map(str, wheels))}: not one filter")
    return found[0]
