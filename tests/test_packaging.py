"""The installation: entry points, the wheel, the version."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import asdf
import pytest
from helpers import run_program

import soss_background
from soss_background.integration import get_resource_mappings, get_steps

ROOT = Path(__file__).parents[1]
# Data files that the package needs.
DATA = {".html", ".json", ".yaml"}


def test_steps_are_what_they_say():
    for name, alias, is_pipeline in get_steps():
        step = getattr(soss_background, name.removeprefix("soss_background."))
        assert step.class_alias == alias
        assert hasattr(step, "step_defs") == is_pipeline
    assert "soss_background" in {entry.name for entry in entry_points(group="stpipe.steps")}


@pytest.mark.parametrize("name", ["skyflat", "skymodel"])
def test_asdf_knows_the_schema(name):
    uri = f"http://soss-background.readthedocs.io/schemas/{name}.schema"
    assert uri in get_resource_mappings()[0]
    assert asdf.schema.load_schema(uri)["id"] == uri


def test_stpipe_lists_the_steps(tmp_path):
    done = run_program("stpipe", "list", "soss_background.*", home=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [f"{name} ({alias})" for name, alias, _ in get_steps()]
    assert sorted(done.stdout.splitlines()) == sorted(lines)


def test_help_lists_the_parameters(tmp_path):
    done = run_program("strun", "soss_background.SkyflatPipeline", "--help", home=tmp_path)
    assert done.returncode == 0
    for option in ("--steps.skyflat_mask.n_sigma", "--steps.flat_field.override_flat", "[sigma]"):
        assert option in done.stdout


def build_wheel(folder):
    """Build the wheel of a copy, since it would include files of earlier builds in the tree."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "soss_background", source / "soss_background", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_all_that_is_needed(tmp_path):
    """A wheel built here, or one to be released, contains all files."""
    wheel = os.environ.get("WHEEL") or build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    data = {path for path in (ROOT / "soss_background").rglob("*.*") if path.suffix in DATA}
    assert {path.relative_to(ROOT).as_posix() for path in data} <= set(names)
    for schema in ("skyflat", "skymodel"):
        assert f"soss_background/datamodels/schemas/{schema}.schema.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.parametrize(
    "code",
    [
        "import soss_background",
        "from soss_background.integration import get_resource_mappings as get; get()",
    ],
)
def test_import_is_light(code):
    """The package loads large modules on first use, since every user of asdf imports it."""
    code = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"astropy", "crds", "jwst", "scipy", "stdatamodels", "stdatamodels.jwst.datamodels"}
    assert not heavy & set(done.stdout.split())


def test_public_names_load():
    for name in soss_background.__all__:
        assert getattr(soss_background, name).__name__ == name


@pytest.mark.parametrize("name", ["jwst", "stdatamodels", "stpipe"])
def test_overridden_packages_have_upper_bounds(name):
    (found,) = (line for line in requires("soss_background") if line.startswith(name))
    assert "<" in found


def test_version():
    assert soss_background.__version__ == version("soss_background")


def test_files_of_a_release_name_one_version():
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {own}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\nsoss_background {own} (" in (ROOT / "CHANGES.rst").read_text()
