"""A user's own data source is read by tasks on a Ray cluster, which enter its file first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raygan.data.manifest import read_manifest

OWN = """
from pathlib import Path
import numpy as np
from raygan.data.sources.source import DataSource

class Raw(DataSource):
    \"\"\"Raw grey pixels, one image after the other.\"\"\"
    name = "raw"
    channels = 1

    def count(self, path):
        return Path(path).stat().st_size // 64

    def read(self, path, start, stop):
        data = Path(path).read_bytes()[64 * start : 64 * stop]
        return np.frombuffer(data, np.uint8).reshape(-1, 8, 8)
"""
PROGRAM = """
import sys
from pathlib import Path
from raygan import recipe
from raygan.data import DatasetConfig, prepare
from raygan.sweep.cluster import tune
from raygan.sweep.cluster.preparing import on_ray

tune.connect("auto", verbose=False)
recipe.use([recipe.read(Path("raw.py"))])
config = DatasetConfig(name="raw", path=str(Path("raw").absolute()), size=1024)
try:
    print(prepare(config, Path("prepared").absolute(), map=on_ray))
except Exception as error:
    print(repr(error))
"""


@pytest.mark.soak
def test_tasks_enter_the_file_of_a_users_own_source(cluster, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(range(70)) * 64)

    def made() -> str:
        command = [sys.executable, "-c", PROGRAM]
        run = subprocess.run(command, env=cluster.env, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip().splitlines()[-1]

    (tmp_path / "raw.py").write_text(OWN)
    manifest = read_manifest(made())
    assert manifest["shape"] == [70, 1024, 1024, 1]
    assert len(manifest["shards"]) == 2
    (tmp_path / "raw.py").write_text(OWN.replace("-1, 8, 8", "-1, 8, 8 if start < 64 else 7"))
    assert made().startswith("DataError('raw.py:16: ValueError: cannot reshape")
