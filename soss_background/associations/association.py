"""Association files of exposures that belong together."""

import functools
import glob
import logging
import math
from collections import Counter
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from astropy.table import Table
from tqdm import tqdm

from soss_background.associations.grouping import Exposure, group_exposures
from soss_background.associations.tables import expand_tables
from soss_background.datamodels.exposure_table import describe_exposures, summarize
from soss_background.datamodels.names import (
    OBSERVATION,
    check_path,
    check_product_name,
    product_name,
)
from soss_background.detector import FULL, SUBSTRIP256, SUPERSTRIPES
from soss_background.errors import SkyflatError
from soss_background.io.associations import save_association, save_exposure_association
from soss_background.io.dates import parse_date
from soss_background.io.exposures import (
    REQUIRED,
    find_sky_fault,
    identities,
    read_header,
    root_name,
)
from soss_background.io.files import check_folder, real_path
from soss_background.io.segments import exposure_name, group_headers

__all__ = ["make_associations", "make_background_associations"]

log = logging.getLogger(__name__)

# Keywords that an exposure needs to be grouped: metadata path, keyword, value.
_GROUPED_BY = {
    **REQUIRED,
    **OBSERVATION,
    "meta.observation.date_beg": ("DATE-BEG", None),
}
_FILTER = "meta.instrument.filter"
_PWCPOS = {"meta.instrument.pupil_position": ("PWCPOS", None)}

# Data models of count rates; the first has all integrations and is preferred.
_RATES = ("CubeModel", "ImageModel")


def make_associations(files, directory=".", *, gap_days=1.0, by_pwcpos=None, product_name=None):
    """
    Write an association for each group of exposures that belong to one skyflat.

    Exposures of different filters are not mixed. Only headers are read. Files that are not NIRISS
    SOSS exposures (CLEAR or F277W, GR700XD) are ignored with a warning, and so are those of
    subarrays if there are exposures of the full detector. If an exposure is given as _rate and
    _rateints, the latter is used.

    Parameters
    ----------
    files : str, `~pathlib.Path` or iterable of these
        Exposures, _rate or _rateints, or tables that list them.
    directory : str or `~pathlib.Path`
        Output folder; associations of the same name are replaced.
    gap_days : float
        Longest time from the start of an exposure to that of the next, days.
    by_pwcpos : float, optional
        Largest difference between pupil wheel positions of a group, degrees; unlimited by default.
    product_name : str, optional
        Name of the skyflats, followed by a number if there are several; the pipeline names them
        by default.

    Returns
    -------
    table : `~astropy.table.Table`
        A row for each association: ``program``, ``target``, ``observation``, ``group``, number of
        exposures ``n``, DATE-BEG of the ``first`` and the ``last``, mean ecliptic position
        ``lon`` and ``lat`` in degrees, name of the ``product`` and path of the ``association``.

    Raises
    ------
    SkyflatError
        If a table cannot be read, no exposure can be used, there are several subarrays but not the
        full detector, or a parameter is not valid.
    """
    for name, value, largest in (
        ("gap_days", gap_days, timedelta.max.days),
        ("by_pwcpos", by_pwcpos, 360),
    ):
        if value is not None and not 0 <= value <= largest:
            raise SkyflatError(f"{name} is {value}, not from 0 to {largest}")
    if product_name:
        product_name = product_name.removesuffix(".fits").removesuffix("_skyflat")
        check_product_name(product_name)
    directory = Path(directory)
    check_folder(directory)
    required = _GROUPED_BY if by_pwcpos is None else _GROUPED_BY | _PWCPOS
    read = functools.partial(_read_blank_sky, required=required)
    headers = _choose_subarray(_collect(files, read))
    by_path = {header["path"]: header for header in headers}
    groups = group_exposures(map(_as_exposure, headers), gap_days, by_pwcpos)
    rows = []
    for index, group in enumerate(groups, 1):
        product = {"obs_group": group.number}
        if product_name:
            number = f"_{index:03d}" if len(groups) > 1 else ""
            product["file_name"] = product_name + number
        members = [by_path[exposure.path] for exposure in group.exposures]
        rows.append(_save_group(directory, group, members, product))
    _warn_of_twins(rows)
    _warn_of_strays(rows)
    table = Table(rows=rows, units={"lon": "deg", "lat": "deg"})
    table["lon"].format = table["lat"].format = ".1f"
    return table


def make_background_associations(science, background=(), directory="."):
    """
    Write level-2 associations of science exposures and their background exposures.

    The segments of a time series are members of one product. Of the background, an exposure gets
    the sequence (of one program, target and observation, without a gap) that is nearest in time.
    Exposures of different filters are not mixed. Only headers are read. Files that are not SOSS
    exposures (CLEAR or F277W, GR700XD) are ignored with a warning.

    Parameters
    ----------
    science : iterable of str or `~pathlib.Path`
        Exposures, _rate or _rateints, of any subarray; each gets its own association.
    background : iterable of str or `~pathlib.Path`
        Exposures of blank sky, all of the full detector, of the subarray of the science
        exposures, or of SUBSTRIP256 for superstripes.
    directory : str or `~pathlib.Path`
        Output folder; associations of the same name are replaced.

    Returns
    -------
    table : `~astropy.table.Table`
        A row for each association: the ``science`` exposure, number of its ``segments``, number
        ``n`` of background exposures, time ``dt`` in days from the science exposure to the
        nearest of them (only with a background), and path of the ``association``.

    Raises
    ------
    SkyflatError
        If a table cannot be read, no exposure can be used, two science exposures would get the
        same association, the subarrays differ, or no background has the filter of an exposure.
    """
    directory = Path(directory)
    check_folder(directory)
    required = _GROUPED_BY if background else REQUIRED
    read = functools.partial(_read_rate, required=required)
    sciences = _collect(science, read)
    backgrounds = _collect(background, read, besides=sciences) if background else []
    for header in sciences if backgrounds else []:
        _check_subarrays(header, backgrounds)
    exposures = [[sciences[index] for index in group] for group in group_headers(sciences)]
    names = [exposure_name([header["path"].name for header in each]) for each in exposures]
    paths = [directory / f"{root_name(name)}_spec2_asn.json" for name in names]
    for path, number in Counter(paths).items():
        if number > 1:
            raise SkyflatError(f"{path}: the association of {number} science exposures")
    if backgrounds:
        _check_filters([segments[0] for segments in exposures], backgrounds)
    rows = []
    for path, name, segments in zip(paths, names, exposures, strict=True):
        members, delay = _choose_background(segments[0], backgrounds)
        save_exposure_association(path, segments, members)
        row = {"science": name, "segments": len(segments), "n": len(members)} | delay
        rows.append(row | {"association": str(path)})
    return Table(rows=rows)


def _choose_background(science, backgrounds):
    """Return the sequence nearest in time to an exposure, and the column of the time between."""
    if not backgrounds:
        return [], {}
    backgrounds = [each for each in backgrounds if each[_FILTER] == science[_FILTER]]
    if not backgrounds:
        return [], {"dt": math.nan}
    start = _as_exposure(science).start

    def days(group):
        return min(abs(exposure.start - start) for exposure in group.exposures) / timedelta(days=1)

    nearest = min(group_exposures(map(_as_exposure, backgrounds)), key=days)
    paths = [exposure.path for exposure in nearest.exposures]
    return [each for each in backgrounds if each["path"] in paths], {"dt": round(days(nearest), 2)}


def _choose_subarray(headers):
    """Return the headers of one subarray, the full detector if there are several."""
    names = sorted({header["meta.subarray.name"] for header in headers})
    if len(names) == 1:
        return headers
    if FULL.name not in names:
        raise SkyflatError(f"exposures of {' and '.join(names)}: give those of one subarray")
    for header in headers:
        if header["meta.subarray.name"] != FULL.name:
            _leave_out(f"{header['name']}: SUBARRAY is {header['meta.subarray.name']}, not FULL")
    return [header for header in headers if header["meta.subarray.name"] == FULL.name]


def _check_filters(sciences, backgrounds):
    """Warn of science exposures without a background of their filter; raise if none has one."""
    filters = {header[_FILTER] for header in backgrounds}
    lacking = [header for header in sciences if header[_FILTER] not in filters]
    faults = [
        f"{header['name']}: FILTER is {header[_FILTER]}, but {', '.join(sorted(filters))} in the "
        "background"
        for header in lacking
    ]
    if len(lacking) == len(sciences):
        raise SkyflatError(faults[0])
    for fault in faults:
        log.warning("%s: its association has no background", fault)


def _check_subarrays(science, backgrounds):
    """Raise unless the background is of the full detector, or of the pixels of the science."""
    own = science["meta.subarray.name"]
    others = {header["meta.subarray.name"] for header in backgrounds}
    allowed = {own, FULL.name} | ({SUBSTRIP256.name} if own in SUPERSTRIPES else set())
    if len(others) > 1 or not others <= allowed:
        raise SkyflatError(
            f"{science['name']}: SUBARRAY is {own}, but {', '.join(sorted(others))} in the "
            "background"
        )


def _save_group(directory, group, headers, product):
    """Write the association of a group; return its row of the table."""
    program, target, observation, filter_name = group.observation
    summary, file_name = _describe(headers, product)
    # Quote the keywords: slashes in them must not lead out of the folder.
    place = "jw{}-o{}_{}".format(
        *(quote(part, safe="+") for part in (program, observation, target))
    )
    if filter_name != "CLEAR":
        place += f"_{filter_name.lower()}"
    path = directory / f"{place}_{group.number:03d}_skyflat_asn.json"
    save_association(
        path,
        [header["path"] for header in headers],
        file_name.removesuffix("_skyflat.fits"),
        program=program,
        target=target,
        observation=observation,
        **product,
    )
    return {
        "program": program,
        "target": target,
        "observation": observation,
        "group": f"{group.number:03d}",
        "n": len(headers),
        "first": headers[0]["meta.observation.date_beg"],
        "last": headers[-1]["meta.observation.date_beg"],
        "lon": summary["ecliptic_lon"],
        "lat": summary["ecliptic_lat"],
        "product": file_name,
        "association": str(path),
    }


def _describe(headers, product):
    """Return the mean ecliptic position and the name of a skyflat."""
    summary = summarize(describe_exposures(headers))
    return summary, product_name(summary, headers, product)


def _warn_of_twins(rows):
    """Warn of groups whose skyflats would replace each other."""
    for name, number in Counter(row["product"] for row in rows).items():
        if number > 1:
            log.warning("%s is the name of %d products: give --product-name", name, number)


def _warn_of_strays(rows):
    """Warn of associations of other groupings in the same folder."""
    written = {Path(row["association"]) for row in rows}
    for path in written:
        stem = path.name.removesuffix("_skyflat_asn.json")[:-3]
        for other in path.parent.glob(f"{glob.escape(stem)}???_skyflat_asn.json"):
            if other not in written:
                log.warning("%s belongs to a different grouping", other)


def _collect(files, read, besides=()):
    """Read the headers of files; warn of files that are unfit or given twice."""
    paths = dict.fromkeys(expand_tables(files))
    headers = {}
    for path in tqdm(paths, "Reading headers", unit="file", disable=None):
        try:
            check_path(str(path))
            place = real_path(path)
            if place not in headers:
                headers[place] = read(path)
        except SkyflatError as err:
            _leave_out(err)
    headers, twins = _part_twins(headers.values(), besides)
    for reason in twins:
        _leave_out(reason)
    if not headers:
        raise SkyflatError(f"no usable exposure (files: {len(paths)})")
    return headers


def _leave_out(reason):
    """Warn of a file that is not used."""
    log.warning("Left out: %s", reason)


def _part_twins(headers, besides):
    """Keep each exposure once, preferably with all its integrations."""
    seen = {identity: header["name"] for header in besides for identity in identities(header)}
    taken, reasons = [], []
    for header in sorted(headers, key=_preference):
        own = list(identities(header))
        twin = next((seen[identity] for identity in own if identity in seen), None)
        if twin is None:
            taken.append(header)
            seen |= dict.fromkeys(own, header["name"])
        else:
            reasons.append(f"{header['name']}: the same exposure as {twin}, which is used")
    return taken, reasons


def _preference(header):
    """Return a sort key that places integrations before their mean."""
    return _RATES.index(header["meta.model_type"]), str(header["path"])


def _read_rate(path, required=REQUIRED):
    """Read the header of a file; raise if it is not a SOSS exposure."""
    header = read_header(path) | {"name": str(path), "path": path}
    kind, fault = header.get("meta.model_type"), find_sky_fault(header, required)
    if not fault and kind not in _RATES:
        fault = f"{kind}, neither _rate nor _rateints"
    if fault:
        raise SkyflatError(f"{path}: {fault}")
    return header


def _read_blank_sky(path, required):
    """Read the header of an exposure; raise if it cannot be grouped."""
    header = _read_rate(path, required)
    try:
        _as_exposure(header)
        _describe([header], {})
    except SkyflatError:
        raise
    except (TypeError, ValueError) as err:
        raise SkyflatError(f"{path}: a keyword has an invalid value ({err})") from err
    return header


def _as_exposure(header):
    """Return the keywords that assign an exposure to a group."""
    observation = tuple(str(header[key]) for key in (*OBSERVATION, _FILTER))
    start = parse_date(str(header["meta.observation.date_beg"]))
    pwcpos = header.get("meta.instrument.pupil_position")
    return Exposure(observation, start, header["path"], None if pwcpos is None else float(pwcpos))
