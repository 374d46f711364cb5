"""Extract spectra from sky-subtracted exposures."""
