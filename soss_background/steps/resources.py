"""Settings of the process that a run changes, and restores."""

import gc
import threading
from contextlib import ExitStack, contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["few_collections", "limit_resources"]


class _Shared:
    """
    A context that overlapping users, also in several threads, enter and leave as one.

    The first user enters it and the last one leaves it, which restores the state of the process
    that the first one found. ``create`` returns the context manager.
    """

    def __init__(self, create):
        self._create, self._users = create, 0
        self._lock, self._entered = threading.Lock(), ExitStack()

    def __enter__(self):
        with self._lock:
            if self._users == 0:
                self._entered.enter_context(self._create())
            self._users += 1

    def __exit__(self, *_):
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._entered.close()


@contextmanager
def _freeze():
    """Freeze the objects that exist, unless the caller of the package has frozen some."""
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
    Limit BLAS to one thread, unless another run does: its idle threads delay those of the package.

    threadpoolctl ignores all but the thread that changed OpenBLAS first, so that only the run that
    set the limit can restore it. A run that outlasts that one continues without the limit.
    """
    if not _LIMITED.acquire(blocking=False):
        yield
        return
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _LIMITED.release()


_FROZEN, _LIMITED = _Shared(_freeze), threading.Lock()


def few_collections():
    """Return a context that exempts existing objects from the garbage collection of each run."""
    return _FROZEN


@contextmanager
def limit_resources():
    """Exempt existing objects from garbage collection, and limit BLAS to one thread."""
    with few_collections(), _single_threaded():
        yield
