"""Row 35: the MLflow server wants a password, and has none or a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raygan.tracking.problems import PASSWORD, USERNAME
from tests.clusters import free_port, make_sweep, ray_env, serve, stop

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that knows one user."""
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    folder = tmp_path_factory.mktemp("auth")
    users = folder / "users.ini"
    users.write_text(
        "[mlflow]\n"
        "default_permission = EDIT\n"
        f"database_uri = sqlite:///{folder}/users.db\n"
        "admin_username = raygan\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    env = {
        **ray_env(folder / "token"),
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_AUTH_ADMIN_PASSWORD": SECRET,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "f" * 32,
    }
    process = serve(folder, port, env, "--app-name", "basic-auth")
    yield f"http://127.0.0.1:{port}"
    stop(process)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "none of them is set"),
        ({USERNAME: "raygan"}, f"only {USERNAME} is set"),
        ({USERNAME: "raygan", PASSWORD: "wr0ng-passw0rd"}, f"{USERNAME} and {PASSWORD} are set"),
    ],
)
def test_the_error_names_the_variables_before_anything_starts(
    server: str, tmp_path: Path, given: dict[str, str], says: str
) -> None:
    env = {**ray_env(tmp_path / "token"), **given}
    made = make_sweep("refused", tmp_path / "storage", env, tracking={"uri": server})
    output = " ".join(made.run(code=2).split())
    assert "the server does not accept this user: set" in output
    assert f"{USERNAME} and {PASSWORD}" in output
    assert says in output
    assert "wr0ng-passw0rd" not in output
    assert "Traceback" not in output
    assert not (made.storage / "data").exists()
    assert not (made.storage / made.name / "trials").exists()


def test_with_the_password_the_server_takes_the_sweep(server: str, tmp_path: Path) -> None:
    from raygan.storage import Storage
    from raygan.tracking.mlflow_tracker import Tracker

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(USERNAME, "raygan")
        patched.setenv(PASSWORD, SECRET)
        tracker = Tracker(server, "raygan", "norms", Storage(str(tmp_path)) / "norms")
        tracker.connect()
        tracker.open("id", "name: norms\n", {})
        assert tracker.close("FINISHED")
        assert tracker.ended("id") is not None
