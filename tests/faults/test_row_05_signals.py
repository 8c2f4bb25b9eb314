"""Row 5: a sweep is told to stop, in each of the ways in which that can be done.

All tests interrupt the same sweep, and each one goes on where the one before has left it.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from raygan import records
from raygan.checkpoints import find_checkpoints
from raygan.cli import main
from raygan.folder import trial_folder
from raygan.storage import Storage
from raygan.sweep.session import lock
from tests.clusters import (
    BIN,
    LONGER,
    PATIENCE,
    Sweep,
    logged_steps,
    mlflow_runs,
    wait_until,
)

TRIALS = ("vanilla-000", "bn-000")


@pytest.fixture(scope="module")
def endless(sweep) -> Sweep:
    return sweep(
        "interrupted",
        grid={"norm": ["vanilla", "bn"]},
        train={**LONGER, "iterations": 100_000},
    )


@contextmanager
def going_on(made: Sweep) -> Iterator[None]:
    """What runs in this block goes on where the sweep was."""
    (made.storage / made.name / "result.json").unlink(missing_ok=True)  # of the run before
    before = {trial: (made.curve(trial), made.pictures(trial)) for trial in TRIALS}
    yield
    for trial, (curve, pictures) in before.items():
        now, again = made.curve(trial), made.pictures(trial)
        assert now[: len(curve)] == curve
        assert len(now) > len(curve)
        assert [at for at, _ in curve[:-1] if again[at] != pictures[at]] == [], "made again"


def has_gone_on(made: Sweep, process: subprocess.Popen | None = None) -> None:
    """Wait for an evaluation of each trial in this run."""
    before = {trial: len(made.curve(trial)) for trial in TRIALS}
    for trial in TRIALS:
        wait_until(lambda t=trial: len(made.curve(t)) > before[t], f"{trial} trains", process)


def check_stopped_in_order(made: Sweep, code: int) -> None:
    """Nothing is lost, half done, or said to be running still."""
    folder = Storage(str(made.storage / made.name))
    summary = json.loads(folder.read("result.json"))
    assert (summary["exit_code"], summary["finished"]) == (code, False)
    assert lock.read(folder) is None
    check_records_and_runs(made)


def check_records_and_runs(made: Sweep) -> None:
    """No evaluation is lost or half written, and no run is said to be running."""
    known = records.load_all(Storage(str(made.storage / made.name)))
    assert set(known) == set(TRIALS)
    runs = mlflow_runs(made.tracking, made.name)
    assert {trial: run.info.status for trial, run in runs.items()} == dict.fromkeys(
        (made.name, *TRIALS), "KILLED"
    )
    for trial, record in known.items():
        assert record.outcome is None
        steps = [step for step, _ in record.curve]
        assert steps == list(range(10, 10 * len(steps) + 1, 10))
        logged = logged_steps(made.tracking, runs[trial])
        assert logged == steps[: len(logged)]  # the next submission brings the rest


def newest_checkpoints(made: Sweep) -> dict[str, int]:
    homes = {t: Storage(str(made.storage / made.name)) / trial_folder(t) for t in TRIALS}
    return {t: found[0][0] for t, home in homes.items() if (found := find_checkpoints(home))}


@contextmanager
def without_other_checkpoints(made: Sweep, reference: Sweep) -> Iterator[None]:
    """The run in this block leaves those that were written when it was stopped."""
    made.change(train={"checkpoint_every": "1h"})
    yield
    made.change(train={"checkpoint_every": 10})
    for trial, step in newest_checkpoints(made).items():
        curve, expected = made.curve(trial), reference.curve(trial)
        assert step >= curve[-1][0]  # no evaluation is made again
        assert curve[: len(expected)] == expected[: len(curve)]


def test_interrupt(endless, reference):
    with without_other_checkpoints(endless, reference):
        with going_on(endless), endless.running() as process:
            has_gone_on(endless, process)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        check_stopped_in_order(endless, 130)
    said = endless.log.read_text()
    assert "Stopping: 2 trials write a last checkpoint, for at most 30 s." in said
    assert "Interrupted; the same command resumes the sweep." in said


@pytest.mark.soak
def test_terminate(endless):
    stopped_at = newest_checkpoints(endless)
    with going_on(endless), endless.running() as process:
        has_gone_on(endless, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    check_stopped_in_order(endless, 143)
    said = endless.log.read_text()
    for step in stopped_at.values():
        assert f"resumed after iteration {step}\n" in said


def test_job_stop(cluster, endless):
    env = {k: v for k, v in cluster.env.items() if k != "RAY_ADDRESS"}

    def job(*arguments: str) -> str:
        command = [str(BIN / "ray"), "job", *arguments]
        done = subprocess.run(
            [*command[:3], "--address", cluster.dashboard, *command[3:]],
            env=env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with going_on(endless):
        job("submit", "--no-wait", "--submission-id", "interrupted", "--",
            "python", "-m", "raygan.sweep", str(endless.file))  # fmt: skip
        try:
            has_gone_on(endless)
            arguments = ["status", endless.name, "--storage", str(endless.storage)]
            assert ", job interrupted, since 20" in CliRunner().invoke(main, arguments).output
        finally:
            job("stop", "interrupted")
    assert "STOPPED" in job("status", "interrupted").upper()
    # 3 seconds later it is killed: tables and lock may be left to the next submission
    check_records_and_runs(endless)


def test_stop_from_another_shell(endless, reference):
    with without_other_checkpoints(endless, reference):
        with going_on(endless), endless.running() as process:
            has_gone_on(endless, process)
            arguments = ["stop", endless.name, "--storage", str(endless.storage)]
            done = CliRunner().invoke(main, arguments)
            assert (done.exit_code, process.wait(PATIENCE)) == (0, 143)
        assert f"Asked process {process.pid} on " in done.output
        assert "Stopped. The same command resumes the sweep." in done.output
        check_stopped_in_order(endless, 143)
