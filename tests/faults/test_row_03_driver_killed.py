"""Row 3: the process that runs the sweep is killed outright."""

from __future__ import annotations

from click.testing import CliRunner

from raygan.cli import main
from raygan.storage import Storage
from raygan.sweep.session import lock
from tests.clusters import LONGER, logged_steps, mlflow_runs, wait_until

DONE, CUT = "vanilla-000", "bn-000"


def test_same_command_goes_on_with_what_had_not_ended(reference, sweep):
    made = sweep(
        "driver-killed",
        grid={"norm": ["vanilla", "bn"]},
        train=LONGER,
        scale={"max_concurrent": 1},
    )
    folder = Storage(str(made.storage / made.name))
    with made.running() as process:
        wait_until(lambda: len(made.curve(CUT)) >= 3, "the second trial trains", process)
        process.kill()
        process.wait(30)
    assert lock.read(folder).pid == process.pid, "it had the time to give back its lock"
    assert [made.record(trial)["outcome"] for trial in (DONE, CUT)] == ["ok", None]
    arguments = ["status", made.name, "--storage", str(made.storage)]
    assert "died. The same command resumes the sweep." in CliRunner().invoke(main, arguments).output
    record = made.storage / made.name / "trials" / DONE / "record.json"
    written = record.stat().st_mtime_ns
    cut_at, pictures = made.curve(CUT)[-1][0], made.pictures(CUT)

    output = made.run()
    assert record.stat().st_mtime_ns == written
    assert output.count(f"started (trial {DONE}") == 1
    assert output.count(f"started (trial {CUT}") == 2
    # its worker outlives the driver for a moment: at most one checkpoint back, or further on
    again = made.pictures(CUT)
    assert [step for step in pictures if step < cut_at and again[step] != pictures[step]] == []
    assert lock.read(folder) is None
    for trial in (DONE, CUT):
        assert made.curve(trial) == reference.curve(trial)
    runs = mlflow_runs(made.tracking, made.name)
    assert set(runs) == {made.name, DONE, CUT}
    for trial in (DONE, CUT):
        assert (runs[trial].info.status, runs[trial].data.tags["outcome"]) == ("FINISHED", "ok")
        assert logged_steps(made.tracking, runs[trial]) == [10, 20, 30, 40, 50, 60]
