"""Row 26: no trial gives a result."""

from __future__ import annotations

import json

import pytest

from tests.clusters import mlflow_runs


@pytest.mark.soak
def test_summary_groups_the_trials_by_cause(sweep):
    made = sweep(
        "allfail",
        grid={"features": [4, 1_000_000], "seed": [0, 1]},  # beyond all numbers; beyond the memory
        train={"norm": "vanilla", "lr": 1e30, "features": None},
    )
    output = made.run(code=3)
    trials = {path.name for path in (made.storage / made.name / "trials").iterdir()}
    assert len(trials) == 4  # without `warmup`, none is tried again
    assert output.count("started (trial") == 4
    assert "Too many trials have no result:" in output
    words = " ".join(output.split())  # lines are wrapped
    for cause in ("early-failure", "failed"):
        (reason,) = {r["reason"] for t in trials if (r := made.record(t))["outcome"] == cause}
        assert f"2 × {cause}: {reason}" in words
    result = json.loads((made.storage / made.name / "result.json").read_text())
    assert result["exit_code"] == 3
    assert set(result["best"].values()) == {None}
    assert result["outcomes"] == {"early-failure": 2, "failed": 2}
    runs = mlflow_runs(made.tracking, made.name)
    assert {run.info.status for run in runs.values()} == {"FAILED"}
