"""What a run borrows from its process, and gives back."""

import gc
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["few_collections"]


@contextmanager
def few_collections():
    """Spare what lives already from the garbage collection that begins each run of a step."""
    if gc.get_freeze_count():  # somebody does, and will end it
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def limit_resources():
    """Keep what is around a run from taking its time."""
    # The threads of BLAS spin while they wait, in the way of this package's own.
    with few_collections(), threadpool_limits(1, user_api="blas"):
        yield
