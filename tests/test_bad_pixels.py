"""Pixels and exposures that a user leaves out."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import strun, write_small_exposures
from numpy.testing import assert_allclose, assert_array_equal

from soss_background import SkyflatCombineStep, SkyflatModel, SkyflatPipeline
from soss_background.detector import FULL, SUBSTRIP256, Window
from soss_background.errors import SkyflatError
from soss_background.io.bad_pixels import read_bad_pixels
from soss_background.io.exposures import open_libraries

PIPELINE = "soss_background.SkyflatPipeline"
WINDOW = Window("FULL", 1920, 600, 128, 256)


@pytest.fixture
def places():
    """Choose pixels; return their columns and rows."""
    rng = np.random.default_rng(4)
    return rng.integers(4, 250, 50), rng.integers(4, 120, 50)


@pytest.mark.parametrize("kind", ["bad.ecsv", "bad.csv", "bad.fits", "bad.txt"])
def test_table(places, kind):
    form = "ascii.basic" if kind == "bad.txt" else None
    Table(places, names=["x", "y"]).write(kind, format=form)
    bad = read_bad_pixels(kind, WINDOW)
    assert bad.shape == WINDOW.shape
    assert_array_equal(np.argwhere(bad), np.unique(np.transpose(places[::-1]), axis=0))


def test_image():
    """Bad pixels are nonzero or NaN in an image of the exposures or of the full detector."""
    full = np.zeros(FULL.shape, dtype=np.float32)
    full[1930, 610], full[1931, 611] = 5, np.nan
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(full)]).writeto("full.fits")
    fits.PrimaryHDU(full[WINDOW.slices]).writeto("part.fits")
    for name in ("full.fits", "part.fits"):
        assert_array_equal(np.argwhere(read_bad_pixels(name, WINDOW)), [[10, 10], [11, 11]])
    with pytest.raises(SkyflatError, match=r"part.fits: its shape is \(128, 256\), not"):
        read_bad_pixels("part.fits", SUBSTRIP256)


def test_faults(tmp_path):
    with pytest.raises(SkyflatError, match=r"none.csv: no such file"):
        read_bad_pixels("none.csv", WINDOW)
    (tmp_path / "text.txt").write_text("nothing of the kind")
    with pytest.raises(SkyflatError, match=r"text.txt: cannot be read as a list of bad pixels"):
        read_bad_pixels("text.txt", WINDOW)
    (tmp_path / "row.csv").write_text("x,y\n1,2\n30,\n")
    with pytest.raises(SkyflatError, match=r"row.csv: a row lacks x or y"):
        read_bad_pixels("row.csv", WINDOW)
    Table([[1], [2]], names=["a", "b"]).write("names.csv")
    with pytest.raises(SkyflatError, match=r"names.csv: cannot be read .*'x'"):
        read_bad_pixels("names.csv", WINDOW)
    Table([[1, 256], [2, 3]], names=["x", "y"]).write("far.csv")
    with pytest.raises(SkyflatError, match=r"far.csv: x = 256, y = 3 is not in the exposures"):
        read_bad_pixels("far.csv", WINDOW)
    Table([[1.5], [2.0]], names=["x", "y"]).write("half.csv")
    with pytest.raises(SkyflatError, match=r"half.csv: x and y are not whole numbers"):
        read_bad_pixels("half.csv", WINDOW)


def test_by_hand(visit, exposures, flat, places, tmp_path):
    """Bad pixels have no sample, omitted exposures are not used, and the product records both."""
    Table(places, names=["x", "y"]).write("bad.csv")
    left_out = exposures[1].name
    options = [
        f"--steps.flat_field.override_flat={flat}",
        "--steps.skyflat_combine.bad_pixels=bad.csv",
        f"--steps.skyflat_combine.exclude={left_out}",
    ]
    strun(PIPELINE, visit, *options)
    (path,) = tmp_path.glob("*_skyflat.fits")
    columns, rows = places
    with SkyflatModel(path) as skyflat:
        assert np.all(skyflat.dq[rows, columns] & 1)
        assert np.all(skyflat.masks[:, rows, columns] == 1)
        assert np.isfinite(skyflat.bkgdn[rows, columns]).all()
        table = skyflat.metadata
        assert_array_equal(table["used"], [1, 0, 1, 1, 1])
        assert table["reason"][1] == "left out by hand"
        assert np.all(skyflat.masks[1] == 1)
        assert skyflat.meta.skyflat.n_samples == 4
        assert np.all(table["deviation"] < 5)
        assert np.all(table["deviation"] > 0)


def test_names_without_suffix(visit, exposures, flat):
    steps = {"flat_field": {"override_flat": flat}}
    root = exposures[2].name.removesuffix("_rateints.fits")
    skyflat = SkyflatPipeline.call(visit, steps=steps | {"skyflat_combine": {"exclude": [root]}})
    assert_array_equal(skyflat.metadata["used"], [1, 1, 0, 1, 1])
    others = [str(path) for path in exposures if root not in path.name]
    alone = SkyflatPipeline.call(others, steps=steps)
    # The exposure was used for the masks of the others.
    assert_allclose(np.median(skyflat.bkg / np.maximum(alone.bkg, 0.1)), 1, atol=0.003)


def test_an_exposure_of_one_of_two_products(two_observations):
    """The exposure is left out of the product that contains it."""
    name = "jw04479001002_03102_00001_nis_rateints.fits"
    steps = {"flat_field": {"skip": True}, "skyflat_combine": {"exclude": [name]}}
    skyflats = SkyflatPipeline.call(two_observations, steps=steps)
    used = {str(row["filename"]): row["used"] for sky in skyflats for row in Table(sky.metadata)}
    assert used.pop(name) == 0
    assert set(used.values()) == {1}


def test_faults_of_a_run(visit, flat, tmp_path):
    for option, message in (
        ("exclude=nobody", "nobody, which is to be left out, is not among the exposures"),
        ("bad_pixels=none.csv", "none.csv: no such file"),
    ):
        with pytest.raises(SkyflatError, match=message):
            strun(
                PIPELINE,
                visit,
                f"--steps.flat_field.override_flat={flat}",
                f"--steps.skyflat_combine.{option}",
            )
    assert not list(tmp_path.glob("*.fits"))


def test_a_list_is_checked_for_each_product(tmp_path):
    """The list is checked before work, even for products of different subarrays."""
    libraries = []
    for shape in ((64, 96), (64, 128)):
        folder = tmp_path / str(shape[1])
        folder.mkdir()
        libraries += open_libraries(write_small_exposures(folder, shape=shape))
    fits.writeto("bad.fits", np.zeros((64, 96), np.uint8))
    step = SkyflatCombineStep(bad_pixels="bad.fits")
    step.check(libraries[:1])
    with pytest.raises(SkyflatError, match=r"bad.fits: its shape is \(64, 96\), not \(64, 128\)"):
        step.check(libraries)
