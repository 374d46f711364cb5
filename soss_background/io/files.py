"""Atomic writing of files that the run has not read, and clear errors for faulty ones."""

import contextlib
import glob
import os
import re
import shutil
import socket
import tempfile
from contextvars import ContextVar
from pathlib import Path

from asdf.exceptions import ValidationError
from astropy.utils.exceptions import AstropyUserWarning
from stdatamodels.exceptions import NoTypeWarning

from soss_background.datamodels.header_text import ascii_headers, to_ascii
from soss_background.datamodels.names import check_path
from soss_background.errors import SkyflatError, one_line
from soss_background.io.quiet import ignore_warnings

__all__ = [
    "add_history",
    "allow_member_paths",
    "check_folder",
    "check_output",
    "explain_fault",
    "explain_write_fault",
    "ignore_file_warnings",
    "note_inputs",
    "protect_inputs",
    "real_path",
    "require_file",
    "save_datamodel",
    "save_whole",
    "scratch_prefix",
    "sweep",
    "unrecorded_inputs",
]

# Files that the run has read, by device and inode, which links share; None outside of a run.
_INPUTS = ContextVar("_INPUTS", default=None)


def allow_member_paths():
    """Silence jwst's warning about members of an association in other folders."""
    return ignore_warnings(UserWarning, "Input association file contains path")


@contextlib.contextmanager
def ignore_file_warnings():
    """Silence warnings about incomplete files, an error follows, and about a missing DATAMODL."""
    with ignore_warnings(AstropyUserWarning), ignore_warnings(NoTypeWarning):
        yield


@contextlib.contextmanager
def protect_inputs():
    """Record the files that are read within the context, which `save_whole` does not replace."""
    if _INPUTS.get() is not None:
        yield  # the run is part of another
        return
    token = _INPUTS.set(set())
    try:
        yield
    finally:
        _INPUTS.reset(token)


@contextlib.contextmanager
def unrecorded_inputs():
    """Read files within the context that the run may replace, such as older products."""
    token = _INPUTS.set(None)
    try:
        yield
    finally:
        _INPUTS.reset(token)


def note_inputs(names):
    """Record files that the run reads: names, wildcards, or lists of these; ignore other values."""
    if isinstance(names, list | tuple | set):
        for name in names:
            note_inputs(name)
    elif isinstance(names, str | Path) and _INPUTS.get() is not None:
        for path in glob.glob(str(names)) or [names]:  # noqa: PTH207 - an absolute pattern
            _INPUTS.get().update(_identify(path))


def _identify(path):
    """Return a set of the device and inode of a file, empty unless the file exists."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # a parameter need not be the name of a file
        return set()
    return {(status.st_dev, status.st_ino)}


def check_output(path):
    """Raise SkyflatError if a file cannot be written, or is an input of the run."""
    check_path(str(path))
    with explain_write_fault(path):
        if path.is_dir():
            raise SkyflatError(f"{path}: a folder has this name")
        if _identify(path) & (_INPUTS.get() or set()):
            raise SkyflatError(f"{path} is an input: give another name or another folder")
    check_folder(path.parent)


def check_folder(folder):
    """
    Raise SkyflatError unless files can be written to a folder, which need not exist yet.

    Hidden files that killed runs have left in it are removed.

    Parameters
    ----------
    folder : `~pathlib.Path`
        The folder.
    """
    check_path(str(folder))
    with explain_write_fault(folder):
        # A broken link exists, and cannot become a folder.
        nearest = next(filter(os.path.lexists, (folder, *folder.absolute().parents)))
        if not nearest.is_dir():
            raise SkyflatError(f"{nearest}: not a folder")
    with (
        explain_write_fault(nearest),
        tempfile.NamedTemporaryFile(dir=nearest, prefix=scratch_prefix()),
    ):  # the system may refuse what permissions allow
        pass
    if nearest == folder:
        with contextlib.suppress(OSError):  # a folder of other users
            sweep(folder)


def scratch_prefix(kind="skyflat"):
    """Return the prefix of the names of hidden files in work, which names their process."""
    return f".{kind}-{socket.gethostname()}-{os.getpid()}-"


def sweep(folder, kind="skyflat"):
    """Remove hidden files in work of processes of this machine that have ended."""
    mine = re.compile(rf"\.{kind}-{re.escape(socket.gethostname())}-(\d+)-")
    for path in folder.iterdir():
        match = mine.match(path.name)
        if not match or _is_alive(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(pid):
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def add_history(model, line):
    """Add a line to the history of a data model; raise SkyflatError if the history is damaged."""
    try:
        model.add_history_entry(line)
    except Exception as err:  # asdf raises many kinds
        raise SkyflatError(f"{model.meta.filename}: its history is damaged ({err})") from err


def save_datamodel(model, path, save=None):
    """Write a data model as `save_whole` does; strings of FITS headers are transliterated."""
    context = contextlib.nullcontext() if path.suffix == ".asdf" else ascii_headers(model)
    with context:
        save_whole(save or model.save, path)


def save_whole(save, path):
    """
    Write a temporary file with ``save(partial)``; rename it to ``path`` when it is complete.

    Parameters
    ----------
    save : callable
        Writes a file to the given path.
    path : `~pathlib.Path`
        The file; its folder is created if needed.

    Raises
    ------
    SkyflatError
        If the file cannot be written, or is an input of the run.
    """
    check_output(path)
    with explain_write_fault(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"dir": path.parent, "prefix": scratch_prefix(), "ignore_cleanup_errors": True}
        with tempfile.TemporaryDirectory(**settings) as folder:
            # A data model records the name of its file in its header when it is saved.
            partial = Path(folder) / f"{to_ascii(path.stem)}{path.suffix}"
            save(partial)
            partial.replace(path)


@contextlib.contextmanager
def explain_write_fault(path):
    """Raise a SkyflatError with path and cause if writing fails."""
    try:
        yield
    except SkyflatError:
        raise
    except (OSError, ValidationError, ValueError) as err:  # astropy refuses NaN in headers
        cause = one_line(getattr(err, "strerror", None) or getattr(err, "message", err))
        raise SkyflatError(f"{Path(path).absolute()}: cannot be written ({cause})") from err


def real_path(path):
    """Return the absolute path behind links; unlike `Path.resolve`, accept circular links."""
    return Path(os.path.realpath(path))


def require_file(path):
    """Raise SkyflatError unless a path leads to a file."""
    path = Path(path)
    check_path(str(path))
    if path.is_file():
        return
    fault = "no such file"
    if path.is_dir():
        fault = "a folder"
    elif path.is_symlink():
        fault = f"a link to {path.readlink()}, which does not exist"
    elif path.exists():
        fault = "not a regular file"
    raise SkyflatError(f"{path}: {fault}")


@contextlib.contextmanager
def explain_fault(path, fault="cannot be read"):
    """Raise a SkyflatError with the file and the fault if it is missing or reading it fails."""
    require_file(path)
    note_inputs(path)
    try:
        with ignore_file_warnings():
            yield
    except SkyflatError:
        raise
    except Exception as err:  # astropy and asdf raise many kinds
        reason = one_line(err)
        raise SkyflatError(f"{path}: {fault} ({reason})") from err
