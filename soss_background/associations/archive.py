"""Exposures in MAST, the archive of JWST."""

import contextlib
import functools
import logging
import time
import warnings
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

import requests
from astropy.table import Table, join, unique
from astroquery.exceptions import NoResultsWarning
from astroquery.mast import MastMissionsClass
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from soss_background.associations.tables import clean_columns, require_columns, select_exposures
from soss_background.detector import FULL
from soss_background.errors import SkyflatError, one_line

__all__ = ["download_exposures", "query_archive"]

log = logging.getLogger(__name__)

# Seconds after which a server that says nothing is given up.
_PATIENCE = 120

# A query is asked again if the server is not reached or is busy.
_RETRY = {
    "total": 2,
    "backoff_factor": 0.5,
    "status_forcelist": (429, 502, 503, 504),
    "allowed_methods": None,
}

# How often a file is asked for, and the seconds before it is asked for again; each time goes on
# where the one before it broke off.
_ATTEMPTS, _PAUSE = 3, 2.0

# Requests for files that find no server, one after the other, after which no more are made.
_LOST = 2 * _ATTEMPTS

# Answers to a request for a file that will not change: it is not for us, or not there.
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_FINAL = (*_REFUSED, HTTPStatus.NOT_FOUND)

# Answers that tell that what is there is not the beginning of the file as it is now.
_OUTDATED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)

# Bytes that are read at a time.
_BLOCK = 2**16

# More exposures than there will ever be; the archive's default is 5000.
_LIMIT = 1_000_000

# Columns of a table of exposures by the names that the archive has for them.
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
        Whether to log in, to find also exposures that are not public. The token comes from the
        environment (MAST_API_TOKEN), the keyring or the terminal, see `astroquery.mast`.
    **criteria : dict
        See `~soss_background.associations.tables.select_exposures`.

    Returns
    -------
    table : `~astropy.table.Table`
        A row for each file, in order of time: FILENAME, PROGRAM, TARGPROP, OBSERVTN, SUBARRAY,
        FILTER, PUPIL, PWCPOS (deg), DATE-BEG, CATEGORY, SET (see ``select_exposures``), SIZE
        (bytes), and URI, by which the archive knows the file.

    Raises
    ------
    SkyflatError
        If the archive does not answer, or has no exposure that fits.
    """
    archive = _open_archive(login)
    with _tell_of_failure():
        exposures = archive.find_exposures()
    if len(exposures):
        exposures = select_exposures(exposures, **criteria)
    if not len(exposures):
        raise SkyflatError(f"{archive.server}: no exposure fits")
    with _tell_of_failure():
        files = archive.find_files(list(exposures["DATASET"]), product)
    if not login:
        public = files["ACCESS"] == "PUBLIC"
        if not public.all():
            log.warning("Left out: files that are not public (%d), see --login", (~public).sum())
        files = files[public]
    missing = len(set(exposures["DATASET"]) - set(files["DATASET"]))
    if missing:
        log.warning("Left out: exposures without a _%s file (%d)", product, missing)
    if not len(files):
        raise SkyflatError(f"{archive.server}: no exposure fits")
    found = join(exposures, files, "DATASET")
    found.remove_columns(["DATASET", "ACCESS"])
    found.sort(["DATE-BEG", "FILENAME"])
    return found


def download_exposures(table, directory=".", *, login=False):
    """
    Download exposures from MAST.

    What is there already and has the right size is not fetched again; what was broken off goes on
    where it was. Files come to their name when they are complete.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The exposures, see `query_archive`.
    directory : str or `~pathlib.Path`
        Where the files go.
    login : bool
        Whether to log in, for files that are not public, see `query_archive`.

    Returns
    -------
    table : `~astropy.table.Table`
        For each FILENAME its STATUS (fetched, kept or failed) and, if it failed, a MESSAGE.

    Raises
    ------
    SkyflatError
        If the table lacks a column or has a row that makes no sense, or if the login fails.
    OSError
        If nothing can be written.
    """
    require_columns(table, ["FILENAME", "SIZE", "URI"], "The table of exposures")
    # Whatever a table says, nothing is written outside of the folder.
    names = [Path(name).name for name in table["FILENAME"]]
    sizes = [_read_size(*row) for row in zip(names, table["SIZE"], strict=True)]
    archive = _open_archive(login)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = []
    bar = {"desc": "Downloading", "unit": "B", "unit_scale": True, "disable": None}
    with tqdm(total=sum(sizes), **bar) as progress:
        for name, uri, size in zip(names, table["URI"], sizes, strict=True):
            report = functools.partial(_advance, progress, progress.n)
            if archive.is_lost():
                outcome = "failed", "not asked for: the archive does not answer any more"
            else:
                outcome = _download(archive, uri, directory / name, size, report)
            rows.append((name, *outcome))
            report(size)
    return Table(rows=rows, names=["FILENAME", "STATUS", "MESSAGE"])


def _read_size(name, size):
    """Read the size of a file from its row."""
    try:
        size = int(size)
    except (TypeError, ValueError) as err:
        raise SkyflatError(f"{name}: SIZE is {size}, which is no number") from err
    if not name or size <= 0:
        raise SkyflatError(f"The table of exposures: a file {name!r} of {size} bytes")
    return size


def _advance(progress, start, received):
    """Show how much of a file is there."""
    progress.update(start + received - progress.n)


def _download(archive, uri, path, size, report):
    """Get a file unless it is there; return what became of it, and why."""
    if path.is_file() and path.stat().st_size == size:
        return "kept", ""
    partial = path.with_name(f"{path.name}.part")
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        try:
            archive.fetch(uri, partial, size, report)
            archive.unreachable = 0
        except requests.RequestException as err:
            archive.unreachable += isinstance(err, requests.ConnectionError)
            message = one_line(err)
            status = getattr(err.response, "status_code", None)
            if status in _REFUSED:
                message = "not public, or not for the owner of this token: log in"
            if status in _FINAL:
                break
        except OSError as err:  # of this machine: a full disk, say
            raise SkyflatError(f"{partial}: {err}") from err
        else:
            partial.replace(path)
            return "fetched", ""
    return "failed", message


def _open_archive(login):
    """Begin a session."""
    archive = _Archive()
    if login:
        try:
            archive.login()
        except Exception as err:  # astroquery and keyring raise many kinds
            raise SkyflatError(f"{archive.server}: {one_line(err)} (set MAST_API_TOKEN)") from err
    return archive


@contextlib.contextmanager
def _tell_of_failure():
    """Say whose failure it is."""
    try:
        yield
    except Exception as err:  # astroquery raises many kinds
        raise SkyflatError(f"{_Archive().server}: no answer that helps ({one_line(err)})") from err


class _Archive(MastMissionsClass):
    """MAST, asked by a session that waits for a slow server but not for a silent one."""

    def __init__(self):
        super().__init__(mission="jwst")
        self.server = self._service_api_connection.SERVICE_URL
        self.files = f"{self.server}/search/jwst/api/v0.1/retrieve_product"
        self._session.mount(self.server, _Adapter(max_retries=Retry(**_RETRY)))
        self._session.mount(self.files, _Adapter())
        self.unreachable = 0

    def is_lost(self):
        """Tell whether the last requests for files have found no server."""
        return self.unreachable >= _LOST

    def get_column_list(self):
        """
        List the columns by which exposures can be found.

        The method of astroquery asks in a session of its own, which waits for ever.

        Returns
        -------
        table : `~astropy.table.Table`
            The column ``name`` has their names.
        """
        if self.mission not in self.columns:
            url = f"{self.server}/search/util/api/v0.1/column_list"
            response = self._session.get(url, params={"mission": self.mission})
            response.raise_for_status()
            names = [column["column_name"] for column in response.json()]
            self.columns[self.mission] = Table({"name": names})
        return self.columns[self.mission]

    def find_exposures(self):
        """
        Find all SOSS exposures of the full detector.

        Returns
        -------
        table : `~astropy.table.Table`
            A row for each exposure, with DATASET, by which the archive knows it, and those columns
            of a table of exposures that the archive has.
        """
        known = set(self.get_column_list()["name"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoResultsWarning)
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
        require_columns(table, ["PROGRAM", "DATE-BEG"], "The archive's answer")
        return table

    def find_files(self, datasets, product):
        """
        Find the files of exposures.

        Parameters
        ----------
        datasets : list of str
            The exposures.
        product : {"rateints", "rate"}
            Kind of file.

        Returns
        -------
        table : `~astropy.table.Table`
            DATASET, FILENAME, SIZE (bytes), URI and ACCESS of each file.
        """
        columns = ("dataset", "filename", "size", "uri", "access")
        # MAST repeats a file for each product that it belongs to.
        rows = {
            row["filename"]: tuple(row[column] for column in columns)
            for row in self.get_product_list(datasets)
            if str(row["filename"]).endswith(f"_nis_{product}.fits") and row["size"]
        }
        names = ["DATASET", "FILENAME", "SIZE", "URI", "ACCESS"]
        return Table(rows=list(rows.values()), names=names, dtype=[str, str, int, str, str])

    def fetch(self, uri, path, size, report):
        """
        Get a file, or the rest of it.

        The method of astroquery goes on where it was only while it prints, and waits for ever.

        Parameters
        ----------
        uri : str
            The file, as the archive knows it.
        path : `~pathlib.Path`
            Where it goes; what is there is taken for its beginning, unless the archive has a newer
            file, and is removed if it turns out to be none.
        size : int
            Its size, bytes.
        report : callable
            Is told how many bytes are there, again and again.

        Raises
        ------
        requests.RequestException
            If the file, or its rest, does not come.
        """
        start = path.stat().st_size if path.exists() else 0
        if start == size:
            return
        # A file that is compressed on the way could not be gone on with.
        headers = {"Accept-Encoding": "identity"}
        if 0 < start < size:
            begun = formatdate(path.stat().st_mtime, usegmt=True)
            headers |= {"Range": f"bytes={start}-", "If-Unmodified-Since": begun}
        asked = {"params": {"product_name": uri}, "headers": headers, "stream": True}
        with self._session.get(self.files, **asked) as response:
            if response.status_code in _OUTDATED:
                path.unlink()
            response.raise_for_status()
            goes_on = _goes_on(response, start)
            rest = size - start if goes_on else size
            # Else it is another file, or a page that excuses the server.
            if int(response.headers.get("Content-Length", rest)) != rest:
                raise requests.RequestException(f"what came is not a file of {size} bytes")
            with path.open("ab" if goes_on else "wb") as file:
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    report(file.tell())
        if path.stat().st_size != size:
            path.unlink()
            raise requests.RequestException(f"what came is not a file of {size} bytes")


def _goes_on(response, start):
    """Tell whether an answer is the rest of a file; raise if it is another part."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return False
    part = response.headers.get("Content-Range", "")
    if not part.startswith(f"bytes {start}-"):
        raise requests.RequestException(f"not the part that was asked for came ({part})")
    return True


class _Adapter(HTTPAdapter):
    """Sends requests that are given up if the server falls silent."""

    def send(self, request, timeout=None, **kwargs):
        return super().send(request, timeout=timeout or _PATIENCE, **kwargs)
