"""Numbers that tell how good the spectra of an exposure are."""

import numpy as np

from soss_background.extract.inter_order import free_pixels
from soss_background.steps.qc import Metric

__all__ = ["measure_frame", "measure_spectra", "measure_steps", "measure_traces"]

# Pixels nearer to a trace are not between the orders.
_FREE = 30


def measure_steps(exposure):
    """
    Tell what was done to an exposure.

    Parameters
    ----------
    exposure : data model
        The exposure that spectra were extracted of.

    Returns
    -------
    metrics : list of `~soss_background.steps.qc.Metric`
        1 for what was done, 0 for what was not.
    """
    done = exposure.meta.cal_step
    sky, flat = (state == "COMPLETE" for state in (done.bkg_subtract, done.flat_field))
    return [
        Metric("sky_subtracted", int(sky), "", "1 if the sky was subtracted"),
        Metric("flat_fielded", int(flat), "", "1 if the exposure was divided by the flat"),
    ]


def measure_frame(image, good, rows, reference):
    """
    Measure bad pixels, and what is left between the orders.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        Mean of the integrations without sky, DN/s; NaN where there is no measurement.
    good : ndarray of bool, shape (nints, ny, nx)
        True for pixels that hold a measurement.
    rows : sequence of ndarray, shape (nx,)
        Rows of the traces.
    reference : ndarray of bool, shape (ny, nx)
        True for reference pixels, which do not count.

    Returns
    -------
    metrics : list of `~soss_background.steps.qc.Metric`
        The numbers.
    """
    science = good[:, ~reference]
    bad = science.size - np.count_nonzero(science)
    free = free_pixels(image.shape, rows, _FREE) & np.isfinite(image) & ~reference
    between = image[free]
    mean = np.mean(between) if between.size else np.nan
    return [
        Metric("bad_pixels", bad, "", "pixels of all integrations that cannot be used"),
        Metric("bad_fraction", bad / science.size, "", "their part of all pixels"),
        Metric("inter_order_mean", mean, "DN/s", "mean between the orders"),
        Metric("inter_order_sum", np.sum(between), "DN/s", "sum between the orders"),
    ]


def measure_traces(slices, traces):
    """
    Measure how well the traces were found.

    Parameters
    ----------
    slices, traces : ndarray
        See `~soss_background.SossTracesModel`.

    Returns
    -------
    metrics : list of `~soss_background.steps.qc.Metric`
        The numbers. A residual is the shortest way from a centroid to the trace.
    """
    used, detected = slices["used"] == 1, slices["detected"] == 1
    total, found = len(slices), np.count_nonzero(detected)
    alone = np.count_nonzero(slices["crowded"] == 0)
    clipped = np.count_nonzero(detected & ~used)
    metrics = [
        Metric("orders", len(set(slices["order"][used])), "", "orders of which a trace was found"),
        Metric("slices", total, "", "slices of all orders"),
        Metric("slices_detected", found, "", "slices that show a trace"),
        Metric("slices_clipped", clipped, "", "slices that were left out of the fit"),
        Metric("slices_crowded", total - alone, "", "slices that another order comes near"),
        Metric("detected_fraction", found / max(alone, 1), "", "part of the others with a trace"),
        Metric("clipped_fraction", clipped / max(found, 1), "", "part of these that was left out"),
    ]
    for axis, values in zip("xy", _residuals(slices[used], traces), strict=True):
        for name, statistic in (("min", np.min), ("max", np.max), ("sd", np.std)):
            value = statistic(values) if values.size else np.nan
            comment = f"trace residuals along {axis}, {name}"
            metrics.append(Metric(f"residual_{axis}_{name}", value, "pixels", comment))
    return metrics


def _residuals(slices, traces):
    """Split the distances of centroids from their traces along x and y."""
    slope = np.zeros(len(slices))
    for order in set(slices["order"]):
        mine = traces[traces["order"] == order]
        steep = np.gradient(mine["row"], mine["column"])
        here = slices["order"] == order
        slope[here] = np.interp(slices["column"][here], mine["column"], steep)
    across = slices["residual"] / (1 + slope**2)
    return -slope * across, across


def measure_spectra(orders, efficiency=None):
    """
    Measure the spectra.

    Parameters
    ----------
    orders : dict
        For each order its `~soss_background.extract.optimal.Extraction`.
    efficiency : ndarray, optional
        Part of the photons that were detected, if it is known.

    Returns
    -------
    metrics : list of `~soss_background.steps.qc.Metric`
        The numbers: signal-to-noise ratios of a column of one integration, and the efficiency.
    """
    ratios = {order: (each.flux / each.error).ravel() for order, each in orders.items()}
    known = {order: ratio[np.isfinite(ratio)] for order, ratio in ratios.items()}
    metrics = [Metric("snr", _median(np.concatenate(list(known.values()))), "", "median SNR, all")]
    metrics += [
        Metric(f"snr_order_{order}", _median(ratio), "", f"median SNR of order {order}")
        for order, ratio in known.items()
    ]
    if efficiency is None:
        return metrics
    value = _median(efficiency[np.isfinite(efficiency)])
    return [*metrics, Metric("efficiency", value, "", "median part of the photons detected")]


def _median(values):
    """Take a median; NaN of nothing."""
    return np.median(values) if values.size else np.nan
