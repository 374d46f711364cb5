"""End a run in one line when a user or a batch queue stops it."""

import signal
import threading
from contextlib import contextmanager

__all__ = ["StoppedError", "stop_in_one_line"]

# Signals that stop a run, and the handlers that are replaced; the caller has set any other one.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class StoppedError(SystemExit, KeyboardInterrupt):
    """
    Exception for a run that a signal stops: files in work are removed while it propagates.

    It ends a program without a traceback; a caller that catches KeyboardInterrupt catches it too.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number):
        # The exit status of shells.
        super().__init__(128 + number)
        self._name = signal.Signals(number).name

    def __str__(self):
        """Return the message for the user."""
        return f"Stopped by {self._name}: only finished files are kept"


@contextmanager
def stop_in_one_line(report):
    """Raise `StoppedError` on Ctrl-C or SIGTERM, and pass its line to ``report``."""
    replaced = _replace_handlers()
    try:
        yield
    except StoppedError as stopped:
        if replaced:
            report(str(stopped))
        raise
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _replace_handlers():
    """Handle the signals, and return the former handlers; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    replaced = {n: former for n, former in _DEFAULTS.items() if signal.getsignal(n) == former}
    for number in replaced:
        signal.signal(number, _stop)
    return replaced


def _stop(number, _):
    """Handle a signal."""
    raise StoppedError(number)
