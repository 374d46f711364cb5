"""A page that shows a skyflat, its quality, and where it comes from."""

import functools
from collections import Counter
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.backends.backend_pdf import PdfPages
from tqdm import tqdm

from soss_background.errors import SkyflatError
from soss_background.io.files import check_folder, save_whole
from soss_background.io.skyflats import find_place, name_skyflat, open_skyflat
from soss_background.quality.metrics import count_samples
from soss_background.report import pictures
from soss_background.report.descriptions import (
    describe_exposure,
    describe_metric,
    describe_skyflat,
    judge,
)
from soss_background.report.views import view_exposures
from soss_background.steps.provenance import wrap_command
from soss_background.steps.qc import failures, format_number

__all__ = ["Report", "write_page", "write_reports"]


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
    has_stack : bool
        Whether the exposures are in it.
    pictures : dict of list of `~soss_background.report.pictures.Picture`
        The pictures of each section.

    Raises
    ------
    SkyflatError
        If it cannot be read, is no skyflat, or has no sky in it.
    """

    def __init__(self, skyflat):
        path = skyflat if hasattr(skyflat, "meta") else Path(skyflat)
        with open_skyflat(path) as model:
            self.name = name_skyflat(path, model)
            self.facts, self.versions = describe_skyflat(model)
            self.runs = [run.instance for run in model.meta.skyflat.runs]
            self.has_stack = model.images is not None and model.masks is not None
            qc, table = _rows(model.qc), _rows(model.metadata)
            self.qc = [describe_metric(row) for row in qc]
            self.verdict, self.flag = judge(self.qc, failures(qc))
            self.exposures = [describe_exposure(row) for row in table]
            self.pictures = self._picture(model, table)

    def _picture(self, model, table):
        """Collect the pictures; the exposures are read one by one."""
        window = find_place(model, model.bkg.shape, self.name)
        planes = {"BKG": model.bkg, "BKGDN": model.bkgdn}
        planes = {key: np.array(plane) for key, plane in planes.items() if plane is not None}
        bkg = np.where(window.reference_pixels(), np.nan, planes["BKG"])
        if not np.isfinite(bkg).any():
            raise SkyflatError(f"{self.name}: no sky in it")
        err, coverage = np.array(model.err), None
        vetting, exposures = pictures.picture_vetting(table, self.runs), []
        if self.has_stack:
            number = len(model.images)
            coverage = count_samples(model.masks)
            images = tqdm(model.images, self.name, number, unit="exposure", disable=None)
            masks = model.masks
            views, variation = view_exposures(images, masks, bkg, err, coverage)
            vetting += pictures.picture_scatter(views, variation, window)
            limits = np.nanpercentile(bkg, [0.5, 99.5])
            exposures = pictures.picture_exposures(views, self._captions(number), limits)
        return {
            "sky": pictures.picture_sky(planes, err, window, coverage),
            "profiles": pictures.picture_profiles(planes, window),
            "vetting": vetting,
            "exposures": exposures,
        }

    def _captions(self, number):
        """Tell the decision on each exposure, if there is one."""
        if len(self.exposures) != number:
            return [f"exposure {index + 1}" for index in range(number)]
        return [f"{row['exposure']}: {row['decision']}" for row in self.exposures]

    def save_html(self, path):
        """
        Write a page that needs nothing else: no network, no other file.

        Parameters
        ----------
        path : `~pathlib.Path`
            The page.
        """
        write_page(path, "report.html", title=self.name, report=self)

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
                pages.savefig(pictures.draw(picture, titled=True), dpi=pictures.DPI)

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
            save = functools.partial(pictures.draw(picture, titled=True).savefig, dpi=pictures.DPI)
            save_whole(save, folder / f"{picture.name}.png")

    def _all_pictures(self):
        """List the pictures of all sections."""
        return [picture for section in self.pictures.values() for picture in section]


def _rows(table):
    """Take the rows of a table; there are none if there is no table."""
    return np.array([] if table is None else table)


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
    folders = list(filter(None, (output.parent, pdf and pdf.parent, png)))
    for folder in folders:
        check_folder(folder)
    for path in skyflats:
        open_skyflat(path).close()
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    verdicts, rows, several = {}, [], len(skyflats) > 1
    for path in skyflats:
        report, own = Report(path), f"_{path.stem}" if several else ""
        page = output.with_stem(output.stem + own)
        report.save_html(page)
        if pdf:
            report.save_pdf(pdf.with_stem(pdf.stem + own))
        if png:
            report.save_png(png / path.stem if several else png)
        verdicts[report.name] = report.verdict
        rows.append((page.name, report.name, report.verdict, report.flag))
    if several:
        write_page(output, "overview.html", title=f"{len(skyflats)} skyflats", rows=rows)
    return verdicts


def write_page(path, template, **content):
    """
    Fill in a template.

    Parameters
    ----------
    path : `~pathlib.Path`
        The page.
    template : str
        Name of the template.
    **content
        What it shows.
    """
    environment = Environment(
        loader=PackageLoader("soss_background.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = {"embed": pictures.embed, "number": format_number, "wrap": wrap_command}
    text = environment.get_template(template).render(tools | content)
    save_whole(functools.partial(Path.write_text, data=text, encoding="utf-8"), path)
