"""The training core is pure: it and the data sources load nothing of the rooms above them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib, json, pkgutil, sys
import raygan.gan, raygan.data
for package in (raygan.gan, raygan.data):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""


def test_gan_and_data_load_neither_ray_nor_mlflow_nor_optuna():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(run.stdout))
    modules = {file.stem for file in (ROOT / "raygan" / "gan").glob("[!_]*.py")}
    assert {f"raygan.gan.{module}" for module in modules} <= loaded
    assert "raygan.data.sources.find" in loaded
    # pyarrow: only when a Parquet source is read; scikit-learn: only for the digits
    unwanted = {"ray", "mlflow", "optuna", "pydantic", "pyarrow", "sklearn"}
    assert not unwanted & loaded
    rooms = {name for name in loaded if name.startswith(("raygan.sweep", "raygan.tracking"))}
    assert not rooms
