"""Functions that several tests call."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from stdatamodels.jwst import datamodels
from stpipe import Step

from soss_background.detector import Window
from soss_background.simulate import Simulation, write_exposure

BIN = Path(sys.executable).parent


def strun(*arguments):
    """Run ``strun`` in this process; return the step."""
    return Step.from_cmdline([str(argument) for argument in arguments])


def run_program(name, *arguments, home, **environment):
    """Run a console script in a process of its own, with an empty home and no CRDS."""
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


def checksums(paths):
    """Tell files apart by their contents."""
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
