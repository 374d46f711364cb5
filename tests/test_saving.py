"""A run never writes to its inputs, and its products are complete or absent."""

import errno
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers import checksums, make_skyflat, strun, write_small_exposures
from stdatamodels.jwst import datamodels

from soss_background import (
    SkyflatCombineStep,
    SkyflatDenoiseStep,
    SkyflatModel,
    SkyflatPipeline,
    SkyflatQualityStep,
)
from soss_background.associations import archive
from soss_background.cli import asn, compare, fluxcal, main, query, reference, report, simulate
from soss_background.datamodels.header_text import ascii_headers, to_ascii
from soss_background.detector import Window
from soss_background.errors import SkyflatError
from soss_background.extract import optimal_extract_step
from soss_background.io import files
from soss_background.io.signals import StoppedError
from soss_background.io.store import StoredArray
from soss_background.quality import skyflat_quality_step
from soss_background.reference import write_reference
from soss_background.simulate import Simulation
from soss_background.simulate.exposures import write_flat

SMALL = Window("FULL", 1900, 600, 64, 96)


def hidden(folder):
    """List hidden files of a folder."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def nothing_runs(monkeypatch):
    """Let all steps fail when they begin to work."""
    for kind in ("Pipeline", "MaskStep", "CombineStep", "DenoiseStep", "SubtractStep"):
        monkeypatch.setattr(f"soss_background.Skyflat{kind}.process", lambda *_: pytest.fail())


# Commands whose output is the file keep_skyflat.fits, which they also read.
READ_AND_WRITTEN = [
    "SubtractStep in.fits --skyflat=keep_skyflat.fits --output_file=keep.fits --suffix=skyflat",
    "SubtractStep in.fits --skyflat=k*.fits --output_file=keep.fits --suffix=skyflat",
    "SubtractStep in.fits --override_flat=keep_skyflat.fits --output_file=keep --suffix=skyflat",
    "SubtractStep in.fits --skyflat=link.fits --output_file=keep.fits --suffix=skyflat",
    "SubtractStep in.fits --skyflat=hard.fits --output_file=keep.fits --suffix=skyflat",
    "Pipeline in.fits --steps.skyflat_combine.bad_pixels=keep_skyflat.fits --output_file=keep.fits",
    "Pipeline in.fits --steps.skyflat_quality.ranges=keep_skyflat.fits --output_file=keep.fits",
    "Pipeline in.fits --steps.flat_field.override_flat=keep_skyflat.fits --output_file=keep.fits",
    "Pipeline in.fits --steps.flat_field.user_supplied_flat=hard.fits --output_file=keep.fits",
    "DenoiseStep keep_skyflat.fits --output_file=keep.fits --suffix=skyflat",
    "MaskStep in.fits keep_skyflat.fits --output_file=keep.fits --suffix=skyflat",
    "Pipeline keep_skyflatmask.fits --steps.skyflat_mask.output_file=keep",
]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("command", READ_AND_WRITTEN)
def test_no_step_writes_to_what_it_reads(command, tmp_path):
    kept = tmp_path / "keep_skyflat.fits"
    kept.write_text("kept")
    (tmp_path / "keep_skyflatmask.fits").hardlink_to(kept)
    (tmp_path / "link.fits").symlink_to(kept)
    (tmp_path / "hard.fits").hardlink_to(kept)
    (tmp_path / "in.fits").touch()
    with pytest.raises(SkyflatError, match=r"^keep_skyflat\S*.fits is an input: give another"):
        strun(*f"soss_background.Skyflat{command}".split())
    assert kept.read_text() == "kept"


def test_no_step_writes_to_its_parameter_file(tmp_path):
    SkyflatDenoiseStep().export_config("keep_skyflatdenoise.asdf")
    (tmp_path / "in.fits").touch()
    before = checksums(["keep_skyflatdenoise.asdf"])
    with pytest.raises(SkyflatError, match=r"keep_skyflatdenoise.asdf is an input"):
        strun("keep_skyflatdenoise.asdf", "in.fits", "--output_file=keep", "--output_ext=asdf")
    assert checksums(["keep_skyflatdenoise.asdf"]) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in.fits", "in.fits exists and is not a parameter file: give another name"),
        ("in.asdf", "in.asdf exists and is not a parameter file"),
        ("notes.txt", "notes.txt exists and is not a parameter file"),
        ("pars.asdf", "pars.asdf is an input"),
        ("folder", "folder: a folder has this name"),
        ("notes.txt/pars.asdf", "notes.txt: not a folder"),
    ],
)
def test_parameters_replace_older_parameters_alone(name, message, tmp_path, caplog):
    SkyflatDenoiseStep().export_config("pars.asdf")
    SkyflatModel(bkg=np.ones((4, 4), "f4")).save("in.fits")
    SkyflatModel(bkg=np.ones((4, 4), "f4")).save("in.asdf")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder").mkdir()
    files = [path for path in sorted(tmp_path.iterdir()) if path.is_file()]
    before = checksums(files)
    with pytest.raises(SkyflatError, match=message):
        strun("pars.asdf", "in.fits", f"--save-parameters={name}")
    assert message in [each.message for each in caplog.records if each.levelname == "ERROR"][0]
    assert checksums(files) == before
    SkyflatDenoiseStep().export_config("other.asdf")
    (tmp_path / "empty.asdf").touch()
    for known in ("other.asdf", "empty.asdf"):
        SkyflatDenoiseStep(skip=True).export_config(known)
        assert SkyflatDenoiseStep.from_config_file(known).skip


# Subcommands whose output is the file keep, which they also read.
SUBCOMMANDS = {
    "query --index {keep} -o {keep}": query,
    "query --index {link} -o {keep}": query,
    "reference {keep} -o {keep}": reference,
    "reference x.fits --flat {keep} -o {keep}": reference,
    "compare {keep} truth.fits -o {link}": compare,
    "compare skyflat.fits {keep} -o {keep}": compare,
    "report {keep} -o {keep}": report,
    "fluxcal total {keep} --psf . -o {keep}": fluxcal,
    "fluxcal mean a.ecsv {keep} --plot {keep}": fluxcal,
}
EXTENSIONS = {query: "ecsv", reference: "fits", compare: "png", report: "html", fluxcal: "ecsv"}


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_no_subcommand_writes_to_what_it_reads(command, tmp_path, capsys):
    extension = "png" if "--plot" in command else EXTENSIONS[SUBCOMMANDS[command]]
    keep, link = tmp_path / f"keep.{extension}", tmp_path / f"link.{extension}"
    keep.write_text("kept")
    link.symlink_to(keep)
    assert main(command.format(keep=keep, link=link).split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is an input: give another name or another folder" in line
    assert keep.read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_download_does_not_replace_its_table(tmp_path, monkeypatch, capsys):
    Table({"FILENAME": ["keep.ecsv"], "SIZE": [1], "URI": ["mast:keep"]}).write("keep.ecsv")
    monkeypatch.setattr(archive, "_Archive", lambda _: None)
    before = checksums(["keep.ecsv"])
    assert main(["download", "keep.ecsv"]) == 1
    assert "keep.ecsv is an input" in capsys.readouterr().err
    assert checksums(["keep.ecsv"]) == before
    assert [path.name for path in tmp_path.iterdir()] == ["keep.ecsv"]


def test_what_is_opened_on_the_way_is_an_input(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("1")
    with files.protect_inputs():
        with files.explain_fault(path):
            pass
        with files.protect_inputs(), pytest.raises(SkyflatError, match="is an input"):
            files.save_whole(lambda partial: partial.write_text("2"), path)
    assert path.read_text() == "1"
    files.save_whole(lambda partial: partial.write_text("2"), path)  # another run
    assert path.read_text() == "2"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("José Müller", "Jose Muller"),
        ("My Data/visité 1/flat.fits", "My Data/visite 1/flat.fits"),
        ("two\nlines \u2014", "two lines "),
        ("Ж", "?"),
        ("", ""),
    ],
)
def test_transliteration(text, plain):
    assert to_ascii(text) == plain


def test_header_strings_of_all_kinds(tmp_path):
    model = datamodels.MultiSpecModel()
    model.meta.target.catalog_name = "Åse"
    model.spec.append(datamodels.SpecModel().instance)
    model.spec[0].name = "étoile"
    model.meta.notes = "naïve"
    model.extra_fits = {"PRIMARY": {"header": [["OBSERVER", "Zoë", "his naïveté"]]}}
    model.add_history_entry("façade")
    files.save_datamodel(model, tmp_path / "tést.fits")
    header = fits.getheader(tmp_path / "tést.fits")
    assert (header["TARGNAME"], header["FILENAME"]) == ("Ase", "test.fits")
    assert (header["OBSERVER"], header.comments["OBSERVER"]) == ("Zoe", "his naivete")
    assert "facade" in str(header["HISTORY"])
    with datamodels.open(tmp_path / "tést.fits") as saved:
        assert saved.meta.notes == "naïve"
    assert fits.getval(tmp_path / "tést.fits", "SLTNAME", "EXTRACT1D") == "etoile"
    assert (model.meta.target.catalog_name, model.spec[0].name) == ("Åse", "étoile")
    files.save_datamodel(model, tmp_path / "tést.asdf")
    with datamodels.open(tmp_path / "tést.asdf") as saved:
        assert saved.meta.target.catalog_name == "Åse"


def test_an_interrupted_save_restores_the_strings():
    model = SkyflatModel()
    model.meta.author = "Åse"
    with pytest.raises(OSError, match="full"), ascii_headers(model):
        assert model.meta.author == "Ase"
        raise OSError("full")
    assert model.meta.author == "Åse"


def test_a_run_with_names_that_no_header_holds(tmp_path):
    folder = tmp_path / "My Data" / "visité 1"
    folder.mkdir(parents=True)
    exposures = write_small_exposures(folder)
    exposures[1] = exposures[1].rename(folder / "été_rate.fits")
    flat = write_flat(
        folder / "plat_é.fits",
        np.ones(SMALL.shape, np.float32),
        np.zeros(SMALL.shape, np.uint32),
        Simulation(window=SMALL),
    )
    steps = {
        "skyflat_combine": {"author": "José Müller"},
        "flat_field": {"override_flat": str(flat)},
    }
    result = SkyflatPipeline.call(exposures, steps=steps, output_file="résultat.fits")
    with SkyflatModel("résultat_skyflat.fits") as skyflat:
        assert skyflat.meta.author == "Jose Muller"
        assert skyflat.meta.ref_file.flat.name.endswith("My Data/visite 1/plat_e.fits")
        assert skyflat.metadata["filename"][1] == "ete_rate.fits"
        parameters = skyflat.meta.skyflat.runs.instance[0]["parameters"]
        assert parameters["steps.skyflat_combine.author"] == "José Müller"
    assert result.meta.author == "José Müller"


def test_tables_and_references_with_names_that_no_header_holds(tmp_path):
    table = Table({"flux": [1.0]}, meta={"TARGNAME": "Étoile", "HISTORY": ["e"]})
    optimal_extract_step._write_fits(table, tmp_path / "table.fits")
    assert fits.getheader(tmp_path / "table.fits", 1)["TARGNAME"] == "Etoile"
    model = datamodels.SossBkgModel()
    model.meta.author = "Loïc"
    write_reference(model, tmp_path / "reference.fits")
    assert fits.getval(tmp_path / "reference.fits", "AUTHOR") == "Loic"


@pytest.fixture
def skyflat(tmp_path):
    """Save a small skyflat; return its path."""
    folder = tmp_path / "in"
    folder.mkdir()
    make_skyflat(window=SMALL).save(folder / "a_skyflat.fits")
    return folder / "a_skyflat.fits"


def test_full_disk(skyflat, tmp_path, monkeypatch, caplog):
    def write(_, path, **__):
        files.Path(path).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    product = tmp_path / "a_skyflatquality.fits"
    strun("soss_background.SkyflatQualityStep", skyflat)
    before = checksums([product])
    monkeypatch.setattr(fits.HDUList, "writeto", write)
    with pytest.raises(SkyflatError, match="a_skyflatquality.fits: .*No space left on device"):
        strun("soss_background.SkyflatQualityStep", skyflat)
    assert checksums([product]) == before
    assert not hidden(tmp_path)
    assert [each.levelname for each in caplog.records].count("ERROR") == 1


def test_full_disk_in_the_middle_of_the_work(tmp_path, monkeypatch):
    array = StoredArray(tmp_path, (2, 3, 4), np.float32)

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(array.path), "open", fail)
    with pytest.raises(SkyflatError, match="cannot be written .No space left on device"):
        array[0] = np.ones((3, 4))


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("taken", "taken: not a folder"),
        ("taken/below", "taken: not a folder"),
        ("loop", "loop: not a folder"),
        ("loop/below", "loop: not a folder"),
        ("locked", "locked: cannot be written .Permission denied"),
        ("locked/below", "locked: cannot be written .Permission denied"),
        ("x" * 300, "the name is too long"),
        ("a\nb", "control characters in the name of a file"),
    ],
)
@pytest.mark.parametrize(
    "kind", ["strun", "call", "simulate", "asn", "report", "characterize", "download"]
)
def test_impossible_output_folders(kind, place, fault, skyflat, tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").touch()
    (tmp_path / "locked").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    system_open = os.open

    def refuse(path, flags, *mode, **folder):
        if "locked" in str(path) and flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return system_open(path, flags, *mode, **folder)

    monkeypatch.setattr(os, "open", refuse)  # root may write to a read-only folder
    monkeypatch.setattr(SkyflatQualityStep, "process", lambda *_: pytest.fail())
    if kind == "strun":
        with pytest.raises(SkyflatError, match=fault):
            strun("soss_background.SkyflatQualityStep", skyflat, f"--output_dir={place}")
    elif kind == "call":
        with pytest.raises(SkyflatError, match=fault):
            SkyflatQualityStep.call(skyflat, output_dir=place)
    else:
        command = {
            "simulate": ["simulate", place],
            "asn": ["asn", str(skyflat), "-o", place],
            "report": ["report", str(skyflat), "-o", f"{place}/report.html"],
            "characterize": ["characterize", str(skyflat), "-o", place],
            "download": ["download", str(skyflat), "-o", place],
        }
        assert main(command[kind]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert fault.partition(" .")[0] in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "locked", "loop", "taken"]


@pytest.mark.parametrize("step", ["skyflat_quality", "skyflat_mask", "skyflat", "soss_stare"])
def test_an_impossible_folder_of_output_file(step, skyflat, tmp_path, caplog):
    """stpipe creates the folder when it reads the parameters."""
    (tmp_path / "taken").touch()
    with pytest.raises(SkyflatError, match="taken.*: cannot be written"):
        strun(step, skyflat, "--output_file=taken/below/a.fits")
    assert [each.levelname for each in caplog.records].count("ERROR") == 1


@pytest.mark.parametrize("folder", ["new", "/proc", "/dev/null"])
def test_a_folder_of_output_file_that_stpipe_ignores(folder, skyflat, tmp_path):
    given, before = f"--output_file={folder}/a.fits", list(tmp_path.rglob("*.fits"))
    with pytest.raises(SkyflatError, match="a.fits names a folder: give it by output_dir instead"):
        strun("soss_background.SkyflatQualityStep", skyflat, given)
    assert list(tmp_path.rglob("*.fits")) == before


def test_a_folder_of_output_file_that_output_dir_names_too(skyflat, tmp_path):
    strun(
        "soss_background.SkyflatQualityStep",
        skyflat,
        "--output_file=new/b.fits",
        "--output_dir=new",
    )
    assert (tmp_path / "new/b_skyflatquality.fits").is_file()


def test_a_missing_output_folder_is_created(skyflat, tmp_path):
    strun("soss_background.SkyflatQualityStep", skyflat, "--output_dir=new/folder")
    assert (tmp_path / "new/folder/a_skyflatquality.fits").is_file()


def test_a_folder_at_the_name_of_the_product(skyflat, tmp_path, monkeypatch):
    (tmp_path / "a_skyflatquality.fits").mkdir()
    monkeypatch.setattr(skyflat_quality_step, "_measure", lambda *_: pytest.fail())
    with pytest.raises(SkyflatError, match="a_skyflatquality.fits: a folder has this name"):
        strun("soss_background.SkyflatQualityStep", skyflat)


def test_a_link_to_the_input_at_the_name_of_the_product(skyflat, tmp_path):
    (tmp_path / "a_skyflatquality.fits").symlink_to(skyflat)
    before = checksums([skyflat])
    with pytest.raises(SkyflatError, match="a_skyflatquality.fits is an input"):
        strun("soss_background.SkyflatQualityStep", skyflat)
    assert checksums([skyflat]) == before


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def stopped_by(request):
    """Name a signal, whose handler is the default of Python."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    former = signal.signal(request.param, defaults[request.param])
    yield request.param
    assert signal.getsignal(request.param) == defaults[request.param]
    signal.signal(request.param, former)


def test_a_stopped_step(stopped_by, tmp_path, monkeypatch, caplog):
    def work(step, *_):
        step.array = StoredArray(tmp_path, (2, 3, 4), np.float32)
        files.save_whole(lambda _: signal.raise_signal(stopped_by), tmp_path / "x.fits")

    monkeypatch.setattr(SkyflatCombineStep, "process", work)
    step = SkyflatCombineStep()
    with pytest.raises(KeyboardInterrupt) as stopped:
        step.run("x.fits")
    assert isinstance(stopped.value, SystemExit)
    assert stopped.value.code == 128 + stopped_by
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [
        f"Stopped by {stopped_by.name}: only finished files are kept"
    ]
    del step, stopped
    assert not list(tmp_path.iterdir())


def test_a_stopped_subcommand(stopped_by, monkeypatch, capsys):
    monkeypatch.setattr(asn, "run", lambda _: signal.raise_signal(stopped_by))
    assert main(["asn", "x.fits"]) == 128 + stopped_by
    assert capsys.readouterr().err == f"soss-background: {StoppedError(stopped_by)}\n"


PROGRAM = """
import os, signal, sys
import numpy as np
import soss_background
from soss_background.io.store import StoredArray
from stpipe._cli.strun import main

def work(step, *_):
    array = StoredArray(".", (2, 3, 4), np.float32)
    os.kill(os.getpid(), signal.SIGTERM)

soss_background.SkyflatCombineStep.process = work
sys.argv = ["strun", "soss_background.SkyflatCombineStep", "x.fits"]
main()
"""


def test_a_batch_queue_ends_strun(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 143
    assert "Traceback" not in result.stderr
    assert "Stopped by SIGTERM" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_runs(skyflat, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [
        f".skyflat-{host}-{pid}-x"
        for host in (socket.gethostname(), "another")
        for pid in (ended.pid, os.getpid(), 2**64)
    ]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / f".skyflat-{socket.gethostname()}-{ended.pid}-folder").mkdir()
    strun("soss_background.SkyflatQualityStep", skyflat)
    assert sorted(hidden(tmp_path)) == sorted([names[1], *names[3:]])
    assert files.scratch_prefix() == names[1][:-1]


def test_simulated_files_are_whole(tmp_path, monkeypatch, capsys):
    def write(_, path, **__):
        files.Path(path).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", write)
    monkeypatch.setitem(simulate.SUBARRAYS, "FULL", SMALL)
    assert main(["simulate", "visit", "--n-exposures=1", "--star-density=0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (No space left on device)" in line
    assert not list((tmp_path / "visit").iterdir())
