"""Run many visits on a Dask cluster, one task per association."""

import contextlib
import gc
import hashlib
import io
import logging
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import dask
import psutil
from astropy.table import Table
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, wait
from stpipe import Step
from tqdm import tqdm

from soss_background.errors import SkyflatError, one_line
from soss_background.io.exposures import describe_products, open_libraries

__all__ = ["open_client", "run_batch"]

# Memory of a visit, bytes: the available memory limits the number of simultaneous visits.
_MEMORY = 1e9

# Seconds to wait for a scheduler, and between checks whether a batch is to stop.
_PATIENCE, _LOOK = 10, 0.5


@contextlib.contextmanager
def open_client(scheduler=None, workers=None):
    """
    Connect to a Dask cluster, or start one on this machine.

    Parameters
    ----------
    scheduler : str, optional
        Address or scheduler file of a cluster whose workers see the same files.
    workers : int, optional
        Number of processes of a new cluster; by default limited by cores and memory.

    Yields
    ------
    client : `distributed.Client`
        The connection.

    Raises
    ------
    OSError
        If the scheduler does not answer.
    """
    if scheduler is not None:
        place = "scheduler_file" if Path(scheduler).is_file() else "address"
        with Client(**{place: scheduler}, timeout=_PATIENCE) as client:
            yield client
        return
    room = int(psutil.virtual_memory().available / _MEMORY)
    workers = workers or max(1, min(CPU_COUNT, room))
    settings = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
    settings |= {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with (
        # A worker gets one visit at a time: when it dies, no other visit is blamed.
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        # Disable the progress bars of visits, which would overlap.
        dask.config.set({"distributed.nanny.pre-spawn-environ.TQDM_DISABLE": 1}),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        LocalCluster(local_directory=folder, **settings) as cluster,
        Client(cluster) as client,
    ):
        client.run(_ignore_interrupts)
        yield client


def _ignore_interrupts():
    """Let the parent end the workers: a terminal interrupts both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_batch(client, associations, output_dir, arguments=(), *, overwrite=False, stop=None):
    """
    Run the skyflat pipeline on many associations.

    A failed association does not stop the others. Products appear in the output folder when they
    are complete; finished products are skipped, so that an interrupted batch can be restarted.

    Parameters
    ----------
    client : `distributed.Client`
        The cluster.
    associations : list of str or `~pathlib.Path`
        Association files.
    output_dir : str or `~pathlib.Path`
        Folder of the products and of a log for each association.
    arguments : list of str
        Further arguments of the pipeline, in the format of ``strun``.
    overwrite : bool
        Whether to replace finished products.
    stop : `threading.Event`, optional
        Ends the batch when it is set.

    Returns
    -------
    table : `~astropy.table.Table`
        ``association``, ``status`` (made, kept, failed, or not done if the batch was interrupted),
        ``products``, run time in ``seconds``, and a ``message``, the reason of a failure.
    """
    paths = [Path(path).absolute() for path in associations]
    output_dir = Path(output_dir).absolute()
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = {path: _row(path, "not done") for path in paths}
    labels = _labels(rows)
    _clean(output_dir, labels.values())
    options = {"arguments": list(arguments), "overwrite": overwrite, "pure": False}
    options["here"] = Path.cwd()
    futures = {
        client.submit(_run_visit, path, output_dir, label, **options): path
        for path, label in labels.items()
    }
    stop = stop or threading.Event()
    for future in _wait(futures, stop):
        path = futures[future]
        rows[path] = future.result() if future.status == "finished" else _lost(path, future)
    if stop.is_set():
        client.cancel(list(futures))
    else:
        # Killed workers leave unfinished files.
        _clean(output_dir, labels.values())
    _reject_twins(rows.values())
    return Table(rows=list(rows.values()), units={"seconds": "s"})


def _wait(futures, stop):
    """Yield futures when they are done, until the batch is stopped."""
    left = set(futures)
    with tqdm(desc="Making skyflats", total=len(left), unit="visit", disable=None) as progress:
        while left and not stop.is_set():
            try:
                done, left = wait(left, _LOOK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                continue
            progress.update(len(done))
            yield from done


def _clean(output_dir, labels):
    """Remove the unfinished work of workers that have ended."""
    for label in labels:
        for folder in output_dir.glob(f".batch-{label}-????????"):
            shutil.rmtree(folder, ignore_errors=True)


def _lost(path, future):
    """Return the row of a visit whose workers died, or that the cluster has lost."""
    if future.status == "error":
        return _row(path, "failed", message=_describe_error(future.exception()))
    return _row(path, "failed", message=f"the cluster says that it is {future.status}")


def _describe_error(err):
    """Return the message of an error, with its type unless it is a SkyflatError."""
    if isinstance(err, KilledWorker):
        return "its worker died again and again (out of memory?)"
    return err if isinstance(err, SkyflatError) else f"{type(err).__name__}: {err}"


def _reject_twins(rows):
    """Set associations to failed whose product is that of an earlier one."""
    owners = {}
    for row in rows:
        for product in row["products"].split():
            owner = owners.setdefault(product, row["association"])
            if owner != row["association"]:
                row |= {"status": "failed", "message": f"the same product as {owner}"}


def _labels(paths):
    """Map each association to its file name, made unique by a hash of its path if necessary."""
    names = Counter(path.stem for path in paths)
    places = {path: hashlib.sha256(str(path).encode()).hexdigest()[:8] for path in paths}
    return {
        path: path.stem if names[path.stem] == 1 else f"{path.stem}-{places[path]}"
        for path in paths
    }


def _row(path, status, products=(), seconds=0.0, message=""):
    """Return the row of an association in the table of results."""
    return {
        "association": str(path),
        "status": status,
        "products": " ".join(products),
        "seconds": round(seconds, 1),
        "message": one_line(message),
    }


def _run_visit(path, output_dir, label, arguments, overwrite, here):
    """Run the pipeline on an association, on a worker; return its row."""
    start, printed = time.monotonic(), io.StringIO()
    try:
        names = [each.name for each in describe_products(open_libraries([path]))]
        if not overwrite and all((output_dir / name).exists() for name in names):
            return _row(path, "kept", names)
        # Relative paths in the arguments refer to the user's folder.
        with contextlib.redirect_stderr(printed), contextlib.chdir(here):
            _run_pipeline(path, output_dir, label, arguments, names)
    except SystemExit:  # strun exits so for invalid arguments
        message = (printed.getvalue().splitlines() or [f"see {label}.log"])[-1]
    except Exception as err:  # no error stops the other visits
        message = _describe_error(err)
    else:
        return _row(path, "made", names, time.monotonic() - start)
    return _row(path, "failed", (), time.monotonic() - start, message)


def _run_pipeline(path, output_dir, label, arguments, names):
    """Run the pipeline in its own folder, and move the products when all are complete."""
    folder = Path(tempfile.mkdtemp(prefix=f".batch-{label}-", dir=output_dir))
    log = output_dir / f"{label}.log"
    log.unlink(missing_ok=True)
    try:
        places = [f"--log-file={log}", "--log-stream=null", *arguments, f"--output_dir={folder}"]
        Step.from_cmdline(["soss_background.SkyflatPipeline", str(path), *places])
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise SkyflatError(f"{missing[0]}: not made; do the arguments rename or skip it?")
        for product in folder.glob("[!.]*"):
            product.replace(output_dir / product.name)
    finally:
        gc.collect()
        shutil.rmtree(folder, ignore_errors=True)
