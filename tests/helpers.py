"""Functions that several test files share."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels
from stdatamodels.jwst.datamodels import dqflags
from stpipe import Step

from soss_background import SkyflatModel
from soss_background.detector import SUBSTRIP256, Window
from soss_background.simulate import Simulation, sky_image, write_exposure
from soss_background.sky.averaging import Sky
from soss_background.steps.resources import few_collections

BIN = Path(sys.executable).parent

# Settings of a `Simulation` without stars, defects and noise.
NOTHING_BUT_SKY = {
    "star_density": 0,
    "stripes": 0,
    "flagged_hot": 0,
    "unflagged_hot": 0,
    "dead": 0,
    "lost": 0,
    "cosmic_rays": 0,
    "photon_noise": False,
    "read_noise": 0,
}


# Planes of a segment of a time series.
SEGMENT_PLANES = ("data", "err", "dq", "var_poisson", "var_rnoise")


def strun(*arguments):
    """Run ``strun`` in this process; return the step."""
    with few_collections():
        return Step.from_cmdline([str(argument) for argument in arguments])


def run_program(name, *arguments, home, **environment):
    """Run a console script in a new process, with an empty home and without CRDS."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
    return subprocess.run(
        [str(BIN / name), *map(str, arguments)],
        env=kept | {"HOME": str(home), "PYTHONWARNINGS": "default"} | environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def write_small_exposures(folder, n=2, shape=(64, 96), edit=None):
    """Write small exposures of a plain sky; ``edit`` changes the last one. Return their paths."""
    rng = np.random.default_rng(0)
    settings = Simulation(window=Window("FULL", 1900, 600, *shape))
    paths = []
    for number in range(1, n + 1):
        path = Path(folder) / f"jw04479001001_03101_{number:05d}_nis_rate.fits"
        image = rng.normal(5, 0.1, shape)
        write_exposure(path, image, 0 * image + 0.1, simulation=settings, number=number)
        paths.append(path)
    if edit:
        edit_file(paths[-1], edit)
    return paths


def edit_file(path, edit):
    """Change a saved exposure."""
    with datamodels.open(path) as model:
        edit(model)
        model.save(path)


def cut_series(path, folder, lengths):
    """Cut a time series into segments of some lengths, as the archive does; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, last = [], 0
    for number, length in enumerate(lengths, 1):
        first, last = last, last + length
        with datamodels.open(path) as series:
            planes = {name: getattr(series, name)[first:last] for name in SEGMENT_PLANES}
            segment = datamodels.CubeModel(**planes)
            segment.update(series, extra_fits=True)
            segment.int_times = series.int_times[first:last]
        exposure = segment.meta.exposure
        exposure.segment_number, exposure.segment_total = number, len(lengths)
        exposure.integration_start, exposure.integration_end = first + 1, last
        paths.append(folder / path.name.replace("-seg001", f"-seg{number:03d}"))
        segment.save(paths[-1])
    return paths


def checksums(paths):
    """Return a checksum of each file."""
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


def as_sky(image, window, error=0.01, name="a sky"):
    """Return the `Sky` of an image with a relative error."""
    noise = (error * image).astype(np.float32)
    dq = np.uint32(dqflags.pixel["REFERENCE_PIXEL"]) * window.reference_pixels()
    return Sky(image.astype(np.float32), noise, noise, dq, name)


def make_skyflat(number=1, window=SUBSTRIP256, sky=None, flat="", **settings):
    """Build a skyflat as the pipeline does."""
    rng = np.random.default_rng(number)
    if sky is None:
        sky = sky_image(window, **{"seed": number} | settings)
    inside = ~window.reference_pixels()
    skyflat = SkyflatModel()
    skyflat.bkgdn = np.where(inside, sky, 0).astype(np.float32)
    noise = 0.01 * sky * rng.standard_normal(sky.shape)
    skyflat.bkg = np.where(inside, sky + noise, 0).astype(np.float32)
    skyflat.err = np.where(inside, 0.01 * sky, 0).astype(np.float32)
    skyflat.dq = np.where(inside, 0, 2**31).astype(np.uint32)
    hot = rng.random(sky.shape) < 0.001
    skyflat.dq[hot & inside] |= np.uint32(2048)
    skyflat.meta.skyflat.noise_factor = 0.13
    metadata = np.zeros(3, dtype=skyflat.get_dtype("metadata"))
    metadata["filename"] = [
        f"jw0447900{number}001_03101_0000{i}_nis_rateints.fits" for i in range(3)
    ]
    metadata["mid_time_mjd"] = 60264 + 100 * number + np.arange(3)
    metadata["pwcpos"], metadata["used"] = 245.75 + 0.01 * number, [1, 1, 0]
    skyflat.metadata = metadata
    meta = skyflat.meta
    meta.filename = f"nis_clear_gr700xd_LON{number:03d}_skyflat.fits"
    meta.instrument.name, meta.instrument.detector = "NIRISS", "NIS"
    meta.instrument.filter, meta.instrument.pupil = "CLEAR", "GR700XD"
    meta.exposure.type, meta.author = "NIS_SOSS", f"Author {number % 2}"
    meta.subarray.name = window.name
    meta.subarray.xstart, meta.subarray.ystart = window.x0 + 1, window.y0 + 1
    meta.observation.program_number, meta.target.proposer_name = "04479", "SKY"
    meta.skyflat.ecliptic_lon, meta.skyflat.ecliptic_lat = 10.0 * number, -2.0
    meta.skyflat.day, meta.skyflat.n_samples = 20 + number, 2
    meta.skyflat.flat_correction = "COMPLETE" if flat else "SKIPPED"
    if flat:
        meta.ref_file.flat.name = str(flat)
    return skyflat
