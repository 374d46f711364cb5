"""Draw the figure of the flux calibration: simulated stars in all filters."""

from pathlib import Path

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from soss_background import EncircledEnergyStep, SurfaceBrightnessStep
from soss_background.detector import FILTERS
from soss_background.fluxcal.plots import draw_brightness, draw_growth, draw_ratios
from soss_background.fluxcal.psf import Psf
from soss_background.fluxcal.rates import average_tables, compare_rates, total_rates
from soss_background.simulate import StarImage, simulate_star


def make_psf(name):
    """Make a PSF that is wider the redder the filter is."""
    radius, width = np.linspace(0.25, 15, 60), 0.6 + 0.0025 * int(name[1:4])
    return Psf(radius, 1 - (1 + (radius / width) ** 2) ** -0.8)


def observe(step, name, rate):
    """Measure two dithers of a star; return their average."""
    random = np.random.default_rng(int(name[1:4]))
    images = [
        StarImage(name, rate, *(50 + random.uniform(-3, 3, 2)), bad_fraction=0.01, seed=seed)
        for seed in (1, 2)
    ]
    return average_tables([step.run(simulate_star(make_psf(name), image)) for image in images])


def main():
    """Draw the figure."""
    rates = {name: 2e4 * (int(name[1:4]) / 90) ** -2 for name in FILTERS}
    step = EncircledEnergyStep()
    means = [observe(step, name, rate) for name, rate in rates.items()]
    totals = total_rates(means, make_psf, (5, 10))
    truth = Table({"filter": list(rates), "count_rate": list(rates.values())})
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    draw_growth(first, means[5], make_psf(FILTERS[5]))
    draw_brightness(second, observe(SurfaceBrightnessStep(), FILTERS[5], rates[FILTERS[5]]))
    draw_ratios(third, compare_rates(truth, totals))
    figure.savefig(Path(__file__).parent / "images" / "fluxcal.png", dpi=100)


if __name__ == "__main__":
    main()
