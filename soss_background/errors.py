"""Exceptions for problems the user can fix."""

from stpipe.exceptions import StpipeExitException

__all__ = ["SkyflatError", "one_line"]


class SkyflatError(StpipeExitException, ValueError):
    """
    A fault of the input or of the environment that the user can fix.

    ``strun`` ends with status 1 and without a traceback.

    Parameters
    ----------
    message : str
        One line that names the file, the fault, and the remedy.
    """

    def __init__(self, message):
        super().__init__(1, message)

    def __reduce__(self):
        """Pickle the message alone, the only argument of the constructor."""
        return type(self), (str(self),)

    def __str__(self):
        """Return the message without the exit status."""
        return self.args[1]


def one_line(message):
    """Collapse the whitespace of a string or exception, so that it fits on one line."""
    return " ".join(str(message).split())
