"""What is known about the sky: its edge, levels, templates, and where traces fall."""
