"""Denoise a sky."""
