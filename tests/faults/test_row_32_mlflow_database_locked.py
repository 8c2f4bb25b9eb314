"""MLflow's SQLite file is locked by another process: said at once, before anything is started."""

import sqlite3
from contextlib import closing


def test_locked_database_is_named_and_nothing_is_started(sweep):
    made = sweep("locked", grid={"norm": ["bn"]})
    made.change(storage=str(made.storage / "locked"))
    file = made.storage / "locked" / "mlflow.db"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        output = made.run(code=2)
    assert f"database {file} is locked by another process" in output
    assert "Traceback" not in output
    assert not (file.parent / "locked" / "trials").exists()
    assert not (file.parent / "data").exists()
