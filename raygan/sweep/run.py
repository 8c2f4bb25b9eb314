"""A sweep from its spec to its tables and its exit code."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raygan.errors import ConfigError, RayganError, TrackingError
from raygan.report import tables
from raygan.report.overview import overview_png
from raygan.storage import Storage
from raygan.sweep import plan, trial, tune
from raygan.sweep.progress import Progress
from raygan.sweep.signals import StopSignals
from raygan.sweep.spec import SweepSpec
from raygan.sweep.study import Study, outcomes
from raygan.tracking.context import default_uri, is_file, run_tags
from raygan.tracking.mlflow_tracker import Status, Tracker

EXIT_OK, EXIT_FAILED = 0, 3

SPEC_FILE, DATA_FILE = "sweep.yaml", "data.json"
MAY_CHANGE = ("scale", "tracking", "storage")
"""Keys of the YAML that change how and where a sweep runs, not what it finds."""


def run(
    spec: SweepSpec, console: Console, *, address: str | None = None, verbose: bool = False
) -> int:
    """Run ``spec``, or go on with it; returns the exit code.

    0: all done; 3: too many trials failed; 130, 143: interrupted. Raises
    :class:`~raygan.errors.RayganError` for whatever is wrong before the first trial.
    """
    with StopSignals() as signals:
        storage = _open_storage(spec)
        sweep = storage / spec.name
        spec_yaml = dump(spec)
        _check_unchanged(spec, sweep)
        study = Study(spec, sweep)
        _announce(study, console)
        tracker = _tracker(spec, sweep, storage)
        tracker.connect()
        known = _stored(sweep, DATA_FILE)
        if study.complete and known:
            tracker.open(known["id"], spec_yaml, run_tags(known["digest"]))
            _catch_up(study, tracker)
            return _finish(study, tracker, signals, known, console)
        at_once = _start(spec, tracker.uri, address, signals, verbose=verbose)
        data = {"id": known.get("id", uuid.uuid4().hex), **_prepare(spec, storage)}
        console.print(
            f"{data['train']} training images {data['shape']}; up to {at_once} trials at once",
            highlight=False,
        )
        if known and known["digest"] != data["digest"]:
            raise ConfigError(
                f"the images of {spec.dataset.path} have changed since the sweep {spec.name!r} "
                "began: restore them, or give the sweep another name (--set name=…)"
            )
        sweep.write(SPEC_FILE, spec_yaml.encode())
        sweep.write(DATA_FILE, json.dumps(data).encode())
        tracker.open(data["id"], spec_yaml, run_tags(data["digest"]))
        _catch_up(study, tracker)
        study.listeners.append(lambda event, record: tracker.update(record, ended=event == "ended"))
        try:
            with Progress(study, console, tracker):
                tune.run(study, lambda planned: trial.job_of(planned, spec, sweep, data), at_once)
        except BaseException:
            tracker.close("FAILED" if signals.first is None else "KILLED", [], {})
            raise
        return _finish(study, tracker, signals, data, console)


def _catch_up(study: Study, tracker: Tracker) -> None:
    """What MLflow may have missed of an earlier run."""
    for record in study.records.values():
        if record.outcome is not None:
            tracker.update(record, ended=True)


def _open_storage(spec: SweepSpec) -> Storage:
    relative = "://" not in spec.storage and not spec.storage.startswith(("/", "~"))
    if relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"`storage` (={spec.storage!r}) is relative, and a Ray job runs in a temporary copy "
            "of the working directory: give an absolute path or an address such as s3://…"
        )
    storage = Storage(spec.storage)
    try:
        storage.probe()
    except OSError as error:
        raise ConfigError(
            f"`storage` (={spec.storage!r}) cannot be written ({error}); give another place"
        ) from error
    return storage


def dump(spec: SweepSpec) -> str:
    """The fully resolved YAML."""
    return yaml.safe_dump(spec.resolved(), sort_keys=False, allow_unicode=True)


def _stored(sweep: Storage, name: str) -> dict[str, Any]:
    """A mapping that an earlier run of the sweep has stored (YAML, of which JSON is a part)."""
    stored = sweep.read(name)
    try:
        found = yaml.safe_load(stored) if stored is not None else {}
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{sweep.uri}/{name} is damaged: restore it, give the sweep another name "
            "(--set name=…), or delete the folder to start again"
        )
    return found


def _check_unchanged(spec: SweepSpec, sweep: Storage) -> None:
    """Refuse to go on with a sweep under another YAML."""
    before = _stored(sweep, SPEC_FILE)
    if not before:
        return
    now = spec.resolved()
    for key in MAY_CHANGE:
        before.pop(key, None), now.pop(key, None)
    if before == now:
        return
    diff = difflib.unified_diff(
        yaml.safe_dump(before, sort_keys=False).splitlines(),
        yaml.safe_dump(now, sort_keys=False).splitlines(),
        "the sweep so far",
        "the YAML now",
        lineterm="",
        n=1,
    )
    raise ConfigError(
        f"the sweep {spec.name!r} in {sweep.uri} has begun with another YAML:\n"
        + "\n".join(diff)
        + "\ngive the changed sweep another name (--set name=…), restore the YAML, or delete "
        f"{sweep.uri} to start again"
    )


def _announce(study: Study, console: Console) -> None:
    done = sum(record.outcome is not None for record in study.records.values())
    text = f"{study.spec.name}: {study.trial_count} trials in {len(study.cells)} cells"
    if study.records:
        text += f"; goes on with {done} done"
    console.print(text, style="bold", highlight=False)


def _tracker(spec: SweepSpec, sweep: Storage, storage: Storage) -> Tracker:
    uri = spec.tracking.uri or default_uri(storage)
    return Tracker(uri, spec.tracking.experiment, spec.name, sweep)


def _start(
    spec: SweepSpec, tracking: str, address: str | None, signals: StopSignals, *, verbose: bool
) -> int:
    """Start or join Ray; returns how many trials it holds at once."""
    import ray

    ours = tune.connect(address, verbose=verbose)
    signals.install()
    at_once = tune.concurrency(spec.scale, ours=ours)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and is_file(tracking):
        raise TrackingError(
            f"the cluster has {len(nodes)} nodes, but MLflow's store {tracking} is a file that "
            "only this one can see, and that is lost with it; set `tracking.uri` or "
            "MLFLOW_TRACKING_URI to an MLflow server"
        )
    return at_once


def _prepare(spec: SweepSpec, storage: Storage) -> dict[str, Any]:
    """Prepare the images, on a node where they are; returns what is known of them."""
    import ray

    configs = [spec.train_config(**cell.values).to_dict() for cell in plan.cells(spec)]
    task = ray.remote(num_cpus=1, max_retries=1)(trial.prepare_images)
    try:
        dataset, folder = trial.dataset_of(spec), trial.data_folder(storage)
        found: dict[str, Any] = ray.get(task.remote(dataset, folder, configs))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayganError):
            raise error.cause from None
        raise
    return found


def _finish(
    study: Study, tracker: Tracker, signals: StopSignals, data: dict[str, Any], console: Console
) -> int:
    import ray

    study.interrupted()
    stopped = signals.first is not None
    code = signals.exit_code if stopped else _exit_code(study)
    unfinished = [r for r in study.records.values() if r.outcome is None]
    for record in unfinished:
        tracker.update(record, ended=True)
    best = {cell.name: study.best(cell.name) for cell in study.cells}
    summary = {
        "sweep": study.spec.name,
        "exit_code": code,
        "finished": not stopped,
        "data": data,
        "outcomes": outcomes(study),
        "best": {cell: record.id if record else None for cell, record in best.items()},
    }
    tables.write(study.storage, study.records.values(), summary)
    title = f"{study.spec.name}: reconstruction loss on held-out images"
    records = list(study.records.values())
    overview = overview_png(study.storage, title, records, best, data["baseline"])
    study.storage.write(tables.OVERVIEW, overview)
    tables.show(console, study.records.values(), [c.name for c in study.cells], data["baseline"])
    if code == EXIT_FAILED:
        _explain_failures(study, console)
    ray.shutdown()
    metrics = {f"best/{c}": r.best[1] for c, r in best.items() if r is not None and r.best}
    metrics |= {f"trials/{outcome}": float(n) for outcome, n in outcomes(study).items()}
    status: Status = "KILLED" if stopped else ("FAILED" if code else "FINISHED")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in (tables.RESULTS, tables.CURVES, tables.SUMMARY, tables.OVERVIEW):
            (Path(folder) / name).write_bytes(study.storage.read(name) or b"")
            files.append(Path(folder) / name)
        copied = tracker.close(status, files, metrics)
    _say_where(study, tracker, copied, stopped, console)
    return code


def _exit_code(study: Study) -> int:
    counts = outcomes(study)
    failed = counts.get("failed", 0)
    without = [cell.name for cell in study.cells if study.best(cell.name) is None]
    # a cell without any result, or a sweep that lost half of its trials, carries no verdict
    return EXIT_FAILED if without or failed * 2 > len(study.records) else EXIT_OK


def _explain_failures(study: Study, console: Console) -> None:
    causes = Counter(
        f"{record.outcome}: {record.reason}"
        for record in study.records.values()
        if record.outcome in ("failed", "diverged")
    )
    console.print("Too many trials gave no result:", style="bold red")
    for cause, count in causes.most_common():
        console.print(f"  {count} × {cause}", highlight=False, markup=False)


def _say_where(
    study: Study, tracker: Tracker, copied: bool, stopped: bool, console: Console
) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    say(f"Results: {study.storage.uri}/{tables.RESULTS}")
    say(f"Picture: {study.storage.uri}/{tables.OVERVIEW}")
    if not is_file(tracker.uri):
        say(f"MLflow:  {tracker.uri}, experiment {tracker.experiment!r}")
    else:
        say(f"MLflow:  mlflow ui --backend-store-uri {tracker.uri}")
    if not copied:
        say(
            f"MLflow lacks the newest results ({tracker.last_error or 'too slow'}); the same "
            "command again brings them there",
            "yellow",
        )
    if stopped:
        say("Interrupted; the same command goes on from here.", "yellow")
