"""
Draw the figures of the step pages and of the page on the sky.

python step_figures.py DEMO [REAL]

DEMO is the folder of ``make demo``; REAL, if given, holds the published real arrays.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from matplotlib.figure import Figure
from stdatamodels.jwst import datamodels

from soss_background import (
    EncircledEnergyStep,
    FlickerNoiseStep,
    InterOrderBackgroundStep,
    OptimalExtractStep,
    SavedSkyStep,
    SkyflatModel,
    SkyflatSubtractStep,
    SurfaceBrightnessStep,
    TraceFitStep,
)
from soss_background.detector import FULL, SUBSTRIP256
from soss_background.fluxcal.plots import draw_brightness, draw_growth
from soss_background.fluxcal.psf import Psf
from soss_background.quality.metrics import count_samples
from soss_background.report import skyflat_plots, stare_plots
from soss_background.report.views import view_exposures
from soss_background.simulate import (
    Simulation,
    StarImage,
    draw_simulation,
    simulate_star,
    simulate_time_series,
    sky_image,
)
from soss_background.simulate.visit import true_sky

IMAGES = Path(__file__).parent / "images"

# Count rates at the ends of the colour map, DN/s, of exposures with their sky and without.
SKY, RESIDUAL = (2, 10), (-2, 6)

# The time series: a star of J = 11, and 1/f noise that an image shows.
SERIES = Simulation(
    window=SUBSTRIP256,
    seed=5,
    n_integrations=10,
    exposure_time=1000.0,
    stripes=0.2,
    star_density=0.5,
    flat_pixel_rms=0.0,
    flat_large_rms=0.0,
)
TARGET_FLUX = 220.0

# The column of the profile in the figure of the extraction, and the circles around the star.
PROFILE_COLUMN, CIRCLES = 1400, (5, 10, 15, 20, 25)


def main(demo, real=None):
    """Draw all figures."""
    IMAGES.mkdir(exist_ok=True)
    (path,) = Path(demo).glob("*_skyflat.fits")
    draw_skyflat_steps(path, Path(demo) / "exposures")
    with tempfile.TemporaryDirectory() as folder:
        draw_science_steps(Path(folder), str(path))
    draw_star_steps()
    draw_simulated_sky()
    if real:
        draw_real_sky(Path(real))


def draw_skyflat_steps(path, folder):
    """Draw mask, combination, denoising and quality of the demo's first exposure."""
    with SkyflatModel(path) as skyflat:
        row = skyflat.metadata[0]
        with fits.open(folder / row["filename"]) as hdus:
            exposure = np.nanmean(hdus["SCI"].data, axis=0)
        exposure = exposure / fits.getdata(folder / "flat.fits", "SCI")
        masked = skyflat.masks[0] == 1
        kept = np.where(masked, np.nan, exposure)
        removed = np.where(masked, np.nan, exposure - row["scale"] * skyflat.images[0])
        draw_squares(
            "step_mask.png",
            [
                ("exposure, flat-fielded", exposure, SKY),
                ("mask (yellow: not used)", masked, (0, 1)),
                ("background pixels", kept, SKY),
            ],
        )
        draw_squares(
            "step_combine.png",
            [
                ("masked exposure", kept, SKY),
                ("stripes and stars, subtracted", removed, (-0.3, 0.3)),
                ("mean of ten exposures (BKG)", skyflat.bkg, SKY),
            ],
        )
        draw_denoising(skyflat)
        draw_quality(skyflat)


def draw_squares(name, panels):
    """Draw FULL images side by side, each a title, an image and its limits."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    for ax, (title, image, limits) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = show(ax, np.where(FULL.reference_pixels(), np.nan, image), limits)
        ax.set(title=title, xlabel="column", ylabel="row", facecolor="0.6")
        if image.dtype != bool:
            figure.colorbar(shown, ax=ax, label="DN/s")
    figure.savefig(IMAGES / name, dpi=70)


def draw_denoising(skyflat):
    """Draw the sky around its edge, before and after it is denoised."""
    rows, columns = slice(1400, 1700), slice(550, 950)
    noisy, smooth = (plane[rows, columns] for plane in (skyflat.bkg, skyflat.bkgdn))
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = [("BKG", noisy, (4, 8)), ("noise, removed", noisy - smooth, (-0.3, 0.3))]
    panels.append(("BKGDN", smooth, (4, 8)))
    for ax, (title, image, limits) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = show(ax, image, limits, extent=(550, 950, 1400, 1700))
        figure.colorbar(shown, ax=ax, label="DN/s")
        ax.set(title=title, xlabel="column", ylabel="row")
    figure.savefig(IMAGES / "step_denoise.png", dpi=70)


def draw_quality(skyflat):
    """Draw three figures of the report."""
    stack = (skyflat.images, skyflat.masks)
    sky = np.where(FULL.reference_pixels(), np.nan, skyflat.bkg)
    views, _ = view_exposures(*stack, sky, skyflat.err, count_samples(skyflat.masks))
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    deviations, residual, pulls = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    skyflat_plots.draw_vetting(deviations, skyflat.metadata, mad_threshold=0.05)
    deviations.set_title("deviation of each exposure")
    skyflat_plots.draw_residual(residual, views[0])
    residual.set_title("smoothed residual of an exposure, -1 to 1 %")
    skyflat_plots.draw_pulls(pulls, views)
    pulls.set_title("normalised residuals")
    figure.savefig(IMAGES / "step_quality.png", dpi=70)


def draw_science_steps(folder, skyflat):
    """Draw the steps that a time series goes through."""
    path = simulate_time_series(folder, SERIES, target_flux=TARGET_FLUX, ramps=True)
    flat = str(folder / "time_series_flat.fits")
    settings = {"skyflat": skyflat, "override_flat": flat, "output_dir": str(folder)}
    step = SkyflatSubtractStep(save_background=True, **settings)
    subtracted = step.run(str(path))
    with datamodels.open(path) as exposure:
        before = np.array(exposure.data)
    draw_strips("step_subtract.png", before, np.array(subtracted.data), SKY, "sky", SKY)
    draw_saved_sky(folder)
    clean = FlickerNoiseStep.call(subtracted)
    draw_noise(np.array(subtracted.data), np.array(clean.data))
    smooth = InterOrderBackgroundStep.call(clean)
    draw_strips(
        "step_inter_order.png",
        np.array(clean.data),
        np.array(smooth.data),
        RESIDUAL,
        "smooth residual",
        (0, 1.5),
    )
    traces = TraceFitStep.call(clean)
    draw_traces(clean, traces)
    draw_extraction(clean, traces)


def draw_strips(name, before, after, limits, found, found_limits):
    """Draw the mean of a time series before and after a step, and the difference."""
    before, after = (np.nanmean(cube, axis=0) for cube in (before, after))
    panels = (("before", before, limits), (f"{found}, subtracted", before - after, found_limits))
    show_strips(name, (*panels, ("after", after, RESIDUAL)))


def show_strips(name, panels, label="DN/s"):
    """Draw images of SUBSTRIP256 below each other, each a title, an image and its limits."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    for ax, (title, image, limits) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        shown = show(ax, image, limits)
        figure.colorbar(shown, ax=ax, label=label, pad=0.01)
        ax.set(title=title, ylabel="row")
    ax.set_xlabel("column")
    figure.savefig(IMAGES / name, dpi=80)


def show(ax, image, limits, extent=None):
    """Draw an image; limits on both sides of zero call for a diverging colour map."""
    colours = "RdBu_r" if limits[0] == -limits[1] else "viridis"
    stretch = {"vmin": limits[0], "vmax": limits[1], "cmap": colours}
    return ax.imshow(image, origin="lower", aspect="auto", extent=extent, **stretch)


def draw_saved_sky(folder):
    """Draw the last group of the first integration, with its sky and without."""
    (ramp,) = folder.glob("*_ramp.fits")
    (sky,) = folder.glob("*_skyflatbackground.fits")
    with datamodels.open(ramp) as model:
        before = np.array(model.data[0, -1])
    after = np.array(SavedSkyStep.call(str(ramp), sky=str(sky)).data[0, -1])
    low, high = np.nanpercentile(before - after, [1, 99])
    limits = (low - 0.1 * high, 1.3 * high)
    panels = [("last group", before, limits), ("its sky", before - after, limits)]
    panels.append(("without the sky", after, (-0.3 * high, 0.7 * high)))
    show_strips("step_saved_sky.png", panels, label="DN")


def draw_noise(before, after):
    """Draw the deviation of an integration from the mean, with 1/f noise and without."""
    mean = np.nanmean(after, axis=0)
    limits = (-0.6, 0.6)
    panels = [("integration minus mean", before[0] - mean, limits)]
    panels.append(("1/f noise, subtracted", before[0] - after[0], limits))
    panels.append(("after", after[0] - mean, limits))
    show_strips("step_flicker_noise.png", panels)


def draw_traces(exposure, traces):
    """Draw the centres of the slices on the exposure, and their distances."""
    slices = traces.slices[traces.slices["used"] == 1]
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    image, distance = figure.subplots(2, 1)
    image.imshow(np.nanmean(exposure.data, axis=0), origin="lower", vmin=-2, vmax=60, aspect=2)
    for order in np.unique(slices["order"]):
        mine = slices[slices["order"] == order]
        line = traces.traces[traces.traces["order"] == order]
        (drawn,) = distance.plot(mine["column"], mine["row"] - mine["expected"], ".",
                                 label=f"order {order}")  # fmt: skip
        distance.plot(line["column"], line["row"] - line["expected"], color=drawn.get_color())
        image.plot(line["column"], line["row"], color="w", lw=0.7)
        image.plot(mine["column"], mine["row"], ".", color=drawn.get_color(), ms=3)
    image.set(ylabel="row", xlim=(0, 2047), ylim=(0, 255))
    distance.set(xlabel="column", ylabel="measured - expected row [pixels]", xlim=(0, 2047))
    distance.legend()
    figure.savefig(IMAGES / "step_trace_fit.png", dpi=80)


def draw_extraction(exposure, traces):
    """Draw the exposure, the profile in a column of order 1, and the spectra."""
    orders = OptimalExtractStep().extract(exposure, traces).orders
    extraction, image = orders[1].extraction, np.nanmean(exposure.data, axis=0)
    band = extraction.band
    (place,) = np.nonzero(band.columns == PROFILE_COLUMN)[0]
    rows = band.rows[place]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    parts = figure.subplot_mosaic([["image", "image"], ["profile", "spectra"]])
    parts["image"].imshow(image, origin="lower", vmin=-2, vmax=60, aspect=2)
    parts["image"].axvline(PROFILE_COLUMN, color="w", lw=0.7)
    parts["image"].set(xlabel="column", ylabel="row")
    flux = np.nanmedian(extraction.flux[:, place])
    parts["profile"].plot(rows, image[rows, PROFILE_COLUMN], "o", ms=3, label="mean")
    parts["profile"].plot(rows, flux * extraction.profile[place], label="flux times profile")
    parts["profile"].set(xlabel=f"row in column {PROFILE_COLUMN}", ylabel="DN/s")
    parts["profile"].legend()
    stare_plots.draw_orders(parts["spectra"], orders)
    figure.savefig(IMAGES / "step_optimal_extract.png", dpi=80)


def draw_star_steps():
    """Draw the curve of growth and the surface brightness of a simulated star."""
    radius = np.linspace(0.25, 15, 60)
    psf = Psf(radius, 1 - (1 + (radius / 1.1) ** 2) ** -0.8)
    star = simulate_star(psf, StarImage("F200W", 5000.0, 50.3, 49.6, bad_fraction=0.003, seed=3))
    image = np.array(star.data)
    growth, brightness = (step().run(star) for step in (EncircledEnergyStep, SurfaceBrightnessStep))
    draw_star("step_encircled_energy.png", image, lambda ax: draw_growth(ax, growth, psf))
    draw_star("step_surface_brightness.png", image, lambda ax: draw_brightness(ax, brightness))


def draw_star(name, image, draw):
    """Draw an image of a star with circles around it, and a figure beside it."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    low, high = np.nanpercentile(image, [2, 99.5])
    shown = left.imshow(image, origin="lower", vmin=low, vmax=high)
    figure.colorbar(shown, ax=left, label="DN/s")
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in CIRCLES:
        left.plot(50.3 + radius * np.cos(angle), 49.6 + radius * np.sin(angle), "w", lw=0.7)
    left.set(xlabel="x", ylabel="y")
    draw(right)
    figure.savefig(IMAGES / name, dpi=80)


def draw_simulated_sky():
    """Draw a simulated FULL sky, and profiles of skies of random families."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    skyflat_plots.draw_sky(left, sky_image(FULL), FULL)
    for seed in range(6):
        settings = draw_simulation(seed, replace(SERIES, seed=seed))
        profile = np.median(true_sky(settings)[4:-4], axis=0)[4:-4]
        right.plot(np.arange(4, 2044), profile / np.median(profile[300:650]), lw=0.9)
    right.set(xlabel="column", ylabel="sky relative to its left side")
    figure.savefig(IMAGES / "sky_simulated.png", dpi=80)


def draw_real_sky(folder):
    """Draw the commissioning background, its profile, and a frame of a bright star."""
    template = np.load(folder / "gr700xd_background_substrip96.npy")
    (path,) = folder.glob("jw01512*.npy")
    frame = np.load(path)
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for ax, image, limits in ((top, template, SKY), (bottom, frame, (0, 15))):
        figure.colorbar(show(ax, image, limits), ax=ax, label="DN/s", pad=0.01)
        ax.set_ylabel("row")
    middle.plot(np.arange(4, 2044), np.median(template[4:-4, 4:-4], axis=0))
    middle.set_ylabel("median [DN/s]")
    bottom.set_xlabel("column")
    figure.savefig(IMAGES / "sky_real.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
