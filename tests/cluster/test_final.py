"""The final tests of a sweep's replicates on a real cluster."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient

from tests.clusters import PATIENCE, Sweep, mlflow_runs, wait_until
from tests.tree import files_in, strange

BUDGET = {"steps": 5, "images": 16, "restarts": 1, "audited": 4}


def results(made: Sweep) -> dict[str, dict]:
    """What each test left, by trial and generator; and, by names that end in ``-quality``, the
    quality of samples."""
    found = (made.storage / made.name / "trials").glob("*/final/*.json")
    return {
        f"{path.parent.parent.name}/{path.stem}": json.loads(path.read_text()) for path in found
    }


def times(made: Sweep) -> dict[Path, int]:
    """When each file of the tests was written."""
    found = (made.storage / made.name / "trials").glob("*/final/*")
    return {path: path.stat().st_mtime_ns for path in found}


def check_mlflow(made: Sweep, found: dict[str, dict]) -> None:
    """MLflow has the tests' losses, the verdict, the report, and a champion that can be loaded."""
    runs = mlflow_runs(made.tracking, made.name)
    for trial, run in runs.items():
        if "-seed" in trial:
            for which in ("best", "last"):
                assert run.data.metrics[f"final/{which}"] == found[f"{trial}/{which}"]["loss"]
                quality = found[f"{trial}/{which}-quality"]["sliced_wasserstein"]
                assert run.data.metrics[f"final/{which}_sliced_wasserstein"] == quality
        if trial != made.name:
            assert run.data.metrics["stability/roughness"] >= 0
            # three of them are the quality of samples
            assert len(run.data.metrics) + len(run.data.params) < 30 + 3
    parent = runs[made.name]
    assert parent.data.tags["mlflow.note.content"].startswith("By the final test's loss")
    assert {"loss/wn", "failed/wn"} < set(parent.data.metrics)
    client = MlflowClient(made.tracking)
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "report.md", "report", "results.parquet"} <= artifacts
    version = client.get_model_version_by_alias(f"raygan-{made.name}", "champion")
    model = mlflow.pytorch.load_model(version.source)
    images = model(torch.zeros(3, 8))
    assert images.shape == (3, 1, 16, 16)
    assert 0 <= images.min() <= images.max() <= 1


def test_replicates_are_tested_in_the_end(sweep):
    made = sweep(
        "final",
        grid={"norm": ["vanilla", "wn"]},
        replicate={"seeds": 2},
        train={"quality": "wasserstein"},
        final=BUDGET,
    )
    output = made.run()
    assert strange(files_in(made.storage)) == set()
    everything = results(made)
    found = {name: test for name, test in everything.items() if not name.endswith("-quality")}
    assert set(everything) == {*found, *(f"{name}-quality" for name in found)}
    assert set(found) == {
        f"{norm}-seed{seed}/{which}"
        for norm in ("vanilla", "wn")
        for seed in (1, 2)
        for which in ("best", "last")
    }
    assert {(f["steps"], f["images"], f["audited"]) for f in found.values()} == {(5, 16, 4)}
    assert all(f["step"] == 40 for name, f in found.items() if name.endswith("last"))
    assert all(f["restarts_loss"] <= f["audited_loss"] for f in found.values())
    assert re.search(r"Final tests of \d generators, 5 steps per image", output)
    assert not list((made.storage / "final").glob("trials/*/final/*-progress.json"))

    for name, test in found.items():
        quality = everything[f"{name}-quality"]
        assert (quality["step"], quality["images"]) == (test["step"], 1000)
    check_mlflow(made, everything)


@pytest.mark.soak
def test_sweep_that_is_stopped_among_its_final_tests_goes_on_with_them(sweep):
    made = sweep(
        "finalstop",
        grid={"norm": ["vanilla"]},
        replicate={"seeds": 2},
        scale={"max_concurrent": 1},
        final={"steps": 1500, "images": 100, "restarts": 0},
    )
    with made.running() as process:
        wait_until(lambda: results(made), "the first final test", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    before = times(made)
    assert "vanilla-seed2/last" not in results(made)
    made.run()
    assert len(results(made)) == 4
    after = times(made)
    assert {path: after[path] for path in before} == before
