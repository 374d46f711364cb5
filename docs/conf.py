"""Configuration of the documentation."""

import soss_background

project = "soss_background"
author = "The soss_background developers"
version = release = soss_background.__version__
extensions = ["sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
numpydoc_show_class_members = False
