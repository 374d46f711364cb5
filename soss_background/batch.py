"""Many visits on a Dask cluster, one task an association."""

import contextlib
import gc
import hashlib
import logging
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from astropy.table import Table
from distributed import Client, LocalCluster, as_completed
from stpipe import Step
from tqdm import tqdm

from soss_background.combine.metadata import name_products
from soss_background.exposures import open_libraries
from soss_background.parallel import count_threads

__all__ = ["open_client", "run_batch"]

# Memory that a visit takes, in bytes: no more of them are run at a time than there is memory for.
_MEMORY = 1e9

# Seconds to wait for a scheduler.
_PATIENCE = 10


@contextlib.contextmanager
def open_client(scheduler=None, workers=None):
    """
    Connect to a Dask cluster, or start one on this machine.

    Parameters
    ----------
    scheduler : str, optional
        Address of the scheduler of a cluster whose workers see the same files.
    workers : int, optional
        Number of processes, if a cluster is started; by default as many as there are cores, and
        memory for.

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
        with Client(scheduler, timeout=_PATIENCE) as client:
            yield client
        return
    room = int(psutil.virtual_memory().available / _MEMORY)
    workers = workers or max(1, min(count_threads(), room))
    settings = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
    # Bars of several visits would run into each other.
    settings |= {"env": {"TQDM_DISABLE": "1"}, "silence_logs": logging.CRITICAL}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(dashboard_address=None, local_directory=folder, **settings) as cluster,
        Client(cluster) as client,
    ):
        yield client


def run_batch(client, associations, output_dir, arguments=(), *, overwrite=False):
    """
    Make the skyflats of many associations; what fails does not stop the others.

    Products come to their place when they are complete. Those that are there already are not made
    again, so that a batch that was interrupted can be started again.

    Parameters
    ----------
    client : `distributed.Client`
        The cluster.
    associations : list of `~pathlib.Path`
        Association files.
    output_dir : `~pathlib.Path`
        Folder of the products and of a log of each association.
    arguments : list of str
        Further arguments for the pipeline, as ``strun`` takes them.
    overwrite : bool
        Whether products that exist are made again.

    Returns
    -------
    table : `~astropy.table.Table`
        For each association its ``status`` (made, kept, failed, or not done if the batch was
        interrupted), its ``products``, the time it took in ``seconds``, and a ``message`` that
        tells why it failed.
    """
    paths = [Path(path).absolute() for path in associations]
    output_dir = Path(output_dir).absolute()
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = {path: _row(path, "not done") for path in paths}
    options = {"arguments": list(arguments), "overwrite": overwrite, "pure": False}
    futures = {
        client.submit(_run_visit, path, output_dir, label, **options): path
        for path, label in _labels(rows).items()
    }
    with contextlib.suppress(KeyboardInterrupt):
        progress = {"total": len(futures), "unit": "visit", "disable": None}
        for future in tqdm(as_completed(futures), "Making skyflats", **progress):
            path = futures[future]
            died = future.exception()
            rows[path] = future.result() if died is None else _row(path, "failed", message=died)
    client.cancel(list(futures))
    _tell_of_twins(rows.values())
    return Table(rows=list(rows.values()), units={"seconds": "s"})


def _tell_of_twins(rows):
    """Say which associations have the same product: only one of them has made it."""
    for row in rows:
        for other in rows:
            if other is not row and set(row["products"].split()) & set(other["products"].split()):
                row["message"] = f"the same product as {other['association']}"


def _labels(paths):
    """Name each association by its file; those of one name also by where they are."""
    names = Counter(path.stem for path in paths)
    places = {path: hashlib.sha256(str(path).encode()).hexdigest()[:8] for path in paths}
    return {
        path: path.stem if names[path.stem] == 1 else f"{path.stem}-{places[path]}"
        for path in paths
    }


def _row(path, status, products=(), seconds=0.0, message=""):
    """Describe what became of an association."""
    message = " ".join(str(message).split())
    return {
        "association": str(path),
        "status": status,
        "products": " ".join(products),
        "seconds": round(seconds, 1),
        "message": message,
    }


def _run_visit(path, output_dir, label, arguments, overwrite):
    """Make the skyflats of an association, on a worker."""
    start = time.monotonic()
    try:
        names = name_products(open_libraries([path]))
        if not overwrite and all((output_dir / name).exists() for name in names):
            return _row(path, "kept", names)
        _run_pipeline(path, output_dir, label, arguments)
    except (Exception, SystemExit) as err:  # whatever it is, the others go on
        message = err if isinstance(err, Exception) else f"ended with status {err}, see {label}.log"
        return _row(path, "failed", (), time.monotonic() - start, message)
    return _row(path, "made", names, time.monotonic() - start)


def _run_pipeline(path, output_dir, label, arguments):
    """Run the pipeline in a folder of its own, and move what it makes when all is complete."""
    folder, log = output_dir / f".batch-{label}", output_dir / f"{label}.log"
    # A worker that was killed may have left one.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log.unlink(missing_ok=True)
    try:
        places = [f"--output_dir={folder}", f"--log-file={log}", "--log-stream=null"]
        Step.from_cmdline(["soss_background.SkyflatPipeline", str(path), *places, *arguments])
        for product in folder.glob("[!.]*"):
            product.replace(output_dir / product.name)
    finally:
        gc.collect()
        shutil.rmtree(folder, ignore_errors=True)
