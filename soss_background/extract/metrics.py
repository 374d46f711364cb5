"""Metrics of the spectra of an exposure, and their definitions."""

import numpy as np
from astropy.stats import mad_std

from soss_background.datamodels.quality_table import FRACTION
from soss_background.extract.inter_order import free_pixels
from soss_background.steps.metric_ranges import Metric

__all__ = [
    "METRICS",
    "compare_scatter",
    "list_metrics",
    "measure_frame",
    "measure_spectra",
    "measure_steps",
    "measure_traces",
    "sum_light",
]

# Fewest integrations whose scatter is measured.
_FEWEST = 10

# Least distance of pixels between the orders from a trace, pixels.
_FREE = 30

# The default ranges are wide, since they are meant to detect failures. Wings of bright stars
# between the orders reach some 10 DN/s; a sky of 5 DN/s that is subtracted 10 % too bright
# leaves -0.5.
METRICS = {
    "sky_subtracted": Metric("", (1, 1), "1 if the sky was subtracted"),
    "sky_misfit": Metric(
        "", (0, 3), "rms deviation of the sky from its prior, in units of the expected rms"
    ),
    "flat_fielded": Metric("", (1, 1), "1 if the exposure was divided by the flat"),
    "bad_pixels": Metric("", None, "number of unusable pixels in all integrations"),
    "bad_fraction": Metric(FRACTION, (0, 0.1), "fraction of all pixels that are unusable"),
    "inter_order_mean": Metric("DN/s", (-0.5, 50), "mean count rate between the orders"),
    "inter_order_sum": Metric("DN/s", None, "sum of the count rates between the orders"),
    "orders": Metric("", (2, 3), "number of orders with a trace"),
    "slices": Metric("", None, "number of slices of all orders"),
    "slices_detected": Metric("", None, "number of slices that show a trace"),
    "slices_clipped": Metric("", None, "number of slices that were clipped from the fit"),
    "slices_crowded": Metric("", None, "number of slices near another order"),
    "detected_fraction": Metric(
        FRACTION, (0.4, 1), "fraction of the uncrowded slices that show a trace"
    ),
    "clipped_fraction": Metric(
        FRACTION, (0, 0.3), "fraction of the detected slices that were clipped"
    ),
    "residual_x_min": Metric("pixels", (-1, 0), "trace residuals along x, minimum"),
    "residual_x_max": Metric("pixels", (0, 1), "trace residuals along x, maximum"),
    "residual_x_sd": Metric("pixels", (0, 0.3), "trace residuals along x, standard deviation"),
    "residual_y_min": Metric("pixels", (-2, 0), "trace residuals along y, minimum"),
    "residual_y_max": Metric("pixels", (0, 2), "trace residuals along y, maximum"),
    "residual_y_sd": Metric("pixels", (0, 0.5), "trace residuals along y, standard deviation"),
    "snr": Metric("", (3, np.inf), "median SNR of a column in an integration, all orders"),
    "snr_order_1": Metric("", (5, np.inf), "median SNR of order 1"),
    "snr_order_2": Metric("", None, "median SNR of order 2"),
    "snr_order_3": Metric("", None, "median SNR of order 3"),
    "efficiency": Metric(FRACTION, None, "median fraction of the photons that is detected"),
}

# Ranges of subarrays that differ from the defaults. SUBSTRIP96 holds too little of order 2 to find
# its trace, and observes the brightest stars, whose wings fill it.
_OF_SUBARRAY = {"SUBSTRIP96": {"orders": (1, 3), "inter_order_mean": (-0.5, 200)}}


def list_metrics(subarray):
    """Return the definitions of the metrics with the default ranges of a subarray."""
    own = _OF_SUBARRAY.get(subarray, {})
    return METRICS | {name: METRICS[name]._replace(limits=limits) for name, limits in own.items()}


def measure_steps(exposure):
    """Return whether the sky was subtracted (1 or 0), its misfit, and the same for the flat."""
    done, fit = exposure.meta.cal_step, getattr(exposure.meta, "skyflat_subtract", None)
    sky, flat = (state == "COMPLETE" for state in (done.bkg_subtract, done.flat_field))
    misfit = None if fit is None else fit.skymisft
    return {"sky_subtracted": int(sky), "sky_misfit": misfit, "flat_fielded": int(flat)}


def measure_frame(mean, apertures, rows):
    """
    Measure bad pixels, and the light between the orders.

    Parameters
    ----------
    mean : ndarray of float, shape (ny, nx)
        Mean of the integrations without sky, DN/s; NaN in reference pixels, and where there is no
        measurement.
    apertures : `~soss_background.extract.frames.Apertures`
        The integrations, whose bad pixels are counted.
    rows : list of ndarray, each of shape (nx,)
        Row of the trace of each order in each column; NaN beyond it.

    Returns
    -------
    values : dict
        Count and fraction of bad pixels of all integrations, and mean and sum between the orders
        (DN/s), by metric.
    """
    free = free_pixels(mean.shape, rows, _FREE) & np.isfinite(mean)
    between = mean[free]
    return {
        "bad_pixels": apertures.bad,
        "bad_fraction": apertures.bad / apertures.total,
        "inter_order_mean": np.mean(between) if between.size else np.nan,
        "inter_order_sum": np.sum(between),
    }


def measure_traces(slices, traces):
    """Return counts of slices, and statistics of their residuals (pixels), by metric."""
    used, detected = slices["used"] == 1, slices["detected"] == 1
    total, found = len(slices), np.count_nonzero(detected)
    alone = np.count_nonzero(slices["crowded"] == 0)
    clipped = np.count_nonzero(detected & ~used)
    values = {
        "orders": len(set(slices["order"][used])),
        "slices": total,
        "slices_detected": found,
        "slices_clipped": clipped,
        "slices_crowded": total - alone,
        "detected_fraction": found / max(alone, 1),
        "clipped_fraction": clipped / max(found, 1),
    }
    for axis, residuals in zip("xy", _residuals(slices[used], traces), strict=True):
        for name, statistic in (("min", np.min), ("max", np.max), ("sd", np.std)):
            value = statistic(residuals) if residuals.size else np.nan
            values[f"residual_{axis}_{name}"] = value
    return values


def _residuals(slices, traces):
    """Return the shortest offsets of centroids from their traces, along x and y, pixels."""
    slope = np.zeros(len(slices))
    for order in set(slices["order"]):
        mine = traces[traces["order"] == order]
        steep = np.gradient(mine["row"], mine["column"])
        here = slices["order"] == order
        slope[here] = np.interp(slices["column"][here], mine["column"], steep)
    across = slices["residual"] / (1 + slope**2)
    return -slope * across, across


def measure_spectra(orders, efficiency=None):
    """Return median SNRs of a column of an integration, and the median efficiency, by metric."""
    ratios = {order: (each.flux / each.error).ravel() for order, each in orders.items()}
    known = {order: ratio[np.isfinite(ratio)] for order, ratio in ratios.items()}
    values = {"snr": _median(np.concatenate(list(known.values())))}
    values |= {f"snr_order_{order}": _median(ratio) for order, ratio in known.items()}
    if efficiency is not None:
        values["efficiency"] = _median(efficiency[np.isfinite(efficiency)])
    return values


def sum_light(extraction):
    """
    Sum the flux of all columns of an order.

    Parameters
    ----------
    extraction : `~soss_background.extract.optimal.Extraction`
        The spectra.

    Returns
    -------
    light, error : ndarray of float, shape (nints,)
        Flux of the columns that all integrations show, relative to the median, and its
        uncertainty; NaN in integrations without flux, and everywhere if the median is not positive.
    """
    flux = extraction.flux
    seen = np.isfinite(flux).any(axis=1)
    whole = np.isfinite(flux[seen]).all(axis=0)
    light = np.where(seen, np.sum(np.nan_to_num(flux[:, whole]), axis=1), np.nan)
    level = _median(light[seen])
    error = np.sqrt(np.sum(np.nan_to_num(extraction.error[:, whole]) ** 2, axis=1))
    if not level > 0:
        return np.full((2, len(flux)), np.nan)
    return light / level, np.where(seen, error, np.nan) / level


def compare_scatter(extraction):
    """
    Compare the scatter of a light curve with its errors.

    Parameters
    ----------
    extraction : `~soss_background.extract.optimal.Extraction`
        The spectra.

    Returns
    -------
    scatter, error : float
        Standard deviation of the flux of all columns, from differences of successive integrations,
        which a transit hardly changes, and its median error; fractions of the flux. NaN for fewer
        than ten integrations, whose scatter is too uncertain, and without flux.
    """
    light, error = sum_light(extraction)
    light, error = light[np.isfinite(light)], error[np.isfinite(error)]
    if len(light) < _FEWEST:
        return np.nan, np.nan
    return mad_std(np.diff(light)) / np.sqrt(2), np.median(error)


def _median(values):
    """Return the median, or NaN if there are no values."""
    return np.median(values) if values.size else np.nan
