"""What is said when MLflow cannot be used: the cause, and what to do; never a password."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException

from raygan.errors import ConfigError, TrackingError
from raygan.storage import Storage
from raygan.tracking import database, mlflow_tracker, problems
from raygan.tracking.context import default_uri, is_file
from raygan.tracking.mlflow_tracker import Tracker

USERNAME, PASSWORD, TOKEN = problems.USERNAME, problems.PASSWORD, problems.TOKEN


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (USERNAME, PASSWORD, TOKEN, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def answer() -> Iterator:
    """Start a server that answers all requests so; returns its address."""
    servers = []

    def start(status: int, body: str, kind: str = "text/html") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(uri: str, tmp_path) -> str:
    with pytest.raises(TrackingError) as error:
        Tracker(uri, "experiment", "sweep", Storage(str(tmp_path)) / "sweep").connect()
    text = str(error.value)
    assert "\n" not in text
    assert uri in text
    return text


@pytest.mark.parametrize(
    "given", [{}, {USERNAME: "me"}, {USERNAME: "me", PASSWORD: "hunter2"}, {TOKEN: "hunter2"}]
)
def test_server_that_wants_a_password_names_the_variables_and_which_are_set(
    answer, tmp_path, monkeypatch, given
):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    text = refused(answer(401, "You are not authenticated: hunter2, \x1b[31m"), tmp_path)
    for name in (USERNAME, PASSWORD, TOKEN):
        assert name in text
        assert text.count(name) == (2 if name in given else 1)
    assert ("none of them is set" in text) == (not given)
    assert ("hunter2" in text) == (not {PASSWORD, TOKEN} & set(given))
    assert "\x1b" not in text


CASES = [
    (403, "Permission denied", "right to edit"),
    (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
    (404, "<html>Not Found</html>", "no MLflow server answers"),
    (200, "<html>Log in</html>", "gateway"),
    (401, '{"detail": "Not authenticated"}', PASSWORD),
    (500, '{"error_code": "INTERNAL_ERROR", "message": "disk \x1b full"}', "server's log"),
    (500, "<html>Internal</html>", "server's log"),
    (503, "busy", "server's log"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "words"), CASES)
def test_answer_of_a_server_is_explained(answer, tmp_path, status, body, words):
    text = refused(answer(status, body), tmp_path)
    assert words in text
    assert "MLFLOW_TRACKING_URI" in text or status in (401, 403)
    assert "\x1b" not in text


def test_server_that_cannot_be_reached_is_said_to_be_so(answer, tmp_path):
    text = refused("http://127.0.0.1:9", tmp_path)
    assert "cannot be reached ([Errno 111] Connection refused); start the server" in text
    assert "HTTPConnectionPool" not in text
    assert "certificate" in refused(answer(200, "{}").replace("http:", "https:"), tmp_path)


@pytest.mark.parametrize("uri", ["ftp://example.org/x", "localhost:5000", "mlruns", "file:///x"])
def test_address_that_mlflow_does_not_know_is_refused(tmp_path, uri):
    assert "tracking.uri" in refused(uri, tmp_path)


PASSWORDS = [
    ("http://user:hunter2@example.org", PASSWORD),
    ("postgresql://user:hunter2@example.org/mlflow", "PGPASSWORD"),
    ("postgresql+psycopg2://user:hunter2@example.org/mlflow", "PGPASSWORD"),
    ("mysql+pymysql://user:hunter2@example.org/mlflow", "configuration file"),
]


@pytest.mark.parametrize(("uri", "instead"), PASSWORDS)
def test_password_in_an_address_is_refused_and_not_repeated(tmp_path, monkeypatch, uri, instead):
    storage = Storage(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"`tracking\.uri`.*{instead}") as error:
        Tracker(uri, "experiment", "sweep", storage)
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match=f"`MLFLOW_TRACKING_URI`.*{instead}") as error:
        default_uri(storage)
    assert "hunter2" not in str(error.value)


def test_secrets_in_messages_of_others_are_hidden(monkeypatch):
    monkeypatch.setenv(TOKEN, "t0ken")
    error = MlflowException("GET https://user:hunter2@example.org/x?token=abc failed, t0ken\nmore")
    text = problems.in_short(error)
    assert text == "GET https://***@example.org/x?token=*** failed, ***"


def locked(file, words: str = "BEGIN EXCLUSIVE") -> sqlite3.Connection:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute(words)
    return other


def made(file) -> None:
    """As a database of MLflow is, in what is looked at."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('x')")
        connection.commit()


@pytest.mark.parametrize("how", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_locked_file_is_named_before_mlflow_waits_for_it(tmp_path, monkeypatch, how):
    assert database.WAIT_SECONDS < 10
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    file = tmp_path / "mlflow.db"
    made(file)
    with closing(locked(file, how)):
        text = refused(f"sqlite:///{file}", tmp_path)
    assert f"database {file} is locked by another process: close" in text


def test_a_file_that_is_locked_at_the_end_is_named_before_mlflow_waits_for_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.0)
    file = tmp_path / "mlflow.db"
    made(file)
    tracker = Tracker(f"sqlite:///{file}", "experiment", "sweep", Storage(str(tmp_path)) / "sweep")
    tracker._runs = SimpleNamespace(
        parent="p", close=lambda *_: pytest.fail("MLflow waits for a minute")
    )
    with closing(locked(file)):
        assert not tracker.close("FINISHED")
    assert "is locked by another process" in tracker.last_error
    assert tracker.closed.is_set()


def test_file_that_another_sweep_is_making_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    file = tmp_path / "mlflow.db"
    with closing(locked(file, "BEGIN IMMEDIATE")):
        database.check(f"sqlite:///{file}")


def test_file_that_is_no_database_or_cannot_be_opened_is_named(tmp_path):
    wrong = tmp_path / "wrong.db"
    wrong.write_bytes(b"text" * 300)
    assert f"database {wrong} is not an SQLite database" in refused(f"sqlite:///{wrong}", tmp_path)
    (folder := tmp_path / "folder.db").mkdir()
    assert f"database {folder} cannot be opened" in refused(f"sqlite:///{folder}", tmp_path)


def test_full_disk_and_file_that_cannot_be_written_are_named(tmp_path):
    file = tmp_path / "mlflow.db"
    made(file)
    cases = (
        (f"file:{file}?mode=ro", "cannot be written"),
        (f"file:{file}", "cannot grow, since the disk is full"),
    )
    for opened, words in cases:
        with closing(sqlite3.connect(opened, uri=True)) as connection:
            connection.execute("PRAGMA max_page_count = 3")
            with pytest.raises(sqlite3.OperationalError) as cause:
                connection.execute("CREATE TABLE big AS SELECT zeroblob(100000)")
        error = sqlalchemy.exc.OperationalError("INSERT", {}, cause.value)
        error.__cause__ = cause.value
        assert f"database {file} {words}" in problems.explain(error, f"sqlite:///{file}")


def test_database_of_another_version_is_named():
    for text in (
        "Detected out-of-date database schema (found version a, but expected b)",
        "Can't locate revision identified by 'a'",
    ):
        found = problems.explain(MlflowException(text), "sqlite:///mlflow.db")
        assert "another version of MLflow" in found
        assert "mlflow db upgrade" in found


def test_missing_driver_of_a_database_is_named_at_once(tmp_path, monkeypatch):
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    text = refused("postgresql://example.org/mlflow", tmp_path)
    assert "psycopg" in text
    assert "install this Python package" in text


def test_error_that_is_not_of_mlflow_is_given_as_it_is():
    error = OSError(28, "No space left on device", "x")
    assert problems.explain(error, "http://example.org") == str(error)


@pytest.mark.parametrize("name", ["a b", "a#b", "100%", "a;'\"b", "a@b:c", "ä"])
def test_embedded_database_lies_in_a_storage_of_any_name(tmp_path, name):
    uri = default_uri(Storage(str(tmp_path / name)))
    assert is_file(uri)
    assert database.file_of(uri) == tmp_path / name / "mlflow.db"
    assert sqlalchemy.make_url(uri).database == str(tmp_path / name / "mlflow.db")


def test_storage_whose_name_means_another_file_in_an_address_is_refused(tmp_path):
    if sqlalchemy.make_url("sqlite:///a%41").database == "a%41":
        pytest.skip("this SQLAlchemy takes the path as it is")
    with pytest.raises(TrackingError, match="give another `storage`"):
        default_uri(Storage(str(tmp_path / "a%41")))


def test_drivers_of_sqlite_are_files_and_servers_are_not():
    assert is_file("sqlite+pysqlite:////x/mlflow.db")
    assert not is_file("databricks")
    assert database.file_of("http://example.org") is None
    assert database.file_of("sqlite:///:memory:") is None
    assert database.is_database("postgresql+psycopg2://h/x")
