"""
Take the sky out of simulated time series: this package, jwst's step, and a box.

All have the same library of twelve skies, of which none is that of an exposure: levels from 0.5 to
1.5, step contrasts that scatter by 10 per cent, steps that move by up to 5 columns, structure of
their own. Errors are those of the sky that was removed, in per cent of the median sky.

    python subtract.py [--seeds N] [--plot FILE.png]
"""

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jwst.background.background_sub_soss import subtract_soss_bkg
from stdatamodels.jwst import datamodels

from soss_background.detector import PWCPOS, SUBSTRIP96, SUBSTRIP256, Window
from soss_background.numerics.integrations import average_integrations, usable_pixels
from soss_background.simulate import Simulation, draw_stars, star_image
from soss_background.simulate.detector_effects import draw_defects
from soss_background.simulate.dispersed_sky import sky_image, sky_structure
from soss_background.simulate.exposures import split_variance
from soss_background.simulate.scene import Stars
from soss_background.simulate.traces import get_trace
from soss_background.simulate.visit import observe, transit_curve
from soss_background.sky.sky_prior import build_prior
from soss_background.sky.traces import trace_distance
from soss_background.subtract.sky_fit import fit_sky

# Peak of the first order at 1.25 micron, DN/s, of a star like that of a real frame of program 1512
# (J = 9.6, 800 DN/s there) at other magnitudes.
FLUX = {9: 1400.0, 11: 220.0, 13: 35.0, None: 0.0}

# Subarray, J of the target, density of the field stars.
CASES = [
    (SUBSTRIP256, None, 0.0),
    (SUBSTRIP256, 13, 0.0),
    (SUBSTRIP256, 13, 1.0),
    (SUBSTRIP256, 11, 0.0),
    (SUBSTRIP256, 11, 1.0),
    (SUBSTRIP256, 9, 0.0),
    (SUBSTRIP256, 9, 1.0),
    (SUBSTRIP256, 11, 2.0),
    (SUBSTRIP96, 13, 1.0),
    (SUBSTRIP96, 11, 1.0),
]

# Structure that a sky has alone, relative to that which all share.
OWN_STRUCTURE = 0.3

N_TEMPLATES, N_INTEGRATIONS, INTEGRATION_TIME = 12, 20, 100.0
DEPTH = 0.01

# Rows to each side of the trace that a plain extraction adds up.
APERTURE = 20

# Box of the scaling of one template: SUBSTRIP256 rows and columns.
BOX = (slice(210, 250), slice(350, 550))


@dataclass
class Scene:
    """An exposure, its mean, and what is true of it."""

    cube: np.ndarray
    errors: np.ndarray
    flags: np.ndarray
    mean: dict
    sky: np.ndarray
    target: np.ndarray
    window: Window


def make_sky(window, rng, seed):
    """Make a sky unlike any other."""
    shift = rng.uniform(-5, 5)
    moved = Window(window.name, window.y0, window.x0 - shift, window.ny, window.nx)
    sky = sky_image(moved, contrast=rng.uniform(0.9, 1.1), structure=0)
    structure = sky_structure(window, 100) + OWN_STRUCTURE * sky_structure(window, seed)
    return (rng.uniform(0.5, 1.5) * sky * (1 + structure)).astype(np.float32)


def make_scene(window, magnitude, density, seed):
    """Observe a transit over a sky of its own."""
    rng = np.random.default_rng(seed)
    simulation = Simulation(
        seed=seed,
        window=window,
        n_exposures=1,
        n_integrations=N_INTEGRATIONS,
        exposure_time=N_INTEGRATIONS * INTEGRATION_TIME,
        flat_pixel_rms=0.0,
        flat_large_rms=0.0,
    )
    sky = make_sky(window, rng, 1000 + seed)
    light = star_image(window, draw_stars(density, seed))
    star = Stars(*(np.array([value]) for value in (0.0, 0.0, max(FLUX[magnitude], 1e-3), 9400.0)))
    target = star_image(window, star)
    curve = transit_curve(N_INTEGRATIONS, DEPTH)
    rates = (sky + light + np.float32(brightness) * target for brightness in curve)
    cube, errors, flags = observe(rates, draw_defects(simulation), simulation, 0)
    mean = average_integrations(cube, errors, flags, *split_variance(errors, simulation))
    return Scene(cube, errors, flags, mean, sky, target, window)


def subtract_ours(scene, library):
    """Fit the sky as SkyflatSubtractStep does."""
    window = scene.window
    usable = usable_pixels(*(scene.mean[name] for name in ("data", "err", "dq")))
    usable &= ~window.reference_pixels()
    prior = build_prior(library, [0 * sky for sky in library], window)
    distance = trace_distance(window, PWCPOS)
    return fit_sky(scene.mean["data"], scene.mean["err"], usable, prior, distance).sky


def subtract_jwst(scene, path):
    """Run jwst's algorithm."""
    model = datamodels.CubeModel(data=scene.cube.copy(), dq=scene.flags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = subtract_soss_bkg(model, str(path), 35.0, [25.0, 50.0])
        if done is None:
            return np.full(scene.sky.shape, np.nan)
        return np.nanmedian(scene.cube - done.data, axis=0)


def subtract_box(scene, library):
    """Scale one template in a box without bright sources."""
    rows, columns = BOX
    offset = scene.window.y0 - SUBSTRIP256.y0
    rows = slice(max(rows.start - offset, 0), rows.stop - offset)
    if rows.stop > scene.window.ny:
        rows = slice(4, 14)
    template = library[0]
    ratio = scene.mean["data"][rows, columns] / template[rows, columns]
    return np.nanmedian(ratio) * template


def measure(removed, scene):
    """Measure the error left and right, its rms, that at the step, noise, and that of a transit."""
    science = ~scene.window.reference_pixels()
    error = 100 * (removed - scene.sky) / np.median(scene.sky[science])
    columns = np.arange(scene.window.nx)
    left, right = science & (columns < 670), science & (columns > 760)
    step = science & (np.abs(columns - 705) < 20)
    grain = (removed - scene.sky)[science & (columns < 2000)]
    own = np.nanmedian(scene.errors[:, science])
    added = np.hypot(own, np.std(np.diff(grain)) / np.sqrt(2)) / own - 1
    return [
        np.median(error[left]),
        np.median(error[right]),
        np.sqrt(np.mean(error[science] ** 2)),
        np.sqrt(np.mean(error[step] ** 2)),
        100 * added,
        _transit_bias(removed, scene),
    ]


def _transit_bias(removed, scene):
    """Tell by how much the depth of a transit is off in a plain box extraction, ppm."""
    trace = get_trace("1")
    columns = np.arange(scene.window.nx)
    centre = np.interp(columns, trace.x, trace.y) - scene.window.y0
    rows = np.arange(scene.window.ny)[:, np.newaxis]
    aperture = (np.abs(rows - centre) <= APERTURE) & ~scene.window.reference_pixels()
    star = np.sum(scene.target, where=aperture)
    left_over = np.sum(scene.sky - removed, where=aperture)
    return 1e6 * DEPTH * left_over / (star + left_over)


def compare(n_seeds):
    """Print the table; return a scene to look at."""
    print("Error of the sky removed, per cent of the median sky; medians of absolute values over")
    print(
        f"{n_seeds} seeds, and the largest. step: 40 columns; noise added, per cent; transit: ppm"
    )
    heads = "".join(f"{head:>14}" for head in ("left", "right", "rms", "step"))
    print(f"{'':38}{heads}{'noise':>7}{'transit':>15}")
    shown = None
    for number, (window, magnitude, density) in enumerate(CASES):
        results = {"ours": [], "jwst": [], "box": []}
        for seed in range(1, n_seeds + 1):
            scene = make_scene(window, magnitude, density, 100 * number + seed)
            rng = np.random.default_rng(5000 + 100 * number + seed)
            full = [make_sky(SUBSTRIP256, rng, 10_000 + 20 * seed + i) for i in range(N_TEMPLATES)]
            rows = slice(window.y0 - SUBSTRIP256.y0, window.y0 - SUBSTRIP256.y0 + window.ny)
            library = [sky[rows] for sky in full]
            removed = {"ours": subtract_ours(scene, library), "box": subtract_box(scene, library)}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "library.fits"
                datamodels.SossBkgModel(data=np.array(full)).save(path)
                removed["jwst"] = subtract_jwst(scene, path)
            for name, sky in removed.items():
                results[name].append(measure(sky, scene))
            if (window, magnitude, density) == (SUBSTRIP256, 11, 1.0) and seed == 1:
                shown = scene, removed
        name = f"{window.name}, " + (f"J = {magnitude}" if magnitude else "no target")
        name += f", {density:.0f} x stars" if density else ""
        for method, rows in results.items():
            middle, worst = np.nanmedian(np.abs(rows), axis=0), np.nanmax(np.abs(rows), axis=0)
            cells = [f"{a:.2f} {b:6.2f}" for a, b in zip(middle, worst, strict=True)]
            transit = f"{middle[5]:.1f} {worst[5]:6.1f}" if magnitude else "-"
            print(f"{name:32}{method:6}" + "".join(f"{cell:>14}" for cell in cells[:4]), end="")
            print(f"{middle[4]:7.2f}{transit:>15}", flush=True)
            name = ""
    return shown


def compare_speed():
    """Print the wall times of 100 integrations."""
    scene = make_scene(SUBSTRIP256, 11, 1.0, 1)
    repeat = 100 // N_INTEGRATIONS
    cubes = [np.concatenate([part] * repeat) for part in (scene.cube, scene.errors, scene.flags)]
    rng = np.random.default_rng(1)
    library = [make_sky(SUBSTRIP256, rng, 10_000 + i) for i in range(N_TEMPLATES)]
    start = time.perf_counter()
    zero = np.broadcast_to(np.float32(0), cubes[0].shape)
    mean = average_integrations(*cubes, cubes[1] ** 2, zero)
    scene = replace(scene, cube=cubes[0], flags=cubes[2], mean=mean)
    cubes[0] - subtract_ours(scene, library)
    ours = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.fits"
        datamodels.SossBkgModel(data=np.array(library)).save(path)
        start = time.perf_counter()
        subtract_jwst(scene, path)
    jwst = time.perf_counter() - start
    print(f"\n100 integrations, {N_TEMPLATES} templates: {ours:.1f} s, jwst {jwst:.1f} s")


def draw(scene, removed, path):
    """Draw what is left, and its profile."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = {"ours": "SkyflatSubtractStep", "jwst": "jwst", "box": "one template, scaled in a box"}
    pictures = ["before", "after", *names]
    layout = [[name] * 3 for name in pictures] + [["columns", "columns", "rows"]]
    figure, axes = plt.subplot_mosaic(layout, figsize=(10, 13), layout="constrained")
    median, settings = np.median(scene.sky), {"aspect": "auto", "origin": "lower"}
    exposure = scene.mean["data"]
    axes["before"].imshow(exposure, vmin=0, vmax=3 * median, **settings)
    axes["before"].set_title("Exposure (mean of the integrations)")
    after = exposure - removed["ours"]
    image = axes["after"].imshow(after, vmin=-0.15 * median, vmax=0.15 * median, **settings)
    axes["after"].set_title("The same without its sky, tenfold contrast")
    for name, title in names.items():
        error = 100 * (removed[name] - scene.sky) / median
        image = axes[name].imshow(error, vmin=-5, vmax=5, cmap="RdBu_r", **settings)
        axes[name].set_title(f"Sky removed by {title}, minus the true one")
        axes["columns"].plot(np.median(error[4:-4], axis=0), label=title, lw=1)
        axes["rows"].plot(np.median(error[:, 4:-4], axis=1), lw=1)
    figure.colorbar(image, ax=[axes[name] for name in names], label="per cent of the sky")
    axes["columns"].set(xlabel="column", ylabel="median of rows, %", xlim=(0, 2047))
    axes["rows"].set(xlabel="row", ylabel="median of columns, %", xlim=(4, scene.window.ny - 5))
    for name in ("columns", "rows"):
        axes[name].axhline(0, color="0.6", lw=0.5)
        axes[name].set_ylim(-20, 10)
    axes["columns"].legend(loc="lower right", fontsize=7)
    figure.savefig(path, dpi=80)


def main():
    """Print the table, and draw a scene if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seeds", type=int, default=4, help="exposures of each kind")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    options = parser.parse_args()
    shown = compare(options.seeds)
    compare_speed()
    if options.plot:
        draw(*shown, options.plot)


if __name__ == "__main__":
    main()
