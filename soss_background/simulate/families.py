"""Families of conditions: each nuisance of a simulation is drawn from one of several.

A family is a function of a random generator that returns the settings to change, as a dictionary;
a dictionary in it changes the settings of the sky's shape or of the point-spread function. Every
nuisance has its own random stream, so that one family leaves the others unchanged.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from soss_background.simulate.dispersed_sky import FaintEdge, Glow
from soss_background.simulate.settings import Simulation
from soss_background.simulate.streams import random_stream

__all__ = ["FAMILIES", "RANDOM", "choose_families", "draw_simulation"]

# The name for a random family.
RANDOM = "random"
# The family that keeps the given settings of a nuisance.
REFERENCE = "reference"
# Largest shift (pixels) of the traces, rms of its quadratic part and of its tilt.
LARGEST_TRACE_SHIFT, TRACE_BEND, TRACE_TILT = 1.5, 0.3, 0.3


def choose_families(simulation, **families):
    """
    Change the nuisances of a simulation to those of given families.

    Parameters
    ----------
    simulation : `Simulation`
        The settings; its seed decides the numbers that a family draws.
    **families : str
        Name of the family of each nuisance, a key of ``FAMILIES[nuisance]``, or "random" for one
        of them. Nuisances that are not named are not changed.

    Returns
    -------
    simulation : `Simulation`
        The settings with these families.

    Raises
    ------
    ValueError
        If there is no such nuisance or family.
    """
    for nuisance, family in families.items():
        if nuisance not in FAMILIES:
            raise ValueError(f"no nuisance {nuisance!r}; there are {', '.join(FAMILIES)}")
        choices = FAMILIES[nuisance]
        if family == RANDOM:
            rng = random_stream(simulation.seed, f"family of {nuisance}")
            family = list(choices)[rng.integers(len(choices))]
        if family not in choices:
            raise ValueError(f"no family {family!r} of {nuisance}; there are {', '.join(choices)}")
        rng = random_stream(simulation.seed, f"{nuisance} {family}")
        chosen = dict(simulation.families) | {nuisance: family}
        changes = choices[family](rng) | {"families": tuple(chosen.items())}
        simulation = _change(simulation, changes)
    return simulation


def _change(settings, changes):
    """Replace fields of a dataclass; dictionaries among them change dataclasses in its fields."""
    changes = {
        name: _change(getattr(settings, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(settings, **changes)


def draw_simulation(seed, simulation=None, **families):
    """
    Draw a simulation with a random family of each nuisance.

    Parameters
    ----------
    seed : int
        Seed of the simulation and of the draw.
    simulation : `Simulation`, optional
        Other settings; those of the nuisances are replaced.
    **families : str
        Families of nuisances that are not drawn, as for `choose_families`.

    Returns
    -------
    simulation : `Simulation`
        The settings.

    Raises
    ------
    ValueError
        If there is no such nuisance or family.
    """
    simulation = replace(simulation or Simulation(), seed=seed)
    return choose_families(simulation, **(dict.fromkeys(FAMILIES, RANDOM) | families))


class _Range(NamedTuple):
    """Limits between which a number is drawn uniformly."""

    low: float
    high: float


def _settings(**settings):
    """Return a family of settings, of which some are ranges."""

    def draw(rng):
        return {
            name: float(rng.uniform(*value)) if isinstance(value, _Range) else value
            for name, value in settings.items()
        }

    return draw


def _sky(**settings):
    """Return a family of settings of the `SkyShape`."""
    draw = _settings(**settings)
    return lambda rng: {"sky_shape": draw(rng)}


def _spread(**settings):
    """Return a family of settings of the `PointSpread`."""
    draw = _settings(**settings)
    return lambda rng: {"spread": draw(rng)}


def _signed(rng, low, high):
    """Return a number of random sign whose absolute value lies between two values."""
    return float(rng.choice([-1, 1]) * rng.uniform(low, high))


def _draw_colours(rng):
    """Draw the colours of both sides of the edge: 1 to 4 % right of it, half as much left."""
    right = (_signed(rng, 0.01, 0.04), _signed(rng, 0.005, 0.02), _signed(rng, 0.0, 0.01))
    left = (_signed(rng, 0.005, 0.02), _signed(rng, 0.0, 0.01))
    return {"sky_shape": {"left_colour": left, "right_colour": right}}


def _draw_bend(rng):
    """Draw the lean and the curvature of the edge."""
    bend = {"lean": _signed(rng, 0.3, 1.5), "curvature": float(rng.uniform(-8, 8))}
    return {"sky_shape": bend}


def _draw_faint_edges(bend):
    """Return a function that draws one or two faint edges."""

    def draw(rng):
        edges = tuple(
            FaintEdge(
                column=float(rng.uniform(100, 1950)),
                height=_signed(rng, 0.005, 0.02),
                width=float(rng.uniform(2, 8)),
                bend=bend,
            )
            for _ in range(rng.integers(1, 3))
        )
        return {"sky_shape": {"faint_edges": edges}}

    return draw


def _draw_corner_glow(rng):
    """Draw a glow of 1 to 3 % in a corner."""
    x, y = (float(place) for place in rng.choice([0, 2047], 2))
    glow = Glow(float(rng.uniform(0.01, 0.03)), float(rng.uniform(200, 600)), x, y)
    return {"sky_shape": {"glow": glow}}


def _draw_border_glow(rng):
    """Draw a glow of 1 to 3 % along a border."""
    x, y = [(0.0, None), (2047.0, None), (None, 0.0), (None, 2047.0)][rng.integers(4)]
    glow = Glow(float(rng.uniform(0.01, 0.03)), float(rng.uniform(100, 400)), x, y)
    return {"sky_shape": {"glow": glow}}


def _draw_trace_shifts(rng):
    """Draw a smooth shift of each order's trace, at most LARGEST_TRACE_SHIFT, and its tilt."""
    place = np.linspace(-1, 1, 101)
    shifts = []
    for _ in range(3):
        scales = [LARGEST_TRACE_SHIFT, TRACE_TILT, TRACE_BEND]
        coefficients = rng.uniform(-1, 1, 3) * scales
        largest = np.abs(np.polynomial.legendre.legval(place, coefficients)).max()
        coefficients *= min(1, LARGEST_TRACE_SHIFT / largest)
        shifts.append(tuple(map(float, coefficients)))
    return {"trace_shifts": tuple(shifts)}


# Nuisance, and its families: name and function.
FAMILIES = {
    "stripes": {
        "pink": _settings(stripe_power=1.0),
        "white": _settings(stripe_power=0.0),
        "walk": _settings(stripe_power=2.0),
    },
    "amplifiers": {
        "shared": _settings(stripe_sharing=1.0),
        "own": _settings(stripe_sharing=0.0),
        "mixed": _settings(stripe_sharing=0.5),
    },
    "pedestals": {"none": _settings(pedestals=0.0), "each": _settings(pedestals=0.02)},
    "core": {
        "horns": _spread(core="horns", width=_Range(0.8, 1.25)),
        "flat": _spread(core="flat", width=_Range(0.8, 1.25)),
        "gaussian": _spread(core="gaussian", width=_Range(0.8, 1.25)),
    },
    "wings": {
        REFERENCE: _spread(wings="reference", wing_scale=0.0),
        "none": _spread(wings="none", wing_scale=0.0),
        "cut": _spread(wings="cut", wing_scale=_Range(40.0, 80.0)),
        "r^-2": _spread(wings="power law", wing_scale=2.0),
        "r^-3": _spread(wings="power law", wing_scale=3.0),
        "exponential": _spread(wings="exponential", wing_scale=_Range(20.0, 60.0)),
    },
    "colour": {
        REFERENCE: _settings(step_contrast=1.0),
        "contrast": _settings(step_contrast=_Range(0.9, 1.1)),
        "shape": _draw_colours,
    },
    "edge": {
        REFERENCE: _settings(),
        "shifted": _sky(edge_shift=_Range(-6.0, 6.0)),
        "wide": _sky(edge_shift=_Range(-6.0, 6.0), edge_width=_Range(1.0, 2.0)),
        "narrow": _sky(edge_shift=_Range(-6.0, 6.0), edge_width=_Range(0.6, 1.0)),
    },
    "bend": {
        REFERENCE: _settings(),
        "none": _sky(lean=0.0, curvature=0.0),
        "other": _draw_bend,
    },
    "faint_edges": {
        "none": _sky(faint_edges=()),
        "vertical": _draw_faint_edges(bend=0.0),
        "bent": _draw_faint_edges(bend=1.0),
    },
    "rows": {
        "none": _sky(row_rms=0.0),
        "smooth": _sky(row_rms=0.005),
    },
    "glow": {
        "none": _sky(glow=None),
        "corner": _draw_corner_glow,
        "border": _draw_border_glow,
    },
    "density": {
        "sparse": _settings(star_density=_Range(0.2, 0.5)),
        "moderate": _settings(star_density=_Range(0.7, 1.3)),
        "crowded": _settings(star_density=_Range(2.0, 3.0)),
    },
    "counts": {
        REFERENCE: _settings(star_slope=0.9),
        "steep": _settings(star_slope=_Range(1.0, 1.3)),
        "shallow": _settings(star_slope=_Range(0.6, 0.8)),
    },
    "spectra": {
        "cool": _settings(star_spectra="cool"),
        "all": _settings(star_spectra="all"),
        "flat": _settings(star_spectra="flat"),
    },
    "galaxies": {"none": _settings(galaxies=0.0), "some": _settings(galaxies=_Range(0.2, 0.5))},
    "order0": {"drawn": _settings(order0=True), "none": _settings(order0=False)},
    "traces": {REFERENCE: _settings(trace_shifts=()), "shifted": _draw_trace_shifts},
    "persistence": {
        "none": _settings(persistence=0.0),
        "some": _settings(persistence=_Range(0.003, 0.01), persistence_decay=_Range(0.2, 0.7)),
    },
    "snowballs": {"none": _settings(snowballs=0.0), "some": _settings(snowballs=_Range(2.0, 6.0))},
    "cosmic_rays": {
        REFERENCE: _settings(unflagged_cosmic_rays=0.05),
        "missed": _settings(unflagged_cosmic_rays=_Range(0.05, 0.3)),
    },
    "flat": {
        "exact": _settings(flat_pixel_error=0.0, flat_large_error=0.0),
        "wrong": _settings(flat_pixel_error=0.003, flat_large_error=0.003),
    },
    "levels": {
        REFERENCE: _settings(level_drift=0.0),
        "drift": _settings(level_drift=_Range(-0.01, 0.01)),
    },
    "errors": {
        "true": _settings(error_factor=1.0),
        "misstated": _settings(error_factor=_Range(0.7, 1.3)),
    },
}
