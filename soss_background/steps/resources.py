"""Settings of the process that a run changes, and restores when the last run ends."""

import gc
import threading
from contextlib import ExitStack, contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["few_collections", "limit_resources"]


class _Shared:
    """
    A setting of the whole process that concurrent runs share.

    The first run that enters changes it, and the last one that leaves restores it, in whatever
    threads they are.

    Parameters
    ----------
    change : callable
        Returns a context manager that changes the setting and restores it.
    """

    def __init__(self, change):
        self._change, self._lock = change, threading.Lock()
        self._runs, self._undo = 0, ExitStack()

    @contextmanager
    def __call__(self):
        with self._lock:
            if self._runs == 0:
                self._undo.enter_context(self._change())
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                if self._runs == 0:
                    self._undo.close()


@contextmanager
def _freeze():
    """Exempt existing objects from garbage collection, unless somebody else has done so."""
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# Each run of a step begins with a collection, which is slow while all of jwst is searched.
few_collections = _Shared(_freeze)

# The threads of BLAS spin while they wait, in the way of the package's own.
_one_blas_thread = _Shared(lambda: threadpool_limits(1, user_api="blas"))


@contextmanager
def limit_resources():
    """Keep garbage collections and the threads of BLAS from slowing a run down."""
    with few_collections(), _one_blas_thread():
        yield
