"""Many visits on real clusters, with failures, killed workers and interrupts."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from astropy.table import Table
from conftest import SMALL
from helpers import BIN, checksums, cut_series, edit_file, make_skyflat
from stdatamodels.jwst import datamodels

from soss_background import SkyflatModel, SkyflatQualityStep, batch
from soss_background.batch import _name_visits
from soss_background.cli import batch as cli_batch
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96
from soss_background.simulate import Simulation, simulate_time_series, simulate_visit

# Parameters for the small visits.
SKIP = ("--", "--steps.flat_field.skip=true")


@pytest.fixture(scope="session")
def associations(tmp_path_factory):
    """Simulate three small visits."""
    folder = tmp_path_factory.mktemp("visits")
    settings = replace(SMALL, n_exposures=3, n_integrations=1, star_density=0.0)
    return [
        simulate_visit(folder / str(day), replace(settings, start=f"2023-11-{day}T00:00:00"))
        for day in (10, 15, 20)
    ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a cluster of one worker; return its scheduler file."""
    folder = tmp_path_factory.mktemp("cluster")
    address_file, dask = folder / "address", str(BIN / "dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    quiet["env"] = clean_environment(folder)
    options = ("--no-dashboard", "--scheduler-file", str(address_file))
    scheduler = subprocess.Popen([dask, "scheduler", "--port", "0", *options], **quiet)
    worker = subprocess.Popen([dask, "worker", *options, "--nthreads", "1"], **quiet)
    try:
        wait_for(address_file.exists, scheduler)
        yield address_file
        assert worker.poll() is None
    finally:
        worker.terminate()
        scheduler.terminate()
        worker.wait()
        scheduler.wait()


@pytest.fixture
def run():
    """Run ``soss-background batch`` in this process, and restore its signal handlers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *arguments: main(["batch", *map(str, arguments)])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def clean_environment(home):
    """Disable CRDS."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CRDS_")}
    return kept | {"HOME": str(home)}


def start(*arguments, home):
    """Start ``soss-background batch``."""
    return subprocess.Popen(
        [str(BIN / "soss-background"), "batch", *map(str, arguments)],
        cwd=home,
        env=clean_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process):
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def statuses(folder):
    """Read the status of each association."""
    return list(Table.read(folder / "batch.ecsv")["status"])


def messages(folder):
    """Read the message of each association."""
    return list(Table.read(folder / "batch.ecsv")["message"])


def assert_complete(folder, number):
    """Check the number of skyflats, and that no unfinished files are left."""
    products = sorted(folder.glob("*_skyflat.fits"))
    assert len(products) == number
    for product in products:
        with SkyflatModel(product) as skyflat:
            assert skyflat.meta.cal_step.skyflat_denoise == "COMPLETE"
            assert len(skyflat.images) == 3
    assert not list(folder.glob(".*"))


def test_a_dead_worker_and_a_corrupt_association(associations, cluster, run, tmp_path):
    corrupt, out = tmp_path / "corrupt_asn.json", tmp_path / "out"
    corrupt.write_text(associations[0].read_text()[:-50])
    good = associations[:2]
    given = (good[0], corrupt, good[1], "--output-dir", out)
    process = start(*given, "--workers", 2, *SKIP, home=tmp_path)
    wait_for(lambda: list(out.glob(".batch-*/*")), process)
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # some end by themselves
            if "spawn_main" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    table = Table.read(out / "batch.ecsv")
    assert list(table["status"]) == ["made", "failed", "made"]
    assert "corrupt_asn.json: not a valid association" in table["message"][1]
    assert table["seconds"][0] > 0
    assert "2 made, 1 failed" in output
    assert str(corrupt) in output
    assert_complete(out, 2)
    assert len(list(out.glob("*.log"))) == 2

    # Finished products are unchanged, unless they are to be overwritten.
    before = [path.stat().st_mtime_ns for path in sorted(out.glob("*.fits"))]
    there = ("--scheduler", cluster, "-o", out, *SKIP)
    assert run(*good, *there) == 0
    assert statuses(out) == ["kept", "kept"]
    assert messages(out) == 2 * ["the same exposures, parameters and version"]
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*.fits"))] == before
    assert run(good[0], "--overwrite", *there) == 0
    assert statuses(out) == ["made"]
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*.fits"))][0] > before[0]


def test_interrupted_and_started_again(associations, run, tmp_path):
    out = tmp_path / "out"
    process = start(*associations, "-o", out, "--workers", 1, *SKIP, home=tmp_path)
    wait_for(lambda: list(out.glob("*_skyflat.fits")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "not done" in output
    assert "not done" in statuses(out)

    # On as many processes as cores.
    assert run(*associations, "-o", out, *SKIP) == 0
    assert set(statuses(out)) == {"kept", "made"}
    assert_complete(out, 3)


def test_a_cluster_that_runs_already(associations, cluster, run, tmp_path):
    address = json.loads(cluster.read_text())["address"]
    for scheduler, expected in ((address, "made"), (cluster, "kept")):
        assert run(associations[0], "-o", "out", "--scheduler", scheduler, *SKIP) == 0
        assert statuses(tmp_path / "out") == [expected]
    assert_complete(tmp_path / "out", 1)


def test_no_scheduler(associations, run, monkeypatch, capsys):
    monkeypatch.setattr(batch, "_PATIENCE", 1)
    assert run(associations[0], "--scheduler", "tcp://127.0.0.1:9") == 1
    errors = capsys.readouterr().err
    assert "127.0.0.1:9" in errors
    assert "Traceback" not in errors


def test_what_fails_in_the_pipeline(associations, cluster, run, tmp_path):
    twin = tmp_path / "twin_asn.json"
    content = json.loads(associations[0].read_text())
    for member in content["products"][0]["members"]:
        member["expname"] = str(associations[0].parent / member["expname"])
    twin.write_text(json.dumps(content))
    for given, arguments, message in (
        (associations[:1], ["--steps.skyflat_mask.n_sigmas=3"], "n_sigmas"),
        (
            associations[:1],
            [SKIP[1], "--steps.skyflat_combine.skip=1"],
            "skyflat.fits: not created",
        ),
        (associations[:1], [SKIP[1], "--output_file=sky.fits"], "--output_file is given, but"),
        (associations[:1], [SKIP[1], "--suffix=sky"], "--suffix is given, but"),
        (associations[:1], ["--steps.skyflat_mask.output_file=a"], "--steps.skyflat_mask.output_f"),
        ([associations[0], twin], [SKIP[1]], f"the same product as {associations[0]}"),
    ):
        assert run(*given, "--scheduler", cluster, "--", *arguments) == 1
        table = Table.read(tmp_path / "batch.ecsv")
        assert table["status"][-1] == "failed"
        assert message in table["message"][-1]
    assert_complete(tmp_path, 1)


def test_a_product_is_kept_only_if_it_is_up_to_date(associations, cluster, run, tmp_path, caplog):
    def again(*arguments):
        there = ("--scheduler", cluster, "-o", "out", *SKIP)
        assert run(associations[0], *there, *arguments) == 0
        return (*statuses(tmp_path / "out"), *messages(tmp_path / "out"))

    assert again() == ("made", "no product yet")
    assert again()[0] == "kept"
    assert "no product of this batch" not in caplog.text
    # Later exposures change the mean date and thus the name of the product.
    (product,) = (tmp_path / "out").glob("*.fits")
    old = tmp_path / "out" / product.name.replace("DOY314", "DOY313")
    shutil.copy(product, old)
    grow = "--steps.skyflat_mask.grow=2"
    assert again(grow) == ("made", "other parameters (steps.skyflat_mask.grow)")
    assert f"{old} is a skyflat of the same observation, not one of this batch" in caplog.text


def test_another_sky_of_the_same_name(associations, cluster, run, tmp_path):
    """The skyflat of a second program does not replace that of the first."""
    other = tmp_path / "other"
    other.mkdir()
    content = json.loads(associations[0].read_text())
    for member in content["products"][0]["members"]:
        source = associations[0].parent / member["expname"]
        member["expname"] = source.name.replace("04479", "06658")
        shutil.copy(source, other / member["expname"])
        edit_file(other / member["expname"], set_program)
    (other / "asn.json").write_text(json.dumps(content))
    there = ("--scheduler", cluster, "-o", "out", *SKIP)
    assert run(associations[0], *there) == 0
    (product,) = (tmp_path / "out").glob("*.fits")
    before = checksums([product])
    for option in ((), ("--overwrite",)):
        assert run(other / "asn.json", *option, *there) == 1
        (message,) = messages(tmp_path / "out")
        assert "PROGRAM 04479" in message
        assert "not PROGRAM 06658" in message
        assert checksums([product]) == before


def set_program(model):
    """Change the program of an exposure."""
    model.meta.observation.program_number = "06658"


def test_two_batches_in_one_folder(cluster, run, tmp_path):
    """Only the folders of batches of this machine that have ended are removed."""
    ended, here = subprocess.Popen(["true"]), socket.gethostname()
    ended.wait()
    others = {f".batch-{here}-{os.getpid()}-x", f".batch-elsewhere-{ended.pid}-x"}
    for name in (*others, f".batch-{here}-{ended.pid}-x"):
        (tmp_path / "out" / name / "visit").mkdir(parents=True)
    assert run("no_asn.json", "-o", "out", "--scheduler", cluster) == 1
    assert messages(tmp_path / "out") == [f"{tmp_path}/no_asn.json: no such file"]
    assert {path.name for path in (tmp_path / "out").glob(".*")} == others


@pytest.fixture
def run_here(run, monkeypatch):
    """Run batches without a cluster, in the order of the visits."""

    def work(_, work, visits, __):
        return [work(visit) if visit.status == "not done" else visit for visit in visits]

    monkeypatch.setattr(batch, "_map", work)
    monkeypatch.setattr(batch, "_open_client", lambda *_: contextlib.nullcontext())
    return run


def test_results_of_steps_replace_neither_inputs_nor_other_skies(associations, run_here, tmp_path):
    """Results of steps are checked like the product, which is kept."""
    data = shutil.copytree(associations[0].parent, tmp_path / "data")
    inputs = sorted(data.iterdir())
    before = checksums(inputs)
    step = "--steps.skyflat_mask"
    masks = (f"{step}.save_results=true", f"{step}.suffix=rateints")
    assert run_here(data / associations[0].name, "-o", data, *SKIP, *masks) == 1
    assert "rateints.fits is an input" in messages(data)[0]
    assert checksums(inputs) == before
    (product,) = data.glob("*_skyflat.fits")
    with SkyflatModel(product) as skyflat:
        assert len(skyflat.metadata) == 3


def test_nothing_to_make(associations, run_here, monkeypatch, tmp_path):
    """No cluster is started, even if a step has changed a product later."""
    there = (associations[0], "-o", "out", *SKIP)
    assert run_here(*there) == 0
    (product,) = Path("out").glob("*_skyflat.fits")
    SkyflatQualityStep.call(product, output_file="again.fits", suffix="skyflat")
    Path("again_skyflat.fits").replace(product)
    monkeypatch.setattr(batch, "_open_client", lambda *_: pytest.fail())
    assert run_here(*there) == 0
    assert statuses(Path("out")) == ["kept"]
    # Another batch made the product after this one had found it missing.
    plan = functools.partial(batch._plan_skyflats, tmp_path / "out", SKIP[1:])
    visit = plan(True, *_name_visits([(associations[0],)]))
    assert visit.status == "not done"
    visit = batch._make(
        "SkyflatPipeline", tmp_path / "out", SKIP[1:], None, functools.partial(plan, False), visit
    )
    assert visit.status == "kept"
    assert_complete(tmp_path / "out", 1)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Simulate two science exposures of SUBSTRIP96, one in two segments, and a sky for them."""
    folder = tmp_path_factory.mktemp("night")
    settings = Simulation(window=SUBSTRIP96, n_integrations=2, exposure_time=200.0, stripes=0.0)
    path = simulate_time_series(folder, settings, target_flux=300.0)
    cut_series(path, folder / "segments", (1, 1))
    with datamodels.open(path) as model:
        other = model.copy()
    other.meta.observation.exposure_number = "2"
    other.meta.filename = path.name.replace("_00001", "_00002").replace("-seg001", "")
    other.save(folder / "segments" / other.meta.filename)
    make_skyflat(window=SUBSTRIP96, flat="flat.fits").save(folder / "a_skyflat.fits")
    return folder


def test_a_night_of_science_exposures(night, run_here, monkeypatch):
    """Segments are run together, finished spectra are kept, and others created again."""
    paths = sorted((night / "segments").glob("*_rateints.fits"))
    options = (
        f"--steps.skyflat_subtract.skyflat={night}/a_skyflat.fits",
        f"--steps.flat_field.override_flat={night}/time_series_flat.fits",
        "--fail_on_qc=true",
    )
    there = ("--pipeline", "SossStarePipeline", "-o", "out", "--", *options)
    before = checksums(paths)
    assert run_here(*paths, *there) == 0
    assert statuses(Path("out")) == ["made", "made"]
    assert checksums(paths) == before
    whole = [path for path in Path("out").glob("*_x1dints.fits") if "seg" not in path.name]
    assert len(whole) == 2
    assert len(list(Path("out").glob("*seg00?*_x1dints.fits"))) == 2
    assert len(list(Path("out").glob("*_stare.html"))) == 2
    assert not list(Path("out").glob(".*"))
    monkeypatch.setattr(batch, "_open_client", lambda *_: pytest.fail())
    for same in (paths, [night / "segments"], [night / "segments" / "*_rateints.fits"]):
        assert run_here(*same, *there) == 0
        assert statuses(Path("out")) == ["kept", "kept"]
    monkeypatch.setattr(batch, "_open_client", lambda *_: contextlib.nullcontext())
    whole[0].unlink()
    assert run_here(*paths, *there) == 0
    assert sorted(statuses(Path("out"))) == ["kept", "made"]
    assert run_here(*paths, *there, "--steps.trace_fit.n_slices=90") == 0
    assert messages(Path("out")) == ["other parameters (steps.trace_fit.n_slices)"] * 2


def test_a_killed_batch_and_another_pipeline(night, run_here, monkeypatch):
    """The next batch knows the files that one has moved; another pipeline does not replace them."""
    (path,) = (night / "segments").glob("*_00002_*_rateints.fits")
    options = (
        f"--steps.skyflat_subtract.skyflat={night}/a_skyflat.fits",
        f"--steps.flat_field.override_flat={night}/time_series_flat.fits",
    )
    there = ("--pipeline", "SossStarePipeline", "-o", "out", "--", *options)
    replace_file = Path.replace

    def stop(path, target):
        if path.name.endswith("_x1dints.fits") and Path(target).parent.name == "out":
            raise RuntimeError("killed")
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        assert run_here(path, *there) == 1
    assert messages(Path("out")) == ["RuntimeError: killed"]
    root = path.name.removesuffix("_rateints.fits")
    found = [each.name for each in Path("out").glob(f"{root}_[sx]*")]
    assert f"{root}_stare.html" in found
    assert f"{root}_x1dints.fits" not in found
    assert run_here(path, *there) == 0
    assert (statuses(Path("out")), messages(Path("out"))) == (["made"], ["no product yet"])
    before = checksums(sorted(Path("out").glob(f"{root}*")))
    assert len(before) > 4
    for option in ((), ("--overwrite",)):
        assert run_here(path, "--pipeline", "SkyflatSpec2Pipeline", "-o", "out", *option) == 1
        assert "is a product of SossStarePipeline: give each" in messages(Path("out"))[0]
        assert checksums(sorted(Path("out").glob(f"{root}*"))) == before


def test_segments_are_printed_by_the_name_of_their_exposure(capsys):
    paths = [Path(f"night/jw1_00001-seg00{number}_nis_rateints.fits") for number in (1, 2)]
    visits = _name_visits([paths])
    cli_batch._print_results(Table(rows=[visit.row() for visit in visits]), verbose=False)
    assert "jw1_00001_nis_rateints not done" in capsys.readouterr().out


def test_all_pipelines_are_choices(capsys):
    with pytest.raises(SystemExit):
        main(["batch", "asn.json", "--pipeline", "none"])
    _, _, choices = capsys.readouterr().err.partition("choose from")
    assert re.findall(r"\w+", choices) == list(batch.PIPELINES)


def test_a_night_with_other_files(run_here, tmp_path):
    """One that cannot be read fails by itself."""
    (tmp_path / "bad_rateints.fits").write_text("nothing")
    there = ("--pipeline", "SossStarePipeline", "-o", "out")
    assert run_here("bad_rateints.fits", *there) == 1
    assert "bad_rateints.fits" in messages(Path("out"))[0]


def test_labels(tmp_path):
    paths = [tmp_path / name for name in ("a/asn.json", "b/asn.json", "c/other.json")]
    labels = [visit.label for visit in _name_visits([(path,) for path in paths])]
    assert labels[2] == "other"
    assert len(set(labels)) == 3


def test_no_worker(capsys):
    with pytest.raises(SystemExit):
        main(["batch", "asn.json", "--workers", "-1"])
    assert "--workers: -1 is not positive" in capsys.readouterr().err


def test_arguments_for_the_pipeline_belong_to_batch(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "here", "--", "--steps"])
    assert "unrecognized arguments: --steps" in capsys.readouterr().err
