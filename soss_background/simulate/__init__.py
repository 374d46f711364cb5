"""Synthetic NIRISS exposures with known truth."""

from soss_background.simulate.dispersed_sky import (
    FaintEdge,
    Glow,
    SkyShape,
    sky_image,
    sky_profile,
)
from soss_background.simulate.exposures import write_exposure
from soss_background.simulate.families import FAMILIES, choose_families, draw_simulation
from soss_background.simulate.imaging import StarImage, simulate_star
from soss_background.simulate.point_spread import PointSpread
from soss_background.simulate.scene import Stars, draw_stars, star_image
from soss_background.simulate.settings import Simulation
from soss_background.simulate.visit import simulate_time_series, simulate_visit

__all__ = [
    "FAMILIES",
    "FaintEdge",
    "Glow",
    "PointSpread",
    "Simulation",
    "SkyShape",
    "StarImage",
    "Stars",
    "choose_families",
    "draw_simulation",
    "draw_stars",
    "simulate_star",
    "simulate_time_series",
    "simulate_visit",
    "sky_image",
    "sky_profile",
    "star_image",
    "write_exposure",
]
