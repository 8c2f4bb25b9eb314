"""Rows 7 and 9: the MLflow server, or its database, goes away and comes back between evaluations.

What tells MLflow is driven by itself, so that the outage needs no Ray and little time.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.tracking.mlflow_tracker import Lag, Tracker
from tests.clusters import free_port, ray_env, serve, stop, wait_until

TRIALS = ("bn-000", "wn-000", "wn-001")
EVALUATIONS = 40


class Servers:
    """An MLflow server on one port and one database that is started again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._env = ray_env(folder / "token")
        self.uri = f"http://127.0.0.1:{self._port}"
        self.database = folder / "server.db"
        self._server: subprocess.Popen | None = None

    def start(self) -> None:
        self._server = serve(self._folder, self._port, self._env)

    def kill(self) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait(30)

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            stop(self._server)


@pytest.fixture
def servers(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS_MOST", 1.0)
    made = Servers(tmp_path)
    made.start()
    yield made
    made.stop()


def test_outages_between_evaluations_leave_no_gap_and_no_duplicate_and_keep_the_order(
    servers, tmp_path
):
    tracker = Tracker(servers.uri, "norms", "sweep", Storage(str(tmp_path)) / "sweep")
    tracker.connect()
    tracker.open("id", "name: sweep\n", {})
    config = TrainConfig(iterations=10 * EVALUATIONS, evaluate_every=10).to_dict()
    records = [TrialRecord(name, name[:2], 0, name, {}, config) for name in TRIALS]

    def evaluate(first: int, last: int) -> None:
        for number in range(first, last + 1):
            for record in records:
                point = {LOSS: 1 / number, "perf/images_seen": 320.0 * number}
                record.history.append({"step": 10.0 * number, **point})
                tracker.update(record)

    def caught_up() -> bool:
        return tracker.behind == Lag() and tracker.last_error is None

    evaluate(1, 10)
    wait_until(caught_up, "the first evaluations are copied")
    servers.kill()  # row 7
    evaluate(11, 20)
    wait_until(lambda: tracker.last_error, "the outage is told")
    assert "it cannot be reached" in tracker.last_error
    assert tracker.behind.evaluations == 10 * len(TRIALS)
    servers.start()
    wait_until(caught_up, "the rest is copied")
    with closing(sqlite3.connect(servers.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # row 9: the server runs, its database answers nobody
        evaluate(21, 30)
        wait_until(lambda: tracker.last_error, "the outage of the database is told")
    evaluate(31, 39)
    servers.kill()  # while changes are on their way
    evaluate(EVALUATIONS, EVALUATIONS)
    for record in records:
        record.outcome = "ok"
        tracker.update(record, ended=True, summary={"stability/best": 0.1})
    servers.start()
    assert tracker.close("FINISHED")
    assert tracker.last_error is None

    steps = [10 * number for number in range(1, EVALUATIONS + 1)]
    assert arrived(servers.database, LOSS) == dict.fromkeys(TRIALS, steps)
    assert arrived(servers.database, "stability/best") == {trial: [0] for trial in TRIALS}
    with closing(sqlite3.connect(servers.database)) as base:
        runs = base.execute("SELECT name, status FROM runs").fetchall()
    assert sorted(runs) == sorted((name, "FINISHED") for name in ("sweep", *TRIALS))


def arrived(database: Path, key: str) -> dict[str, list[int]]:
    """The steps of a metric by run, in the order in which they came into the database."""
    query = (
        "SELECT runs.name, metrics.step FROM metrics JOIN runs USING (run_uuid) WHERE key = ? "
        "ORDER BY metrics.rowid"
    )
    found: dict[str, list[int]] = {}
    with closing(sqlite3.connect(database)) as base:
        for name, step in base.execute(query, (key,)):
            found.setdefault(name, []).append(step)
    return found
