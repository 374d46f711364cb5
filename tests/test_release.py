"""What continuous integration and releases rely on is there and agrees."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("ci", {"test", "coverage", "test-oldest", "docs", "wheel", "style", "demo"}),
        ("publish", {"test", "wheel"}),
    ],
)
def test_workflows_run_targets_of_the_makefile(name, needed):
    run = set()
    for job in read_yaml(f".github/workflows/{name}.yml")["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        run |= {
            *matrix.get("target", []),
            *(more["target"] for more in matrix.get("include", []) if "target" in more),
        }
        for step in job["steps"]:
            run |= set(re.findall(r"(?:make |\|\| ')([a-z-]+)", step.get("run", "")))
    assert run == needed <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_python_versions():
    """Of the workflow, of the metadata, of the Makefile."""
    tested = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert re.findall(r"python(3\.\d+)", MAKEFILE)[::-1] == tested


def test_versions_agree():
    assert read_yaml("CITATION.cff")["version"] == PROJECT["version"]


def test_dependencies_have_reasons():
    """Each with a lower bound and a comment that tells why it is there."""
    text = (ROOT / "pyproject.toml").read_text()
    extras = [name for group in PROJECT["optional-dependencies"].values() for name in group]
    for dependency in (*PROJECT["dependencies"], *extras):
        if not dependency.startswith("soss_background["):
            assert ">=" in dependency
            assert re.search(rf'"{re.escape(dependency)}", +# \w', text), dependency


def test_hooks_before_a_commit_are_those_of_the_makefile():
    *_, local = read_yaml(".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook["entry"].split(" -")[0] for hook in local["hooks"]}
    assert {"ruff", "ruff-format", "codespell", "numpydoc-validation", "towncrier-check"} == set(
        hooks
    )
    for entry in hooks.values():
        assert entry.replace(".venv/bin", "$(BIN)") in MAKEFILE


def test_documentation_is_built_with_what_the_extra_has():
    settings = read_yaml(".readthedocs.yaml")
    assert settings["python"]["install"][0]["extra_requirements"] == ["docs"]
    # The pages of these modules import what is optional.
    pages = (ROOT / "docs" / "api.rst").read_text()
    assert "associations.archive" in pages
    assert "soss_background.batch" in pages
    assert "soss_background[archive,batch]" in PROJECT["optional-dependencies"]["docs"]
    assert (ROOT / settings["sphinx"]["configuration"]).is_file()
