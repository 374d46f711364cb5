"""Process sections of arrays on all cores, and share contexts between threads.

Threads suffice, since NumPy, SciPy and bottleneck release Python's lock while they compute.
Sections that fit into a processor's cache are faster than whole frames, even on one core.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

__all__ = ["Shared", "count_threads", "map_parallel", "split_rows"]


def count_threads():
    """Return OMP_NUM_THREADS, which other libraries use too, or the number of usable cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on all systems
        return os.cpu_count() or 1


def map_parallel(function, *items):
    """Call a function with items, as `map` does, in several threads; return a list in order."""
    with ThreadPoolExecutor(count_threads()) as pool:
        return list(pool.map(function, *items))


def split_rows(number, size):
    """Return slices that split ``number`` rows into blocks of ``size``; the last may be smaller."""
    return [slice(first, min(first + size, number)) for first in range(0, number, size)]


class Shared:
    """
    A context that is shared by overlapping users, also in several threads.

    The first user enters it, and the last one leaves it, which restores the original state of the
    process.

    Parameters
    ----------
    create : callable
        Returns the context manager.
    """

    def __init__(self, create):
        self._create, self._users = create, 0
        self._lock, self._entered = threading.Lock(), ExitStack()

    def __enter__(self):
        """Enter the context unless another user has."""
        with self._lock:
            if self._users == 0:
                self._entered.enter_context(self._create())
            self._users += 1

    def __exit__(self, *_):
        """Leave the context unless another user is in it."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._entered.close()
