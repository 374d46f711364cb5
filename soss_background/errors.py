"""The error that a user can mend."""

from stpipe.exceptions import StpipeExitException

__all__ = ["SkyflatError", "one_line"]


class SkyflatError(StpipeExitException, ValueError):
    """
    A fault of the input or of the environment, told in one line that names it.

    ``strun`` ends with status 1 and without a traceback.

    Parameters
    ----------
    message : str
        What is wrong, with which file, and what can be done.
    """

    def __init__(self, message):
        super().__init__(1, message)

    def __str__(self):
        """Tell the message alone."""
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
