"""Combine exposures into a sky."""
