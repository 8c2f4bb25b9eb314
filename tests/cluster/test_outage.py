"""An MLflow server that goes away for a while in the middle of a sweep."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.clusters import free_port, logged_steps, mlflow_runs, serve, stop, wait_until

OUTAGE = 60


@pytest.mark.soak
def test_outage_loses_and_repeats_nothing(cluster, sweep, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = serve(tmp_path, port, cluster.env)
    made = sweep(
        "outage",
        env={"MLFLOW_TRACKING_URI": uri},
        train={"iterations": 6000, "evaluate_every": 200},
    )
    process = made.start()
    try:
        wait_until(lambda: made.curve("wn-000"), "first evaluation", process)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)
        began, seen = time.monotonic(), len(made.curve("wn-000"))
        wait_until(lambda: len(made.curve("wn-000")) >= seen + 3, "training goes on", process)
        time.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))  # the outage itself
        server = serve(tmp_path, port, cluster.env)
        assert process.wait(180) == 0, made.log.read_text()
        runs = mlflow_runs(uri, "outage")
        assert logged_steps(uri, runs["wn-000"]) == list(range(200, 6001, 200))
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
    finally:
        stop(process)
        stop(server)
    assert "MLflow is behind" in made.log.read_text()
