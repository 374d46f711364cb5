"""Stacks of exposures in memory and in files."""

import gc
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_array_equal

from soss_background import SkyflatModel
from soss_background.io.store import Stack

SHAPE = (4, 12, 10)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=SHAPE).astype("f4")
ERRORS = RNG.random(SHAPE).astype("f4")
LEFT_OUT = RNG.random(SHAPE) > 0.5


def fill(stack):
    """Put the exposures into a stack."""
    for index, planes in enumerate(zip(IMAGES, ERRORS, LEFT_OUT, strict=True)):
        stack.put(index, *planes)
    return stack


@pytest.mark.parametrize("in_memory", [True, False])
def test_parts(in_memory, tmp_path):
    stack = fill(Stack(len(IMAGES), None if in_memory else tmp_path))
    assert stack.shape == SHAPE
    rows, some = slice(3, 7), np.array([0, 2, 3])
    assert_array_equal(stack.images[1], IMAGES[1])
    assert_array_equal(stack.errors[:, rows], ERRORS[:, rows])
    assert_array_equal(stack.left_out[some, rows], LEFT_OUT[some, rows])
    expected = IMAGES.copy()
    expected[some, rows] = stack.images[some, rows] = 2 * IMAGES[some, rows]
    expected[:, 9:] = stack.images[:, slice(9, None)] = 7
    expected[1] = stack.images[1] = IMAGES[0]
    assert_array_equal(stack.whole("images"), expected)
    assert stack.whole("left_out").dtype == np.uint8


def test_files_last_as_long_as_what_shows_them(tmp_path):
    stack = fill(Stack(len(IMAGES), tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
    images = stack.whole("images")
    del stack
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1
    assert_array_equal(images, IMAGES)
    del images
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_skyflat_is_written_plane_by_plane(tmp_path):
    shape = (20, 256, 256)
    stack = Stack(shape[0], tmp_path)
    for index in range(shape[0]):
        stack.put(index, np.full(shape[1:], index), np.ones(shape[1:]), np.eye(256, dtype=bool))
    skyflat = SkyflatModel(bkg=np.zeros(shape[1:], dtype="f4"))
    skyflat.images, skyflat.masks = stack.whole("images"), stack.whole("left_out")
    skyflat.meta.bunit_images = "DN/s"
    skyflat.save(tmp_path / "warm.fits")  # schemas are read once
    tracemalloc.start()
    skyflat.save(tmp_path / "sky.fits")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < skyflat.images.nbytes / 2
    with fits.open(tmp_path / "sky.fits") as hdus:
        assert_array_equal(hdus["SCI"].data[:, 0, 0], np.arange(20))
        assert_array_equal(hdus["MASKS"].data, np.broadcast_to(np.eye(256), shape))
        assert hdus["SCI"].header["BUNIT"] == "DN/s"
    assert isinstance(skyflat.images, np.memmap)
    with SkyflatModel(tmp_path / "sky.fits") as again:
        again.images[0] = 5
        again.save(tmp_path / "sky.fits")
    assert (fits.getdata(tmp_path / "sky.fits", "SCI")[:2, 0, 0] == [5, 1]).all()


def test_part_of_a_stack_is_saved_as_it_is(tmp_path):
    skyflat = SkyflatModel(bkg=np.zeros(SHAPE[1:], dtype="f4"))
    skyflat.images = fill(Stack(len(IMAGES), tmp_path)).whole("images")[2:]
    skyflat.save(tmp_path / "sky.fits")
    assert_array_equal(fits.getdata(tmp_path / "sky.fits", "SCI"), IMAGES[2:])
    skyflat.save(tmp_path / "sky.asdf")
    assert isinstance(skyflat.images, np.memmap)
    with SkyflatModel(tmp_path / "sky.asdf") as again:
        assert_array_equal(again.images, IMAGES[2:])
