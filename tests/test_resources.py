"""A run restores the settings of the process."""

import gc
import threading
import warnings
from contextlib import contextmanager

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from soss_background.io.files import allow_member_paths, ignore_file_warnings
from soss_background.numerics.threads import Shared
from soss_background.steps import resources
from soss_background.steps.resources import limit_resources


def blas_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


@pytest.fixture
def two_threads(monkeypatch):
    """Let BLAS use two threads, and undo the freeze of the tests meanwhile."""
    monkeypatch.setattr(resources, "_FROZEN", Shared(resources._freeze))
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    with threadpool_limits(2, user_api="blas"):
        yield blas_threads()
    if frozen:
        gc.freeze()


def test_nothing_remains_after_a_run(two_threads):
    assert two_threads
    with limit_resources():
        assert set(blas_threads()) == {1}
        assert gc.get_freeze_count() > 0
    assert (blas_threads(), gc.get_freeze_count()) == (two_threads, 0)


def test_nothing_remains_after_an_exception(two_threads):
    with pytest.raises(ValueError, match="broken"), limit_resources():
        raise ValueError("broken")
    assert (blas_threads(), gc.get_freeze_count()) == (two_threads, 0)


def enter_in_thread(context):
    """Enter a context in another thread; return a function that leaves it."""
    entered, leave = threading.Event(), threading.Event()

    def run():
        with context:
            entered.set()
            leave.wait(60)

    other = threading.Thread(target=run)
    other.start()
    assert entered.wait(60)

    def end():
        leave.set()
        other.join()

    return end


@pytest.mark.parametrize("first", ["main", "other"])
def test_nothing_remains_after_two_runs_in_two_threads(two_threads, first):
    with limit_resources():
        leave = enter_in_thread(limit_resources())
        if first == "other":
            leave()
            assert set(blas_threads()) == {1}
            assert gc.get_freeze_count() > 0
    if first == "main":
        assert gc.get_freeze_count() > 0
        leave()
    assert (blas_threads(), gc.get_freeze_count()) == (two_threads, 0)


def test_warning_filters_of_two_threads():
    """The first thread enters and leaves first, and the second restores the original filters."""
    before = list(warnings.filters)
    with allow_member_paths():
        leave = enter_in_thread(ignore_file_warnings())
    leave()
    assert warnings.filters == before


def test_warning_filters_that_others_leave_behind():
    before = list(warnings.filters)
    with limit_resources():
        warnings.simplefilter("ignore", ResourceWarning)
    assert warnings.filters == before


@pytest.mark.usefixtures("two_threads")
def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        with limit_resources():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_context_that_cannot_be_entered_counts_no_user():
    calls = []

    @contextmanager
    def fail_once():
        calls.append(len(calls))
        if len(calls) == 1:
            raise OSError("no limits")
        yield

    shared = Shared(fail_once)
    with pytest.raises(OSError, match="no limits"), shared:
        pass
    with shared, shared:
        pass
    assert calls == [0, 1]
