"""Compare wall time and memory of whole processes with those of the peer's algorithm.

    python speed.py [--numbers 5 10 20 40] [--runs 3] [--data FOLDER] [--plot OUTPUT.png]

Exposures are simulated in FOLDER, 260 MB each, unless they are there already.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

_BIN = Path(sys.executable).parent
_PEER = Path(__file__).with_name("peer.py")

# The number of exposures for which goals are set, and the larger number for comparison.
_USUAL, _MANY = 10, 40

# Messages of the log that begin a stage; the first stage is the time before them.
_STAGES = {
    "start-up": None,
    "headers": "Step SkyflatPipeline running",
    "flat field": "Step flat_field running",
    "masks": "Step skyflat_mask running",
    "combination": "Step skyflat_combine running",
    "denoising": "Step skyflat_denoise running",
    "quality": "Step skyflat_quality running",
    "writing": "Step skyflat_quality done",
    "end": "Step SkyflatPipeline done",
}


def main():
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[5, _USUAL, 20, _MANY])
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--data", type=Path, help="folder of the exposures; it is kept")
    parser.add_argument("--plot", type=Path, help="figure of time and memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "exposures"
        associations = _prepare(data, sorted(options.numbers))
        peer, ours, stages = [], {number: [] for number in associations}, []
        for _ in range(options.runs):
            peer.append(_measure(sys.executable, _PEER, data / "flat.fits", *_exposures(data)))
            for number, association in associations.items():
                cost, log = _make_skyflat(association, data / "flat.fits", Path(folder))
                ours[number].append(cost)
                if number == _USUAL:
                    stages.append(_time_stages(log, cost[0]))
    peer = [median(values) for values in zip(*peer, strict=True)]
    ours = {n: [median(values) for values in zip(*c, strict=True)] for n, c in ours.items()}
    _print_costs(peer, ours)
    _print_goals(peer, ours)
    if stages:
        print(f"\nWhere the time of {_USUAL} exposures goes [s]")
        for stage in stages[0]:
            print(f"    {stage:14}{median(run[stage] for run in stages):6.1f}")
    if options.plot:
        _draw(peer, ours).savefig(options.plot, dpi=80)


def _prepare(folder, numbers):
    """Simulate the exposures; write an association for each number of exposures."""
    whole = sorted(folder.glob("*_skyflat_asn.json"))
    if not whole:
        count = ("--n-exposures", str(max(_USUAL, *numbers)))
        subprocess.run([_BIN / "soss-background", "simulate", folder, *count], check=True)
        whole = sorted(folder.glob("*_skyflat_asn.json"))
    content = json.loads(whole[0].read_text())
    members = content["products"][0]["members"]
    if len(members) < max(_USUAL, *numbers):
        sys.exit(f"{folder} holds {len(members)} exposures only")
    associations = {}
    for number in numbers:
        content["products"][0]["members"] = members[:number]
        associations[number] = folder / f"first_{number}.json"
        associations[number].write_text(json.dumps(content))
    return associations


def _exposures(folder):
    """List the exposures for the peer."""
    return sorted(folder.glob("*_rateints.fits"))[:_USUAL]


def _make_skyflat(association, flat, folder):
    """Run the pipeline; return its cost and its log."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    cost = _measure(
        _BIN / "strun", "soss_background.SkyflatPipeline", association, f"--output_dir={folder}",
        f"--steps.flat_field.override_flat={flat}", f"--log-file={log}", "--log-stream=null",
    )  # fmt: skip
    return cost, log.read_text()


def _measure(*command):
    """Run a program; return its wall time in seconds and its peak memory in MB."""
    start = datetime.now().timestamp()
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = datetime.now().timestamp() - start
    if status:
        sys.exit(errors.decode())
    return seconds, usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def _time_stages(log, seconds):
    """Read the duration of each stage in the log of a run."""
    times, lines = [], re.findall(r"^([\d-]+ [\d:]+),(\d+) - (.*)$", log, flags=re.MULTILINE)
    for message in list(_STAGES.values())[1:]:
        day, milliseconds, _ = next(line for line in lines if message in line[2])
        times.append(datetime.fromisoformat(f"{day}.{milliseconds}").timestamp())
    durations = [after - before for before, after in zip(times, times[1:], strict=False)]
    # The rest is the time before and after the pipeline.
    names = list(_STAGES)
    stages = dict(zip(names[1:], durations, strict=False))
    return {names[0]: seconds - sum(durations)} | stages


def _print_costs(peer, ours):
    """Print wall time and memory."""
    print(f"{'':22}{'exposures':>10}{'time [s]':>10}{'memory [MB]':>13}")
    for who, number, cost in [("peer", _USUAL, peer), *(("ours", *item) for item in ours.items())]:
        print(f"{who:22}{number:10d}{cost[0]:10.1f}{cost[1]:13.0f}")


def _print_goals(peer, ours):
    """Print the ratios that goals are about."""
    rows = []
    if _USUAL in ours:
        ratios = [mine / theirs for mine, theirs in zip(ours[_USUAL], peer, strict=True)]
        rows += [("time / the peer's", ratios[0], 0.5), ("memory / the peer's", ratios[1], 0.27)]
    if {_USUAL, _MANY} <= set(ours):
        ratios = [many / few for many, few in zip(ours[_MANY], ours[_USUAL], strict=True)]
        rows += [(f"time, {_MANY} / {_USUAL}", ratios[0], 4.4)]
        rows += [(f"memory, {_MANY} / {_USUAL}", ratios[1], 1.25)]
    if rows:
        print(f"\n{'':22}{'ratio':>10}{'goal':>10}")
    for name, ratio, goal in rows:
        print(f"{name:22}{ratio:10.2f}{goal:10.2f}")


def _draw(peer, ours):
    """Draw wall time and memory against the number of exposures."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    titles = ("wall time [s]", "peak memory [MB]")
    for ax, title, theirs, mine in zip(
        figure.subplots(1, 2), titles, peer, zip(*ours.values(), strict=True), strict=True
    ):
        ax.plot(list(ours), mine, "o-", label="soss_background")
        ax.plot(_USUAL, theirs, "s", label="the peer's algorithm")
        ax.set(xlabel="FULL exposures of three integrations", ylabel=title, ylim=(0, None))
        ax.legend()
    return figure


if __name__ == "__main__":
    main()
