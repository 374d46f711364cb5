"""Base classes of steps and pipelines: CRDS access, logging, names, saving."""

import logging
import math
import os
import tempfile
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import ClassVar

from crds.core.exceptions import CrdsError
from jwst.associations import Association
from jwst.associations.asn_from_list import asn_from_list
from jwst.associations.lib.rules_level2_base import DMSLevel2bBase
from jwst.datamodels import ModelContainer, ModelLibrary
from jwst.stpipe import Pipeline, Step
from stdatamodels.jwst import datamodels

from soss_background.datamodels.names import identify
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.io.associations import (
    background_exposures,
    first_exposure,
    is_association,
    read_association,
    science_exposures,
)
from soss_background.io.bad_pixels import read_bad_pixels
from soss_background.io.checks import check_metadata, check_model
from soss_background.io.cubes import write_cube
from soss_background.io.exposures import (
    find_exposures,
    header_window,
    member_paths,
    open_libraries,
    read_header,
    root_name,
)
from soss_background.io.files import (
    add_history,
    check_folder,
    check_output,
    explain_fault,
    ignore_file_warnings,
    note_inputs,
    protect_inputs,
    real_path,
    save_datamodel,
    save_whole,
)
from soss_background.io.products import check_replaceable
from soss_background.io.segments import SegmentLibrary, Segments, group_segments, progress
from soss_background.io.signals import stop_in_one_line
from soss_background.steps.crds_access import (
    catch_crds_exit,
    check_reference,
    crds_reachable,
    no_reference_error,
)
from soss_background.steps.parameters import (
    check_named,
    explain_parameters,
    name_item,
    name_paths,
    settle_parameters,
)
from soss_background.steps.provenance import (
    check_parameter_file,
    complete_parameters,
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

# Extensions of data models.
_EXTENSIONS = ("fits", "asdf")


@contextmanager
def _log_fault(*, wanted=True):
    """Log in one line a fault that the user can fix; ``strun`` itself ends without a message."""
    try:
        yield
    except SkyflatError as err:
        if wanted:
            log.error("%s", err)  # noqa: TRY400 - a traceback would hide the line
        raise


class SkyflatMixin:
    """Behaviour of the package's steps and pipelines that differs from those of jwst."""

    def __init__(self, *args, **parameters):
        with explain_parameters(type(self)):
            super().__init__(*args, **name_paths(parameters))

    def __setattr__(self, name, value):
        """Set an attribute; parameters are strings instead of paths, as stpipe expects."""
        is_path = isinstance(value, Path) and not name.startswith("_")
        super().__setattr__(name, str(value) if is_path else value)

    @staticmethod
    def get_stpipe_loggers():
        """Return the names of the loggers whose messages are shown and saved."""
        return (*Step.get_stpipe_loggers(), "soss_background")

    @classmethod
    def _get_crds_parameters(cls, dataset):
        """Return the metadata that CRDS matches; the step itself reports unreadable files."""
        while isinstance(dataset, list | tuple) and dataset:
            dataset = dataset[0]
        try:
            with ignore_file_warnings():
                if not isinstance(dataset, str | Path):
                    return super()._get_crds_parameters(dataset)
                dataset = next(iter(find_exposures([dataset])), Path(dataset))
                if is_association(dataset):
                    dataset = first_exposure(dataset)
                return read_header(dataset), "jwst"
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

    # Parameters that name files, and others that the run must apply.
    named_files: ClassVar = ()
    named: ClassVar = ()

    @classmethod
    def from_config_section(cls, config, parent=None, **kwargs):
        """Create a step; log parameters that its spec refuses in one line, without the help."""
        with _log_fault(wanted=parent is None), explain_parameters(cls):
            return super().from_config_section(name_paths(config), parent=parent, **kwargs)

    def get_pars(self, *args, **kwargs):
        """Return the parameters, models and paths by name, which can be saved."""
        pars = super().get_pars(*args, **kwargs)
        return {
            key: list(map(name_item, value)) if isinstance(value, list) else name_item(value)
            for key, value in pars.items()
        }

    def export_config(self, filename, include_metadata=False):
        """Save parameters and reference files, but no paths of other files."""

        def save(path):
            super(SkyflatMixin, self).export_config(path, include_metadata)
            complete_parameters(path, self)

        path = Path(filename)
        with _log_fault(), protect_inputs():
            note_inputs(self.config_file)
            check_parameter_file(path)
            save_whole(save, path)

    def run(self, *args):
        """Run the step; log in one line a fault that the user can fix."""
        limits = limit_resources() if self.parent is None else nullcontext()
        wanted = not isinstance(self.parent, SkyflatPipelineBase)
        with _log_fault(wanted=wanted), protect_inputs(), stop_in_one_line(log.error), limits:
            if not isinstance(self.parent, SkyflatMixin):
                self._prepare(args)
            return super().run(*args)

    def _prepare(self, args):
        """Describe the run; raise if parameters are not valid or products cannot be written."""
        settle_parameters(self)
        # jwst's own steps change their parameters later.
        self._run = self._describe_run(name_inputs(args))
        _check_numbers(self.get_pars())
        check_named(self)
        self._check_places(args)

    def _check_places(self, args):
        """Record the files that the user names; raise unless products can be written."""
        note_inputs([args, self.config_file])
        for name, value in self._run["parameters"].items():
            if name.rpartition(".")[2] not in ("output_dir", "output_file"):
                note_inputs(value)
        for step in (self, *(getattr(self, name) for name in getattr(self, "step_defs", ()))):
            if step.output_ext.removeprefix(".") not in _EXTENSIONS:
                raise SkyflatError(f"output_ext is {step.output_ext!r}, neither .fits nor .asdf")
            if step.save_results or step.output_file or step.output_dir:
                check_folder(Path(step.make_output_path("name.fits")).parent)
            if step.output_file:
                # `run` sets the suffix later.
                suffix = step.suffix or step.default_suffix()
                path = Path(step.make_output_path(step.output_file, suffix=suffix))
                check_output(path)
                self._check_folder_of_name(step.output_file, path.parent)

    def _check_folder_of_name(self, name, folder):
        """Raise if ``output_file`` names a folder other than that of the product."""
        # stpipe ignores this folder. It prepends the current folder, or that of the parameter file.
        known = (folder, Path(), Path(self.config_file or "").parent)
        if real_path(Path(name).parent) not in map(real_path, known):
            raise SkyflatError(f"output_file {name} names a folder: give it by output_dir instead")

    def check_outputs(self, *names):
        """Raise, before any work is done, unless products named after these can be written."""
        for name in names if self.save_results else ():
            check_output(Path(self.make_output_path(self.search_attr("output_file") or name)))

    def finalize_result(self, result, reference_files_used):
        """Record versions, reference files, logs and the run, even if CRDS cannot be reached."""
        if self.parent is None and isinstance(result, datamodels.JwstDataModel):
            run = self.describe_run()
            for line in wrap_command(run["command"]):
                add_history(result, line)
            if isinstance(result, SkyflatModel):
                result.meta.skyflat.runs.append(run)
        if crds_reachable():
            super().finalize_result(result, reference_files_used)
            return
        # With an empty list, jwst's method records everything that needs no CRDS.
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

    def prepare_output(self, init, *args, **kwargs):
        """Open or copy the step's input; close a FITS file, whose pixels are in memory."""
        model = super().prepare_output(init, *args, **kwargs)
        # The open file would keep the arrays that the step replaces. ASDF arrays are read lazily.
        if isinstance(init, str | Path) and Path(init).suffix not in (".asdf", ".json"):
            model.close()
        return model

    # Suffixes of products of the package that the names of inputs can have.
    input_suffixes: ClassVar = ()

    def remove_suffix(self, name):
        """Remove a suffix of jwst, of the step's inputs or of its products from a file name."""
        name = name.removesuffix(".fits")  # of a compressed file
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
        inputs = find_exposures([self.make_input_path(item) for item in inputs])
        libraries = open_libraries(inputs, self.scratch())
        note_inputs([inputs, *(member_paths(library) for library in libraries)])
        return libraries

    def open_segments(self, *inputs):
        """
        Find the exposures among the step's inputs.

        Parameters
        ----------
        *inputs : str, `~pathlib.Path`, data model, Segments, or list of these
            Files, wildcards, folders, associations and models.

        Returns
        -------
        exposures : list of `~soss_background.io.segments.Segments`
            The exposures in order of time.

        Raises
        ------
        SkyflatError
            If an input is of another kind, cannot be read, or is given twice.
        """
        members, exposures = [], []
        for item in inputs:
            if isinstance(item, Segments):
                exposures.append(item)
            elif is_list(item):
                members += [member for each in item for member in self.list_members(each)]
            else:
                members += self.list_members(item)
        exposures += group_segments(members, self.open_whole)
        if not exposures:
            raise SkyflatError("No exposures are given")
        for segments in exposures:
            note_inputs([segments.sources, segments.background])
        return exposures

    def check_output_file(self, exposures):
        """Raise if ``output_file`` is to name the products of several exposures."""
        if len(exposures) > 1 and self.output_file:
            raise SkyflatError(f"output_file names one exposure, but {len(exposures)} are given")

    def list_members(self, item):
        """List the exposures of an input, each with its background exposures."""
        if isinstance(item, datamodels.JwstDataModel):
            return [(item, [])]
        if not isinstance(item, str | Path):
            raise SkyflatError(f"{item!r} is neither a file nor a data model")
        members = []
        for path in map(Path, find_exposures([self.make_input_path(str(item))])):
            if not is_association(path):
                members.append((path, []))
                continue
            for product in read_association(path)["products"]:
                background = background_exposures(path, product)
                members += [(each, background) for each in science_exposures(path, product)]
        return members

    def open_whole(self, init, **kwargs):
        """Open a file or model as stpipe does; explain the fault of a file."""
        with explain_fault(init) if isinstance(init, str | Path) else nullcontext():
            return self.prepare_output(init, **kwargs)

    def load_as_level2_asn(self, obj):
        """Load an association; other files, wildcards and folders get a product per exposure."""
        if isinstance(obj, Association):
            return obj
        if isinstance(obj, datamodels.JwstDataModel):
            # By its name: members of jwst's associations hold copies of the models.
            association = _associate([self.output_file or obj.meta.filename or "model"])
            association["products"][0]["members"][0]["expname"] = obj
            return association
        if not isinstance(obj, str | Path):
            return super().load_as_level2_asn(obj)
        paths = find_exposures([self.make_input_path(str(obj))])
        if is_association(paths[0]):
            read_association(paths[0])
            return super().load_as_level2_asn(str(paths[0]))
        return _associate(paths)

    # Whether to keep exposures in memory: a parameter of some steps.
    in_memory = False

    def scratch(self):
        """
        Return the folder for exposures in work: that of the products, if it is writable.

        Exposures may need gigabytes, more than a system's temporary folder holds.

        Returns
        -------
        folder : `~pathlib.Path` or None
            The folder; None if ``in_memory`` is set.
        """
        if self.in_memory or getattr(self.parent, "in_memory", False):
            return None
        folder = Path(self.make_output_path("name.fits")).parent
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
        names = {"suffix": suffix, "output_file": output_file, "idx": idx}
        path = _product_path(self, model.meta.filename, **names, **components)
        if isinstance(model, SkyflatModel):
            check_replaceable(path, _identify_model(model))
        is_cube = isinstance(model, datamodels.CubeModel) and path.suffix == ".fits"
        save_datamodel(model, path, partial(write_cube, model) if is_cube else None)
        log.info("Saved model in %s", path)
        return path

    def check_products(self, descriptions):
        """Raise, before any work is done, if a skyflat would replace one of another sky."""
        if not self.save_results:
            return
        for index, each in enumerate(descriptions):
            self._check_product(each.name, each.identity, index if len(descriptions) > 1 else None)

    def _check_product(self, name, identity, idx=None):
        """Raise unless a skyflat of this name and identity can be written."""
        path = _product_path(self, name, idx=idx)
        check_output(path)
        check_replaceable(path, identity)

    def save_product(self, write, name, suffix, extension, **components):
        """Save a file that ``write(path)`` writes, named as the data models are."""
        path = _product_path(self, name, suffix, ext=extension, **components)
        save_whole(write, path)
        log.info("Saved %s in %s", suffix, path)

    def _save_library(self, library, suffix, idx, output_file, force, components):
        """Save the models of a library, all or none; number those that share a given name."""
        paths = []
        with library:
            if not isinstance(library, SegmentLibrary):  # segments are checked when they are read
                for index, model in enumerate(library):
                    check_metadata(model)
                    library.shelve(model, index, modify=False)
            for index in progress(range(len(library)), "Saving"):
                model = library.borrow(index)
                if len(library) > 1:
                    components["exposure"] = index
                paths.append(self.save_model(model, suffix, idx, output_file, force, **components))
                library.shelve(model, index, modify=False)
                del model  # before the next one is read
        return paths


def is_list(item):
    """Return whether an input is a list of exposures."""
    return isinstance(item, list | tuple | ModelContainer)


def _associate(paths):
    """Return a level-2 association with a product for each exposure."""
    return asn_from_list(
        [(str(path), "science") for path in paths],
        product_name_func=lambda item, _: f"{root_name(item[0])}.fits",
        rule=DMSLevel2bBase,
        with_exptype=True,
        meta={"asn_pool": "singleton"},
    )


def _product_path(step, name, suffix=None, output_file=None, ext=None, **components):
    """Return the path of a product; ``components`` number products of one given name."""
    output_file = output_file or step.output_file or step.search_attr("output_file")
    numbers = components if output_file else {}
    path = step.make_output_path(basepath=output_file or name, suffix=suffix, ext=ext, **numbers)
    return Path(path)


def _identify_model(skyflat):
    """Return the identity that distinguishes skyflats of the same name."""
    return identify(skyflat.to_flat_dict(include_arrays=False))


def _check_numbers(parameters, prefix=""):
    """Raise unless all numbers among parameters, also those of sub-steps, are finite."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            _check_numbers(value, f"{prefix}{name}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise SkyflatError(f"{prefix}{name} is {number}, not a finite number")


class SkyflatStep(SkyflatMixin, Step):
    """Base class of the package's steps."""

    def read_bad_pixels(self, window):
        """Return True for the pixels that the user lists, shape (ny, nx); None without a list."""
        return read_bad_pixels(self.bad_pixels, window) if self.bad_pixels else None

    def flag_segments(self, segments):
        """Flag the pixels that the user lists in all segments of an exposure."""
        if self.bad_pixels:
            segments.flag(self.read_bad_pixels(header_window(segments.headers[0])))

    def open_exposure(self, init, *, change=False):
        """Open the step's input, an image or cube; copy a model if the step is to change it."""
        init, name, kind = self._look_into(init)
        exposure = self.open_whole(init, make_copy=None if change else False)
        if not isinstance(exposure, datamodels.ImageModel | datamodels.CubeModel):
            raise SkyflatError(f"{name}: {kind} is neither an image nor a cube")
        check_model(exposure, name)
        self.check_outputs(exposure.meta.filename)
        return exposure

    def open_skyflat(self, init):
        """Open the step's skyflat; copy it outside a pipeline."""
        init, name, kind = self._look_into(init)
        if kind != SkyflatModel.__name__:
            raise SkyflatError(f"{name}: not a skyflat")
        skyflat = self.open_whole(init, open_as_type=SkyflatModel)
        check_model(skyflat, name)
        if self.save_results:
            self._check_product(skyflat.meta.filename, _identify_model(skyflat))
        return skyflat

    def _look_into(self, init):
        """Return an input, its name and the kind of its model."""
        if isinstance(init, datamodels.JwstDataModel):
            return init, init.meta.filename, init.meta.model_type
        path = Path(self.make_input_path(str(init)))
        note_inputs(path)
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
            with catch_crds_exit():
                super()._precache_references(input_file)
        except CrdsError as err:
            raise no_reference_error("flat", f"CRDS gives none ({err})") from err
