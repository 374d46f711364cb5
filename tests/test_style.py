"""The check of wording and line lengths in ``make lint``."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_style.py"


def check(tmp_path, text, name="module.py"):
    """Return the exit status and the report of the check of one file."""
    path = tmp_path / name
    path.write_text(text)
    run = subprocess.run(
        [sys.executable, SCRIPT, path], capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"""The header tells the flat."""\n', 1),
        ("x = 1\n# Equal but\n# for the noise.\n", 2),
        ('raise ValueError("the shape is another " f"shape than {shape}")\n', 1),
        ('"""Products are made anew."""\n', 1),
        ('print("the error is 2 per "\n      "cent")\n', 1),
    ],
)
def test_phrase(tmp_path, text, line):
    """It is found in docstrings, comments and messages, also across lines; the line is named."""
    status, report = check(tmp_path, text)
    assert status == 1
    assert f"module.py:{line}: " in report
    assert len(report.splitlines()) == 1


def test_sources():
    """Schemas, whose titles become comments of FITS headers, and scripts are checked too."""
    sources = {path.name for path in runpy.run_path(str(SCRIPT))["list_sources"]()}
    assert {"skyflat.schema.yaml", "batch.py", "index.rst", "README.md"} <= sources
    others = {path.name for path in SCRIPT.parent.glob("*.py")} - {SCRIPT.name}
    assert others <= sources
    assert SCRIPT.name not in sources  # it quotes the phrases


def test_names_in_code(tmp_path):
    """Identifiers that contain a phrase, and long lines of code, are no faults."""
    status, report = check(tmp_path, f"value = ascii_letters  {'# long comment' * 10}\n")
    assert (status, report) == (0, "")


def test_long_lines(tmp_path):
    """They are faults of prose only, where they can be broken."""
    long, url, row = "a word " * 15, "https://example.org/" + "a" * 100, "| cell " * 20
    status, report = check(tmp_path, f"short\n{long}\n{url}\n{row}\n", "page.rst")
    assert status == 1
    assert report.splitlines() == [f"{tmp_path}/page.rst:2: 105 columns, at most 99 are allowed"]
