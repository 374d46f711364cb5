"""Configuration of the documentation."""

import sys
from pathlib import Path

import soss_background

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "soss_background"
author = "The soss_background developers"
version = release = soss_background.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "myst_nb",
    "numpydoc",
    "step_arguments",
]
exclude_patterns = ["_build"]
# Notebooks are kept without outputs, and run when the pages are built; logs are left out.
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
numpydoc_show_class_members = False
# References inside these pages are checked; other projects' classes are named, not linked.
html_theme = "pydata_sphinx_theme"
html_title = "soss_background"
html_show_sourcelink = False
