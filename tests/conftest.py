"""Fixtures: simulated visits, and an environment without CRDS unless a test creates one."""

import functools
import json
import os
from dataclasses import replace
from types import SimpleNamespace

# Set before NumPy is imported, since BLAS threads of several test processes wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import asdf.schema
import hypothesis
import pytest

from soss_background.detector import Window
from soss_background.simulate import Simulation, simulate_visit
from soss_background.steps import crds_access, resources

# The same examples on every machine, however slow.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

# The slowest files. Several processes start them first, so that all end at about the same time.
LONGEST = (
    "documentation",
    "stare",
    "notebooks",
    "full_size",
    "batch",
    "spec2",
    "pipeline",
    "report",
)

# A corner of the detector with the edge, reference rows and traces in it.
SMALL = Simulation(
    window=Window("FULL", 1920, 600, 128, 256), n_exposures=5, n_integrations=2, star_density=1.0
)


def pytest_collection_modifyitems(items):
    """Start with the slowest files."""
    order = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: order.index(item.path.stem) if item.path.stem in order else 99)


@pytest.fixture(autouse=True, scope="session")
def parsed_once():
    """Parse each schema once; asdf parses it for each value, a fifth of the time of the tests."""
    load = asdf.schema.yaml.load
    parsed = functools.cache(load)

    def load_once(content, Loader):  # noqa: N803 - the name in yaml
        return (parsed if isinstance(content, bytes | str) else load)(content, Loader)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asdf.schema, "yaml", SimpleNamespace(load=load_once))
        yield


@pytest.fixture(autouse=True, scope="module")
def few_collections():
    """Exempt objects of imported modules from the garbage collection of each step."""
    with resources.few_collections():
        yield


@pytest.fixture(autouse=True)
def without_crds(monkeypatch, tmp_path):
    """Put CRDS out of reach, and work in an empty folder."""
    for name in ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT", "CRDS_OBSERVATORY"):
        monkeypatch.delenv(name, raising=False)
    crds_access._crds_reachable.cache_clear()
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def visit(tmp_path_factory):
    """Simulate a small visit; return its association."""
    return simulate_visit(tmp_path_factory.mktemp("visit"), SMALL)


@pytest.fixture(scope="session")
def flat(visit):
    """Name the flat of the small visit."""
    return str(visit.parent / "flat.fits")


@pytest.fixture(scope="session")
def exposures(visit):
    """Name the exposures of the small visit."""
    members = json.loads(visit.read_text())["products"][0]["members"]
    return [visit.parent / member["expname"] for member in members]


@pytest.fixture(scope="session")
def two_observations(tmp_path_factory):
    """Simulate two sequences of one observation, two days apart; return an association of both."""
    folder = tmp_path_factory.mktemp("two")
    products = []
    for number, start in ((1, "2023-12-31T23:55:00"), (2, "2024-01-03T00:00:00")):
        settings = replace(SMALL, n_exposures=2, star_density=0.0, start=start)
        association = simulate_visit(folder / f"{number}", settings)
        content = json.loads(association.read_text())
        for member in content["products"][0]["members"]:
            source = association.parent / member["expname"]
            member["expname"] = source.name.replace("04479001001", f"0447900100{number}")
            source.rename(folder / member["expname"])
        products += content["products"]
    path = folder / "both_asn.json"
    path.write_text(json.dumps({**content, "products": products[::-1]}))
    return path
