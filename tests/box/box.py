"""A cluster in a box: what infra/ describes, on four hosts that reach nothing but each other.

``services`` has PostgreSQL, object storage and MLflow with a password; ``head`` is Ray's head
without CPUs for workers; ``one`` and ``two`` have two CPUs each. Ray asks for a token. Settings,
passwords and command lines are those of the files in infra/kubernetes.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.box.hosts import Host, Network, send
from tests.clusters import BIN, ROOT, wait_until
from tests.object_store import object_store

BASE, OVERLAY = (ROOT / "infra/kubernetes" / name for name in ("base", "overlays/kind"))
ADDRESSES = {
    "services": "10.77.0.1",
    "head": "10.77.0.2",
    "one": "10.77.0.3",
    "two": "10.77.0.4",
}
WORKERS = ("one", "two")
NAMES = "127.0.0.1 localhost\n" + "".join(
    f"{address} {name}{' mlflow postgres objects' * (name == 'services')}\n"
    for name, address in ADDRESSES.items()
)
NOBODY = 65534
"""User of PostgreSQL, which refuses to run as root."""
OBJECT_STORE = "--object-store-memory=100000000"
_AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
_OF_OTHERS = ("RAY", "MLFLOW", "AWS", "PG", "HTTP", "http", "ALL_PROXY", "all_proxy")
"""Beginnings of variables that hosts do not get from this process: what it uses itself."""


def literals(name: str) -> dict[str, str]:
    """The values of a ConfigMap, as the overlay ``kind`` sets them."""
    found: dict[str, str] = {}
    for folder in (BASE, OVERLAY):
        maps = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
        for one in maps:
            if one["name"] == name:
                found |= dict(literal.split("=", 1) for literal in one["literals"])
    return found


def draw_secrets() -> dict[str, dict[str, str]]:
    """The secrets that infra/kubernetes/secrets.sh draws, by name and key."""
    command = ["sh", str(BASE.parent / "secrets.sh"), "objects"]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {one["metadata"]["name"]: one["stringData"] for one in yaml.safe_load_all(drawn) if one}


class Box:
    """The hosts and what runs on them; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._secrets = draw_secrets()
        self.given: set[Path] = set()
        """The files by which secrets are given to hosts."""
        self._stack = ExitStack()

    def __enter__(self) -> Box:
        with self._stack as stack:
            self._make_hosts(stack)
            with self.services.inside():
                self.store = stack.enter_context(object_store(ADDRESSES["services"], 8333))
            self._make_database()
            self.start_postgres()
            self._fill_database()
            self.start_mlflow()
            self.start_ray()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make_hosts(self, stack: ExitStack) -> None:
        # a short path: sockets lie in it
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rg")))
        names = self.folder / "names"
        names.write_text(NAMES)
        common = {
            **{k: v for k, v in os.environ.items() if not k.startswith(_OF_OTHERS)},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # `python` of a job is this one
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.place),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        ray = {
            **literals("ray"),
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": str(self.place),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.hosts: dict[str, Host] = {}
        for name in ("switch", *ADDRESSES):
            home = self.folder / name
            home.mkdir(mode=0o755)
            env = common | (ray if name in ("head", *WORKERS) else {})
            self.hosts[name] = Host(name, home, self.place, names, env)
            stack.callback(self.hosts[name].kill)
        self.services, self.head = self.hosts["services"], self.hosts["head"]
        self.network = Network(self.hosts["switch"])
        for name, address in ADDRESSES.items():
            self.network.plug(self.hosts[name], address)
            home = self.hosts[name].folder
            self._put(home / ".aws/credentials", self._secrets["bucket-keys"]["credentials"])
            self._put(home / ".ray/auth_token", self._secrets["ray-token"]["auth_token"])
        login = self._secrets["mlflow-client"]["credentials"]
        self._put(self.head.folder / ".mlflow/credentials", login)

    def _put(self, path: Path, secret: str, owner: int = -1) -> None:
        self.given.add(path)
        path.parent.mkdir(exist_ok=True)
        path.write_text(secret)
        path.chmod(0o600)
        os.chown(path, owner, owner)

    # PostgreSQL

    def _make_database(self) -> None:
        folder, home = self.services.folder, self.place
        self._put(folder / "password", self._secrets["postgres"]["password"], NOBODY)
        (folder / "database").mkdir(mode=0o700)
        os.chown(folder / "database", NOBODY, NOBODY)
        code, output = self.services.run(
            [*_AS_NOBODY, "initdb", "--pgdata", f"{home}/database", "--username=mlflow",
             "--auth=scram-sha-256", "--pwfile", f"{home}/password", "--no-sync"],
            "initdb.log",
        )  # fmt: skip
        assert code == 0, output
        with (folder / "database/pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")  # as in the image of PostgreSQL

    def start_postgres(self) -> None:
        command = ["postgres", "-D", f"{self.place}/database", "-c", "listen_addresses=*"]
        self._postgres = self.services.start(
            [*_AS_NOBODY, *command, "-c", "unix_socket_directories="], "postgres.log"
        )
        wait_until(lambda: self._answers("postgres"), "PostgreSQL answers", self._postgres)

    def crash_postgres(self) -> None:
        send(self._postgres, signal.SIGQUIT)

    def _fill_database(self) -> None:
        self.query("CREATE DATABASE mlflow OWNER mlflow", database="postgres")
        self.query((BASE / "databases.sql").read_text(), database="postgres")

    def _answers(self, database: str) -> bool:
        import psycopg

        try:
            self.query("SELECT 1", database=database)
        except psycopg.OperationalError:
            return False
        return True

    def query(self, sql: str, *values: str, database: str = "mlflow") -> list[tuple[Any, ...]]:
        """The rows that PostgreSQL answers with."""
        import psycopg

        with self.services.inside():
            connection = psycopg.connect(
                host="127.0.0.1",
                user="mlflow",
                password=self._secrets["postgres"]["password"],
                dbname=database,
                autocommit=True,
            )
        with connection:
            answer = connection.execute(sql, values or None)
            return answer.fetchall() if answer.description else []

    # MLflow

    def start_mlflow(self) -> None:
        """MLflow, as its Deployment says it, with its users' file elsewhere."""
        deployment = next(yaml.safe_load_all((BASE / "mlflow.yaml").read_text()))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (self.services.folder / "users.ini").write_text((BASE / "users.ini").read_text())
        env = literals("mlflow") | {"MLFLOW_AUTH_CONFIG_PATH": f"{self.place}/users.ini"}
        for one in container["env"]:
            reference = one["valueFrom"]["secretKeyRef"]
            env[one["name"]] = self._secrets[reference["name"]][reference["key"]]
        command = [*container["command"], *container["args"]]
        self._mlflow = self.services.start(command, "mlflow.log", env)
        wait_until(self._healthy, "MLflow answers", self._mlflow)

    def stop_mlflow(self) -> None:
        send(self._mlflow, signal.SIGKILL)

    def _healthy(self) -> bool:
        with self.services.inside():
            try:
                answer = urllib.request.urlopen("http://127.0.0.1:5000/health", timeout=5)
            except OSError:
                return False
        with answer:
            return answer.status == 200

    # Ray

    def start_ray(self) -> None:
        cluster = yaml.safe_load((BASE / "raycluster.yaml").read_text())["spec"]
        given = cluster["headGroupSpec"]["rayStartParams"]
        options = [f"--{name}={value}" for name, value in given.items()]
        self._start_ray(self.head, "--head", "--port=6379", "--dashboard-host=0.0.0.0", *options)
        for name in WORKERS:
            self.join(name)

    def join(self, name: str) -> None:
        """Let a host become a worker of the cluster."""
        self._start_ray(self.hosts[name], "--address=head:6379", "--num-cpus=2")

    def _start_ray(self, host: Host, *options: str) -> None:
        log = f"ray-{time.monotonic_ns()}.log"
        node = [f"--node-ip-address={ADDRESSES[host.name]}", OBJECT_STORE]
        process = host.start(["ray", "start", "--block", *node, *options], log)
        path = host.folder / log
        wait_until(lambda: "Ray runtime started" in path.read_text(), f"{host.name} joins", process)

    def boot(self, name: str) -> None:
        """Start a host again that has lost all of its processes."""
        self.hosts[name].kill()
        self.hosts[name].boot()
        self.network.plug(self.hosts[name], ADDRESSES[name])

    # secrets

    @property
    def login(self) -> dict[str, str]:
        """The environment variables of a client of MLflow."""
        password = self._secrets["mlflow"]["admin-password"]
        return {"MLFLOW_TRACKING_USERNAME": "raygan", "MLFLOW_TRACKING_PASSWORD": password}

    @cached_property
    def _passwords(self) -> list[bytes]:
        """All secrets of the box."""
        keys = configparser.ConfigParser()
        keys.read_string(self._secrets["bucket-keys"]["credentials"])
        secrets = [
            self._secrets["ray-token"]["auth_token"],
            self._secrets["postgres"]["password"],
            *self._secrets["mlflow"].values(),
            keys["default"]["aws_secret_access_key"],
        ]
        return [secret.encode() for secret in secrets]

    def files_with_secrets(self) -> set[Path]:
        """The hosts' files that hold a secret: those of the database and all logs are read."""
        found = set()
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if path.is_file() and self.has_secret(path.read_bytes()):
                    found.add(path)
        return found

    def has_secret(self, data: bytes) -> bool:
        return any(secret in data for secret in self._passwords)
