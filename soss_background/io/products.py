"""Existing skyflats: whether they may be replaced, and whether they are up to date."""

import contextlib
import fcntl
import json
import os
from collections import defaultdict

from soss_background.datamodels.names import OBSERVATION, describe_identity, identify, show
from soss_background.datamodels.skyflat import SkyflatModel
from soss_background.errors import SkyflatError
from soss_background.io.exposures import root_name
from soss_background.io.files import check_output, ignore_file_warnings, save_whole
from soss_background.io.opening import read_metadata
from soss_background.io.skyflats import open_skyflat

__all__ = [
    "check_pipeline",
    "check_replaceable",
    "claim",
    "compare_record",
    "find_change",
    "find_siblings",
    "move_products",
    "read_record",
    "record_path",
    "write_record",
]

# Pipeline that creates products.
_PIPELINE = "soss_background.SkyflatPipeline"

# Number of names that a message lists.
_LISTED = 3

# Metadata that results of a step for one exposure share.
_OF_EXPOSURE = (*OBSERVATION, "meta.model_type", "meta.observation.date_beg")


def check_replaceable(path, identity):
    """Raise SkyflatError if a product would replace a file that is not an older version of it."""
    if not path.is_file() or not path.stat().st_size:
        return
    known = _read_identity(path)
    if known is None:
        fault = "exists and is not a skyflat"
    elif known != identity:
        fault = f"exists with {describe_identity(known)}, not {describe_identity(identity)}"
    else:
        return
    raise SkyflatError(f"{path} {fault}: give --output_file or --output_dir, or move it")


def _read_identity(path):
    """Return the identity of a skyflat; None if a file is not a readable skyflat."""
    header = _read_metadata(path)
    return identify(header) if header.get("meta.model_type") == SkyflatModel.__name__ else None


def _read_metadata(path):
    """Return the metadata of a file, none if it is not a readable data model."""
    try:
        # `read_header` would protect the file as an input, but an older product may be replaced.
        with ignore_file_warnings():
            return read_metadata(path)
    except Exception:  # astropy and asdf raise many kinds
        return {}


def move_products(source, target, own=(), announce=None):
    """
    Move the files of a folder, except hidden ones.

    Parameters
    ----------
    source, target : `~pathlib.Path`
        The folder of the files, and the one to which they move.
    own : list of str, optional
        Names of files that an earlier run of the same kind has moved there.
    announce : callable, optional
        Called with the list of the names before any file moves.

    Raises
    ------
    SkyflatError
        If a file would replace an input of the run, or a file that is not an older version of it.
        This file is not moved, but the others are.
    """
    paths, faults = [], []
    for path in sorted(source.glob("[!.]*")):
        try:
            if path.name in own:
                check_output(target / path.name)
            else:
                _check_move(path, target / path.name)
            paths.append(path)
        except SkyflatError as err:
            faults.append(err)
    if announce is not None:
        announce([path.name for path in paths])
    for path in paths:
        path.replace(target / path.name)
    if faults:
        raise faults[0]


def _check_move(path, new):
    """Raise SkyflatError if a file may not be moved to a new name."""
    check_output(new)
    if identity := _read_identity(path):
        check_replaceable(new, identity)
    elif new.exists() and not _is_same_exposure(path, new):
        raise SkyflatError(f"{new} exists and is not of the same exposure: move it")


def _is_same_exposure(path, other):
    """Return whether two files are results of one step for one exposure."""
    one, two = ([_read_metadata(each).get(key) for key in _OF_EXPOSURE] for each in (path, other))
    return None not in one and one == two


@contextlib.contextmanager
def claim(path):
    """Wait while another process writes a file, then block others until the context ends."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with lock.open("w") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same(file, lock):
                continue  # the other process has removed the file that it locked
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_same(file, path):
    """Return whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def find_change(path, members, parameters, version):
    """Return why a skyflat must be created again, from its records; "" if it is up to date."""
    if not path.is_file() or not path.stat().st_size:
        return "the product is empty" if path.is_file() else "no product yet"
    with open_skyflat(path) as skyflat:
        recorded = skyflat.meta.skyflat.instance
    if recorded.get("software_version") != version:
        return f"created by version {recorded.get('software_version')}"
    found = recorded.get("members", [])
    if changed := _list_changes(_sizes(found), _sizes(members)):
        return f"other exposures ({changed})"
    if changed := _list_changes(_find_run(recorded).get("parameters", {}), parameters):
        return f"other parameters ({changed})"
    return ""


def record_path(folder, label, pipeline):
    """Return the path of the record of a pipeline's run; the label names what it is run on."""
    return folder / f"{label}_{pipeline}_batch.json"


def write_record(path, record):
    """Write the dictionary that describes a run, see `compare_record`."""
    save_whole(lambda new: new.write_text(json.dumps(record, indent=1) + "\n"), path)


def read_record(path):
    """Return what `write_record` has written; an empty dictionary if there is none."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def check_pipeline(folder, pipeline, names):
    """
    Raise SkyflatError if another pipeline has products of the same exposures in a folder.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder of products and of records, see `record_path`.
    pipeline : str
        The pipeline.
    names : list of str
        Names of its products.
    """
    roots = set(map(root_name, names))
    own = record_path(folder, "", pipeline).name
    for path in sorted(folder.glob("*_batch.json")):
        record = {} if path.name.endswith(own) else read_record(path)
        for name in record.get("products", []):
            if root_name(name) in roots:
                raise SkyflatError(
                    f"{folder / name} is a product of {record.get('pipeline')}: give each pipeline "
                    "its output folder"
                )


def compare_record(path, record, names):
    """
    Compare a run with the one that has made its products.

    Parameters
    ----------
    path : `~pathlib.Path`
        File of the record of the earlier run, see `write_record`, in the folder of its products.
    record : dict
        ``version``, ``members`` (list of dict with the ``name`` and ``size`` of each exposure) and
        ``parameters`` of the run.
    names : list of str
        Names of the products.

    Returns
    -------
    change : str
        Why the products must be created again; "" if they are up to date.
    """
    for name in names:
        if not (path.parent / name).is_file():
            return "no product yet"
    recorded = read_record(path)
    if "version" not in recorded:  # none, or that of a run that has not moved all products
        return "no record of a complete run"
    if recorded["version"] != record["version"]:
        return f"created by version {recorded['version']}"
    if changed := _list_changes(_sizes(recorded["members"]), _sizes(record["members"])):
        return f"other exposures ({changed})"
    if changed := _list_changes(recorded["parameters"], record["parameters"]):
        return f"other parameters ({changed})"
    return ""


def _sizes(members):
    """Return the sizes of files by name; files in different folders can share a name."""
    sizes = defaultdict(list)
    for each in members:
        sizes[each["name"]].append(each["size"])
    return {name: sorted(each) for name, each in sizes.items()}


def _find_run(recorded):
    """Return the last run of the pipeline that a skyflat records; single steps may follow it."""
    runs = recorded.get("runs", [])
    found = [run for run in runs if run["command"].startswith(f"strun {_PIPELINE} ")]
    return found[-1] if found else {}


def _list_changes(old, new):
    """Return the keys whose values differ between two dictionaries as a string."""
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    more = [f"and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else []
    return ", ".join([*map(show, keys[:_LISTED]), *more])


def find_siblings(folder, identities, names):
    """List the skyflats of a folder, other than ``names``, of the same observation and filter."""
    observations = {_observation(identity) for identity in identities}
    siblings = []
    for path in sorted(folder.glob("*_skyflat.fits")):
        identity = None if path.name in names else _read_identity(path)
        if identity and _observation(identity) in observations:
            siblings.append(path)
    return siblings


def _observation(identity):
    """Return program, target, observation and filter of an identity."""
    return tuple(identity[key] for key in ("PROGRAM", "TARGPROP", "OBSERVTN", "FILTER"))
