"""Flux calibration of NIRISS imaging: encircled energy, surface brightness, count rates."""
