"""Any fault of a file, an association or a parameter ends in one line, or in a sound product.

The suite draws a few faults; ``make fuzz`` draws FUZZ_EXAMPLES of them.
"""

import contextlib
import gc
import gzip
import io
import json
import logging
import os
import shutil
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from crds_cache import crds_at, make_cache
from helpers import checksums, make_skyflat, strun
from helpers_fuzz import NUMBERS, TEXTS, Option, faults, list_files
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from matplotlib.figure import Figure
from spec2_references import make_references
from stdatamodels.jwst import datamodels

import soss_background
from soss_background import SkyflatModel, batch
from soss_background.cli import main
from soss_background.detector import SUBSTRIP96, SUBSTRIP256, Window
from soss_background.errors import SkyflatError, one_line
from soss_background.fluxcal.psf import Psf
from soss_background.simulate import (
    Simulation,
    StarImage,
    simulate_star,
    simulate_time_series,
    simulate_visit,
    sky_image,
)

SAVE_FIGURE = Figure.savefig
# The longest run is one of a few seconds.
LONGEST = 60
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))
# Large enough for some sky without light of the target.
WINDOW = Window("FULL", 1792, 640, 128, 128)
VISIT = Simulation(window=WINDOW, n_exposures=3, n_integrations=2, star_density=0)

FLAT = "--steps.flat_field.override_flat=flat.fits"
STEPS = {
    "SkyflatMaskStep": "visit_asn.json",
    "SkyflatMaskStep of compressed files": "4_rateints.fits.gz 2_rateints.fits",
    "SkyflatCombineStep": "1_rateints.fits 2_rateints.fits --bad_pixels=bad.csv",
    "SkyflatPipeline": f"visit_asn.json {FLAT} --steps.skyflat_combine.bad_pixels=bad.fits "
    "--steps.skyflat_quality.ranges=ranges.yaml",
    "SkyflatDenoiseStep": "1_skyflat.fits",
    "SkyflatQualityStep": "1_skyflat.fits --ranges=ranges.yaml",
    "SkyflatQualityStep of an ASDF file": "4_skyflat.asdf",
    "SkyflatSubtractStep": "series_rateints.fits --skyflat=1_skyflat.fits "
    "--override_flat=flat.fits",
    "SkyflatSubtractStep of several": "series_rateints.fits --override_flat=flat.fits "
    "--skyflat=4_skyflat.asdf,5_skyflat.fits.gz",
    "SkyflatSubtractStep of a sky model": "series_rateints.fits --skyflat=sky_model.fits "
    "--override_flat=flat.fits",
    "SkyflatSubtractStep of an array": "series_rateints.fits --skyflat=template.npy "
    "--override_flat=flat.fits",
    "SkyflatSubtractStep of a reference file": "series_rateints.fits --override_bkg=bkg.fits "
    "--override_flat=flat.fits",
    "SavedSkyStep": "series_rateints.fits --sky=series_skyflatbackground.fits",
    "FlickerNoiseStep": "series_skyflatsubtract.fits",
    "InterOrderBackgroundStep": "series_rateints.fits --skip=false --distance=2",
    "TraceFitStep": "series_rateints.fits",
    "OptimalExtractStep": "series_rateints.fits --traces=series_sosstraces.fits "
    "--standard=star.fits",
    "SossStarePipeline": "series_rateints.fits --steps.skyflat_subtract.skyflat=1_skyflat.fits "
    f"{FLAT} --ranges=stare_ranges.yaml --save_report=false",
    "SkyflatSpec2Pipeline": "series_rateints.fits --steps.bkg_subtract.skyflat=1_skyflat.fits "
    "--steps.extract_1d.skip=true",
    "EncircledEnergyStep": "star_rate.fits --psf=f090w_psf.radtab",
    "SurfaceBrightnessStep": "star_rate.fits",
}
COMMANDS = {
    "simulate": "simulate out --n-exposures 1 --n-integrations 1 --subarray SUBSTRIP96",
    "compare": "compare 1_skyflat.fits truth.fits -o out/figure.png",
    "query": "query --index index.csv -o out/found.ecsv --all",
    "asn": "asn 1_rateints.fits 2_rateints.fits 3_rateints.fits -o out",
    "asn of a table": "asn index.csv -o out",
    "asn with a background": "asn series_rateints.fits --background 1_rateints.fits "
    "2_rateints.fits -o out",
    "reference": "reference 1_strip_skyflat.fits 2_strip_skyflat.fits --subarray SUBSTRIP96 "
    "-o out/library.fits",
    "model": "model 1_skyflat.fits 2_skyflat.fits 3_skyflat.fits -o out/model.fits "
    "--plot out/model.png --denoise --output-dir out/denoised",
    "export": "export series_skyflatbackground.fits --flat flat.fits -o out/sky.npy",
    "report": "report 1_skyflat.fits 4_skyflat.asdf -o out/report.html",
    "characterize": "characterize 1_skyflat.fits 2_skyflat.fits 3_skyflat.fits -o out",
    "fluxcal psf": "fluxcal psf psf.fits -o out",
    "fluxcal mean": "fluxcal mean 1_ee.ecsv 2_ee.ecsv --psf f090w_psf.radtab -o out/mean.ecsv "
    "--plot out/mean.png",
    "fluxcal total": "fluxcal total 1_ee.ecsv 2_ee.ecsv --psf f090w_psf.radtab -o out/total.ecsv",
    "fluxcal expected": "fluxcal expected star.fits --throughputs throughputs -o out/expected.ecsv "
    "--measured total.ecsv",
    "batch": "batch visit_asn.json flat.fits",
}
OPTIONS = {
    "simulate": "seed exposure-time sky-level step-contrast star-density stripes pwcpos",
    "query": "programs",
    "asn": "gap-days by-pwcpos",
    "reference": "merge-below max-residual",
    "fluxcal psf": "sky-annulus",
    "fluxcal total": "radii clearp",
    "fluxcal expected": "area gain",
}
TEXT_OPTIONS = {
    "simulate": "family start target-ra",
    "query": "after before product",
    "asn": "product-name",
    "reference": "plane flat useafter author pedigree description",
    "model": "author description output-dir",
    "report": "output",
    "fluxcal total": "psf plot",
}
# Parameters of stpipe that lead to no product, to another folder, or to hooks.
UNTOUCHED = (
    "skip", "save_results", "output_dir", "search_output_file", "pre_hooks", "post_hooks",
    "config_file", "name", "class", "output_use_index", "output_use_model",
)  # fmt: skip
# Files of a run that its arguments do not name.
EXPOSURES = ["1_rateints.fits", "2_rateints.fits", "3_rateints.fits"]
UNNAMED = dict.fromkeys(("visit_asn.json", "truth.fits", "index.csv"), EXPOSURES) | {
    "throughputs": ["throughputs/f090w.dat", "throughputs/f480m.dat"]
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Write a sound file of each kind."""
    folder = tmp_path_factory.mktemp("seeds")
    with contextlib.chdir(folder):
        association = simulate_visit(folder, VISIT)
        content = json.loads(association.read_text())
        (product,) = content["products"]
        for number, member in enumerate(product["members"], 1):
            Path(member["expname"]).rename(f"{number}_rateints.fits")
            member["expname"] = f"{number}_rateints.fits"
        product |= {"obs_group": 0, "file_name": "visit"}
        Path("visit_asn.json").write_text(json.dumps(content))
        with fits.open("truth.fits") as hdus:
            hdus["LEVELS"].data["filename"] = [f"{n}_rateints.fits" for n in (1, 2, 3)]
            hdus.writeto("truth.fits", overwrite=True)
        simulate_time_series(folder, replace(VISIT, n_integrations=3), target_flux=200.0).rename(
            "series_rateints.fits"
        )
        strun("soss_background.SkyflatPipeline", "visit_asn.json", FLAT, "--output_file=1.fits")
        with SkyflatModel("1_skyflat.fits") as skyflat:
            for number in (2, 3):
                skyflat.bkgdn[:, 64:] *= 1.02
                skyflat.meta.observation.observation_number = f"00{number}"
                skyflat.save(f"{number}_skyflat.fits")
            skyflat.save("4_skyflat.asdf")
        compress("1_rateints.fits", "4_rateints.fits.gz")
        compress("3_skyflat.fits", "5_skyflat.fits.gz")
        strun("soss_background.TraceFitStep", "series_rateints.fits", "--output_file=series.fits")
        options = "--skyflat=1_skyflat.fits --override_flat=flat.fits --save_background=true"
        named = ("series_rateints.fits", *options.split(), "--output_file=series.fits")
        strun("soss_background.SkyflatSubtractStep", *named)
        for number in (1, 2):
            make_skyflat(number, SUBSTRIP96).save(f"{number}_strip_skyflat.fits")
        write_templates()
        write_tables()
        for path in (association, Path("time_series_flat.fits"), Path("time_series_truth.fits")):
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def crds(seeds, tmp_path_factory):
    """Write a CRDS cache with the reference files that calwebb_spec2 needs."""
    folder = tmp_path_factory.mktemp("references")
    return make_cache(folder / "cache", make_references(folder, seeds / "flat.fits"))


def compress(name, compressed):
    """Write a compressed copy of a file."""
    Path(compressed).write_bytes(gzip.compress(Path(name).read_bytes()))


def write_templates():
    """Write a sky model, a template of another program, and a BKG reference file."""
    main("model 1_skyflat.fits 2_skyflat.fits -o sky_model.fits".split())
    template = sky_image(SUBSTRIP256).astype("f4")
    np.save("template.npy", template)
    planes = {"data": template, "err": 0.01 * template, "dq": np.zeros_like(template, dtype="u4")}
    reference = datamodels.SossBkgModel(**{key: plane[None] for key, plane in planes.items()})
    reference.meta.reftype = "BKG"
    reference.save("bkg.fits")


def write_tables():
    """Write tables, the image of a star, and its curves of growth."""
    Path("bad.csv").write_text("x,y\n3,4\n5,6\n")
    fits.PrimaryHDU(np.eye(*WINDOW.shape, dtype="u1")).writeto("bad.fits")
    Path("ranges.yaml").write_text("excess: [0, 20]\n")
    Path("stare_ranges.yaml").write_text("orders: [1, 3]\n")
    names = "\n".join(f"{n}_rateints.fits,4479,FULL,CLEAR,2023-11-16T0{n}:00:00" for n in (1, 2, 3))
    Path("index.csv").write_text(f"FILENAME,PROGRAM,SUBARRAY,FILTER,DATE-BEG\n{names}\n")
    radius = np.linspace(0.25, 15, 60)
    psf = Psf(radius, 0.95 * (1 - (1 + (radius / 1.2) ** 2) ** -1.2))
    Table({"Radius": psf.radius, "CountRate": psf.encircled}).write(
        "f090w_psf.radtab", format="ascii"
    )
    simulate_star(psf, StarImage(count_rate=1e4)).save("star_rate.fits")
    clean = StarImage(count_rate=1.0, sky=0.0, noise=0.0, time=1e12)
    header = fits.Header({"FILTER": "F090W", "PIXELSCL": 0.0656})
    fits.writeto("psf.fits", simulate_star(psf, clean).data, header)
    for number in (1, 2):
        strun("soss_background.EncircledEnergyStep", "star_rate.fits", "--psf=f090w_psf.radtab",
              f"--output_file={number}.fits", "--save_plot=false")  # fmt: skip
    main("fluxcal total 1_ee.ecsv --psf f090w_psf.radtab -o total.ecsv".split())
    wave = np.linspace(8e3, 5.5e4, 200)
    Table({"WAVELENGTH": wave, "FLUX": 1e-14 * (wave / 1e4) ** -4}).write("star.fits")
    Path("throughputs").mkdir()
    for name, low in (("f090w", 8e3), ("f480m", 4.6e4)):
        box = 0.3 * ((wave > low) & (wave < low + 2e3))
        Table({"wavelength": wave, "throughput": box}).write(
            f"throughputs/{name}.dat", format="ascii"
        )


def read_files(words, folder):
    """List the files of a run: those that its arguments name, and their members."""
    named = [name for word in words for name in word.split("=")[-1].split(",")]
    named = [name for name in named if (folder / name).exists()]
    files = [name for name in named if (folder / name).is_file()]
    return files + [file for name in named for file in UNNAMED.get(name, [])]


def step_options(name):
    """List the parameters of a step and their values; those of stpipe stay, except its names."""
    found = []

    def walk(spec, prefix=""):
        for key, value in spec.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif key not in UNTOUCHED:
                numbers = value.startswith(("float", "integer", "boolean"))
                found.append((f"--{prefix}{key}", NUMBERS if numbers else TEXTS))

    walk(getattr(soss_background, name).load_spec_file())
    return found


def words_of(name):
    """Return the words of a run without faults."""
    if name in COMMANDS:
        return COMMANDS[name].split()
    step = name.partition(" ")[0]
    return [f"soss_background.{step}", *STEPS[name].split(), "--output_dir=out"]


def draw_case(data, folder):
    """Draw a run and its faults; return the words of the run, and the faults."""
    name = data.draw(st.sampled_from([*STEPS, *COMMANDS]))
    if name in STEPS:
        options = step_options(name.partition(" ")[0])
    else:
        options = [(f"--{option}", NUMBERS) for option in OPTIONS.get(name, "").split()]
        options += [(f"--{option}", TEXTS) for option in TEXT_OPTIONS.get(name, "").split()]
    words = words_of(name)
    return words, data.draw(faults(read_files(words, folder), options))


def run(words, crds):
    """Run a step or subcommand; return the line that it ends in, None if it succeeds."""
    try:
        if "Spec2" in words[0]:
            with crds_at(crds, "."):
                strun(*words)
            return None
        if words[0].startswith("soss_background."):
            strun(*words)
            return None
        return run_batch() if words[0] == "batch" else run_command(words)
    except SkyflatError as err:
        return str(err)
    except SystemExit as err:
        assert err.code == 2, err  # a usage error
        return "usage"


def run_batch():
    """Run a visit as ``batch`` does, in this process; return the reason if it fails."""

    def work_here(_, work, visits, __):
        return [work(visit) if visit.status == "not done" else visit for visit in visits]

    def no_client(*_):
        return contextlib.nullcontext()

    with patch.object(batch, "_map", work_here), patch.object(batch, "_open_client", no_client):
        (row,) = batch.run_batch(["visit_asn.json"], "out", [FLAT])
    assert "Error:" not in row["message"], row["message"]
    return row["message"] if row["status"] == "failed" else None


def run_command(words):
    """Run a subcommand; return the line that it prints, None if it succeeds."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        if main(words) == 0:
            return None
    line = printed.getvalue().splitlines()[-1]
    assert "Traceback" not in printed.getvalue()
    line = line.removeprefix("soss-background: ")
    assert len(line.split()) > 2, f"a riddle: {line}"
    return line


def check(words, found, seeds, folder, crds):
    """Run on faulty files; fail unless it ends in a line or a sound product."""
    for name in read_files(words, seeds):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(seeds / name, folder / name)
    (folder / "out").mkdir()
    try:
        for fault in found:
            fault.apply(folder)
    except Exception:  # noqa: BLE001 - astropy writes no such file
        reject()
    given = list_files(folder)
    inputs = sorted(path for path in given if path.is_file())
    before = checksums(inputs)
    for fault in found:
        if isinstance(fault, Option):
            words = [*words, f"{fault.name}={fault.value}"]
            words += ["5"] if fault.name == "--radii" else []
    start = time.monotonic()
    line = run(words, crds)
    assert time.monotonic() - start < LONGEST, "it takes too long"
    gc.collect()
    assert checksums(inputs) == before, "an input is changed"
    written = set(list_files(folder)) - set(given)
    products = [path for path in written if path.is_relative_to(folder / "out")]
    hidden = [path.name for path in folder.rglob(".*")]
    assert not hidden, f"left: {hidden}"
    if line is None:
        assert products, "nothing is written"
    else:
        assert "\n" not in line, f"more than a line: {line}"
        assert not products or words[0] in COMMANDS or words[0] == "batch", f"written: {products}"
    for path in products:
        check_product(path)
    return line


def check_product(path):
    """Fail unless a product is complete and consistent."""
    if path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix == ".png":
        assert path.read_bytes().startswith(b"\x89PNG")
    elif path.suffix == ".ecsv":
        Table.read(path)
    elif path.suffix == ".fits" and not path.stem.endswith(("spectrum", "response")):
        with fits.open(path) as hdus:
            hdus.verify("exception")
            is_model = "ASDF" in hdus
        if is_model:
            with datamodels.open(path) as model:
                model.validate()
                if isinstance(model, SkyflatModel):
                    check_skyflat(model)


def check_skyflat(model):
    """Fail unless the planes of a skyflat agree, and the sky is a number."""
    shape = model.bkg.shape
    assert model.err.shape == model.dq.shape == shape
    for plane in (model.bkgdn, model.images, model.masks):
        assert plane is None or plane.shape[-2:] == shape
    science = model.dq & datamodels.dqflags.pixel["REFERENCE_PIXEL"] == 0
    if model.bkgdn is not None:
        assert np.isfinite(model.bkgdn[science]).all(), "BKGDN is not finite"
    assert len(model.metadata) >= 1


def describe(err):
    """Return the last line of the package in a traceback, and the error."""
    lines = traceback.extract_tb(err.__traceback__)
    places = [f"{line.filename}:{line.lineno}" for line in lines if "background/" in line.filename]
    return f"{' '.join(places[-1:])} {type(err).__name__}: {one_line(err)[:200]}"


def save_small(figure, *args, **settings):
    """Save a figure with few pixels, which is fast."""
    SAVE_FIGURE(figure, *args, **settings | {"dpi": 20})


@contextlib.contextmanager
def working_in(folder):
    """Work in a new folder, which is removed; keep neither log records nor large figures."""
    folder.mkdir()
    # The log records that pytest keeps would keep the exposures of runs alive.
    without_records = patch.object(logging.getLogger(), "handlers", [])
    small_figures = patch.object(Figure, "savefig", save_small)
    try:
        with contextlib.chdir(folder), warnings.catch_warnings(), without_records, small_figures:
            warnings.simplefilter("ignore")
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# The suite runs those that an unsuitable scene stops early.
SOUND = ("SkyflatPipeline", "SkyflatSubtractStep of several", "SossStarePipeline", "batch")


@pytest.mark.parametrize("name", [*STEPS, *COMMANDS] if "FUZZ_EXAMPLES" in os.environ else SOUND)
def test_no_fault_ends_in_a_product(name, seeds, crds, tmp_path):
    folder = tmp_path / "run"
    with working_in(folder):
        assert check(words_of(name), [], seeds, folder, crds) is None


def test_any_fault_ends_in_a_line_or_a_product(seeds, crds, tmp_path):
    found, number = {}, iter(range(10**9))

    @settings(
        max_examples=EXAMPLES,
        derandomize="FUZZ_EXAMPLES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def search(data):
        words, faulty = draw_case(data, seeds)
        folder = tmp_path / str(next(number))
        try:
            with working_in(folder):
                check(words, faulty, seeds, folder, crds)
        except UnsatisfiedAssumption:
            raise
        except Exception as err:  # noqa: BLE001 - any is a fault
            found.setdefault(describe(err), f"{' '.join(words)} with {faulty}")

    search()
    assert not found, "\n".join(f"{where}\n    {case}" for where, case in found.items())
