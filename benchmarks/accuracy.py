"""How accurate skies are: ours beside the peer's and the limit, over many simulated visits.

    python accuracy.py [--only WORD] [--ablation]

All errors are in per cent of the median sky, the best scale removed, without reference pixels.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
from astropy.stats import mad_std
from datasets import SIMULATIONS, observe_visit
from skies import ABLATIONS, limit_sky, our_sky

from soss_background.simulate.comparison import sky_errors

# Columns of the table: of the denoised sky, then of the sky as it is combined.
_COLUMNS = ("scatter", "99 %", "rms", "large", "step", "BKG", "/ERR", "no sky")
_DENOISED = ("scatter", "p99", "rms", "large_scale", "step")
_GOAL = (0.18, 0.60, 0.30, 0.12, 0.35, 1.25, 1.1, 0)


def main():
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="visits whose names hold this word")
    parser.add_argument("--ablation", action="store_true", help="take ingredients away instead")
    parser.add_argument("--workers", type=int, default=2, help="processes, 4 GB each")
    options = parser.parse_args()
    names = [name for name in SIMULATIONS if options.only in name]
    if not names:
        parser.error(f"no visit of this name; there are {'; '.join(SIMULATIONS)}")
    print(f"{'':40}" + "".join(f"{column:>9}" for column in _COLUMNS))
    print(_row("goal, reference visit", _GOAL), flush=True)
    worse = []
    with ProcessPoolExecutor(options.workers) as pool:
        measure = measure_ablations if options.ablation else measure_visit
        for name, rows in zip(names, pool.map(measure, names), strict=True):
            print(f"\n{name}")
            for who, values in rows.items():
                print(_row(f"    {who}", values), flush=True)
            if "peer" in rows and np.any(np.array(rows["ours"]) > np.array(rows["peer"]) + 1e-9):
                worse.append(name)
    if not options.ablation:
        print(f"\nWorse than the peer in any column: {', '.join(worse) or 'nowhere'}")


def measure_visit(name):
    """Measure the skies of one visit."""
    from peer import peer_sky  # what it needs is slow to import, and for it alone

    visit = observe_visit(SIMULATIONS[name])
    return {
        "peer": _measure(visit, *peer_sky(visit.images, visit.errors, visit.flags)),
        "ours": _measure_ours(visit, *our_sky(visit)),
        "limit": _measure_ours(visit, *limit_sky(visit)),
    }


def measure_ablations(name):
    """Measure our sky of one visit with one ingredient after the other taken away."""
    visit = observe_visit(SIMULATIONS[name])
    rows = {}
    for ingredient, change in {"all ingredients": None, **ABLATIONS}.items():
        with patch.object(*change) if change else nullcontext():
            rows[ingredient] = _measure_ours(visit, *our_sky(visit))
    return rows


def _measure_ours(visit, combined, denoised):
    """Measure a sky of ours, and its scatter against its ERR."""
    return _measure(visit, combined.sky, denoised, combined.err)


def _measure(visit, sky, denoised, err=None):
    """Measure a sky, denoised and not; in units of its uncertainty, if it tells any."""
    science = ~visit.window.reference_pixels()
    _, metrics = sky_errors(denoised, visit.truth, science)
    error, before = sky_errors(sky, visit.truth, science)
    ratio = np.nan
    if err is not None:
        pull = error[science] * np.median(visit.truth[science]) / 100 / err[science]
        ratio = mad_std(pull, ignore_nan=True)
    lost = np.count_nonzero(~np.isfinite(denoised[science]))
    return [*(metrics[key] for key in _DENOISED), before["scatter"], ratio, lost]


def _row(name, values):
    """Format a row of the table."""
    *numbers, lost = values
    return f"{name:40}" + "".join(f"{number:9.2f}" for number in numbers) + f"{lost:9d}"


if __name__ == "__main__":
    main()
