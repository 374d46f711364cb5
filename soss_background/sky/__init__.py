"""Properties of the sky: its edge, levels and templates, and the positions of traces."""
