"""A small cluster whose parts can be hurt: for `soak.py` and `recovery.py`.

Raylets on this machine (`ray.cluster_utils.Cluster`): a head without CPUs for workers, and nodes
with one CPU each. An object store (`tests/object_store.py`) and an MLflow server on a SQLite file,
each behind a proxy in a process of its own, the link. Sweeps train small GANs on the embedded
digits, and a file of recipes, which every worker loads, notes what the workers do and when.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "bucket"
NOTES = '''
import json
import os
import time

import ray.train

from raygan.recipes import Metric

BEFORE = getattr(ray.train.report, "before", ray.train.report)
BORN = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(
    open("/proc/self/stat").read().rpartition(")")[2].split()[19]
) / os.sysconf("SC_CLK_TCK")


def note(what, step=0):
    try:
        context = ray.train.get_context()
        trial, rank = context.get_experiment_name(), context.get_world_rank()
    except Exception:
        return  # a process that only reads the file
    line = {{"what": what, "trial": trial, "rank": rank, "pid": os.getpid(), "step": step,
            "time": time.time(), "born": BORN}}
    with open({folder!r} + f"/{{os.getpid()}}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")


def report(metrics, *arguments, **options):
    if "history" in metrics:
        note("restored", metrics["step"])
    elif "val/reconstruction_loss" in metrics:
        note("evaluated", metrics["step"])
    BEFORE(metrics, *arguments, **options)


report.before = BEFORE
ray.train.report = report
note("loaded")


class Noted(Metric):
    """Always 0; this file notes what workers do."""

    name = "noted"

    def measure(self, samples, images):
        return 0.0
'''
SWEEP = """
name: {name}
dataset: {{name: digits, size: 16, running: 24, final: 16}}
grid: {{norm: [{norms}]}}
{replicate}
recipes: [notes.py]
train:
  features: 4
  code_size: 8
  batch_size: 8
  iterations: {iterations}
  evaluate_every: {evaluate_every}
  reconstruction_steps: {reconstruction_steps}
  checkpoint_every: {checkpoint_every}
final: {{steps: 20, restarts: 1, audited: 4}}
scale: {{workers: {workers}, stalled_after: {stalled_after}}}
storage: s3://{bucket}
tracking: {{uri: "http://127.0.0.1:{mlflow}"}}
"""


@dataclass(frozen=True)
class Shape:
    """How long the trials of a sweep are, and what they take."""

    norms: str = "bn, wn"
    replicates: int = 1
    iterations: int = 1200
    evaluate_every: int = 40
    reconstruction_steps: int = 300
    checkpoint_every: int = 120
    workers: int = 1
    stalled_after: str = "20s"


@dataclass(frozen=True)
class Note:
    """What a worker has done."""

    what: str
    """``loaded``: its libraries; ``restored``: the images and its checkpoint; ``evaluated``."""
    trial: str
    rank: int
    pid: int
    step: int
    time: float
    born: float
    """When its process was started."""


class Link:
    """The way to a server: a proxy in a process of its own, which can be cut."""

    def __init__(self, server: int) -> None:
        self._server, self.port = server, 0
        self.open()

    def open(self) -> None:
        """Let connections through, at the same port each time."""
        command = [sys.executable, str(ROOT / "tests" / "delay.py"), str(self._server), "0"]
        for _ in range(20):
            self.process = subprocess.Popen(
                [*command, str(self.port)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self.process.stdout is not None
            if line := self.process.stdout.readline():
                self.port = int(line)
                return
            self.process.wait()  # somebody's own connection has taken the port for a moment
            time.sleep(0.5)
        raise RuntimeError(f"port {self.port} is taken")

    def cut(self) -> None:
        """End all connections, and refuse others."""
        self.process.kill()
        self.process.wait()

    def silence(self) -> None:
        """Let nothing through, without a word."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a silence."""
        self.process.send_signal(signal.SIGCONT)


class Rig:
    """Everything that a sweep needs; a context manager."""

    def __init__(self, nodes: int = 2) -> None:
        self._nodes = nodes
        self._stack = ExitStack()
        self.server: subprocess.Popen[bytes] | None = None
        """MLflow."""

    def __enter__(self) -> Rig:
        from ray.cluster_utils import Cluster

        from tests.clusters import free_port, wait_until
        from tests.object_store import object_store

        with ExitStack() as stack:
            # short: the paths of sockets lie below it
            self.folder = Path(tempfile.mkdtemp(prefix="rig-", dir="/tmp"))
            temporary = self.folder / "tmp"
            temporary.mkdir()
            (self.folder / "ray").mkdir()  # Ray writes there which cluster was started last
            self.store = stack.enter_context(object_store())
            # connections are cut, as they shall be
            self.store.handle_error = lambda *_: None  # type: ignore[method-assign]
            self.storage_link = Link(self.store.server_port)
            stack.callback(self.storage_link.cut)
            self.mlflow_port = free_port()
            self.mlflow_link = Link(self.mlflow_port)
            stack.callback(self.mlflow_link.cut)
            self.environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))},
                **self.store.env,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.storage_link.port}",
                "RAYGAN_CACHE": str(self.folder / "cache"),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_TMPDIR": str(self.folder),
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(temporary),
            }
            self.start_mlflow()
            stack.callback(self.stop_mlflow)
            os.environ.update(self.environment)  # of the raylets, too
            with own_signals():
                self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
            stack.callback(self.cluster.shutdown)
            self.environment["RAY_ADDRESS"] = self.cluster.address
            self.raylets: list[Any] = [self._start_raylet() for _ in range(self._nodes)]
            wait_until(self.mlflow_answers, "the MLflow server answers", self.server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- MLflow

    def start_mlflow(self) -> None:
        """Start the server; it answers some seconds later."""
        from tests.clusters import BIN, start

        self.server = start(
            [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
             "--artifacts-destination", str(self.folder / "artifacts")],
            self.folder / "mlflow.log",
            {**self.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
             "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=self.folder,
        )  # fmt: skip

    def stop_mlflow(self) -> None:
        """Kill the server outright."""
        if self.server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait(30)
            self.server = None

    def mlflow_answers(self) -> bool:
        """Whether the server answers, asked without the link."""
        try:
            address = f"http://127.0.0.1:{self.mlflow_port}/health"
            return urllib.request.urlopen(address, timeout=1).status == 200
        except OSError:
            return False

    # --- raylets and processes

    def _start_raylet(self, *, wait: bool = True) -> Any:
        with own_signals():
            return self.cluster.add_node(wait=wait, num_cpus=1)

    def restart_raylet(self, index: int) -> None:
        """Start a raylet in the place of one that was killed, as a new node."""
        lost = self.raylets[index]
        lost.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        self.cluster.worker_nodes.discard(lost)
        self.raylets[index] = self._start_raylet(wait=False)

    def is_alive(self, index: int) -> bool:
        """Whether the cluster knows the node, and that it is alive."""
        nodes = self.cluster.global_state.node_table()
        mine = self.raylets[index].node_id
        return any(node["NodeID"] == mine and node["Alive"] for node in nodes)

    def raylet(self, index: int) -> psutil.Process:
        """The process of a raylet."""
        (info,) = self.raylets[index].all_processes["raylet"]
        return psutil.Process(info.process.pid)

    def on_node(self, index: int) -> list[psutil.Process]:
        """The raylet of a node and all that it has started; nothing if it is dead."""
        try:
            raylet = self.raylet(index)
            if raylet.status() == psutil.STATUS_ZOMBIE:
                return []
            return [raylet, *raylet.children(recursive=True)]
        except (psutil.Error, KeyError, ValueError):
            return []

    def workers(self, index: int | None = None) -> list[psutil.Process]:
        """The processes in which workers train: on one node, or on all."""
        indices = range(len(self.raylets)) if index is None else [index]
        return [p for i in indices for p in self.on_node(i) if "RayTrainWorker" in title(p)]

    def drivers(self) -> list[psutil.Process]:
        """The processes of Tune's trials, which start workers."""
        return [process for process in self.processes() if "ImplicitFunc" in title(process)]

    def processes(self) -> list[psutil.Process]:
        """All processes whose output goes into this rig's folder: Ray's, sweeps and MLflow."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                outputs = [Path(f"/proc/{process.pid}/fd/{n}").readlink() for n in (1, 2)]
                if any(output.is_relative_to(self.folder) for output in outputs):
                    found.append(process)
        return found

    # --- sweeps

    def sweep(self, name: str, shape: Shape) -> Sweep:
        """A sweep, which is not started yet."""
        folder = self.folder / name
        (folder / "notes").mkdir(parents=True)
        (folder / "notes.py").write_text(NOTES.format(folder=str(folder / "notes")))
        values = vars(shape) | {"name": name, "bucket": BUCKET, "mlflow": self.mlflow_link.port}
        values["replicate"] = f"replicate: {{seeds: {shape.replicates}}}" * bool(shape.replicates)
        (folder / "sweep.yaml").write_text(SWEEP.format(**values))
        return Sweep(self, name, folder)


@dataclass
class Sweep:
    """One sweep of a rig."""

    rig: Rig
    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What its commands have said."""
        return self.folder / "log.txt"

    def start(self) -> subprocess.Popen[bytes]:
        """Run its command."""
        from tests.clusters import start

        command = [sys.executable, "-m", "raygan.sweep", str(self.folder / "sweep.yaml")]
        return start(command, self.log, self.rig.environment)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run its command; it does not outlive the block."""
        from tests.clusters import stop

        process = self.start()
        try:
            yield process
        finally:
            stop(process)

    def notes(self) -> list[Note]:
        """What its workers have noted, in order."""
        found = []
        for file in (self.folder / "notes").iterdir():
            lines = file.read_text().split("\n")[:-1]  # the last one may be half written
            found += [Note(**json.loads(line)) for line in lines]
        return sorted(found, key=lambda note: note.time)

    def stored(self) -> dict[str, bytes]:
        """What the object store holds of it, by the path in its folder."""
        start = f"{BUCKET}/{self.name}/"
        with self.rig.store.lock:
            objects = dict(self.rig.store.objects)
        return {k.removeprefix(start): data for k, data in objects.items() if k.startswith(start)}


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: with that of Ray's nodes, it ends after 30 s only."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def title(process: psutil.Process) -> str:
    """Its command line: Ray writes there what it does; nothing once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def until(condition: Callable[[], Any], seconds: float, pause: float = 0.2) -> Any:
    """The first true value of ``condition`` within so many seconds, or its last one."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return found
