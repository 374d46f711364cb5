"""Segments: the files of a time series, which is one exposure."""

import gc
import itertools
import logging
import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from jwst.datamodels import ModelLibrary
from stdatamodels.jwst import datamodels
from tqdm import tqdm

from soss_background.errors import SkyflatError
from soss_background.io.bad_pixels import flag_pixels
from soss_background.io.checks import check_metadata
from soss_background.io.exposures import IDENTITY, check_repetition, header_of, root_name
from soss_background.io.library import check_exposure, exposure_planes, find_pixel_fault
from soss_background.numerics.integrations import IntegrationMean

__all__ = [
    "SegmentLibrary",
    "Segments",
    "average_segments",
    "describe_numbers",
    "exposure_name",
    "group_headers",
    "group_segments",
    "progress",
]

log = logging.getLogger(__name__)

# The number of a segment in the name of its file.
_NUMBER = re.compile(r"-seg(\d+)")

# Metadata that all segments of an exposure share, and their keywords.
_SHARED = {
    "meta.subarray.name": "SUBARRAY",
    "meta.instrument.filter": "FILTER",
    "meta.bunit_data": "BUNIT",
    "meta.cal_step.flat_field": "S_FLAT",
    "meta.cal_step.bkg_subtract": "S_BKDSUB",
}


class Segments:
    """
    The segments of an exposure in order of time; one at a time is in memory.

    Parameters
    ----------
    sources : list of `~pathlib.Path` or data models
        The segments.
    headers : list of dict
        Their flattened metadata.
    open_model : callable
        Opens a source: ``open_model(source)`` returns a model that may be changed,
        ``open_model(source, make_copy=False)`` one that must not be changed.
    background : list of `~pathlib.Path` or data models, optional
        Exposures of blank sky that belong to the exposure.

    Attributes
    ----------
    sources, headers, background : list
        See the parameters.
    names : list of str
        File names of the segments.
    name : str
        File name of the exposure, see `exposure_name`: that of its only segment, or that of the
        first without the number of the segment.
    numbers : list of int
        Numbers of the segments in the exposure (EXSEGNUM); their order if these are not known.
    """

    def __init__(self, sources, headers, open_model, background=()):
        self.sources, self.headers, self._open = sources, headers, open_model
        self.background = list(background)
        self.names = [_name(*each) for each in zip(sources, headers, strict=True)]
        self.name = exposure_name(self.names)
        self.numbers = _number_segments(headers)
        self._last, self._bad = (None, None), None

    def flag(self, bad):
        """Flag bad pixels, shape (ny, nx), DO_NOT_USE in all segments when they are read."""
        self.release()
        self._bad = bad

    def __len__(self):
        """Return the number of segments."""
        return len(self.sources)

    def read(self, index):
        """Return a segment that must not be changed; it stays in memory until the next one."""
        is_model = isinstance(self.sources[index], datamodels.JwstDataModel)
        if is_model and self._bad is None:
            return self._open(self.sources[index], make_copy=False)
        if self._last[0] != index:
            self.release()
            self._last = (index, self._load(index))
        return self._last[1]

    def take(self, index):
        """Return a segment that may be changed."""
        last, model = self._last
        self.release()
        if last == index:
            return model
        del model
        return self._load(index)

    def release(self):
        """Drop the segment that was read last from memory."""
        self._last = (None, None)

    def _load(self, index):
        """Open a segment when no other is left in memory."""
        gc.collect()  # data models refer to themselves
        model = self._open(self.sources[index])
        if isinstance(model, datamodels.ReferenceFileModel):
            raise SkyflatError(f"{self.names[index]}: a reference file, not an exposure")
        check_metadata(model)
        if self._bad is not None:
            check_exposure(model)
            self._check_shape(index, model.data.shape[-2:])
        return flag_pixels(self._bad, model)

    def _check_shape(self, index, shape):
        """Raise unless a segment has the pixels that bad pixels are flagged in."""
        if shape != self._bad.shape:
            raise SkyflatError(
                f"{self.names[index]}: its shape is {shape}, that of SUBSIZE2 and SUBSIZE1 "
                f"{self._bad.shape}"
            )

    def library(self):
        """Return the unchanged segments as a `SegmentLibrary`."""
        return SegmentLibrary(self.names, [partial(self.take, i) for i in range(len(self))])


def _number_segments(headers):
    """Return the numbers of segments, or their order if one is missing or repeated."""
    numbers = [header.get("meta.exposure.segment_number") for header in headers]
    known = None not in numbers and len(set(numbers)) == len(numbers)
    return numbers if known else list(range(1, len(numbers) + 1))


def _name(source, header):
    """Return the name of a file, which may have been renamed, or the file name of a model."""
    if isinstance(source, str | Path):
        return Path(source).name
    return header.get("meta.filename") or "model.fits"


class SegmentLibrary(ModelLibrary):
    """
    Segments that are read, and changed, when they are borrowed: one at a time is in memory.

    Changes of a borrowed segment are kept in memory if it is shelved as modified.

    Parameters
    ----------
    names : list of str
        File names of the segments.
    loaders : list of callable
        Functions without arguments that return the segments.
    fit : object, optional
        Result of a fit to the exposure.

    Attributes
    ----------
    names, loaders : list
        See the parameters.
    fit : object
        See the parameter.
    """

    def __init__(self, names, loaders, fit=None):
        members = [{"expname": name, "exptype": "science", "group_id": name} for name in names]
        super().__init__({"products": [{"members": members}]})
        self.names, self.loaders, self.fit = list(names), list(loaders), fit

    def then(self, change, fit=None):
        """Return a library whose segments are also changed by ``change(model)``."""
        return SegmentLibrary(self.names, [_chain(load, change) for load in self.loaders], fit)

    @classmethod
    def join(cls, libraries):
        """Return one library of the segments of several; return a single one unchanged."""
        if len(libraries) == 1:
            return libraries[0]
        parts = ([getattr(each, key) for each in libraries] for key in ("names", "loaders"))
        return cls(*(list(itertools.chain(*part)) for part in parts))

    def unpacked(self):
        """Return the model of a single segment, or the library of several."""
        if len(self) > 1:
            return self
        (model,) = self.visit(lambda model: model, "Reading")
        return model

    def visit(self, function, label):
        """Return the results of a function for each segment, with a labelled progress bar."""
        with self:
            found = [self._visit(index, function) for index in progress(range(len(self)), label)]
        gc.collect()  # data models refer to themselves
        return found

    def _visit(self, index, function):
        """Call a function with a segment without keeping a reference to it."""
        model = self.borrow(index)
        result = function(model)
        self.shelve(model, index, modify=False)
        return result

    def shelve(self, model, index=None, modify=True):
        """Return a segment to the library, which keeps it if ``modify``."""
        index = self._ledger.get(model) if index is None else index
        super().shelve(model, index, modify)
        if not modify:
            del self._loaded_models[index]

    def finalize_result(self, step, reference_files_used):
        """Finalize the segments when they are borrowed."""

        def finalize(model):
            step.finalize_result(model, reference_files_used)
            return model

        self.loaders = [_chain(load, finalize) for load in self.loaders]

    def _load_member(self, index):
        """Load a segment, and change it."""
        return self.loaders[index]()


def _chain(load, change):
    """Return a function that loads and changes a segment."""
    return lambda: change(load())


def progress(items, label, unit="segment"):
    """Return items with a progress bar, unless there is only one or the output is a log file."""
    return tqdm(items, label, unit=unit, disable=True if len(items) < 2 else None)


def group_segments(members, open_model):
    """
    Group segments by exposure.

    Segments of one exposure have the same program, observation, visit, visit group, sequence,
    activity and exposure number, or, without these keywords, the same name except for the number of
    the segment.

    Parameters
    ----------
    members : list of tuple
        Source (`~pathlib.Path` or data model) and list of background exposures of each segment, in
        any order.
    open_model : callable
        See `Segments`.

    Returns
    -------
    exposures : list of Segments
        The exposures in order of time.

    Raises
    ------
    SkyflatError
        If a file cannot be read, a segment is given twice, two have the same file name, or the
        segments of an exposure differ.
    """
    headers, sources, backgrounds = [], [], []
    for source, background in members:
        header = header_of(source)
        headers.append(header | {"name": str(header.get("meta.filename") or source)})
        sources.append(source)
        backgrounds.append(background)
    check_repetition(headers)
    exposures = []
    for indices in group_headers(headers):
        parts = ([each[index] for index in indices] for each in (sources, headers, backgrounds))
        own, known, background = parts
        background = list(dict.fromkeys(itertools.chain(*background)))
        segments = Segments(own, known, open_model, background)
        _check_shared(segments)
        _warn_of_missing(segments)
        exposures.append(segments)
    for name, number in Counter(name for each in exposures for name in each.names).items():
        if number > 1:
            raise SkyflatError(
                f"{number} exposures or segments have the file name {name}: their products would "
                "have one name too"
            )
    return exposures


def exposure_name(names):
    """Return the name of an exposure, from those of its segments in order of time."""
    name = _NUMBER.sub("", names[0])
    if len(names) == 1:
        return names[0]
    return f"all_{name}" if name in names else name


def group_headers(headers):
    """
    Group the segments of each exposure.

    Parameters
    ----------
    headers : list of dict
        Flattened metadata of the segments, with file names as ``name``.

    Returns
    -------
    groups : list of list of int
        Indices of the segments of each exposure; exposures and segments are in order of time.
    """
    groups = defaultdict(list)
    for index, header in enumerate(headers):
        groups[_exposure_key(header)].append(index)
    ordered = [sorted(group, key=lambda i: _time_key(headers[i])) for group in groups.values()]
    return sorted(ordered, key=lambda group: _start(headers[group[0]]))


def _exposure_key(header):
    """Return the values that all segments of an exposure share."""
    numbers = tuple(header.get(key) for key in IDENTITY)
    return numbers if None not in numbers else _NUMBER.sub("", root_name(header["name"]))


def _time_key(header):
    """Return a sort key for a segment of an exposure."""
    keys = ("segment_number", "integration_start", "start_time")
    return (*(header.get(f"meta.exposure.{key}") or 0 for key in keys), header["name"])


def _start(header):
    """Return a sort key for an exposure, from the header of its first segment."""
    return header.get("meta.exposure.start_time") or 0, header["name"]


def _check_shared(segments):
    """Raise unless the segments of an exposure have the same pixels and status."""
    for key, keyword in _SHARED.items():
        values = [header.get(key) for header in segments.headers]
        for value, name in zip(values, segments.names, strict=True):
            if value != values[0]:
                raise SkyflatError(
                    f"{name}: {keyword} is {value}, but {values[0]} in {segments.names[0]}: the "
                    "segments of an exposure must be alike"
                )


def describe_numbers(numbers):
    """Return numbers as a string with ranges, such as "1-3, 5"."""
    ranges = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ranges)


def _warn_of_missing(segments):
    """Warn if segments of an exposure are missing."""
    totals = (header.get("meta.exposure.segment_total") or 1 for header in segments.headers)
    total = max(*totals, *segments.numbers)
    missing = set(range(1, total + 1)) - set(segments.numbers)
    if missing:
        log.warning(
            "%s: %s %s of %d missing (EXSEGNUM, EXSEGTOT)",
            segments.name, "segments" if len(missing) > 1 else "segment",
            describe_numbers(missing), total,
        )  # fmt: skip


def average_segments(segments, measure=None):
    """
    Average the integrations of all segments, in one pass, with one segment in memory.

    Parameters
    ----------
    segments : Segments
        An exposure.
    measure : callable, optional
        Called with each segment that has a usable pixel: ``measure(model)``.

    Returns
    -------
    image : `~stdatamodels.jwst.datamodels.ImageModel`
        The mean, with the metadata of the first segment that has a usable pixel.
    used : list of int
        Indices of the segments that have a usable pixel.

    Raises
    ------
    SkyflatError
        If a segment is not an exposure, their shapes differ, or no pixel is usable.
    """
    mean, faults = _SegmentMean(), {}
    for index in progress(range(len(segments)), "Averaging"):
        if fault := mean.add(segments.read(index)):
            faults[index] = fault
        elif measure is not None:
            measure(segments.read(index))
    if len(faults) == len(segments):
        raise SkyflatError(faults[0])
    for fault in faults.values():
        log.warning("%s: it gets the sky of the other segments", fault)
    return mean.image(segments.name), [i for i in range(len(segments)) if i not in faults]


class _SegmentMean:
    """The mean of segments."""

    _mean = None

    def add(self, model):
        """Add a segment; return why it has no usable pixel, or None."""
        check_exposure(model)
        if fault := find_pixel_fault(model):
            return f"{model.meta.filename}: {fault}"
        planes = exposure_planes(model)
        shape = planes[0].shape[1:]
        if self._mean is None:
            self._mean, self._image = IntegrationMean(shape), datamodels.ImageModel()
            self._image.update(model)
        if shape != self._mean.shape:
            raise SkyflatError(f"{model.meta.filename}: its pixels are not those of the others")
        self._mean.add(*planes)
        return None

    def image(self, name):
        """Return the mean, with the metadata of the first segment that was added."""
        for key, plane in self._mean.planes().items():
            setattr(self._image, key, plane)
        self._image.meta.filename = name
        return self._image
