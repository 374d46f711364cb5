"""Atomic writing of files, and clear errors for faulty ones."""

import contextlib
import os
import tempfile
from pathlib import Path

from astropy.io.registry import IORegistryError
from astropy.utils.exceptions import AstropyUserWarning

from soss_background.errors import SkyflatError
from soss_background.io.quiet import ignore_warnings

__all__ = [
    "allow_member_paths",
    "check_folder",
    "ignore_file_warnings",
    "save_whole",
    "explain_fault",
]


def allow_member_paths():
    """Silence jwst's warning about members of an association in other folders."""
    return ignore_warnings(UserWarning, "Input association file contains path")


def ignore_file_warnings():
    """Silence astropy's warnings about incomplete files; an error follows."""
    return ignore_warnings(AstropyUserWarning)


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


@contextlib.contextmanager
def explain_fault(path, fault="cannot be read"):
    """Raise a SkyflatError with the file and the fault if it is missing or reading it fails."""
    if not Path(path).is_file():
        raise SkyflatError(f"{path}: no such file")
    try:
        with ignore_file_warnings():
            yield
    except SkyflatError:
        raise
    except (AttributeError, IORegistryError, LookupError, OSError, TypeError, ValueError) as err:
        reason, *_ = str(err).split("\n")
        raise SkyflatError(f"{path}: {fault} ({reason})") from err
