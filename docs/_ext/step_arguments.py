"""The directive ``step-arguments``: a table of the arguments of a step, from its ``spec``."""

import importlib
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from stpipe import config_parser

# Arguments that stpipe adds to every step.
_COMMON = (
    "Every step also has the arguments of stpipe: ``--output_dir``, ``--output_file``, "
    "``--save_results``, ``--skip``, ``--pre_hooks``, ``--post_hooks``."
)
_INHERITED = "The arguments are those of the pipeline of jwst that this class extends."

_HEADER = [
    ".. list-table::",
    "   :header-rows: 1",
    "   :widths: 24 16 60",
    "",
    "   * - Argument",
    "     - Default",
    "     - Meaning",
]


class StepArguments(SphinxDirective):
    """Show the arguments of the step whose dotted name is given: name, default, meaning."""

    required_arguments = 1

    def run(self):
        """Create the table, or a sentence if the step adds no arguments."""
        module, name = self.arguments[0].rsplit(".", 1)
        step = getattr(importlib.import_module(module), name)
        rows = []
        for kind in step.__mro__:
            if "spec" in vars(kind) and kind.__module__.startswith("soss_background"):
                rows += _rows(config_parser.load_spec_file(kind))
        lines = [*_HEADER, *rows, ""] if rows else [_INHERITED, ""]
        lines.append(_COMMON)
        parent = nodes.container()
        self.state.nested_parse(StringList(lines), self.content_offset, parent)
        return parent.children


def _rows(spec):
    """Return the rows of the arguments that a class adds."""
    lines = []
    for key, default in config_parser.config_from_dict({}, spec).items():
        meaning = (spec.inline_comments[key] or "").lstrip("# ") + _choices(spec[key])
        lines += [f"   * - ``{key}``", f"     - {_show(default)}", f"     - {meaning}"]
    return lines


def _choices(check):
    """List the choices of an option."""
    if not check.startswith("option("):
        return ""
    choices = re.findall("'(.*?)'", check.partition("default=")[0])
    return f" ({', '.join(f'``{choice}``' for choice in choices)})"


def _show(default):
    """Write a default value."""
    if default is None:
        return ""
    values = default if isinstance(default, list) else [default]
    return f"``{', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}``"


def setup(app):
    """Register the directive."""
    app.add_directive("step-arguments", StepArguments)
    return {"parallel_read_safe": True}
