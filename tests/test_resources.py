"""Settings of the process while steps run, and after."""

import gc
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from soss_background.combine.sky import NoSkyError, NothingToCombineError
from soss_background.errors import SkyflatError
from soss_background.steps import resources
from soss_background.steps.resources import limit_resources


def blas_threads():
    """List the threads of each BLAS."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


@pytest.fixture
def two_threads(monkeypatch):
    """Let BLAS have two threads, whatever the machine, and nothing be frozen."""
    monkeypatch.setattr(resources, "few_collections", resources._Shared(resources._freeze))
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    with threadpool_limits(2, user_api="blas"):
        yield
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("two_threads")
def test_nothing_remains_after_a_run():
    before = blas_threads()
    with limit_resources():
        assert set(blas_threads()) == {1}
        assert gc.get_freeze_count() > 0
    assert blas_threads() == before
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("two_threads")
def test_nothing_remains_after_an_error():
    before = blas_threads()
    with pytest.raises(ValueError, match="in the run"), limit_resources():
        raise ValueError("in the run")
    assert (blas_threads(), gc.get_freeze_count()) == (before, 0)


@pytest.mark.usefixtures("two_threads")
def test_runs_in_two_threads_that_end_in_the_order_they_began():
    before, entered, leave = blas_threads(), threading.Event(), threading.Event()

    def run():
        with limit_resources():
            entered.set()
            leave.wait(60)

    first = threading.Thread(target=run)
    first.start()
    assert entered.wait(60)
    with limit_resources():
        leave.set()
        first.join()
        # The run that is left is still undisturbed.
        assert set(blas_threads()) == {1}
        assert gc.get_freeze_count() > 0
    assert (blas_threads(), gc.get_freeze_count()) == (before, 0)


@pytest.mark.usefixtures("two_threads")
def test_what_was_frozen_stays_frozen():
    gc.freeze()
    with limit_resources():
        pass
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


@pytest.mark.parametrize(
    "error", [SkyflatError("a.fits: broken"), NoSkyError(3), NothingToCombineError("none")]
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def fail():
    raise SkyflatError("a.fits: broken")


def test_an_error_comes_back_from_a_process():
    with ProcessPoolExecutor(1) as pool, pytest.raises(SkyflatError, match="^a.fits: broken$"):
        pool.submit(fail).result()
