"""A Ray cluster of the tests' own (loopback dashboard, token authentication) and small sweeps on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PATIENCE = 180
"""Seconds after which waiting for a condition is given up."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, process: subprocess.Popen | None = None):
    """Poll ``condition`` until it is true; fails if it takes too long or ``process`` ends."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} before: {what}")
        time.sleep(0.1)
    pytest.fail(f"not within {PATIENCE} s: {what}")


def stop(process: subprocess.Popen) -> None:
    """End a server that a test started, and what it started."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: see start()
        process.wait(30)


def start(command: list[str], log: Path, env: dict[str, str], cwd: Path = ROOT) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen(
            command, env=env, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def serve(folder: Path, port: int, env: dict[str, str], *options: str) -> subprocess.Popen:
    """An MLflow server that answers; its database lies in ``folder``."""
    server = start(
        [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/server.db",
         "--artifacts-destination", str(folder / "artifacts"), *options],
        folder / "server.log",
        {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=folder,
    )  # fmt: skip

    def healthy() -> bool:
        try:
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
            )
        except OSError:
            return False

    try:
        wait_until(healthy, "the MLflow server answers", server)
    except BaseException:
        stop(server)
        raise
    return server


@dataclass
class Cluster:
    """A running cluster, as a user's shell would know it."""

    address: str
    dashboard: str
    env: dict[str, str]
    logs: Path
    head: subprocess.Popen | None = None

    def node(self, name: str, *options: str) -> subprocess.Popen:
        ray = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *options]
        return start(ray, self.logs / f"{name}.log", self.env)

    def train_workers(self) -> list[psutil.Process]:
        """The processes of this cluster in which Ray Train's workers train."""
        return [
            process
            for process in psutil.Process(self.head.pid).children(recursive=True)
            if "RayTrainWorker" in " ".join(process.cmdline())
        ]


def ray_env(token: Path, **more: str) -> dict[str, str]:
    """The environment of a shell that uses one cluster with ``token``, and nothing else of Ray."""
    token.write_text("f" * 64)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # `python` of a job is this one
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        **more,
    }


@contextmanager
def running_cluster(logs: Path) -> Iterator[Cluster]:
    """A cluster of one node, whose logs lie in ``logs``."""
    port, dashboard = free_port(), free_port()
    env = ray_env(logs / "token", RAY_ADDRESS=f"127.0.0.1:{port}")
    found = Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", env, logs)
    head_env = {k: v for k, v in env.items() if k != "RAY_ADDRESS"}
    # a short path: sockets lie in it
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary:
        head = start(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats",
                f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
                "--include-dashboard=true", "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={temporary}",
            ],
            logs / "head.log",
            head_env,
        )  # fmt: skip
        try:
            log = logs / "head.log"
            wait_until(lambda: "Ray runtime started" in log.read_text(), "the head starts", head)
            found.head = head
            yield found
        finally:
            stop(head)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@dataclass
class Sweep:
    """A sweep's command and its storage."""

    file: Path
    storage: Path
    env: dict[str, str]
    name: str

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "raygan.sweep", str(self.file)]

    @property
    def log(self) -> Path:
        return self.storage.parent / f"{self.name}.log"

    def start(self, *options: str) -> subprocess.Popen:
        return start([*self.command, *options], self.log, self.env)

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen]:
        """Start it; it does not outlive the block."""
        process = self.start(*options)
        try:
            yield process
        finally:
            stop(process)

    def run(self, *options: str, code: int = 0) -> str:
        with self.running(*options) as process:
            process.wait(PATIENCE * 2)
        assert process.returncode == code, self.log.read_text()
        return self.log.read_text()

    def record(self, trial: str) -> dict:
        path = self.storage / self.name / "trials" / trial / "record.json"
        return json.loads(path.read_text()) if path.exists() else {"history": [], "outcome": None}

    def curve(self, trial: str) -> list[tuple[int, float]]:
        history = self.record(trial)["history"]
        return [(int(point["step"]), point["val/reconstruction_loss"]) for point in history]

    def pictures(self, trial: str) -> dict[int, int]:
        """When the picture of each evaluation was written last: again, if it was made again."""
        folder = self.storage / self.name / "trials" / trial / "images"
        found = folder.glob("samples-*.webp")
        return {int(path.stem.split("-")[1]): path.stat().st_mtime_ns for path in found}

    @property
    def tracking(self) -> str:
        return f"sqlite:///{self.storage}/mlflow.db"

    def change(self, **sections: object) -> None:
        """Replace or extend sections of its YAML."""
        content = _merged(yaml.safe_load(self.file.read_text()), sections)
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))


def _merged(content: dict, sections: dict) -> dict:
    """``content`` with ``sections`` replaced or, if they are mappings, extended; None removes."""
    merged = dict(content)
    for key, value in sections.items():
        merged[key] = _merged(content.get(key, {}), value) if isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None}


SMALL = {
    "dataset": {"name": "digits", "size": 16, "running": 24},
    "train": {
        "features": 4,
        "code_size": 8,
        "batch_size": 8,
        "iterations": 40,
        "evaluate_every": 10,
        "reconstruction_steps": 3,
        "quality": "none",
    },
    "final": {"steps": 0},
}


def make_sweep(name: str, storage: Path, env: dict[str, str], /, **sections: object) -> Sweep:
    """A small sweep, as a shell with ``env`` would run it."""
    made = Sweep(storage.parent / f"{name}.yaml", storage, env, name)
    content = {"name": name, "storage": str(storage), **SMALL}
    made.file.write_text(yaml.safe_dump(_merged(content, sections), sort_keys=False))
    return made


@pytest.fixture(scope="session")
def sweep(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sweep]:
    """Make a small sweep; its sections replace or extend those of :data:`SMALL`.

    ``env`` changes the environment; None removes a variable.
    """
    storage = tmp_path_factory.mktemp("sweeps") / "storage"

    def make(name: str, *, env: dict[str, str | None] | None = None, **sections: object) -> Sweep:
        merged = {k: v for k, v in (cluster.env | (env or {})).items() if v is not None}
        return make_sweep(name, storage, merged, **sections)

    return make


TRIALS = ("vanilla-000", "bn-000", "wn-000")
NORMS = {"norm": ["vanilla", "bn", "wn"]}
LONGER = {"iterations": 60, "reconstruction_steps": 300, "checkpoint_every": 10}
"""Half a second per evaluation, time to be killed in, and a checkpoint at each."""


@pytest.fixture(scope="session")
def reference(sweep: Callable[..., Sweep]) -> Sweep:
    """A sweep that nothing has disturbed: its curves are those that all others must give."""
    made = sweep("reference", grid=NORMS, train=LONGER)
    made.run()
    return made


LOSS = "val/reconstruction_loss"


def mlflow_runs(uri: str, sweep: str) -> dict[str, Run]:
    """Runs of a sweep by trial id; the parent under its own name."""
    from mlflow import MlflowClient  # takes seconds: not for those who need no cluster

    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.sweep = '{sweep}'")
    by_trial = {run.data.tags.get("trial", sweep): run for run in found}
    assert len(by_trial) == len(found), "a trial has two runs"
    return by_trial


def logged_steps(uri: str, run: Run) -> list[int]:
    from mlflow import MlflowClient

    return [m.step for m in MlflowClient(uri).get_metric_history(run.info.run_id, LOSS)]
