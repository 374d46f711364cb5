"""Synthetic NIRISS exposures with known truth."""

from soss_background.simulate.exposures import write_exposure
from soss_background.simulate.imaging import StarImage, simulate_star
from soss_background.simulate.scene import Stars, draw_stars, sky_image, star_image
from soss_background.simulate.settings import Simulation
from soss_background.simulate.visit import simulate_time_series, simulate_visit

__all__ = [
    "Simulation",
    "StarImage",
    "Stars",
    "draw_stars",
    "simulate_star",
    "simulate_time_series",
    "simulate_visit",
    "sky_image",
    "star_image",
    "write_exposure",
]
