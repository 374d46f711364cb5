"""SkyflatModel: written models can be read."""

import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_array_equal
from stdatamodels.jwst import datamodels

import soss_background
from soss_background import SkyflatModel

PLANES = {
    "bkg": "BKG",
    "bkgdn": "BKGDN",
    "err": "ERR",
    "dq": "DQ",
    "images": "SCI",
    "masks": "MASKS",
}
KEYWORDS = {
    "AUTHOR": "A. Uthor",
    "DESCRIP": "a sky",
    "FLATCORR": "COMPLETE",
    "NSAMPS": 3,
    "PROGRAM": "04479",
    "TARGPROP": "SKY",
    "LON": 359.5,
    "LAT": -2.5,
    "DAY": 366,
    "MINDAY": 365,
    "MAXDAY": 1,
    "R_FLAT": "flat.fits",
    "S_SKYMSK": "COMPLETE",
    "S_SKYCMB": "COMPLETE",
    "S_SKYDEN": "SKIPPED",
}


@pytest.fixture
def model():
    """Build a skyflat with all entries of the schema."""
    rng = np.random.default_rng(3)
    model = SkyflatModel(bkg=rng.normal(size=(8, 9)).astype("f4"))
    model.bkgdn = model.bkg + 1
    model.err = model.bkg**2
    model.dq = rng.integers(0, 2**32, size=(8, 9), dtype=np.uint32)
    model.images = rng.normal(size=(3, 8, 9)).astype("f4")
    model.masks = rng.integers(0, 2, size=(3, 8, 9), dtype=np.uint8)
    for table, name in (("metadata", "filename"), ("qc", "name")):
        rows = np.zeros(3, dtype=model.get_dtype(table))
        rows[name] = ["a", "b", "c"]
        setattr(model, table, rows)
    meta = model.meta
    meta.author, meta.description = "A. Uthor", "a sky"
    meta.observation.program_number, meta.target.proposer_name = "04479", "SKY"
    meta.ref_file.flat.name = "flat.fits"
    meta.skyflat.flat_correction, meta.skyflat.n_samples = "COMPLETE", 3
    meta.skyflat.ecliptic_lon, meta.skyflat.ecliptic_lat = 359.5, -2.5
    meta.skyflat.day, meta.skyflat.day_min, meta.skyflat.day_max = 366, 365, 1
    meta.cal_step.skyflat_mask = meta.cal_step.skyflat_combine = "COMPLETE"
    meta.cal_step.skyflat_denoise = "SKIPPED"
    meta.bunit_bkg = meta.bunit_bkgdn = meta.bunit_err = meta.bunit_images = "DN/s"
    return model


@pytest.mark.parametrize("suffix", [".fits", ".asdf"])
def test_round_trip(model, tmp_path, suffix):
    path = tmp_path / f"sky{suffix}"
    model.save(path)
    with datamodels.open(path) as reopened:
        assert type(reopened) is SkyflatModel
        for plane in PLANES:
            written, read = getattr(model, plane), getattr(reopened, plane)
            assert_array_equal(read, written)
            assert read.dtype.newbyteorder("=") == written.dtype.newbyteorder("=")
        assert [
            np.char.decode(n) if isinstance(n, bytes) else n for n in reopened.metadata["filename"]
        ] == ["a", "b", "c"]
        assert reopened.qc["name"].size == 3
        assert reopened.meta.bunit_bkg == "DN/s"
        assert reopened.meta.skyflat.day_max == 1
        assert reopened.meta.cal_step.skyflat_denoise == "SKIPPED"


@pytest.mark.parametrize("from_file", [True, False])
def test_pickle(model, tmp_path, from_file):
    """Models can be pickled, even if their tables come from a file."""
    if from_file:
        model.save(tmp_path / "sky.fits")
        model = SkyflatModel(tmp_path / "sky.fits")
    date = model.meta.date
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is SkyflatModel
    for plane in PLANES:
        assert_array_equal(getattr(again, plane), getattr(model, plane))
    assert list(again.qc["name"]) == list(model.qc["name"])
    known = model.to_flat_dict(include_arrays=False)
    found = again.to_flat_dict(include_arrays=False)
    assert {key: found[key] for key in known if key.startswith("meta.")} == {
        key: value for key, value in known.items() if key.startswith("meta.")
    }
    assert model.meta.date == date


def test_fits_layout(model, tmp_path):
    model.save(tmp_path / "sky.fits")
    with fits.open(tmp_path / "sky.fits") as hdus:
        header = hdus[0].header
        assert header["DATAMODL"] == "SkyflatModel"
        assert {key: header[key] for key in KEYWORDS} == KEYWORDS
        for plane, name in PLANES.items():
            assert_array_equal(hdus[name].data, getattr(model, plane))
        assert {name: hdus[name].header["BUNIT"] for name in ("BKG", "BKGDN", "ERR", "SCI")} == (
            dict.fromkeys(("BKG", "BKGDN", "ERR", "SCI"), "DN/s")
        )
        assert hdus["METADATA"].columns.names == [
            "filename", "pwcpos", "ra_v1", "dec_v1", "pa_v3", "aper_pa", "jwst_x_bary",
            "jwst_y_bary", "jwst_z_bary", "jwst_x_geo", "jwst_y_geo", "jwst_z_geo",
            "mid_time_mjd", "ecliptic_lon", "ecliptic_lat", "day_of_year", "nints", "scale",
            "offset", "masked_fraction", "used",
        ]  # fmt: skip
        assert hdus["QC"].columns.names == [
            "name", "value", "unit", "comment", "low", "high", "flag"
        ]  # fmt: skip
    assert Table.read(tmp_path / "sky.fits", hdu="METADATA")["filename"][2] == "c"


def test_read_metadata_knows_the_class(model, tmp_path):
    model.save(tmp_path / "sky.fits")
    assert datamodels.read_metadata(tmp_path / "sky.fits")["meta.skyflat.ecliptic_lon"] == 359.5


def test_without_a_stack_there_is_no_sci(tmp_path):
    SkyflatModel(bkg=np.ones((4, 4), dtype="f4")).save(tmp_path / "sky.fits")
    with fits.open(tmp_path / "sky.fits") as hdus:
        assert "SCI" not in hdus
    with SkyflatModel(tmp_path / "sky.fits") as model:
        assert model.images is None
        assert model.qc is None


def test_public_names():
    for name in soss_background.__all__:
        assert getattr(soss_background, name).__name__ == name
    assert set(soss_background.__all__) <= set(dir(soss_background))
    with pytest.raises(AttributeError, match="no attribute 'NoSuchStep'"):
        soss_background.NoSuchStep  # noqa: B018
