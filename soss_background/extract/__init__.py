"""Extract spectra from exposures without sky."""
