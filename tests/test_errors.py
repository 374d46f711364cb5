"""Exceptions that are passed between processes."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from soss_background.combine.sky import NoSkyError
from soss_background.errors import SkyflatError, one_line
from soss_background.io.curves import read_curve


def test_a_skyflat_error_survives_pickling():
    error = pickle.loads(pickle.dumps(SkyflatError("a.fits: has no ERR")))
    assert type(error) is SkyflatError
    assert str(error) == "a.fits: has no ERR"
    assert error.args == (1, "a.fits: has no ERR")


def test_a_skyflat_error_comes_out_of_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(read_curve, "missing.csv", "FLUX", None, "cannot be read")
        with pytest.raises(SkyflatError, match=r"missing\.csv"):
            future.result()


def test_an_exposure_without_sky_survives_pickling():
    error = pickle.loads(pickle.dumps(NoSkyError(3)))
    assert error.index == 3
    assert str(error) == "exposure 3 has no sky, its median is not positive"


def test_a_message_is_brought_to_one_line():
    assert str(SkyflatError("a  b.fits: two\nlines\n")) == "a  b.fits: two lines"
    assert one_line(ValueError("two\n  lines")) == "two lines"


def test_a_message_is_shortened():
    assert one_line(500 * "a") == 500 * "a"
    assert one_line(501 * "a") == 500 * "a" + "..."
