"""Exposures in MAST, the archive of JWST."""

import contextlib
import logging
import re
import threading
import time
from email.utils import formatdate
from pathlib import Path

import astroquery
import requests
from astropy.table import Table, join, unique
from astroquery.exceptions import NoResultsWarning
from astroquery.mast import MastMissionsClass, conf
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from soss_background.associations.tables import clean_columns, require_columns, select_exposures
from soss_background.detector import FULL
from soss_background.errors import SkyflatError, one_line
from soss_background.io.files import check_output
from soss_background.io.quiet import ignore_warnings

__all__ = ["download_exposures", "query_archive"]

log = logging.getLogger(__name__)

# Seconds to wait for a silent server, and between two checks of the size of a growing file.
_PATIENCE, _LOOK = 120, 1.0

# Number of attempts at a request, and the pause between them, s.
_ATTEMPTS, _PAUSE = 3, 2.0

# Number of successive unanswered requests after which no more files are requested.
_LOST = 2

# HTTP errors for lack of permission, those that another request does not change, and those of a
# partial file that the archive has replaced.
_FORBIDDEN, _FINAL, _REPLACED = map(re.compile, ("40[13] ", "40[134] ", "41[26] "))

# The first bytes of a FITS file.
_FITS = b"SIMPLE  ="

# Largest number of exposures to return; the archive's default is 5000.
_LIMIT = 1_000_000

# Columns of a table of exposures by their names in the archive.
_COLUMNS = {
    "fileSetName": "DATASET",
    "program": "PROGRAM",
    "targprop": "TARGPROP",
    "observtn": "OBSERVTN",
    "subarray": "SUBARRAY",
    "filter": "FILTER",
    "niriss_pupil": "PUPIL",
    "niriss_pwcpos": "PWCPOS",
    "date_beg": "DATE-BEG",
    "category": "CATEGORY",
}


def query_archive(product="rateints", *, login=False, **criteria):
    """
    Find SOSS exposures of the full detector in MAST.

    Parameters
    ----------
    product : {"rateints", "rate"}
        Kind of file.
    login : bool
        Whether to log in, which also finds exposures that are not public. The token comes from the
        environment (MAST_API_TOKEN), the keyring or the terminal, see `astroquery.mast`.
    **criteria : dict
        See `~soss_background.associations.tables.select_exposures`.

    Returns
    -------
    table : `~astropy.table.Table`
        A row for each file, in order of time: FILENAME, PROGRAM, TARGPROP, OBSERVTN, SUBARRAY,
        FILTER, PUPIL, PWCPOS (deg), DATE-BEG, CATEGORY, SET (see ``select_exposures``), SIZE
        (bytes), and URI, the archive's name of the file.

    Raises
    ------
    SkyflatError
        If the archive does not answer, or no exposure matches.
    """
    archive = _Archive(login)
    exposures = _ask(archive.find_exposures)
    if len(exposures):
        require_columns(exposures, ["PROGRAM", "DATE-BEG"], "The archive's answer")
        exposures = select_exposures(exposures, **criteria)
    if not len(exposures):
        raise SkyflatError(f"{conf.server}: no exposure fits")
    files = _ask(archive.find_files, list(exposures["DATASET"]), product)
    if not login:
        public = files["ACCESS"] == "PUBLIC"
        if not public.all():
            log.warning("Left out: files that are not public (%d), see --login", (~public).sum())
        files = files[public]
    missing = len(set(exposures["DATASET"]) - set(files["DATASET"]))
    if missing:
        log.warning("Left out: exposures without a _%s file (%d)", product, missing)
    if not len(files):
        raise SkyflatError(f"{conf.server}: no exposure fits")
    found = join(exposures, files, "DATASET")
    found.remove_columns(["DATASET", "ACCESS"])
    found.sort(["DATE-BEG", "FILENAME"])
    return found


def download_exposures(table, directory=".", *, login=False):
    """
    Download exposures from MAST.

    Existing files of the right size are kept. Files are renamed from ``*.part`` when they are
    complete; interrupted downloads are continued.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The exposures, see `query_archive`.
    directory : str or `~pathlib.Path`
        Output folder.
    login : bool
        Whether to log in, for files that are not public, see `query_archive`.

    Returns
    -------
    table : `~astropy.table.Table`
        FILENAME, STATUS (fetched, kept or failed) and, if it failed, a MESSAGE for each exposure.

    Raises
    ------
    SkyflatError
        If the table lacks a column or has an invalid row, the login fails, or a file cannot be
        written.
    """
    require_columns(table, ["FILENAME", "SIZE", "URI"], "The table of exposures")
    # Drop folders in the table: nothing is written outside of the output folder.
    names = [Path(name).name for name in table["FILENAME"]]
    sizes = [_read_size(*row) for row in zip(names, table["SIZE"], strict=True)]
    archive = _Archive(login)
    directory = Path(directory)
    for name in names:
        check_output(directory / name)
    directory.mkdir(parents=True, exist_ok=True)
    rows, lost = [], 0
    bar = {"desc": "Downloading", "unit": "B", "unit_scale": True, "disable": None}
    with tqdm(total=sum(sizes), **bar) as progress, _quiet_astroquery():
        for name, uri, size in zip(names, table["URI"], sizes, strict=True):
            status, message = "failed", "not requested: the archive does not answer any more"
            with _follow(progress, directory / f"{name}.part", size):
                if lost < _LOST:
                    status, message = _download(archive, uri, directory / name, size)
            is_answered = status != "failed" or message[:3].isdigit()
            lost = 0 if is_answered else lost + 1
            rows.append((name, status, message))
    return Table(rows=rows, names=["FILENAME", "STATUS", "MESSAGE"])


def _read_size(name, size):
    """Read the size of a file from its row."""
    try:
        size = int(size)
    except (TypeError, ValueError) as err:
        raise SkyflatError(f"{name}: SIZE is {size}, which is not a number") from err
    if not name or size <= 0:
        raise SkyflatError(f"The table of exposures: a file {name!r} of {size} bytes")
    return size


@contextlib.contextmanager
def _quiet_astroquery():
    """Silence astroquery's progress bar for each file and its log of failures."""
    level = astroquery.log.level
    astroquery.log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        astroquery.log.setLevel(level)


@contextlib.contextmanager
def _follow(progress, path, size):
    """Show the progress of a growing file; astroquery does not report it."""
    start, done = progress.n, threading.Event()

    def look():
        while not done.wait(_LOOK):
            with contextlib.suppress(OSError):
                progress.update(start + path.stat().st_size - progress.n)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        progress.update(start + size - progress.n)


def _download(archive, uri, path, size):
    """Download a file unless it exists; return its status, and a message if it failed."""
    if path.is_file() and path.stat().st_size == size:
        return "kept", ""
    partial = path.with_name(f"{path.name}.part")
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        try:
            message = archive.fetch(uri, partial, size)
        except OSError as err:  # a full disk, for example
            raise SkyflatError(f"{partial}: {err}") from err
        if not message:
            partial.replace(path)
            return "fetched", ""
        if _FORBIDDEN.match(message):
            message += " (not public, or not for the owner of this token: log in)"
        if _FINAL.match(message):
            break
    return "failed", message


def _measure(partial, size):
    """Return the size of a partial file; remove it if it cannot be the beginning of the file."""
    if not partial.exists():
        return 0
    length = partial.stat().st_size
    with partial.open("rb") as file:
        is_usable = length <= size and file.read(len(_FITS)) == _FITS
    if not is_usable:
        partial.unlink()
        return 0
    return length


def _ask(question, *arguments):
    """Query the archive; try again if it is busy."""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        try:
            return question(*arguments)
        except Exception as err:  # astroquery raises many kinds
            failure = err
    raise SkyflatError(f"{conf.server}: no useful answer ({one_line(failure)})") from failure


class _Archive(MastMissionsClass):
    """MAST, queried in a session with a time limit for silent servers."""

    def __init__(self, login):
        super().__init__(mission="jwst")
        # astroquery offers no other way to set headers and time limits than its private session.
        self._session.mount(conf.server, _Adapter())
        # A compressed download could not be continued.
        self._session.headers["Accept-Encoding"] = "identity"
        if login:
            try:
                self.login()
            except Exception as err:  # astroquery and keyring raise many kinds
                raise SkyflatError(f"{conf.server}: {one_line(err)} (set MAST_API_TOKEN)") from err

    def get_column_list(self):
        """List the columns of the archive; astroquery's own method has no time limit."""
        if self.mission not in self.columns:
            url = f"{conf.server}/search/util/api/v0.1/column_list"
            response = self._session.get(url, params={"mission": self.mission})
            response.raise_for_status()
            names = [column["column_name"] for column in response.json()]
            self.columns[self.mission] = Table({"name": names})
        return self.columns[self.mission]

    def find_exposures(self):
        """Return a table of all SOSS exposures of the full detector."""
        known = set(self.get_column_list()["name"])
        with ignore_warnings(NoResultsWarning):
            found = self.query_criteria(
                instrume="NIRISS",
                exp_type="NIS_SOSS",
                subarray=FULL.name,
                select_cols=[name for name in _COLUMNS if name in known],
                limit=_LIMIT,
            )
        if not len(found):
            return found
        # MAST repeats an exposure for each of its detectors and levels.
        table = unique(found[[name for name in _COLUMNS if name in found.colnames]], "fileSetName")
        table.rename_columns(table.colnames, [_COLUMNS[name] for name in table.colnames])
        clean_columns(table)
        return table

    def find_files(self, datasets, product):
        """Return DATASET, FILENAME, SIZE (bytes), URI and ACCESS of the files of exposures."""
        columns = ("dataset", "filename", "size", "uri", "access")
        # MAST repeats a file for each product that it belongs to.
        rows = {
            row["filename"]: tuple(row[column] for column in columns)
            for row in self.get_product_list(datasets)
            if str(row["filename"]).endswith(f"_nis_{product}.fits") and row["size"]
        }
        names = ["DATASET", "FILENAME", "SIZE", "URI", "ACCESS"]
        return Table(rows=list(rows.values()), names=names, dtype=[str, str, int, str, str])

    def fetch(self, uri, partial, size):
        """Download or continue a file; return an error message, empty if it is complete."""
        start = _measure(partial, size)
        if start == size:
            return ""
        headers = self._session.headers
        if start:
            headers["If-Unmodified-Since"] = formatdate(partial.stat().st_mtime, usegmt=True)
        try:
            # `download_products` calls it for each file, but stops at a broken connection.
            message = self.download_file(uri, local_path=partial)[1] or ""
            message = message.removeprefix("HTTPError: ")
            length = partial.stat().st_size if partial.exists() else 0
            is_wrong = _REPLACED.match(message) or (not message and length not in (start, size))
        except requests.RequestException as err:
            message, length, is_wrong = one_line(err), 0, isinstance(err, _WrongRangeError)
        finally:
            # astroquery does not remove its own header when a request fails.
            for name in ("If-Unmodified-Since", "Range"):
                headers.pop(name, None)
        if is_wrong:
            partial.unlink(missing_ok=True)
        if not message and length != size:
            message = f"the download is not a file of {size} bytes"
        return message


class _WrongRangeError(requests.RequestException):
    """Exception for an answer that is not the requested remainder of a file."""


class _Adapter(HTTPAdapter):
    """Send requests with a time limit; check ranges before astroquery appends them."""

    def send(self, request, timeout=None, **settings):
        response = super().send(request, timeout=timeout or _PATIENCE, **settings)
        wanted = request.headers.get("Range", "").replace("=", " ")
        if response.status_code < 300 and wanted not in response.headers.get("Content-Range", ""):
            raise _WrongRangeError(f"the archive did not send {wanted}")
        return response
