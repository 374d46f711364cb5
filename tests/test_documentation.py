"""The commands and programs in README and documentation run."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import textwrap
import tomllib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from crds_cache import crds_at, make_cache
from distributed import Client
from distributed.cli import dask_scheduler, dask_worker
from helpers import BIN, cut_series, edit_file, make_skyflat, strun
from jwst.extract_1d import Extract1dStep
from mast_server import ask, run_server
from spec2_references import make_references

from soss_background import batch
from soss_background.associations import make_associations
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, SUBSTRIP256, SUPERSTRIPES
from soss_background.fluxcal.psf import Psf
from soss_background.reference import make_reference, write_reference
from soss_background.simulate import (
    Simulation,
    StarImage,
    simulate_star,
    simulate_time_series,
    simulate_visit,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
PAGES = [page for page in PAGES if not {"_build", "api"} & set(page.parts)]

# Placeholders for names of the user.
SCIENCE = "jw01366001001_04101_00001_nis_rateints.fits"
SEGMENT = "jw01366003001_04101_00001-seg{:03d}_nis_rateints.fits"
F277W = "jw01366003001_04102_00001-seg001_nis_rateints.fits"
SUPERSTRIPE = "jw07073021001_04102_00001-seg001_nis_rateints.fits"
# The part of the full detector that SUBSTRIP256 reads out: real sizes are tested elsewhere.
PART = replace(SUBSTRIP256, name="FULL")
QUICK = {
    "soss-background simulate DIR": " --n-exposures 3 --subarray SUBSTRIP96",
    "soss-background simulate SERIES": " --n-integrations 2",
    "soss-background simulate STRIPES": " --n-integrations 1",
}
SMALLER = {
    "Simulation(seed=7, n_exposures=3)": "Simulation(seed=7, n_exposures=1, n_integrations=1)",
    "n_integrations=30": "n_integrations=2",
}
# A command of one page whose product another page uses.
RESPONSE = """strun soss_background.OptimalExtractStep \\
    standard_calints.fits --standard=bd60d1753_mod_005.fits"""
# Blocks that show what comes out, or a sketch.
SHOWN = ("association ->",)

_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(
    r"^ *(?:\.\. code-block:: \w+|(?!\.\. ).*::|::)\n\n((?:(?: +.*)?(?:\n|\Z))+)", re.MULTILINE
)
_PROGRAM = re.compile(r"(soss-background|strun|crds|dask) ")
# Commands of the installation, which the tests need anyway.
_KNOWN = re.compile(rf"{_PROGRAM.pattern}|pip install |make |\.venv/bin/pytest ")


def blocks(page):
    """List the indented or fenced blocks of a page."""
    text = page.read_text()
    return (_FENCE if page.suffix == ".md" else _LITERAL).findall(text)


def split_commands(block):
    """Split a block into commands, unless it is a program in Python."""
    block = textwrap.dedent(block).strip()
    if block.startswith(("from ", "import ")):
        return [block]
    if block.startswith(SHOWN):
        return []
    commands = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    assert all(map(_KNOWN.match, commands)), block
    return [command for command in commands if _PROGRAM.match(command)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Create the files of a user in a folder; return it with an environment and an archive."""
    folder = tmp_path_factory.mktemp("lab")
    home = tmp_path_factory.mktemp("home")
    settings = Simulation(window=PART, n_exposures=3, n_integrations=1, star_density=0.1)
    simulate_visit(folder / "data", settings)
    for name in ("flat.fits", "truth.fits"):
        shutil.move(folder / "data" / name, folder)
    next((folder / "data").glob("*_asn.json")).unlink()
    exposures = sorted((folder / "data").glob("*.fits"))
    for observation in ("002", "003", "004"):
        visit = replace(settings, observation=observation)
        shutil.move(simulate_visit(folder / "visits", visit), folder / f"{observation}.json")
        for name in ("flat.fits", "truth.fits"):
            (folder / "visits" / name).unlink()
    for path in folder.glob("00?.json"):
        shutil.move(path, folder / "visits" / f"{path.stem}_asn.json")
    (association,) = make_associations(exposures, folder)["association"]
    shutil.move(association, folder / "asn.json")
    (folder / "sky").symlink_to("data")
    (folder / "bad.csv").write_text("x,y\n1000,100\n")
    shutil.copy(ROOT / "docs" / "ranges.yaml", folder)
    _simulate_science(home, folder)
    _take_standard(folder)
    header = "FILENAME,FILEPATH,PROGRAM,SUBARRAY,FILTER,DATE-BEG"
    rows = [f"{path.name},data,4479,FULL,CLEAR,2023-11-16T00:00:00" for path in exposures]
    (folder / "soss_library.csv").write_text("\n".join([header, *rows]))
    with run_server() as server:
        for path in exposures:
            server.add(path.name.removesuffix("_nis_rateints.fits"), path.read_bytes())
        environment = _reach_crds(home, folder / "flat.fits")
        environment |= {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
        yield folder, environment, server


def _simulate_science(home, folder):
    """Write time series: whole, in segments, of standards, with F277W, and of a superstripe."""
    settings = Simulation(window=SUBSTRIP96, n_integrations=2)
    series = simulate_time_series(home, settings, f277w=True)
    for number, path in enumerate(cut_series(series, home / "cut", (1, 1)), 1):
        shutil.move(path, folder / SEGMENT.format(number))
    shutil.move(series, folder / SCIENCE)
    (folder / "night").mkdir()
    shutil.copy(folder / SCIENCE, folder / "night")
    for name in ("standard_calints.fits", "star_calints.fits"):
        shutil.copy(folder / SCIENCE, folder / name)
        edit_file(folder / name, lambda model, name=name: setattr(model.meta, "filename", name))
    wave = np.linspace(5e3, 6e4, 1000)
    spectrum = Table({"WAVELENGTH": wave, "FLUX": 1e-14 * (wave / 1e4) ** -4})
    spectrum.write(folder / "bd60d1753_mod_005.fits")
    (path,) = home.glob("*_03102_*_rateints.fits")
    shutil.move(path, folder / F277W)
    settings = replace(settings, window=SUPERSTRIPES["SUB680STRIPE_SOSS"])
    shutil.move(simulate_time_series(home / "superstripe", settings), folder / SUPERSTRIPE)


def _take_standard(folder):
    """Write images of a flux standard and of its PSF, its spectrum and a throughput."""
    radius = np.arange(1.0, 16.0)
    psf = Psf(radius, 1 - 0.6 / radius)
    for name in ("psf", "throughputs"):
        (folder / name).mkdir()
    columns = {"Radius": radius, "CountRate": psf.encircled}
    Table(columns).write(folder / "psf" / "f090w_psf.ecsv", format="ascii.ecsv")
    clean = StarImage(count_rate=1.0, sky=0.0, noise=0.0, time=1e12)
    header = fits.Header({"FILTER": "F090W", "PIXELSCL": 0.0656})
    fits.writeto(folder / "stpsf_f090w.fits", simulate_star(psf, clean).data, header)
    for seed in (1, 2):
        image = simulate_star(psf, StarImage(seed=seed))
        image.save(folder / image.meta.filename)
    wave = np.linspace(5e3, 6e4, 1000)
    Table({"WAVELENGTH": wave, "FLUX": 1e-15 + 0 * wave}).write(
        folder / "wd1057_719_stisnic_008.fits"
    )
    Table({"WAVELENGTH": wave, "THROUGHPUT": 0.4 * (np.abs(wave - 9e3) < 1e3)}).write(
        folder / "throughputs" / "jwst_nis_f090w_clear.dat", format="ascii"
    )


def _reach_crds(folder, flat):
    """Create a CRDS cache with all reference files, and parameters that skip the spectrum."""
    references = make_references(folder, flat)
    references["bkg"] = folder / "bkg.fits"
    library, _ = make_reference([make_skyflat(number) for number in (1, 2)])
    write_reference(library, references["bkg"])
    references["pars-extract1dstep"] = folder / "pars.asdf"
    Extract1dStep(skip=True).export_config(references["pars-extract1dstep"])
    return make_cache(folder / "cache", references)


@pytest.fixture(scope="module")
def run(lab):
    """Run the commands of a block, each command once."""
    folder, environment, server = lab
    done = set()

    def run(block):
        with crds_at(environment, folder), ask(server), _batches_here():
            for command in split_commands(block):
                words = split_words(command)
                if words not in done:
                    done.add(words)
                    _run_here(words)

    return run


def split_words(command):
    """Split a command as a shell does, and match its patterns; a program in Python is one word."""
    if not _PROGRAM.match(command):
        return (command,)
    command += QUICK.get(command.split(" -")[0], "")
    words = []
    for word in shlex.split(command, comments=True):
        words += sorted(map(str, Path().glob(word))) or [word]
    return tuple(words)


@contextmanager
def _batches_here():
    """Run batches in this process: the processes of a cluster are tested elsewhere."""

    @contextmanager
    def open_client(*_):
        settings = {"processes": False, "dashboard_address": "127.0.0.1:0"}
        with Client(threads_per_worker=1, **settings) as client:
            yield client

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_open_client", open_client)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _run_here(words):
    """Run a shell command in this process, where all modules are imported."""
    program, *arguments = words
    if program == "strun":
        strun(*arguments)
    elif program == "soss-background":
        assert main(arguments) == 0, words
    elif program == "crds":
        subprocess.run([BIN / program, *arguments], check=True)
    elif program == "dask":
        _check_dask(*arguments)
    else:
        for size, smaller in SMALLER.items():
            program = program.replace(size, smaller)
        exec(program, {})


def _check_dask(command, *options):
    """Check the options of a scheduler or worker, which are started elsewhere."""
    commands = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    assert options[-1] == "&"
    commands[command].make_context(command, list(options[:-1]))


@pytest.fixture(scope="module")
def after_readme(run):
    """Run the commands of the README and of the pages whose products other pages use."""
    run(RESPONSE)
    for name in ("README.md", "docs/pipeline.rst", "docs/stare.rst"):
        for block in blocks(ROOT / name):
            run(block)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(split_commands, blocks(page)))], ids=lambda p: p.stem
)
@pytest.mark.usefixtures("after_readme")
@pytest.mark.filterwarnings("ignore:Input association file contains path:UserWarning")
def test_commands(page, run):
    for block in blocks(page):
        run(block)


def test_what_is_named_is_there():
    """The targets of make and the extras of the package exist."""
    text = "\n".join(page.read_text() for page in (*PAGES, ROOT / "CONTRIBUTING.md"))
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"(?:^ *|`)make ([a-z0-9-]+)", text, re.MULTILINE))
    assert {"demo", "bench-speed"} <= named <= set(targets)
    extras = re.findall(r"(?:\.|soss_background)\[([a-z,]+)\]", text)
    assert {"archive", "batch", "zodi"} <= set(",".join(extras).split(",")) <= set(known)


@pytest.mark.parametrize("page", ["README.md", "docs/subtraction.rst"])
def test_quoted_errors_are_those_of_the_benchmark(page):
    """README and docs quote the errors with twelve skyflats in SUBSTRIP256."""
    text = read_words(page)
    rows = read_rows("subtract.txt", r"SUBSTRIP256, 12 skyflats +ours +(.*)\n +jwst +(.*)")
    for row in rows:
        left, worst_left, right, worst_right = row.split()[:4]
        assert f"{left} % left and {right} % right" in text
        assert f"{worst_left} and {worst_right} %" in text


@pytest.mark.parametrize("page", ["README.md", "docs/how_accurate.rst"])
def test_quoted_bias_is_that_of_the_benchmark(page):
    """README and docs quote the bias of a transit depth in order 1 at J = 11."""
    text = read_words(page)
    (row,) = read_rows("stare.txt", r"J = 11 +order 1 +(.*)")
    for number in (round(float(value)) for value in row.split()[::2]):
        assert f" {number} ppm" in text


def test_quoted_time_and_memory_are_those_of_the_benchmark():
    (row,) = read_rows("speed.txt", r"ours +10 +(.*)")
    seconds, megabytes = map(float, row.split())
    quoted = f"{seconds:.0f} s and {megabytes / 1000:.1f} GB of memory"
    assert quoted in read_words("README.md")


def test_quoted_accuracy_of_skyflats_is_that_of_the_benchmark():
    """The summary quotes the scatter of ours and the peer's, median and worst."""
    text = read_words("docs/how_accurate.rst")
    for name in ("ours", "peer"):
        (median,) = read_rows("accuracy.txt", rf"median of {name} +(\S+)")
        (worst,) = read_rows("accuracy.txt", rf"worst of {name} +(\S+)")
        assert f"{median} %" in text
        assert f"(worst {worst} %)" in text


def test_quoted_errors_of_both_subarrays_are_those_of_the_benchmark():
    """The summary quotes the errors left and right of the edge, and the fraction within errors."""
    text = read_words("docs/how_accurate.rst")
    for subarray in ("SUBSTRIP256", "SUBSTRIP96"):
        rows = read_rows("subtract.txt", rf"{subarray}, 12 skyflats +ours +(.*)\n +jwst +(.*)")
        ours, jwst = (row.split() for row in rows)
        assert f"{ours[0]} % left and {ours[2]} % right" in text
        assert f"{jwst[0]} and {jwst[2]} %" in text
    row = read_rows("subtract.txt", r"SUBSTRIP256, 12 skyflats +ours +(.*)")[0].split()
    within = [f"{100 * float(value):.0f} %" for value in row[6:8]]
    assert f"{within[0]} of the errors within 1 sigma, {within[1]} within 2" in text


def read_rows(name, pattern):
    """Return the groups of the first match of a pattern in the output of a benchmark."""
    return re.search(pattern, (ROOT / "docs" / name).read_text()).groups()


def read_words(page):
    """Return the text of a page with single spaces."""
    return " ".join((ROOT / page).read_text().split())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name == "steps"], ids=lambda page: page.stem
)
def test_step_pages_have_a_command_and_a_figure(page):
    text = page.read_text()
    (figure,) = re.findall(r"^\.\. figure:: (.*)$", text, re.MULTILINE)
    assert (page.parent / figure).is_file()
    assert any(map(split_commands, blocks(page)))
