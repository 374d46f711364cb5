"""Access to CRDS, which need not be reachable."""

import functools
import logging
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from crds.client import api
from crds.core import config as crds_config
from crds.core.exceptions import CrdsError
from stdatamodels.jwst import datamodels

from soss_background.errors import SkyflatError
from soss_background.io.checks import check_file
from soss_background.io.files import explain_fault
from soss_background.io.signals import StoppedError
from soss_background.sky.traces import ORDERS, expected_trace
from soss_background.steps.parameters import name_item

__all__ = [
    "check_reference",
    "catch_crds_exit",
    "crds_reachable",
    "expected_rows",
    "no_reference_error",
    "open_pastasoss",
]

log = logging.getLogger(__name__)

# Seconds to wait for a CRDS server; its client would wait for an hour.
_PATIENCE = 10


def crds_reachable():
    """Return whether there is a CRDS cache, or else a server that answers."""
    return _crds_reachable(crds_config.get_crds_cfgpath("jwst"), os.environ.get("CRDS_SERVER_URL"))


@functools.cache
def _crds_reachable(cache, server):
    """Check once for each cache and server."""
    if (Path(cache) / "server_config").is_file():
        return True
    if server is None:
        return False
    patience = crds_config.CLIENT_TIMEOUT.get()
    crds_config.CLIENT_TIMEOUT.set(min(patience, _PATIENCE))
    try:
        api.get_server_info()
    except (CrdsError, OSError):
        return False
    finally:
        crds_config.CLIENT_TIMEOUT.set(patience)
    return True


@contextmanager
def catch_crds_exit():
    """Raise CrdsError for the SystemExit by which CRDS ends programs, not for that of a user."""
    try:
        yield
    except StoppedError:
        raise
    except SystemExit as err:
        raise CrdsError(str(err)) from err


def open_pastasoss(step, exposure):
    """Open the PASTASOSS file of an exposure as a context; None if CRDS has none or is offline."""
    if step.get_ref_override("pastasoss") is None and not crds_reachable():
        return nullcontext()
    try:
        with catch_crds_exit():
            path = step.get_reference_file(exposure, "pastasoss")
    except CrdsError as err:
        log.info("%s: no PASTASOSS reference file (%s)", exposure.meta.filename, err)
        return nullcontext()
    if path == "N/A":
        return nullcontext()
    with explain_fault(path) if isinstance(path, str | Path) else nullcontext():
        model = datamodels.PastasossModel(path)
        if len(model.meta.pwcpos_bounds or ()) != 2 or not model.traces:
            raise SkyflatError(f"{name_item(path)}: not a PASTASOSS reference file")
        return model


def expected_rows(step, exposure, window, pwcpos):
    """Return the row of the expected trace of each order, shape (nx,), NaN beyond it."""
    with open_pastasoss(step, exposure) as reference:
        return [expected_trace(order, window, pwcpos, reference).row for order in ORDERS]


def no_reference_error(kind, reason, step="flat_field"):
    """Return the error for a reference file that is needed and not available."""
    return SkyflatError(
        f"No {kind} reference file: {reason}. Give one with "
        f"--steps.{step}.override_{kind}=FILE, skip the correction with "
        f"--steps.{step}.skip=true, or set CRDS_PATH (and CRDS_SERVER_URL) to reach CRDS."
    )


def check_reference(path):
    """Raise unless a reference file exists, is complete, and holds an image."""
    fault = "cannot be read as a reference file"
    with explain_fault(path, fault):
        check_file(path)
        with datamodels.FlatModel(path) as flat:
            dimensions = np.ndim(flat.data)
    if dimensions != 2:
        raise SkyflatError(f"{path}: not an image, so not a flat")
