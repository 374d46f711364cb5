"""Report on a skyflat: planes, exposures, quality, and provenance."""

import logging
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from astropy.time import Time
from tqdm import tqdm

from soss_background.datamodels.quality_table import read_text
from soss_background.errors import SkyflatError
from soss_background.io.files import check_folder
from soss_background.io.skyflats import find_place, name_skyflat, open_skyflat
from soss_background.quality.guide import GUIDE
from soss_background.quality.metrics import count_samples
from soss_background.report import skyflat_plots as plots
from soss_background.report.figures import ReportFigure
from soss_background.report.html import Report, Section, write_html
from soss_background.report.views import view_exposures

__all__ = ["report_skyflat", "write_reports"]

log = logging.getLogger(__name__)

_EXPOSURES = (
    "Left: the exposure as it was combined, its mask outlined in red. It is scaled to the level of "
    "the others; stripes and the star light that moves with the dither are subtracted. Right: the "
    "smoothed residual after the sky is subtracted, from \N{MINUS SIGN}1 to 1 % of the sky; unused "
    "pixels are grey. The edge of a star, a stripe or a glow in the residual is a fault, and part "
    "of it is in the sky too. An exposure that was not used is shown with its stars. Select a "
    "figure to enlarge it."
)
_NO_EXPOSURES = "The exposures are not in the skyflat and cannot be shown."

# Extensions that a report shows, by attribute, and possible reasons why one is missing.
_SHOWN = {
    "bkgdn": "BKGDN (not denoised?)",
    "images": "SCI (save_stack=false?)",
    "masks": "MASKS (save_stack=false?)",
    "metadata": "METADATA",
    "qc": "QC (its quality was not measured?)",
}


def report_skyflat(skyflat):
    """Return the `Report` on a skyflat, a file or an open model; read its exposures one by one."""
    path = skyflat if hasattr(skyflat, "meta") else Path(skyflat)
    with open_skyflat(path) as model:
        name = name_skyflat(path, model)
        runs = [run.instance for run in model.meta.skyflat.runs]
        sections = _sections(model, name, runs)
        records = {"facts": _facts(model), "versions": _versions(model)}
        return Report(name, _rows(model.qc), sections, runs, GUIDE, **records)


def _rows(table):
    """Return the rows of a table; an empty list if there is no table."""
    return np.array([] if table is None else table)


def _sections(model, name, runs):
    """List the sections; the exposures are read one by one."""
    window = find_place(model, model.bkg.shape, name)
    planes = {"BKG": model.bkg, "BKGDN": model.bkgdn}
    planes = {key: np.array(plane) for key, plane in planes.items() if plane is not None}
    bkg = np.where(window.reference_pixels(), np.nan, planes["BKG"])
    if not np.isfinite(bkg).any():
        raise SkyflatError(f"{name}: no sky in it")
    err, table = np.array(model.err), _rows(model.metadata)
    rows = [_describe_exposure(row) for row in table]
    figures, coverage = _vetting_figures(table, runs), None
    last = Section("Every exposure", [], _NO_EXPOSURES)
    if model.images is not None and model.masks is not None:
        number = len(model.images)
        coverage = count_samples(model.masks)
        images = tqdm(model.images, name, number, unit="exposure", disable=None)
        views, variation = view_exposures(images, model.masks, bkg, err, coverage)
        figures += _scatter_figures(views, variation, window)
        captions = [f"{row['exposure']}: {row['decision']}" for row in rows]
        if len(rows) != number:
            captions = [f"exposure {index + 1}" for index in range(number)]
        limits = np.nanpercentile(bkg, [0.5, 99.5])
        last = Section("Every exposure", _exposure_figures(views, captions, limits), _EXPOSURES)
    return [
        Section("The sky", _sky_figures(planes, err, window, coverage)),
        Section("Profiles and edge", _profile_figures(planes, window)),
        *([Section("Exposures", figures, rows=rows)] if rows or figures else []),
        last,
    ]


def _sky_figures(planes, err, window, coverage):
    """List the figures of the planes of a skyflat."""
    best = list(planes.values())[-1]
    limits = tuple(np.percentile(best[~window.reference_pixels()], [0.2, 99.8]))
    captions = {"BKG": "BKG: the empirical sky", "BKGDN": "BKGDN: the denoised sky"}
    figures = [
        _figure(key.lower(), captions[key], plots.draw_sky, sky=plane, window=window, limits=limits)
        for key, plane in planes.items()
    ]
    caption = "Structure of the sky about its column profile, including stars that remain"
    figures.append(_figure("structure", caption, plots.draw_structure, sky=best, window=window))
    caption = "ERR: 1-sigma uncertainty of BKG"
    figures.append(_figure("err", caption, plots.draw_sky, sky=err, window=window))
    if coverage is not None:
        caption, draw = "Number of exposures used at each pixel", plots.draw_coverage
        figures.append(_figure("coverage", caption, draw, coverage=coverage, window=window))
    return figures


def _profile_figures(planes, window):
    """List the figures of profiles and edge."""
    best = list(planes.values())[-1]
    column = "Median over the rows"
    edge = "The edge at some rows, from 0 left of it to 1 right of it; dotted: half of its height"
    rows = "Medians over the columns left and right of the edge"
    return [
        _figure("column_profile", column, plots.draw_column_profile, planes=planes, window=window),
        _figure("edge", edge, plots.draw_edge, sky=best, window=window),
        _figure("row_profiles", rows, plots.draw_row_profiles, sky=best, window=window),
    ]


def _vetting_figures(table, runs):
    """List the figure of the deviations of exposures from the sky, if METADATA has them."""
    if "deviation" not in (table.dtype.names or ()):
        return []
    keys = ("steps.skyflat_combine.mad_threshold", "mad_threshold")
    known = [run["parameters"][key] for run in runs for key in keys if key in run["parameters"]]
    caption = "Deviation of each exposure from the sky, median over blocks of 32 x 64 pixels"
    threshold = known[-1] if known else None
    return [
        _figure("deviations", caption, plots.draw_vetting, table=table, mad_threshold=threshold)
    ]


def _scatter_figures(views, variation, window):
    """List the figures of the scatter of exposures about their sky."""
    scatter = "Coefficient of variation: scatter of the exposures at each pixel"
    pulls = (
        "Residuals of the exposures in units of the scatter expected from ERR, one grey line "
        "per exposure; star light that remains raises the right wing"
    )
    return [
        _figure("variation", scatter, plots.draw_variation, variation=variation, window=window),
        _figure("pulls", pulls, plots.draw_pulls, views=views),
    ]


def _exposure_figures(views, captions, limits):
    """List a small figure of each exposure: the image with its mask, and the residual."""
    return [
        ReportFigure(f"exposure_{number:03d}", caption, partial(_draw_pair, view, limits), True)
        for number, (view, caption) in enumerate(zip(views, captions, strict=True), 1)
    ]


def _draw_pair(view, limits, axes):
    """Draw an exposure and its residual."""
    plots.draw_exposure(axes[0], view, limits)
    plots.draw_residual(axes[1], view)


def _figure(name, caption, function, **kwargs):
    """Return the figure that a function draws with given arguments."""
    return ReportFigure(name, caption, partial(function, **kwargs))


def _facts(model):
    """Return pointing, date and configuration of a skyflat by label."""
    sky, meta = model.meta.skyflat, model.meta
    return _known(
        {
            "Program": meta.observation.program_number,
            "Target": meta.target.proposer_name,
            "Observation": meta.observation.observation_number,
            "Date": meta.observation.date,
            "Ecliptic longitude": _format(sky.ecliptic_lon, ".2f", "°"),
            "Ecliptic latitude": _format(sky.ecliptic_lat, ".2f", "°"),
            "Day of the year": sky.day,
            "Subarray": meta.subarray.name,
            "Pupil wheel": _format(meta.instrument.pupil_position, ".3f", "°"),
            "Exposures combined": sky.n_samples,
            "Flat-field correction": sky.flat_correction,
            "Not in the file": ", ".join(_list_missing(model)) or None,
        }
    )


def _list_missing(model):
    """List the extensions that a skyflat lacks, with a possible reason."""
    return [name for key, name in _SHOWN.items() if getattr(model, key) is None]


def _versions(model):
    """Return input files and software versions of a skyflat by label."""
    sky, meta = model.meta.skyflat, model.meta
    return _known(
        {
            "Association": meta.asn.table_name,
            "Flat": meta.ref_file.flat.name,
            "Author": meta.author,
            "Created (UTC)": meta.date,
            "soss_background": sky.software_version,
            "jwst": meta.calibration_software_version,
            "CRDS": meta.ref_file.crds.sw_version,
            "CRDS context": meta.ref_file.crds.context_used,
        }
    )


def _known(values):
    """Return the values that are not None as strings."""
    return {key: str(value) for key, value in values.items() if value is not None}


def _format(value, form, unit=""):
    """Return a number as a string, or None if there is none."""
    return None if value is None or np.isnan(value) else f"{value:{form}}{unit}"


def _describe_exposure(row):
    """Return a row of METADATA as strings by the headings of the report."""
    names = row.dtype.names
    decision = "used"
    if not row["used"]:
        reason = read_text(row["reason"]) if "reason" in names else ""
        decision = f"not used: {reason}" if reason else "not used"
    mid_time = ""
    if row["mid_time_mjd"] > 0:
        mid_time = Time(row["mid_time_mjd"], format="mjd").strftime("%Y-%m-%d %H:%M")
    deviation = _format(row["deviation"], ".2f", " %") if "deviation" in names else None
    return {
        "exposure": read_text(row["filename"]),
        "mid-time (UTC)": mid_time,
        "integrations": int(row["nints"]),
        "level": _format(row["scale"], ".4f") or "",
        "not used": _format(100 * row["masked_fraction"], ".1f", " %") or "",
        "deviation": deviation or "",
        "decision": decision,
    }


def write_reports(skyflats, output):
    """
    Write the reports on skyflats, which are read one by one.

    Parameters
    ----------
    skyflats : list of `~pathlib.Path`
        Skyflats.
    output : `~pathlib.Path`
        HTML file of the report. For several skyflats it is an overview with links to their reports,
        which are written next to it.

    Returns
    -------
    verdicts : dict of str
        Summary of the metrics of each skyflat, by its name; if others share the name, the folder
        precedes it.

    Raises
    ------
    SkyflatError
        If a skyflat cannot be read.
    """
    check_folder(output.parent)
    for path in skyflats:
        with open_skyflat(path) as model:
            for extension in _list_missing(model):
                log.warning("%s: the report lacks %s", path, extension)
    rows, parameters, labels = [], [], _label_skyflats(skyflats)
    for path, label, file in zip(skyflats, labels, _name_files(labels, output), strict=True):
        report = replace(report_skyflat(path), name=label)
        report.save_html(file)
        verdict = {key: getattr(report, key) for key in ("name", "verdict", "flag")}
        rows.append({"file": file.name} | verdict)
        parameters.append(
            dict(chain.from_iterable(run["parameters"].items() for run in report.runs))
        )
    if len(skyflats) > 1:
        for row, settings in zip(rows, _compare_parameters(parameters), strict=True):
            row["settings"] = settings
        write_html(output, "overview.html", title=f"{len(skyflats)} skyflats", rows=rows)
    return {row["name"]: row["verdict"] for row in rows}


def _label_skyflats(paths):
    """Return the name of each skyflat, preceded by folders where names are equal."""
    parts = [path.absolute().parts for path in paths]
    labels = []
    for own in parts:
        others = [other for other in parts if other != own]
        depth = 1
        while any(other[-depth:] == own[-depth:] for other in others):
            depth += 1
        labels.append("/".join(own[-depth:]))
    return labels


def _name_files(labels, output):
    """Return the HTML file of each skyflat's report, named after its label."""
    if len(labels) == 1:
        return [output]
    files = []
    for label in labels:
        stem, number = label.rpartition(".")[0].replace("/", "_"), 1
        file = output.with_stem(f"{output.stem}_{stem}")
        while file in files:
            number += 1
            file = output.with_stem(f"{output.stem}_{stem}_{number}")
        files.append(file)
    return files


def _compare_parameters(parameters):
    """Return, as a string for each skyflat, the parameters that differ between skyflats."""
    known = [each for each in parameters if each]
    shared = [name for name in (known or [{}])[0] if all(name in each for each in known)]
    differing = [name for name in shared if len({str(each[name]) for each in known}) > 1]
    return [
        ", ".join(f"{name} = {each[name]}" for name in differing if each) for each in parameters
    ]
