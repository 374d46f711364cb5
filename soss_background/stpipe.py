"""What every step of the package shares: CRDS in or out of reach, logging, names, saving."""

import functools
import gc
import logging
import os
import re
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from astropy.io import fits
from crds.client import api
from crds.core import config as crds_config
from crds.core.exceptions import CrdsError
from jwst.datamodels import ModelContainer, ModelLibrary
from jwst.flatfield import FlatFieldStep as JwstFlatFieldStep
from jwst.photom import PhotomStep as JwstPhotomStep
from jwst.stpipe import Pipeline, Step
from stdatamodels.jwst import datamodels
from threadpoolctl import threadpool_limits

from soss_background.datamodels import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.exposures import member_paths, open_libraries, read_header
from soss_background.files import ignore_file_warnings, save_whole, tell_of_fault
from soss_background.provenance import describe_command, list_parameters, name_inputs, wrap_command

__all__ = [
    "FlatFieldStep",
    "PhotomStep",
    "SkyflatMixin",
    "SkyflatPipelineBase",
    "SkyflatStep",
    "crds_reachable",
    "few_collections",
]

log = logging.getLogger(__name__)

# Seconds to wait for a CRDS server; its client would wait for an hour.
_PATIENCE = 10

_SUFFIX = re.compile(
    r"^(?P<root>.+?)(?P<separator>[_-])"
    r"(skyflat(mask|combine|denoise|quality|subtract)?|interorder|sosstraces)$"
)


def crds_reachable():
    """
    Tell whether CRDS can be asked for reference files.

    Returns
    -------
    bool
        True if there is a CRDS cache, or else a server that answers.
    """
    return _crds_reachable(crds_config.get_crds_cfgpath("jwst"), os.environ.get("CRDS_SERVER_URL"))


@functools.cache
def _crds_reachable(cache, server):
    """Look once for each cache and server."""
    if (Path(cache) / "server_config").is_file():
        return True
    if server is None:
        return False
    patience = crds_config.CLIENT_TIMEOUT.get()
    crds_config.CLIENT_TIMEOUT.set(min(patience, _PATIENCE))
    try:
        api.get_server_info()
    except (CrdsError, OSError):
        return False
    finally:
        crds_config.CLIENT_TIMEOUT.set(patience)
    return True


@contextmanager
def few_collections():
    """Spare what lives already from the garbage collection that begins each run of a step."""
    if gc.get_freeze_count():  # somebody does, and will end it
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _good_manners():
    """Keep what is around a run from taking its time."""
    # The threads of BLAS spin while they wait, in the way of this package's own.
    with few_collections(), threadpool_limits(1, user_api="blas"):
        yield


class SkyflatMixin:
    """What the steps and the pipelines of the package do otherwise than those of jwst."""

    @staticmethod
    def get_stpipe_loggers():
        """Name the loggers whose messages are shown and kept."""
        return (*Step.get_stpipe_loggers(), "soss_background")

    @classmethod
    def _get_crds_parameters(cls, dataset):
        """Read what CRDS matches on; what cannot be read is named later, by the step itself."""
        try:
            with ignore_file_warnings():
                return super()._get_crds_parameters(dataset)
        except (AttributeError, LookupError) as err:
            raise TypeError(f"{dataset} has no JWST metadata") from err

    @classmethod
    def get_config_from_reference(cls, dataset, disable=None, crds_observatory=None):
        """Ask CRDS for parameters where it can be reached."""
        return super().get_config_from_reference(
            dataset,
            disable=disable if crds_reachable() else True,
            crds_observatory=crds_observatory,
        )

    def get_pars(self, *args, **kwargs):
        """List the parameters; texts in lists become plain ones, which can be saved."""
        pars = super().get_pars(*args, **kwargs)
        return {
            name: [str(item) if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else value
            for name, value in pars.items()
        }

    def run(self, *args):
        """Run the step; a fault that the user can mend is logged in one line."""
        if not isinstance(self.parent, SkyflatMixin):
            # Before jwst's own steps change what they were given.
            self._run = self._tell_run(name_inputs(args))
        try:
            with _good_manners() if self.parent is None else nullcontext():
                return super().run(*args)
        except SkyflatError as err:
            if not isinstance(self.parent, SkyflatPipelineBase):
                log.error("%s", err)  # noqa: TRY400 - a traceback would hide the line
            raise

    def finalize_result(self, result, reference_files_used):
        """Record versions, reference files, logs and the run, also where CRDS cannot be asked."""
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

    def _tell_run(self, names):
        """Tell the run on inputs of these names."""
        return {"command": describe_command(self, names), "parameters": list_parameters(self)}

    def describe_run(self):
        """
        Tell how the user called this step, or the pipeline that it is part of.

        Returns
        -------
        run : dict
            ``command`` that repeats the run, and ``parameters``.
        """
        if isinstance(self.parent, SkyflatMixin):
            return self.parent.describe_run()
        return self._run or self._tell_run([])

    def remove_suffix(self, name):
        """Remove a suffix of jwst's or of this package's from a file name."""
        match = _SUFFIX.match(name)
        if match:
            return match["root"], match["separator"]
        return super().remove_suffix(name)

    def open_exposures(self, inputs):
        """
        Open the exposures that a step is given.

        Parameters
        ----------
        inputs : tuple
            Positional arguments of the step, see `soss_background.exposures.open_libraries`.

        Returns
        -------
        list of `~jwst.datamodels.ModelLibrary`
            One library for each product of the association, or a single one.

        Raises
        ------
        SkyflatError
            If an exposure cannot be used.
        """
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple | ModelContainer):
            inputs = inputs[0]
        libraries = open_libraries([self.make_input_path(item) for item in inputs], self.scratch())
        self._input_paths = {path for library in libraries for path in member_paths(library)}
        return libraries

    def scratch(self):
        """
        Find where exposures are kept while they are worked on.

        Returns
        -------
        folder : `~pathlib.Path` or None
            The folder of the products: exposures may take gigabytes, which a system's temporary
            folder, used only if the other is not writable, may not have. None if they are kept in
            memory.

        Raises
        ------
        SkyflatError
            If a folder that is given cannot be written to.
        """
        output_dir = self.search_attr("output_dir")
        folder = Path(os.path.expandvars(output_dir or ".")).expanduser()
        if output_dir and not os.access(folder, os.W_OK):
            raise SkyflatError(f"{folder}: cannot be written to")
        if self.in_memory or getattr(self.parent, "in_memory", False):
            return None
        return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())

    def save_model(self, model, suffix=None, idx=None, output_file=None, force=False, **components):
        """Save under the model's own name unless another is given; no file is left half-written."""
        output_file = output_file or self.output_file
        if not (self.save_results or output_file or force):
            return None
        if isinstance(model, ModelLibrary):
            return self._save_library(model, suffix, idx, output_file, force, components)
        output_file = output_file or self.search_attr("output_file")
        path = self.make_output_path(
            basepath=output_file or model.meta.filename,
            suffix=suffix,
            **({"idx": idx, **components} if output_file else {}),
        )
        if Path(path).resolve() in self.search_attr("_input_paths", ()):
            raise SkyflatError(f"{path} is an input: give --output_dir, --output_file or --suffix")
        save_whole(model.save, Path(path))
        log.info("Saved model in %s", path)
        return path

    def save_product(self, write, name, suffix, extension):
        """
        Save what is no data model, named as the data models are.

        Parameters
        ----------
        write : callable
            Writes the file whose path it is given.
        name : str
            Name of the exposure; the user's own ``output_file`` goes before it.
        suffix, extension : str
            What the name of the file ends with.
        """
        name = self.search_attr("output_file") or name
        path = Path(self.make_output_path(name, suffix=suffix, ext=extension))
        save_whole(write, path)
        log.info("Saved %s in %s", suffix, path)

    def _save_library(self, library, suffix, idx, output_file, force, components):
        """Save the models of a library; those that share a given name are numbered."""
        paths = []
        with library:
            for index, model in enumerate(library):
                if len(library) > 1:
                    components["exposure"] = index
                paths.append(self.save_model(model, suffix, idx, output_file, force, **components))
                library.shelve(model, index, modify=False)
        return paths


class SkyflatStep(SkyflatMixin, Step):
    """Base class of the package's steps."""

    def open_exposure(self, init):
        """
        Open the exposure that a step is given, to look at it.

        Parameters
        ----------
        init : str, `~pathlib.Path` or data model
            The exposure.

        Returns
        -------
        exposure : `~stdatamodels.jwst.datamodels.JwstDataModel`
            The exposure itself, which the step must not change.

        Raises
        ------
        SkyflatError
            If it cannot be read, or is neither an image nor a cube.
        """
        if not isinstance(init, datamodels.JwstDataModel):
            init = Path(self.make_input_path(str(init)))
            read_header(init)
            self._input_paths = {init.resolve()}
        exposure = self.prepare_output(init, make_copy=False)
        if not isinstance(exposure, datamodels.ImageModel | datamodels.CubeModel):
            kind = exposure.meta.model_type
            raise SkyflatError(f"{exposure.meta.filename}: {kind} is neither an image nor a cube")
        return exposure

    def open_skyflat(self, init):
        """
        Open the skyflat that a step is given.

        Parameters
        ----------
        init : str, `~pathlib.Path` or SkyflatModel
            The skyflat.

        Returns
        -------
        SkyflatModel
            The skyflat, or a copy of it unless the step is part of a pipeline.

        Raises
        ------
        SkyflatError
            If it is not a skyflat, or lacks BKG, ERR or DQ.
        """
        if isinstance(init, datamodels.JwstDataModel):
            name, kind = init.meta.filename, init.meta.model_type
        else:
            name = init = Path(self.make_input_path(str(init)))
            kind = read_header(init).get("meta.model_type")
            self._input_paths = {init.resolve()}
        if kind != SkyflatModel.__name__:
            raise SkyflatError(f"{name}: not a skyflat")
        skyflat = self.prepare_output(init, open_as_type=SkyflatModel)
        if any(array is None for array in (skyflat.bkg, skyflat.err, skyflat.dq)):
            raise SkyflatError(f"{name}: lacks BKG, ERR or DQ")
        return skyflat


class FlatFieldStep(SkyflatMixin, JwstFlatFieldStep):
    """The flat-field step of jwst, which also runs where CRDS cannot be reached."""

    # The other types that jwst's step asks for are NIRSpec's.
    reference_file_types: ClassVar = ["flat"]

    _flat_path = _flat = None

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own step."""
        return JwstFlatFieldStep.get_config_reftype()

    def get_ref_override(self, reference_file_type):
        """Find the flat that the user gives, by either of the two ways that jwst has."""
        return super().get_ref_override(reference_file_type) or self.user_supplied_flat

    def get_reference_file(self, input_file, reference_file_type):
        """Get the flat, or end with one line that tells the ways out."""
        if self.get_ref_override(reference_file_type) is None and not crds_reachable():
            raise _no_reference(reference_file_type, "CRDS cannot be reached")
        return super().get_reference_file(input_file, reference_file_type)

    def _get_references(self, data, exposure_type):
        """Open the flat, but once for all exposures that it fits."""
        path = self.get_reference_file(data, "flat")
        if path == "N/A":
            return super()._get_references(data, exposure_type)
        if path != self._flat_path:
            self._flat_path, self._flat = path, datamodels.FlatModel(path)
        log.info("Using FLAT reference file: %s", path)
        return {"flat": self._flat}


class PhotomStep(SkyflatMixin, JwstPhotomStep):
    """The flux calibration of jwst, which also runs where CRDS cannot be reached."""

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of jwst's own step."""
        return JwstPhotomStep.get_config_reftype()

    def get_reference_file(self, input_file, reference_file_type):
        """Get a reference file; spectra do without that of the pixels' areas."""
        if reference_file_type == "area":
            return "N/A"
        return super().get_reference_file(input_file, reference_file_type)


class SkyflatPipelineBase(SkyflatMixin, Pipeline):
    """Base class of the package's pipelines."""

    def _precache_references(self, input_file):
        """Make sure, before any work is done, that every reference file can be had."""
        overrides = {kind: self.get_ref_override(kind) for kind in self.reference_file_types}
        for kind, override in overrides.items():
            if override is None and not crds_reachable():
                raise _no_reference(kind, "CRDS cannot be reached")
            if isinstance(override, str) and override != "N/A":
                _check_reference(Path(override))
        if None not in overrides.values():
            return
        try:
            super()._precache_references(input_file)
        except (SystemExit, CrdsError) as err:
            raise _no_reference("flat", f"CRDS gives none ({err})") from err


def _no_reference(kind, reason):
    """Make the error for a reference file that is needed and cannot be had."""
    return SkyflatError(
        f"No {kind} reference file: {reason}. Give one with "
        f"--steps.flat_field.override_{kind}=FILE, leave the correction out with "
        "--steps.flat_field.skip=true, or set CRDS_PATH (and CRDS_SERVER_URL) to reach CRDS."
    )


def _check_reference(path):
    """Raise unless a reference file is there, whole, and an image."""
    fault = "cannot be read as a reference file"
    with tell_of_fault(path, fault), fits.open(path, memmap=False) as hdus:
        shape = hdus["SCI"].data.shape
    if len(shape) != 2:
        raise SkyflatError(f"{path}: not an image, and so no flat")
