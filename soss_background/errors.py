"""The exception for problems that a user can fix."""

from stpipe.exceptions import StpipeExitException

__all__ = ["SkyflatError", "one_line"]


class SkyflatError(StpipeExitException, ValueError):
    """
    Exception for problems of the input or of the environment that the user can fix.

    Its message is one line that names the file and the fault.

    ``strun`` ends with status 1 and without a traceback.

    Parameters
    ----------
    message : str
        What is wrong, with which file, and what can be done.
    """

    def __init__(self, message):
        super().__init__(1, message)

    def __reduce__(self):
        """Rebuild the error from its message, in other processes too."""
        return type(self), (self.args[1],)

    def __str__(self):
        """Return the message alone."""
        return self.args[1]


def one_line(message):
    """
    Bring a message, of whatever origin, to one line.

    Parameters
    ----------
    message : object
        A text or an error.

    Returns
    -------
    line : str
        Its words.
    """
    return " ".join(str(message).split())
