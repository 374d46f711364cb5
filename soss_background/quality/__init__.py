"""How good skyflats are."""
