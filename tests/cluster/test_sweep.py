"""Whole sweeps on a real cluster: Ray Tune, Ray Train, MLflow."""

from __future__ import annotations

import json
import signal

import psutil
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from tests.clusters import free_port, stop, wait_until

LOSS = "val/reconstruction_loss"


def mlflow_runs(uri: str, sweep: str) -> dict[str, object]:
    """Runs of a sweep by trial id; the parent under its own name."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.sweep = '{sweep}'")
    by_trial = {run.data.tags.get("trial", sweep): run for run in found}
    assert len(by_trial) == len(found), "a trial has two runs"
    return by_trial


def logged_steps(uri: str, run) -> list[int]:
    return [m.step for m in MlflowClient(uri).get_metric_history(run.info.run_id, LOSS)]


TRIALS = ("vanilla-000", "bn-000", "wn-000")
NORMS = {"norm": ["vanilla", "bn", "wn"]}
LONGER = {"iterations": 60, "reconstruction_steps": 300}
"""Half a second per evaluation: time to be killed in."""


@pytest.fixture(scope="module")
def reference(sweep):
    """The curves that all other ways of running must give, too."""
    made = sweep("reference", grid=NORMS, train=LONGER)
    made.output = made.run()
    return made


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
    assert "3 trials in 3 cells" in reference.output
    assert "60/60  reconstruction loss" in reference.output
    assert f"Results: {reference.storage}/reference/results.parquet" in reference.output
    assert (
        f"mlflow ui --backend-store-uri sqlite:///{reference.storage}/mlflow.db" in reference.output
    )
    assert "\x1b[" not in reference.output


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


def test_changed_yaml_is_refused_with_the_difference(reference):
    text = reference.file.read_text()
    try:
        reference.file.write_text(text.replace("iterations: 60", "iterations: 70"))
        output = reference.run(code=2)
    finally:
        reference.file.write_text(text)
    assert "-  iterations: 60" in output
    assert "+  iterations: 70" in output


def test_two_workers_give_the_same_curve(reference, sweep):
    wide = sweep(
        "wide",
        grid=NORMS,
        train=LONGER,
        scale={"workers": 2},
    )
    wide.run()
    for trial in TRIALS:
        found, expected = wide.curve(trial), reference.curve(trial)
        assert [step for step, _ in found] == [step for step, _ in expected]
        losses = [loss for _, loss in found]
        assert losses == pytest.approx([loss for _, loss in expected], rel=2e-3)


def train_workers(cluster) -> list[psutil.Process]:
    """The processes of this cluster in which Ray Train's workers train."""
    return [
        process
        for process in psutil.Process(cluster.head.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(process.cmdline())
    ]


def test_killed_worker_interrupted_sweep_same_curves(cluster, reference, sweep):
    """A worker dies, then the sweep is interrupted twice; what is left shows none of it."""
    wounded = sweep(
        "wounded",
        grid=NORMS,
        train=LONGER,
        scale={"max_concurrent": 1},
    )
    process = wounded.start()
    wait_until(lambda: wounded.curve("vanilla-000"), "first evaluation", process)
    workers = train_workers(cluster)
    assert workers
    for worker in workers:
        worker.kill()
    assert len(wounded.curve("vanilla-000")) < 6, "it had ended before it was killed"
    wait_until(lambda: wounded.curve("bn-000"), "the next trial's first evaluation", process)
    assert wounded.record("vanilla-000")["outcome"] == "ok"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "the same command goes on from here" in wounded.log.read_text()
    runs = mlflow_runs(wounded.tracking, "wounded")
    assert runs["wounded"].info.status == "KILLED"
    assert runs["bn-000"].info.status in ("KILLED", "FINISHED")

    process = wounded.start()
    wait_until(lambda: wounded.curve("wn-000"), "the last trial's first evaluation", process)
    process.kill()  # no chance to save anything
    process.wait(30)
    output = wounded.run()

    for trial in TRIALS:
        assert wounded.curve(trial) == reference.curve(trial), trial
    runs = mlflow_runs(wounded.tracking, "wounded")
    assert set(runs) == {"wounded", *TRIALS}
    for trial in TRIALS:
        assert (runs[trial].info.status, runs[trial].data.tags["outcome"]) == ("FINISHED", "ok")
        assert logged_steps(wounded.tracking, runs[trial]) == [10, 20, 30, 40, 50, 60]
    assert output.count("started (trial vanilla-000") == 1


def test_sigint_gives_130(sweep):
    made = sweep("sigint", train={"iterations": 4000})
    process = made.start()
    wait_until(lambda: made.curve("wn-000"), "first evaluation", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_early_stopping_divergence_and_failure_are_outcomes(sweep):
    made = sweep(
        "outcomes",
        grid={"features": [4, 60_000]},  # the second needs terabytes
        search={"lr": [1e-3, 1e-6, 1e30]},
        stop={"rule": "asha", "grace": 20, "reduction": 2},
        train={"iterations": 40, "norm": "vanilla"} | {"features": None},
    )
    content = made.file.read_text().replace("  features: null\n", "")
    made.file.write_text(content)
    output = made.run(code=3)
    outcome = {i: made.record(f"features=4-00{i}")["outcome"] for i in range(3)}
    assert outcome == {0: "ok", 1: "stopped", 2: "diverged"}
    assert made.record("features=4-001")["reason"] == "asha at iteration 20"
    assert "not finite" in made.record("features=4-002")["reason"]
    for i in range(3):
        assert made.record(f"features=60000-00{i}")["outcome"] == "failed"
    assert "3 × failed: RuntimeError" in output
    summary = json.loads((made.storage / "outcomes" / "result.json").read_text())
    assert summary["best"] == {"features=4": "features=4-000", "features=60000": None}
    runs = mlflow_runs(made.tracking, "outcomes")
    status = {trial: runs[f"features=4-00{trial}"].info.status for trial in range(3)}
    assert status == {0: "FINISHED", 1: "KILLED", 2: "FAILED"}
    for run in runs.values():
        assert run.info.status != "RUNNING"


def test_more_than_the_cluster_has_is_refused(sweep):
    output = sweep("greedy", scale={"workers": 8}).run(code=2)
    assert "8 workers of 1 CPUs" in output
    assert "have 2 CPUs and 0 GPUs" in output


def test_cluster_that_is_not_there_is_named(sweep):
    output = sweep("nocluster", env={"RAY_ADDRESS": "nonsense"}).run(code=2)
    assert "no Ray cluster can be used at 'nonsense'" in output


def test_storage_that_cannot_be_written_is_refused(sweep, tmp_path):
    (tmp_path / "file").write_text("")
    output = sweep("nowhere", storage=str(tmp_path / "file" / "below")).run(code=2)
    assert "`storage` (=" in output
    assert "cannot be written" in output


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


def test_server_that_is_down_is_named_before_anything_runs(sweep):
    uri = f"http://127.0.0.1:{free_port()}"
    output = sweep("down", tracking={"uri": uri}).run(code=2)
    assert f"MLflow at {uri} cannot be used" in output
    assert "started (trial" not in output
