"""The wheel works without the repository: `pip install raygan`, `raygan init`, `raygan sweep`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raygan

ROOT = Path(__file__).parents[1]


def _run(command: list[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("raygan", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    _run([*pip, "wheel", *options, "--wheel-dir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    _run([*pip, "install", *options, "--target", str(folder / "site"), str(wheel)], folder)
    shutil.rmtree(source)
    return folder / "site"


@pytest.mark.cluster
def test_a_sweep_runs_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    path = {"PYTHONPATH": str(installed)}
    code = "import raygan; print(raygan.__file__)"
    assert _run([sys.executable, "-c", code], tmp_path, **path).startswith(str(installed))
    command = [sys.executable, str(installed / "bin" / "raygan")]
    assert (installed / "raygan" / "py.typed").is_file()
    _run([*command, "init", "mine"], tmp_path, **path)
    small = ["--smoke-test", "--set", "grid.norm=[bn]", "--set", "replicate.seeds=0"]
    _run([*command, "sweep", "mine.yaml", *small], tmp_path, **path)
    frame = raygan.results(str(tmp_path / "results" / "mine-smoke"))
    assert set(frame.outcome) == {"ok"}
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"mine.yaml", "raygan.schema.json", "results"}
