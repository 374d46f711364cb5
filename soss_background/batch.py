"""Run many visits on a Dask cluster, one task per association."""

import contextlib
import functools
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
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask
import psutil
from astropy.table import Table
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, wait
from stpipe import Step
from tqdm import tqdm

from soss_background import __version__
from soss_background.errors import SkyflatError, one_line
from soss_background.io.associations import is_association
from soss_background.io.exposures import (
    describe_members,
    describe_products,
    file_sizes,
    find_exposures,
    open_libraries,
    read_header,
)
from soss_background.io.files import (
    explain_write_fault,
    protect_inputs,
    scratch_prefix,
    sweep,
    unrecorded_inputs,
)
from soss_background.io.products import (
    check_pipeline,
    check_replaceable,
    claim,
    compare_record,
    find_change,
    find_siblings,
    move_products,
    read_record,
    record_path,
    write_record,
)
from soss_background.io.segments import exposure_name, group_headers
from soss_background.io.signals import StoppedError
from soss_background.pipeline.skyflat import SkyflatPipeline
from soss_background.pipeline.spec2 import SkyflatSpec2Pipeline
from soss_background.pipeline.stare import SossStarePipeline
from soss_background.steps.provenance import list_parameters

__all__ = ["PIPELINES", "run_batch"]

log = logging.getLogger(__name__)

# Memory that a visit needs, bytes; it limits the number of simultaneous visits.
_MEMORY = 1e9

_UP_TO_DATE = "the same exposures, parameters and version"

# Seconds to wait for a scheduler, and between checks whether a batch is to stop.
_PATIENCE, _LOOK = 10, 0.5


@contextlib.contextmanager
def _open_client(scheduler, workers):
    """Connect to a Dask cluster, or start one on this machine; OSError without an answer."""
    if scheduler is not None:
        place = "scheduler_file" if Path(scheduler).is_file() else "address"
        with Client(**{place: scheduler}, timeout=_PATIENCE) as client:
            yield client
        return
    most = int(psutil.virtual_memory().available / _MEMORY)
    workers = workers or max(1, min(CPU_COUNT, most))
    settings = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
    settings |= {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with (
        # A worker gets one visit at a time, so that its death affects no other visit.
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
    """Ignore interrupts in workers, since the parent ends them; a terminal interrupts both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Visit:
    """
    An association or exposure of a batch.

    Attributes
    ----------
    paths : tuple of `~pathlib.Path`
        The association, or the segments of an exposure.
    label : str
        Its name in the batch.
    status : str
        Made, kept, failed, or not done.
    products : dict of dict
        Identity of each product, by its file name.
    seconds : float
        Run time.
    message : str
        Why the products are kept or created, or the reason for the failure.
    record : dict
        What products of science exposures are made of, see `write_record`.
    """

    paths: tuple
    label: str
    status: str = "not done"
    products: dict = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ""
    record: dict = field(default_factory=dict)

    def row(self):
        """Return the row of the table of results."""
        return {
            "association": " ".join(map(str, self.paths)),
            "label": self.label,
            "status": self.status,
            "products": " ".join(self.products) if self.status in ("made", "kept") else "",
            "seconds": round(self.seconds, 1),
            "message": one_line(self.message),
        }


class _Planned:
    """Pipeline that only reads its parameters."""

    @classmethod
    def get_config_reftype(cls):
        """Use the parameter reference files of the pipeline."""
        return cls.__bases__[1].get_config_reftype()

    def run(self, *args):
        """Do nothing."""


class PlannedPipeline(_Planned, SkyflatPipeline):
    """SkyflatPipeline that only reads its parameters."""


class PlannedStarePipeline(_Planned, SossStarePipeline):
    """SossStarePipeline that only reads its parameters."""


class PlannedSpec2Pipeline(_Planned, SkyflatSpec2Pipeline):
    """SkyflatSpec2Pipeline that only reads its parameters."""


# Pipelines by name, and the classes that read their parameters.
PIPELINES = {
    "SkyflatPipeline": (SkyflatPipeline, PlannedPipeline),
    "SossStarePipeline": (SossStarePipeline, PlannedStarePipeline),
    "SkyflatSpec2Pipeline": (SkyflatSpec2Pipeline, PlannedSpec2Pipeline),
}


def run_batch(
    associations,
    output_dir,
    arguments=(),
    *,
    pipeline="SkyflatPipeline",
    scheduler=None,
    workers=None,
    overwrite=False,
    stop=None,
):
    """
    Run a pipeline on many associations or exposures, on a Dask cluster.

    A failed association does not stop the others. Products appear in the output folder when they
    are complete. They are skipped if they record the same exposures (names and sizes of the
    files), parameters and version, so that an interrupted batch can be restarted: skyflats hold
    their own record, that of the other pipelines is a file in the output folder (``_batch.json``).
    There, an exposure can have products of one of these pipelines only. Other skyflats of the same
    observations in the folder are listed in a warning.

    Parameters
    ----------
    associations : list of str or `~pathlib.Path`
        Association files; for pipelines of science exposures, also exposures, folders and
        wildcards. The segments of a time series are run together.
    output_dir : str or `~pathlib.Path`
        Folder of the products and of a log for each association.
    arguments : list of str
        Further arguments of the pipeline, in the format of ``strun``.
    pipeline : {"SkyflatPipeline", "SossStarePipeline", "SkyflatSpec2Pipeline"}
        The pipeline.
    scheduler : str, optional
        Address or scheduler file of a cluster whose workers see the same files; by default a
        cluster is started on this machine, if there is anything to do.
    workers : int, optional
        Number of processes of a new cluster; by default limited by cores and memory.
    overwrite : bool
        Whether to replace finished products.
    stop : `threading.Event`, optional
        Ends the batch when it is set.

    Returns
    -------
    table : `~astropy.table.Table`
        ``association``, its ``label`` in the batch, ``status`` (made, kept, failed, or not done if
        the batch was interrupted), ``products``, run time in ``seconds``, and a ``message``: why
        the products were kept or created, or the reason for a failure.

    Raises
    ------
    OSError
        If the scheduler does not answer.
    """
    output_dir = Path(output_dir).absolute()
    with explain_write_fault(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        # Remove files of killed batches; others may be at work, also on other machines.
        sweep(output_dir, "batch")
    stop, here = stop or threading.Event(), Path.cwd()
    paths = dict.fromkeys(Path(path).absolute() for path in find_exposures(associations))
    of_skyflats = pipeline == "SkyflatPipeline"
    visits = _name_visits([(path,) for path in paths] if of_skyflats else _group(paths))
    chosen = _plan_skyflats if of_skyflats else functools.partial(_plan_exposures, pipeline)
    plan = functools.partial(chosen, output_dir, tuple(arguments), overwrite)
    # In this process, without a cluster: often all products are up to date.
    progress = tqdm(visits, "Comparing products", unit="visit", disable=None)
    visits = _reject_twins([_attempt(plan, here, visit, stop) for visit in progress])
    if any(visit.status == "not done" for visit in visits) and not stop.is_set():
        settings = {"prefix": scratch_prefix("batch"), "ignore_cleanup_errors": True}
        with (
            tempfile.TemporaryDirectory(dir=output_dir, **settings) as folder,
            _open_client(scheduler, workers) as client,
        ):
            make = functools.partial(_make, pipeline, output_dir, tuple(arguments), folder, plan)
            visits = _map(client, functools.partial(_attempt, make, here), visits, stop)
    if of_skyflats:
        _warn_of_siblings(output_dir, visits)
    return Table(rows=[visit.row() for visit in visits], units={"seconds": "s"})


def _group(paths):
    """Return associations, each alone, and the segments of each exposure together."""
    groups = [(path,) for path in paths if is_association(path)]
    files = [path for path in paths if not is_association(path)]
    headers = []
    for path in files:
        header = {}
        with contextlib.suppress(SkyflatError):  # its own visit fails
            header = read_header(path)
        headers.append(header | {"name": str(path)})
    return groups + [tuple(files[i] for i in indices) for indices in group_headers(headers)]


def _name_visits(groups):
    """Return the visits, named after their files; a hash distinguishes equal names."""
    stems = [Path(exposure_name([path.name for path in paths])).stem for paths in groups]
    names, visits = Counter(stems), []
    for paths, stem in zip(groups, stems, strict=True):
        place = hashlib.sha256(str(paths[0]).encode()).hexdigest()[:8]
        visits.append(_Visit(paths, stem if names[stem] == 1 else f"{stem}-{place}"))
    return visits


def _map(client, work, visits, stop):
    """Process the visits that are not done, on the cluster; return all visits."""
    visits = {visit.label: visit for visit in visits}
    left = [visit for visit in visits.values() if visit.status == "not done"]
    futures = {client.submit(work, visit, pure=False): visit for visit in left}
    for future in _wait(futures, stop):
        visit = futures[future]
        lost = future.status != "finished"
        visits[visit.label] = _lose(visit, future) if lost else future.result()
    if stop.is_set():
        client.cancel(list(futures))
    return list(visits.values())


def _wait(futures, stop):
    """Yield futures as they complete, until the batch is stopped."""
    left = set(futures)
    with tqdm(desc="Running visits", total=len(left), unit="visit", disable=None) as progress:
        while left and not stop.is_set():
            try:
                done, left = wait(left, _LOOK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                continue
            progress.update(len(done))
            yield from done


def _lose(visit, future):
    """Return a visit as failed, since its workers died, or the cluster lost it."""
    message = f"the cluster reports the status {future.status}"
    if future.status == "error":
        message = _describe_error(future.exception())
    return replace(visit, status="failed", message=message)


def _describe_error(err):
    """Return the message of an error, with its type unless it is a SkyflatError."""
    if isinstance(err, KilledWorker):
        return "its worker died again and again (out of memory?)"
    return str(err) if isinstance(err, SkyflatError) else f"{type(err).__name__}: {err}"


def _reject_twins(visits):
    """Set visits to failed if their product is that of an earlier visit."""
    owners, checked = {}, []
    for visit in visits:
        twins = [owners[name] for name in visit.products if name in owners]
        if twins:
            message = f"the same product as {twins[0]}"
            checked.append(replace(visit, status="failed", products={}, message=message))
        else:
            checked.append(visit)
            owners |= dict.fromkeys(visit.products, visit.paths[0])
    return checked


def _warn_of_siblings(output_dir, visits):
    """Warn of skyflats of the same observations that are not products of this batch."""
    products = {name: each for visit in visits for name, each in visit.products.items()}
    for path in find_siblings(output_dir, products.values(), products):
        log.warning("%s is a skyflat of the same observation, not one of this batch", path)


def _attempt(work, here, visit, stop=None):
    """Process a visit, unless the batch is stopped; no error stops the other visits."""
    if stop is not None and stop.is_set():
        return visit
    start, printed = time.monotonic(), io.StringIO()
    try:
        # Relative paths in the arguments refer to the user's folder.
        with contextlib.redirect_stderr(printed), contextlib.chdir(here):
            visit = work(visit)
    except StoppedError:
        raise
    except SystemExit:  # strun exits like this for invalid arguments
        message = (printed.getvalue().splitlines() or ["the arguments are not valid"])[-1]
    except Exception as err:  # no error stops the other visits
        message = _describe_error(err)
    else:
        return replace(visit, seconds=visit.seconds + time.monotonic() - start)
    return replace(visit, status="failed", seconds=time.monotonic() - start, message=message)


def _read_parameters(planned, visit, arguments):
    """Return a pipeline with its parameters; raise if they name its products."""
    step = _strun(planned, *visit.paths, "--log-stream=null", *arguments)
    for key, value in list_parameters(step).items():
        if value and (key == "suffix" or key.endswith("output_file")):
            raise SkyflatError(f"--{key} is given, but a batch names its products itself")
    return step


def _plan_skyflats(output_dir, arguments, overwrite, visit):
    """Describe the skyflats of a visit; keep those that are up to date."""
    libraries = open_libraries(visit.paths)
    described = describe_products(libraries)
    visit = replace(visit, products={each.name: each.identity for each in described})
    parameters = list_parameters(_read_parameters(PlannedPipeline, visit, arguments))
    for name, identity in visit.products.items():
        check_replaceable(output_dir / name, identity)
    if overwrite:
        return replace(visit, message="overwrite is set")
    for name, library in zip(visit.products, libraries, strict=True):
        members = describe_members(library)
        with unrecorded_inputs():
            change = find_change(output_dir / name, members, parameters, __version__)
        if change:
            return replace(visit, message=change)
    return replace(visit, status="kept", message=_UP_TO_DATE)


def _plan_exposures(pipeline, output_dir, arguments, overwrite, visit):
    """Describe the products of science exposures; keep those that are up to date."""
    _, planned = PIPELINES[pipeline]
    step = _read_parameters(planned, visit, arguments)
    exposures, names = step.plan(*map(str, visit.paths))
    check_pipeline(output_dir, pipeline, names)
    sources = [path for each in exposures for path in map(Path, (*each.sources, *each.background))]
    record = {"version": __version__, "members": file_sizes(sources)}
    record["parameters"] = list_parameters(step)
    visit = replace(visit, products=dict.fromkeys(names), record=record)
    if overwrite:
        return replace(visit, message="overwrite is set")
    change = compare_record(record_path(output_dir, visit.label, pipeline), record, names)
    if change:
        return replace(visit, message=change)
    return replace(visit, status="kept", message=_UP_TO_DATE)


def _make(pipeline, output_dir, arguments, folder, plan, visit):
    """Run the pipeline in a new folder; move the products when all are complete."""
    log_file = output_dir / f"{visit.label}_{pipeline}.log"
    with contextlib.ExitStack() as stack:
        for name in sorted([*visit.products, log_file.name]):
            stack.enter_context(claim(output_dir / name))
        # Another batch may have created the products in the meantime.
        visit = plan(visit)
        if visit.status == "kept":
            return visit
        log_file.unlink(missing_ok=True)
        stack.enter_context(protect_inputs())
        options = [f"--log-file={log_file}", *arguments]
        with _run_pipeline(PIPELINES[pipeline][0], options, folder, visit) as made:
            _deliver(made, output_dir, pipeline, visit)
    return replace(visit, status="made")


@contextlib.contextmanager
def _run_pipeline(pipeline, arguments, folder, visit):
    """Run the pipeline in a new folder below ``folder``, which is removed when the context ends."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    try:
        places = ["--log-stream=null", *arguments, f"--output_dir={folder}"]
        _strun(pipeline, *visit.paths, *places)
        missing = [name for name in visit.products if not (folder / name).exists()]
        if missing:
            raise SkyflatError(f"{missing[0]}: not created; do the arguments skip it?")
        yield folder
    finally:
        gc.collect()
        shutil.rmtree(folder, ignore_errors=True)


def _deliver(made, output_dir, pipeline, visit):
    """Move the files of a folder to the output folder; record them if they hold no record."""
    if not visit.record:
        move_products(made, output_dir)
        return
    path = record_path(output_dir, visit.label, pipeline)
    known = read_record(path).get("products", [])
    record = {"pipeline": pipeline}

    def announce(names):
        # If the batch is killed while it moves the files, the next one recognizes them.
        record["products"] = sorted({*known, *names})
        write_record(path, record)

    move_products(made, output_dir, known, announce)
    write_record(path, record | visit.record)


def _strun(kind, *arguments):
    """Run a class as ``strun`` does; return the step."""
    return Step.from_cmdline([f"{kind.__module__}.{kind.__qualname__}", *map(str, arguments)])
