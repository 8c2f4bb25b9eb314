"""Search, early stopping, replicates and budgets of whole sweeps on a real cluster."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest
from click.testing import CliRunner

from raygan import records
from raygan.cli import main
from raygan.records import TrialRecord
from raygan.storage import Storage
from tests.clusters import Sweep, mlflow_runs

CELLS = ("vanilla", "bn")


def all_records(made: Sweep) -> dict[str, TrialRecord]:
    return records.load_all(Storage(str(made.storage / made.name)))


def written(made: Sweep) -> dict[str, int]:
    """When each record was written last."""
    found = (made.storage / made.name / "trials").glob("*/record.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def results(made: Sweep) -> list[list[str]]:
    """What `raygan results` prints, as words."""
    done = CliRunner().invoke(main, ["results", made.name, "--storage", str(made.storage)])
    assert done.exit_code == 0, done.output
    return [line.split() for line in done.output.splitlines()]


def test_best_settings_are_replicated_and_more_seeds_extend_the_sweep(sweep):
    made = sweep(
        "stages",
        grid={"norm": list(CELLS)},
        search={"method": "random", "trials": 2, "lr": {"min": 1e-6, "max": 1e-2, "scale": "log"}},
        stop={"rule": "asha", "grace": 20, "reduction": 2},
        replicate={"seeds": 1},
    )
    made.run()
    first = all_records(made)
    best = {}
    for cell in CELLS:
        searched = [first[f"{cell}-00{index}"] for index in range(2)]
        assert {record.kind for record in searched} == {"search"}
        best[cell] = min(
            searched, key=lambda record: (record.outcome == "stopped", record.end_loss)
        )
        replicate = first[f"{best[cell].id}-seed1"]
        assert (replicate.kind, replicate.outcome, replicate.step) == ("replicate", "ok", 40)
        assert replicate.params == best[cell].params
        assert replicate.config == {**best[cell].config, "seed": 1}
    assert len(first) == 6
    summary = json.loads((made.storage / "stages" / "result.json").read_text())
    assert summary["replicates"] == {c: [f"{best[c].id}-seed1"] for c in CELLS}
    runs = mlflow_runs(made.tracking, "stages")
    for trial, record in first.items():
        tags = runs[trial].data.tags
        assert tags["mlflow.parentRunId"] == runs["stages"].info.run_id
        assert (tags["kind"], tags["seed"]) == (record.kind, str(record.config["seed"]))

    before = written(made)
    made.change(replicate={"seeds": 2})
    output = made.run()
    assert "The sweep is extended: `replicate.seeds` from 1 to 2." in output
    after, records = written(made), all_records(made)
    assert after.keys() - before.keys() == {f"{best[cell].id}-seed2" for cell in CELLS}
    assert {trial: after[trial] for trial in before} == before
    assert output.count("started (trial") == 8
    rows = results(made)
    for cell in CELLS:
        ends = [records[f"{best[cell].id}-seed{seed}"].end_loss for seed in (1, 2)]
        setting = f"lr={best[cell].params['lr']:g}"
        mean = statistics.geometric_mean(ends)  # as in the verdict
        assert [cell, setting, "2", f"{mean:.5f}"] in [row[:4] for row in rows]


@pytest.mark.soak
def test_budget_is_kept_and_the_same_command_goes_on_once_it_is_raised(sweep):
    made = sweep(
        "budget",
        search={"lr": [1e-3, 2e-3, 3e-3]},
        budget={"trials": 2},
        train={"norm": "vanilla"},
    )
    output = made.run(code=4)
    assert "The budget is reached (2 of 2 trials): no further trial is started." in output
    assert {trial: record.outcome for trial, record in all_records(made).items()} == {
        "vanilla-000": "ok",
        "vanilla-001": "ok",
    }
    summary = json.loads((made.storage / "budget" / "result.json").read_text())
    assert (summary["exit_code"], summary["finished"]) == (4, False)
    assert mlflow_runs(made.tracking, "budget")["budget"].info.status == "KILLED"

    before = written(made)
    made.change(budget={"trials": 3})
    output = made.run()
    assert {record.outcome for record in all_records(made).values()} == {"ok"}
    after = written(made)
    assert len(after) == 3
    assert {trial: after[trial] for trial in before} == before
    runs = mlflow_runs(made.tracking, "budget")
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


@pytest.mark.soak
def test_stopped_trial_gives_way_while_another_ray_runs_on_this_machine(cluster, sweep):
    """Without an address, raygan starts a Ray of its own beside the cluster's."""
    made = sweep(
        "beside",
        # one CPU: what a stopped trial does not give back, the next one lacks
        env={"RAY_ADDRESS": None, "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'},
        search={"lr": [1e-3, 1e-6, 2e-6]},
        stop={"rule": "asha", "grace": 20, "reduction": 2},
        train={"norm": "vanilla"},
    )
    output = made.run()
    assert "up to 1 trials at once" in output
    assert cluster.head.poll() is None
    found = all_records(made)
    assert {trial: (r.outcome, r.reason) for trial, r in found.items()} == {
        "vanilla-000": ("ok", None),
        "vanilla-001": ("stopped", "asha at iteration 20"),
        "vanilla-002": ("stopped", "asha at iteration 20"),
    }


LEFT = """
import time, ray
from ray.util.placement_group import placement_group, placement_group_table
from raygan.sweep.cluster import ray_quirks

class Maker:
    def make(self, cpus):
        return placement_group([{"CPU": cpus}])

ray.init(logging_level="ERROR", log_to_driver=False)
makers = [ray.remote(num_cpus=0)(Maker).remote() for _ in range(2)]
groups = [ray.get(maker.make.remote(cpus)) for maker in makers for cpus in (0.1, 1000)]
own = placement_group([{"CPU": 0.1}])
ray.kill(makers[0])
deadline = time.monotonic() + 60

def states():
    return [placement_group_table(group)["state"] for group in (*groups, own)]

while states()[:2] != ["REMOVED"] * 2 and time.monotonic() < deadline:
    ray_quirks.free_leftovers()
    time.sleep(0.2)
print(" ".join(states()))
"""


def test_groups_that_a_dead_actor_has_left_are_removed(cluster):
    """Those that are there, and those that wait for what the cluster does not have."""
    run = subprocess.run(
        [sys.executable, "-c", LEFT], env=cluster.env, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["REMOVED", "REMOVED", "CREATED", "PENDING", "CREATED"], run.stderr
