"""Work on parts of arrays, on all cores.

Threads suffice, since NumPy, SciPy and bottleneck release Python's lock while they compute. Parts
that fit into a processor's cache are also faster than whole frames, on one core too.
"""

import os
from concurrent.futures import ThreadPoolExecutor

__all__ = ["count_threads", "map_parallel", "split_rows"]


def count_threads():
    """
    Count the threads that may be used.

    Returns
    -------
    int
        The number of cores that this process may use, or OMP_NUM_THREADS if that is set: other
        numerical libraries follow it as well.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on all systems
        return os.cpu_count() or 1


def map_parallel(function, *items):
    """
    Call a function with each item, several at a time.

    Parameters
    ----------
    function : callable
        A function that spends its time in compiled code.
    *items : iterable
        Its arguments, as `map` takes them.

    Returns
    -------
    results : list
        In the order of the items.
    """
    with ThreadPoolExecutor(count_threads()) as pool:
        return list(pool.map(function, *items))


def split_rows(number, size):
    """
    Split rows into blocks.

    Parameters
    ----------
    number, size : int
        Number of rows in all, and in a block; the last block may be smaller.

    Returns
    -------
    blocks : list of slice
        The rows of each block.
    """
    return [slice(first, min(first + size, number)) for first in range(0, number, size)]
