"""Rows 4 and 29: the head node dies while the sweep's process lives."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.storage import Storage
from raygan.sweep.cluster.head import EXIT_LOST
from raygan.sweep.session import lock
from tests.clusters import (
    LONGER,
    PATIENCE,
    Cluster,
    logged_steps,
    make_sweep,
    mlflow_runs,
    running_cluster,
    wait_until,
)

DONE, CUT = "vanilla-000", "bn-000"


def kill(cluster: Cluster) -> None:
    """End all processes of its head, as if its machine were gone."""
    assert cluster.head is not None
    head = psutil.Process(cluster.head.pid)
    for process in [head, *head.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.soak  # the head must be silent for 45 seconds
def test_the_sweep_says_so_and_resumes_on_a_new_cluster(cluster, reference, tmp_path: Path):
    with running_cluster(tmp_path) as lost:
        made = make_sweep(
            "head-lost",
            tmp_path / "storage",
            lost.env,
            grid={"norm": ["vanilla", "bn"]},
            train=LONGER,
            scale={"max_concurrent": 1},
        )
        with made.running() as process:
            wait_until(lambda: len(made.curve(CUT)) >= 3, "the second trial trains", process)
            kill(lost)
            assert process.wait(PATIENCE) == EXIT_LOST, made.log.read_text()
    said = made.log.read_text()
    assert "error: the head node of the Ray cluster has not answered for 45 s" in said
    assert "run the same command again: a sweep resumes if its storage is the same" in said
    assert "Traceback" not in said
    folder = Storage(str(made.storage / made.name))
    assert lock.read(folder) is None
    summary = json.loads(folder.read("result.json") or b"")
    assert (summary["exit_code"], summary["finished"]) == (EXIT_LOST, False)
    assert [made.record(trial)["outcome"] for trial in (DONE, CUT)] == ["ok", None]
    status = CliRunner().invoke(main, ["status", made.name, "--storage", str(made.storage)])
    assert "Not running. The same command resumes the sweep." in status.output
    cut_at = made.curve(CUT)[-1][0]
    runs = mlflow_runs(made.tracking, made.name)
    assert {trial: run.info.status for trial, run in runs.items()} == {
        made.name: "KILLED",
        DONE: "FINISHED",
        CUT: "KILLED",
    }
    assert logged_steps(made.tracking, runs[CUT]) == list(range(10, cut_at + 1, 10))

    made.env = cluster.env
    output = made.run().removeprefix(said)
    assert output.count(f"started (trial {DONE}") == 0
    assert output.count(f"started (trial {CUT}") == 1
    for trial in (DONE, CUT):
        assert made.curve(trial) == reference.curve(trial)
    runs = mlflow_runs(made.tracking, made.name)
    assert set(runs) == {made.name, DONE, CUT}
    for trial in (DONE, CUT):
        assert (runs[trial].info.status, runs[trial].data.tags["outcome"]) == ("FINISHED", "ok")
        assert logged_steps(made.tracking, runs[trial]) == [10, 20, 30, 40, 50, 60]


@pytest.mark.soak
def test_a_head_that_is_stopped_for_a_moment_ends_nothing(tmp_path: Path):
    with running_cluster(tmp_path) as cluster:
        made = make_sweep(
            "head-busy", tmp_path / "storage", cluster.env, grid={"norm": ["bn"]}, train=LONGER
        )
        assert cluster.head is not None
        gcs = next(
            process
            for process in psutil.Process(cluster.head.pid).children(recursive=True)
            if process.name() == "gcs_server"
        )
        with made.running() as process:
            wait_until(lambda: made.curve("bn-000"), "an evaluation", process)
            gcs.suspend()
            try:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(12)
            finally:
                gcs.resume()
            assert process.wait(PATIENCE) == 0, made.log.read_text()
    assert "has not answered" not in made.log.read_text()
    assert made.record("bn-000")["outcome"] == "ok"
