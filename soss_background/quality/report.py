"""A page that shows a skyflat, its quality, and where it comes from."""

import base64
import functools
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from astropy.time import Time
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from tqdm import tqdm

from soss_background.errors import SkyflatError
from soss_background.files import save_whole
from soss_background.quality import plots
from soss_background.quality.metrics import count_samples
from soss_background.quality.ranges import FAIL, NO_RANGE, PASS, failures, read_text
from soss_background.quality.views import view_exposures
from soss_background.subtract.template_files import find_place, open_skyflat

__all__ = ["Picture", "Report", "write_reports"]

# Takes the colour of the page's text, whatever that is, in pictures of lines.
_PAGE_INK = "#010203"

_STYLE = {
    "font.size": 9,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",
    "axes.facecolor": "none",
}

# Pixels an inch of what is drawn in pixels.
_DPI = 130

# Inches.
_SIZE, _SMALL_SIZE = (5.2, 4.2), (4.4, 2.2)


class Picture(NamedTuple):
    """
    A picture of a report.

    Attributes
    ----------
    name : str
        What it is called, as a file too.
    caption : str
        What it shows.
    draw : callable
        Draws it on the axes that it is given.
    small : bool
        True for a pair of images without scales, which takes two axes.
    """

    name: str
    caption: str
    draw: Callable
    small: bool = False


class Report:
    """
    All that a page shows of a skyflat.

    Parameters
    ----------
    skyflat : str, `~pathlib.Path` or `~soss_background.SkyflatModel`
        The skyflat; its exposures, if it has them, are read one by one.

    Attributes
    ----------
    name : str
        File name of the skyflat.
    facts, versions : dict of str
        What it shows, and what it was made of and with.
    qc, exposures : list of dict
        Rows of QC and of METADATA, made ready for people; empty if it has none.
    verdict : str
        How many metrics are in range, and which are not.
    flag : {"pass", "fail", "no range"}
        Whether all are in range.
    runs : list of dict
        Commands and parameters that it was made with.
    pictures : dict of list of `Picture`
        The pictures of each section.

    Raises
    ------
    SkyflatError
        If it cannot be read, or is no skyflat.
    """

    def __init__(self, skyflat):
        path = skyflat if hasattr(skyflat, "meta") else Path(skyflat)
        with open_skyflat(path) as model:
            self.name = getattr(path, "name", None) or model.meta.filename or "skyflat"
            self.facts, self.versions = _describe(model)
            self.runs = [run.instance for run in model.meta.skyflat.runs]
            qc, table = _rows(model.qc), _rows(model.metadata)
            self.qc = [_describe_metric(row) for row in qc]
            self.verdict, self.flag = _judge(self.qc, failures(qc))
            self.exposures = [_describe_exposure(row) for row in table]
            self.pictures = _picture_sky(model, self.name)
            self.pictures["vetting"] = _picture_vetting(table, self.runs)
            self.pictures["exposures"] = []
            if model.images is not None and model.masks is not None:
                captions = _caption_exposures(self.exposures, len(model.images))
                self._add_views(model, captions)

    def _add_views(self, model, captions):
        """Read the exposures, and add what needs them."""
        science = ~find_place(model, model.bkg.shape, self.name).reference_pixels()
        coverage = count_samples(model.iterate("masks"))
        images = tqdm(
            model.iterate("images"), self.name, len(captions), unit="exposure", disable=None
        )
        bkg = np.where(science, model.bkg, np.nan)
        views, variation = view_exposures(images, model.iterate("masks"), bkg, model.err, coverage)
        limits = np.nanpercentile(bkg, [0.5, 99.5])
        self.pictures["sky"].append(
            Picture(
                "coverage",
                "How many exposures were used at each pixel",
                functools.partial(plots.draw_coverage, coverage=coverage, science=science),
            )
        )
        self.pictures["vetting"] += [
            Picture(
                "variation",
                "Coefficient of variation: scatter of the exposures at each pixel",
                functools.partial(plots.draw_variation, variation=variation),
            ),
            Picture(
                "pulls",
                "Residuals of the exposures in units of the scatter that ERR makes expect, one "
                "grey line an exposure; star light that is left lifts the right wing",
                functools.partial(plots.draw_pulls, views=views),
            ),
        ]
        self.pictures["exposures"] = [
            Picture(
                f"exposure_{number:03d}",
                caption,
                functools.partial(_draw_pair, view=view, limits=limits),
                small=True,
            )
            for number, (view, caption) in enumerate(zip(views, captions, strict=True), 1)
        ]

    def save_html(self, path):
        """
        Write a page that needs nothing else: no network, no other file.

        Parameters
        ----------
        path : `~pathlib.Path`
            The page.
        """
        _write_page(path, "report.html", title=self.name, report=self, embed=_embed)

    def save_pdf(self, path):
        """
        Write the pictures, one a page.

        Parameters
        ----------
        path : `~pathlib.Path`
            The PDF file.
        """
        save_whole(self._draw_pages, path)

    def _draw_pages(self, path):
        """Write the pages of a PDF file."""
        with PdfPages(path, metadata={"Title": self.name}) as pages:
            for picture in self._all_pictures():
                pages.savefig(_draw(picture, titled=True), dpi=_DPI)

    def save_png(self, folder):
        """
        Write the pictures one by one.

        Parameters
        ----------
        folder : `~pathlib.Path`
            Where they go; it is made if need be.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for picture in self._all_pictures():
            figure = _draw(picture, titled=True)
            save_whole(functools.partial(figure.savefig, dpi=_DPI), folder / f"{picture.name}.png")

    def _all_pictures(self):
        """List the pictures of all sections."""
        return [picture for section in self.pictures.values() for picture in section]


def write_reports(skyflats, output, pdf=None, png=None):
    """
    Write the reports of skyflats, which are read one by one.

    Parameters
    ----------
    skyflats : list of `~pathlib.Path`
        Skyflats.
    output : `~pathlib.Path`
        The page. Several skyflats have a page each beside it, to which it leads.
    pdf : `~pathlib.Path`, optional
        Write the pictures as PDF as well; of several skyflats, a file each beside it.
    png : `~pathlib.Path`, optional
        Write the pictures one by one into this folder as well; of several skyflats, into a folder
        each in it.

    Returns
    -------
    verdicts : dict of str
        How many metrics of each skyflat are in range, by its name.

    Raises
    ------
    SkyflatError
        If a skyflat cannot be read, or two have the same name.
    """
    names = [path.stem for path in skyflats]
    if len(set(names)) < len(names):
        raise SkyflatError(f"{Counter(names).most_common(1)[0][0]}: two skyflats have this name")
    for path in skyflats:
        open_skyflat(path).close()
    for path in filter(None, (output, pdf)):
        path.parent.mkdir(parents=True, exist_ok=True)
    verdicts, rows = {}, []
    for path in skyflats:
        report = Report(path)
        page, pages, folder = output, pdf, png
        if len(skyflats) > 1:
            page = output.with_stem(f"{output.stem}_{path.stem}")
            pages, folder = (
                pdf and pdf.with_stem(f"{pdf.stem}_{path.stem}"),
                png and png / path.stem,
            )
            rows.append((page.name, report.name, report.verdict, report.flag))
        report.save_html(page)
        if pdf:
            report.save_pdf(pages)
        if png:
            report.save_png(folder)
        verdicts[report.name] = report.verdict
    if len(skyflats) > 1:
        _write_page(output, "overview.html", title=f"{len(skyflats)} skyflats", rows=rows)
    return verdicts


def _write_page(path, template, **content):
    """Fill in a template."""
    environment = Environment(
        loader=PackageLoader("soss_background.quality"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(content)
    save_whole(functools.partial(Path.write_text, data=text, encoding="utf-8"), path)


# --- pictures ----------------------------------------------------------------------------


def _picture_sky(model, name):
    """Draw the planes and the profiles of a skyflat."""
    window = find_place(model, model.bkg.shape, name)
    science = ~window.reference_pixels()
    planes = {"BKG": model.bkg, "BKGDN": model.bkgdn}
    planes = {key: np.array(plane) for key, plane in planes.items() if plane is not None}
    best = list(planes.values())[-1]
    limits = np.nanpercentile(best[science], [0.2, 99.8])
    captions = {"BKG": "BKG: the empirical sky", "BKGDN": "BKGDN: the same, denoised"}
    draw_sky = functools.partial(plots.draw_sky, science=science)
    pictures = [
        Picture(key.lower(), captions[key], functools.partial(draw_sky, sky=plane, limits=limits))
        for key, plane in planes.items()
    ]
    caption = "ERR: 1-sigma uncertainty of BKG"
    pictures.append(Picture("err", caption, functools.partial(draw_sky, sky=np.array(model.err))))
    profiles = [
        Picture(
            "column_profile",
            "Median over the rows",
            functools.partial(
                plots.draw_column_profile,
                planes=planes,
                science=science,
                first_column=window.x0,
            ),
        ),
        Picture(
            "step",
            "The step at some rows, from 0 left of it to 1 right of it; dotted: half of its light",
            functools.partial(plots.draw_step, sky=best, window=window),
        ),
        Picture(
            "row_profiles",
            "Medians over the columns left and right of the step",
            functools.partial(plots.draw_row_profiles, sky=best, science=science, window=window),
        ),
    ]
    return {"sky": pictures, "profiles": profiles}


def _picture_vetting(table, runs):
    """Draw the deviations of the exposures, if they are known."""
    if "deviation" not in (table.dtype.names or ()):
        return []
    keys = ("steps.skyflat_combine.mad_threshold", "mad_threshold")
    known = [run["parameters"][key] for run in runs for key in keys if key in run["parameters"]]
    draw = functools.partial(plots.draw_vetting, table=table)
    return [
        Picture(
            "deviations",
            "Deviation of each exposure from the sky, median over blocks of 32 x 64 pixels",
            functools.partial(draw, mad_threshold=known[-1] if known else None),
        )
    ]


def _draw_pair(axes, view, limits):
    """Draw an exposure and what it shows beyond the sky."""
    plots.draw_exposure(axes[0], view, limits)
    plots.draw_residual(axes[1], view)


def _draw(picture, ink="black", titled=False):
    """Make the figure of a picture."""
    colours = {f"{part}.color": ink for part in ("text", "xtick", "ytick")}
    colours |= {"axes.labelcolor": ink, "axes.edgecolor": ink}
    with mpl.rc_context(_STYLE | colours):
        figure = Figure(figsize=_SMALL_SIZE if picture.small else _SIZE, layout="constrained")
        axes = figure.subplots(1, 2) if picture.small else figure.subplots()
        picture.draw(axes)
        if titled:
            figure.suptitle(picture.caption, fontsize=8, wrap=True)
    return figure


def _embed(picture):
    """Draw a picture into the page: one without text in pixels, others such that text is text."""
    file = io.BytesIO()
    figure = _draw(picture, _PAGE_INK)
    if picture.small:
        figure.savefig(file, format="png", dpi=_DPI, transparent=True)
        data = base64.b64encode(file.getvalue()).decode()
        return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, picture.caption)
    unsigned = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Ids that are those of this picture, and the same each time.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": picture.name}):
        figure.savefig(file, format="svg", dpi=_DPI, transparent=True, metadata=unsigned)
    drawing = file.getvalue().decode()
    drawing = drawing[drawing.index("<svg") :].replace(_PAGE_INK, "currentColor")
    # Several drawings on a page have ids of their own only where matplotlib makes them so.
    drawing = re.sub(r'(<g id=")', rf"\1{picture.name}_", drawing)
    return Markup(drawing)  # noqa: S704 - what matplotlib draws


# --- words -------------------------------------------------------------------------------


def _rows(table):
    """Take the rows of a table; there are none if there is no table."""
    return np.array([]) if table is None else np.array(table)


def _describe(model):
    """Tell what a skyflat shows, and what it was made of and with."""
    sky, meta = model.meta.skyflat, model.meta
    facts = {
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
    }
    versions = {
        "Association": meta.asn.table_name,
        "Flat": meta.ref_file.flat.name,
        "Author": meta.author,
        "Made": meta.date,
        "soss_background": sky.software_version,
        "jwst": meta.calibration_software_version,
        "CRDS": meta.ref_file.crds.sw_version,
        "CRDS context": meta.ref_file.crds.context_used,
    }
    return _known(facts), _known(versions)


def _known(values):
    """Leave out what is not known."""
    return {key: str(value) for key, value in values.items() if value is not None}


def _format(value, form, unit=""):
    """Write a number, None if there is none."""
    return None if value is None or np.isnan(value) else f"{value:{form}}{unit}"


def _describe_metric(row):
    """Make a row of QC ready for people."""
    known = not np.isnan(row["low"])
    return {
        "name": read_text(row["name"]),
        "value": float(row["value"]),
        "unit": read_text(row["unit"]),
        "range": f"{row['low']:g} to {row['high']:g}" if known else "",
        "flag": read_text(row["flag"]),
        "comment": read_text(row["comment"]),
    }


def _judge(qc, faults):
    """Tell how many metrics are in range, and the flag of all."""
    passed = sum(row["flag"] == PASS for row in qc)
    judged = passed + sum(row["flag"] == FAIL for row in qc)
    if not judged:
        return "The quality has not been measured", NO_RANGE
    words = "; ".join([f"{passed} of {judged} metrics are within their range", *faults])
    return words, FAIL if faults else PASS


def _describe_exposure(row):
    """Make a row of METADATA ready for people."""
    names = row.dtype.names
    used = bool(row["used"])
    reason = read_text(row["reason"]) if "reason" in names else ""
    mid_time = Time(row["mid_time_mjd"], format="mjd") if row["mid_time_mjd"] > 0 else None
    return {
        "exposure": read_text(row["filename"]),
        "mid-time (UTC)": "" if mid_time is None else mid_time.strftime("%Y-%m-%d %H:%M"),
        "integrations": int(row["nints"]),
        "level": _format(row["scale"], ".4f") or "",
        "not used": _format(100 * row["masked_fraction"], ".1f", " %") or "",
        "deviation": _format(row["deviation"], ".2f", " %") or "" if "deviation" in names else "",
        "decision": "used" if used else f"not used: {reason}".rstrip(": "),
    }


def _caption_exposures(exposures, number):
    """Tell the decision on each exposure under its picture."""
    if len(exposures) != number:
        return [f"exposure {index + 1}" for index in range(number)]
    return [f"{row['exposure']}: {row['decision']}" for row in exposures]
