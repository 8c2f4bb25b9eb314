"""What all tests share: the repository on the path, the GPU marker, hypothesis's profile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `from tests.gan import textbook`, however pytest was started

# the networks here are tiny: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)

# no deadline, and no complaint of a busy machine: wall-clock time is no test's business
settings.register_profile(
    "raygan", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("raygan")


from tests.clusters import cluster, sweep  # noqa: E402, F401 - fixtures
from tests.object_store import object_store_server, store  # noqa: E402, F401 - fixtures


@pytest.fixture(scope="session", autouse=True)
def repository_gains_no_files() -> Iterator[None]:
    """What a test writes belongs into its temporary folder; caches of tools are hidden folders."""
    before = set(ROOT.iterdir())
    yield
    gained = {path.name for path in set(ROOT.iterdir()) - before if path.name[0] not in "._"}
    assert not gained, f"the tests have left {', '.join(sorted(gained))} in {ROOT}"


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """To bring a file to the disk takes milliseconds, and no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long tests on clusters, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a cluster; skip what takes long, and what needs a GPU where there is none."""
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="takes long: `make test-cluster` runs it"))
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in ("cluster", "faults"):
            item.add_marker("cluster")
        if folder == "cluster" or "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
