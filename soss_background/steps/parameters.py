"""Parameters that name what a run applies: files, exposures, data models."""

from collections.abc import Iterable
from pathlib import Path

from jwst.stpipe import Pipeline
from stdatamodels.jwst.datamodels import JwstDataModel

from soss_background.datamodels.names import check_path
from soss_background.errors import SkyflatError
from soss_background.io.skyflats import find_files

__all__ = ["ListParameter", "check_flat", "check_named", "name_item"]

# Single values, although Python can iterate them.
_SINGLE = (str, Path, JwstDataModel)


class ListParameter:
    """A parameter that is a list or None; setting a single value sets a list of it."""

    def __set_name__(self, owner, name):
        """Remember the name of the parameter."""
        self._name = name

    def __get__(self, step, owner=None):
        """Return the list of a step."""
        return self if step is None else step.__dict__.get(self._name)

    def __set__(self, step, value):
        """Set the list of a step."""
        if isinstance(value, _SINGLE):
            value = [value]
        step.__dict__[self._name] = list(value) if isinstance(value, Iterable) else value


def name_item(item):
    """Return the file name of a data model or path, and any other item unchanged."""
    if isinstance(item, JwstDataModel):
        return item.meta.filename or type(item).__name__
    return str(item) if isinstance(item, str | Path) else item


def check_flat(header, flat):
    """Raise if a flat that the user names is not that of a flat-fielded exposure."""
    own = header.get("meta.ref_file.flat.name") or ""
    if flat and flat != "N/A" and Path(name_item(flat)).name != Path(own).name:
        raise SkyflatError(
            f"{header.get('meta.filename')}: flat-fielded already (R_FLAT is {own!r}), "
            f"{name_item(flat)} cannot be applied"
        )


def check_named(step):
    """Raise if a file that the user names for a step is missing, or the step is skipped."""
    for value in _named_files(step).values():
        # A list may hold wildcards.
        paths = find_files(filter(_is_path, value)) if isinstance(value, list) else [value]
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
            continue  # jwst's flat_field may be skipped, and its flat serve the sky
        given = [key for key in part.named if getattr(part, key)] + list(_named_files(part))
        if given:
            raise SkyflatError(f"--steps.{name}.{given[0]} is given, but {name} is skipped")


def _is_path(item):
    """Return whether an item is a string or path."""
    return isinstance(item, str | Path)


def _named_files(step):
    """Return the files and models that the user names for a step by their parameters."""
    found = {name: getattr(step, name) for name in getattr(step, "named_files", ())}
    for kind in () if isinstance(step, Pipeline) else step.reference_file_types:
        found[f"override_{kind}"] = step.get_ref_override(kind)
    return {name: value for name, value in found.items() if value and value != "N/A"}
