"""The library of exposures: stored changes, and files that stay unchanged."""

import gc

import numpy as np
import pytest
from helpers import checksums, write_small_exposures
from numpy.testing import assert_array_equal
from stdatamodels.jwst import datamodels

from soss_background.io.exposures import open_libraries


@pytest.fixture
def paths(tmp_path):
    """Write two small exposures."""
    return write_small_exposures(tmp_path)


@pytest.fixture(params=["files", "memory"])
def library(request, paths, tmp_path):
    """Open them as a library."""
    return open_libraries(paths, tmp_path if request.param == "files" else None)[0]


def change(library, index, edit):
    """Change an exposure of a library."""
    with library:
        image = library.borrow(index)
        edit(image)
        library.shelve(image, index)


def look(library, index, name="data"):
    """Copy a plane of an exposure."""
    with library:
        image = library.borrow(index)
        plane = np.array(getattr(image, name))
        library.shelve(image, index, modify=False)
    return plane


def test_changes_are_kept_and_files_are_not_changed(library, paths):
    before, original = checksums(paths), look(library, 0)

    def double(image):
        image.data *= 2
        image.mask = np.ones(image.data.shape, dtype=np.uint32)
        image.meta.cal_step.skyflat_mask = "COMPLETE"

    change(library, 0, double)
    change(library, 0, lambda image: setattr(image, "err", image.err + 1))
    change(library, 0, lambda image: setattr(image, "data", image.data[:32]))
    assert_array_equal(look(library, 0), 2 * original[:32])
    assert_array_equal(look(library, 0, "mask"), 1)
    assert look(library, 0, "err").min() > 1
    assert library.read_metadata(0)["meta.cal_step.skyflat_mask"] == "COMPLETE"
    assert library.read_metadata(1).get("meta.cal_step.skyflat_mask") is None
    assert checksums(paths) == before


def test_what_was_shelved_may_still_be_used(paths, tmp_path):
    library = open_libraries(paths, tmp_path)[0]
    change(library, 0, lambda image: setattr(image, "data", image.data + 0))
    with library:
        image = library.borrow(0)
        shown = image.data
        expected = shown.copy()
        image.data = 3 * shown
        library.shelve(image, 0)
    assert_array_equal(shown, expected)
    assert_array_equal(look(library, 0), 3 * expected)


def test_pixels_on_disk_vanish_with_the_library(paths, tmp_path):
    library = open_libraries(paths, tmp_path)[0]
    change(library, 0, lambda image: setattr(image, "data", image.data + 1))
    sizes = [path.stat().st_size for path in tmp_path.glob(".skyflat-*")]
    assert look(library, 0).nbytes in sizes
    del library
    gc.collect()
    assert not list(tmp_path.glob(".skyflat-*"))


def test_pixels_are_written_once(paths, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    library = open_libraries(paths, tmp_path / "link")[0]
    change(library, 0, lambda image: setattr(image, "data", image.data + 1))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("folder/.skyflat-*")}
    assert written
    change(library, 0, lambda image: image.meta)
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("folder/.skyflat-*")}


def test_metadata_are_read_once(library, paths, monkeypatch):
    monkeypatch.setattr(datamodels, "read_metadata", None)
    names = [library.read_metadata(index)["meta.filename"] for index in (0, 1, 0)]
    assert names == [paths[0].name, paths[1].name, paths[0].name]
    assert library.read_metadata(1, flatten=False)["meta"]["filename"] == paths[1].name
