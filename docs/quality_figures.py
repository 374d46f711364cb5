"""Draw the figures of the docs on quality: of the demo's skyflat, and of many simulated skies."""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.time import Time
from matplotlib.figure import Figure

from soss_background import SkyflatModel, make_sky_model
from soss_background.detector import FULL, SUBSTRIP256
from soss_background.quality.metrics import count_samples
from soss_background.report import skyflat_plots as plots
from soss_background.report.sky_model_plots import draw_sky_model
from soss_background.report.views import view_exposures
from soss_background.simulate import Simulation, draw_simulation, sky_image
from soss_background.simulate.visit import true_sky
from soss_background.survey.characterization import characterize
from soss_background.survey.zodi import predict_brightness, sun_angle

IMAGES = Path(__file__).parent / "images"

# Solar elongations at which the telescope can look.
ELONGATIONS = (85, 135)

# Scatter of the simulated levels and step contrasts.
LEVEL_SCATTER, CONTRAST_SCATTER = 0.03, 0.02


def main(skyflat):
    """Draw all figures."""
    draw_skyflat(skyflat).savefig(IMAGES / "quality.png", dpi=80)
    with tempfile.TemporaryDirectory() as folder:
        characterize(list(simulate_skyflats(40)), Path(folder))
        for figure in Path(folder).glob("*.png"):
            shutil.copy(figure, IMAGES / f"characterize_{figure.name}")
    model = make_sky_model(list(draw_shapes(20)))
    draw_sky_model(model).savefig(IMAGES / "sky_model.png", dpi=80)


def draw_skyflat(path):
    """Draw some figures of the report, with its public functions."""
    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = figure.subplots(2, 3, width_ratios=(1.5, 1, 1)).ravel()
    with SkyflatModel(path) as skyflat:
        coverage = count_samples(skyflat.masks)
        stack = (skyflat.images, skyflat.masks)
        sky = np.where(FULL.reference_pixels(), np.nan, skyflat.bkg)
        views, variation = view_exposures(*stack, sky, skyflat.err, coverage)
        limits = np.nanpercentile(sky, [0.5, 99.5])
        plots.draw_exposure(axes[0], views[0], limits)
        plots.draw_residual(axes[1], views[0])
        plots.draw_coverage(axes[2], coverage, FULL)
        plots.draw_vetting(axes[3], skyflat.metadata, mad_threshold=0.05)
        plots.draw_variation(axes[4], variation, FULL)
        plots.draw_pulls(axes[5], views)
    titles = ("An exposure, its mask outlined", "Its smoothed residual, -1 to 1 %")
    titles += ("Exposures used at each pixel", "Deviation of the exposures from their sky")
    titles += ("Coefficient of variation", "Residuals in units of their expected scatter")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    return figure


def simulate_skyflats(number, seed=1):
    """Yield skyflats whose level follows the zodiacal light, within the field of regard."""
    rng = np.random.default_rng(seed)
    while number:
        lon, lat = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
        time = Time(rng.uniform(59800, 60900), format="mjd")
        frame = BarycentricMeanEcliptic()
        pointing = SkyCoord(lon * u.deg, lat * u.deg, frame=frame, obstime=time)
        if ELONGATIONS[0] < sun_angle(pointing).value < ELONGATIONS[1]:
            number -= 1
            yield make_skyflat(pointing, rng, number)


def make_skyflat(pointing, rng, seed):
    """Simulate the skyflat of a pointing."""
    pwcpos = rng.uniform(245.65, 245.87)
    level = 5 * predict_brightness(pointing).value * (1 + LEVEL_SCATTER * rng.standard_normal())
    contrast = 1 + CONTRAST_SCATTER * rng.standard_normal()
    sky = level * sky_image(SUBSTRIP256, pwcpos=pwcpos, contrast=contrast, seed=seed)
    skyflat = wrap_sky(sky, seed)
    meta = skyflat.meta
    meta.instrument.pupil_position, meta.exposure.mid_time = pwcpos, pointing.obstime.mjd
    meta.skyflat.ecliptic_lon, meta.skyflat.ecliptic_lat = pointing.lon.deg, pointing.lat.deg
    meta.skyflat.day = pointing.obstime.to_datetime().timetuple().tm_yday
    return skyflat


def draw_shapes(number):
    """Yield skyflats whose shape is that of random families, with noise of 0.1 %."""
    for seed in range(number):
        simulation = draw_simulation(seed, Simulation(window=SUBSTRIP256))
        skyflat = wrap_sky(true_sky(simulation), seed)
        skyflat.meta.skyflat.noise_factor = 0.1
        yield skyflat


def wrap_sky(sky, number):
    """Return a skyflat of SUBSTRIP256."""
    skyflat = SkyflatModel(bkg=sky, bkgdn=sky.copy(), err=0.01 * sky)
    skyflat.dq = SUBSTRIP256.reference_pixels().astype(np.uint32)
    meta = skyflat.meta
    meta.filename = f"simulated_{number:03d}_skyflat.fits"
    meta.subarray.name = SUBSTRIP256.name
    meta.subarray.xstart, meta.subarray.ystart = 1, SUBSTRIP256.y0 + 1
    return skyflat


if __name__ == "__main__":
    main(sys.argv[1])
