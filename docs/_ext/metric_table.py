"""The directive ``metric-table``: the metrics of a module with their units and default ranges."""

import importlib

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class MetricTable(SphinxDirective):
    """Show the ``METRICS`` of the module whose dotted name is given."""

    required_arguments = 1

    def run(self):
        """Create the table."""
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 8 16 54", ""]
        lines += ["   * - Metric", "     - Unit", "     - Default range", "     - Meaning"]
        for name, metric in importlib.import_module(self.arguments[0]).METRICS.items():
            limits = "" if metric.limits is None else "{:g} to {:g}".format(*metric.limits)
            lines += [f"   * - ``{name}``", f"     - {metric.unit}"]
            lines += [f"     - {limits}", f"     - {metric.comment}"]
        parent = nodes.container()
        self.state.nested_parse(StringList(lines), self.content_offset, parent)
        return parent.children


def setup(app):
    """Register the directive."""
    app.add_directive("metric-table", MetricTable)
    return {"parallel_read_safe": True}
