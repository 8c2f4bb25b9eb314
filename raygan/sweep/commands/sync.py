"""``raygan sync``: copies a stored sweep to MLflow, after ``--offline`` or an outage."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from raygan import own_recipes, recipe
from raygan.addresses import check_address
from raygan.errors import ConfigError, TrackingError
from raygan.folder import MLFLOW_ARTIFACTS, MLFLOW_DATABASE
from raygan.shown import say
from raygan.storage import Storage
from raygan.sweep.commands.look import of_a_sweep
from raygan.sweep.session import conclude
from raygan.sweep.session.lock import Lock, leave
from raygan.sweep.session.signals import EXIT_SIGINT
from raygan.sweep.session.terminal import command_of
from raygan.sweep.spec.sweep_spec import SweepSpec, load
from raygan.sweep.study import stored_sweep
from raygan.sweep.study.prepared import Prepared
from raygan.sweep.study.study import Study
from raygan.tracking.context import default_uri
from raygan.tracking.mlflow_tracker import Tracker


@click.command()
@of_a_sweep
@click.option(
    "--mlflow",
    "address",
    metavar="ADDRESS",
    help="MLflow server or database; by default `tracking.uri`, else $MLFLOW_TRACKING_URI, else "
    "SQLite in the storage folder.",
)
def sync(sweep: Storage, spec: SweepSpec, address: str | None) -> None:
    """Copy what MLflow lacks of the sweep NAME.

    For a sweep that was run with --offline, or whose MLflow did not answer until its end. What
    MLflow has is not copied again. A sweep that is running is refused. If the sweep uses your own
    recipes, give its YAML file as NAME.
    """
    prepared = stored_sweep.stored_data(sweep, spec)
    if prepared is None:
        raise ConfigError(f"{spec.name!r} has no trial yet; run the sweep first")
    name = click.get_current_context().params["name"]
    if name.endswith((".yaml", ".yml")):
        tracking = load(Path(name)).tracking  # its recipes are used
        own_recipes.check_unchanged(sweep)
        stored = stored_sweep.stored_spec(sweep) or spec
        spec = stored.model_copy(update={"tracking": tracking})
    if missing := {Path(path).name for path in spec.recipes} - recipe.in_use().keys():
        raise ConfigError(
            f"{spec.name!r} uses recipes of your own ({', '.join(sorted(missing))}), whose code is "
            f"needed here: give its YAML file instead of {spec.name!r}"
        )
    try:
        _sync(sweep, spec, prepared, address)
    except KeyboardInterrupt:
        click.echo("interrupted: the same command copies the rest", err=True)
        sys.exit(EXIT_SIGINT)


def _sync(sweep: Storage, spec: SweepSpec, prepared: Prepared, address: str | None) -> None:
    def tell(text: object, style: str = "") -> None:
        say(console, text, style)

    console = Console(width=None if sys.stdout.isatty() else 160)
    with _other_address():
        tracker = _tracker(sweep, spec, address)
        tracker.connect()
    advice = (
        "wait until it ends; or stop it and start it again without --offline, and it copies "
        "everything by itself"
    )

    def stop() -> None:
        # the main thread, which waits: another one would not wake it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # two that copy would make each run twice
    with Lock(sweep, stop=stop, lost=leave, advice=advice, copies=True):
        study = Study(spec, sweep, prepared=prepared)
        where = f"MLflow at {tracker.uri}, experiment {tracker.experiment!r}"
        tell(f"Copying {len(study.records)} trials of {spec.name} to {where} ...")
        copied, ended = conclude.sync(study, tracker, prepared, lambda text: tell(text, "yellow"))
    if not copied:
        problem = tracker.last_error or f"it is too slow: behind by {tracker.behind}"
        raise TrackingError(
            f"MLflow at {tracker.uri} lacks results of {spec.name!r}: {problem}. Run the same "
            "command again; it copies the rest"
        )
    tell("MLflow has all that is stored of this sweep.", "green")
    if not ended:
        tell("The sweep has not ended: its command resumes it, and then copies the rest, too.")
    if address is None:
        tell(f"To look at it: {command_of('ui', sweep)}")


def _tracker(sweep: Storage, spec: SweepSpec, address: str | None) -> Tracker:
    root = Storage(sweep.parent)
    for name in (MLFLOW_DATABASE, MLFLOW_ARTIFACTS):  # MLflow would write through a link
        root.refuse_link(name)
    if address is not None:
        check_address(address, "--mlflow")
    uri = address or spec.tracking.uri or default_uri(root)
    return Tracker(uri, spec.tracking.experiment, spec.name, sweep)


@contextmanager
def _other_address() -> Iterator[None]:
    """Within the block, an error of MLflow says how to give another address."""
    try:
        yield
    except TrackingError as error:
        raise TrackingError(f"{error}; --mlflow gives another address") from error
