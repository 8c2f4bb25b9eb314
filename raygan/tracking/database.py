"""MLflow's store in an SQL database: its address, and whether it can be used now."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from raygan.errors import TrackingError

WAIT_SECONDS = 5.0
"""How long a database file may be locked by others before that is said."""


def is_database(uri: str) -> bool:
    """Whether ``uri`` is an SQL database, rather than a server of MLflow."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


def address_of(file: Path) -> str:
    """The address of the SQLite database ``file``.

    Raises :class:`~raygan.errors.TrackingError` if no address means that very file.
    """
    import sqlalchemy

    uri = f"sqlite:///{file}"
    if sqlalchemy.make_url(uri).database != str(file):
        # an escaped path is no way out: MLflow makes a folder of the address as it is written
        raise TrackingError(
            f"MLflow's database cannot be kept at {str(file)!r}: in its address, '%' with two "
            "hexadecimal digits stands for another character; give another `storage`, or set "
            "`tracking.uri`"
        )
    return uri


def file_of(uri: str) -> Path | None:
    """The file of the SQLite database at ``uri``; None if it is none."""
    import sqlalchemy

    if not is_database(uri):
        return None
    url = sqlalchemy.make_url(uri)
    found = url.database if url.get_backend_name() == "sqlite" and not url.query else None
    return None if found in (None, "", ":memory:") else Path(str(found))


def check(uri: str) -> None:
    """Use the database at ``uri`` once, as MLflow's own many attempts take minutes.

    Raises what its driver raises: after :data:`WAIT_SECONDS` if a file is locked.
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
        # one that another sweep is making now is locked for longer, and MLflow waits for it
        query = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        made = connection.execute(query).fetchone()
        if made and connection.execute("SELECT 1 FROM alembic_version").fetchone():
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
