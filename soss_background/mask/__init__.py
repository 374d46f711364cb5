"""Mask field stars."""
