"""Row 8: the MLflow server is down at the start: refused at once, or recorded and copied later."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.clusters import LONGER, Sweep, free_port, mlflow_runs, serve, start, stop

PATIENCE = 120
OF_ONE_SWEEP = ("sweep", "raygan.trial", "mlflow.parentRunId", "mlflow.runName")
"""Tags that differ between two sweeps."""


def test_server_that_is_down_is_named_and_nothing_is_started(sweep, tmp_path):
    uri = f"http://127.0.0.1:{free_port()}"
    made = sweep("mlflow-down", grid={"norm": ["bn"]}, tracking={"uri": uri})
    made.change(storage=str(tmp_path / "storage"))
    output = made.run(code=2)
    assert f"MLflow at {uri} cannot be used: it cannot be reached" in output
    assert "or add --offline: the sweep is recorded in its storage, and `raygan sync`" in output
    assert "Traceback" not in output
    assert not (tmp_path / "storage" / "mlflow-down" / "trials").exists()
    assert not (tmp_path / "storage" / "data").exists()


def sync(made: Sweep, code: int = 0) -> str:
    log = made.log.with_suffix(".sync")
    log.unlink(missing_ok=True)
    process = start([sys.executable, "-m", "raygan", "sync", str(made.file)], log, made.env)
    try:
        assert process.wait(PATIENCE) == code, log.read_text()
    finally:
        stop(process)
    return log.read_text()


def content(uri: str, name: str, trial: str) -> dict[str, Any]:
    """What MLflow has of a trial: every point, parameter and tag, and the names of the files."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = mlflow_runs(uri, name)[trial]
    id, data = run.info.run_id, run.data
    points = {
        key: [(m.step, m.value) for m in client.get_metric_history(id, key)] for key in data.metrics
    }
    folders = ["checkpoint", "images"]
    return {
        "status": run.info.status,
        "points": points,
        "params": data.params,
        "tags": {key: value for key, value in data.tags.items() if key not in OF_ONE_SWEEP},
        "files": sorted(f.path for folder in folders for f in client.list_artifacts(id, folder)),
    }


def without_speed(found: dict[str, Any]) -> dict[str, Any]:
    """``found`` without what differs from one run of a machine to the next."""
    points = {k: v for k, v in found["points"].items() if not k.startswith("perf/")}
    return {**found, "points": points}


@pytest.mark.soak
def test_offline_sweep_is_copied_later_and_twice_is_once(cluster, reference, sweep, tmp_path):
    uri = f"http://127.0.0.1:{(port := free_port())}"
    made = sweep("offline", grid={"norm": ["bn"]}, train=LONGER, tracking={"uri": uri})
    output = made.run("--offline")
    assert "MLflow:  not copied (--offline); run: raygan sync offline" in output
    assert f"MLflow at {uri} cannot be used" in sync(made, code=2)
    server = serve(tmp_path, port, cluster.env)
    try:
        assert "MLflow has all that is stored of this sweep." in sync(made)
        there = content(uri, "offline", "bn-000")
        parent = mlflow_runs(uri, "offline")["offline"]
        sync(made)
        assert content(uri, "offline", "bn-000") == there
        again = mlflow_runs(uri, "offline")
        assert again.keys() == {"offline", "bn-000"}
        assert again["offline"].data.metrics == parent.data.metrics
        assert again["offline"].info.status == "FINISHED"
    finally:
        stop(server)
    live = content(reference.tracking, reference.name, "bn-000")
    assert without_speed(there) == without_speed(live)
    assert there["points"].keys() == live["points"].keys()
    for key, points in there["points"].items():
        assert [step for step, _ in points] == [step for step, _ in live["points"][key]]
