"""Figures of many skyflats, each drawn on given axes; `survey_skies` returns their tables."""

import numpy as np
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, Galactic, SkyCoord
from matplotlib.ticker import MaxNLocator, PercentFormatter

from soss_background.steps.figures import COLOURS, FAINT, show_image

__all__ = [
    "QUANTITIES",
    "VARIABLES",
    "draw_component",
    "draw_explained",
    "draw_map",
    "draw_residuals",
    "draw_trend",
    "draw_zodiacal_light",
]

# Variables and the quantities that may depend on them: columns of the table and their labels.
VARIABLES = {
    "LON": "ecliptic longitude [deg]",
    "LAT": "ecliptic latitude [deg]",
    "DOY": "day of the year",
    "elongation": "solar elongation [deg]",
    "PWCPOS": "pupil wheel position [deg]",
}
QUANTITIES = {
    "level [DN/s]": {"level_left": "left", "level_right": "right"},
    "right / left": {"level_ratio": None},
    "edge column [pixel]": {"step_column_": "row"},
    "edge width [pixel]": {"step_width_": "row"},
}


def draw_trend(ax, table, variable, quantity):
    """Draw one of the ``QUANTITIES`` against one of the ``VARIABLES``."""
    for (column, label), colour in zip(_columns(table, quantity), COLOURS, strict=False):
        # Rounding errors would lengthen the labels.
        place = np.round(np.asarray(table[variable], dtype=float), 3)
        ax.plot(place, table[column], "o", ms=3.5, color=colour, label=label)
    ax.set(xlabel=VARIABLES[variable], ylabel=quantity)
    ax.ticklabel_format(useOffset=False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _columns(table, quantity):
    """List the columns of a quantity with their labels; the edge has one for each row."""
    found = []
    for start, label in QUANTITIES[quantity].items():
        names = [name for name in table.colnames if name.startswith(start)]
        found += [
            (name, f"row {name.removeprefix(start)}" if label == "row" else label) for name in names
        ]
    return found


def draw_map(ax, table):
    """Draw the ecliptic positions of skies, coloured by level, on Mollweide axes."""
    plane = SkyCoord(np.linspace(0, 360, 721) * u.deg, 0 * u.deg, frame=Galactic())
    plane = plane.transform_to(BarycentricMeanEcliptic())
    ax.plot(*_project(plane.lon.deg, plane.lat.deg), ".", ms=1, color=FAINT, label="Galactic plane")
    ax.axhline(0, color=FAINT, lw=0.8)
    shown = ax.scatter(
        *_project(table["LON"], table["LAT"]), c=table["level_left"], s=28, edgecolors="0.3", lw=0.4
    )
    ax.figure.colorbar(shown, ax=ax, label="level left [DN/s]", shrink=0.6)
    ax.set_xticks(np.radians(range(-120, 121, 60)), ["120°", "60°", "0°", "300°", "240°"])
    ax.set(title="Ecliptic longitude and latitude")
    ax.grid(lw=0.3)
    ax.legend(loc="lower right", frameon=False)


def _project(lon, lat):
    """Return map coordinates; longitudes increase to the left, as on the sky."""
    wrapped = (np.asarray(lon, dtype=float) + 180) % 360 - 180
    return -np.radians(wrapped), np.radians(np.asarray(lat, dtype=float))


def draw_residuals(ax, residuals):
    """Draw the residuals (percent) of each sky after each other is subtracted."""
    shown = np.where(np.eye(len(residuals), dtype=bool), np.nan, residuals)
    edges = np.tile([0.5, len(residuals) + 0.5], 2)
    show_image(ax, shown, "residual, rms [%]", cmap="magma_r", vmin=0, extent=edges)
    ax.set(xlabel="subtracted sky", ylabel="fitted sky", aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def draw_explained(ax, components):
    """Draw the fraction of the variance that principal components explain."""
    number = np.arange(len(components.explained)) + 1
    ax.bar(number, components.explained, color=COLOURS[0], label="each")
    ax.plot(number, np.cumsum(components.explained), "o-", color=COLOURS[1], label="cumulative")
    ax.set(xlabel="component", ylabel="variance explained", ylim=(0, 1.05))
    ax.set_xticks(number)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(frameon=False)


def draw_component(ax, components, index, window):
    """Draw a principal component, counted from 0."""
    image = components.maps[index]
    high = np.nanpercentile(np.abs(image), 99)
    title = f"Component {index + 1}: {components.explained[index]:.0%} of the variance"
    stretch = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    show_image(ax, image, "relative to its rms", title, extent=window.extent, **stretch)


def draw_zodiacal_light(ax, table, fit):
    """Draw measured levels against the prediction, with the fit of `fit_levels`."""
    brightness = np.asarray(table["zodiacal_light"], dtype=float)
    line = np.array([0, 1.05 * np.nanmax(brightness, initial=0)])
    for row, colour in zip(fit, COLOURS, strict=False):
        ax.plot(brightness, table[f"level_{row['side']}"], "o", ms=4, color=colour)
        label = f"{row['side']}: {row['ratio']:.3g} DN/s per MJy/sr, scatter {row['scatter']:.1f} %"
        ax.plot(line, row["ratio"] * line, color=colour, lw=1, label=label)
        width = row["scatter"] / 100
        low, high = (row["ratio"] * line * (1 + sign * width) for sign in (-1, 1))
        ax.fill_between(line, low, high, color=colour, alpha=0.15, lw=0)
    ax.set(xlabel="zodiacal light at 1.25 micron, model [MJy/sr]", ylabel="measured level [DN/s]")
    ax.set(xlim=(0, None), ylim=(0, None))
    ax.legend(frameon=False)
