"""Groups of the metrics of spectra, and what to do about a metric out of its range."""

__all__ = ["GUIDE"]

# Advice by metric, in the groups of a report.
GUIDE = {
    "Exposure": {
        "sky_subtracted": "Name a skyflat with skyflat_subtract.skyflat.",
        "sky_misfit": "The sky differs from all skyflats: look at the exposure without its sky, "
        "and use skyflats of a similar pointing and season.",
        "flat_fielded": "Name a flat with flat_field.override_flat, or make CRDS reachable.",
        "bad_pixels": "For comparison with other exposures; it has no range.",
        "bad_fraction": "Check DQ: many pixels are saturated, or flagged in error.",
        "inter_order_mean": "Negative: the sky is too bright; look at the exposure without its "
        "sky. Positive: field stars, or wings of a very bright target.",
        "inter_order_sum": "For comparison with other exposures; it has no range.",
    },
    "Traces": {
        "orders": "The expected trace replaces that of a faint order: check the pupil wheel "
        "position, or lower trace_fit.n_mad.",
        "slices": "For comparison with other exposures; it has no range.",
        "slices_detected": "For comparison with other exposures; it has no range.",
        "slices_clipped": "For comparison with other exposures; it has no range.",
        "slices_crowded": "For comparison with other exposures; it has no range.",
        "detected_fraction": "The target is faint: lower trace_fit.n_mad, or raise "
        "trace_fit.slice_length.",
        "clipped_fraction": "Field stars or bad pixels shift the centroids: look at their "
        "residuals.",
        "residual_x_min": "Look at the residuals of the centroids: a field star shifts them.",
        "residual_x_max": "Look at the residuals of the centroids: a field star shifts them.",
        "residual_x_sd": "The centroids are noisy: raise trace_fit.slice_length.",
        "residual_y_min": "Look at the residuals of the centroids: a field star shifts them.",
        "residual_y_max": "Look at the residuals of the centroids: a field star shifts them.",
        "residual_y_sd": "The centroids are noisy, or the polynomial is too stiff: raise "
        "trace_fit.slice_length or trace_fit.degree.",
    },
    "Spectra": {
        "snr": "The target is faint, or ERR is too large: compare the scatter of the light curves "
        "with their errors.",
        "snr_order_1": "The target is faint, or its trace is wrong: look at the traces.",
        "snr_order_2": "For comparison with other exposures; it has no range.",
        "snr_order_3": "For comparison with other exposures; it has no range.",
        "efficiency": "For comparison with other standards; it has no range.",
    },
}
