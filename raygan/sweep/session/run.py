"""A sweep from its spec to its trials: what is checked, opened and started, in this order."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

from optuna.storages import JournalStorage
from rich.console import Console

from raygan.errors import ConfigError, TrackingError
from raygan.records import TrialRecord
from raygan.shown import say, shown
from raygan.storage import Storage, usable
from raygan.sweep.cluster import nodes, trial, tune
from raygan.sweep.cluster.outage import Outage
from raygan.sweep.session import final_tests as final
from raygan.sweep.session import publish
from raygan.sweep.session.conclude import (
    catch_up,
    close_interrupted,
    finish,
    show_again,
    spent_metrics,
    tell_interrupted,
)
from raygan.sweep.session.lock import Holder, Lock
from raygan.sweep.session.progress import FinalProgress, Progress
from raygan.sweep.session.signals import StopSignals
from raygan.sweep.spec import checks, plan
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import registered
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.search import Journal
from raygan.sweep.study.study import Event, Study
from raygan.tracking.context import default_uri, is_file, run_tags
from raygan.tracking.mlflow_tracker import Tracker

JOURNAL_FILE = "optuna.log"
"""Optuna's studies, one per cell, as optuna-dashboard opens them."""


@dataclass(frozen=True)
class Options:
    """How a sweep is run this time."""

    address: str | None = None
    """Ray cluster; by default ``$RAY_ADDRESS``, else this machine."""
    verbose: bool = False
    fresh: bool = False
    """Start anew beside a sweep of this name."""
    retry_failed: bool = False


def run(spec: SweepSpec, console: Console, options: Options) -> int:
    """Run ``spec``, or go on with it; returns the exit code.

    0: all done; 3: too many trials failed; 4: the budget is reached; 130, 143: interrupted.
    Raises :class:`~raygan.errors.RayganError` for whatever is wrong before the first trial.
    """
    with StopSignals() as signals:
        storage = _open_storage(spec)
        if options.fresh:
            spec = state.beside(spec, storage)
        sweep = storage / spec.name
        try:
            with Lock(sweep, stop=signals.stop, lost=_lost) as lock:
                return _run(spec, console, options, signals, storage, sweep, lock)
        finally:  # the lock is free by then: `ray job stop` leaves 3 seconds for all of it
            tune.disconnect()


def _run(
    spec: SweepSpec,
    console: Console,
    options: Options,
    signals: StopSignals,
    storage: Storage,
    sweep: Storage,
    lock: Lock,
) -> int:
    again = "the same command"
    if options.fresh:
        again += f", with `--set name={spec.name}` for --fresh,"
    with usable(sweep):
        sweep.check_tree()
        before, known = state.stored_spec(sweep, mend=True), state.stored_data(sweep, mend=True)
        grown = []
        if before is None:
            checks.check_fair(spec)
        else:
            spec = state.with_rule_of(spec, before)
            grown = state.check_unchanged(spec, before, sweep)
        journal = _journal(sweep)
        optuna_storage = JournalStorage(journal) if journal else None
        study = Study(
            spec,
            sweep,
            optuna_storage,
            retry_failed=options.retry_failed,
            baseline=known["baseline"] if known else None,
        )
    _announce(study, grown, console)
    tracker = _tracker(spec, sweep, storage)
    if known and not (study.runnable or _untested(study)):
        if before is not None and before.claims != spec.claims:
            _write_down(study, known, run_tags(known["digest"]))
        return show_again(study, tracker, known, console, again)
    tracker.connect()
    at_once = _start(spec, tracker.uri, options, signals, console)
    data = {
        "id": known["id"] if known else uuid.uuid4().hex,
        **trial.prepare_on_cluster(spec, storage, lambda line: say(console, f"images: {line}")),
    }
    images = f"{data['train']} training images {data['shape']}"
    say(console, f"{images}; up to {at_once} trials at once")
    if known and known["digest"] != data["digest"]:
        raise ConfigError(
            f"the images of {spec.dataset.path} have changed since the sweep {spec.name!r} "
            "began: restore them, or start anew beside it (--fresh, or --set name=…). If an "
            "earlier version of raygan began it: that version read all published splits, as "
            "`dataset.split: all` does now, and did not turn photographs by their EXIF orientation"
        )
    study.baseline = data["baseline"]
    lock.confirm()
    tags = run_tags(data["digest"])
    plans = _write_down(study, data, tags)
    last = plans[-1]
    say(console, f"plan {last.sha256[:12]} of {last.time}, in {sweep.uri}/{registered.PLAN_FILE}")
    tracker.open(data["id"], state.dump(spec), tags, [entry.sha256 for entry in plans])
    signals.at_once = lambda: close_interrupted(study, tracker)
    try:
        catch_up(study, tracker)
        study.listeners.append(lambda event, record: _copy(study, tracker, event, record))
        if study.runnable:
            tell = partial(say, console)
            watch, outage = nodes.Watch(study, tell), Outage(study, tell)
            with Progress(study, console, tracker), watch, outage:
                tune.run(study, lambda planned: trial.job_of(planned, spec, sweep, data), at_once)
        _test(study, data, at_once, signals, console, again)
        return finish(study, tracker, signals, data, console, again)
    except BaseException:
        signals.wait()
        study.close()
        tell_interrupted(study, tracker)
        tracker.close("FAILED" if signals.first is None else "KILLED")
        raise


def _write_down(study: Study, data: dict[str, Any], tags: dict[str, str]) -> list[registered.Entry]:
    """Store what the sweep is, and its plan: before its first trial, or with the time of a change;
    returns the plan and its changes."""
    code = registered.code_of(tags)
    with usable(study.storage):
        planned = registered.register(
            study.storage, study.spec, data["digest"], code, len(study.records)
        )
        state.store(study.storage, study.spec, data)
    return planned


def _untested(study: Study) -> list[final.Job]:
    """The final tests that are still to be made."""
    return final.due(study.storage, final.tested(study), study.spec.final_config())


def _test(
    study: Study,
    data: dict[str, Any],
    at_once: int,
    signals: StopSignals,
    console: Console,
    again: str,
) -> None:
    """Make the final tests that are due, as Ray tasks; one that cannot be made is still due."""
    spec, sweep = study.spec, study.storage

    tell = partial(say, console)
    try:
        due = _untested(study)
    except OSError as error:
        tell(f"The final tests cannot be prepared ({error}); {again} makes them.")
        return
    jobs = [
        trial.job_of(plan.of_record(study.records[job["trial"]]), spec, sweep, data) | job
        for job in due
    ]
    if jobs:
        tell(f"Final tests of {len(jobs)} generators, {spec.final.steps} steps per image")
    with FinalProgress(spec, sweep, list(study.records.values()), jobs, console):
        failed = final.run(
            jobs,
            final.OnRay(),
            at_once * spec.scale.workers,
            tell,
            lambda: signals.first is not None,
        )
    if failed:
        tell(f"{failed} final tests could not be made; {again} tries again")


def _lost(holder: Holder) -> None:
    # whatever this process would write now, another one may have written, too
    print(f"error: this sweep is now run by {shown(holder)}", file=sys.stderr, flush=True)
    os._exit(2)


def _journal(sweep: Storage) -> Journal | None:
    """Where Optuna's studies are kept for people to look at; only in a local folder."""
    return Journal(sweep.local / JOURNAL_FILE) if sweep.is_local else None


def _copy(study: Study, tracker: Tracker, event: Event, record: TrialRecord) -> None:
    ended = event in ("ended", "paused")
    if ended:
        summary, spent = publish.summary(record), spent_metrics(study)
        tracker.update(record, ended=True, spent=spent, summary=summary)
    else:
        tracker.update(record)


def _open_storage(spec: SweepSpec) -> Storage:
    relative = "://" not in spec.storage and not spec.storage.startswith(("/", "~"))
    if relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"`storage` (={spec.storage!r}) is relative, and a Ray job runs in a temporary copy "
            "of the working directory: give an absolute path or an address such as s3://…"
        )
    storage = Storage(spec.storage)
    with usable(storage):
        storage.probe()
    return storage


def _announce(study: Study, grown: list[str], console: Console) -> None:
    done = sum(record.outcome is not None for record in study.records.values())
    text = f"{study.spec.name}: {study.trial_count} trials in {len(study.cells)} cells"
    if study.records:
        text += f"; resumed, {done} of its trials done"
    say(console, text, "bold")
    for words in grown:
        say(console, f"The sweep is extended: {words}.")
    if (limited := plan.all_settings(study.spec)) is not None:
        say(console, limited)


def _tracker(spec: SweepSpec, sweep: Storage, storage: Storage) -> Tracker:
    uri = spec.tracking.uri or default_uri(storage)
    for name in ("mlflow.db", "mlartifacts"):  # MLflow would write through a link
        storage.refuse_link(name)
    return Tracker(uri, spec.tracking.experiment, spec.name, sweep)


def _start(
    spec: SweepSpec, tracking: str, options: Options, signals: StopSignals, console: Console
) -> int:
    """Start or join Ray; returns how many trials it holds at once."""
    ours = tune.connect(options.address, verbose=options.verbose)
    signals.install()
    nodes_there = len(tune.alive())
    if is_file(tracking) and (nodes_there > 1 or (spec.scale.autoscaling and not ours)):
        has = f"has {nodes_there} nodes" if nodes_there > 1 else "may get other nodes"
        raise TrackingError(
            f"the cluster {has}, but MLflow's store {tracking} is a file that only this one can "
            "see, and that is lost with it; set `tracking.uri` or MLFLOW_TRACKING_URI to an MLflow "
            "server"
        )
    if not ours:
        tune.free_leftovers()
    return nodes.room(spec.scale, ours=ours, say=partial(say, console))
