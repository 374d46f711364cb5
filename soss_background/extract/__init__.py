"""From an exposure without its sky to spectra."""
