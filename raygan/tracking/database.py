"""MLflow's store in an SQL database: its address, and whether it can be used now."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from raygan.errors import TrackingError

WAIT_SECONDS = 5.0
"""How long a database file may be locked by other processes before that is an error."""


def is_database(uri: str) -> bool:
    """Whether ``uri`` is an SQL database, not an MLflow server."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


def address_of(file: Path) -> str:
    """The address of the SQLite database ``file``.

    Raises :class:`~raygan.errors.TrackingError` if no address leads to this file.
    """
    import sqlalchemy

    uri = f"sqlite:///{file}"
    if sqlalchemy.make_url(uri).database != str(file):
        # escaping does not help: MLflow creates the folder that the address has before decoding
        raise TrackingError(
            f"MLflow's database cannot be kept at {str(file)!r}: in its address, '%' with two "
            "hexadecimal digits stands for another character; give another `storage`, or set "
            "`tracking.uri`"
        )
    return uri


def file_of(uri: str) -> Path | None:
    """The file of the SQLite database at ``uri``; None for any other store."""
    import sqlalchemy

    if not is_database(uri):
        return None
    url = sqlalchemy.make_url(uri)
    file = url.database if url.get_backend_name() == "sqlite" and not url.query else None
    return None if file in (None, "", ":memory:") else Path(str(file))


def check(uri: str) -> None:
    """Connect to the database at ``uri`` once, since MLflow's own attempts take minutes.

    Raises what the driver raises; after :data:`WAIT_SECONDS` if a file is locked.
    """
    if not is_database(uri):
        return
    if (file := file_of(uri)) is not None:
        _check_file(file)
        return
    import sqlalchemy

    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    engine.connect().close()


def _check_file(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
        # while another sweep creates the database, it is locked for longer, and MLflow waits
        query = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        made = connection.execute(query).fetchone()
        if made and connection.execute("SELECT 1 FROM alembic_version").fetchone():
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
