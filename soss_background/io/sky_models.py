"""Sky models: learn them from skyflats, read and write them, and derive priors from them."""

import logging

import numpy as np
from astropy.table import Table

from soss_background import __version__
from soss_background.datamodels.header_text import to_ascii
from soss_background.datamodels.sky_model import SkyModel
from soss_background.errors import SkyflatError, count
from soss_background.io.checks import check_file
from soss_background.io.exposures import REQUIRED_CLEAR
from soss_background.io.files import explain_fault
from soss_background.io.opening import read_metadata
from soss_background.io.sky_library import SkyLibrary, open_library
from soss_background.io.skyflats import find_place
from soss_background.sky.learning import SkyStatistics, describe_skies
from soss_background.sky.nodes import make_grid
from soss_background.sky.sky_prior import cut_prior
from soss_background.sky.trends import fit_trends

__all__ = [
    "find_cover",
    "make_sky_model",
    "name_sky_model",
    "open_sky_model",
    "read_prior",
    "read_statistics",
]

log = logging.getLogger(__name__)

# Fewest visits and least significance (sigma) of a recorded trend.
_FEWEST_VISITS, _SIGNIFICANCE = 8, 3.0

# Attributes of `SkyStatistics` by those of ``meta.sky_model``.
_NUMBERS = {
    "n_visits": "number",
    "smooth_rms": "smooth_rms",
    "scatter": "scatter",
    "correlation_length": "correlation",
    "ratio": "ratio",
    "ratio_rms": "ratio_rms",
    "shift_rms": "shift_rms",
    "pwcpos_slope": "pwcpos_slope",
}

# Planes, as attributes of `SkyStatistics` and of `SkyModel`.
_PLANES = {"shape": "sky", "right": "right", "err": "err", "dq": "dq"}


def make_sky_model(skyflats, *, author=None, description=None):
    """
    Learn a sky model from skyflats.

    Parameters
    ----------
    skyflats : str, `~pathlib.Path`, SkyflatModel, list of these, or SkyLibrary
        One or more skyflats of the same pixels, or their files and folders, wildcards allowed. One
        is open at a time.
    author, description : str, optional
        Values of AUTHOR and DESCRIP; by default the authors and the number of the skyflats.

    Returns
    -------
    model : SkyModel
        Mean sky, components and scatter of its variation, edge, levels.

    Raises
    ------
    SkyflatError
        If there are no skyflats, one cannot be read, or they differ in their pixels, in their flat
        state, or in whether their sky has an edge.
    """
    library = skyflats if isinstance(skyflats, SkyLibrary) else open_library(skyflats)
    rows, statistics = library.rows, describe_skies(library.comparison, library.place)
    model = _fill_planes(statistics)
    model.members = _list_members(model, rows, statistics)
    model.trends = _list_trends(model, rows, statistics)
    model.meta.author = author or ", ".join(dict.fromkeys(row["author"] for row in rows))
    model.meta.description = description or f"Sky of {count(len(rows), 'skyflat')}"
    _fill_keywords(model, rows)
    return model


def _fill_planes(statistics):
    """Return a sky model with the planes, tables and numbers of statistics."""
    planes = {name: getattr(statistics, key) for key, name in _PLANES.items()}
    model, known = SkyModel(**planes), statistics.variances
    if known.size:
        model.components = statistics.grid.spread(statistics.components).astype(np.float32)
    variance = np.trace(statistics.scatter_covariance() @ statistics.grid.weights(model.right))
    model.variances = _fill_table(
        model,
        "variances",
        component=np.arange(1, 1 + known.size),
        variance=known,
        fraction=known / (known.sum() + variance),
    )
    model.edge = _fill_table(
        model, "edge", **dict(zip(("row", "column", "width"), statistics.edge, strict=True))
    )
    numbers = model.meta.sky_model
    for key, name in _NUMBERS.items():
        setattr(numbers, key, float(getattr(statistics, name)))
    numbers.smooth_rows, numbers.smooth_columns = statistics.lengths
    numbers.n_components, numbers.n_skies = known.size, len(statistics.weights)
    levels = statistics.levels[:, 0]
    numbers.level_median, numbers.level_rms = float(np.median(levels)), float(np.std(levels))
    if np.isfinite(statistics.pwcpos):
        model.meta.instrument.pupil_position = statistics.pwcpos
    return model


def _fill_table(model, name, **columns):
    """Return a table of a sky model with the given columns."""
    table = np.zeros(len(next(iter(columns.values()))), dtype=model.get_dtype(name))
    for column, values in columns.items():
        table[column] = values
    return table


def _list_members(model, rows, statistics):
    """Return the table of skyflats."""
    return _fill_table(
        model,
        "members",
        filename=[to_ascii(row["name"]) for row in rows],
        program=[to_ascii(row["PROGRAM"] or "") for row in rows],
        observation=[to_ascii(row["observation"]) for row in rows],
        targprop=[to_ascii(row["TARGPROP"] or "") for row in rows],
        level=statistics.levels[:, 0],
        ratio=statistics.levels[:, 1] / statistics.levels[:, 0],
        shift=np.nan_to_num(statistics.shifts),
        weight=statistics.weights,
        ecliptic_lon=[row["LON"] for row in rows],
        ecliptic_lat=[row["LAT"] for row in rows],
        day_of_year=[row["DOY"] for row in rows],
        pwcpos=[row["PWCPOS"] for row in rows],
    )


def _list_trends(model, rows, statistics):
    """Return the table of trends that enough visits show significantly."""
    visits = {row["visit"] for row in rows}
    found = []
    if len(visits) >= _FEWEST_VISITS:
        table = Table({key: [row[key] for row in rows] for key in ("LAT", "DOY", "PWCPOS")})
        table["DOY"] = np.where(table["DOY"] == 0, np.nan, table["DOY"])
        left, right = statistics.levels.T
        table["level"], table["ratio"] = left, right / left
        trends = fit_trends(table, {"level": True, "ratio": True})
        found = [row for row in trends if _is_significant(row)]
    names = model.get_dtype("trends").names
    return _fill_table(model, "trends", **{name: [row[name] for row in found] for name in names})


def _is_significant(trend):
    """Return whether a quantity changes with latitude or season."""
    return any(
        abs(trend[term]) > _SIGNIFICANCE * trend[f"{term}_err"] for term in ("latitude", "season")
    )


def _fill_keywords(model, rows):
    """Set the keywords and the history of a sky model."""
    meta, place = model.meta, rows[0]["place"]
    for key, (_, value) in REQUIRED_CLEAR.items():
        if value is not None:
            model[key] = value
    meta.instrument.detector, meta.telescope = "NIS", "JWST"
    meta.subarray.name = place.name
    meta.subarray.xstart, meta.subarray.ystart = place.x0 + 1, place.y0 + 1
    meta.subarray.xsize, meta.subarray.ysize = place.nx, place.ny
    meta.subarray.fastaxis, meta.subarray.slowaxis = -2, -1
    meta.skyflat.flat_correction = "COMPLETE" if rows[0]["fielded"] else "SKIPPED"
    meta.skyflat.software_version = __version__
    flats = {row["flat"] for row in rows}
    if rows[0]["fielded"] and len(flats) == 1:
        meta.ref_file.flat.name = flats.pop()
    skyflats = count(len(rows), "skyflat")
    model.add_history_entry(f"Learned from {skyflats} by soss_background {__version__}")
    for row in rows:
        model.add_history_entry(f"Skyflat {row['name']}")
        model.add_history_entry(
            f"  program {row['PROGRAM']} {row['TARGPROP']}, observation {row['observation']}, "
            f"flat {row['flat'] if row['fielded'] else 'none'}"
        )


def open_sky_model(source):
    """
    Open a sky model; the caller closes the result, and a given model stays open.

    Parameters
    ----------
    source : str, `~pathlib.Path` or SkyModel
        The sky model or its file.

    Returns
    -------
    model : SkyModel
        The sky model.

    Raises
    ------
    SkyflatError
        If it is not a sky model, or a plane or a number is missing or not finite.
    """
    if isinstance(source, SkyModel):
        model = SkyModel(source)
        _check(model, model.meta.filename or "sky model")
        return model
    with explain_fault(source):
        check_file(source)
        if read_metadata(source).get("meta.model_type") != SkyModel.__name__:
            raise SkyflatError(f"{source}: not a sky model")
        model = SkyModel(source)
        _check(model, source)
    return model


def name_sky_model(source, model):
    """Return the file name of a sky model as given, or else from its header."""
    return getattr(source, "name", None) or model.meta.filename or "sky model"


def _check(model, name):
    """Raise unless a sky model has all planes and numbers that it needs."""
    planes = {each: getattr(model, each) for each in _PLANES.values()}
    for each, plane in planes.items():
        if plane is None:
            raise SkyflatError(f"{name}: {each.upper()} is missing")
        if plane.shape != planes["sky"].shape:
            raise SkyflatError(f"{name}: {each.upper()} and SKY differ in shape")
        if not np.isfinite(plane).all():
            raise SkyflatError(f"{name}: {each.upper()} is not finite everywhere")
    for each in ("edge", "members"):
        if getattr(model, each) is None:
            raise SkyflatError(f"{name}: {each.upper()} is missing")
    for key in (*_NUMBERS, "smooth_rows", "smooth_columns", "n_components"):
        value = getattr(model.meta.sky_model, key)
        if value is None or not np.isfinite(value):
            raise SkyflatError(f"{name}: {key} of the sky model is missing")
    number = model.meta.sky_model.n_components
    found = [0 if each is None else len(each) for each in (model.components, model.variances)]
    if found != [number, number]:
        raise SkyflatError(f"{name}: COMPONENTS or VARIANCES do not have NCOMP={number} entries")


def read_prior(source, window, *, divisor=None, pwcpos=None):
    """
    Return the prior of the sky of an exposure.

    Parameters
    ----------
    source : str, `~pathlib.Path` or SkyModel
        A sky model or its file.
    window : `~soss_background.detector.Window`
        Pixels of the exposure.
    divisor : ndarray of float, shape (ny, nx), optional
        Divide the sky by it, for example by the flat.
    pwcpos : float, optional
        Pupil wheel position of the exposure, degrees.

    Returns
    -------
    prior : `~soss_background.sky.sky_prior.SkyPrior`
        The prior.

    Raises
    ------
    SkyflatError
        If it is not a sky model, or lacks these pixels.
    """
    with open_sky_model(source) as model:
        place = find_cover(model, window, name_sky_model(source, model))
        return cut_prior(read_statistics(model), place, window, divisor=divisor, pwcpos=pwcpos)


def find_cover(model, window, name):
    """Return the `Window` of an open sky model; raise if it lacks pixels of another window."""
    place = find_place(model, model.sky.shape, name)
    if not place.covers(window):
        raise SkyflatError(f"{name}: its {place.name} lacks pixels of {window.name}")
    return place


def read_statistics(model):
    """Return the `~soss_background.sky.learning.SkyStatistics` that an open sky model holds."""
    planes = {key: getattr(model, name) for key, name in _PLANES.items()}
    planes = {key: np.array(each, each.dtype.newbyteorder("=")) for key, each in planes.items()}
    numbers, members = model.meta.sky_model, model.members
    if numbers.n_components:
        grid = make_grid(planes["right"], model.components.shape[2:])
        components = grid.gather(np.asarray(model.components, dtype=float))
    else:
        grid = make_grid(planes["right"])
        components = np.zeros((0, grid.size))
    variances = model.variances["variance"] if numbers.n_components else np.zeros(0)
    pwcpos = model.meta.instrument.pupil_position
    return SkyStatistics(
        **planes,
        **{name: getattr(numbers, key) for key, name in _NUMBERS.items()},
        grid=grid,
        components=components,
        variances=np.asarray(variances, dtype=float),
        lengths=(numbers.smooth_rows, numbers.smooth_columns),
        pwcpos=np.nan if pwcpos is None else pwcpos,
        edge=np.array([model.edge[name] for name in ("row", "column", "width")], dtype=float),
        levels=np.stack([members["level"], members["level"] * members["ratio"]], axis=1),
        shifts=np.array(members["shift"]),
        weights=np.array(members["weight"]),
    )
