"""Compare the accuracy of our skies with the peer's and the limit in many simulated visits.

    python accuracy.py [--visits N] [--only WORD] [--ablation] [--workers N]

All errors are in percent of the median sky, after the best scale is applied, without reference
pixels.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
from astropy.stats import mad_std
from datasets import list_visits, observe_visit
from skies import ABLATIONS, limit_sky, our_sky

from soss_background.simulate.comparison import sky_errors

# Columns of the table: first for the denoised sky, then for the combined sky.
_COLUMNS = ("scatter", "99 %", "rms", "blocks", "edge", "BKG", "/ERR", "no sky")
_DENOISED = ("scatter", "p99", "rms", "blocks", "edge")
# Goals of the random visits: median, and worst.
_GOALS = {
    "goal: median": (0.15, 0.50, 0.20, 0.12, 0.30, np.nan, 1.00, 0),
    "goal: worst": (0.30, 0.90, 0.35, 0.25, 0.50, np.nan, 1.05, 0),
}
_RATIO = _COLUMNS.index("/ERR")
_WHO = ("ours", "peer", "limit")


def main():
    """Run the benchmark and print its table."""
    options = _read_options()
    visits = {
        group: {name: each for name, each in members.items() if options.only in name}
        for group, members in list_visits(options.visits).items()
    }
    print(f"{'':40}" + "".join(f"{column:>9}" for column in _COLUMNS))
    for name, goal in _GOALS.items():
        print(_row(name, goal), flush=True)
    with ProcessPoolExecutor(options.workers) as pool:
        for group, members in visits.items():
            if members and options.ablation:
                print_ablations(members, pool)
            elif members:
                print_group(group, members, pool)
    if not any(visits.values()):
        print(f"No visit has {options.only!r} in its name")


def _read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only visits with this word in their name")
    parser.add_argument("--visits", type=int, default=30, help="number of visits drawn at random")
    parser.add_argument("--ablation", action="store_true", help="remove ingredients instead")
    parser.add_argument("--workers", type=int, default=2, help="processes, 4 GB each")
    return parser.parse_args()


def print_group(group, visits, pool):
    """Print a line per visit of a group, the median and worst, and visits where we are worse."""
    print(f"\n{group}: ours, and the scatter of the peer and of the limit")
    results, worse = {who: [] for who in _WHO}, []
    for name, rows in zip(visits, pool.map(measure_visit, visits.values()), strict=True):
        scatters = "".join(f"{rows[who][0]:9.2f}" for who in ("peer", "limit"))
        print(_row(f"    {name}", rows["ours"]) + scatters, flush=True)
        for who in _WHO:
            results[who].append(rows[who])
        columns = _columns_where_worse(rows["ours"], rows["peer"])
        if columns:
            worse.append(f"{name} ({', '.join(columns)})")
    for who in _WHO:
        print(_row(f"  median of {who}", np.median(results[who], axis=0)))
        print(_row(f"  worst of {who}", find_worst(results[who])))
    print(f"  ours is worse than the peer: {'; '.join(worse) or 'nowhere'}", flush=True)


def _columns_where_worse(ours, peer):
    """List the columns in which our errors are larger than the peer's."""
    return [
        column
        for column, one, other in zip(_COLUMNS, ours, peer, strict=True)
        if one > other + 1e-9 and column != "/ERR"
    ]


def find_worst(rows):
    """Return the largest value of each column; of the ratio to ERR, that farthest from 1."""
    rows = np.array(rows)
    worst = rows.max(axis=0)
    ratios = rows[:, _RATIO]
    if np.isfinite(ratios).all():
        worst[_RATIO] = ratios[np.argmax(np.abs(np.log(ratios)))]
    return worst


def print_ablations(visits, pool):
    """Print a table of the ingredients of each visit."""
    for name, rows in zip(visits, pool.map(measure_ablations, visits.values()), strict=True):
        print(f"\n{name}")
        for ingredient, values in rows.items():
            print(_row(f"    {ingredient}", values), flush=True)


def measure_visit(simulation):
    """Measure the skies of one visit."""
    from peer import peer_sky  # its dependencies are slow to import, and only needed here

    visit = observe_visit(simulation)
    return {
        "peer": _measure(visit, *peer_sky(visit.images, visit.errors, visit.flags)),
        "ours": _measure_ours(visit, *our_sky(visit)),
        "limit": _measure_ours(visit, *limit_sky(visit)),
    }


def measure_ablations(simulation):
    """Measure our sky of one visit with each ingredient removed in turn."""
    visit = observe_visit(simulation)
    rows = {}
    for ingredient, change in {"all ingredients": None, **ABLATIONS}.items():
        with patch.object(*change) if change else nullcontext():
            rows[ingredient] = _measure_ours(visit, *our_sky(visit))
    return rows


def _measure_ours(visit, combined, denoised):
    """Measure one of our skies, and the ratio of its scatter to its ERR."""
    return _measure(visit, combined.sky, denoised, combined.err)


def _measure(visit, sky, denoised, err=None):
    """Measure a sky, denoised and combined; also in units of its uncertainty, if it has any."""
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
    return f"{name:40}" + "".join(f"{number:9.2f}" for number in numbers) + f"{lost:9.0f}"


if __name__ == "__main__":
    main()
