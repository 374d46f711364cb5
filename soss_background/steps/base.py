"""Base classes of steps and pipelines: CRDS access, logging, names, saving."""

import logging
import math
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

from crds.core.exceptions import CrdsError
from jwst.datamodels import ModelContainer, ModelLibrary
from jwst.stpipe import Pipeline, Step
from stdatamodels.jwst import datamodels
from stpipe.exceptions import ValidationError

from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError, one_line
from soss_background.io.checks import check_model
from soss_background.io.exposures import member_paths, open_libraries, read_header
from soss_background.io.files import explain_fault, ignore_file_warnings, real_path, save_whole
from soss_background.steps.crds_access import check_reference, crds_reachable, no_reference_error
from soss_background.steps.provenance import (
    describe_command,
    list_parameters,
    name_inputs,
    wrap_command,
)
from soss_background.steps.resources import limit_resources

__all__ = [
    "SkyflatMixin",
    "SkyflatPipelineBase",
    "SkyflatStep",
]

log = logging.getLogger(__name__)


class SkyflatMixin:
    """Behaviour of the package's steps and pipelines that differs from those of jwst."""

    @staticmethod
    def get_stpipe_loggers():
        """Return the names of the loggers whose messages are shown and saved."""
        return (*Step.get_stpipe_loggers(), "soss_background")

    @classmethod
    def _get_crds_parameters(cls, dataset):
        """Return the metadata that CRDS matches; the step itself reports unreadable files."""
        try:
            with ignore_file_warnings():
                return super()._get_crds_parameters(dataset)
        except (AttributeError, LookupError) as err:
            raise TypeError(f"{dataset} has no JWST metadata") from err

    @classmethod
    def get_config_from_reference(cls, dataset, disable=None, crds_observatory=None):
        """Return parameters from CRDS if it can be reached."""
        return super().get_config_from_reference(
            dataset,
            disable=disable if crds_reachable() else True,
            crds_observatory=crds_observatory,
        )

    @classmethod
    def from_config_section(cls, config, parent=None, **kwargs):
        """Create a step; log parameters that its spec refuses in one line, without the help."""
        try:
            return super().from_config_section(config, parent=parent, **kwargs)
        except ValidationError as err:
            fault = f"{cls.__name__}: {one_line(err)}"
            log.error("%s", fault)  # noqa: TRY400 - a traceback would hide the line
            raise SkyflatError(fault) from err

    def get_pars(self, *args, **kwargs):
        """Return the parameters; strings in lists become plain str, which can be saved."""
        pars = super().get_pars(*args, **kwargs)
        return {
            name: [str(item) if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else value
            for name, value in pars.items()
        }

    def run(self, *args):
        """Run the step; log a fault that the user can fix in one line."""
        if not isinstance(self.parent, SkyflatMixin):
            # Before jwst's own steps change what they were given.
            self._run = self._describe_run(name_inputs(args))
        try:
            if self.parent is None:
                check_numbers(self.get_pars())
            with limit_resources() if self.parent is None else nullcontext():
                return super().run(*args)
        except SkyflatError as err:
            if not isinstance(self.parent, SkyflatPipelineBase):
                log.error("%s", err)  # noqa: TRY400 - a traceback would hide the line
            raise

    def finalize_result(self, result, reference_files_used):
        """Record versions, reference files, logs and the run, even if CRDS cannot be reached."""
        if self.parent is None and isinstance(result, datamodels.JwstDataModel):
            run = self.describe_run()
            for line in wrap_command(run["command"]):
                result.add_history_entry(line)
            if isinstance(result, SkyflatModel):
                result.meta.skyflat.runs.append(run)
        if crds_reachable():
            super().finalize_result(result, reference_files_used)
            return
        # With an empty list, jwst's method records all but what it needs CRDS for.
        Step.finalize_result(self, result, [])
        for reference_file_type, filename in reference_files_used:
            getattr(result.meta.ref_file, reference_file_type).name = filename

    _run = None

    def _describe_run(self, names):
        """Describe the run on inputs of these names."""
        return {"command": describe_command(self, names), "parameters": list_parameters(self)}

    def describe_run(self):
        """Return the ``command`` that repeats the user's run, and its ``parameters``."""
        if isinstance(self.parent, SkyflatMixin):
            return self.parent.describe_run()
        return self._run or self._describe_run([])

    # Suffixes of products of the package that the names of inputs can have.
    input_suffixes: ClassVar = ()

    def remove_suffix(self, name):
        """Remove a suffix of jwst's, of the step's inputs or of its own from a file name."""
        for suffix in (*self.input_suffixes, self.suffix):
            for separator in "_-":
                root = name.removesuffix(f"{separator}{suffix}")
                if suffix and root not in ("", name):
                    return root, separator
        return super().remove_suffix(name)

    def open_exposures(self, inputs):
        """Return a `ModelLibrary` for each product of the step's inputs, see `open_libraries`."""
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple | ModelContainer):
            inputs = inputs[0]
        libraries = open_libraries([self.make_input_path(item) for item in inputs], self.scratch())
        self._input_paths = {path for library in libraries for path in member_paths(library)}
        return libraries

    def scratch(self):
        """
        Return the folder for exposures in work: that of the products, if it is writable.

        Exposures may need gigabytes, more than a system's temporary folder holds.

        Returns
        -------
        folder : `~pathlib.Path` or None
            The folder; None if ``in_memory`` is set.
        """
        output_dir = self.search_attr("output_dir")
        folder = Path(os.path.expandvars(output_dir or ".")).expanduser()
        if output_dir and not os.access(folder, os.W_OK):
            raise SkyflatError(f"{folder}: cannot be written to")
        if self.in_memory or getattr(self.parent, "in_memory", False):
            return None
        return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())

    def save_model(self, model, suffix=None, idx=None, output_file=None, force=False, **components):
        """Save under the model's own name unless another is given; write the file atomically."""
        output_file = output_file or self.output_file
        if not (self.save_results or output_file or force):
            return None
        if isinstance(model, ModelLibrary):
            return self._save_library(model, suffix, idx, output_file, force, components)
        if isinstance(model, ModelContainer):
            return [
                self.save_model(each, suffix, index, output_file, force, **components)
                for index, each in enumerate(model)
            ]
        output_file = output_file or self.search_attr("output_file")
        path = self.make_output_path(
            basepath=output_file or model.meta.filename,
            suffix=suffix,
            **({"idx": idx, **components} if output_file else {}),
        )
        if real_path(path) in self.search_attr("_input_paths", ()):
            raise SkyflatError(f"{path} is an input: give --output_dir, --output_file or --suffix")
        save_whole(model.save, Path(path))
        log.info("Saved model in %s", path)
        return path

    def save_product(self, write, name, suffix, extension):
        """Save a file that ``write(path)`` writes, named as the data models are."""
        name = self.search_attr("output_file") or name
        path = Path(self.make_output_path(name, suffix=suffix, ext=extension))
        save_whole(write, path)
        log.info("Saved %s in %s", suffix, path)

    def _save_library(self, library, suffix, idx, output_file, force, components):
        """Save the models of a library; number those that share a given name."""
        paths = []
        with library:
            for index, model in enumerate(library):
                if len(library) > 1:
                    components["exposure"] = index
                paths.append(self.save_model(model, suffix, idx, output_file, force, **components))
                library.shelve(model, index, modify=False)
        return paths


def check_numbers(parameters, prefix=""):
    """Raise unless all numbers among parameters, also those of sub-steps, are finite."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            check_numbers(value, f"{prefix}{name}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise SkyflatError(f"{prefix}{name} is {number}, not a finite number")


class SkyflatStep(SkyflatMixin, Step):
    """Base class of the package's steps."""

    def open_exposure(self, init):
        """Open the step's input, an image or cube, which the step must not change."""
        init, name, kind = self._look_into(init)
        exposure = self.open_whole(init, make_copy=False)
        if not isinstance(exposure, datamodels.ImageModel | datamodels.CubeModel):
            raise SkyflatError(f"{name}: {kind} is neither an image nor a cube")
        check_model(exposure, name)
        return exposure

    def open_skyflat(self, init):
        """Open the step's skyflat; copy it outside a pipeline."""
        init, name, kind = self._look_into(init)
        if kind != SkyflatModel.__name__:
            raise SkyflatError(f"{name}: not a skyflat")
        skyflat = self.open_whole(init, open_as_type=SkyflatModel)
        check_model(skyflat, name)
        return skyflat

    def open_whole(self, init, **kwargs):
        """Open a file or model as stpipe does; explain the fault of a file."""
        with explain_fault(init) if isinstance(init, Path) else nullcontext():
            return self.prepare_output(init, **kwargs)

    def _look_into(self, init):
        """Return an input, its name and the kind of its model; remember its file as an input."""
        if isinstance(init, datamodels.JwstDataModel):
            return init, init.meta.filename, init.meta.model_type
        path = Path(self.make_input_path(str(init)))
        self._input_paths = {real_path(path)}
        return path, path, read_header(path).get("meta.model_type")


class SkyflatPipelineBase(SkyflatMixin, Pipeline):
    """Base class of the package's pipelines."""

    def _precache_references(self, input_file):
        """Raise, before any work is done, unless every reference file is available."""
        overrides = {kind: self.get_ref_override(kind) for kind in self.reference_file_types}
        for kind, override in overrides.items():
            if override is None and not crds_reachable():
                raise no_reference_error(kind, "CRDS cannot be reached")
            if isinstance(override, str) and override != "N/A":
                check_reference(Path(override))
        if None not in overrides.values():
            return
        try:
            super()._precache_references(input_file)
        except (SystemExit, CrdsError) as err:
            raise no_reference_error("flat", f"CRDS gives none ({err})") from err
