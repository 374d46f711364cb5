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
        One line: what is wrong, with which file, and what can be done.
    """

    def __init__(self, message):
        super().__init__(1, message)

    def __reduce__(self):
        """Pickle the message alone, which is all that the constructor takes."""
        return type(self), (str(self),)

    def __str__(self):
        """Return the message without the exit status."""
        return self.args[1]


def one_line(message):
    """
    Collapse the whitespace of a message, so that it fits on one line.

    Parameters
    ----------
    message : object
        A string or an exception.

    Returns
    -------
    line : str
        The message on one line.
    """
    return " ".join(str(message).split())
