"""Silence warnings, also in several threads."""

import warnings
from contextlib import contextmanager

from soss_background.numerics.threads import Shared

__all__ = ["ignore_warnings", "keep_filters"]


@contextmanager
def _restore_filters():
    """Restore the warning filters in the end."""
    found = list(warnings.filters)
    try:
        yield
    finally:
        warnings.filters[:] = found


_FILTERS = Shared(_restore_filters)


def keep_filters():
    """Return a context that restores the warning filters when its last user leaves it."""
    # All threads share the filters. If two threads changed and restored them independently, the one
    # that ends last would restore the filters that the other one has set.
    return _FILTERS


@contextmanager
def ignore_warnings(category, message=""):
    """Silence warnings of a category whose text starts with a message."""
    with keep_filters(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield
