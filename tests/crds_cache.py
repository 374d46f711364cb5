"""A small CRDS cache in a folder, with real look-ups but without a server."""

import hashlib
import pprint
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from crds.core import utils

from soss_background.steps import crds_access

CONTEXT = "jwst_0001.pmap"

_SELECTOR = """
selector = Match({
    %s : UseAfter({
        '1900-01-01 00:00:00' : '%s',
    }),
})
"""

# Keywords that CRDS matches, and their values for SOSS; BKG reference files have more keywords.
_MATCH = {"META.EXPOSURE.TYPE": "NIS_SOSS"}
_MATCH_BKG = _MATCH | {
    "META.INSTRUMENT.DETECTOR": "NIS",
    "META.INSTRUMENT.FILTER": "CLEAR",
    "META.INSTRUMENT.PUPIL": "GR700XD",
}


def make_cache(folder, references):
    """
    Create a CRDS cache with NIRISS SOSS reference files.

    ``references`` maps reference types to files, or to None for N/A. Returns the environment
    variables of the cache.
    """
    folder = Path(folder)
    mappings = folder / "mappings" / "jwst"
    files = folder / "references" / "jwst" / "niriss"
    config = folder / "config" / "jwst"
    for part in (mappings, files, config):
        part.mkdir(parents=True)
    selector = {}
    for reference_type, file in references.items():
        if file is None:
            selector[reference_type] = "N/A"
            continue
        name = f"jwst_niriss_{reference_type}_0001{Path(file).suffix}"
        shutil.copy(file, files / name)
        rmap = f"jwst_niriss_{reference_type}_0001.rmap"
        selector[reference_type] = rmap
        match = _MATCH_BKG if reference_type == "bkg" else _MATCH
        header = {
            "filekind": reference_type.upper(),
            "instrument": "NIRISS",
            "mapping": "REFERENCE",
            "name": rmap,
            "observatory": "JWST",
            "parkey": (tuple(match), ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")),
        }
        _write_mapping(mappings / rmap, header, _SELECTOR % (tuple(match.values()), name))
    imap = {
        "instrument": "NIRISS",
        "mapping": "INSTRUMENT",
        "name": "jwst_niriss_0001.imap",
        "observatory": "JWST",
        "parkey": ("REFTYPE",),
    }
    _write_mapping(mappings / imap["name"], imap, f"\nselector = {pprint.pformat(selector)}\n")
    pmap = {
        "mapping": "PIPELINE",
        "name": CONTEXT,
        "observatory": "JWST",
        "parkey": ("META.INSTRUMENT.NAME",),
    }
    _write_mapping(mappings / CONTEXT, pmap, f"\nselector = {{'NIRISS': '{imap['name']}'}}\n")
    server_config = {
        "observatory": "jwst",
        "last_synced": "2026-01-01 00:00:00",
        "bad_files_list": [],
        "operational_context": CONTEXT,
        "force_remote_mode": False,
    }
    (config / "server_config").write_text(repr(server_config))
    return {
        "CRDS_PATH": str(folder),
        "CRDS_SERVER_URL": "https://jwst-serverless.example",
        "CRDS_CONTEXT": CONTEXT,
        "CRDS_OBSERVATORY": "jwst",
    }


@contextmanager
def crds_at(environment, folder):
    """Use a cache in this process, and work in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        utils.clear_function_caches()
        crds_access._crds_reachable.cache_clear()
        try:
            yield
        finally:
            utils.clear_function_caches()
            crds_access._crds_reachable.cache_clear()


def _write_mapping(path, header, selector):
    """Write a CRDS mapping; its checksum excludes the line with the checksum."""
    entries = pprint.pformat(header | {"derived_from": "made by a test"}).removeprefix("{")
    text = f"header = {{\n{entries}\n{selector}"
    checksum = hashlib.sha1(text.encode()).hexdigest()
    first, rest = text.split("\n", 1)
    path.write_text(f"{first}\n    'sha1sum' : '{checksum}',\n{rest}")
