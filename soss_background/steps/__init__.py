"""What Step classes share."""
