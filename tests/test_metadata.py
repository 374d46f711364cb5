"""Names and metadata of products."""

import json

import numpy as np
import pytest
from astropy.time import Time
from numpy.testing import assert_allclose

from soss_background import SkyflatCombineStep, SkyflatMaskStep, SkyflatModel, SkyflatPipeline
from soss_background.datamodels.exposure_table import describe_exposures, mean_direction, summarize
from soss_background.datamodels.names import product_name
from soss_background.errors import SkyflatError


def header(ra=0.0, dec=0.0, time="2024-06-01", **more):
    """Create the metadata of an exposure."""
    return {
        "name": "jw1_nis_rate.fits",
        "meta.pointing.ra_v1": ra,
        "meta.pointing.dec_v1": dec,
        "meta.exposure.mid_time_mjd": Time(time).mjd,
        "meta.observation.observation_number": "007",
    } | more


def describe(*headers):
    return describe_exposures(list(headers))


def name(*headers, obs_group=0):
    return product_name(summarize(describe(*headers)), list(headers), {"obs_group": obs_group})


def test_mean_direction_is_on_the_sphere():
    lon, lat = mean_direction(np.array([359.6, 0.4]), np.array([0.0, 0.0]))
    assert_allclose([min(lon, 360 - lon), lat], 0, atol=1e-9)
    lon, lat = mean_direction(np.array([350.0, 80.0]), np.array([0.0, 0.0]))
    assert_allclose([lon, lat], [35, 0], atol=1e-9)
    _, lat = mean_direction(np.array([10.0, 190.0]), np.array([80.0, 80.0]))
    assert_allclose(lat, 90)


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ((0.0,), (0.0,), "LON000_LAT+00"),
        ((359.7, 0.2), (0.0, 0.0), "LON000_LAT+00"),  # 359.95 in right ascension, rounds to 0
        ((359.0, 0.0), (0.0, 0.0), "LON000_LAT+00"),
        ((358.0,), (-1.0,), "LON358_LAT+00"),
        ((90.0,), (0.0,), "LON090_LAT-23"),
        ((270.0,), (66.56,), "LON000_LAT+90"),
    ],
)
def test_ecliptic_position_in_the_name(ra, dec, expected):
    headers = [header(*pair) for pair in zip(ra, dec, strict=True)]
    found = name(*headers)
    if expected.endswith("+90"):  # the longitude of the pole is arbitrary
        assert "_LAT+90_" in found
    else:
        assert f"_{expected}_" in found


def test_name():
    assert name(header()) == "nis_clear_gr700xd_LON000_LAT+00_DOY153_007_000_skyflat.fits"
    assert name(header(), obs_group=2).endswith("_007_002_skyflat.fits")


def test_day_of_year_across_new_year():
    first, last = header(time="2023-12-31T18:00"), header(time="2024-01-01T12:00")
    summary = summarize(describe(first, last))
    assert (summary["day"], summary["day_min"], summary["day_max"]) == (1, 365, 1)
    assert "_DOY001_" in name(first, last)
    summary = summarize(describe(header(time="2024-12-31T01:00"), header(time="2024-12-31T20:00")))
    assert (summary["day"], summary["day_min"], summary["day_max"]) == (366, 366, 366)


def test_missing_values_are_nan():
    row = describe(header(**{"meta.instrument.pupil_position": 245.8}))[0]
    assert row["pwcpos"] == 245.8
    assert np.isnan([row["pa_v3"], row["jwst_x_bary"], row["jwst_z_geo"]]).all()
    assert row["nints"] == 1


def test_primary_time_serves_if_the_other_is_missing():
    only_primary = header(**{"meta.exposure.mid_time": 60000.5})
    del only_primary["meta.exposure.mid_time_mjd"]
    assert describe(only_primary)["mid_time_mjd"] == 60000.5


def test_long_file_names_are_kept():
    long = header() | {"name": f"{'x' * 120}.fits"}
    assert describe(long)["filename"][0].decode() == long["name"]


def test_rows_are_those_of_the_exposures(visit, exposures, flat):
    from stdatamodels.jwst import datamodels

    skyflat = SkyflatPipeline.call(visit, steps={"flat_field": {"override_flat": flat}})
    attributes = {
        "pwcpos": "instrument.pupil_position",
        "ra_v1": "pointing.ra_v1",
        "pa_v3": "pointing.pa_v3",
        "aper_pa": "aperture.position_angle",
        "jwst_y_bary": "ephemeris.spatial_y_bary",
        "jwst_z_geo": "ephemeris.spatial_z_geo",
        "mid_time_mjd": "exposure.mid_time_mjd",
        "nints": "exposure.nints",
    }
    for row, path in zip(skyflat.metadata, exposures, strict=True):
        assert row["filename"] == path.name
        metadata = datamodels.read_metadata(path)
        for column, attribute in attributes.items():
            assert row[column] == metadata[f"meta.{attribute}"], column
    assert_allclose(skyflat.metadata["ecliptic_lon"], 9, atol=0.05)
    assert_allclose(skyflat.metadata["ecliptic_lat"], -2, atol=0.05)
    assert_allclose(skyflat.metadata["masked_fraction"], skyflat.masks.mean(axis=(1, 2)))


def test_two_products_of_one_name(two_observations, tmp_path):
    content = json.loads(two_observations.read_text())
    for product in content["products"]:
        product["obs_group"] = 0
        product["members"] = content["products"][0]["members"]
    path = two_observations.with_name("same_asn.json")
    path.write_text(json.dumps(content))
    for step in (SkyflatPipeline, SkyflatCombineStep):
        with pytest.raises(SkyflatError, match="two products have this name"):
            step.call(path)
    content["products"][0]["obs_group"] = "x"
    path.write_text(json.dumps(content))
    with pytest.raises(SkyflatError, match="obs_group x is not a number"):
        SkyflatCombineStep.call(path)
    assert not list(tmp_path.glob("*.fits"))


def test_products_under_one_given_name(two_observations, tmp_path):
    skip = {"flat_field": {"skip": True}}
    SkyflatPipeline.call(two_observations, output_file="m.fits", steps=skip)
    names = {f"m_{k}_skyflat.fits" for k in (0, 1)}
    assert {path.name for path in tmp_path.glob("*.fits")} == names


def test_exposures_of_two_products_are_not_masked_together(two_observations, tmp_path):
    with pytest.raises(SkyflatError, match="2 products: mask the exposures of one at a time"):
        SkyflatMaskStep.call(two_observations, output_file="m.fits")
    steps = {"flat_field": {"skip": True}, "skyflat_combine": {"skip": True}}
    with pytest.raises(
        SkyflatError, match="2 products: skyflat_combine can be skipped for one product"
    ):
        SkyflatPipeline.call(two_observations, save_results=True, steps=steps)
    assert not list(tmp_path.glob("*.fits"))


def test_products_of_one_observation_are_numbered(two_observations, tmp_path):
    results = SkyflatPipeline.call(
        two_observations, save_results=True, steps={"flat_field": {"skip": True}}
    )
    # In the association, the later sequence comes first.
    assert [result.meta.filename for result in results] == [
        "nis_clear_gr700xd_LON009_LAT-02_DOY003_001_001_skyflat.fits",
        "nis_clear_gr700xd_LON009_LAT-02_DOY001_001_000_skyflat.fits",
    ]
    assert {path.name for path in tmp_path.glob("*.fits")} == {r.meta.filename for r in results}
    with SkyflatModel(tmp_path / results[1].meta.filename) as skyflat:
        days = skyflat.meta.skyflat
        assert (days.day, days.day_min, days.day_max) == (1, 365, 1)
