"""Existing skyflats that may be replaced or are up to date; names from associations."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from astropy.io import fits
from helpers import checksums, edit_file, make_skyflat, strun, write_small_exposures

from soss_background import SkyflatCombineStep, SkyflatModel, SkyflatPipeline
from soss_background.datamodels.names import check_path, check_product_name, identify
from soss_background.detector import SUBSTRIP96
from soss_background.errors import SkyflatError
from soss_background.io.files import note_inputs, protect_inputs
from soss_background.io.products import (
    check_pipeline,
    check_replaceable,
    claim,
    compare_record,
    find_change,
    find_siblings,
    move_products,
    record_path,
    write_record,
)

SKIP = "--steps.flat_field.skip=true"
PIPELINE = "soss_background.SkyflatPipeline"
QUALITY = "soss_background.SkyflatQualityStep"


@pytest.fixture(scope="module")
def skyflat(tmp_path_factory):
    """Save a skyflat of three exposures; return its file."""
    model = make_skyflat(window=SUBSTRIP96)
    sky = model.meta.skyflat
    sky.year, sky.obs_group, sky.software_version = 2023, 0, "1.0"
    model.meta.observation.observation_number = "001"
    sky.members = [{"name": name, "size": 5} for name in ("a.fits", "b.fits")]
    run = {"command": f"strun {PIPELINE} asn.json", "parameters": {"n_sigma": 5.0, "exclude": None}}
    # A later step on the product does not change the record of the pipeline.
    later = {"command": f"strun {QUALITY} a_skyflat.fits", "parameters": {"fail_on_qc": False}}
    sky.runs.append(run)
    sky.runs.append(later)
    path = tmp_path_factory.mktemp("products") / "a_skyflat.fits"
    model.save(path)
    return path


def identity(**others):
    known = {"PROGRAM": "04479", "TARGPROP": "SKY", "OBSERVTN": "001", "FILTER": "CLEAR"}
    return known | {"YEAR": 2023, "OBSGROUP": 0} | others


def test_an_older_version_may_be_replaced(skyflat, tmp_path):
    check_replaceable(skyflat, identity())
    check_replaceable(tmp_path / "none.fits", identity())
    (tmp_path / "empty.fits").touch()
    check_replaceable(tmp_path / "empty.fits", identity())


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PROGRAM", "06658"),
        ("TARGPROP", "B"),
        ("OBSERVTN", "2"),
        ("FILTER", "F277W"),
        ("YEAR", 2024),
        ("OBSGROUP", 1),
    ],
)
def test_another_sky_may_not_be_replaced(skyflat, keyword, value):
    with pytest.raises(SkyflatError, match="exists with") as caught:
        check_replaceable(skyflat, identity(**{keyword: value}))
    message = str(caught.value)
    assert message.startswith(str(skyflat))
    assert f"{keyword} {value}" in message
    assert message.endswith("give --output_file or --output_dir, or move it")
    assert "\n" not in message


def test_a_file_that_is_no_skyflat_may_not_be_replaced(tmp_path):
    (exposure,) = write_small_exposures(tmp_path, 1)
    (tmp_path / "notes.fits").write_text("notes")
    for path in (exposure, tmp_path / "notes.fits"):
        with pytest.raises(SkyflatError, match=f"{path.name} exists and is not a skyflat"):
            check_replaceable(path, identity())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"version": "2.0"}, "created by version 1.0"),
        ({"members": {"a.fits": 5}}, "other exposures (b.fits)"),
        ({"members": {"a.fits": 5, "b.fits": 6}}, "other exposures (b.fits)"),
        (
            {"members": dict.fromkeys(map(str, range(9)), 5)},
            "other exposures (0, 1, 2, and 8 more)",
        ),
        ({"parameters": {"n_sigma": 6.0}}, "other parameters (n_sigma)"),
        ({"parameters": {"n_sigma": 5.0, "grow": 2}}, "other parameters (grow)"),
    ],
)
def test_what_is_up_to_date(skyflat, change, reason):
    settings = {
        "members": {"a.fits": 5, "b.fits": 5},
        "parameters": {"n_sigma": 5.0},
        "version": "1.0",
    } | change
    members = [{"name": name, "size": size} for name, size in settings.pop("members").items()]
    assert find_change(skyflat, members, **settings) == reason


def make_record(*sizes, **changes):
    """Return the record of a run on exposures of one name in several folders."""
    members = [{"name": "a.fits", "size": size} for size in sizes]
    return {"version": "1.0", "members": members, "parameters": {"grow": 2}} | changes


def test_what_records_say(tmp_path):
    """A run is compared with the record of the earlier one."""
    path = record_path(tmp_path, "a", "SossStarePipeline")
    (tmp_path / "a.fits").touch()
    assert compare_record(path, make_record(5, 6), ["b.fits"]) == "no product yet"
    incomplete = {"pipeline": "SossStarePipeline", "products": ["a.fits"]}
    for content in (None, [], incomplete):
        if content is not None:
            write_record(path, content)
        assert compare_record(path, make_record(5, 6), ["a.fits"]) == "no record of a complete run"
    write_record(path, incomplete | make_record(5, 6))
    for record, change in (
        (make_record(6, 5), ""),
        (make_record(5), "other exposures (a.fits)"),
        (make_record(6), "other exposures (a.fits)"),
        (make_record(5, 7), "other exposures (a.fits)"),
        (make_record(5, 6, version="2.0"), "created by version 1.0"),
        (make_record(5, 6, parameters={}), "other parameters (grow)"),
    ):
        assert compare_record(path, record, ["a.fits"]) == change


def test_products_of_different_pipelines_in_one_folder(tmp_path):
    """An exposure has products of one pipeline."""
    path = record_path(tmp_path, "a_rateints", "SkyflatSpec2Pipeline")
    assert path.name == "a_rateints_SkyflatSpec2Pipeline_batch.json"
    products = ["a_calints.fits", "a_x1dints.fits"]
    write_record(path, {"pipeline": "SkyflatSpec2Pipeline", "products": products})
    (tmp_path / "notes_batch.json").write_text("[]")
    check_pipeline(tmp_path, "SkyflatSpec2Pipeline", ["a_calints.fits"])
    check_pipeline(tmp_path, "SossStarePipeline", ["b_x1dints.fits"])
    message = "a_calints.fits is a product of SkyflatSpec2Pipeline: give each pipeline its output"
    with pytest.raises(SkyflatError, match=message):
        check_pipeline(tmp_path, "SossStarePipeline", ["a_x1dints.fits"])


def test_a_product_that_is_not_there_or_empty(tmp_path):
    assert find_change(tmp_path / "a.fits", [], {}, "") == "no product yet"
    (tmp_path / "a.fits").touch()
    assert find_change(tmp_path / "a.fits", [], {}, "") == "the product is empty"


def test_files_move_unless_they_would_replace_others(skyflat, tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    (new / ".hidden").touch()
    (new / "table.ecsv").touch()
    (old / "a_rate.fits").write_text("an exposure")
    for name, message in (("a_skyflat.fits", "exists with"), ("a_rate.fits", "is an input")):
        shutil.copy(skyflat, new / name)
        shutil.copy(skyflat, old / "a_skyflat.fits")
        edit_file(old / "a_skyflat.fits", set_another_program)
        before = checksums([old / name])
        with protect_inputs(), pytest.raises(SkyflatError, match=f"{name}.* {message}"):
            note_inputs(old / "a_rate.fits")
            move_products(new, old)
        assert checksums([old / name]) == before
        assert (old / "table.ecsv").exists()
        (new / name).unlink()
    assert [path.name for path in new.iterdir()] == [".hidden"]


def test_results_of_an_exposure_move_onto_older_ones_alone(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    mine, other = write_small_exposures(new, 2)
    edit_file(other, set_another_date)
    shutil.copy(mine, old)
    (old / other.name).write_text("mine")
    version = checksums([mine])
    for content in ("text", "another exposure"):
        with pytest.raises(SkyflatError, match=f"{other.name} exists and is not of the same"):
            move_products(new, old)
        assert checksums([old / mine.name]) == version, content
        assert [path.name for path in new.iterdir()] == [other.name]
        shutil.copy(old / mine.name, old / other.name)
    assert checksums([old / other.name]) == version
    shutil.copy(other, old)
    move_products(new, old)
    assert not list(new.iterdir())


def test_names_are_announced_before_files_move(tmp_path):
    """The names of those that may move; a foreign file stays foreign."""
    new, old, announced = tmp_path / "new", tmp_path / "old", []
    new.mkdir()
    old.mkdir()
    for name in ("a.html", "b.html", "c.html"):
        (new / name).write_text("new")
    for name in ("b.html", "c.html"):
        (old / name).write_text("old")

    def announce(names):
        assert len(list(new.iterdir())) == 3
        announced.extend(names)

    with pytest.raises(SkyflatError, match="c.html exists and is not of the same exposure"):
        move_products(new, old, ["b.html"], announce)
    assert announced == ["a.html", "b.html"]
    contents = [path.read_text() for path in sorted(old.iterdir())]
    assert contents == ["new", "new", "old"]


def set_another_date(model):
    """Change the date of an exposure."""
    model.meta.observation.date_beg = "2024-02-03T00:00:00"


def set_another_program(model):
    """Change the program of a sky."""
    model.meta.observation.program_number = "06658"


def test_one_process_at_a_time_makes_a_product(tmp_path):
    busy = []

    def make(_):
        with claim(tmp_path / "a.fits"):
            busy.append(1)
            time.sleep(0.005)
            assert busy == [1]
            busy.clear()

    with ThreadPoolExecutor(8) as pool:
        with claim(tmp_path / "a.fits"):
            results = pool.map(make, range(16))
            time.sleep(0.05)
            assert not busy
        list(results)
    assert not list(tmp_path.iterdir())


def test_siblings(skyflat, tmp_path):
    for name in ("a_skyflat.fits", "b_skyflat.fits"):
        shutil.copy(skyflat, tmp_path / name)
    (tmp_path / "c_skyflat.fits").touch()
    found = find_siblings(tmp_path, [identity(YEAR=2024, OBSGROUP=1)], ["a_skyflat.fits"])
    assert found == [tmp_path / "b_skyflat.fits"]
    assert find_siblings(tmp_path, [identity(TARGPROP="B")], []) == []
    assert find_siblings(tmp_path, [identity(FILTER="F277W")], []) == []


@pytest.fixture
def two_programs(tmp_path):
    """Write exposures of the same sky by two programs."""
    folders = [tmp_path / program for program in ("04479", "06658")]
    for folder in folders:
        folder.mkdir()
    first = write_small_exposures(folders[0])
    second = [folders[1] / path.name.replace("04479", "06658") for path in first]
    for source, path in zip(first, second, strict=True):
        shutil.copy(source, path)
        edit_file(path, set_program)
    return first, second


def set_program(model):
    """Change the program of an exposure."""
    model.meta.observation.program_number = "06658"


def test_each_step_stops_before_it_replaces_another_sky(two_programs, tmp_path, caplog):
    """Skyflats of 4479 and 6658 have the same name, since their pointings agree."""
    first, second = two_programs
    steps = [(PIPELINE, SKIP), ("soss_background.SkyflatCombineStep",)]
    for step, *options in steps:
        strun(step, *first, *options, "--output_dir=out")
    products = sorted((tmp_path / "out").glob("*.fits"))
    before = checksums(products)
    for step, *options in steps:
        caplog.clear()
        with pytest.raises(SkyflatError, match="PROGRAM 04479.*, not PROGRAM 06658"):
            strun(step, *second, *options, "--output_dir=out")
        assert "level" not in caplog.text  # before any work
    assert checksums(products) == before
    assert len(products) == 2


def test_a_step_on_a_skyflat_does_not_replace_another_sky(skyflat, tmp_path):
    other = tmp_path / "sub" / skyflat.name
    other.parent.mkdir()
    shutil.copy(skyflat, other)
    edit_file(other, set_program)
    step = "soss_background.SkyflatQualityStep"
    strun(step, skyflat)
    strun(step, skyflat)  # its own product may be replaced
    with pytest.raises(SkyflatError, match="PROGRAM 04479.*, not PROGRAM 06658"):
        strun(step, other)
    assert fits.getval("a_skyflatquality.fits", "PROGRAM") == "04479"


def test_a_product_records_sequence_year_and_files(tmp_path):
    paths = write_small_exposures(tmp_path)
    SkyflatCombineStep.call(paths, output_file="a.fits")
    header = fits.getheader("a_skyflatcombine.fits")
    assert (header["YEAR"], header["OBSGROUP"]) == (2023, 0)
    with SkyflatModel("a_skyflatcombine.fits") as model:
        members = model.meta.skyflat.instance["members"]
        found = identify(model.to_flat_dict(include_arrays=False))
    assert members == [{"name": path.name, "size": path.stat().st_size} for path in paths]
    assert found == identity(TARGPROP="SKYFLAT-1")


# --- associations ------------------------------------------------------------------------


def write_association(path, members, **product):
    """Write an association of one product."""
    members = [{"expname": str(name), "exptype": "science"} for name in members]
    path.write_text(json.dumps({"products": [{"name": "a", "members": members} | product]}))
    return path


@pytest.mark.parametrize(
    ("product", "message"),
    [
        ({"obs_group": None}, "obs_group None is not a number from 0 to 999"),
        ({"obs_group": [1]}, "obs_group .* is not a number"),
        ({"obs_group": -1}, "obs_group -1 is not a number"),
        ({"obs_group": 1000}, "obs_group 1000 is not a number"),
        ({"obs_group": True}, "obs_group True is not a number"),
        ({"file_name": None}, "None: not a valid product name"),
        ({"file_name": ["a"]}, "not a valid product name"),
        ({"file_name": "../a"}, r"\.\./a: not a valid product name"),
        ({"file_name": ".a"}, r"\.a: not a valid product name"),
        ({"file_name": ""}, "not a valid product name"),
        ({"file_name": "a\0b"}, r"a\\x00b: control characters in the name of a file"),
        ({"file_name": "a\nb"}, r"a\\nb: control characters in the name of a file"),
        ({"file_name": "\ud800"}, "the name of the file is not valid UTF-8"),
        ({"file_name": "x" * 230}, "not a valid product name"),
        ({"file_name": "x" * 256}, "the name is too long"),
    ],
)
def test_faults_of_a_product(product, message, tmp_path):
    paths = write_small_exposures(tmp_path, 1, shape=(16, 32))
    association = write_association(tmp_path / "a_asn.json", paths, **product)
    with pytest.raises(SkyflatError, match=message) as caught:
        SkyflatCombineStep.call(association)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300
    assert sorted(tmp_path.iterdir()) == [association, *paths]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 5000, "the name is too long"),
        ("x/" * 2500, "the name is too long"),
        ("a\0.fits", "control characters in the name of a file"),
        ("loop.fits", "loop.fits: a link to loop.fits, which does not exist"),
        (5, "expname is 5"),
    ],
)
def test_faults_of_a_member(name, message, tmp_path):
    (tmp_path / "loop.fits").symlink_to("loop.fits")
    content = {"products": [{"members": [{"expname": name, "exptype": "science"}]}]}
    association = tmp_path / "a_asn.json"
    association.write_text(json.dumps(content))
    with pytest.raises(SkyflatError, match=message) as caught:
        strun(PIPELINE, association, SKIP)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("step", ["SkyflatPipeline", "SkyflatSubtractStep", "SossStarePipeline"])
def test_associations_are_json(step, tmp_path):
    """Associations are not read as YAML, which takes hours for nested brackets."""
    path = tmp_path / "a_asn.json"
    for text in ("[" * 100_000, "products:\n- name: a\n"):
        path.write_text(text)
        with pytest.raises(SkyflatError, match="a_asn.json: not a valid association"):
            strun(f"soss_background.{step}", path)


def test_a_member_that_is_named_many_times_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("soss_background.io.exposures.read_header", None)
    paths = write_small_exposures(tmp_path, 1, shape=(16, 32))
    association = write_association(tmp_path / "a_asn.json", 5000 * paths)
    with pytest.raises(SkyflatError, match="rate.fits: the same exposure is given 5000 times"):
        SkyflatCombineStep.call(association)


def test_names():
    check_product_name("étoile 1.5 µm")
    check_path("a/b" * 20)
    with pytest.raises(SkyflatError, match="the name is too long"):
        check_path("é" * 128)


def test_several_associations(two_programs, tmp_path):
    first, second = two_programs
    names = ("one", "two")
    associations = [
        write_association(tmp_path / f"{name}_asn.json", paths, file_name=name)
        for name, paths in zip(names, two_programs, strict=True)
    ]
    results = SkyflatPipeline.call(*associations, steps={"flat_field": {"skip": True}})
    assert [each.meta.filename for each in results] == [f"{name}_skyflat.fits" for name in names]
    assert [each.meta.asn.table_name for each in results] == [path.name for path in associations]
    assert [each.meta.observation.program_number for each in results] == ["04479", "06658"]
    with pytest.raises(
        SkyflatError, match="one_asn.json: give associations or exposures, not both"
    ):
        SkyflatPipeline.call(first[0], associations[0])
    with pytest.raises(SkyflatError, match="two products have this name"):
        SkyflatCombineStep.call(associations[0], associations[0])
