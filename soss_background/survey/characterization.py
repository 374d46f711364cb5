"""Tables and figures of the variation of the sky."""

import functools
import logging

import numpy as np
from astropy.table import Column, Table
from matplotlib.figure import Figure
from tqdm import tqdm

from soss_background.errors import SkyflatError
from soss_background.io.files import check_folder, save_whole
from soss_background.sky.match import cross_residuals
from soss_background.sky.trends import fit_trends
from soss_background.survey import plots as survey_plots
from soss_background.survey.components import find_components
from soss_background.survey.skies import find_pointing, survey_skies
from soss_background.survey.zodi import fit_levels, predict_brightness

__all__ = ["characterize"]

log = logging.getLogger(__name__)

# Fewest skies to compare.
_FEWEST = 3

# Components whose maps are drawn.
_MAPS = 3

_DPI = 120


def characterize(skyflats, folder):
    """
    Describe in tables and figures how the sky varies among skyflats.

    Parameters
    ----------
    skyflats : list of SkyflatModel or `~pathlib.Path`
        At least three skyflats of the same pixels; one is open at a time.
    folder : `~pathlib.Path`
        Folder of the tables (ECSV) and figures (PNG); it is created if needed.

    Returns
    -------
    tables : dict of `~astropy.table.Table`
        By the names of their files: ``skies`` (one row per skyflat), ``trends`` (see
        `soss_background.sky.trends.fit_trends`), ``residuals`` (rms residual of each sky after
        each other is subtracted, percent), ``components`` (variance explained), and, if zodipy is
        installed, ``zodiacal_light`` (see `soss_background.survey.zodi.fit_levels`).

    Raises
    ------
    SkyflatError
        If there are too few skyflats, one cannot be read, or their pixels differ.
    """
    check_folder(folder)
    survey = survey_skies(skyflats)
    if len(survey.skies) < _FEWEST:
        raise SkyflatError(
            f"{len(survey.skies)} different skyflats: a comparison needs {_FEWEST} or more"
        )
    tables, figures = _compare(survey)
    try:
        brightness = _predict(survey.table)
    except ImportError as err:
        log.warning(
            'No comparison with the zodiacal light: %s (pip install "soss_background[zodi]")', err
        )
    else:
        table = tables["skies"]
        table["zodiacal_light"] = Column(brightness, unit="MJy / sr")
        sides = {side: table[f"level_{side}"] for side in ("left", "right")}
        fit = tables["zodiacal_light"] = fit_levels(sides, brightness)
        figures["zodiacal_light"] = _draw(survey_plots.draw_zodiacal_light, table, fit)
    for name, content in tables.items():
        write = functools.partial(content.write, format="ascii.ecsv")
        save_whole(write, folder / f"{name}.ecsv")
    for name, figure in figures.items():
        save_whole(functools.partial(figure.savefig, dpi=_DPI), folder / f"{name}.png")
    return tables


def _compare(survey):
    """Compare skies; return tables and figures by the names of their files."""
    table, skies, window = survey
    residuals, components = 100 * cross_residuals(skies), find_components(skies)
    for number, scores in enumerate(components.scores.T, 1):
        table[f"score_{number}"] = Column(scores, unit="%")
    tables = {
        "skies": table,
        "trends": fit_trends(table, _list_quantities(table)),
        "residuals": _label(residuals, table["FILE"]),
        "components": _describe_components(components),
    }
    figures = {
        "trends": _draw_trends(table),
        "map": _draw(survey_plots.draw_map, table, projection="mollweide"),
        "residuals": _draw(survey_plots.draw_residuals, residuals),
        "components": _draw_components(components, window),
    }
    return tables, figures


def _list_quantities(table):
    """List the columns that may change with the pointing, True for relative changes."""
    return {
        name: name.startswith("level_")
        for name in table.colnames
        if name.startswith(("level_", "step_"))
    }


def _label(residuals, names):
    """Return the residuals as a table: one row per sky, one column per subtracted sky."""
    table = Table(residuals, names=[f"sky_{number}" for number in range(1, len(names) + 1)])
    for column in table.columns.values():
        column.unit = "%"
    table.add_column(names, index=0)
    return table


def _describe_components(components):
    """Return a table of the variance that components explain."""
    explained = components.explained
    table = Table({"component": np.arange(len(explained)) + 1, "explained": explained})
    table["together"] = np.cumsum(explained)
    return table


def _predict(table):
    """Predict the zodiacal light of the skies, MJy/sr; NaN where time or pointing is unknown."""
    brightness = np.full(len(table), np.nan)
    for index in tqdm(range(len(table)), "Predicting", unit="sky", disable=None):
        if np.isfinite(table["elongation"][index]):
            pointing = find_pointing(table[index])
            brightness[index] = predict_brightness(*pointing).to_value("MJy / sr")
    return brightness


def _draw(draw, *args, projection=None):
    """Draw a figure of one panel."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw(figure.add_subplot(projection=projection), *args)
    return figure


def _draw_trends(table):
    """Draw all quantities against all variables."""
    quantities, variables = survey_plots.QUANTITIES, survey_plots.VARIABLES
    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = figure.subplots(len(quantities), len(variables), sharex="col", sharey="row")
    for row, quantity in zip(axes, quantities, strict=True):
        for ax, variable in zip(row, variables, strict=True):
            survey_plots.draw_trend(ax, table, variable, quantity)
            ax.label_outer()
        if row[0].get_legend_handles_labels()[0]:
            row[0].legend(fontsize=7, framealpha=0.6)
    return figure


def _draw_components(components, window):
    """Draw the variance explained, and the first components."""
    number = min(_MAPS, len(components.maps))
    figure = Figure(figsize=(4.5 * (1 + number), 4), layout="constrained")
    first, *others = figure.subplots(1, 1 + number)
    survey_plots.draw_explained(first, components)
    for index, ax in enumerate(others):
        survey_plots.draw_component(ax, components, index, window)
    return figure
