"""Row 20: the YAML is no longer the one that the sweep has begun with."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clusters import PATIENCE, Sweep, mlflow_runs, wait_until


@pytest.fixture
def changed(reference, tmp_path) -> Sweep:
    """The finished sweep with more iterations."""
    made = replace(reference, file=tmp_path / "changed.yaml")
    made.file.write_text(reference.file.read_text().replace("iterations: 60", "iterations: 70"))
    return made


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_change_is_refused_with_the_difference_and_both_ways_on(changed):
    before = written(changed.storage / changed.name / "trials")
    output = changed.run(code=2)
    assert "-  iterations: 60" in output
    assert "+  iterations: 70" in output
    assert "start a new sweep with the changed one (--fresh, or --set name=…)" in output
    assert "restore the YAML, or" in output
    assert written(changed.storage / changed.name / "trials") == before


@pytest.mark.soak
def test_fresh_starts_the_changed_sweep_beside_it(changed):
    before = written(changed.storage / changed.name)
    beside = changed.storage / f"{changed.name}-2"
    with changed.running("--fresh") as process:
        wait_until(lambda: list(beside.glob("trials/*/record.json")), "it trains", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    assert "iterations: 70" in (beside / "sweep.yaml").read_text()
    assert written(changed.storage / changed.name) == before
    old, new = (mlflow_runs(changed.tracking, name) for name in (changed.name, beside.name))
    assert {run.info.status for run in old.values()} == {"FINISHED"}
    assert new[beside.name].info.status == "KILLED"
    assert new[beside.name].info.run_id != old[changed.name].info.run_id


@pytest.mark.soak
def test_more_trials_and_seeds_are_taken_up_and_said(sweep):
    made = sweep(
        "grows",
        search={"method": "random", "trials": 1, "lr": {"min": 1e-4, "max": 1e-3}},
        train={"norm": "vanilla"},
    )
    made.run()
    record = made.storage / made.name / "trials" / "vanilla-000" / "record.json"
    before = record.read_bytes()
    made.change(search={"trials": 2}, replicate={"seeds": 1})
    with made.running() as process:
        wait_until(
            lambda: "started (trial vanilla-001;" in made.log.read_text(), "it goes on", process
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    output = made.log.read_text()
    assert "The sweep is extended: `search.trials` from 1 to 2." in output
    assert "The sweep is extended: `replicate.seeds` from 0 to 1." in output
    assert "grows: 3 trials in 1 cells; resumed, 1 of its trials done" in output
    assert output.count("started (trial vanilla-000;") == 1
    assert record.read_bytes() == before
