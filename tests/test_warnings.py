"""Warnings that fail the tests with the configuration of pyproject.toml."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A package that uses something deprecated, and one that deprecates it.
OTHERS = {
    "deprecating.py": """
import warnings
def old(kind):
    warnings.warn("old is deprecated", kind, stacklevel=2)
""",
    "using.py": """
import warnings
from deprecating import old
def use(kind):
    old(kind)
""",
}

SAMPLE = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
import pytest
from astropy.utils.exceptions import AstropyDeprecationWarning, AstropyUserWarning
from deprecating import old
from using import use

class TheirDeprecation(AstropyDeprecationWarning):
    pass

DEPRECATIONS = [DeprecationWarning, PendingDeprecationWarning, FutureWarning, TheirDeprecation]

@pytest.mark.parametrize("kind", DEPRECATIONS)
def test_theirs(kind):
    use(kind)

@pytest.mark.parametrize("kind", DEPRECATIONS)
def test_ours(kind):
    old(kind)

@pytest.mark.parametrize("kind", [UserWarning, RuntimeWarning, AstropyUserWarning])
def test_data(kind):
    use(kind)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run the sample with the real configuration; return the names of tests by outcome."""
    folder = tmp_path_factory.mktemp("sample")
    for name, text in OTHERS.items():
        (folder / name).write_text(text)
    sample = folder / "test_sample.py"
    sample.write_text(SAMPLE.format(folder=str(folder)))
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", folder, "-p", "no:cacheprovider", "-rA"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, sample],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    lines = re.findall(r"^(PASSED|FAILED) \S+::(\w+)\[", done.stdout, re.MULTILINE)
    return {outcome: [name for found, name in lines if found == outcome] for outcome, _ in lines}


def test_deprecations_between_other_packages_do_not_fail(outcomes):
    assert outcomes["PASSED"] == 4 * ["test_theirs"]


def test_warnings_of_ours_fail(outcomes):
    """Our calls of deprecated functions, and warnings about our data, fail tests."""
    assert sorted(outcomes["FAILED"]) == 3 * ["test_data"] + 4 * ["test_ours"]


def test_configuration_names_the_modules_of_the_tests():
    """The filters name all modules of the tests, which would count as other packages otherwise."""
    filters = tomllib.loads((ROOT / "pyproject.toml").read_text())
    filters = filters["tool"]["pytest"]["ini_options"]["filterwarnings"]
    patterns = [entry.split(":")[3] for entry in filters if entry.count(":") > 1]
    assert len(patterns) == 4
    for pattern in patterns:
        for module in (ROOT / "tests").glob("*.py"):
            assert not re.match(pattern, module.stem)
        assert not re.match(pattern, "soss_background.io.exposures")
        assert re.match(pattern, "jwst.tweakreg.tweakreg_catalog")
