"""An MLflow server that goes away for a minute in the middle of a sweep."""

from __future__ import annotations

import os
import signal
import time
import urllib.request

from tests.clusters import BIN, free_port, logged_steps, mlflow_runs, start, stop, wait_until

OUTAGE = 60


def serve(folder, port: int, env):
    server = start(
        [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/server.db",
         "--artifacts-destination", str(folder / "artifacts")],
        folder / "server.log",
        {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=folder,
    )  # fmt: skip

    def healthy() -> bool:
        try:
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
            )
        except OSError:
            return False

    wait_until(healthy, "the MLflow server answers", server)
    return server


def test_outage_of_a_minute_loses_and_repeats_nothing(cluster, sweep, tmp_path):
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
