"""
Compare the subtraction of a library of skies and of a single template by jwst's step.

Four BKG reference files are written: of one sky like that of commissioning, of twelve skyflats of
other skies, of twelve templates that represent the sky model of these skyflats, and of the sky of
the exposure, which shows the errors that are not due to the library. The time series and the
families of the skies are those of subtract.py.

    python reference.py [--seeds N]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scenes import draw_sky, make_scene
from subtract import remove_with_jwst

from soss_background import SkyflatModel, make_sky_model
from soss_background.detector import SUBSTRIP96, SUBSTRIP256
from soss_background.reference import make_model_reference, make_reference, write_reference
from soss_background.simulate.dispersed_sky import sky_image
from soss_background.simulate.visit import true_sky
from soss_background.sky.match import bin_sky, cross_residuals

# Subarray, J of the target, and whether there are field stars; number of skyflats.
CASES = [
    (window, magnitude, has_stars)
    for window in (SUBSTRIP256, SUBSTRIP96)
    for magnitude, has_stars in ((13, False), (11, False), (11, True), (9, False))
]
N_TEMPLATES = 12

# Noise of a denoised sky, as a fraction.
NOISE = 0.0015


def make_skyflat(sky, rng):
    """Build a skyflat that is not flat-fielded."""
    skyflat = SkyflatModel(bkg=sky, err=0.01 * sky, dq=np.zeros(sky.shape, dtype=np.uint32))
    noise = NOISE * rng.standard_normal(sky.shape)
    skyflat.bkgdn = (sky * (1 + noise)).astype(np.float32)
    skyflat.meta.skyflat.flat_correction = "SKIPPED"
    skyflat.meta.filename = "skyflat.fits"
    return skyflat


def make_library(skies, rng):
    """Return the reference file of skyflats of these skies."""
    skyflats = [make_skyflat(sky, rng) for sky in skies]
    return make_reference(skyflats, pedigree="SIMULATION")[0]


def make_represented(skies, rng):
    """Return the reference file of the sky model of skyflats of these skies."""
    model = make_sky_model([make_skyflat(sky, rng) for sky in skies])
    return make_model_reference(model, number=len(skies))[0]


def measure(scene, reference, folder):
    """Return the residual rms in percent of the sky, in total and without errors of levels."""
    path = folder / "bkg.fits"
    write_reference(reference, path)
    removed = remove_with_jwst(scene, str(path))
    if not removed.any():
        return 100.0, np.nan
    science = ~scene.window.reference_pixels()
    binned = [bin_sky(sky, science) for sky in (scene.sky, removed)]
    error = (removed - scene.sky)[science] / np.median(scene.sky[science])
    return 100 * np.sqrt(np.mean(error**2)), 100 * cross_residuals(binned)[0, 1]


def compare(n_seeds):
    """Print the table."""
    print("rms residual of the sky after jwst's step, percent of its median, over", n_seeds)
    print("exposures: median, mean, and how often it found no template (then 100 %); shape:")
    print("median of the residual if the levels on both sides of the edge are corrected")
    print(f"{'':52}{'median':>8}{'mean':>8}{'failed':>8}{'shape':>8}")
    for number, (window, magnitude, has_stars) in enumerate(CASES):
        results = {
            "one template": [],
            f"{N_TEMPLATES} skyflats": [],
            f"{N_TEMPLATES} of their model": [],
            "the sky itself": [],
        }
        for seed in range(1, n_seeds + 1):
            scene = make_scene(window, magnitude, 100 * number + seed, has_stars=has_stars)
            rng = np.random.default_rng(5000 + 100 * number + seed)
            library = [
                true_sky(draw_sky(10_000 + 20 * seed + i, SUBSTRIP256)) for i in range(N_TEMPLATES)
            ]
            itself = sky_image(SUBSTRIP256, structure=0)
            first = window.y0 - SUBSTRIP256.y0
            itself[first : first + window.ny] = scene.sky
            references = (
                make_library([sky_image(SUBSTRIP256, structure=0)], rng),
                make_library(library, rng),
                make_represented(library, rng),
                make_library([itself], rng),
            )
            with tempfile.TemporaryDirectory() as folder:
                for name, reference in zip(results, references, strict=True):
                    results[name].append(measure(scene, reference, Path(folder)))
        name = f"{window.name}, J = {magnitude}" + (", field stars" if has_stars else "")
        for library, values in results.items():
            rms, shape = np.transpose(values)
            print(f"{name:34}{library:18}{np.median(rms):8.2f}{np.mean(rms):8.2f}", end="")
            print(f"{np.sum(rms == 100):8d}{np.nanmedian(shape):8.2f}", flush=True)
            name = ""


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seeds", type=int, default=12, help="exposures of each kind")
    compare(parser.parse_args().seeds)


if __name__ == "__main__":
    main()
