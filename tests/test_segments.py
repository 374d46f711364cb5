"""A time series is one exposure, however many segments it has."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from helpers import checksums, cut_series, make_skyflat, strun
from jwst.white_light.white_light import white_light
from numpy.testing import assert_allclose, assert_array_equal
from stdatamodels.jwst import datamodels
from test_memory import measure_peak

from soss_background import (
    InterOrderBackgroundStep,
    OptimalExtractStep,
    SkyflatSubtractStep,
    SossStarePipeline,
)
from soss_background.detector import SUBSTRIP96, Window
from soss_background.errors import SkyflatError
from soss_background.io.segments import Segments, describe_numbers, exposure_name
from soss_background.numerics.integrations import IntegrationMean, average_integrations
from soss_background.simulate import Simulation, simulate_time_series

WINDOW = Window("FULL", 1800, 500, 128, 256)
SETTINGS = Simulation(window=WINDOW, n_integrations=12, exposure_time=1200.0, star_density=0.0)
CUTS = {1: (12,), 2: (5, 7), 4: (1, 6, 2, 3)}
STEP = "soss_background.SkyflatSubtractStep"
# Keywords of the fit, equal in all segments.
KEYWORDS = (
    "SKYLEFT",
    "SKYRIGHT",
    "SKYLERR",
    "SKYRERR",
    "SKYSHIFT",
    "SKYCHI2",
    "SKYFRAC",
    "SKYSEGS",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Simulate a time series, a skyflat and a flat; cut the series into segments."""
    folder = tmp_path_factory.mktemp("series")
    path = simulate_time_series(folder, SETTINGS, target_flux=100.0)
    make_skyflat(window=WINDOW, flat="flat.fits", structure=0).save(folder / "a_skyflat.fits")
    for number, lengths in CUTS.items():
        cut_series(path, folder / str(number), lengths)
    return folder


@pytest.fixture(scope="module")
def names(folder):
    """Name the sky and the flat as parameters."""
    return {
        "skyflat": [str(folder / "a_skyflat.fits")],
        "override_flat": str(folder / "time_series_flat.fits"),
    }


def segments(folder, number):
    """List the segments of a cut."""
    return sorted((folder / str(number)).glob("*-seg*.fits"))


def visit(library, function):
    """Return the results of a function for each model of a library."""
    return list(library.map_function(lambda model, _: function(model)))


def subtract(paths, names, **settings):
    """Subtract the sky; return the fit, and the data of all segments in their order."""
    library = SkyflatSubtractStep.call(list(paths), **names, **settings)
    if isinstance(library, datamodels.CubeModel):
        return library.data
    return np.concatenate(visit(library, lambda model: model.data))


def test_numbers():
    assert describe_numbers([4, 1, 2, 3, 7]) == "1-4, 7"
    assert describe_numbers([5]) == "5"


def test_name_of_an_exposure():
    assert exposure_name(["a-seg002_nis_rate.fits"]) == "a-seg002_nis_rate.fits"
    assert exposure_name(["a-seg001_nis_rate.fits", "a-seg002_nis_rate.fits"]) == "a_nis_rate.fits"
    assert exposure_name(["a_rate.fits", "b_rate.fits"]) == "all_a_rate.fits"


def test_a_mean_does_not_depend_on_the_cubes():
    """The mean is the same even with missing integrations or different errors."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(50, size=(9, 20, 30)).astype(np.float32)
    read = np.where(rng.random(counts.shape) < 0.2, 90, 10).astype(np.float32)
    dq = (rng.random(counts.shape) < 0.3).astype(np.uint32)
    dq[:4, 0] = dq[:, 1] = 1
    planes = (counts, np.sqrt(counts + read), dq, counts, read)
    whole = average_integrations(*planes)
    for cuts in ([4], [1, 2, 7]):
        mean = IntegrationMean(counts.shape[1:])
        for part in zip(*(np.split(plane, cuts) for plane in planes), strict=True):
            mean.add(*part)
        for name, plane in mean.planes().items():
            assert_allclose(plane, whole[name], rtol=1e-6)
    assert_array_equal(np.isnan(whole["data"][1]), True)


@pytest.mark.parametrize("number", [2, 4])
def test_segments_get_one_sky(number, folder, names):
    """Segments in any order get the same sky as the whole series."""
    whole = subtract(segments(folder, 1), names)
    (path,) = segments(folder, 1)
    sky = np.nanmedian(fits.getdata(path) - whole)
    paths = segments(folder, number)
    assert_allclose(subtract(paths, names), whole, atol=1e-5 * sky)
    assert_array_equal(subtract(paths[::-1], names), subtract(paths, names))


def test_levels_of_integrations_are_relative_to_the_common_fit(folder, names):
    settings = {"scale_mode": "integration"}
    whole = subtract(segments(folder, 1), names, **settings)
    assert_allclose(subtract(segments(folder, 4), names, **settings), whole, atol=1e-4)


def test_bad_pixels_and_no_sky(folder, tmp_path):
    """A list of bad pixels that the step cannot apply ends the run."""
    (tmp_path / "bad.csv").write_text("x,y\n5,6\n")
    (path,) = segments(folder, 1)
    given = {"override_bkg": "N/A", "save_results": True}
    assert SkyflatSubtractStep.call(path, **given).meta.cal_step.bkg_subtract == "SKIPPED"
    with pytest.raises(SkyflatError, match=f"{path.name}: sky not subtracted, CRDS has no BKG"):
        SkyflatSubtractStep.call(path, bad_pixels="bad.csv", **given)
    assert [each.name for each in tmp_path.iterdir()] == ["bad.csv"]


def test_bad_pixels_of_another_shape(folder, names, tmp_path):
    """A file whose header describes other pixels is refused in one line."""
    (tmp_path / "bad.csv").write_text("x,y\n5,6\n")
    (path,) = segments(folder, 1)
    with datamodels.open(path) as model:
        for key in ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat"):
            if model.hasattr(key):
                setattr(model, key, getattr(model, key)[..., :-1, :])
        model.save(tmp_path / "short_rateints.fits")
    shape = (WINDOW.ny - 1, WINDOW.nx)
    fault = rf"short_rateints.fits: .* its shape is \({shape[0]}, {shape[1]}\), that of SUBSIZE2"
    with pytest.raises(SkyflatError, match=fault):
        SkyflatSubtractStep.call(
            tmp_path / "short_rateints.fits", bad_pixels="bad.csv", save_results=True, **names
        )
    assert not list(tmp_path.glob("*_skyflatsubtract.fits"))


def write_association(path, members, **product):
    """Write an association of a product; exptypes by member."""
    members = [{"expname": str(name), "exptype": kind} for name, kind in members.items()]
    content = {"asn_type": "tso3", "asn_rule": "Asn_Lv3TSO", "asn_id": "a3001", "asn_pool": "none"}
    content |= {"program": "1366", "products": [{"name": "a_tso", "members": members} | product]}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("form", ["files", "wildcard", "folder", "level 3"])
def test_each_segment_is_saved_under_its_own_name(form, folder, names, tmp_path):
    paths = segments(folder, 4)
    before = checksums(paths)
    given = {
        "files": paths[::-1],
        "wildcard": [f"{folder}/4/*_rateints.fits"],
        "folder": [folder / "4"],
        "level 3": [
            write_association(folder / "4" / "a_asn.json", {path.name: "science" for path in paths})
        ],
    }[form]
    options = [f"--skyflat={names['skyflat'][0]}", f"--override_flat={names['override_flat']}"]
    strun(STEP, *given, *options, "--save_background=true")
    assert checksums(paths) == before
    products = sorted(tmp_path.glob("*_skyflatsubtract.fits"))
    expected = [path.name.replace("rateints", "skyflatsubtract") for path in paths]
    assert [path.name for path in products] == expected
    headers = [fits.getheader(path) for path in products]
    for keyword in KEYWORDS:
        assert len({header[keyword] for header in headers}) == 1
    assert headers[0]["SKYSEGS"] == "1-4"
    assert [header["EXSEGNUM"] for header in headers] == [1, 2, 3, 4]
    with datamodels.open(products[1]) as model:
        assert model.meta.skyflat_subtract.instance["segments"] == [path.name for path in paths]
        assert len(model.meta.skyflat_subtract.instance["scales"]) == len(model.data) == 6
        assert model.meta.filename == products[1].name
    (sky,) = tmp_path.glob("*_skyflatbackground.fits")
    assert "-seg" not in sky.name
    assert len(list(tmp_path.iterdir())) == 5


def test_no_segments(names):
    with pytest.raises(SkyflatError, match="No exposures are given"):
        SkyflatSubtractStep.call([], **names)


def test_models_are_left_unchanged(folder, names):
    models = [datamodels.open(path) for path in segments(folder, 2)]
    before = [model.data.copy() for model in models]
    result = subtract(models, names)
    for model, data in zip(models, before, strict=True):
        assert_array_equal(model.data, data)
        assert model.meta.cal_step.bkg_subtract is None
    assert_array_equal(result, subtract(segments(folder, 2), names))


def test_missing_segments(folder, names, caplog):
    paths = segments(folder, 4)
    library = SkyflatSubtractStep.call([paths[0], paths[2]], **names)
    assert "segments 2, 4 of 4 missing" in caplog.text
    numbers = visit(library, lambda model: model.meta.skyflat_subtract.skysegs)
    assert numbers == ["1, 3"] * 2


@pytest.mark.parametrize("pipeline", [SkyflatSubtractStep, SossStarePipeline])
def test_two_exposures_of_one_file_name(pipeline, folder, tmp_path):
    """Their products would replace each other."""
    (path,) = segments(folder, 1)
    renamed = [tmp_path / name / "sci_rateints.fits" for name in "ab"]
    for number, each in enumerate(renamed, 1):
        each.parent.mkdir()
        shutil.copy(path, each)
        fits.setval(each, "FILENAME", value=f"exposure{number}_rateints.fits")
        fits.setval(each, "OBSERVTN", value=f"00{number}")
        fits.setval(each, "EXPSTART", value=60000.0 + number)
    with pytest.raises(SkyflatError, match="2 exposures .* have the file name sci_rateints.fits"):
        pipeline.call(renamed)
    assert sorted(tmp_path.rglob("*.fits")) == renamed


def test_models_without_a_name_are_no_segments():
    models = [datamodels.CubeModel((2, 96, 2048)) for _ in range(2)]
    with pytest.raises(SkyflatError, match="2 exposures or segments have the file name model.fits"):
        SkyflatSubtractStep.call(models)


@pytest.mark.parametrize("known", [[None, None, None], [1, 1, 1], [2, None, 3]])
def test_segments_without_numbers_are_numbered_in_their_order(known):
    headers = [{"meta.exposure.segment_number": number} for number in known]
    assert Segments(["a.fits", "b.fits", "c.fits"], headers, None).numbers == [1, 2, 3]
    headers = [{"meta.exposure.segment_number": number} for number in (2, 3, 5)]
    assert Segments(["a.fits", "b.fits", "c.fits"], headers, None).numbers == [2, 3, 5]


def test_exposures_are_fitted_one_by_one(folder, names, tmp_path):
    """Segments of two exposures get the sky of their own exposure."""
    other = []
    for path in segments(folder, 2):
        with datamodels.open(path) as model:
            model.data *= 1.1
            model.meta.observation.exposure_number = "00002"
            other.append(tmp_path / path.name.replace("_00001-", "_00002-"))
            model.save(other[-1])
    mixed = [other[1], *segments(folder, 2), other[0]]
    library = SkyflatSubtractStep.call(mixed, **names)
    assert library.names == [path.name for path in (*segments(folder, 2), *other)]
    levels = visit(library, lambda model: model.meta.skyflat_subtract.skyleft)
    assert levels[0] == levels[1]
    assert levels[2] == levels[3]
    assert_allclose(levels[2] / levels[0], 1.1, rtol=0.005)


def test_a_segment_without_a_measurement(folder, names, tmp_path, caplog):
    """The segment gets the sky of the others, which is logged."""
    paths = cut_series(segments(folder, 1)[0], tmp_path, CUTS[4])
    with datamodels.open(paths[1]) as model:
        model.data[:] = np.nan
        model.save(paths[1])
    library = SkyflatSubtractStep.call(paths, **names, scale_mode="integration")
    fits_, errors = zip(
        *visit(
            library, lambda model: (model.meta.skyflat_subtract.skysegs, np.nanmedian(model.err))
        ),
        strict=True,
    )
    assert set(fits_) == {"1, 3-4"}
    with datamodels.open(paths[1]) as model:
        assert errors[1] > np.nanmedian(model.err)
    assert f"{paths[1].name}: no usable pixel" in caplog.text
    assert "it gets the sky of the other segments" in caplog.text
    with datamodels.open(paths[1]) as model, pytest.raises(SkyflatError, match="no usable pixel"):
        SkyflatSubtractStep.call(model, **names)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("meta.cal_step.flat_field", "COMPLETE", "S_FLAT is COMPLETE, but None in"),
        ("meta.subarray.name", "SUBSTRIP96", "SUBARRAY is SUBSTRIP96, but FULL in"),
        ("meta.exposure.segment_number", 1, "the same exposure as"),
    ],
)
def test_segments_that_do_not_fit(key, value, message, folder, names, tmp_path):
    paths = segments(folder, 2)
    with datamodels.open(paths[1]) as model:
        model[key] = value
        with pytest.raises(SkyflatError, match=f"{paths[1].name}: {message}"):
            SkyflatSubtractStep.call([paths[0], model], **names, save_results=True)
    assert not list(tmp_path.iterdir())


def test_one_segment_is_in_memory(names, tmp_path):
    """Four segments need no more memory than one."""
    settings = Simulation(window=WINDOW, n_integrations=288, star_density=0.0)
    path = simulate_time_series(tmp_path / "long", settings, target_flux=100.0)
    paths = cut_series(path, tmp_path / "cut", (72, 72, 72, 72))

    def run(paths):
        SkyflatSubtractStep.call(paths, **names, save_results=True, scale_mode="integration")

    run(paths[:1])  # imports
    peaks = [measure_peak(run, given) for given in (paths[:1], paths)]
    assert peaks[1] < 1.05 * peaks[0]


# --- spectra -----------------------------------------------------------------------------

STARE = "soss_background.SossStarePipeline"
STRIP = Simulation(
    window=SUBSTRIP96,
    n_integrations=12,
    exposure_time=1200.0,
    star_density=0,
    stripes=0.0,
    cosmic_rays=1e-6,
)


@pytest.fixture(scope="module")
def strip(tmp_path_factory):
    """Simulate a transit in the smallest subarray, with the skyflat of its sky."""
    folder = tmp_path_factory.mktemp("strip")
    path = simulate_time_series(folder, STRIP, target_flux=100.0)
    sky = fits.getdata(folder / "time_series_truth.fits", "SKY")
    skyflat = make_skyflat(window=SUBSTRIP96, sky=sky, flat="flat.fits")
    skyflat.save(folder / "a_skyflat.fits")
    for number, lengths in CUTS.items():
        cut_series(path, folder / str(number), lengths)
    return folder


def stare(folder, paths, **parameters):
    """Extract spectra."""
    flat = {"override_flat": str(folder / "time_series_flat.fits")}
    steps = {
        "skyflat_subtract": {"skyflat": [str(folder / "a_skyflat.fits")]},
        "flat_field": flat,
        **parameters.pop("steps", {}),
    }
    return SossStarePipeline.call(list(paths), steps=steps, **parameters)


def join(spectra, name, order=1):
    """Join a column of the spectra of an order in all segments."""
    specs = [spec for spec in spectra.spec if spec.spectral_order == order]
    return np.concatenate([spec.spec_table[name] for spec in specs])


@pytest.fixture(scope="module")
def whole(strip):
    """Extract the spectra of the whole series."""
    return stare(strip, segments(strip, 1))


@pytest.mark.parametrize("number", [2, 4])
def test_spectra_do_not_depend_on_the_cut(number, strip, whole, tmp_path):
    """Spectra agree to 1 ppm; jwst reads the product of each segment and that of all."""
    paths = segments(strip, number)
    spectra = stare(strip, paths[::-1], save_results=True)
    for order in (1, 2):
        for name in ("FLUX", "FLUX_ERROR"):
            expected = join(whole, name, order)
            assert_allclose(join(spectra, name, order), expected, rtol=1e-6)
    assert_array_equal(join(spectra, "INT_NUM"), np.arange(12) + 1)
    assert_array_equal(join(spectra, "MJD-AVG"), join(whole, "MJD-AVG"))
    root = paths[0].name.partition("-seg")[0]
    endings = {"_nis_x1dints.fits", "_nis_stare.html", "_nis_stareqc.ecsv"}
    endings |= {f"-seg{index + 1:03d}_nis_x1dints.fits" for index in range(number)}
    assert {path.name for path in tmp_path.iterdir()} == {root + ending for ending in endings}
    light = []
    for path in (tmp_path / f"{root}_nis_x1dints.fits", *sorted(tmp_path.glob("*-seg*"))):
        with datamodels.open(path) as model:
            assert "SossStarePipeline" in str(fits.getheader(path)["HISTORY"])
            assert fits.getval(path, "SKYSEGS") == f"1-{number}"
            light.append(white_light(model))
    for key in ("MJD_UTC", "BJD_TDB", "whitelight_flux_order_1"):
        parts = np.concatenate([np.array(each[key]) for each in light[1:]])
        assert_array_equal(np.array(light[0][key]), parts)
    with datamodels.open(tmp_path / f"{root}_nis_x1dints.fits") as model:
        assert [row["integration_number"] for row in model.int_times] == list(range(1, 13))
        assert model.meta.exposure.integration_start == 1
        assert model.meta.exposure.integration_end == 12


def test_no_step_at_a_boundary(strip, tmp_path):
    """The scatter of the light curve about the truth agrees with its errors for any cut."""
    truth = fits.getdata(strip / "time_series_truth.fits", "TRANSIT")["brightness"]
    spectra = stare(strip, segments(strip, 4), output_file="other", save_report=False)
    names = {f"other_{part}x1dints.fits" for part in ("", *(f"seg{i:03d}_" for i in range(1, 5)))}
    assert {path.name for path in tmp_path.iterdir()} == names
    inside = slice(400, 1900)
    curve = join(spectra, "FLUX")[:, inside] / truth[:, np.newaxis]
    error = join(spectra, "FLUX_ERROR")[:, inside] / truth[:, np.newaxis]
    white, sigma = np.nansum(curve, axis=1), np.sqrt(np.nansum(error**2, axis=1))
    mean = np.average(white, weights=sigma**-2)
    chi2 = np.sum(((white - mean) / sigma) ** 2)
    assert chi2 < 30  # 11 degrees of freedom
    edges = np.cumsum((0, *CUTS[4]))
    means = [
        (np.mean(white[a:b]), np.sqrt(np.sum(sigma[a:b] ** 2)) / (b - a))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    steps = [
        (after - before) / np.hypot(first, second)
        for (before, first), (after, second) in zip(means[:-1], means[1:], strict=True)
    ]
    assert np.sum(np.square(steps)) < 16.3  # 3 degrees of freedom, 0.1 %


def test_levels_and_light_between_the_orders_are_those_of_all_segments(strip, whole):
    sky = {"skyflat": [str(strip / "a_skyflat.fits")], "scale_mode": "integration"}
    levels = stare(strip, segments(strip, 2), steps={"skyflat_subtract": sky})
    ratio = join(levels, "FLUX")[:, 400:1900] / join(whole, "FLUX")[:, 400:1900]
    assert abs(np.nanmedian(ratio) - 1) < 0.002
    steps = {"inter_order_background": {"skip": False}, "skyflat_subtract": sky}
    one, four = (stare(strip, segments(strip, number), steps=steps) for number in (1, 4))
    assert_allclose(join(four, "FLUX"), join(one, "FLUX"), rtol=1e-6)


def test_spectra_of_two_exposures(strip, tmp_path):
    """Each exposure has its own products."""
    (path,) = segments(strip, 1)
    with datamodels.open(path) as model:
        model.meta.observation.exposure_number = "00002"
        other = tmp_path / path.name.replace("_00001-", "_00002-")
        model.save(other)
    for step in (OptimalExtractStep, InterOrderBackgroundStep):
        with pytest.raises(SkyflatError, match="output_file names one exposure, but 2 are given"):
            step.call([path, other], output_file="one.fits")
    with pytest.raises(SkyflatError, match="output_file names one exposure, but 2 are given"):
        stare(strip, [other, *segments(strip, 2)], output_file="other")
    results = stare(strip, [other, *segments(strip, 2)], save_results=True)
    assert len(results) == 2
    found = {path.name.partition("_nis_x1dints")[0] for path in tmp_path.glob("*_x1dints.fits")}
    root = path.name.partition("-seg")[0]
    assert found == {f"{root}{end}" for end in ("", "-seg001", "-seg002")} | {
        other.name.partition("_nis_")[0]
    }
    assert_allclose(join(results[0], "FLUX"), join(results[1], "FLUX"), rtol=1e-6)


def test_nothing_is_left_in_the_folder_of_the_products(strip, tmp_path):
    """No hidden files and no products of single steps remain."""
    spectra = stare(strip, segments(strip, 2))
    assert len(spectra.spec) == 4
    assert not list(tmp_path.iterdir())
