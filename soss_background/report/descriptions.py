"""Skyflats in words: what a report tells of one."""

import numpy as np
from astropy.time import Time

from soss_background.steps.qc import FAIL, NO_RANGE, PASS, read_text

__all__ = ["describe_exposure", "describe_metric", "describe_skyflat", "judge"]


def describe_skyflat(model):
    """
    Tell what a skyflat shows, and what it was made of and with.

    Parameters
    ----------
    model : `~soss_background.SkyflatModel`
        The skyflat.

    Returns
    -------
    facts, versions : dict of str
        What is known of it.
    """
    sky, meta = model.meta.skyflat, model.meta
    facts = {
        "Program": meta.observation.program_number,
        "Target": meta.target.proposer_name,
        "Observation": meta.observation.observation_number,
        "Date": meta.observation.date,
        "Ecliptic longitude": _format(sky.ecliptic_lon, ".2f", "°"),
        "Ecliptic latitude": _format(sky.ecliptic_lat, ".2f", "°"),
        "Day of the year": sky.day,
        "Subarray": meta.subarray.name,
        "Pupil wheel": _format(meta.instrument.pupil_position, ".3f", "°"),
        "Exposures combined": sky.n_samples,
        "Flat-field correction": sky.flat_correction,
    }
    versions = {
        "Association": meta.asn.table_name,
        "Flat": meta.ref_file.flat.name,
        "Author": meta.author,
        "Made (UTC)": meta.date,
        "soss_background": sky.software_version,
        "jwst": meta.calibration_software_version,
        "CRDS": meta.ref_file.crds.sw_version,
        "CRDS context": meta.ref_file.crds.context_used,
    }
    return _known(facts), _known(versions)


def _known(values):
    """Leave out what is not known."""
    return {key: str(value) for key, value in values.items() if value is not None}


def _format(value, form, unit=""):
    """Write a number, None if there is none."""
    return None if value is None or np.isnan(value) else f"{value:{form}}{unit}"


def describe_metric(row):
    """
    Make a metric ready for people.

    Parameters
    ----------
    row : numpy.void
        A row of QC.

    Returns
    -------
    metric : dict
        Its name, value, unit, range, flag and comment.
    """
    known = not np.isnan(row["low"])
    return {
        "name": read_text(row["name"]),
        "value": float(row["value"]),
        "unit": read_text(row["unit"]),
        "range": f"{row['low']:g} to {row['high']:g}" if known else "",
        "flag": read_text(row["flag"]),
        "comment": read_text(row["comment"]),
    }


def judge(metrics, faults):
    """
    Tell how many metrics are in range.

    Parameters
    ----------
    metrics : list of dict
        See `describe_metric`.
    faults : list of str
        Those that are not, see `soss_background.steps.qc.failures`.

    Returns
    -------
    verdict : str
        Their number, and the faults.
    flag : {"pass", "fail", "no range"}
        Whether all are in range.
    """
    passed = sum(row["flag"] == PASS for row in metrics)
    judged = passed + sum(row["flag"] == FAIL for row in metrics)
    if not judged:
        return "The quality has not been measured", NO_RANGE
    words = "; ".join([f"{passed} of {judged} metrics are within their range", *faults])
    return words, FAIL if faults else PASS


def describe_exposure(row):
    """
    Make an exposure ready for people.

    Parameters
    ----------
    row : numpy.void
        A row of METADATA.

    Returns
    -------
    exposure : dict
        Its name, time, number of integrations, level, unused part, deviation, and whether it was
        used.
    """
    names = row.dtype.names
    used = bool(row["used"])
    reason = read_text(row["reason"]) if "reason" in names else ""
    mid_time = Time(row["mid_time_mjd"], format="mjd") if row["mid_time_mjd"] > 0 else None
    return {
        "exposure": read_text(row["filename"]),
        "mid-time (UTC)": "" if mid_time is None else mid_time.strftime("%Y-%m-%d %H:%M"),
        "integrations": int(row["nints"]),
        "level": _format(row["scale"], ".4f") or "",
        "not used": _format(100 * row["masked_fraction"], ".1f", " %") or "",
        "deviation": _format(row["deviation"], ".2f", " %") or "" if "deviation" in names else "",
        "decision": "used" if used else f"not used: {reason}".rstrip(": "),
    }
