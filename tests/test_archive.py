"""Exposures of an archive: astroquery queries a real server on this machine."""

import functools
import io
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy.table import Table
from astropy.utils.data import conf
from helpers import BIN, run_program, write_small_exposures
from mast_server import TOKEN, ask, run_server

from soss_background.associations import archive
from soss_background.associations.archive import download_exposures, query_archive
from soss_background.cli import main
from soss_background.errors import SkyflatError

NAMES = [f"jw04479001001_03101_{number:05d}" for number in (1, 2, 3)]
FILES = [f"{name}_nis_rateints.fits" for name in NAMES]

SEARCH = "/search/jwst/api/v0.1/search"
PRODUCTS = "/search/jwst/api/v0.1/post_list_products"
COLUMN_LIST = "/search/util/api/v0.1/column_list"


@pytest.fixture
def mast(monkeypatch):
    """Run an archive with three exposures of blank sky; let astroquery use it."""
    rng = np.random.default_rng(1)
    with run_server() as server:
        for name in NAMES:
            server.add(name, b"SIMPLE  =" + rng.bytes(4991))
        monkeypatch.setattr(archive, "_PAUSE", 0.01)
        monkeypatch.setattr(archive, "_LOOK", 0.01)
        monkeypatch.delenv("MAST_API_TOKEN", raising=False)
        with ask(server), conf.set_temp("download_block_size", 500):
            yield server


@pytest.fixture
def table(mast):
    """Find the exposures, and clear the list of requests."""
    table = query_archive()
    mast.requests.clear()
    return table


def received(mast, folder):
    """Return which files are complete."""
    return [(folder / name).read_bytes() == mast.files[name] for name in FILES]


def test_query(mast):
    table = query_archive()
    assert list(table["FILENAME"]) == FILES
    row = table[0]
    expected = {
        "PROGRAM": "04479",
        "TARGPROP": "SKY",
        "OBSERVTN": "001",
        "SUBARRAY": "FULL",
        "FILTER": "CLEAR",
        "PUPIL": "GR700XD",
        "PWCPOS": 245.8,
        "DATE-BEG": "2023-11-16T00:00:00.000000",
        "CATEGORY": "CAL",
        "SET": "calibration",
        "SIZE": 5000,
        "URI": f"JWST/product/{FILES[0]}",
    }
    assert {name: row[name] for name in expected} == expected
    assert mast.requests == [COLUMN_LIST, SEARCH, PRODUCTS]


def test_only_soss_exposures_of_the_full_detector(mast):
    for number, values in enumerate(
        [
            {"instrume": "NIRCAM"},
            {"exp_type": "NIS_TACQ"},
            {"subarray": "SUBSTRIP256"},
            {"filter": "F277W"},
            {"niriss_pupil": "CLEARP"},
            {"program": 1189},
        ]
    ):
        mast.add(f"jw04479009001_03101_{number:05d}", b"x", **values)
    assert list(query_archive()["FILENAME"]) == FILES


def test_programs_sets_and_dates(mast):
    for name, program, category in (
        ("jw01541001001_03101_00001", 1541, "COM"),
        ("jw06658001001_03101_00001", 6658, "CAL"),
        ("jw01092001001_03101_00001", 1092, "COM"),
        ("jw01201001001_03101_00001", 1201, "GTO"),
        ("jw02589001001_03101_00001", 2589, "GO"),
        ("jw02734001001_03101_00001", 2734, None),
    ):
        mast.add(name, b"x", program=program, category=category, date_beg="2022-06-01T12:00:00")
    assert {*query_archive()["PROGRAM"]} == {"01541", "04479", "06658"}
    everything = query_archive(programs=None)
    assert dict(everything.iterrows("PROGRAM", "SET")) == {
        "01541": "calibration",
        "04479": "calibration",
        "06658": "calibration",
        "01092": "validation",
        "01201": "science",
        "02589": "science",
        "02734": "unknown",
    }
    assert list(everything["DATE-BEG"]) == sorted(everything["DATE-BEG"])
    assert {*query_archive(programs=[1092, 1201])["PROGRAM"]} == {"01092", "01201"}
    # The first limit is inclusive, the second exclusive.
    dates = {"after": datetime(2022, 6, 1, 12), "before": datetime(2023, 11, 16, 2)}
    assert len(query_archive(programs=[1541, 4479], **dates)) == 3


def test_product(mast):
    del mast.files[FILES[2]]
    names = [name.replace("rateints", "rate") for name in FILES]
    assert list(query_archive("rate")["FILENAME"]) == names
    assert list(query_archive("rateints")["FILENAME"]) == FILES[:2]


def test_missing_categories(mast):
    """The category of a program may be missing."""
    del mast.columns["category"]
    mast.add("jw01201001001_03101_00001", b"x", program=1201, niriss_pwcpos=None)
    table = query_archive(programs=[4479, 1201])
    assert list(table["SET"]) == ["calibration"] * 3 + ["unknown"]
    assert list(np.ma.getmaskarray(table["PWCPOS"])) == [False] * 3 + [True]


def test_dates_and_products_that_the_archive_does_not_have(mast):
    mast.exposures[2]["date_beg"] = mast.exposures[3]["date_beg"] = None
    del mast.files[FILES[2]]
    mast.sizes[FILES[0]] = None
    assert list(query_archive()["FILENAME"]) == [FILES[1]]
    with pytest.raises(SkyflatError, match="no exposure fits"):
        query_archive(after=datetime(2023, 11, 16, 0, 30), before=datetime(2023, 11, 16, 1, 30))
    del mast.columns["date_beg"]
    with pytest.raises(SkyflatError, match="column DATE-BEG is missing"):
        query_archive()


def test_nothing_is_found(mast):
    with pytest.raises(SkyflatError, match=f"{mast.url}: no exposure fits"):
        query_archive(programs=[1])
    mast.exposures.clear()
    with pytest.raises(SkyflatError, match="no exposure fits"):
        query_archive()


def test_exposures_that_are_not_public(mast, monkeypatch, caplog):
    mast.private.add(FILES[1])
    assert list(query_archive()["FILENAME"]) == [FILES[0], FILES[2]]
    assert "Left out: files that are not public (1), see --login" in caplog.text
    monkeypatch.setenv("MAST_API_TOKEN", TOKEN)
    assert list(query_archive(login=True)["FILENAME"]) == FILES
    monkeypatch.setenv("MAST_API_TOKEN", "old")
    with pytest.raises(SkyflatError, match="MAST API token invalid.*set MAST_API_TOKEN"):
        query_archive(login=True)


@pytest.mark.parametrize("path", [COLUMN_LIST, SEARCH, PRODUCTS])
@pytest.mark.parametrize("fault", [500, 404, b"<html>", b"{}", b"", "truncated"])
def test_faults_of_the_archive(mast, path, fault):
    mast.faults[path] = [fault] * 3
    with pytest.raises(SkyflatError, match=rf"^{mast.url}: [^\n]+$"):
        query_archive()


@pytest.mark.parametrize("path", [COLUMN_LIST, SEARCH, PRODUCTS])
@pytest.mark.parametrize("fault", [503, 429, "silent"])
def test_an_archive_that_is_busy_is_asked_again(mast, monkeypatch, path, fault):
    monkeypatch.setattr(archive, "_PATIENCE", 0.5)
    mast.faults[path] = [fault]
    assert list(query_archive()["FILENAME"]) == FILES
    assert mast.requests.count(path) == 2


def test_unreachable_archive(mast):
    mast.shutdown()
    mast.server_close()
    with pytest.raises(SkyflatError, match=rf"^{mast.url}: .*Connection refused"):
        query_archive()


def test_an_archive_that_is_lost_is_left_alone(mast, table, tmp_path):
    mast.shutdown()
    mast.server_close()
    results = download_exposures(table, tmp_path)
    assert list(results["STATUS"]) == ["failed"] * 3
    assert "Connection refused" in results["MESSAGE"][1]
    assert results["MESSAGE"][2].startswith("not requested")


def test_faults_of_this_machine(table, tmp_path):
    (tmp_path / f"{FILES[0]}.part").mkdir()
    with pytest.raises(SkyflatError, match=f"{FILES[0]}.part: "):
        download_exposures(table, tmp_path)


def test_download(mast, table, tmp_path):
    results = download_exposures(table, tmp_path / "new" / "folder")
    assert list(results["FILENAME"]) == FILES
    assert list(results["STATUS"]) == ["fetched"] * 3
    assert received(mast, tmp_path / "new" / "folder") == [True] * 3
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 3


def test_good_files_are_kept(mast, table, tmp_path):
    """Files of the right size are kept, a file of a wrong size is replaced."""
    (tmp_path / FILES[0]).write_bytes(mast.files[FILES[0]])
    (tmp_path / FILES[1]).write_bytes(b"too short")
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["kept", "fetched", "fetched"]
    assert received(mast, tmp_path) == [True] * 3
    assert mast.requests == [f"{name} from 0" for name in FILES[1:]]


def test_a_download_goes_on_where_it_was(mast, table, tmp_path):
    (tmp_path / f"{FILES[1]}.part").write_bytes(mast.files[FILES[1]][:3000])
    (tmp_path / f"{FILES[2]}.part").write_bytes(mast.files[FILES[2]])
    download_exposures(table, tmp_path)
    # The first of the two requests gets the size, and is dropped.
    assert mast.requests == [f"{FILES[0]} from 0", f"{FILES[1]} from 0", f"{FILES[1]} from 3000"]
    assert received(mast, tmp_path) == [True] * 3


@pytest.mark.parametrize(
    ("fault", "starts"),
    [("truncated", [0, 2500]), ("cut", [0]), ("slow", []), (503, [0]), (500, [0])],
)
def test_a_failed_download_is_tried_again(mast, table, tmp_path, fault, starts):
    mast.faults[FILES[1]] = [fault]
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["fetched"] * 3
    assert received(mast, tmp_path) == [True] * 3
    assert mast.requests == [
        *(f"{name} from 0" for name in FILES[:2]),
        *(f"{FILES[1]} from {start}" for start in starts),
        f"{FILES[2]} from 0",
    ]
    assert list(tmp_path.glob("*.part")) == []


def test_a_server_that_sends_the_whole_file_again(mast, table, tmp_path):
    """A server that ignores ranges sends the complete file, which is written once."""
    (tmp_path / f"{FILES[0]}.part").write_bytes(mast.files[FILES[0]][:3000])
    mast.faults[FILES[0]] = [None, "whole"]
    mast.faults[FILES[1]] = ["truncated", None, "whole"]
    (tmp_path / f"{FILES[2]}.part").write_bytes(mast.files[FILES[2]][:3000])
    mast.faults[FILES[2]] = ["no ranges"]
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["fetched"] * 3
    assert received(mast, tmp_path) == [True] * 3


def test_a_beginning_that_does_not_fit(mast, table, tmp_path):
    """A partial file is discarded if it is too long, or is not a FITS file."""
    (tmp_path / f"{FILES[0]}.part").write_bytes(mast.files[FILES[0]] + bytes(1000))
    (tmp_path / f"{FILES[1]}.part").write_bytes(mast.files[FILES[1]] + bytes(500))
    (tmp_path / f"{FILES[2]}.part").write_bytes(b"x" * 5000)
    table["SIZE"][1] = 6000
    results = download_exposures(table, tmp_path)
    assert list(results["STATUS"]) == ["fetched", "failed", "fetched"]
    for name in FILES[::2]:
        assert (tmp_path / name).read_bytes() == mast.files[name]


def test_a_beginning_of_an_older_file(mast, table, tmp_path):
    """A partial file of an older version of the same size is discarded, not continued."""
    mast.faults[FILES[1]] = ["truncated"] * 6
    download_exposures(table, tmp_path)
    assert (tmp_path / f"{FILES[1]}.part").stat().st_size > 0
    mast.files[FILES[1]] = mast.files[FILES[1]][::-1]
    mast.changed[FILES[1]] = datetime.now(UTC) + timedelta(seconds=2)
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["kept", "fetched", "kept"]
    assert received(mast, tmp_path) == [True] * 3


def test_another_part_than_was_asked_for(mast, table, tmp_path):
    (tmp_path / f"{FILES[0]}.part").write_bytes(mast.files[FILES[0]][:2500])
    mast.faults[FILES[0]] = [None, "another part"]
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["fetched"] * 3
    assert received(mast, tmp_path) == [True] * 3


def test_a_truncated_file_instead_of_the_rest(mast, table, tmp_path):
    """A truncated file is refused even if the sizes add up."""
    (tmp_path / f"{FILES[0]}.part").write_bytes(mast.files[FILES[0]][:2500])
    mast.faults[FILES[0]] = [None, "truncated whole"]
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["fetched"] * 3
    assert received(mast, tmp_path) == [True] * 3


@pytest.mark.parametrize("seed", range(8))
def test_no_faults_in_a_row_give_a_wrong_file(mast, table, tmp_path, seed):
    """After each fault a file is right or missing, and in the end it is right."""
    faults = [None, "truncated", "cut", "whole", "truncated whole", "truncated page", "no ranges"]
    faults += ["another part", 500, 412, b"<html>login</html>"]
    rng = np.random.default_rng(seed)
    for number in (2, 4, 6):
        for name in FILES:
            mast.faults[name] = [faults[index] for index in rng.integers(len(faults), size=number)]
        statuses = download_exposures(table, tmp_path)["STATUS"]
        for name, status in zip(FILES, statuses, strict=True):
            assert (tmp_path / name).exists() == (status != "failed")
            if status != "failed":
                assert (tmp_path / name).read_bytes() == mast.files[name]
        mast.faults.clear()
        again = FILES[rng.integers(3)]
        (tmp_path / again).unlink(missing_ok=True)
    download_exposures(table, tmp_path)
    assert received(mast, tmp_path) == [True] * 3


def test_a_page_that_excuses_the_server_costs_nothing(mast, table, tmp_path):
    (tmp_path / f"{FILES[0]}.part").write_bytes(mast.files[FILES[0]][:4900])
    mast.faults[FILES[0]] = [b"<html>down for maintenance</html>"]
    download_exposures(table, tmp_path)
    assert mast.requests[1:3] == [f"{FILES[0]} from 0", f"{FILES[0]} from 4900"]
    assert received(mast, tmp_path) == [True] * 3


def test_progress(mast, table, tmp_path, monkeypatch):
    """The bar reaches its end, whether files existed, were interrupted, or failed."""
    bars = []

    class Bar(archive.tqdm):
        def __init__(self, **settings):
            super().__init__(**settings | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(archive, "tqdm", Bar)
    (tmp_path / FILES[0]).write_bytes(mast.files[FILES[0]])
    mast.faults[FILES[1]] = ["truncated", "whole"]
    mast.faults[FILES[2]] = [500] * 9
    download_exposures(table, tmp_path)
    assert (bars[0].n, bars[0].total) == (15000, 15000)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("SIZE", "many", f"{FILES[1]}: SIZE is many, which is not a number"),
        ("SIZE", 0, f"a file '{FILES[1]}' of 0 bytes"),
        ("FILENAME", "", "a file '' of 5000 bytes"),
    ],
)
def test_rows_that_make_no_sense(mast, table, tmp_path, column, value, message):
    table[column] = [table[column][0], value, table[column][2]]
    with pytest.raises(SkyflatError, match=message):
        download_exposures(table, tmp_path)
    assert mast.requests == []


@pytest.mark.parametrize(
    ("faults", "message", "requests"),
    [
        ([500] * 9, "500 Server Error", 3),
        ([b"<html>login</html>"] * 9, "the download is not a file of 5000 bytes", 3),
        (["silent"] * 9, "Read timed out", 3),
        ([404] * 9, "404 Client Error", 1),
        ([403] * 9, "not public, or not for the owner", 1),
    ],
)
def test_a_download_that_fails_for_good(
    mast, table, tmp_path, monkeypatch, faults, message, requests
):
    """A failure is reported and does not stop other downloads."""
    monkeypatch.setattr(archive, "_PATIENCE", 0.3)
    mast.faults[FILES[1]] = faults
    results = download_exposures(table, tmp_path)
    assert list(results["STATUS"]) == ["fetched", "failed", "fetched"]
    assert message in results["MESSAGE"][1]
    assert "\n" not in results["MESSAGE"][1]
    assert len([line for line in mast.requests if line.startswith(FILES[1])]) == requests
    assert not (tmp_path / FILES[1]).exists()
    # A later run succeeds.
    mast.faults.clear()
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["kept", "fetched", "kept"]
    assert received(mast, tmp_path) == [True] * 3


def test_download_of_what_is_not_public(mast, table, tmp_path, monkeypatch):
    mast.private.add(FILES[0])
    assert list(download_exposures(table, tmp_path)["STATUS"]) == ["failed", "fetched", "fetched"]
    monkeypatch.setenv("MAST_API_TOKEN", TOKEN)
    assert list(download_exposures(table, tmp_path, login=True)["STATUS"])[0] == "fetched"


def test_nothing_is_written_outside(mast, table, tmp_path):
    table["FILENAME"] = [f"../{name}" for name in table["FILENAME"]]
    download_exposures(table, tmp_path / "inside")
    assert received(mast, tmp_path / "inside") == [True] * 3


def test_download_needs_a_table_of_the_archive(tmp_path):
    with pytest.raises(SkyflatError, match="column SIZE is missing"):
        download_exposures(Table({"FILENAME": FILES}), tmp_path)


def configure(home, server):
    """Configure the archive of astroquery for other processes."""
    folder = home / ".astropy" / "config"
    folder.mkdir(parents=True)
    (folder / "astroquery.cfg").write_text(f"[mast]\nserver = {server.url}\n")


def test_from_archive_to_association(mast, tmp_path):
    """Run the commands as users do, in new processes."""
    for path in write_small_exposures(tmp_path, 3):
        mast.files[path.name] = path.read_bytes()
        path.unlink()
    configure(tmp_path, mast)

    def run(*arguments):
        done = run_program("soss-background", *arguments, home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    printed = run("query", "--product", "rate", "--after", "2023-01-01", "-o", "sky.ecsv")
    assert printed.splitlines()[2].split()[:5] == ["04479", "SKY", "001", "calibration", "3"]
    assert "3 files of 0.0 GB, see sky.ecsv" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "3 fetched" in run("download", "sky.ecsv", "-o", "data")
    assert "3 kept" in run("download", "sky.ecsv", "-o", "data")
    printed = run("asn", "data/sky.ecsv", "-v")
    assert "nis_clear_gr700xd_LON009_LAT-02_DOY320_001_000_skyflat.fits" in printed
    assert len(list(tmp_path.glob("*_asn.json"))) == 1


def test_failed_downloads_are_reported(mast, table, capsys):
    table.write("sky.ecsv")
    mast.faults[FILES[1]] = [500] * 9
    assert main(["download", "sky.ecsv", "-o", "data"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{FILES[1]}: 500 Server Error")
    assert "2 fetched, 1 failed" in captured.out


def test_an_interrupted_download_goes_on(mast, table, tmp_path):
    content = b"SIMPLE  =" + np.random.default_rng(2).bytes(200_000)
    mast.files[FILES[0]] = content
    table["SIZE"][0] = len(content)
    table.write(tmp_path / "sky.ecsv")
    configure(tmp_path, mast)
    mast.faults[FILES[0]] = ["slow"]
    command = [BIN / "soss-background", "download", "sky.ecsv"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    # A background shell may have set interrupts to be ignored, which child processes inherit.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, preexec_fn=listen)
    partial = tmp_path / f"{FILES[0]}.part"
    limit = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert 0 < partial.stat().st_size < len(content)
    download_exposures(table, tmp_path)
    assert received(mast, tmp_path) == [True] * 3
    size = int(mast.requests[-3].removeprefix(f"{FILES[0]} from "))
    assert 0 < size < len(content)


def test_index(tmp_path, capsys):
    """An index of files instead of the archive, filtered by the same options."""
    header = "FILENAME,FILEPATH,PROGRAM,TARGPROP,OBSERVTN,SUBARRAY,FILTER,PWCPOS,DATE-BEG,CATEGORY"
    lines = [
        f"{FILES[1]},data,4479,SKY,1,FULL,CLEAR,245.8,2023-11-16T01:00:00,CAL",
        f"{FILES[0]},data,4479,SKY,1,FULL,CLEAR,245.8,2023-11-16T00:00:00,CAL",
        f"{FILES[2].replace('rateints', 'rate')},data,4479,S,1,FULL,CLEAR,,2023-11-16,CAL",
        "other_1_rateints.fits,/far,1092,S,1,FULL,CLEAR,245.8,2022-06-01T00:00:00,COM",
        "other_2_rateints.fits,/far,1541,S,1,SUBSTRIP256,CLEAR,245.8,2022-06-02T00:00:00,COM",
        "other_3_rateints.fits,/far,1541,S,1,FULL,F277W,245.8,2022-06-02T00:00:00,COM",
    ]
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "soss.csv").write_text("\n".join([header, *lines]))
    query = ["query", "--index", "index/soss.csv"]
    assert main([*query, "-o", "blank.ecsv"]) == 0
    table = Table.read("blank.ecsv")
    assert list(table["FILENAME"]) == FILES[:2]
    assert list(table["FILEPATH"]) == [str(tmp_path / "index/data" / name) for name in FILES[:2]]
    assert list(table["SET"]) == ["calibration"] * 2
    assert "2 files, see blank.ecsv" in capsys.readouterr().out
    assert main([*query, "--all", "--before", "2023-01-01"]) == 0
    assert list(Table.read("exposures.ecsv")["SET"]) == ["validation"]
    assert main([*query, "--product", "rate"]) == 0
    assert len(Table.read("exposures.ecsv")) == 1
    assert main([*query, "--programs", "1541"]) == 1
    assert "none of its 6 files is a _rateints file that fits" in capsys.readouterr().err
    assert main(["download", "blank.ecsv"]) == 1
    assert "column SIZE is missing" in capsys.readouterr().err
    rows = [f"{header}\r", *lines, lines[0]]
    (tmp_path / "excel.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    assert main(["query", "--index", "excel.csv"]) == 0
    assert "2 files, see" in capsys.readouterr().out
    (tmp_path / "odd.csv").write_text(f"{header}\n,,inf,,,,,,,\n1,,x,,,FULL,CLEAR,,,\n")
    assert main(["query", "--index", "odd.csv", "--after", "2022-01-01"]) == 1
    assert "none of its 2 files" in capsys.readouterr().err
    (tmp_path / "empty.csv").write_text(f"{header}\n")
    assert main(["query", "--index", "empty.csv", "--after", "2022-01-01"]) == 1
    assert "none of its 0 files" in capsys.readouterr().err
    for arguments, message in (
        (["-o", "a.csv"], "end in .ecsv"),
        (["--after", "x"], "is not a date"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*query, *arguments])
        assert message in capsys.readouterr().err
    (tmp_path / "short.csv").write_text("FILENAME,PROGRAM\na,1\n")
    assert main(["query", "--index", "short.csv"]) == 1
    assert "short.csv: column SUBARRAY is missing" in capsys.readouterr().err


def test_without_astroquery(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "soss_background.associations.archive", None)
    assert main(["query"]) == 1
    assert 'pip install "soss_background[archive]"' in capsys.readouterr().err
