"""Whole sweeps on a real cluster: Ray Tune, Ray Train, MLflow."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from tests.clusters import (
    LONGER,
    LOSS,
    TRIALS,
    logged_steps,
    mlflow_runs,
    stop,
    wait_until,
)


def test_runs_are_what_the_yaml_says(reference):
    runs = mlflow_runs(reference.tracking, "reference")
    assert set(runs) == {"reference", *TRIALS}
    for trial in TRIALS:
        run = runs[trial]
        assert run.data.tags["mlflow.parentRunId"] == runs["reference"].info.run_id
        assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "ok")
        assert run.data.params["norm"] == run.data.params["cell"] == trial.removesuffix("-000")
        assert (run.data.params["features"], run.data.params["lr"]) == ("4", "0.0001")
        assert logged_steps(reference.tracking, run) == [10, 20, 30, 40, 50, 60]
        assert {"train/loss_d", "train/accuracy_fake", "perf/images_per_second"} < set(
            run.data.metrics
        )
    assert runs["reference"].info.status == "FINISHED"


def test_tables_open_and_agree(reference):
    folder = reference.storage / "reference"
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert [row["outcome"] for row in rows] == ["ok"] * 3
    curves = pq.read_table(folder / "curves.parquet").to_pylist()
    for row in rows:
        mine = [point[LOSS] for point in curves if point["trial"] == row["trial"]]
        assert (min(mine), mine[-1], len(mine)) == (row["best_loss"], row["last_loss"], 6)
    summary = json.loads((folder / "result.json").read_text())
    assert summary["exit_code"] == 0
    assert summary["best"] == {"vanilla": "vanilla-000", "bn": "bn-000", "wn": "wn-000"}


def test_output_is_plain_lines_and_says_where_things_are(reference):
    output = reference.log.read_text()
    assert "3 trials in 3 cells" in output
    assert "60/60  reconstruction loss" in output
    assert f"Results: {reference.storage}/reference/results.parquet" in output
    assert f"raygan ui {reference.name} --storage {reference.storage}" in output
    assert "\x1b[" not in output


def test_finished_sweep_is_shown_again_and_not_run_again(reference):
    before = (
        (reference.storage / "reference" / "trials" / "bn-000" / "record.json").stat().st_mtime_ns
    )
    output = reference.run()
    assert output.count("started (trial") == 3  # all of the first run: one log file
    after = (
        (reference.storage / "reference" / "trials" / "bn-000" / "record.json").stat().st_mtime_ns
    )
    assert before == after


def test_two_workers_give_the_same_curve(reference, sweep):
    wide = sweep("wide", grid={"norm": ["bn", "wn"]}, train=LONGER, scale={"workers": 2})
    wide.run()
    for trial in ("bn-000", "wn-000"):
        found, expected = wide.curve(trial), reference.curve(trial)
        assert [step for step, _ in found] == [step for step, _ in expected]
        losses = [loss for _, loss in found]
        assert losses == pytest.approx([loss for _, loss in expected], rel=2e-3)


def test_cluster_that_is_not_there_is_named(sweep):
    output = sweep("nocluster", env={"RAY_ADDRESS": "nonsense"}).run(code=2)
    assert "no Ray cluster can be used at 'nonsense'" in output


def test_storage_that_cannot_be_written_is_refused(sweep, tmp_path):
    (tmp_path / "file").write_text("")
    output = sweep("nowhere", storage=str(tmp_path / "file" / "below")).run(code=2)
    assert "`storage` (=" in output
    assert "cannot be written or read" in output


def test_missing_images_are_refused_before_any_trial(sweep, tmp_path):
    made = sweep("nothing", dataset={"name": "folder", "path": str(tmp_path / "nowhere")})
    output = made.run(code=2)
    assert f"{tmp_path / 'nowhere'}: no such file or folder" in output


def test_store_in_a_file_is_refused_on_two_nodes(cluster, sweep):
    node = cluster.node("second", f"--address={cluster.address}", "--num-cpus=1")
    try:
        wait_until(
            lambda: "Ray runtime started" in (cluster.logs / "second.log").read_text(),
            "second node",
            node,
        )
        output = sweep("twonodes").run(code=2)
    finally:
        stop(node)
    assert "the cluster has 2 nodes, but MLflow's store sqlite:///" in output
    assert "MLFLOW_TRACKING_URI" in output
