"""Algorithms on arrays."""
