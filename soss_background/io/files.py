"""Files that are written whole, and files that may not be whole."""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

from astropy.io.registry import IORegistryError
from astropy.utils.exceptions import AstropyUserWarning

from soss_background.errors import SkyflatError

__all__ = [
    "allow_member_paths",
    "check_folder",
    "ignore_file_warnings",
    "save_whole",
    "tell_of_fault",
]


@contextlib.contextmanager
def allow_member_paths():
    """Silence the warning of jwst about members of an association that lie elsewhere."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input association file contains path", UserWarning)
        yield


@contextlib.contextmanager
def ignore_file_warnings():
    """Silence the warnings of astropy about files that lack something; an error will follow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        yield


def check_folder(folder):
    """
    Make sure, before any work is done, that files can be written.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Where they go, whether it is there or has to be made.

    Raises
    ------
    OSError
        If it cannot be made, or written to.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OSError(f"{nearest}: not a folder")
    if not os.access(nearest, os.W_OK):
        raise OSError(f"{nearest}: cannot be written to")


def save_whole(save, path):
    """
    Write a file elsewhere and move it to its name when it is complete.

    Parameters
    ----------
    save : callable
        Writes the file whose path it is given.
    path : `~pathlib.Path`
        Where the file goes; what is there is replaced.
    """
    # A data model records its file's name when it is saved: only the folder may differ.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        partial = Path(folder) / path.name
        save(partial)
        partial.replace(path)


@contextlib.contextmanager
def tell_of_fault(path, fault="cannot be read"):
    """
    Name the file that is not what it should be, while it is read.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.
    fault : str
        What is said of one that is faulty.

    Raises
    ------
    SkyflatError
        If there is none, or what reads it fails.
    """
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
