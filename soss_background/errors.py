"""Exceptions for problems the user can fix."""

from stpipe.exceptions import StpipeExitException

__all__ = ["SkyflatError", "one_line"]

# Characters of a message of another package; those of asdf can fill pages.
_LONGEST_LINE = 500


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
    """Return a string or exception on one line: collapse its whitespace, and shorten it."""
    text = " ".join(str(message).split())
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
