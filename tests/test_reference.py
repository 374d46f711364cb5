"""Skyflats become a BKG reference file that CRDS, jwst and this package read."""

from itertools import count

import crds
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from crds.core import utils
from crds_cache import CONTEXT, make_cache
from helpers import checksums, make_skyflat, run_program
from jwst.background import BackgroundStep
from numpy.testing import assert_allclose, assert_array_equal
from packaging.version import Version
from stdatamodels.jwst import datamodels

from soss_background import SkyflatModel, SkyflatSubtractStep
from soss_background.cli import main
from soss_background.detector import FULL, SUBARRAYS, SUBSTRIP96, SUBSTRIP256
from soss_background.errors import SkyflatError
from soss_background.io.templates import read_templates
from soss_background.reference import make_reference, write_reference
from soss_background.simulate import Simulation, simulate_time_series, sky_image
from soss_background.sky.commissioning import commissioning_profile
from soss_background.sky.match import bin_sky, cross_residuals
from soss_background.steps import crds_access

# Four skies with different structures.
NUMBERS = (1, 2, 3, 4)


def write_flat(path, seed=1, window=FULL):
    """Write a flat with some missing pixels; return the values that are applied."""
    rng = np.random.default_rng(seed)
    flat = (1 + 0.02 * rng.standard_normal(window.shape)).astype(np.float32)
    dq = np.zeros(window.shape, dtype=np.uint32)
    flat[window.ny - 200, 500], flat[window.ny - 200, 501] = np.nan, 0
    dq[window.ny - 200, 502] = 2**18
    model = datamodels.FlatModel(data=flat, dq=dq)
    model.meta.subarray.name = window.name
    model.meta.subarray.xstart, model.meta.subarray.ystart = window.x0 + 1, window.y0 + 1
    model.save(path)
    bad = ~(flat > 0) | (dq > 0)
    return np.where(bad, np.float32(1), flat)


def read_history(path):
    """Read the HISTORY of a reference file."""
    return "\n".join(fits.getheader(path)["HISTORY"])


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Write a skyflat of the full detector and its flat; return its file and the flat applied."""
    folder = tmp_path_factory.mktemp("full")
    flat = write_flat(folder / "flat.fits")
    path = folder / "nis_clear_gr700xd_LON009_skyflat.fits"
    make_skyflat(1, FULL, flat=folder / "flat.fits").save(path)
    return path, flat


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Write four skyflats that are not flat-fielded, and their library."""
    folder = tmp_path_factory.mktemp("library")
    for number in NUMBERS:
        make_skyflat(number).save(folder / f"nis_clear_gr700xd_LON{number:03d}_skyflat.fits")
    reference, _ = make_reference([folder / "*_skyflat.fits"])
    write_reference(reference, folder / "library.fits")
    return folder / "library.fits"


@pytest.mark.parametrize("subarray", SUBARRAYS)
@pytest.mark.parametrize("plane", ["BKG", "BKGDN"])
def test_a_subarray_is_cut_by_hand(full, subarray, plane):
    """The planes of a subarray are exactly those of the full detector, multiplied by the flat."""
    path, flat = full
    rows = {
        "FULL": slice(0, 2048),
        "SUBSTRIP256": slice(1792, 2048),
        "SUBSTRIP96": slice(1802, 1898),
    }
    before = checksums([path])
    multiplied, _ = make_reference([path], subarray, plane=plane)
    with SkyflatModel(path) as skyflat:
        skyflat.meta.skyflat.flat_correction = "SKIPPED"
        plain, _ = make_reference([skyflat], subarray, plane=plane)
        cut = {
            name: getattr(skyflat, name)[rows[subarray]] for name in (plane.lower(), "err", "dq")
        }
        # ERR belongs to the plane of the templates.
        if plane == "BKGDN":
            cut["err"] = cut["err"] * skyflat.meta.skyflat.noise_factor
    flat = flat[rows[subarray]]
    assert_array_equal(plain.data, [cut[plane.lower()]])
    assert_array_equal(plain.err, [cut["err"]])
    assert_array_equal(multiplied.data, [cut[plane.lower()] * flat])
    assert_array_equal(multiplied.err, [cut["err"] * flat])
    for reference in (plain, multiplied):
        assert_array_equal(reference.dq, [cut["dq"]])
        assert np.isfinite(reference.data).all()
        assert reference.data.dtype == reference.err.dtype == np.float32
    assert checksums([path]) == before


def test_header_and_table(library):
    """The reopened file contains the keywords for CRDS and the table for users."""
    with fits.open(library) as hdus:
        header, shape = hdus[0].header, hdus["SCI"].data.shape
        assert shape == hdus["ERR"].data.shape == hdus["DQ"].data.shape == (4, 256, 2048)
        assert hdus["SCI"].header["BUNIT"] == hdus["ERR"].header["BUNIT"] == "DN/s"
    expected = {
        "DATAMODL": "SossBkgModel",
        "REFTYPE": "BKG",
        "TELESCOP": "JWST",
        "INSTRUME": "NIRISS",
        "DETECTOR": "NIS",
        "EXP_TYPE": "NIS_SOSS",
        "FILTER": "CLEAR",
        "PUPIL": "GR700XD",
        "SUBARRAY": "SUBSTRIP256",
        "SUBSTRT1": 1,
        "SUBSTRT2": 1793,
        "SUBSIZE1": 2048,
        "SUBSIZE2": 256,
        "FASTAXIS": -2,
        "SLOWAXIS": -1,
        "USEAFTER": "2022-01-01T00:00:00",
        "AUTHOR": "Author 1, Author 0",
        "PEDIGREE": "INFLIGHT 2024-02-24 2024-12-21",
        "DESCRIP": "4 empirical skies of SOSS, SUBSTRIP256",
        "SKYPLANE": "BKGDN",
    }
    assert {key: header[key] for key in expected} == expected
    table = Table.read(library, "TEMPLATES")
    assert_allclose(table["LON"], [10, 20, 30, 40])
    assert_allclose(table["LAT"], -2)
    assert_array_equal(table["DOY"], [21, 22, 23, 24])
    assert_allclose(table["PWCPOS"], [245.76, 245.77, 245.78, 245.79])
    assert_array_equal(table["NSAMPS"], 2)
    assert [str(table[column].unit) for column in ("LON", "LAT", "PWCPOS")] == ["deg"] * 3
    history = read_history(library)
    for number, name in enumerate(table["FILE"], 1):
        assert name == f"nis_clear_gr700xd_LON{number:03d}_skyflat.fits"
        assert f"Template {number}: {name}\n  program 04479 SKY, 2 exposures" in history


def test_the_user_names_author_and_dates():
    settings = {
        "useafter": "2023-05-01",
        "author": "A. Person",
        "pedigree": "DUMMY",
        "description": "One sky",
    }
    reference, _ = make_reference([make_skyflat()], **settings)
    meta = reference.meta
    assert (meta.useafter, meta.author) == ("2023-05-01T00:00:00", "A. Person")
    assert (meta.pedigree, meta.description) == ("DUMMY", "One sky")


def test_models_are_left_as_they_are():
    skyflat = make_skyflat()
    before = skyflat.bkgdn.copy()
    reference, _ = make_reference([skyflat])
    reference.data += 1
    reference.dq |= 1
    assert_array_equal(skyflat.bkgdn, before)
    assert not np.any(skyflat.dq & 1)


def test_what_is_not_finite_is_filled_and_flagged():
    skyflat = make_skyflat()
    sky = skyflat.bkgdn.copy()
    skyflat.bkgdn[100:103, 300:303] = np.nan
    skyflat.bkgdn[200, 900] = np.inf
    skyflat.bkgdn[:, 0] = np.nan
    reference, _ = make_reference([skyflat])
    assert np.isfinite(reference.data).all()
    assert_allclose(reference.data[0, 4:-4, 4:], sky[4:-4, 4:], rtol=0.02)
    assert np.all(reference.data[0, :, 0] == 0)
    assert np.all(reference.dq[0, 100:103, 300:303] & 1)
    assert np.isnan(skyflat.bkgdn[101, 301])


# --- the flat ----------------------------------------------------------------------------


def test_another_flat(full, tmp_path):
    path, flat = full
    other = write_flat(tmp_path / "strip.fits", seed=2, window=SUBSTRIP256)
    reference, _ = make_reference([path], flat=tmp_path / "strip.fits")
    with SkyflatModel(path) as skyflat:
        assert_array_equal(reference.data[0], skyflat.bkgdn[1792:] * other)
    assert np.std(other / flat[1792:]) > 0.02


def test_flat_of_crds(full, tmp_path, monkeypatch):
    path, flat = full
    environment = make_cache(tmp_path / "cache", {"flat": path.parent / "flat.fits"})
    with SkyflatModel(path) as skyflat:
        skyflat.meta.ref_file.flat.name = "crds://jwst_niriss_flat_0001.fits"
        with pytest.raises(
            SkyflatError, match=r"LON009.*flat_0001.fits and CRDS cannot be reached, give"
        ):
            make_reference([skyflat])
        _lead_to(environment, monkeypatch)
        reference, _ = make_reference([skyflat])
        assert_array_equal(reference.data[0], skyflat.bkgdn[1792:] * flat[1792:])
        write_reference(reference, tmp_path / "bkg.fits")
        assert "  multiplied by jwst_niriss_flat_0001.fits" in read_history("bkg.fits")
        skyflat.meta.ref_file.flat.name = "crds://jwst_niriss_flat_0099.fits"
        with pytest.raises(SkyflatError, match=r"CRDS has no crds://.*flat_0099.fits .* --flat"):
            make_reference([skyflat])
    crds_access._crds_reachable.cache_clear()


@pytest.mark.parametrize(
    ("flat", "state", "message"),
    [
        (
            "gone/flat.fits",
            "COMPLETE",
            r"LON001_skyflat.fits: its flat gone/flat.fits is not a",
        ),
        ("N/A", "COMPLETE", "LON001_skyflat.fits: R_FLAT does not record its flat"),
        (None, "COMPLETE", "LON001_skyflat.fits: R_FLAT does not record its flat"),
        (None, None, "LON001_skyflat.fits: FLATCORR is None"),
        (None, "FAILED", "LON001_skyflat.fits: FLATCORR is FAILED"),
    ],
)
def test_a_flat_is_never_guessed(flat, state, message):
    skyflat = make_skyflat()
    skyflat.meta.ref_file.flat.name = flat
    skyflat.meta.skyflat.flat_correction = state
    with pytest.raises(SkyflatError, match=message):
        make_reference([skyflat])


def test_flat_states_are_compared_in_one(tmp_path):
    """A sky with and without flat-fielding is recognized as the same if the flat is given."""
    flat = write_flat(tmp_path / "flat.fits", window=SUBSTRIP256)
    sky = sky_image(SUBSTRIP256)
    skyflats = [make_skyflat(1, sky=sky, flat=tmp_path / "flat.fits")]
    skyflats.append(make_skyflat(2, sky=sky * flat))
    with pytest.raises(SkyflatError, match=r"LON002_skyflat.fits: not flat-fielded, but .*LON001"):
        make_reference(skyflats)
    reference, table = make_reference(skyflats, flat=tmp_path / "flat.fits", merge_below=0.0)
    assert_allclose(table["RESIDUAL"], 0, atol=0.01)
    inside = ~SUBSTRIP256.reference_pixels()
    assert_allclose(reference.data[0][inside], reference.data[1][inside], rtol=1e-5)
    write_reference(reference, tmp_path / "bkg.fits")
    history = read_history("bkg.fits")
    assert "PWCPOS 245.760\n  multiplied by flat.fits" in history
    assert "PWCPOS 245.770\n  not flat-fielded" in history


def test_different_flats_cause_a_warning(tmp_path, caplog):
    for name in ("a.fits", "b.fits"):
        write_flat(tmp_path / name, window=SUBSTRIP256)
    skyflats = [make_skyflat(1, flat=tmp_path / "a.fits"), make_skyflat(2, flat="b.fits")]
    _, table = make_reference(skyflats)
    assert "The skyflats were divided by different flats" in caplog.text
    assert list(table["FLAT"]) == [str(tmp_path / "a.fits"), "b.fits"]


# --- choosing ----------------------------------------------------------------------------


def test_near_duplicates_and_outliers(tmp_path):
    """Table and HISTORY record that two skies are the same and that the last one is bad."""
    sky = sky_image(SUBSTRIP256, seed=1)
    bad = sky.copy()
    bad[100:200, 1000:1500] *= 1.5
    skyflats = [make_skyflat(number) for number in NUMBERS]
    skyflats += [make_skyflat(5, sky=0.6 * sky), make_skyflat(6, sky=bad), make_skyflat(2)]
    reference, table = make_reference(skyflats)
    assert list(table["SKY"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(table["TEMPLATE"]) == [1, 2, 3, 4, 1, 0, 0]
    assert list(table["REASON"][:5]) == ["", "", "", "", "merged with sky 1"]
    assert table["REASON"][5].startswith("no other sky fits it: ")
    assert table["REASON"][6] == "shares exposures with sky 2"
    assert table["FITTED_BY"][4] == 1
    assert table["RESIDUAL"][4] < 0.01
    assert table["RESIDUAL"][5] > 5
    assert_allclose(reference.data[0], skyflats[0].bkgdn, rtol=1e-5)
    inside = ~SUBSTRIP256.reference_pixels()
    err = skyflats[0].err * skyflats[0].meta.skyflat.noise_factor
    assert_allclose(reference.err[0][inside], err[inside] / np.sqrt(2), rtol=1e-3)
    write_reference(reference, tmp_path / "bkg.fits")
    rows = Table.read(tmp_path / "bkg.fits", "TEMPLATES")
    assert_array_equal(rows["NSAMPS"], [4, 2, 2, 2])
    history = read_history("bkg.fits")
    assert "Template 1: nis_clear_gr700xd_LON005_skyflat.fits" in history
    assert "Left out: nis_clear_gr700xd_LON006_skyflat.fits\n  no other sky fits it" in history


def test_leave_one_out():
    """The table lists the residual of each sky after the best of the others is subtracted."""
    skyflats = [make_skyflat(number) for number in NUMBERS]
    _, table = make_reference(skyflats, merge_below=0.0)
    inside = ~SUBSTRIP256.reference_pixels()
    skies = [bin_sky(read.bkgdn + 5 * ~inside, inside) for read in skyflats]
    residuals = cross_residuals(skies) + np.diag([np.inf] * 4)
    assert_allclose(table["RESIDUAL"], 100 * residuals.min(axis=1), rtol=0.01)
    assert table["RESIDUAL"].unit == "%"
    assert_array_equal(table["FITTED_BY"], residuals.argmin(axis=1) + 1)
    _, alone = make_reference(skyflats[:1])
    assert alone["FITTED_BY"][0] == 0
    assert np.isnan(alone["RESIDUAL"][0])


def test_the_plane_does_not_change_the_choice():
    skyflats = [make_skyflat(number) for number in NUMBERS] + [make_skyflat(5, seed=1)]
    tables = [make_reference(skyflats, plane=plane)[1] for plane in ("BKG", "BKGDN")]
    assert_array_equal(tables[0]["TEMPLATE"], tables[1]["TEMPLATE"])
    assert_array_equal(tables[0]["RESIDUAL"], tables[1]["RESIDUAL"])


# --- use of the library ---------------------------------------------------------------


def _lead_to(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    utils.clear_function_caches()
    crds_access._crds_reachable.cache_clear()


@pytest.mark.parametrize("subarray", ["SUBSTRIP256", "SUBSTRIP96"])
def test_crds_certifies_it(library, subarray, tmp_path):
    new = tmp_path / f"{subarray}.fits"
    window = SUBARRAYS[subarray]
    reference, _ = make_reference([make_skyflat(1, window), make_skyflat(3, window)], subarray)
    write_reference(reference, new)
    environment = make_cache(tmp_path / "cache", {"bkg": library})
    options = ["certify", new, "--comparison-context", CONTEXT]
    if Version(crds.__version__) < Version("14.0.3"):  # later versions do this by default
        options.append("--check-rmap-updates")
    done = run_program("crds", *options, home=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "0 errors" in said
    assert "0 warnings" in said
    assert "Inserting" in said


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a function that creates a CRDS cache with a BKG reference file, and uses it."""
    folders = (tmp_path / f"cache{number}" for number in count())
    yield lambda path: _lead_to(make_cache(next(folders), {"bkg": path}), monkeypatch)
    utils.clear_function_caches()
    crds_access._crds_reachable.cache_clear()


def draw_skies(seed, number):
    """Draw skies of one structure with random heights and positions of the edge."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        profile = commissioning_profile(np.clip(np.arange(2048) - rng.uniform(-5, 5), 0, 2047))
        yield {"step_contrast": rng.uniform(0.9, 1.1), "sky_profile": profile}


def simulate_series(folder, window, sky, target_flux=100.0):
    """Simulate a time series; return its file, its flat, and the sky that it shows."""
    settings = Simulation(
        window=window, n_integrations=4, exposure_time=400.0, star_density=0, seed=9, **sky
    )
    path = simulate_time_series(folder, settings, target_flux=target_flux)
    with fits.open(folder / "time_series_truth.fits") as hdus:
        return path, folder / "time_series_flat.fits", hdus["SKY"].data * hdus["FLAT"].data


def removed_by(result, path):
    """Return the mean of the subtracted sky; NaN where an integration has no value."""
    with datamodels.open(path) as before:
        return np.mean(before.data - result.data, axis=0)


def jwst_leaves(path, sky, window, **settings):
    """
    Run jwst's step; return the residual rms as a fraction of the sky, in total and of the shape.

    NaN if it finds no template.
    """
    result = BackgroundStep.call(str(path), **settings)
    if result.meta.cal_step.bkg_subtract != "COMPLETE":
        return np.nan, np.nan
    removed = removed_by(result, path)
    inside = np.isfinite(removed) & ~window.reference_pixels()
    skies = [bin_sky(np.where(inside, image, 1), inside) for image in (sky, removed)]
    rms = np.sqrt(np.mean((removed - sky)[inside] ** 2)) / np.median(sky)
    return rms, cross_residuals(skies)[0, 1]


# In the smaller subarray, jwst's step finds fewer dark pixels for its levels.
@pytest.mark.parametrize(("window", "target_flux"), [(SUBSTRIP256, 220.0), (SUBSTRIP96, 100.0)])
def test_jwst_subtracts_it(window, target_flux, cache, tmp_path):
    """The library works by override and from CRDS, and is better than one template."""
    skyflats = [
        make_skyflat(
            number, flat="any", contrast=sky["step_contrast"], profile=sky["sky_profile"], seed=9
        )
        for number, sky in enumerate(draw_skies(500, 8), 1)
    ]
    one = make_skyflat(sky=sky_image(SUBSTRIP256, structure=0), flat="any")
    left = []
    for sky in draw_skies(1, 4):
        path, flat, truth = simulate_series(tmp_path, window, sky, target_flux)
        full = tmp_path / "flat.fits"
        with datamodels.FlatModel(flat) as strip:
            _embed(strip).save(full)
        for name, members in (("library.fits", skyflats), ("one.fits", [one])):
            reference, _ = make_reference(members, flat=full)
            write_reference(reference, tmp_path / name)
        cache("library.fits")
        ours, single = (
            jwst_leaves(path, truth, window, override_bkg=str(tmp_path / name))
            for name in ("library.fits", "one.fits")
        )
        assert jwst_leaves(path, truth, window) == ours
        left.append([ours, single])
    left = np.array(left)
    assert np.isfinite(left[:, 0]).all()
    both = left[np.isfinite(left[:, 1, 0])]
    ours, single = both.mean(axis=0)
    assert np.all(ours < 0.9 * single)


def _embed(flat):
    """Complete the flat of a subarray to one of SUBSTRIP256."""
    first = flat.meta.subarray.ystart - 1 - SUBSTRIP256.y0
    whole = datamodels.FlatModel(data=np.ones(SUBSTRIP256.shape, dtype=np.float32))
    whole.data[first : first + len(flat.data)] = flat.data
    return whole


@pytest.mark.parametrize("window", [SUBSTRIP256, SUBSTRIP96], ids=lambda window: window.name)
def test_our_step_reads_it_back(window, cache, tmp_path):
    """Skyflats and their library give the same sky."""
    path, flat, sky = simulate_series(tmp_path, window, {})
    files = [str(tmp_path / f"{number}_skyflat.fits") for number in NUMBERS]
    for number, file in zip(NUMBERS, files, strict=True):
        make_skyflat(number, window, flat=flat).save(file)
    reference, _ = make_reference(files, window.name)
    write_reference(reference, tmp_path / "bkg.fits")
    cache("bkg.fits")
    results = [
        SkyflatSubtractStep.call(str(path), **settings)
        for settings in (
            {"skyflat": files, "override_flat": str(flat)},
            {"override_bkg": str(tmp_path / "bkg.fits"), "override_flat": str(flat)},
            {"override_flat": str(flat)},
            {},
        )
    ]
    assert all(result.meta.skyflat_subtract.instance["skyntemp"] == 4 for result in results)
    inside = ~window.reference_pixels()
    skyflats, overridden, cached, no_flat = (
        removed_by(result, path)[inside] / sky[inside] for result in results
    )
    assert np.nanpercentile(np.abs(overridden - skyflats), 99) < 2e-3
    assert_array_equal(cached, overridden)
    # Without a flat, the pattern of the detector is shifted, too.
    assert abs(np.nanmedian(no_flat - cached)) < 2e-3
    assert np.nanstd(no_flat - cached) < 5e-3


def test_noise_survives_the_way_back(library):
    """The uncertainty of a denoised template is smaller than that of the plain sky."""
    window = SUBSTRIP96
    plain = make_reference([make_skyflat()], plane="BKG")[0]
    write_reference(plain, library.parent / "plain.fits")
    from_library = read_templates(library, window)[0]
    from_plain = read_templates(library.parent / "plain.fits", window)[0]
    factor = make_skyflat().meta.skyflat.noise_factor
    assert_allclose(from_library.noise, factor * from_plain.noise, rtol=1e-3)
    assert_array_equal(from_library.dq, make_skyflat().dq[10:106])


# --- faults, and the command line --------------------------------------------------------


def test_faults(library, tmp_path):
    good = make_skyflat()
    wrong = make_skyflat(2)
    wrong.meta.instrument.filter = "F277W"
    faults = {
        r"none.fits: no such file": {"skyflats": ["none.fits"]},
        r"library.fits: not a skyflat": {"skyflats": [library]},
        r"bad.fits: cannot be read": {"skyflats": ["bad.fits"]},
        r"No skyflats are given": {"skyflats": []},
        r"LON002_skyflat.fits: FILTER is F277W, not CLEAR": {"skyflats": [good, wrong]},
        r"LON001_skyflat.fits: its SUBSTRIP256 lacks pixels of FULL": {"subarray": "FULL"},
        r"soon is not a date for USEAFTER": {"useafter": "soon"},
        r"FLIGHT is not a PEDIGREE": {"pedigree": "FLIGHT"},
        r"INFLIGHT is not a PEDIGREE": {"pedigree": "INFLIGHT"},
        r"is not a PEDIGREE": {"pedigree": "INFLIGHT 2024-02-30 2024-03-01"},
        r"2024-01-01 is not a PEDIGREE": {"pedigree": "INFLIGHT 2024-02-01 2024-01-01"},
        r"20240201 is not a PEDIGREE": {"pedigree": "INFLIGHT 20240101 20240201"},
        r"SUBSTRIP80 is none of the subarrays": {"subarray": "SUBSTRIP80"},
        r"ERR is neither BKGDN nor BKG": {"plane": "ERR"},
        r"max_residual is nan, not a fraction": {"max_residual": float("nan")},
        r"max_residual is 5, not a fraction of the sky from 0 to 0.5": {"max_residual": 5},
        r"merge_below is -1, not a fraction": {"merge_below": -1},
        r"merge_below is 0.51, not a fraction": {"merge_below": 0.51},
    }
    (tmp_path / "bad.fits").write_bytes(b"nothing")
    for message, settings in faults.items():
        with pytest.raises(SkyflatError, match=message):
            make_reference(**{"skyflats": [good]} | settings)
    with pytest.raises(SkyflatError, match=r"bkg.asdf does not end in .fits"):
        write_reference(make_reference(good)[0], "bkg.asdf")
    detector = make_skyflat()
    detector.meta.instrument.detector = "NRS1"
    with pytest.raises(SkyflatError, match="LON001_skyflat.fits: DETECTOR is NRS1, not NIS"):
        make_reference(detector)
    nowhere = make_skyflat(1, FULL)
    nowhere.meta.subarray.ystart = 1793
    with pytest.raises(SkyflatError, match="SUBSTRT1 and SUBSTRT2 do not fit its shape"):
        make_reference(nowhere)
    uneven = make_skyflat()
    uneven.err = uneven.err[:100]
    with pytest.raises(
        SkyflatError, match=r"ERR has the shape \(100, 2048\), but BKG \(256, 2048\)"
    ):
        make_reference(uneven)
    write_flat(tmp_path / "flat.fits", window=SUBSTRIP256)
    with datamodels.FlatModel("flat.fits") as flat:
        flat.data[:] = 0
        flat.save("zero.fits")
    with pytest.raises(SkyflatError, match=r"zero.fits: a flat without valid values"):
        make_reference(make_skyflat(1, flat="flat.fits"), flat="zero.fits")
    with pytest.raises(SkyflatError, match=r"library.fits: cannot be read as a flat"):
        make_reference(make_skyflat(1, flat=library))
    empty = make_skyflat()
    empty.bkg[:] = np.nan
    with pytest.raises(SkyflatError, match="LON001_skyflat.fits: BKG has no value"):
        make_reference(empty, plane="BKG")
    good.bkgdn = None
    with pytest.raises(SkyflatError, match="LON001_skyflat.fits: BKGDN is missing"):
        make_reference([good])
    undated = make_skyflat()
    undated.metadata["mid_time_mjd"] = np.nan
    with pytest.raises(SkyflatError, match="No skyflat records the dates of its exposures"):
        make_reference([undated])


def test_command_line(library, tmp_path):
    """The command writes the same file as the Python function."""
    skyflats = sorted(library.parent.glob("*_skyflat.fits"))
    output = tmp_path / "new" / "bkg.fits"
    options = ["--merge-below", "0", "--author", "A. Person"]
    done = run_program(
        "soss-background", "reference", *skyflats, "-o", output, *options, home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:5] == ["SKY", "FILE", "RESIDUAL", "TEMPLATE", "REASON"]
    assert f"4 templates of 4 skyflats, see {output}" in done.stdout
    reference, _ = make_reference(skyflats, merge_below=0)
    with datamodels.SossBkgModel(output) as model:
        assert_array_equal(model.data, reference.data)
        assert model.meta.author == "A. Person"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "bkg.fits", "--useafter", "soon"], "soon is not a date"),
        (["-o", "{skyflat}"], "is an input"),
        (["-o", "bkg.fits", "--max-residual", "5"], "max_residual is 5.0, not a fraction"),
        (
            ["-o", "bkg.fits", "--subarray", "FULL"],
            "lacks pixels of FULL: give one of FULL, or --subarray SUBSTRIP256",
        ),
    ],
)
def test_command_line_faults(library, capsys, options, message, tmp_path):
    skyflat = str(library.parent / "nis_clear_gr700xd_LON001_skyflat.fits")
    before = checksums([skyflat])
    assert (
        main(["reference", skyflat, *(option.format(skyflat=skyflat) for option in options)]) == 1
    )
    assert message in capsys.readouterr().err
    assert checksums([skyflat]) == before
    assert not list(tmp_path.iterdir())


def test_skyflats_of_substrip96(tmp_path, capsys):
    """The error message names the option that works."""
    make_skyflat(window=SUBSTRIP96).save(tmp_path / "s_skyflat.fits")
    arguments = ("reference", "s_skyflat.fits", "-o", "bkg.fits")
    assert main(arguments) == 1
    message = "give one of FULL or SUBSTRIP256, or --subarray SUBSTRIP96, a library for exposures"
    assert message in capsys.readouterr().err
    assert main((*arguments, "--subarray", "SUBSTRIP96")) == 0


@pytest.mark.parametrize("options", [["-n", "0", "-o", "a.fits"], ["-o", "a.asdf"]])
def test_command_line_usage(options):
    with pytest.raises(SystemExit):
        main(["reference", "skyflat.fits", *options])


def test_the_flat_is_not_written_over(tmp_path, capsys):
    write_flat(tmp_path / "flat.fits", window=SUBSTRIP256)
    make_skyflat(1, flat=tmp_path / "flat.fits").save(tmp_path / "s_skyflat.fits")
    before = checksums(["flat.fits"])
    for options in ([], ["--flat", "flat.fits"]):
        assert main(["reference", "s_skyflat.fits", "-o", "flat.fits", *options]) == 1
        assert "flat.fits is an input" in capsys.readouterr().err
    assert checksums(["flat.fits"]) == before
