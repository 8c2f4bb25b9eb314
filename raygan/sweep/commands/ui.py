"""``raygan ui``: MLflow's UI, opened on one sweep's trials."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator

import click

from raygan.errors import ConfigError, TrackingError
from raygan.shown import MOST_MESSAGE, shown
from raygan.storage import Storage
from raygan.sweep.commands.look import of_a_sweep
from raygan.sweep.session.terminal import not_in_mlflow
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import stored_sweep
from raygan.tracking.context import default_uri, is_file
from raygan.tracking.database import address_of, file_of
from raygan.tracking.mlflow_tracker import Tracker

START_SECONDS = 120.0
"""How long MLflow's server may take to start."""


@click.command()
@of_a_sweep
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of MLflow's server; by default a free one."
)
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Whether a browser is opened; by default on a desktop.",
)
def ui(sweep: Storage, spec: SweepSpec, port: int | None, browser: bool | None) -> None:
    """Open MLflow's UI on the trials of the sweep NAME, grouped by cell.

    With MLflow's own database, its server runs until Ctrl-C. With a server, its link is printed.
    """
    prepared = stored_sweep.stored_data(sweep, spec)
    if prepared is None:
        raise ConfigError(f"{spec.name!r} has no trial yet; run the sweep first")
    uri = spec.tracking.uri or default_uri(Storage(sweep.parent))
    tracker = Tracker(uri, spec.tracking.experiment, spec.name, sweep)
    tracker.connect()
    path = tracker.link(prepared.id)
    lacks = not_in_mlflow(sweep, running=False)
    if path is None:
        then = lacks or "run the sweep first"
        raise TrackingError(f"MLflow at {uri} has no run of {spec.name!r}; {then}")
    if lacks is not None:
        click.secho(shown(lacks, MOST_MESSAGE), fg="yellow", err=True)
    if not is_file(uri):
        click.echo(f"{uri.rstrip('/')}{path}")
        return
    # end as on Ctrl-C, so that MLflow's server ends, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _server(uri, port or _free_port()) as address:
        click.echo(f"{address}{path}\nPress Ctrl-C to stop the server.")
        if browser or (browser is None and _has_desktop()):
            webbrowser.open(f"{address}{path}")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


@contextlib.contextmanager
def _server(uri: str, port: int) -> Iterator[str]:
    """MLflow's server on the database ``uri``, stopped after the block; yields its address."""
    program = shutil.which("mlflow", path=os.path.dirname(sys.executable)) or "mlflow"  # noqa: PTH120
    if (file := file_of(uri)) is not None:
        uri = address_of(file.absolute())
    command = [
        program, "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    folder = (
        tempfile.TemporaryDirectory()
    )  # MLflow makes a folder `mlruns` in its working directory
    process = subprocess.Popen(
        command,
        cwd=folder.name,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        click.echo("MLflow is starting ...", err=True)
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait()
        folder.cleanup()


def _wait_for(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = (process.stderr.read() if process.stderr else "").strip().splitlines()
            why = shown(said[-1]) if said else "it printed no reason"
            raise TrackingError(f"MLflow's server has ended: {why}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{address}/health", timeout=2).close()  # noqa: S310 - loopback
            return
        time.sleep(0.2)
    raise TrackingError(f"MLflow's server has not started within {START_SECONDS:.0f} s; try again")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_desktop() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
