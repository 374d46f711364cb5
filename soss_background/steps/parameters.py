"""Parameters: their types, and those that name files, exposures and models of a run."""

from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from configobj import Section
from jwst.stpipe import Pipeline, Step
from stdatamodels.jwst.datamodels import JwstDataModel
from stpipe import config_parser
from stpipe.exceptions import ValidationError

from soss_background.datamodels.names import check_path, show
from soss_background.errors import SkyflatError, one_line
from soss_background.io.files import explain_write_fault
from soss_background.io.skyflats import find_files

__all__ = [
    "BAD_PIXELS",
    "ListParameter",
    "check_flat",
    "check_named",
    "explain_parameters",
    "find_overrides",
    "name_item",
    "name_paths",
    "settle_parameters",
]

# Specification of a parameter of several steps.
BAD_PIXELS = (
    "bad_pixels = string(default=None)  # Pixels to ignore: a FITS image, nonzero where bad, or a "
    "table (FITS, CSV, ECSV, text) of x and y, counted from 0"
)

# Iterable types that are nevertheless single values of a parameter.
_NAMES = (str, Path, JwstDataModel)
_SINGLE = (*_NAMES, np.ndarray)


class ListParameter:
    """A parameter that is a list or None; setting a single value sets a list of it."""

    def __set_name__(self, owner, name):
        """Remember the name of the parameter."""
        self._name = name

    def __get__(self, step, owner=None):
        """Return the list of a step."""
        return self if step is None else step.__dict__.get(self._name)

    def __set__(self, step, value):
        """Set the list of a step; raise SkyflatError unless its items can be found by name."""
        if value is not None:
            is_list = isinstance(value, Iterable) and not isinstance(value, _SINGLE)
            value = list(value) if is_list else [value]
            _check_names({self._name: value}, _SINGLE)
        step.__dict__[self._name] = value


def _check_names(values, kinds):
    """Raise unless values, or the items of their lists, are of some kinds."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, kinds):
                fault = f"{name} is {show(name_item(value))}, not a file name, path or model"
                raise SkyflatError(fault)


@contextmanager
def explain_parameters(kind):
    """Raise SkyflatError in one line if the spec of a class of steps refuses a parameter."""
    try:
        yield
    except ValidationError as err:
        raise SkyflatError(f"{kind.__name__}: {one_line(err)}") from err
    except OSError as err:
        with explain_write_fault(err.filename or ""):  # stpipe creates the folder of `output_file`
            raise


def name_paths(parameters):
    """Replace paths among parameters, also of sub-steps, by strings, and arrays by lists of one."""
    for name, value in parameters.items():
        if isinstance(value, Section):
            name_paths(value)
        elif isinstance(value, dict):
            parameters[name] = name_paths(dict(value))
        elif isinstance(value, Path):
            parameters[name] = str(value)
        elif isinstance(value, np.ndarray):  # stpipe compares values
            if name.startswith("override_"):
                _check_names({name: value}, _NAMES)
            parameters[name] = [value]
    return parameters


def settle_parameters(step):
    """Convert the parameters of a step and its sub-steps to their types; None is the default."""
    for name, value in list(vars(step).items()):
        if isinstance(value, Path) and not name.startswith("_"):
            setattr(step, name, str(value))
    _check_names(find_overrides(step), _NAMES)
    with explain_parameters(type(step)):
        defaults = config_parser.config_from_dict({}, config_parser.get_merged_spec_file(step))
        values = Step.get_pars(step)
    if hasattr(step, "named_files"):  # not one of jwst's own
        for name, value in values.items():
            setattr(step, name, defaults[name] if value is None else value)
    for name in getattr(step, "step_defs", ()):
        settle_parameters(getattr(step, name))


def find_overrides(step):
    """Return the reference files and models that the user names for a step, by parameter."""
    kinds = () if isinstance(step, Pipeline) else step.reference_file_types
    found = {f"override_{kind}": getattr(step, f"override_{kind}", None) for kind in kinds}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray) or value}


def name_item(item):
    """Return the file name of a data model or path, a word for an array, else the item itself."""
    if isinstance(item, np.ndarray):
        return "array"
    if isinstance(item, JwstDataModel):
        return item.meta.filename or type(item).__name__
    return str(item) if isinstance(item, str | Path) else item


def check_flat(header, flat):
    """Raise if a flat that the user names is not that of a flat-fielded exposure."""
    if header.get("meta.cal_step.flat_field") != "COMPLETE":
        return
    own = header.get("meta.ref_file.flat.name") or ""
    if flat and flat != "N/A" and Path(name_item(flat)).name != Path(own).name:
        raise SkyflatError(
            f"{header.get('meta.filename')}: flat-fielded already (R_FLAT is {own!r}), "
            f"{name_item(flat)} cannot be applied"
        )


def check_named(step):
    """Raise if a file that the user names for a step is missing, or the step is skipped."""
    for name in getattr(step, "named_files", ()):
        if _is_empty(getattr(step, name)):
            raise SkyflatError(f"{name} is empty: give a file, or omit it")
    for value in _named_files(step).values():
        # A list may hold wildcards, and folders, which the step lists.
        paths = [value]
        if isinstance(value, list):
            paths = find_files(filter(_is_path, value), lambda folder: [folder])
        for path in filter(_is_path, paths):
            check_path(str(path))
            if not Path(path).exists():
                raise SkyflatError(f"{path}: no such file")
    for name in getattr(step, "step_defs", ()):
        part = getattr(step, name)
        if not part.skip:
            check_named(part)
            continue
        if not hasattr(part, "named_files"):
            continue  # jwst's flat_field may be skipped while its flat is still used for the sky
        given = [key for key in part.named if getattr(part, key)] + list(_named_files(part))
        if given:
            raise SkyflatError(f"--steps.{name}.{given[0]} is given, but {name} is skipped")


def _is_empty(value):
    """Return whether a value is an empty string, as an unset variable of a shell gives it."""
    items = value if isinstance(value, list) and value else [value]
    return all(isinstance(item, str) and not item for item in items)


def _is_path(item):
    """Return whether an item is a string or path."""
    return isinstance(item, str | Path)


def _named_files(step):
    """Return the files and models that the user names for a step by their parameters."""
    found = {name: getattr(step, name) for name in getattr(step, "named_files", ())}
    for kind in () if isinstance(step, Pipeline) else step.reference_file_types:
        found[f"override_{kind}"] = step.get_ref_override(kind)
    return {name: value for name, value in found.items() if value and value != "N/A"}
