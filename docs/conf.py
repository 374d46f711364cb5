"""Configuration of the documentation."""

import os
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
    "sphinx.ext.autosummary",
    "myst_nb",
    "numpydoc",
    "metric_table",
    "step_arguments",
    "internal_names",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
# Notebooks are kept without outputs, and run when the pages are built; logs are left out.
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
numpydoc_show_class_members = False
# The description of a class comes before its signature, which can be long.
autodoc_class_signature = "separated"
# Names in backticks are links. Our own must resolve; those of other projects do so on Read the Docs
# only, so that the pages can be built without a network.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "astropy": ("https://docs.astropy.org/en/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "asdf": ("https://asdf.readthedocs.io/en/stable", None),
        "jwst": ("https://jwst-pipeline.readthedocs.io/en/stable", None),
        "stdatamodels": ("https://stdatamodels.readthedocs.io/en/latest", None),
        "stpipe": ("https://stpipe.readthedocs.io/en/latest", None),
    }
default_role = "py:obj"
nitpicky = True
_others = (
    "asdf|astropy|astroquery|collections|dataclasses|datetime|distributed|jwst|markupsafe|"
    "matplotlib|numpy|pathlib|scipy|stdatamodels|stpipe|threading"
)
nitpick_ignore_regex = [("py:.*", rf"({_others})\..*")]
# Most blocks are for a shell, or print-outs.
highlight_language = "none"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "header_links_before_dropdown": 5,
    "show_nav_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
# These pages belong to no section, so that their sidebar would be empty.
html_sidebars = dict.fromkeys(("index", "search", "genindex", "py-modindex", "_modules/**"), [])
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "soss_background"
html_show_sourcelink = False
