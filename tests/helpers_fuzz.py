"""Faults of files, associations and parameters, drawn at random for the fuzz test."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from hypothesis import strategies as st

# Values that a keyword or an entry of an association should not have.
VALUES = (
    None, "", "abc", "x" * 60, "2023-13-45T99:00:00", True, -1, 0, 1, 7, 100, 0.5, 1e9, -1e9,
    1e300, 2**40,
)  # fmt: skip
ENTRIES = (
    *VALUES,
    float("nan"),
    [],
    {},
    [1],
    "a\0b",
    "a\nb",
    "/",
    "..",
    "visit_asn.json",
    "x" * 5000,
)
NUMBERS = ("nan", "inf", "-inf", "-1", "0", "0.5", "3", "1e9", "1e-9", "1e400", "abc", "''", "[]")
# Keywords that runs use; others of the file are drawn as well.
KEYWORDS = (
    "RA_V1", "DEC_V1", "MJD-AVG", "EXPMID", "EXPSTART", "EXPEND", "DATE-BEG", "DATE-END", "NINTS",
    "PWCPOS", "FILENAME", "OBSERVTN", "PROGRAM", "TARGPROP", "SUBARRAY", "SUBSTRT1", "SUBSTRT2",
    "SUBSIZE1", "SUBSIZE2", "EXP_TYPE", "FILTER", "PUPIL", "DATAMODL", "BUNIT", "S_FLAT",
    "S_BKDSUB", "NSAMPS", "STRIPES", "STRSLOPE", "DNFACTOR", "LON", "LAT", "DAY", "EFFEXPTM",
    "TELESCOP",
    "INSTRUME", "TARG_RA", "REFTYPE", "EXTNAME", "BITPIX", "NAXIS1", "NAXIS", "EXSEGNUM",
    "CRPIX1", "CDELT1",
)  # fmt: skip


class Header(NamedTuple):
    """Set a keyword of an extension, or delete it."""

    file: str
    hdu: int
    keyword: str | int
    value: object

    def apply(self, folder):
        def edit(hdus):
            header = hdus[self.hdu % len(hdus)].header
            keys = [key for key in header if key not in ("", "COMMENT", "HISTORY")]
            key = self.keyword
            key = keys[key % len(keys)] if isinstance(key, int) else key
            if self.value is None:
                header.remove(key, ignore_missing=True)
            else:
                header[key] = self.value

        edit_fits(folder / self.file, edit)


class Extension(NamedTuple):
    """Remove, repeat, rename, empty, or replace an extension."""

    file: str
    hdu: int
    how: str

    def apply(self, folder):
        def edit(hdus):
            index = self.hdu % len(hdus)
            hdu = hdus[index]
            if self.how == "remove":
                del hdus[index]
            elif self.how == "repeat":
                hdus.append(hdu.copy())
            elif self.how == "rename":
                hdu.name = "OTHER"
            elif self.how == "empty":
                hdus[index] = fits.ImageHDU(None, name=hdu.name)
            elif self.how == "image":
                hdus[index] = fits.ImageHDU(np.ones((3, 3), "f4"), name=hdu.name)
            else:
                table = np.zeros(2, [("a", "f4"), ("b", "S3")])
                hdus[index] = fits.BinTableHDU(table, name=hdu.name)

        edit_fits(folder / self.file, edit)


EXTENSIONS = ("remove", "repeat", "rename", "empty", "image", "table")
SHAPES = {
    "fewer rows": lambda a: a[..., :-1, :],
    "fewer columns": lambda a: a[..., :-1],
    "one row": lambda a: a[..., :1, :],
    "no row": lambda a: a[..., :0, :],
    "transposed": lambda a: np.swapaxes(a, -1, -2),
    "more dimensions": lambda a: a[np.newaxis],
    "two of it": lambda a: np.stack([a, a]),
    "fewer dimensions": lambda a: a[0],
    "flat": np.ravel,
    "a number": lambda a: a.ravel()[:1],
}
CONTENT = {
    "NaN": lambda a: _filled(a, np.nan),
    "infinite": lambda a: _filled(a, np.inf),
    "0": lambda a: _filled(a, 0),
    "negative": lambda a: _filled(a, -1),
    "constant": lambda a: _filled(a, 5),
    "huge": lambda a: _filled(a, 1e30),
    "one good": lambda a: _only(a, np.s_[..., :1, :]),
    "one row good": lambda a: _only(a, np.s_[..., 9:10, :]),
    "double": lambda a: a.astype("f8"),
    "short": lambda a: np.nan_to_num(a).astype("i2"),
    "byte": lambda a: np.nan_to_num(a).astype("u1"),
    "reversed": lambda a: -a.astype("f4"),
}


class Plane(NamedTuple):
    """Change shape, type or values of an extension's data."""

    file: str
    hdu: int
    how: str

    def apply(self, folder):
        change = (SHAPES | CONTENT)[self.how]

        def edit(hdus):
            hdu = hdus[self.hdu % len(hdus)]
            if isinstance(hdu, fits.BinTableHDU):
                hdu.data = _change_table(hdu.data, self.how)
            elif hdu.data is not None and hdu.data.ndim > 1:
                hdu.data = np.ascontiguousarray(change(hdu.data))

        edit_fits(folder / self.file, edit)


def _change_table(table, how):
    """Remove the rows or a column of a table, or fill its numbers."""
    array = np.array(table)
    if how in SHAPES or not array.dtype.names:
        return array[: len(array) // 2] if how != "flat" else array[:0]
    for name in array.dtype.names:
        if array[name].dtype.kind in "fiu":
            array[name] = CONTENT[how](array[name].astype("f4")).astype(array[name].dtype)
    return array


def _filled(array, value):
    """Fill an array with a number, or its largest if it is an integer."""
    if array.dtype.kind == "f" or abs(value) < 100:
        return np.full_like(array, value)
    return np.full_like(array, np.iinfo(array.dtype).max)


def _only(array, section):
    """Keep only a section of floats; flag the rest of integers."""
    result = np.full_like(array, np.nan if array.dtype.kind == "f" else 1)
    result[section] = array[section]
    return result


class Bytes(NamedTuple):
    """Cut a file, change some of its bytes, or replace it."""

    file: str
    how: str
    where: float

    def apply(self, folder):
        path = folder / self.file
        content = bytearray(path.read_bytes())
        place = int(self.where * len(content))
        if self.how == "cut":
            content = content[:place]
        elif self.how == "flip":
            content[place : place + 8] = bytes(255 - each for each in content[place : place + 8])
        elif self.how == "zeros":
            content[place : place + 3000] = bytes(len(content[place : place + 3000]))
        elif self.how == "insert":
            content[place:place] = b"\x00garbage\xff"
        elif self.how == "text":
            content = bytearray(b"<html><body>404: not found</body></html>\n")
        elif self.how == "brackets":
            content = bytearray(b"[" * 3000)
        path.write_bytes(content)


BYTES = ("cut", "flip", "zeros", "insert", "text", "brackets")


class Place(NamedTuple):
    """Replace a file by a folder, by a link to itself, or by nothing."""

    file: str
    how: str

    def apply(self, folder):
        path = folder / self.file
        path.unlink()
        if self.how == "folder":
            path.mkdir()
        elif self.how == "loop":
            path.symlink_to(path.name)
        elif self.how == "pipe":
            path.symlink_to(os.devnull)


PLACES = ("folder", "loop", "pipe", "nothing")


class Entry(NamedTuple):
    """Replace, remove or repeat a value in a JSON file."""

    file: str
    number: int
    value: object
    how: str

    def apply(self, folder):
        path = folder / self.file
        content = json.loads(path.read_text())
        places = list(_walk(content))
        parent, key = places[self.number % len(places)]
        if self.how == "set":
            parent[key] = self.value
        elif self.how == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[f"{key}2"] = parent[key]
        path.write_text(json.dumps(content))


def _walk(node):
    """Yield each parent and key in a tree."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield node, key
        if isinstance(value, dict | list):
            yield from _walk(value)


class Option(NamedTuple):
    """Give an option with a value."""

    name: str
    value: str

    def apply(self, folder):
        """Change no file."""


def edit_fits(path, edit):
    """Change a FITS file in place."""
    with fits.open(path, memmap=False) as hdus:
        hdus = fits.HDUList([hdu.copy() for hdu in hdus])
        for hdu in hdus:
            hdu.data  # noqa: B018 - read it
    edit(hdus)
    hdus.writeto(path, overwrite=True, output_verify="silentfix+ignore")


def faults(files, options):
    """Return a strategy of faults of files, by their extensions, and of options."""
    names = {kind: [f for f in files if f.endswith(kind)] for kind in (".fits", ".json")}
    pick, numbers = st.sampled_from, st.integers(0, 40)
    kinds = [
        st.builds(Bytes, pick(files), pick(BYTES), st.floats(0, 1)),
        st.builds(Place, pick(files), pick(PLACES)),
    ]
    if names[".fits"]:
        file = pick(names[".fits"])
        keyword = st.one_of(pick(KEYWORDS), st.integers(0, 200))
        first = st.one_of(st.just(0), st.just(1), numbers)
        kinds += [
            st.builds(Header, file, first, keyword, pick(VALUES)),
            st.builds(Header, file, st.just(0), pick(KEYWORDS), pick(VALUES)),
            st.builds(Extension, file, numbers, pick(EXTENSIONS)),
            st.builds(Plane, file, numbers, pick(tuple(SHAPES))),
            st.builds(Plane, file, numbers, pick(tuple(CONTENT))),
        ]
    if names[".json"]:
        how = pick(("set", "set", "remove", "repeat"))
        kinds.append(st.builds(Entry, pick(names[".json"]), numbers, pick(ENTRIES), how))
    if options:
        kinds.append(st.builds(Option, pick(options), pick(NUMBERS)))
    return st.one_of(kinds)


def list_files(folder):
    """List the files and links below a folder."""
    return [path for path in Path(folder).rglob("*") if path.is_symlink() or path.is_file()]
