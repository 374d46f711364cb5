"""The directive ``metric-table``: the metrics of a module with their units and default ranges."""

import importlib

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class MetricTable(SphinxDirective):
    """
    Show the ``METRICS`` of the module whose dotted name is given.

    The option ``guide`` names the module whose ``GUIDE`` has groups of metrics and advice.
    """

    required_arguments = 1
    option_spec = {"guide": directives.unchanged}  # noqa: RUF012 - as docutils has it

    def run(self):
        """Create the tables."""
        metrics = importlib.import_module(self.arguments[0]).METRICS
        groups = {"": dict.fromkeys(metrics, "")}
        if "guide" in self.options:
            groups = importlib.import_module(self.options["guide"]).GUIDE
        lines = []
        for heading, advice in groups.items():
            lines += [f"**{heading}**", ""] if heading else []
            lines += _list_table({name: (metrics[name], advice[name]) for name in advice})
        parent = nodes.container()
        self.state.nested_parse(StringList(lines), self.content_offset, parent)
        return parent.children


def _list_table(rows):
    """Return the lines of a table of metrics, each with its advice."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 8 16 54", ""]
    lines += ["   * - Metric", "     - Unit", "     - Default range", "     - Meaning"]
    for name, (metric, advice) in rows.items():
        limits = "" if metric.limits is None else "{:g} to {:g}".format(*metric.limits)
        lines += [f"   * - ``{name}``", f"     - {metric.unit}", f"     - {limits}"]
        lines.append(f"     - {metric.comment}")
        lines += ["", f"       *What to do:* {advice}"] if advice else []
    return [*lines, ""]


def setup(app):
    """Register the directive."""
    app.add_directive("metric-table", MetricTable)
    return {"parallel_read_safe": True}
