"""Take the sky out of science exposures."""
