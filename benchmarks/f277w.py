"""
Find contaminants of simulated time series with an exposure with F277W, and without.

Both get the prior of five simulated skies, none like that of a time series. Field stars are as
dense as in a moderate field.

    python f277w.py [--seeds N]
"""

import argparse
from dataclasses import replace

import numpy as np
from scenes import FLUX
from tqdm import tqdm

from soss_background.detector import PWCPOS, SUBSTRIP256
from soss_background.numerics.integrations import average_integrations, usable_pixels
from soss_background.simulate import Simulation, Stars, draw_stars, sky_image, star_image
from soss_background.simulate.detector_effects import draw_defects
from soss_background.simulate.visit import TARGET_TEMPERATURE, observe, true_sky
from soss_background.sky.averaging import Sky
from soss_background.sky.sky_prior import build_prior
from soss_background.sky.traces import trace_distance
from soss_background.subtract.contaminants import find_contaminants
from soss_background.subtract.sky_fit import fit_sky

_WINDOW, _SCIENCE = SUBSTRIP256, ~SUBSTRIP256.reference_pixels()
_MAGNITUDES = (9, 11, 13)

# A pixel is contaminated if the light of field stars exceeds this fraction of the sky.
_CONTAMINATED = 0.1

# Distance from the target's traces within which the fit uses no pixel of CLEAR, pixels.
_TRACE = 20

# Last column left of the edge of the sky, and first right of it.
_LEFT_END, _RIGHT_START = 670, 760

_HEADER = """\
Contaminated pixels (field stars brighter than 10 % of the sky), % that are masked: beside the
target's traces, and at them, where the fit in CLEAR sees no source. false: % of the frame that
F277W masks without such stars (0.2 % of the sky). Error of the sky, % of the sky there: median of
the absolute value, and worst; 2 sigma: fraction smaller than two stated errors.

                         beside  at traces   false         left        right  2 sigma"""


def make_prior():
    """Return the prior of five skies."""
    skies = []
    for number in range(5):
        sky = sky_image(_WINDOW, seed=100 + number, contrast=0.96 + 0.02 * number)
        noise = np.float32(0.003) * sky
        skies.append(Sky(sky, noise, noise, np.zeros(sky.shape, np.uint32), f"sky {number}"))
    return build_prior(skies, _WINDOW)


def observe_mean(simulation, stars, target, number):
    """Return sky and light of the stars, DN/s, and flat-fielded image, errors, usable pixels."""
    sky = true_sky(simulation)
    settings = {"filter_name": simulation.filter_name}
    light, own = (star_image(_WINDOW, each, **settings) for each in (stars, target))
    defects = draw_defects(simulation)
    rates = [sky + light + own] * simulation.n_integrations
    images, errors, dq = observe(rates, defects, simulation, number)
    mean = average_integrations(images, errors, dq, errors**2, 0 * errors)
    usable = usable_pixels(mean["data"], mean["err"], mean["dq"]) & _SCIENCE
    return sky, light, (mean["data"] / defects.flat, mean["err"] / defects.flat, usable)


def measure(seed, magnitude, prior):
    """Return a row of results without F277W and one with it."""
    settings = Simulation(
        window=_WINDOW, seed=seed, n_exposures=1, n_integrations=10, exposure_time=550.0
    )
    stars = draw_stars(1.0, seed)
    target = Stars(*(np.array([x]) for x in (0.0, 0.0, FLUX[magnitude], TARGET_TEMPERATURE)))
    sky, light, exposure = observe_mean(settings, stars, target, 0)
    red = replace(settings, filter_name="F277W")
    _, _, companion = observe_mean(red, stars, target, 1)
    distance, other = (
        trace_distance(_WINDOW, PWCPOS, filter_name=name) for name in ("CLEAR", "F277W")
    )
    sources = find_contaminants(*companion, _WINDOW, other, subtracted=False)
    bad, at = (light > _CONTAMINATED * sky) & _SCIENCE, distance <= _TRACE
    dark, rows = light < 0.002 * sky, []
    for given in (None, sources):
        fit = fit_sky(*exposure, prior, distance, sources=given)
        known = np.zeros_like(bad) if given is None else given
        masked = (~fit.used & ~at) | known
        counts = [np.count_nonzero(each) for each in (bad & ~at, bad & at)]
        found = [np.count_nonzero(each & masked) for each in (bad & ~at, bad & at)]
        rows.append((*counts, *found, np.mean(known & dark), *find_errors(fit, sky)))
    return rows


def find_errors(fit, sky):
    """Return the errors left and right, percent, and in units of the stated ones."""
    columns, errors, pulls = np.arange(_WINDOW.nx), [], []
    stated = (fit.level_left_err / fit.level_left, fit.level_right_err / fit.level_right)
    for side, sigma in zip((columns < _LEFT_END, columns > _RIGHT_START), stated, strict=True):
        part = _SCIENCE & side
        errors.append(np.median((fit.sky - sky)[part]) / np.median(sky[part]))
        pulls.append(errors[-1] / sigma)
    return (*(100 * error for error in errors), *pulls)


def print_row(name, rows):
    """Print the results of a method."""
    rows = np.array(rows)
    beside, at, found_beside, found_at, *_ = rows.sum(axis=0)
    errors = [f"{np.median(abs(side)):.2f} {abs(side).max():.2f}" for side in rows[:, 5:7].T]
    within = np.mean(np.abs(rows[:, 7:9]) < 2)
    print(
        f"{name:21}{100 * found_beside / beside:10.1f}{100 * found_at / at:11.1f}"
        f"{100 * rows[:, 4].mean():8.2f}{errors[0]:>13}{errors[1]:>13}{within:9.2f}"
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seeds", type=int, default=6, help="time series of each target")
    options = parser.parse_args()
    prior, results = make_prior(), {}
    pairs = [(seed, each) for each in _MAGNITUDES for seed in range(1, 1 + options.seeds)]
    for seed, magnitude in tqdm(pairs, disable=None):
        results.setdefault(magnitude, []).append(measure(100 * magnitude + seed, magnitude, prior))
    print(_HEADER)
    for magnitude, rows in results.items():
        for index, name in enumerate(("without", "with --f277w")):
            print_row(f"J = {magnitude:2} {name}", [pair[index] for pair in rows])
    print(f"    {len(pairs)} time series of SUBSTRIP256")


if __name__ == "__main__":
    main()
