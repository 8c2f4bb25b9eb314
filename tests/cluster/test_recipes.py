"""A sweep with a user's own norm, metric and stop rule in one file, by the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.clusters import mlflow_runs

EXAMPLES = Path(__file__).parents[2] / "docs" / "guides" / "recipes"
RULE = '''

from raygan.recipes import Stopper, StopRule


class Late(StopRule):
    """Stops trials whose loss is far above the lowest one."""

    name = "late"
    factor: float = 100.0
    """How many times the lowest loss."""

    def start(self, grace):
        return _Watcher(grace, self.factor)


class _Watcher(Stopper):
    def __init__(self, grace, factor):
        self.grace, self.factor, self.lowest = grace, factor, float("inf")

    def stops(self, trial, step, loss):
        self.lowest = min(self.lowest, loss)
        return step >= self.grace and loss > self.factor * self.lowest
'''
READ = """
import sys, raygan
print(sorted(raygan.results(sys.argv[1])["val/sharpness"] > 0))
"""


def test_a_sweep_with_a_users_own_recipes(sweep, tmp_path) -> None:
    file = tmp_path / "mine.py"
    names = ("instance_norm.py", "sharpness.py", "shallow.py")
    file.write_text("".join((EXAMPLES / name).read_text() for name in names) + RULE)
    made = sweep(
        "own-recipes",
        recipes=[str(file)],
        train={"norm": "instance", "iterations": 20},
        grid={"architecture": ["dcgan", "shallow"]},
        search={"method": "random", "trials": 1, "instance_eps": [1e-5]},
        stop={"rule": "late", "factor": 50.0},
    )
    made.run()
    folder = made.storage / "own-recipes"
    trials = sorted(path.name for path in (folder / "trials").iterdir())
    assert len(trials) == 2
    assert (folder / "recipes" / "mine.py").read_text() == file.read_text()
    for trial in trials:
        assert all(point["val/sharpness"] > 0 for point in made.record(trial)["history"])
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert [row["outcome"] for row in rows] == ["ok"] * 2
    assert all(row["val/sharpness"] > 0 for row in rows)
    runs = mlflow_runs(made.tracking, "own-recipes")
    assert all("val/sharpness" in runs[trial].data.metrics for trial in trials)
    artifacts = Path(runs["own-recipes"].info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "recipes" / "mine.py").read_text() == file.read_text()

    again = made.run()  # the same command: nothing is trained again
    assert again.count("started (trial") == 2
    text = file.read_text()
    file.write_text(text + "# changed\n")
    assert "mine.py has changed since the sweep 'own-recipes' began: restore it" in made.run(code=2)
    file.unlink()

    def shown(*words: str, code: int = 0) -> str:
        command = [sys.executable, *words, "--storage", str(made.storage)]
        done = subprocess.run(command, env=made.env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    # processes that do not have the file
    assert "instance_eps=1e-5" in shown("-m", "raygan", "status", "own-recipes")
    assert "shallow" in shown("-m", "raygan", "results", "own-recipes")
    shown("-m", "raygan", "report", "own-recipes")
    assert "val/sharpness" in (folder / "report.html").read_text()
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, env=made.env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[True, True]", done.stderr
    needed = shown("-m", "raygan", "evaluate", "own-recipes", "--steps", "1", code=2)
    assert "is needed: name its file" in needed
