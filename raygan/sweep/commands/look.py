"""``raygan status``, ``stop``, ``results`` and ``report``: for a sweep that runs elsewhere or has
ended."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import pyarrow as pa
from rich.console import Console

from raygan.addresses import check_address
from raygan.errors import ConfigError, RayganError
from raygan.folder import HTML, SPEC_FILE
from raygan.records import WHOLE, TrialRecord
from raygan.report import tables
from raygan.report.tabular import csv_bytes, json_bytes, parquet_bytes
from raygan.shown import MOST_MESSAGE, duration, shown, text_cell
from raygan.storage import Storage
from raygan.sweep.session import lock, terminal
from raygan.sweep.session.lock import Holder
from raygan.sweep.spec import plan
from raygan.sweep.spec.plan import Cell
from raygan.sweep.spec.sweep_spec import NAME, SweepSpec, place
from raygan.sweep.study import looks, stored_sweep
from raygan.sweep.study.cell import best, trained_twice, verdict_records

STOP_SECONDS = 120.0
"""How long ``raygan stop`` waits until the sweep has stopped."""

FORMATS: dict[str, Callable[[pa.Table], bytes]] = {
    "parquet": parquet_bytes, "csv": csv_bytes, "json": json_bytes,
}  # fmt: skip
"""By name, the formats that trials can be written in."""

_STATES = {"running": "running", "pending": "waiting for its workers"}

Command = TypeVar("Command", bound=Callable[..., None])


def of_a_sweep(command: Command) -> Command:
    """Add the argument, the option and the error messages that all commands on a sweep share."""

    @click.argument("name")
    @click.option(
        "--storage",
        default="results",
        show_default=True,
        help="Where the sweep is stored; not needed if NAME is its YAML file.",
    )
    @wraps(command)
    def run(name: str, storage: str, **options: Any) -> None:
        try:
            try:
                command(*open_sweep(name, storage), **options)
            except OSError as error:
                raise ConfigError(f"`storage` (={storage!r}) cannot be used ({error})") from error
        except RayganError as error:
            click.secho(f"error: {shown(error, MOST_MESSAGE, lines=True)}", fg="red", err=True)
            sys.exit(2)

    return run  # type: ignore[return-value]


def open_sweep(name: str, storage: str) -> tuple[Storage, SweepSpec]:
    """The sweep ``name`` in ``storage``, or that of the YAML file ``name``.

    Raises :class:`~raygan.errors.ConfigError` if there is none.
    """
    if name.endswith((".yaml", ".yml")):
        name, storage = place(Path(name))
    if not re.fullmatch(NAME, name) or ".." in name:
        raise ConfigError(
            f"{name!r} is not a valid sweep name; give the `name` of its YAML, or the YAML file"
        )
    check_address(storage, "--storage")
    root = Storage(storage)
    sweep = root / name
    stored = stored_sweep.stored_spec(sweep)
    if stored is None:
        others = shown(", ".join(filter(partial(_is_sweep, root), root.folders())) or "none")
        raise ConfigError(f"there is no sweep {name!r} in {root.uri} (sweeps there: {others})")
    return sweep, stored


def _is_sweep(root: Storage, name: str) -> bool:
    try:
        return SPEC_FILE in (root / name).files()
    except (OSError, RayganError):
        return False


@click.command()
@of_a_sweep
def status(sweep: Storage, spec: SweepSpec) -> None:
    """Print who runs the sweep NAME, its progress, and its results so far."""
    console = _console()
    known = stored_sweep.stored_records(sweep, spec)
    holder = lock.read(sweep)
    alive = holder is not None and _is_alive(sweep, holder)
    now = lock.read(sweep) if alive else None
    signs = None if now is None else now.signs
    copied = holder is not None and alive and holder.copies
    runs = alive and not copied
    console.print(text_cell(_who(holder, alive, _is_done(sweep, known))), highlight=False)
    if not copied and (lacks := terminal.not_in_mlflow(sweep, running=runs)) is not None:
        console.print(text_cell(lacks, MOST_MESSAGE, "yellow"), highlight=False, soft_wrap=True)
    names = ("cell", "search", "replicates", "open", "failed", "end loss", "by")
    table = terminal.text_table(names, ("cell", "by"))
    searches = plan.trials_per_cell(spec)
    seeds, _ = looks.reached(spec, known)
    replicates = plan.replicates_per_cell(spec, seeds)
    for cell in plan.cells(spec):
        mine = _of(cell, known)
        # a trial and its retry with a warm-up count once
        again = {record.id for record in trained_twice(spec, mine)}
        ended = [r for r in mine if r.outcome is not None and r.id not in again]
        failed = sum(r.outcome not in (*WHOLE, "stopped") for r in ended)
        lowest = best(spec, cell, mine)
        table.add_row(
            text_cell(cell.name),
            f"{sum(r.kind == 'search' for r in ended)}/{searches}",
            f"{sum(r.kind == 'replicate' for r in ended)}/{replicates}",
            str(sum(record.outcome is None for record in mine)),
            str(failed),
            f"{lowest.end_loss:.5f}" if lowest else "",
            text_cell(lowest.title if lowest else ""),
        )
    console.print(table)
    for record in known.values():
        if record.outcome is None:
            loss = f", loss {record.curve[-1][1]:.5f}" if record.history else ""
            state = _STATES[state_of(record, signs)] if runs else "interrupted"
            sign = (signs or {}).get(record.id)
            heard = "" if sign is None else f", last report {duration(sign)} ago"
            console.print(
                f"{shown(record.title)}: {state}, iteration "
                f"{record.step}/{record.config['iterations']}{loss}{heard}",
                highlight=False,
                markup=False,
            )
    gpu_hours = sum(record.gpu_seconds for record in known.values()) / 3600
    hours = sum(record.seconds for record in known.values()) / 3600
    gpus = f", {gpu_hours:.2f} GPU-hours" if gpu_hours else ""
    console.print(f"Spent: {hours:.2f} trial-hours{gpus}", highlight=False)


def state_of(record: TrialRecord, signs: Mapping[str, float] | None) -> str:
    """Whether a trial of a sweep that runs is ``running`` or ``pending``: its workers wait for
    resources, or start.

    ``signs``: those of :attr:`.lock.Holder.signs`.
    """
    running = bool(record.history) if signs is None else record.id in signs
    return "running" if running else "pending"


@click.command()
@of_a_sweep
def stop(sweep: Storage, spec: SweepSpec) -> None:
    """Stop the sweep NAME cleanly, wherever it runs. Its command resumes it later.

    A `raygan sync` that copies it is stopped, too.
    """
    holder = lock.read(sweep)
    if holder is None or not _is_alive(sweep, holder):
        click.echo(f"{spec.name} is not running.")
        return
    lock.ask_to_stop(sweep, holder)
    what = f"copying {spec.name} to MLflow" if holder.copies else spec.name
    click.echo(f"Asked {shown(holder)} to stop {what} ...")
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        now = lock.read(sweep)
        if now is None or now.token != holder.token:
            then = "The same command resumes the sweep."
            if holder.copies:
                then = f"To copy the rest: {terminal.command_of('sync', sweep)}"
            click.echo(f"Stopped. {then}")
            return
        time.sleep(0.5)
    raise RayganError(
        f"{holder} has not stopped within {STOP_SECONDS:.0f} s; see its output, or end that "
        "process on its host"
    )


@click.command()
@of_a_sweep
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    help="Write a row per trial instead of tables, to --out or to standard output.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write one row per trial to this .parquet, .csv or .json file.",
)
def results(sweep: Storage, spec: SweepSpec, kind: str | None, out: Path | None) -> None:
    """Print the trials of the sweep NAME, running or done, as tables, or write them as data."""
    if out is not None:
        kind = kind or out.suffix.removeprefix(".")
        if kind not in FORMATS:
            endings = ", ".join(f".{name}" for name in FORMATS)
            raise ConfigError(f"--out (={str(out)!r}) must end in one of {endings}; or give "
                              "--format, too")  # fmt: skip
    known = stored_sweep.stored_records(sweep, spec)
    if kind is not None:
        _write_rows(FORMATS[kind](tables.results_table(sweep, known.values())), kind, out)
    if kind is None or out is not None:
        _show(sweep, spec, known)
    if out is not None:
        click.echo(f"Written: {shown(out)}")


def _write_rows(data: bytes, kind: str, out: Path | None) -> None:
    if out is not None:
        try:
            out.write_bytes(data)
        except OSError as error:
            raise ConfigError(f"--out (={str(out)!r}) cannot be written ({error})") from error
        return
    if kind == "parquet" and sys.stdout.isatty():
        raise ConfigError(
            "--format parquet cannot be shown in a terminal: give --out FILE, or use a pipe"
        )
    click.echo(data, nl=False)


def _show(sweep: Storage, spec: SweepSpec, known: dict[str, TrialRecord]) -> None:
    prepared = stored_sweep.stored_data(sweep, spec)
    console = _console()
    cells = [cell.name for cell in plan.cells(spec)]
    terminal.show_trials(console, known.values(), cells, prepared.baselines if prepared else {})
    terminal.show_replicates(
        console,
        {c.name: verdict_records(spec, c, _of(c, known)) for c in plan.cells(spec)},
    )


@click.command()
@of_a_sweep
@click.option(
    "--out",
    metavar="FOLDER",
    help="Folder or address to write to; by default the sweep's own folder.",
)
def report(sweep: Storage, spec: SweepSpec, out: str | None) -> None:
    """Write report.html and report.md of the sweep NAME, running or done."""
    from raygan.sweep.study.gather import make_report

    records, data = stored_sweep.stored_records(sweep, spec), stored_sweep.stored_data(sweep, spec)
    made = make_report(sweep, spec, records, data)
    if out is not None:
        check_address(out, "--out")
    target = sweep if out is None else Storage(out)
    try:
        made.write(target)
    except OSError as error:
        raise ConfigError(
            f"{target.uri} cannot be written ({error}); give another place with --out"
        ) from error
    click.echo(made.verdict)
    click.echo(f"\nReport: {shown(target.uri)}/{HTML}")


def _is_alive(sweep: Storage, holder: Holder) -> bool:
    if not lock.is_of_this_host(holder):
        click.echo(f"Waiting for a heartbeat of {shown(holder)} ...", err=True)
    return lock.is_alive(sweep, holder)


def copied_by(holder: Holder, *, done: bool) -> str:
    """Who copies a sweep, that does not run, to MLflow."""
    return f"{'Done' if done else 'Not running'}; being copied to MLflow by {holder}"


def _who(holder: Holder | None, alive: bool, done: bool) -> str:
    if alive and holder is not None and holder.copies:
        return copied_by(holder, done=done)
    if alive:
        return f"Running: {holder}"
    if done:
        return "Done."
    if holder is not None and not holder.copies:
        return f"Not running: {holder} died. The same command resumes the sweep."
    return "Not running. The same command resumes the sweep."


def _is_done(sweep: Storage, known: dict[str, TrialRecord]) -> bool:
    ended = all(record.outcome is not None for record in known.values())
    return bool(ended and stored_sweep.summary(sweep).get("finished"))


def _of(cell: Cell, known: dict[str, TrialRecord]) -> list[TrialRecord]:
    return [record for record in known.values() if record.cell == cell.name]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)
