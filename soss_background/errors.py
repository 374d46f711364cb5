"""Exceptions for problems the user can fix, and the wording of messages."""

from stpipe.exceptions import StpipeExitException

__all__ = ["SkyflatError", "count", "one_line"]

# Largest length of a message of another package; messages of asdf can be very long.
_LONGEST_LINE = 500


class SkyflatError(StpipeExitException, ValueError):
    """
    A fault of the input or of the environment that the user can fix.

    ``strun`` ends with status 1 and without a traceback.

    Parameters
    ----------
    message : str
        The file, the fault, and the remedy; lines are joined.
    """

    def __init__(self, message):
        super().__init__(1, " ".join(str(message).splitlines()))

    def __reduce__(self):
        """Pickle the message alone, the only argument of the constructor."""
        return type(self), (str(self),)

    def __str__(self):
        """Return the message without the exit status."""
        return self.args[1]


def count(number, noun):
    """Return a number and its noun, in the plural unless the number is 1."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def one_line(message):
    """Return a string or exception on one line: collapse its whitespace, and shorten it."""
    text = " ".join(str(message).split())
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
