"""Provenance of a product: the command that reproduces it, and all parameters."""

import logging
import shlex
from collections.abc import Iterable
from pathlib import Path

import asdf
from stpipe import config_parser

from soss_background.errors import SkyflatError
from soss_background.steps.parameters import find_overrides, name_item

__all__ = [
    "check_parameter_file",
    "complete_parameters",
    "describe_command",
    "list_parameters",
    "name_inputs",
    "name_log_files",
    "wrap_command",
]

# Characters of a HISTORY card, without the mark of a continued line.
_CARD = 70

# Parameters of stpipe that belong to one run: the paths of its input and of its products.
_PLACES = ("input_dir", "output_dir", "output_file")

# Parameters of stpipe that do not change a product, or that strun sets itself. A command that is
# repeated in another folder must not replace the product of the first run.
_HOUSEKEEPING = {
    "input_dir",
    "output_dir",
    "output_use_index",
    "output_use_model",
    "search_output_file",
}


def describe_command(step, names):
    """Return the ``strun`` command that repeats a run, with parameters that are not defaults."""
    defaults, checks = list_parameters(step, default=True), _list_checks(step)
    options = [
        f"--{name}={_text(value, checks.get(name, ''))}"
        for name, value in list_parameters(step).items()
        if value != defaults.get(name)
    ]
    name = f"soss_background.{type(step).__name__}"
    return shlex.join(["strun", name, *names, *options])


def _list_checks(step, prefix=""):
    """Return the type that the spec gives each parameter, by the names of ``strun``."""
    spec = config_parser.get_merged_spec_file(type(step))
    checks = {prefix + name: check for name, check in spec.items() if isinstance(check, str)}
    for name in getattr(step, "step_defs", {}):
        checks |= _list_checks(getattr(step, name), f"{prefix}steps.{name}.")
    return checks


def list_parameters(step, prefix="", *, default=False):
    """Return parameters, or defaults, by their ``strun`` names (``steps.skyflat_mask.n_sigma``)."""
    spec = config_parser.get_merged_spec_file(type(step))
    values = config_parser.config_from_dict({}, spec) if default else step.get_pars()
    for kind in () if default else step.reference_file_types:
        values[f"override_{kind}"] = name_item(getattr(step, f"override_{kind}", None) or None)
    # The step or pipeline that the user called saves its results anyway.
    left_out = {*_HOUSEKEEPING, "steps"} | ({"save_results"} if not prefix else set())
    kept = [key for key in values if key not in left_out]
    found = {prefix + key: _plain(values[key]) for key in kept}
    for name in getattr(step, "step_defs", {}):
        found |= list_parameters(getattr(step, name), f"{prefix}steps.{name}.", default=default)
    return found


def check_parameter_file(path):
    """Raise SkyflatError if a parameter file would replace a file of another kind."""
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with asdf.open(path) as file:
            is_known = {"class", "parameters"} <= set(file.tree)
    except Exception:  # asdf raises many kinds  # noqa: BLE001
        is_known = False
    if not is_known:
        raise SkyflatError(f"{path} exists and is not a parameter file: give another name")


def complete_parameters(path, step):
    """Add the reference files to a parameter file, but no paths of other files."""
    with asdf.open(path, mode="rw") as file:
        _complete(file.tree, step)
        file.update()


def _complete(tree, step):
    """Add the reference files of a step and its sub-steps to their parameters."""
    overrides = {name: name_item(value) for name, value in find_overrides(step).items()}
    tree["parameters"] |= dict.fromkeys(_PLACES) | overrides
    for part in tree.get("steps", []):
        _complete(part, getattr(step, part["name"]))


def wrap_command(command):
    """Wrap a command for a FITS header, in ASCII; all lines but the last end with a backslash."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        word = word.replace("\n", " ").encode("ascii", "backslashreplace").decode()
        if lines[-1] and len(lines[-1]) + len(word) >= _CARD:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def name_inputs(inputs):
    """Return the names of paths, models and libraries, also in nested lists."""
    names = []
    for item in inputs:
        if isinstance(item, str | Path):
            names.append(str(item))
        elif hasattr(item, "asn"):
            names.append(item.asn.get("table_name") or "asn.json")
        elif hasattr(item, "meta"):
            names.append(item.meta.filename or "model")
        elif isinstance(item, Iterable):
            names += name_inputs(item)
    return names


def name_log_files():
    """Return the paths of the files that ``--log-file`` of ``strun`` writes."""
    handlers = logging.getLogger("soss_background").handlers
    return [each.baseFilename for each in handlers if isinstance(each, logging.FileHandler)]


def _plain(value):
    """Return numbers, strings and lists of them unchanged, other objects such as hooks by name."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _text(value, check):
    """Format a value for the command line, where a comma separates items of a list."""
    if not isinstance(value, list):
        return _quote(str(value))
    # `force_list` makes a list of a single value; other types need a comma after it.
    comma = "," if len(value) == 1 and not check.startswith("force_list") else ""
    return ",".join(_quote(str(item)) for item in value) + comma


def _quote(text):
    """Quote a string with characters that have a meaning in a parameter."""
    if not set(text) & set(",#\"'"):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'
