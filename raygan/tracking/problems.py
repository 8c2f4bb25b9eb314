"""Explains errors of MLflow: what is wrong and what to do, in one line, without passwords."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from raygan.addresses import first_line, without_secrets
from raygan.tracking.database import file_of, is_database

USERNAME, PASSWORD, TOKEN = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip
_VARIABLES = f"{USERNAME} and {PASSWORD} (or {TOKEN})"
_CORRECT = "correct `tracking.uri` or MLFLOW_TRACKING_URI"
_OF_FILES = {
    "locked": "is locked by another process: close what uses it, such as a database browser or a "
    "backup (`lsof` with the file's name lists the processes)",
    "readonly": "cannot be written: let this user write the file and its folder, or set "
    "`tracking.uri` to another database",
    "full": "cannot grow, since the disk is full: free some space there",
    "unable to open": "cannot be opened: see that its folder exists and that this user may write "
    "there, or set `tracking.uri` to another database",
    "not a database": "is not an SQLite database: move the file away, or set `tracking.uri` to "
    "another database",
    "malformed": "is damaged: restore it from a backup, or move it away, and MLflow is filled "
    "again from the sweep's records",
}
"""By a part of SQLite's message, what is wrong with the file and what to do."""


def in_short(error: BaseException) -> str:
    """What an error of MLflow or its client says, without the secrets that it may repeat."""
    return first_line(error, map(os.environ.get, (PASSWORD, TOKEN)))


def explain(error: BaseException, uri: str) -> str:
    """What is wrong with MLflow at ``uri``, and what to do now."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, sqlite3.Error):
            return _of_file(cause, uri)
        if isinstance(cause, ModuleNotFoundError):
            return f"{in_short(cause)}: install this Python package here, or {_CORRECT}"
    explained = _of_version(error) or _of_connection(causes) or _of_answer(error)
    if explained is None and is_database(uri):
        return f"{in_short(error)}; see that the database runs, or {_CORRECT}"
    return explained or in_short(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and its causes, from ``error`` to the first cause."""
    seen = 0
    while error is not None and seen < 20:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _of_file(error: sqlite3.Error, uri: str) -> str:
    file: Path | str = file_of(uri) or without_secrets(uri)
    words = next((_OF_FILES[key] for key in _OF_FILES if key in str(error)), None)
    if words is None:
        return f"its database {file} reports: {in_short(error)}; {_CORRECT}"
    return f"its database {file} {words} ({in_short(error)})"


def _of_version(error: BaseException) -> str | None:
    text = in_short(error)
    if "database schema" not in text and "Can't locate revision" not in text:
        return None
    return (
        f"its database was made by another version of MLflow ({text}): install that version here, "
        "or, if it is older than this one, make a backup and run `mlflow db upgrade` with the "
        "database's address"
    )


def _of_answer(error: BaseException) -> str | None:
    """What the server's answer means; None if there was none."""
    from mlflow.exceptions import MlflowException, RestException

    if not isinstance(error, MlflowException):
        return None
    text, code = in_short(error), error.error_code
    said = text.partition("Response body: ")[2] or text
    if code == "PERMISSION_DENIED" and "Host header" in said:
        return (
            f"the server does not accept requests for this host name ({said}): start it with "
            "`--allowed-hosts`, or use a name that it allows"
        )
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return (
            f"the server does not accept this user: set {_VARIABLES} in the environment; "
            f"{_which_are_set()} (the server says: {said})"
        )
    if code == "PERMISSION_DENIED":
        return (
            "the server does not permit this: ask its administrator for the right to edit the "
            f"experiment, or set {_VARIABLES} of a user who has it; {_which_are_set()} (the server "
            f"says: {said})"
        )
    if code == "ENDPOINT_NOT_FOUND":
        return f"no MLflow server answers there: {_CORRECT} (the answer is: {said})"
    if "valid JSON" in text or (
        isinstance(error, RestException) and "error_code" not in error.json
    ):
        return (
            f"no MLflow server answers there, or a gateway asks for a password first: {_CORRECT}, "
            f"or set {_VARIABLES} in the environment; {_which_are_set()} (the answer is: {said})"
        )
    return f"{text}; see the server's log, or {_CORRECT}"


def _which_are_set() -> str:
    given = [name for name in (USERNAME, PASSWORD, TOKEN) if os.environ.get(name)]
    if not given:
        return "none of them is set"
    return f"only {given[0]} is set" if len(given) == 1 else f"{' and '.join(given)} are set"


def _of_connection(causes: list[BaseException]) -> str | None:
    """Why there was no answer; None if that was not the problem."""
    from requests import exceptions

    reason = in_short(causes[-1])
    for cause in causes:
        if isinstance(cause, exceptions.SSLError):
            return (
                f"the encrypted connection fails ({reason}): {_CORRECT} (http or https), or set "
                "REQUESTS_CA_BUNDLE to the file of the authority that signed its certificate"
            )
        if isinstance(cause, exceptions.RetryError):
            return f"it answers with errors ({reason}); see the server's log, or {_CORRECT}"
        if isinstance(cause, exceptions.Timeout):
            return f"it does not answer in time ({reason}); see that it runs, or {_CORRECT}"
        if isinstance(cause, exceptions.ConnectionError):
            return f"it cannot be reached ({reason}); start the server, or {_CORRECT}"
    return None
