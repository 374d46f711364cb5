"""From files to associations, and from these to skyflats."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from astropy.io import fits
from helpers import checksums, edit_file, run_program, strun, write_small_exposures
from jwst.associations import load_asn
from jwst.associations.load_as_asn import LoadAsLevel2Asn
from jwst.datamodels import ModelLibrary
from stdatamodels.jwst import datamodels

from soss_background.associations import make_associations, make_background_associations
from soss_background.cli import main
from soss_background.errors import SkyflatError

NAME = "nis_clear_gr700xd_LON009_LAT-02_DOY320_001_{:03d}_skyflat.fits"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Write four exposures of one visit, six minutes apart."""
    return write_small_exposures(tmp_path_factory.mktemp("originals"), 4)


@pytest.fixture
def files(originals, tmp_path):
    """Copy the exposures to a folder where they may be changed."""
    folder = tmp_path / "data"
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in originals]


def put(path, **values):
    """Change metadata of an exposure; None removes them."""

    def edit(model):
        for name, value in values.items():
            model[f"meta.{name.replace('__', '.')}"] = value

    edit_file(path, edit)


def left_out(caplog):
    """Return the messages about files that were left out, by file name."""
    said = {}
    for record in caplog.records:
        text = record.getMessage()
        if text.startswith("Left out: "):
            assert "\n" not in text
            path, reason = text.removeprefix("Left out: ").split(": ", 1)
            said[Path(path).name] = reason
    return said


def members(path):
    """List the members of an association."""
    return [
        member["expname"] for member in json.loads(Path(path).read_text())["products"][0]["members"]
    ]


def test_an_uninterrupted_visit_is_one_group(files, tmp_path):
    before = checksums(files)
    table = make_associations(reversed(files), tmp_path)
    assert checksums(files) == before
    (row,) = table
    assert [row[name] for name in ("program", "target", "observation", "group", "n")] == [
        *("04479", "SKYFLAT-1", "001", "000", 4)
    ]
    assert (row["first"][:16], row["last"][:16]) == ("2023-11-16T00:00", "2023-11-16T00:18")
    assert (row["lon"], row["lat"]) == pytest.approx((9, -2), abs=0.1)
    assert row["product"] == NAME.format(0)
    assert members(row["association"]) == [f"data/{path.name}" for path in files]
    assert list(tmp_path.glob(".*")) == []


def test_jwst_takes_the_associations(files):
    """Next to the exposures, associations contain no folders, about which jwst warns."""
    (path,) = make_associations(files, files[0].parent)["association"]
    with Path(path).open() as stream:
        association = load_asn(stream)
    assert association["asn_type"] == "skyflat"
    assert association["asn_id"] == "o001"
    library = ModelLibrary(path)
    assert library.exptypes == ["science"] * 4
    with library:
        model = library.borrow(3)
        assert model.meta.filename == files[3].name
        library.shelve(model, 3, modify=False)


@pytest.mark.parametrize("place", ["data", "asn", ".", "asn/../data"])
def test_members_are_found_from_elsewhere(files, tmp_path, monkeypatch, place):
    Path("asn").mkdir()
    names = [Path("asn/../data") / f.name for f in files]
    (path,) = make_associations(names, place)["association"]
    assert ".." not in "".join(members(path))
    path = Path(path).absolute()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    strun("soss_background.SkyflatPipeline", path, "--steps.flat_field.skip=true")
    assert [path.name for path in elsewhere.glob("*.fits")] == [NAME.format(0)]


def test_a_gap_parts_an_observation(files, tmp_path, caplog):
    """The product of each group has the name in the table."""
    for path in files[2:]:
        put(path, observation__date_beg="2023-11-17T00:06:00.001")
    table = make_associations(files, tmp_path)
    assert list(table["group"]) == ["000", "001"]
    assert list(table["product"]) == [NAME.format(0), NAME.format(1)]
    for row in table:
        strun("soss_background.SkyflatPipeline", row["association"], "--steps.flat_field.skip=true")
        assert (tmp_path / row["product"]).is_file()
    assert list(make_associations(files, tmp_path, gap_days=1.1)["n"]) == [4]
    assert not left_out(caplog)


def test_the_pupil_wheel_parts_if_asked(files, tmp_path):
    for path, position in zip(files, (245.70, 245.75, 245.80, 245.72), strict=True):
        put(path, instrument__pupil_position=position)
    assert list(make_associations(files, tmp_path)["n"]) == [4]
    assert list(make_associations(files, tmp_path, by_pwcpos=0.05)["n"]) == [3, 1]


def test_two_targets_in_one_observation(files, tmp_path, caplog):
    put(files[3], target__proposer_name="ANOTHER/SKY 2")
    table = make_associations(files, tmp_path)
    assert list(table["target"]) == ["ANOTHER/SKY 2", "SKYFLAT-1"]
    assert list(table["n"]) == [1, 3]
    assert list(table["group"]) == ["000", "000"]
    assert len({Path(path).name for path in table["association"]}) == 2
    assert all(Path(path).parent == tmp_path for path in table["association"])
    # Both have the same pointing: their skyflats would have the same name.
    assert f"{NAME.format(0)} is the name of 2 products" in caplog.text


def test_product_name(files, tmp_path):
    (row,) = make_associations(files, tmp_path, product_name="sky")
    assert row["product"] == "sky_skyflat.fits"
    strun("soss_background.SkyflatPipeline", row["association"], "--steps.flat_field.skip=true")
    with fits.open(tmp_path / "sky_skyflat.fits") as hdus:
        assert hdus[0].header["FILENAME"] == "sky_skyflat.fits"
    put(files[0], observation__observation_number="002")
    table = make_associations(files, tmp_path, product_name="sky")
    assert list(table["product"]) == ["sky_001_skyflat.fits", "sky_002_skyflat.fits"]
    table = make_associations(files[1:], tmp_path, product_name="other_skyflat.fits")
    assert list(table["product"]) == ["other_skyflat.fits"]
    with pytest.raises(SkyflatError, match="a/b: not a valid product name"):
        make_associations(files, tmp_path, product_name="a/b")


def test_integrations_are_preferred_to_their_mean(files, tmp_path, caplog):
    """The integrations are preferred to their mean, in any order of the files."""
    cube_path = Path(str(files[1]).replace("_rate", "_rateints"))
    with datamodels.open(files[1]) as image, datamodels.CubeModel() as cube:
        cube.update(image)
        for name in ("data", "err", "dq", "var_poisson", "var_rnoise"):
            setattr(cube, name, getattr(image, name)[None])
        cube.save(cube_path)
    twin = tmp_path / "copy_rate.fits"
    shutil.copy(files[2], twin)
    results = set()
    for order in itertools.islice(
        itertools.permutations([*files[:3], cube_path, twin]), 0, None, 7
    ):
        (path,) = make_associations(order, tmp_path)["association"]
        results.add(Path(path).read_text())
    assert len(results) == 1
    assert members(path) == ["data/" + p.name for p in (files[0], cube_path)] + [twin.name]
    said = left_out(caplog)
    assert said[files[1].name] == f"the same exposure as {cube_path}, which is used"
    assert said[files[2].name] == f"the same exposure as {twin}, which is used"
    assert set(said) == {files[1].name, files[2].name}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"instrument__name": "NIRCAM"}, "INSTRUME is NIRCAM, not NIRISS"),
        ({"exposure__type": "NIS_WFSS"}, "EXP_TYPE is NIS_WFSS, not NIS_SOSS"),
        ({"instrument__filter": "F380M"}, "FILTER is F380M, not CLEAR or F277W"),
        ({"instrument__pupil": "CLEARP"}, "PUPIL is CLEARP, not GR700XD"),
        ({"subarray__name": "SUBSTRIP256"}, "SUBARRAY is SUBSTRIP256, not FULL"),
        ({"bunit_data": "DN"}, "BUNIT is DN, not DN/s"),
        ({"observation__program_number": None}, "keyword PROGRAM is missing"),
        ({"observation__observation_number": None}, "keyword OBSERVTN is missing"),
        ({"observation__observation_number": "x"}, "OBSERVTN x is not a number from 0 to 999"),
        ({"target__proposer_name": None}, "keyword TARGPROP is missing"),
        ({"observation__date_beg": None}, "keyword DATE-BEG is missing"),
        ({"observation__date_beg": "today"}, "DATE-BEG is 'today', not a date"),
        ({"pointing__ra_v1": None}, "keyword RA_V1 is missing"),
    ],
)
def test_what_does_not_fit_is_left_out(files, tmp_path, caplog, values, reason):
    put(files[1], **values)
    (row,) = make_associations(files, tmp_path)
    assert row["n"] == 3
    said = left_out(caplog)
    assert list(said) == [files[1].name]
    assert reason in said[files[1].name]


def test_any_one_subarray(files, tmp_path, caplog):
    """Any single subarray is accepted; with exposures of the full detector, others are left out."""
    for path in files[:2]:
        put(path, subarray__name="SUBSTRIP256")
    assert list(make_associations(files[:2], tmp_path)["n"]) == [2]
    assert not left_out(caplog)
    assert list(make_associations(files, tmp_path)["n"]) == [2]
    assert set(left_out(caplog).values()) == {"SUBARRAY is SUBSTRIP256, not FULL"}
    put(files[0], subarray__name="SUBSTRIP96")
    with pytest.raises(SkyflatError, match="SUBSTRIP256 and SUBSTRIP96: give those of one"):
        make_associations(files[:2], tmp_path)


def test_paths_that_are_none(files, tmp_path, caplog):
    loop = tmp_path / "loop_rate.fits"
    loop.symlink_to(loop.name)
    (row,) = make_associations([*files, loop, tmp_path / ("x" * 5000)], tmp_path)
    assert row["n"] == 4
    said = left_out(caplog)
    assert said.pop("loop_rate.fits") == "a link to loop_rate.fits, which does not exist"
    assert list(said.values()) == ["the name is too long"]


def test_the_pupil_wheel_must_be_known_only_if_asked(files, tmp_path, caplog):
    put(files[1], instrument__pupil_position=None)
    assert list(make_associations(files, tmp_path)["n"]) == [4]
    assert list(make_associations(files, tmp_path, by_pwcpos=1)["n"]) == [3]
    assert left_out(caplog) == {files[1].name: "keyword PWCPOS is missing"}


def test_files_that_are_no_exposures(files, tmp_path, caplog):
    truncated = tmp_path / "truncated_rate.fits"
    truncated.write_bytes(files[0].read_bytes()[:20000])
    text = tmp_path / "notes.txt"
    text.write_text("no exposure")
    missing = tmp_path / "missing_rate.fits"
    (row,) = make_associations([*files, truncated, text, missing], tmp_path)
    assert row["n"] == 4
    said = left_out(caplog)
    assert said["missing_rate.fits"] == "no such file"
    assert "truncated" in said["truncated_rate.fits"]
    assert "cannot be read" in said["notes.txt"]
    with pytest.raises(SkyflatError, match=r"no usable exposure \(files: 2\)"):
        make_associations([text, missing], tmp_path)


def test_pixels_are_not_read(files, tmp_path, monkeypatch):
    def refuse(_):
        raise AssertionError("pixels are read")

    monkeypatch.setattr(fits.ImageHDU, "data", property(refuse))
    with pytest.raises(AssertionError, match="pixels"), fits.open(files[0]) as hdus:
        hdus["SCI"].data.sum()
    assert list(make_associations(files, tmp_path)["n"]) == [4]


@pytest.mark.parametrize("name", ["gap_days", "by_pwcpos"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e12])
def test_limits_are_numbers_that_make_sense(files, tmp_path, name, value):
    with pytest.raises(SkyflatError, match=f"{name} is {re.escape(str(value))}, not from 0 to"):
        make_associations(files, tmp_path, **{name: value})


@pytest.mark.parametrize("value", [1.5, True])
def test_values_of_a_wrong_kind(files, tmp_path, caplog, value):
    fits.setval(files[1], "DATE-BEG", value=value)
    (row,) = make_associations(files, tmp_path)
    assert row["n"] == 3
    assert left_out(caplog)[files[1].name] == f"DATE-BEG is {value}, not a date"


def test_what_a_header_says_is_no_path(files, tmp_path):
    put(files[0], observation__program_number="../1")
    table = make_associations(files, tmp_path / "asn")
    assert {Path(path).parent for path in table["association"]} == {tmp_path / "asn"}


def test_any_character_may_be_in_a_path(files, tmp_path):
    folder = tmp_path / "été %20 ü"
    folder.mkdir()
    for path in files:
        path.rename(folder / f"é{path.name}")
    (row,) = make_associations(folder.glob("*.fits"), folder)
    strun("soss_background.SkyflatPipeline", row["association"], "--steps.flat_field.skip=true")
    assert (tmp_path / row["product"]).is_file()


def test_one_file_needs_no_list(files):
    assert list(make_associations(str(files[0]))["n"]) == [1]


def test_associations_of_another_grouping(files, tmp_path, caplog):
    """Associations of an earlier grouping cause a warning: a batch would duplicate skyflats."""
    old = make_associations(files, tmp_path, gap_days=0)["association"][-1]
    assert "different grouping" not in caplog.text
    assert len(make_associations(files, tmp_path)) == 1
    assert f"{old} belongs to a different grouping" in caplog.text


def test_command_line(files, tmp_path):
    """Run the command, which prints the table and omitted files, and then the pipeline."""
    put(files[1], instrument__filter="F380M")
    names = [f"data/{path.name}" for path in files]
    done = run_program("soss-background", "asn", *names, "-o", "asn", home=tmp_path)
    assert done.returncode == 0, done.stderr
    fault = "FILTER is F380M, not CLEAR or F277W"
    assert done.stderr.splitlines() == [f"Left out: {names[1]}: {fault}"]
    header, _, _, row, end = done.stdout.splitlines()
    assert header.split() == ["association", "n", "first", "lon", "lat"]
    name = "jw04479-o001_SKYFLAT-1_000_skyflat_asn.json"
    assert row.split()[:3] == [name, "3", "2023-11-16"]
    assert end == "1 association in asn"
    done = run_program(
        "strun",
        "soss_background.SkyflatPipeline",
        f"asn/{name}",
        "--steps.flat_field.skip=true",
        home=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / NAME.format(0)).is_file()
    assert "path information" not in done.stderr


def test_all_columns_on_the_command_line(files, capsys):
    assert main(["asn", *map(str, files), "-o", "asn", "-v"]) == 0
    header, _, _, row, _ = capsys.readouterr().out.splitlines()
    columns = "program target observation group n first last lon lat product association"
    assert header.split() == columns.split()
    assert row.split()[:5] == ["04479", "SKYFLAT-1", "001", "000", "4"]
    assert row.split()[9:] == [NAME.format(0), "asn/jw04479-o001_SKYFLAT-1_000_skyflat_asn.json"]


def test_command_line_faults(files, tmp_path, capsys):
    assert main(["asn", "nothing.fits"]) == 1
    assert "no usable exposure (files: 1)" in capsys.readouterr().err
    assert main(["asn", str(files[0]), "--gap-days=-1"]) == 1
    assert "gap_days is -1.0, not from 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["asn"])
    (tmp_path / "file").touch()
    assert main(["asn", str(files[0]), "-o", "file"]) == 1
    assert list(tmp_path.glob("*.json")) == []


def test_a_table_lists_files(files, tmp_path, caplog):
    """Paths may be relative to the table, absolute, those of folders, or missing."""
    shutil.copy(files[3], tmp_path)
    rows = [
        (files[0].name, "data"),
        (files[1].name, str(files[1])),
        (files[2].name, f"data/{files[2].name}"),
        (files[3].name, ""),
        ("gone_rate.fits", "data"),
    ]
    lines = ["FILENAME,FILEPATH,PROGRAM", *(f"{name},{path},4479" for name, path in rows)]
    Path("index.csv").write_text("\n".join(lines))
    Path("elsewhere").mkdir()
    (row,) = make_associations(["index.csv"], "elsewhere")
    assert row["n"] == 4
    assert left_out(caplog) == {"gone_rate.fits": "no such file"}
    expected = [*files[:3], tmp_path / files[3].name]
    assert [Path(member) for member in members(row["association"])] == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "no such file"),
        ("names.csv", "NAME,PATH\na,b\n", "column FILENAME is missing"),
        ("odd.csv", "FILENAME,FILEPATH\na,b,c\n", "cannot be read as a table"),
        ("bad.ecsv", "FILENAME\na\n", "cannot be read as a table"),
    ],
)
def test_faults_of_tables(name, text, message):
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(SkyflatError, match=f"{name}: {message}"):
        make_associations([name])


def test_background_of_a_science_exposure(files, tmp_path, caplog):
    science, *background = files
    put(science, subarray__name="SUBSTRIP256")
    (row,) = make_background_associations([science], [*background, science], tmp_path)
    path = Path(row["association"])
    assert path.name == "jw04479001001_03101_00001_nis_spec2_asn.json"
    with path.open() as stream, pytest.warns(UserWarning, match="path information"):
        association = load_asn(stream)
    assert association["asn_type"] == "spec2"
    (product,) = association["products"]
    assert product["name"] == "jw04479001001_03101_00001_nis"
    assert [(m["expname"], m["exptype"]) for m in product["members"]] == [
        (f"data/{science.name}", "science"),
        *((f"data/{p.name}", "background") for p in background),
    ]
    with pytest.warns(UserWarning, match="path information"):
        assert LoadAsLevel2Asn.load(str(path))["products"] == [product]
    assert left_out(caplog) == {science.name: f"the same exposure as {science}, which is used"}


@pytest.mark.parametrize("with_background", [True, False])
def test_segments_are_members_of_one_product(with_background, files, tmp_path, capsys):
    """Segments are in order of time for any order of the files; exposures are separate."""
    other, *background = files
    segments = []
    for number in (2, 1, 3):
        segments.append(other.with_name(f"jw01366001001_04101_00001-seg00{number}_nis_rate.fits"))
        shutil.copy(other, segments[-1])
        fits.setval(segments[-1], "FILENAME", value=segments[-1].name)
        put(
            segments[-1],
            observation__program_number="01366",
            exposure__segment_number=number,
            exposure__segment_total=3,
        )
    names = [str(path) for path in (other, *segments)]
    options = ["--background", *map(str, background)] if with_background else ["--time-series"]
    assert main(["asn", *names, *options, "-o", str(tmp_path / "asn")]) == 0
    paths = sorted((tmp_path / "asn").iterdir())
    assert [path.name for path in paths] == [
        "jw01366001001_04101_00001_nis_spec2_asn.json",
        "jw04479001001_03101_00001_nis_spec2_asn.json",
    ]
    (product,) = json.loads(paths[0].read_text())["products"]
    assert product["name"] == "jw01366001001_04101_00001_nis"
    found = {"science": [], "background": []}
    for member in product["members"]:
        found[member["exptype"]].append(Path(member["expname"]).name)
    assert found["science"] == sorted(path.name for path in segments)
    assert found["background"] == [path.name for path in background if with_background]
    printed = capsys.readouterr().out.splitlines()
    row = dict(zip(printed[0].split(), printed[2].split(), strict=True))
    assert (row["segments"], row["n"]) == ("3", str(len(background) if with_background else 0))


def test_the_background_nearest_in_time(files, tmp_path):
    """Each science exposure gets one sequence, before or after it; others are no members."""
    (early, late, before, after) = files
    dates = ("2023-11-02", "2023-11-20", "2023-11-01", "2023-11-17")
    for path, date, number in zip(files, dates, ("001", "002", "003", "003"), strict=True):
        start = f"{date}T00:00:00.000"
        put(path, observation__date_beg=start, observation__observation_number=number)
    table = make_background_associations([early, late], [before, after], tmp_path / "asn")
    assert list(table["n"]) == [1, 1]
    assert list(table["dt"]) == [1.0, 3.0]
    for row, path in zip(table, (before, after), strict=True):
        (product,) = json.loads(Path(row["association"]).read_text())["products"]
        assert Path(product["members"][-1]["expname"]).name == path.name


def test_a_background_of_another_filter(files, tmp_path, caplog):
    """It belongs to no exposure; a run without any background for an exposure is an error."""
    clear, f277w, *background = files
    put(f277w, instrument__filter="F277W", observation__visit_number="002")
    with pytest.raises(SkyflatError, match=f"{f277w.name}: FILTER is F277W, but CLEAR in the back"):
        make_background_associations([f277w], background, tmp_path / "none")
    table = make_background_associations([clear, f277w], background, tmp_path / "asn")
    assert sorted(table["n"]) == [0, 2]
    assert f"{f277w.name}: FILTER is F277W, but CLEAR in the background: its assoc" in caplog.text


def test_subarrays_of_backgrounds(files, tmp_path):
    science, *background = files
    for path in (science, background[0]):
        put(path, subarray__name="SUBSTRIP256")
    (row,) = make_background_associations([science], background[:1], tmp_path)
    assert row["n"] == 1
    with pytest.raises(SkyflatError, match="SUBARRAY is SUBSTRIP256, but FULL, SUBSTRIP256 in"):
        make_background_associations([science], background, tmp_path)
    put(science, subarray__name="SUBSTRIP96")
    with pytest.raises(SkyflatError, match="SUBARRAY is SUBSTRIP96, but SUBSTRIP256 in"):
        make_background_associations([science], background[:1], tmp_path)
    assert list(make_background_associations([science], background[1:], tmp_path)["n"]) == [2]


def test_backgrounds_are_checked_before_anything_is_written(files, tmp_path):
    good, bad, *background = files
    for path, subarray in ((good, "SUBSTRIP256"), (bad, "SUBSTRIP96")):
        put(path, subarray__name=subarray)
    put(background[0], subarray__name="SUBSTRIP256")
    with pytest.raises(SkyflatError, match="SUBARRAY is SUBSTRIP96"):
        make_background_associations([good, bad], background[:1], tmp_path)
    other = tmp_path / good.name
    shutil.copy(bad, other)
    put(other, observation__exposure_number="00009")
    fits.setval(other, "FILENAME", value="other_rate.fits")
    with pytest.raises(SkyflatError, match="_spec2_asn.json: the association of 2 science"):
        make_background_associations([good, other], background[1:], tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_background_on_the_command_line(files, capsys):
    names = [str(path) for path in files]
    assert main(["asn", names[0], names[1], "--background", *names[2:], "-o", "asn"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [len(line) <= 80 for line in printed] == [True] * 5
    assert printed[-1] == "2 associations in asn"
    assert len(list(Path("asn").glob("*_spec2_asn.json"))) == 2
    assert main(["asn", names[0], "--background", "none.fits"]) == 1
    assert main(["asn", names[0], "--background", names[1], "--gap-days", "1"]) == 1
    assert "--background cannot be combined with --gap-days" in capsys.readouterr().err
