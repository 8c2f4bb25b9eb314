"""Row 12: training leaves the finite numbers."""

from __future__ import annotations

import json

from raygan import records
from raygan.storage import Storage
from tests.clusters import logged_steps, mlflow_runs


def test_trial_ends_is_never_best_and_the_sweep_goes_on(sweep):
    made = sweep(
        "notfinite",
        # at once beyond all numbers; its retry, after its warmup
        search={"lr": [1e30, 1e-6]},
        warmup={"iterations": 120, "factor": 1e-33},
        train={"norm": "vanilla", "iterations": 160, "evaluate_every": 40},
    )
    output = made.run()
    outcomes = {
        "vanilla-000": "early-failure",
        "vanilla-000-warmup": "diverged",
        "vanilla-001": "ok",
    }
    folder = made.storage / made.name
    assert {path.name for path in (folder / "trials").iterdir()} == set(outcomes)
    assert {trial: made.record(trial)["outcome"] for trial in outcomes} == outcomes
    assert "not finite at iteration 40" in made.record("vanilla-000")["reason"]
    assert "not finite at iteration 160" in made.record("vanilla-000-warmup")["reason"]
    for trial in outcomes:
        assert output.count(f"started (trial {trial};") == 1

    # the one that diverged had come further by then
    known = records.load_all(Storage(str(folder)))
    assert known["vanilla-000-warmup"].end_loss < known["vanilla-001"].end_loss
    assert json.loads((folder / "result.json").read_text())["best"] == {"vanilla": "vanilla-001"}

    # no evaluation with anything that is not a number is kept anywhere
    assert [step for step, _ in made.curve("vanilla-000-warmup")] == [40, 80, 120]
    assert made.curve("vanilla-000") == []
    runs = mlflow_runs(made.tracking, made.name)
    status = {trial: (run.info.status, run.data.tags.get("outcome")) for trial, run in runs.items()}
    assert status == {
        made.name: ("FINISHED", None),
        "vanilla-000": ("FAILED", "early-failure"),
        "vanilla-000-warmup": ("FAILED", "diverged"),
        "vanilla-001": ("FINISHED", "ok"),
    }
    assert logged_steps(made.tracking, runs["vanilla-000-warmup"]) == [40, 80, 120]
    assert logged_steps(made.tracking, runs["vanilla-000"]) == []
