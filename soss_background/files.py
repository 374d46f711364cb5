"""Files that come to their place when they are complete."""

import tempfile
from pathlib import Path

__all__ = ["save_whole"]


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
