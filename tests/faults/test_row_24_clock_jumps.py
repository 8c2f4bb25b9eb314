"""Row 24: the clock jumps, back and forth by an hour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clusters import LONGER, NORMS, TRIALS, logged_steps, mlflow_runs

JUMPING = '''\
import time

real = time.time


def jumping():
    """The time, an hour late or early in turns; every process sees the same jumps."""
    return real() + (3600 if int(time.monotonic() / 3) % 2 else -3600)


time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
'''
"""Runs in each Python process at its start: Python imports ``sitecustomize``. Times of files, and
Ray's own C++, keep the machine's clock."""


@pytest.mark.soak
def test_a_sweep_does_not_depend_on_the_clock(reference, sweep, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    made = sweep(
        "clock-jumps",
        env={"RAY_ADDRESS": None, "PYTHONPATH": path},  # its own Ray: that sees the jumps, too
        grid=NORMS,
        train=LONGER,
        budget={"wall_clock": "10m"},
    )
    made.run()
    for trial in TRIALS:
        record = made.record(trial)
        assert (record["outcome"], made.curve(trial)) == ("ok", reference.curve(trial))
        assert 0 < record["seconds"] < 600, "a jump counts as training"
    runs = mlflow_runs(made.tracking, made.name)
    for trial in TRIALS:
        assert runs[trial].data.tags["outcome"] == "ok"
        # MLflow returns them in the order of its clock
        assert sorted(logged_steps(made.tracking, runs[trial])) == [10, 20, 30, 40, 50, 60]
    before = made.log.read_text()
    assert "started (trial" not in made.run().removeprefix(before)
