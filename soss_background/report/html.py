"""HTML reports that need no other file and no network."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader

from soss_background.datamodels.quality_table import (
    FAIL,
    FRACTION,
    NO_RANGE,
    PASS,
    format_number,
    list_failures,
    read_text,
)
from soss_background.io.files import save_whole
from soss_background.steps.metric_ranges import strip_row
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
    guide : dict of dict of str
        What to do about a metric out of its range, by group and by name without row number; see
        `soss_background.quality.guide`. Without it, the metrics are not grouped.
    facts, versions : dict of str
        Entries of the tables at the head of the report and below the runs, by label.
    """

    name: str
    qc: np.ndarray
    sections: list
    runs: list
    guide: dict = field(default_factory=dict)
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
        known = {name for advice in self.guide.values() for name in advice}
        return [_describe_metric(row, known) for row in self.qc]

    @property
    def groups(self):
        """Metrics by the heading of their group, in order; all in one group without a guide."""
        found = {
            heading: [row for row in self.metrics if row["kind"] in advice]
            for heading, advice in self.guide.items()
        }
        known = [row["name"] for rows in found.values() for row in rows]
        found["Other"] = [row for row in self.metrics if row["name"] not in known]
        return {heading: rows for heading, rows in found.items() if rows}

    @property
    def advice(self):
        """Meaning of the metrics and what to do about them, by group and name."""
        meanings = {row["kind"]: row["comment"] for row in self.metrics}
        return {
            heading: {
                name: (meanings[name], text) for name, text in advice.items() if name in meanings
            }
            for heading, advice in self.guide.items()
            if set(advice) & set(meanings)
        }

    def save_html(self, path):
        """Write the report to an HTML file."""
        write_html(path, "report.html", title=self.name, report=self)


def _describe_metric(row, known):
    """Return a row of QC as a dictionary of strings, except the value; ``known`` have advice."""
    metric = {key: read_text(row[key]) for key in ("name", "unit", "flag", "comment")}
    factor = 1
    if metric["unit"] == FRACTION:
        factor, metric["unit"] = 100, "%"
    return metric | {
        "kind": metric["name"] if metric["name"] in known else strip_row(metric["name"]),
        "range": _describe_range(factor * row["low"], factor * row["high"]),
        "shown": format_number(factor * float(row["value"])),
        "value": float(row["value"]),
    }


def _describe_range(low, high):
    """Return a range as a string; empty if there is none."""
    if np.isnan(low):
        return ""
    return f"at least {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def _make_id(text):
    """Return a string as the end of an id of HTML."""
    return text.lower().replace(" ", "-")


def write_html(path, template, **content):
    """Fill in a template with ``content`` and write it to an HTML file."""
    environment = Environment(
        loader=PackageLoader("soss_background.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"id": _make_id, "wrap": wrap_command}
    text = environment.get_template(template).render(content)
    save_whole(functools.partial(Path.write_text, data=text, encoding="utf-8"), path)
