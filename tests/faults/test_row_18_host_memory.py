"""Row 18: a trial asks for more memory than the host has."""

from __future__ import annotations

import json

import pytest

from tests.clusters import mlflow_runs

HUNGRY = "features=1000000-000"
"""One layer of it takes a hundred terabytes."""


@pytest.mark.soak
def test_trial_fails_once_with_the_reason_and_the_others_go_on(sweep):
    made = sweep(
        "memory", grid={"features": [1_000_000, 4]}, train={"norm": "vanilla", "features": None}
    )
    output = made.run(code=3)  # a cell without any result carries no verdict
    record = made.record(HUNGRY)
    assert (record["outcome"], record["history"]) == ("failed", [])
    assert "can't allocate memory" in record["reason"]
    assert output.count(f"started (trial {HUNGRY};") == 1
    assert f"1 × failed: {record['reason']}" in " ".join(output.split())  # lines are wrapped
    assert made.record("features=4-000")["outcome"] == "ok"
    summary = json.loads((made.storage / made.name / "result.json").read_text())
    assert summary["best"] == {"features=1000000": None, "features=4": "features=4-000"}
    runs = mlflow_runs(made.tracking, made.name)
    assert runs[HUNGRY].info.status == "FAILED"
    assert runs[HUNGRY].data.tags["reason"] == record["reason"]
    assert runs["features=4-000"].info.status == "FINISHED"
