"""Atomic writing of files, and clear errors for faulty ones."""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

from astropy.utils.exceptions import AstropyUserWarning

from soss_background.errors import SkyflatError, one_line

__all__ = [
    "allow_member_paths",
    "check_folder",
    "explain_fault",
    "ignore_file_warnings",
    "real_path",
    "require_file",
    "save_whole",
]


@contextlib.contextmanager
def allow_member_paths():
    """Silence jwst's warning about members of an association in other folders."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input association file contains path", UserWarning)
        yield


@contextlib.contextmanager
def ignore_file_warnings():
    """Silence astropy's warnings about incomplete files; an error follows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        yield


def check_folder(folder):
    """Raise OSError unless files can be written to a folder, which need not exist yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OSError(f"{nearest}: not a folder")
    if not os.access(nearest, os.W_OK):
        raise OSError(f"{nearest}: cannot be written to")


def save_whole(save, path):
    """Write a temporary file with ``save(partial)``; rename it to ``path`` when it is complete."""
    # A data model records its file's name when it is saved: only the folder may differ.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        partial = Path(folder) / path.name
        save(partial)
        partial.replace(path)


def real_path(path):
    """Return the absolute path behind links; unlike `Path.resolve`, accept links in a circle."""
    return Path(os.path.realpath(path))


def require_file(path):
    """Raise SkyflatError unless a path leads to a file."""
    path = Path(path)
    if path.is_file():
        return
    fault = "no such file"
    if path.is_dir():
        fault = "a folder"
    elif path.is_symlink():
        fault = f"a link to {path.readlink()}, where there is no file"
    elif path.exists():
        fault = "not a regular file"
    raise SkyflatError(f"{path}: {fault}")


@contextlib.contextmanager
def explain_fault(path, fault="cannot be read"):
    """Raise a SkyflatError with the file and the fault if it is missing or reading it fails."""
    require_file(path)
    try:
        with ignore_file_warnings():
            yield
    except SkyflatError:
        raise
    except Exception as err:  # astropy and asdf raise many kinds
        reason = one_line(err)
        raise SkyflatError(f"{path}: {fault} ({reason})") from err
