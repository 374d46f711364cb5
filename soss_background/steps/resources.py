"""Settings of the process that a run changes, and restores."""

import gc
import threading
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from soss_background.io.quiet import keep_filters
from soss_background.numerics.threads import Shared

__all__ = ["few_collections", "limit_resources"]


@contextmanager
def _freeze():
    """Freeze existing objects, unless the caller of the package has already frozen some."""
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _single_threaded():
    """
    Limit BLAS to one thread, unless another run has: its idle threads delay those of the package.

    threadpoolctl obeys only the thread that changed OpenBLAS first, so only the run that set the
    limit can restore it. A run that outlasts that run continues without the limit.
    """
    if not _LIMITED.acquire(blocking=False):
        yield
        return
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _LIMITED.release()


_FROZEN, _LIMITED = Shared(_freeze), threading.Lock()


def few_collections():
    """Return a context that exempts existing objects from the garbage collection of each run."""
    return _FROZEN


@contextmanager
def limit_resources():
    """Exempt objects from garbage collection, limit BLAS to one thread, keep warning filters."""
    with few_collections(), _single_threaded(), keep_filters():
        yield
