"""Subtract the sky from science exposures."""
