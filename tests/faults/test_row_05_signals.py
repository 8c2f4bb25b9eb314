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
from raygan.cli import main
from raygan.storage import Storage
from raygan.sweep.session import lock
from tests.clusters import BIN, PATIENCE, Sweep, logged_steps, mlflow_runs, wait_until

TRIALS = ("vanilla-000", "bn-000")


@pytest.fixture(scope="module")
def endless(sweep) -> Sweep:
    return sweep(
        "interrupted",
        grid={"norm": ["vanilla", "bn"]},
        train={"iterations": 100_000, "reconstruction_steps": 1000, "checkpoint_every": 10},
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal(endless, number, code):
    with going_on(endless), endless.running() as process:
        has_gone_on(endless, process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
    check_stopped_in_order(endless, code)
    assert "Interrupted; the same command resumes the sweep." in endless.log.read_text()


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


def test_stop_from_another_shell(endless):
    with going_on(endless), endless.running() as process:
        has_gone_on(endless, process)
        done = CliRunner().invoke(main, ["stop", endless.name, "--storage", str(endless.storage)])
        assert (done.exit_code, process.wait(PATIENCE)) == (0, 143)
    assert f"Asked process {process.pid} on " in done.output
    assert "Stopped. The same command resumes the sweep." in done.output
    check_stopped_in_order(endless, 143)
