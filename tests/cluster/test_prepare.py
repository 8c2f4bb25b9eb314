"""Preparing on a Ray cluster: the same set as one process makes, before any trial starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raygan.data import DatasetConfig, prepare
from raygan.data.manifest import read_manifest
from tests.data.conftest import encoded


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for index in range(24):
        (tmp_path / "images" / f"{index:02}.png").write_bytes(encoded(10 * index))
    return tmp_path / "images"


def run(cluster, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raygan.data", "prepare", *map(str, arguments)]
    return subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=False)


def test_ray_data_makes_the_same_shards_as_one_process(cluster, folder, tmp_path):
    options = ("--source", "folder", "--path", folder, "--size", 1024, "--address", "auto")
    made = run(cluster, *options, "--out", tmp_path / "ray")
    assert made.returncode == 0, made.stderr
    assert "24 of 24 images" in made.stderr
    config = DatasetConfig(name="folder", path=str(folder), size=1024)
    alone = prepare(config, tmp_path / "alone")
    assert Path(made.stdout.strip()) == tmp_path / "ray" / alone.name
    assert len(read_manifest(alone)["shards"]) == 2
    manifests = [
        (tmp_path / name / alone.name / "manifest.json").read_text() for name in ("ray", "alone")
    ]
    assert manifests[0] == manifests[1]


def test_an_error_of_a_task_is_the_users(cluster, folder, tmp_path):
    (folder / "03.png").write_bytes(b"rubbish")
    options = ("--source", "folder", "--path", folder, "--size", 1024, "--address", "auto")
    made = run(cluster, *options, "--out", tmp_path / "ray")
    assert made.returncode == 2
    assert made.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "03.png: cannot be decoded" in made.stderr
    assert "Traceback" not in made.stderr


def test_a_sweep_prepares_what_is_missing_before_its_first_trial(sweep, folder):
    dataset = {"name": "folder", "path": str(folder), "size": 1024, "running": 2, "final": 2}
    made = sweep("prepares", dataset=dataset)
    (folder / "03.png").write_bytes(b"rubbish")
    log = made.run(code=2)
    assert "03.png: cannot be decoded" in log
    assert "training images" not in log
    # what is smaller is one shard, and quickly trained on
    (folder / "03.png").write_bytes(encoded(30))
    (folder / "24.tiff").write_bytes(b"not read")
    made.change(dataset={"size": 16}, train={"iterations": 10})
    log = made.run("--fresh")
    assert "images: 24 of 24 images" in log
    assert "files left out, by suffix: 1 .tiff" in log
    assert "20 training images 3×16×16" in log


SEVERAL = """
import sys, ray
from raygan.storage import Storage
from raygan.sweep.cluster import preparing; from raygan.sweep.spec import sweep_spec as spec
ray.init(logging_level="ERROR", log_to_driver=False)
made = spec.load(__import__("pathlib").Path(sys.argv[1]))
print(preparing.prepare_on_cluster(made, Storage(made.storage), lambda line: print("said", line)))
"""


def test_shards_are_made_by_tasks_that_the_sweeps_own_task_starts(sweep, folder):
    dataset = {"name": "folder", "path": str(folder), "size": 1024, "running": 2, "final": 2}
    made = sweep("nested", dataset=dataset)
    run = subprocess.run(
        [sys.executable, "-c", SEVERAL, made.file], env=made.env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "said 24 of 24 images" in run.stdout
    assert "shape='3×1024×1024', train=20" in run.stdout
