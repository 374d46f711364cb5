"""HTML reports that need no other file and no network."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader

from soss_background.datamodels.quality_table import (
    FAIL,
    NO_RANGE,
    PASS,
    format_number,
    list_failures,
    read_text,
)
from soss_background.io.files import save_whole
from soss_background.steps.provenance import wrap_command

__all__ = ["Report", "Section", "write_html"]


class Section(NamedTuple):
    """A section of a report: a paragraph, a table (list of dict, one per row), and figures."""

    heading: str
    figures: list
    text: str = ""
    rows: list = ()

    @property
    def small(self):
        """True if the figures are small."""
        return any(figure.small for figure in self.figures)


@dataclass(frozen=True)
class Report:
    """
    Content of a report on the product ``name``.

    Attributes
    ----------
    qc : ndarray, shape (n,)
        QC; empty if the quality was not measured.
    sections : list of Section
        Sections in their order.
    runs : list of dict
        ``command`` and ``parameters`` of the runs that created the product.
    facts, versions : dict of str
        Entries of the tables at the head of the report and below the runs, by label.
    """

    name: str
    qc: np.ndarray
    sections: list
    runs: list
    facts: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    @property
    def flag(self):
        """Whether all metrics are in range: "pass", "fail", or "no range" without any range."""
        flags = {row["flag"] for row in self.metrics}
        return next((flag for flag in (FAIL, PASS) if flag in flags), NO_RANGE)

    @property
    def verdict(self):
        """How many metrics are in range, and which are not."""
        flags = [row["flag"] for row in self.metrics]
        passed, failed = flags.count(PASS), flags.count(FAIL)
        if passed + failed == 0:
            return "The quality has not been measured"
        summary = f"{passed} of {passed + failed} metrics are within their range"
        return "; ".join([summary, *list_failures(self.qc)])

    @property
    def metrics(self):
        """Rows of QC as dictionaries of strings, except the value."""
        return [_describe_metric(row) for row in self.qc]

    def save_html(self, path):
        """Write the report to an HTML file."""
        write_html(path, "report.html", title=self.name, report=self)


def _describe_metric(row):
    """Return a row of QC as a dictionary of strings, except the value."""
    metric = {key: read_text(row[key]) for key in ("name", "unit", "flag", "comment")}
    metric["range"] = "" if np.isnan(row["low"]) else f"{row['low']:g} to {row['high']:g}"
    return metric | {"value": float(row["value"])}


def write_html(path, template, **content):
    """Fill in a template with ``content`` and write it to an HTML file."""
    environment = Environment(
        loader=PackageLoader("soss_background.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "wrap": wrap_command}
    text = environment.get_template(template).render(content)
    save_whole(functools.partial(Path.write_text, data=text, encoding="utf-8"), path)
