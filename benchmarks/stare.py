"""
Bias of a transit spectrum by the residual sky: without subtraction, with jwst's step, and ours.

Time series and skyflats are those of subtract.py. Spectra are extracted by this package, optimally,
at the traces that it finds. The bias of the transit depth is due to the residual sky in the
weighted flux, without noise; parts per million of the star's flux.

    python stare.py [--seeds N] [--skyflats FOLDER] [--plot FILE.png]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scenes import DEPTH, make_scene, make_skyflats
from stdatamodels.jwst import datamodels
from subtract import subtract_jwst, subtract_ours

from soss_background import OptimalExtractStep
from soss_background.detector import PWCPOS, SUBSTRIP256

# J of the target, and whether there are field stars; number of skyflats.
CASES = [(9, False), (11, False), (11, True), (13, False), (13, True)]
N_SKYFLATS = 12
# Columns of a bin of the spectrum, and longest wavelength of order 2, since order 1 covers longer
# ones, micron.
BIN, REDDEST = 64, 0.85
METHODS = {"none": "no sky subtracted", "jwst": "jwst's bkg_subtract", "ours": "this package"}


def remove_sky(scene, skyflats):
    """Find the sky by each method."""
    return {
        "none": np.zeros(scene.sky.shape),
        "jwst": subtract_jwst(scene, skyflats)[0],
        "ours": subtract_ours(scene, skyflats)[0],
    }


def extract(scene, sky):
    """Extract the spectra of a scene without its sky."""
    model = datamodels.CubeModel(data=scene.cube - sky.astype("f4"), err=scene.errors)
    model.dq = scene.flags
    meta = model.meta
    meta.filename = "scene_rateints.fits"
    meta.instrument.name, meta.exposure.type = "NIRISS", "NIS_SOSS"
    meta.instrument.filter, meta.instrument.pupil = "CLEAR", "GR700XD"
    meta.instrument.pupil_position, meta.subarray.name = PWCPOS, scene.window.name
    meta.subarray.xstart, meta.subarray.ystart = scene.window.x0 + 1, scene.window.y0 + 1
    return OptimalExtractStep().extract(model).orders


def depth_bias(order, scene, left_over):
    """Return the bias of the transit depth in each bin: wavelengths, ppm."""
    band, response = order.extraction.band, order.extraction.response
    star = np.sum(response * band.take(scene.target), axis=1)
    left = np.sum(response * band.take(left_over), axis=1)
    number = len(star) // BIN * BIN
    star, left, wavelength = (
        values[:number].reshape(-1, BIN).mean(axis=1) for values in (star, left, order.wavelength)
    )
    return wavelength, 1e6 * DEPTH * left / (star + left)


def compare(n_seeds, skyflats):
    """Print the table; return the data of the figure."""
    print("Bias of a transit depth of 1 %, ppm: median over bins of 64 columns, and worst")
    print(f"bin, of {n_seeds} seeds")
    print(f"{'':26}" + "".join(f"{name:>20}" for name in METHODS))
    shown = None
    for number, (magnitude, has_stars) in enumerate(CASES):
        biases = {1: {}, 2: {}}
        for seed in range(1, n_seeds + 1):
            place = (SUBSTRIP256, magnitude, 200 + 10 * number + seed)
            scene = make_scene(*place, has_stars=has_stars)
            removed = remove_sky(scene, skyflats)
            orders = extract(scene, removed["ours"])
            for order, methods in biases.items():
                for method, sky in removed.items():
                    wave, bias = depth_bias(orders[order], scene, scene.sky - sky)
                    keep = (order == 1) | (wave < REDDEST)
                    methods.setdefault(method, []).append((wave[keep], bias[keep]))
            if shown is None and (magnitude, has_stars) == (11, True):
                shown = {
                    order: {m: rows[0] for m, rows in ms.items()} for order, ms in biases.items()
                }
        for order, methods in biases.items():
            name = f"J = {magnitude}" + (", stars" if has_stars else "")
            cells = ""
            for rows in methods.values():
                absolute = np.abs([bias for _, bias in rows])
                cells += f"{np.nanmedian(absolute):10.1f}{np.nanmax(absolute):10.1f}"
            print(f"{name:18}order {order} {cells}", flush=True)
    return shown


def draw(shown):
    """Draw the bias of each method along the spectrum."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (order, methods) in zip(panels, shown.items(), strict=True):
        for method, (wave, bias) in methods.items():
            ax.plot(wave, bias, "o-", ms=3, lw=1, label=METHODS[method])
        ax.axhline(0, color="0.6", lw=0.6)
        ax.set_yscale("symlog", linthresh=10)
        ax.set(title=f"order {order}", xlabel="wavelength [micron]")
    panels[0].set_ylabel("bias of a transit depth of 1 % [ppm]")
    panels[0].legend()
    return figure


def main():
    """Print the table, and draw a scene if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seeds", type=int, default=3, help="exposures of each kind")
    parser.add_argument("--skyflats", type=Path, help="folder that keeps the skyflats")
    parser.add_argument("--plot", type=Path, help="figure to draw")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.skyflats or temporary
        shown = compare(options.seeds, tuple(make_skyflats(N_SKYFLATS, SUBSTRIP256, folder)))
    if options.plot:
        draw(shown).savefig(options.plot, dpi=80)


if __name__ == "__main__":
    main()
