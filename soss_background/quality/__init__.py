"""Measure the quality of skyflats."""
