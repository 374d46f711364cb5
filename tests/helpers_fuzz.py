"""Faults of files, associations and parameters, drawn at random for the fuzz test."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from hypothesis import strategies as st
from numpy.lib import recfunctions as rfn

from soss_background.io.opening import is_fits

# Numbers of extensions and entries, taken modulo the number of existing ones.
NUMBER = st.integers(0, 40)
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
NUMBERS = (
    "nan", "inf", "-inf", "-1", "0", "0.5", "3", "60", "1e9", "1e-9", "1e400", "abc", "", "''",
    "[]", "nan,nan", "5,inf", "3,2", "0,1e9",
)  # fmt: skip
TEXTS = (
    "", "abc", "José", "a b", "a\nb", "[", "*", "..", "a" * 300, "%s", "{0}", "None", "true", ",",
    "a,b", "out", "visit_asn.json", "flat.fits", "bad.csv", "1_skyflat.fits",
    "series_rateints.fits",
)  # fmt: skip
# Values of words of text files and of ASDF trees.
WORDS = (
    "",
    "abc",
    "nan",
    "-inf",
    "-1",
    "0",
    "1e9",
    "1e400",
    "null",
    "[]",
    "{a: 1}",
    "é",
    "\0",
    "1,2",
)
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
    """Change shape, type or values of an extension's data, or of all images of a file."""

    file: str
    hdu: int | None
    how: str

    def apply(self, folder):
        change = (SHAPES | CONTENT)[self.how]

        def edit(hdus):
            images = [hdu for hdu in hdus if hdu.is_image]
            for hdu in images if self.hdu is None else [hdus[self.hdu % len(hdus)]]:
                if isinstance(hdu, fits.BinTableHDU):
                    hdu.data = _change_table(hdu.data, self.how)
                elif hdu.data is not None and hdu.data.ndim > 1:
                    hdu.data = np.ascontiguousarray(change(hdu.data))

        edit_fits(folder / self.file, edit)


def _change_table(table, how):
    """Remove rows or a column of a table, or fill its numbers and strings."""
    array = np.array(table)
    names = array.dtype.names
    if how == "fewer columns" and names and len(names) > 1:
        return rfn.drop_fields(array, names[len(array) % len(names)])
    if how in SHAPES or not names:
        return array[: len(array) // 2] if how != "flat" else array[:0]
    for name in names:
        if array[name].dtype.kind in "fiu":
            array[name] = CONTENT[how](array[name].astype("f4")).astype(array[name].dtype)
        elif how == "0":
            array[name] = "0"
    return array


def _filled(array, value):
    """Fill an array with a number; integer arrays with their largest value."""
    if array.dtype.kind == "f" or abs(value) < 100:
        return np.full_like(array, value)
    return np.full_like(array, np.iinfo(array.dtype).max)


def _only(array, section):
    """Keep a section of the values; the others become NaN, or flags in integer arrays."""
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


class Word(NamedTuple):
    """Replace a word of a text file, or of the ASDF tree of a FITS file."""

    file: str
    number: int
    value: str

    def apply(self, folder):
        path = folder / self.file
        if path.suffix == ".fits":
            edit_fits(path, self._edit_tree)
        else:
            path.write_bytes(self._change(path.read_bytes()))

    def _edit_tree(self, hdus):
        tree = self._change(hdus["ASDF"].data["ASDF_METADATA"].tobytes())
        data = np.frombuffer(tree, [("ASDF_METADATA", "u1", len(tree))])
        hdus["ASDF"] = fits.BinTableHDU(data, name="ASDF")

    def _change(self, content):
        words = list(re.finditer(rb"[^\s,:{}\[\]\"']+", content))
        word = words[self.number % len(words)]
        return content[: word.start()] + self.value.encode() + content[word.end() :]


class Swap(NamedTuple):
    """Replace a file by another one of the run."""

    file: str
    other: str

    def apply(self, folder):
        shutil.copy(folder / self.other, folder / self.file)


class Output(NamedTuple):
    """Replace the folder of the products by a file or a link to itself, or remove it."""

    how: str

    def apply(self, folder):
        path = folder / "out"
        path.rmdir()
        if self.how == "file":
            path.write_text("a file\n")
        elif self.how == "loop":
            path.symlink_to(path.name)


OUTPUTS = ("file", "loop", "nothing")
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
    """Replace, remove or repeat a value in a JSON file, once or 5000 times."""

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
            parent.extend([parent[key]] * (1 if self.how == "repeat" else 5000))
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
    """Return a strategy of one or two faults of files, by their extensions, and of options."""
    kinds = [st.builds(Output, st.sampled_from(OUTPUTS))]
    if options:
        kinds.append(st.sampled_from(options).flatmap(_option_faults))
    if files:
        kinds += _file_faults(files) + _fits_faults([f for f in files if is_fits(f)])
    if tables := [file for file in files if file.endswith(".json")]:
        how = st.sampled_from(("set", "set", "set", "remove", "repeat", "flood"))
        kinds.append(
            st.builds(Entry, st.sampled_from(tables), NUMBER, st.sampled_from(ENTRIES), how)
        )
    return st.lists(st.one_of(kinds), min_size=1, max_size=2)


def _option_faults(option):
    """Return a strategy of values of an option, drawn from the given ones."""
    name, values = option
    return st.builds(Option, st.just(name), st.sampled_from(values))


def _file_faults(files):
    """Return strategies of faults of files of any kind."""
    pick = st.sampled_from
    return [
        st.builds(Bytes, pick(files), pick(BYTES), st.floats(0, 1)),
        st.builds(Place, pick(files), pick(PLACES)),
        st.builds(Swap, pick(files), pick(files)),
        st.builds(Word, pick(files), st.integers(0, 1000), pick(WORDS)),
    ]


def _fits_faults(files):
    """Return strategies of faults of FITS files."""
    if not files:
        return []
    pick = st.sampled_from
    keyword = st.one_of(pick(KEYWORDS), st.integers(0, 200))
    first = st.one_of(st.just(0), st.just(1), NUMBER)
    planes = st.one_of(st.none(), NUMBER, NUMBER)
    return [
        st.builds(Header, pick(files), first, keyword, pick(VALUES)),
        st.builds(Header, pick(files), st.just(0), pick(KEYWORDS), pick(VALUES)),
        st.builds(Extension, pick(files), NUMBER, pick(EXTENSIONS)),
        st.builds(Plane, pick(files), planes, pick(tuple(SHAPES))),
        st.builds(Plane, pick(files), planes, pick(tuple(CONTENT))),
    ]


def list_files(folder):
    """List the files and links below a folder."""
    return [path for path in Path(folder).rglob("*") if path.is_symlink() or path.is_file()]
