"""Compose: valid, no password of its own, open to this machine alone unless told otherwise."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.infra.manifests import IMAGE, INFRA, KUBERNETES

FOLDER = INFRA / "compose"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
REQUIRED = set(re.findall(r"\$\{(\w+):\?", TEXT))


def test_the_file_keeps_the_schema_of_compose() -> None:
    pytest.importorskip("check_jsonschema", reason="not installed; the extra `infra` has it")
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError, match="imag"):
        jsonschema.validate({"services": {"x": {"imag": "y"}}}, schema)


def test_images_are_pinned_and_those_of_kubernetes() -> None:
    images = {service["image"] for service in COMPOSE["services"].values()}
    raygan = f"${{RAYGAN_IMAGE:-{IMAGE}}}"
    assert raygan in images
    manifests = "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    for image in images - {raygan}:
        assert f"image: {image}\n" in manifests


def test_passwords_are_none_of_the_file() -> None:
    secret = re.compile(r"PASSWORD$|SECRET")
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if secret.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[\w. ]+\}", value), (name, key)
    for config in COMPOSE["configs"].values():
        assert "password" not in config["content"]
        assert not re.search(r'secretKey": "[^$]', config["content"])


def test_ports_are_open_to_this_machine_unless_told_otherwise() -> None:
    ports = [port for one in COMPOSE["services"].values() for port in one.get("ports", ())]
    assert sorted(ports) == ["${ADDRESS:-127.0.0.1}:5000:5000", "${ADDRESS:-127.0.0.1}:8333:8333"]
    for name, network in COMPOSE["networks"].items():
        assert (network or {}).get("internal", False) == (name != "outside")


def test_services_have_few_rights() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "pid", "ipc", "devices"} & service.keys()
        if name != "postgres":  # its entry point changes owners, and then its user
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"], name


def test_mlflow_keeps_users_in_a_second_database() -> None:
    server, configs = COMPOSE["services"]["mlflow"], COMPOSE["configs"]
    users = re.search(r"database_uri = (\S+)", configs["users"]["content"])
    assert users is not None
    assert users[1] == server["environment"]["MLFLOW_BACKEND_STORE_URI"] + "_users"
    assert "CREATE DATABASE mlflow_users" in configs["databases"]["content"]
    assert "--app-name=basic-auth" in server["command"]
    assert any(word.startswith("--allowed-hosts=") for word in server["command"])
    assert configs["users"]["content"] == (KUBERNETES / "base" / "users.ini").read_text()


@pytest.mark.cluster
def test_the_script_makes_each_password_once(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "secrets.sh", tmp_path)
    command = ["sh", str(tmp_path / "secrets.sh")]
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    made = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert made.keys() == REQUIRED
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    assert made["MLFLOW_ADMIN_PASSWORD"] in (tmp_path / "client" / "mlflow").read_text()
    assert made["OBJECTS_SECRET_KEY"] in (tmp_path / "client" / "aws").read_text()
    for path in tmp_path.rglob("[!s]*"):
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert "nothing is changed" in again.stderr
    assert dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines()) == made


def test_git_ignores_what_the_script_makes() -> None:
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert ignored == ["/.env", "/client/"]
