"""
Subtract the sky of simulated time series with this package and with jwst's step.

Both get the same skyflats, created by SkyflatPipeline from simulated visits. No skyflat has the sky
of a time series: the colour, edge, bend and glow differ for each sky, the wings for each star.

    python subtract.py [--rounds N] [--large] [--skyflats FOLDER] [--plot FILE.png]
"""

import argparse
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jwst.background.background_sub_soss import subtract_soss_bkg
from matplotlib.figure import Figure
from scenes import DEPTH, make_scene, make_skyflats, read_skyflat
from stdatamodels.jwst import datamodels

from soss_background.detector import FULL, PWCPOS, SUBSTRIP96, SUBSTRIP256
from soss_background.io.priors import read_sky
from soss_background.numerics.integrations import usable_pixels
from soss_background.simulate import FAMILIES
from soss_background.simulate.traces import get_trace
from soss_background.sky.traces import trace_distance
from soss_background.subtract.sky_fit import NoSkyError, fit_sky

# J of the target, and whether there are field stars. A round has two scenes of each kind in
# SUBSTRIP256 and one in SUBSTRIP96.
_KINDS = [(magnitude, stars) for stars in (True, False) for magnitude in (11, 9, 13, None)]
_ROUND = [SUBSTRIP256, SUBSTRIP256, SUBSTRIP96]

# Sizes of the libraries, and with --large; in FULL.
_SIZES, _LARGE, _FULL_SIZES = (1, 3, 12), 40, (1, 3)

# Rows on each side of the trace in a plain extraction, and columns of a bin.
_APERTURE, _BIN = 20, 64

# Columns left and right of the edge, and around it.
_LEFT_END, _RIGHT_START, _EDGE, _EDGE_REACH = 670, 760, 705, 20

_MAGNITUDES = (9, 11, 13)

_HEADER = """\
Error of the sky removed, % of the sky there: median of the absolute value, and worst. edge: rms
within 20 columns. 1, 2 sigma: fraction of the errors left and right that are smaller than one and
two stated errors. no sky: time series in which a method finds no sky; all of the sky is its error.
J: bias of a transit of 1 % of such a target in bins of 64 columns, ppm: median and worst.
"""


class Result(NamedTuple):
    """
    Result of a method for a scene with a library.

    Attributes
    ----------
    method : str
        "ours" or "jwst".
    size : int
        Number of skyflats.
    window : str
        The subarray.
    magnitude : int or None
        J of the target.
    wings : str
        Family of the wings.
    has_stars : bool
        Whether there are field stars.
    errors : tuple of float
        Errors of the sky left and right of the edge, and their rms at the edge, percent of the sky
        there.
    pulls : tuple of float
        Errors left and right in units of the stated ones, NaN if none are stated.
    biases : ndarray
        Bias of the depth of the transit in each bin, ppm.
    seconds : float
        CPU time.
    """

    method: str
    size: int
    window: str
    magnitude: int | None
    wings: str
    has_stars: bool
    errors: tuple
    pulls: tuple
    biases: np.ndarray
    seconds: float


@cache
def find_prior(skyflats, window):
    """Return the prior of the sky from skyflats, a tuple of paths."""
    return read_sky(skyflats, window, PWCPOS).make_prior(None)


def subtract_ours(scene, skyflats):
    """Return the sky that SkyflatSubtractStep fits, and its stated relative errors."""
    window, mean = scene.window, scene.mean
    usable = usable_pixels(mean["data"], mean["err"], mean["dq"]) & ~window.reference_pixels()
    prior, distance = find_prior(skyflats, window), trace_distance(window, PWCPOS)
    try:
        fit = fit_sky(mean["data"], mean["err"], usable, prior, distance)
    except NoSkyError:
        return np.zeros_like(scene.sky), (np.nan, np.nan)
    stated = (fit.level_left_err / fit.level_left, fit.level_right_err / fit.level_right)
    return fit.sky, stated


def subtract_jwst(scene, skyflats):
    """Return the sky that jwst's step subtracts (0 if it subtracts none), and no errors."""
    # The reference file of jwst's step has the rows of SUBSTRIP256.
    library = np.array([read_skyflat(path, SUBSTRIP256).sky for path in skyflats])
    return remove_with_jwst(scene, datamodels.SossBkgModel(data=library)), (np.nan, np.nan)


def remove_with_jwst(scene, reference):
    """Return the sky that jwst's step subtracts with a reference, a file or a model."""
    model = datamodels.CubeModel(data=scene.cube.copy(), dq=scene.flags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = subtract_soss_bkg(model, reference, 35.0, [25.0, 50.0])
        if done is None:
            return np.zeros_like(scene.sky)
        return np.nan_to_num(np.nanmedian(scene.cube - done.data, axis=0))


_METHODS = {"ours": subtract_ours, "jwst": subtract_jwst}


def measure(removed, scene):
    """Return the errors left, right and at the edge, percent of the sky there."""
    science = ~scene.window.reference_pixels()
    columns = np.arange(scene.window.nx)
    left, right = science & (columns < _LEFT_END), science & (columns > _RIGHT_START)
    error, sky = removed - scene.sky, scene.sky
    sides = [100 * np.median(error[side]) / np.median(sky[side]) for side in (left, right)]
    edge = science & (np.abs(columns - _EDGE) < _EDGE_REACH)
    return (*sides, 100 * np.sqrt(np.mean(error[edge] ** 2)) / np.median(sky[edge]))


def find_biases(removed, scene):
    """Return the bias of the depth in each bin of a plain aperture extraction, ppm."""
    trace, columns = get_trace("1"), np.arange(scene.window.nx)
    centre = np.interp(columns, trace.x, trace.y) - scene.window.y0
    rows = np.arange(scene.window.ny)[:, np.newaxis]
    aperture = (np.abs(rows - centre) <= _APERTURE) & ~scene.window.reference_pixels()
    star, left_over = (
        np.sum(image * aperture, axis=0).reshape(-1, _BIN).sum(axis=1)
        for image in (scene.target, scene.sky - removed)
    )
    return 1e6 * DEPTH * left_over / (star + left_over)


def list_scenes(n_rounds):
    """List the arguments of `make_scene`, with families of wings in random order."""
    places = [(window, *kind) for window in _ROUND for kind in _KINDS] * n_rounds
    wings = np.resize(list(FAMILIES["wings"]), len(places))
    wings = np.random.default_rng(1).permutation(wings)
    return [
        ((window, magnitude, seed), {"has_stars": stars, "wings": str(family)})
        for seed, ((window, magnitude, stars), family) in enumerate(zip(places, wings, strict=True))
    ]


def choose_library(skyflats, size, number):
    """Return the library of a scene; skyflats are used in turn."""
    n_groups = len(skyflats) // size
    first = size * (number % n_groups)
    return tuple(skyflats[first : first + size])


def compare(scene, case, library):
    """Return the result of each method, and the skies that the methods subtract."""
    results, skies = [], {}
    for name, subtract in _METHODS.items():
        start = time.process_time()
        removed, stated = subtract(scene, library)
        seconds = time.process_time() - start
        errors = measure(removed, scene)
        pulls = tuple(
            error / (100 * sigma) for error, sigma in zip(errors[:2], stated, strict=True)
        )
        biases = find_biases(removed, scene)
        results.append(Result(name, len(library), *case, errors, pulls, biases, seconds))
        skies[name] = removed
    return results, skies


def run(scenes, skyflats, sizes):
    """Return the results of all scenes, and the first scene with its skies."""
    results, shown = [], None
    for number, (place, settings) in enumerate(scenes):
        window, magnitude, _ = place
        case = (window.name, magnitude, settings["wings"], settings["has_stars"])
        scene = make_scene(*place, **settings)
        for size in sizes:
            found, skies = compare(scene, case, choose_library(skyflats, size, number))
            results += found
            _show_progress(number, found)
        shown = shown or (scene, skies)
    return results, shown


def _show_progress(number, results):
    """Print the errors of a scene, absolute and relative to those stated, to standard error."""
    for each in results:
        place = f"{each.window}, J = {each.magnitude}, {each.wings}, {each.size} skyflats"
        numbers = " ".join(f"{value:7.2f}" for value in (*each.errors, *each.pulls, each.seconds))
        print(number, place, each.method, numbers, file=sys.stderr, flush=True)


def print_tables(results):
    """Print the errors by subarray and library, by family of wings, and by field stars."""
    print(_HEADER)
    heads = ["left", "right", "edge", "1, 2 sigma", "no sky"]
    heads += [f"J = {magnitude}" for magnitude in _MAGNITUDES]
    print(_join(f"{'':30}", heads))
    for window, inside in _group(results, "window"):
        for size, chosen in _group(inside, "size"):
            number = len(chosen) // len(_METHODS)
            _print_rows(f"{window}, {size} skyflat" + "s" * (size > 1), chosen, _MAGNITUDES)
        print(f"    {number} time series")
    print("\nAll libraries and subarrays, by the wings of all stars, and by field stars")
    for family, chosen in _group([each for each in results if each.magnitude], "wings"):
        _print_rows(f"wings: {family}", chosen, ())
    for has_stars, chosen in _group(results, "has_stars"):
        _print_rows("field stars" if has_stars else "no field stars", chosen, ())


def _group(results, name):
    """Return the values of an attribute, each with its results."""
    values = dict.fromkeys(getattr(each, name) for each in results)
    return [(value, [each for each in results if getattr(each, name) == value]) for value in values]


def _print_rows(name, results, magnitudes):
    """Print a row of each method."""
    for method, chosen in _group(results, "method"):
        cells = [_summarize(errors) for errors in np.transpose([each.errors for each in chosen])]
        cells.append(_count_pulls([each.pulls for each in chosen]))
        cells.append(sum(each.errors[:2] == (-100, -100) for each in chosen))
        for magnitude in magnitudes:
            biases = [each.biases for each in chosen if each.magnitude == magnitude]
            cells.append(_summarize(biases) if biases else "-")
        print(_join(f"{name:25}{method:5}", cells), flush=True)
        name = ""


def _join(name, cells):
    """Return a row of the table."""
    return name + "".join(f"{cell:>12}" for cell in cells)


def _summarize(values):
    """Return median and largest absolute value."""
    values = np.abs(values)
    return " ".join(
        f"{value:.{0 if value >= 99.995 else 2}f}" for value in (np.median(values), values.max())
    )


def _count_pulls(pulls):
    """Return the fractions of the pulls within one and two stated errors."""
    pulls = np.abs(pulls)
    pulls = pulls[np.isfinite(pulls)]
    return f"{np.mean(pulls < 1):.2f} {np.mean(pulls < 2):.2f}" if len(pulls) else "-"


def print_times(results):
    """Print the CPU time of each method."""
    for method in _METHODS:
        seconds = [each.seconds for each in results if each.method == method]
        print(f"CPU time of a time series, {method}: {np.median(seconds):.1f} s")


def draw(scene, skies, path):
    """Draw an exposure, and the errors of the sky that each method removes."""
    titles = {"ours": "SkyflatSubtractStep", "jwst": "jwst"}
    names = ["before", "after", *titles]
    layout = [[name] * 3 for name in names] + [["columns", "columns", "rows"]]
    figure = Figure(figsize=(10, 11), layout="constrained")
    axes = figure.subplot_mosaic(layout)
    median, settings = np.median(scene.sky), {"aspect": "auto", "origin": "lower"}
    exposure = scene.mean["data"]
    axes["before"].imshow(exposure, vmin=0, vmax=3 * median, **settings)
    axes["before"].set_title("Exposure (mean of the integrations)")
    after = exposure - skies["ours"]
    axes["after"].imshow(after, vmin=-0.15 * median, vmax=0.15 * median, **settings)
    axes["after"].set_title("The same without its sky, tenfold contrast")
    for name, title in titles.items():
        error = 100 * (skies[name] - scene.sky) / median
        image = axes[name].imshow(error, vmin=-5, vmax=5, cmap="RdBu_r", **settings)
        axes[name].set_title(f"Sky removed by {title}, minus the true sky")
        axes["columns"].plot(np.median(error[4:-4], axis=0), label=title, lw=1)
        axes["rows"].plot(np.median(error[:, 4:-4], axis=1), lw=1)
    figure.colorbar(image, ax=[axes[name] for name in titles], label="% of the sky")
    axes["columns"].set(xlabel="column", ylabel="median of rows, %", xlim=(0, 2047))
    axes["rows"].set(xlabel="row", ylabel="median of columns, %", xlim=(4, scene.window.ny - 5))
    for name in ("columns", "rows"):
        axes[name].axhline(0, color="0.6", lw=0.5)
        axes[name].set_ylim(-20, 10)
    axes["columns"].legend(loc="lower right", fontsize=7)
    figure.savefig(path, dpi=80)


def main():
    """Print the tables, and draw a scene if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=1, help="rounds of 24 time series")
    parser.add_argument("--large", action="store_true", help="40 skyflats too, and FULL")
    parser.add_argument("--skyflats", type=Path, help="folder that keeps the skyflats")
    parser.add_argument("--plot", type=Path, help="figure to draw")
    options = parser.parse_args()
    sizes = (*_SIZES, _LARGE) if options.large else _SIZES
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.skyflats or temporary
        skyflats = make_skyflats(max(sizes), SUBSTRIP256, folder)
        results, shown = run(list_scenes(options.rounds), skyflats, sizes)
        if options.large:
            skyflats = make_skyflats(max(_FULL_SIZES), FULL, folder)
            scene = ((FULL, 11, 0), {"has_stars": True, "wings": "reference"})
            results += run([scene], skyflats, _FULL_SIZES)[0]
    print_tables(results)
    print_times(results)
    if options.plot:
        draw(*shown, options.plot)


if __name__ == "__main__":
    main()
