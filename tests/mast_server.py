"""
A local server that answers the requests of astroquery as MAST does.

The formats are those of the MAST search API (missions-mast) and of the answers in the tests of
astroquery.
"""

import json
import re
import threading
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from astroquery.mast import conf
from astroquery.mast.services import ServiceAPI

# Columns of the archive that queries use or return, and their types.
COLUMNS = {
    "ArchiveFileID": "INTEGER",
    "fileSetName": "VARCHAR",
    "instrume": "VARCHAR",
    "exp_type": "VARCHAR",
    "program": "INTEGER",
    "targprop": "VARCHAR",
    "observtn": "INTEGER",
    "subarray": "VARCHAR",
    "filter": "VARCHAR",
    "niriss_pupil": "VARCHAR",
    "niriss_pwcpos": "FLOAT",
    "date_beg": "DATETIME",
    "category": "VARCHAR",
}

TOKEN = "a-good-token"  # noqa: S105 - of this server only


class MastServer(ThreadingHTTPServer):
    """
    The archive.

    Attributes
    ----------
    exposures : list of dict
        Rows of the archive, with all of `COLUMNS`.
    files : dict
        Bytes and exposure of each file, by its name; names of private files are in ``private``.
    faults : dict
        Faults of successive requests, by path or file name:
        None, a status, ``"truncated"``, ``"cut"``, ``"silent"``, ``"slow"``, ``"whole"``,
        ``"truncated whole"``, ``"truncated page"``, ``"another part"``, ``"no ranges"``, or bytes
        that are sent instead.
    sizes, changed : dict
        Reported size of each file, by name, if it is not the true one, and time of its last change.
    requests : list of str
        Paths, file names and ranges of the requests.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.exposures, self.files, self.private = [], {}, set()
        self.faults, self.requests = {}, []
        self.sizes, self.changed = {}, {}
        self.columns = dict(COLUMNS)

    @property
    def url(self):
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Ignore errors, since clients may disconnect."""

    def add(self, name, content=b"", **values):
        """Add an exposure with a file of each product, and its other entries in MAST."""
        number = len(self.exposures) // 2
        row = {
            "ArchiveFileID": number,
            "fileSetName": name,
            "instrume": "NIRISS",
            "exp_type": "NIS_SOSS",
            "program": 4479,
            "targprop": "SKY",
            "observtn": 1,
            "subarray": "FULL",
            "filter": "CLEAR",
            "niriss_pupil": "GR700XD",
            "niriss_pwcpos": 245.8,
            "date_beg": f"2023-11-16T{number:02d}:00:00.000000",
            "category": "CAL",
        } | values
        self.exposures += [row, row | {"ArchiveFileID": number + 1000}]
        for suffix in ("uncal", "rate", "rateints"):
            self.files[f"{name}_nis_{suffix}.fits"] = content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Log nothing."""

    def do_GET(self):  # noqa: N802 - as the base class has it
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path.endswith("/retrieve_product"):
            self._send_file(query["product_name"].rsplit("/", 1)[-1])
        elif url.path.endswith("/column_list"):
            assert query == {"mission": "jwst"}
            self._send_json(
                url.path,
                [
                    {"column_name": name, "qual_type": kind, "description": name}
                    for name, kind in self.server.columns.items()
                ],
            )
        elif url.path == "/whoami":
            who = {"anon": not self._is_known(), "attrib": {"display_name": "A. Stronomer"}}
            self._send_json(url.path, who)
        else:
            self._send(404, b"")

    def do_POST(self):  # noqa: N802 - as the base class has it
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/search/jwst/api/v0.1/search":
            self._send_json(self.path, self._search(asked))
        elif self.path == "/search/jwst/api/v0.1/post_list_products":
            self._send_json(self.path, {"products": self._products(asked["dataset_ids"])})
        else:
            self._send(404, b"")

    def _search(self, asked):
        """Answer a query by criteria."""
        columns = asked["select_cols"]
        conditions = {name: value for item in asked["conditions"] for name, value in item.items()}
        if not {*columns, *conditions} <= set(self.server.columns):
            return None
        rows = [
            {name: row[name] for name in columns}
            for row in self.server.exposures
            if all(str(row[name]) in value.split(",") for name, value in conditions.items())
        ]
        info = [{"name": name, "type": self.server.columns[name]} for name in columns]
        rows = rows[: asked["limit"]]
        return {"info": info, "search_params": asked, "results": rows, "messages": []}

    def _products(self, datasets):
        """List the products of exposures, some of them twice."""
        products = [
            {
                "product_key": f"{dataset}_{name}",
                "access": "EXCLUSIVE_ACCESS" if name in self.server.private else "PUBLIC",
                "dataset": dataset,
                "instrument_name": "NIRISS",
                "filters": "CLEAR;GR700XD",
                "filename": name,
                "uri": f"JWST/product/{name}",
                "authz_primary_identifier": dataset,
                "file_suffix": name.rsplit("_", 1)[-1].removesuffix(".fits").upper(),
                "category": "2a",
                "size": self.server.sizes.get(name, len(content)),
                "type": "science",
            }
            for name, content in self.server.files.items()
            for dataset in datasets
            if re.match(rf"{dataset}_nis_", name)
        ]
        return products + products[:1]

    def _send_file(self, name):
        """Send a file, or the requested range of it."""
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.server.requests.append(f"{name} from {start}")
        if name not in self.server.files:
            return self._send(404, b"no such product")
        if name in self.server.private and not self._is_known():
            return self._send(401, b"log in")
        content, fault = self.server.files[name], self._fault(name)
        changed, begun = self.server.changed.get(name), self.headers["If-Unmodified-Since"]
        if changed and begun and changed > parsedate_to_datetime(begun):
            return self._send(412, b"")
        if fault in ("whole", "truncated whole", "truncated page"):
            start = 0
        if fault == "truncated page":
            content = b"<html>down for maintenance</html>" * 20
        if start >= len(content) > 0:
            return self._send(416, b"")
        extra = {} if fault == "no ranges" else {"Accept-Ranges": "bytes"}
        end = len(content)
        if fault == "another part" and start:
            start, end = 1, 1 + len(content) - start
        if start:
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return self._send(206 if start else 200, content[start:end], fault, extra)

    def _send_json(self, path, answer):
        """Send an answer, or an error for an invalid query."""
        self.server.requests.append(path)
        status = 400 if answer is None else 200
        self._send(status, json.dumps(answer).encode(), self._fault(path))

    def _fault(self, name):
        """Return the fault of this request."""
        faults = self.server.faults.get(name)
        return faults.pop(0) if faults else None

    def _is_known(self):
        """Return whether a request contains the token."""
        return f"mast_token={TOKEN}" in (self.headers["Cookie"] or "")

    def _send(self, status, content, fault=None, extra=()):
        """Send an answer, with a fault."""
        if isinstance(fault, int):
            status, content = fault, b"the server has a fault"
        if isinstance(fault, bytes):
            status, content = 200, fault
        if fault == "silent":
            time.sleep(1)
        self.send_response(status)
        # Without a length, the answer ends with the connection.
        if fault != "cut":
            self.send_header("Content-Length", str(len(content)))
        if fault in ("cut", "truncated", "truncated whole", "truncated page"):
            self.send_header("Connection", "close")
            self.close_connection = True
            content = content[: len(content) // 2]
        for name, value in dict(extra).items():
            self.send_header(name, value)
        self.end_headers()
        blocks = [content[i : i + 1000] for i in range(0, len(content), 1000)]
        for block in blocks if fault == "slow" else [content]:
            self.wfile.write(block)
            self.wfile.flush()
            time.sleep(0.05 if fault == "slow" else 0)


@contextmanager
def run_server():
    """Run a server while it is needed."""
    with MastServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ask(server):
    """Let astroquery use a server, in this process."""
    with pytest.MonkeyPatch.context() as patch, conf.set_temp("server", server.url):
        patch.setattr(ServiceAPI, "SERVICE_URL", server.url)
        patch.setattr(ServiceAPI, "MISSIONS_DOWNLOAD_URL", f"{server.url}/search/")
        yield
