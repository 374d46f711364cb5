"""Work on parts of arrays, on all cores.

Threads suffice, since NumPy, SciPy and bottleneck release Python's lock while they compute. Parts
that fit into a processor's cache are also faster than whole frames, on one core too.
"""

import os
from concurrent.futures import ThreadPoolExecutor

__all__ = ["count_threads", "map_parallel", "split_rows"]


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
