"""MLflow's SQLite file is locked by another process: said at once, at the start and later."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.clusters import LONGER, logged_steps, mlflow_runs, wait_until

TRIAL = "bn-000"


@contextmanager
def locked(file: Path) -> Iterator[str]:
    """While it is locked; what is said then."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield f"database {file} is locked by another process"


def test_locked_database_is_named_and_nothing_is_started(sweep):
    made = sweep("locked", grid={"norm": ["bn"]})
    made.change(storage=str(made.storage / "locked"))
    file = made.storage / "locked" / "mlflow.db"
    file.parent.mkdir(parents=True)
    with locked(file) as words:
        output = made.run(code=2)
    assert words in output
    assert "Traceback" not in output
    assert not (file.parent / "locked" / "trials").exists()
    assert not (file.parent / "data").exists()


@pytest.mark.soak
def test_a_lock_that_comes_later_is_said_and_nothing_is_lost(sweep):
    made = sweep("locked-later", grid={"norm": ["bn"]}, train=LONGER)

    report = made.storage / made.name / "report.html"

    def output() -> str:
        return " ".join(made.log.read_text().split())

    with made.running() as process:
        wait_until(lambda: made.curve(TRIAL), "an evaluation", process)
        with locked(made.storage / "mlflow.db") as words:
            wait_until(lambda: words in output(), "the lock is told", process)
            wait_until(report.exists, "training ends, and the tables are written", process)
        assert process.wait(180) == 0, output()
    assert "MLflow is behind by" in output()
    assert "MLflow is caught up again" in output()
    runs = mlflow_runs(made.tracking, made.name)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert logged_steps(made.tracking, runs[TRIAL]) == [10, 20, 30, 40, 50, 60]
