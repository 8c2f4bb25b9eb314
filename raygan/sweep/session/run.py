"""A sweep from its spec to its trials: what is checked, opened and started, in this order."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from optuna.storages import JournalStorage
from rich.console import Console

from raygan import own_recipes, recipe
from raygan.addresses import is_address
from raygan.errors import ConfigError, RayganError, RunError, TrackingError
from raygan.folder import JOURNAL_FILE, MLFLOW_ARTIFACTS, MLFLOW_DATABASE
from raygan.records import TrialRecord
from raygan.storage import Storage, usable
from raygan.sweep.cluster import nodes, preparing, tune
from raygan.sweep.cluster.job import job_of
from raygan.sweep.cluster.last_checkpoints import LastCheckpoints
from raygan.sweep.cluster.outage import Outage
from raygan.sweep.cluster.ray_quirks import free_leftovers
from raygan.sweep.cluster.tasks import Tasks
from raygan.sweep.session import final_tests, publish
from raygan.sweep.session.conclude import (
    catch_up,
    close_interrupted,
    cluster_lost,
    finish,
    show_again,
    spent_metrics,
    tell_interrupted,
)
from raygan.sweep.session.final_making import make_test
from raygan.sweep.session.lock import Lock, leave
from raygan.sweep.session.progress import Behind, FinalProgress, Progress
from raygan.sweep.session.session import Options, Session
from raygan.sweep.session.signals import StopSignals
from raygan.sweep.session.terminal import command_of
from raygan.sweep.spec import checks, plan, scales
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import registered, stored_sweep
from raygan.sweep.study.ledger import Ledger
from raygan.sweep.study.prepared import Prepared
from raygan.sweep.study.search import Journal
from raygan.sweep.study.study import Event, Study
from raygan.tracking.context import data_tags, default_uri, is_file, run_tags
from raygan.tracking.mlflow_tracker import Tracker


def run(spec: SweepSpec, console: Console, options: Options) -> int:
    """Run ``spec``, or go on with it; returns the exit code.

    0: all done; 1: a final test could not be made; 3: no verdict; 4: the budget is reached; 130,
    143: interrupted. Raises :class:`~raygan.errors.RunError` if it breaks off, and
    :class:`~raygan.errors.RayganError` for whatever is wrong before the first trial. If the
    cluster's head node is lost, the process ends with code 5.
    """
    with StopSignals() as signals:
        storage = _open_storage(spec)
        if options.fresh:
            with usable(storage):
                spec = stored_sweep.beside(spec, storage)
        sweep = storage / spec.name
        try:
            with Lock(sweep, stop=signals.stop, lost=leave) as lock:
                session = Session(spec, storage, sweep, options, console, signals, lock)
                return _run(session)
        except Exception:
            tune.wait_for_head()
            raise
        finally:  # the lock is free by then: `ray job stop` leaves 3 seconds for all of it
            tune.disconnect()


def _run(session: Session) -> int:
    spec, sweep = session.spec, session.sweep
    with usable(sweep):
        sweep.check_tree()
        own_recipes.check_unchanged(sweep)
        before = stored_sweep.stored_spec(sweep, mend=True)
        known = stored_sweep.stored_data(sweep, before or spec, mend=True)
        grown = []
        if before is None:
            with recipe.blamed():
                checks.check_fair(spec)
        else:
            spec = stored_sweep.with_defaults_of(spec, before)
            grown = stored_sweep.check_unchanged(spec, before, sweep)
        checks.check_names(spec, before)
        session = replace(session, spec=spec)
        ledger = Ledger(sweep)
        study = Study(
            spec,
            sweep,
            _journal(sweep, ledger),
            ledger=ledger,
            retry_failed=session.options.retry_failed,
            prepared=known,
        )
    session.lock.signs = study.signs
    _announce(study, grown, session)
    tracker = _tracker(session)
    with usable(sweep):
        to_do = study.runnable or (known is not None and bool(_untested(study)))
    if known and not to_do:
        if before is not None and before.claims != spec.claims:
            _write_down(study, known, run_tags(known.digest))
        return show_again(session, study, tracker, known)
    checks.check_quality(spec)
    if tracker is None:
        later = command_of("sync", sweep)
        session.warn(
            f"Nothing is copied to MLflow (--offline). When the sweep has ended, run: {later}"
        )
    with _or_offline():
        if tracker is not None:
            tracker.connect()
        at_once = _start(session, tracker.uri if tracker else None)
    prepared = _prepare(session, known)
    *lines, images = prepared.described
    for line in lines:
        session.say(line)
    session.say(f"{images}; up to {at_once} trials at once")
    study.prepared = prepared
    with usable(sweep):
        session.lock.confirm()
    tags = run_tags(prepared.digest)
    plans = _write_down(study, prepared, tags)
    last = plans[-1]
    session.say(f"plan {last.sha256[:12]} of {last.time}, in {sweep.uri}/{registered.PLAN_FILE}")
    if tracker is None:
        with usable(sweep):
            stored_sweep.note_synced(sweep, synced=False)
    try:
        if tracker is not None:
            hashes = [entry.sha256 for entry in plans]
            every = tags | data_tags(prepared.digests)
            tracker.open(prepared.id, stored_sweep.dump(spec), every, hashes)
            Behind(tracker, session.console).start()
        session.signals.at_once = partial(close_interrupted, study, tracker)
        if tracker is not None:
            catch_up(study, tracker)
            study.listeners.append(partial(_copy, study, tracker))
        if study.runnable:
            watch, outage = nodes.Watch(study, session.say), Outage(study, session.say)
            asking = LastCheckpoints()
            session.signals.last_checkpoints = partial(_keep_last, session, study, asking)
            with Progress(study, session.console, tracker), watch, outage:
                jobs = partial(job_of, spec=spec, sweep=sweep, prepared=prepared)
                try:
                    tune.run(study, jobs, at_once, asking)
                except RayganError as error:  # of a recipe of the user's own, for one
                    raise RunError(str(error)) from error
            study.flush()
        untested = _test(session, study, prepared, at_once)
        tune.need_head_no_more()
        return finish(session, study, tracker, prepared, untested)
    except BaseException as error:
        if isinstance(error, Exception):  # perhaps it comes from a lost cluster
            tune.wait_for_head()
        session.signals.wait()
        try:
            study.close()
        finally:  # whatever the storage does, no run stays open in MLflow
            if tracker is not None:
                tell_interrupted(study, tracker)
                tracker.close("FAILED" if session.signals.first is None else "KILLED")
        raise


def _keep_last(session: Session, study: Study, asking: LastCheckpoints, seconds: float) -> None:
    """Have the trials that run write a last checkpoint, within ``seconds``."""

    def running() -> list[str]:
        counted = dict(study.counted_until)  # a copy: it changes on another thread
        return [trial for trial, until in counted.items() if until is not None]

    if count := len(running()):
        with suppress(OSError):  # a log on a full disk must not cost the checkpoints
            session.say(
                f"Stopping: {count} trials write a last checkpoint, for at most {seconds:g} s. "
                "A second Ctrl-C or SIGTERM ends the sweep at once."
            )
    if left := asking.ask(running, seconds, session.signals.again):
        session.warn(f"{len(left)} trials have not written a last checkpoint in time. They resume "
                     "from the one before it.")  # fmt: skip


def _prepare(session: Session, known: Prepared | None) -> Prepared:
    """The sweep's images; ``known``: what they were when the sweep began."""
    spec = session.spec
    sets = preparing.prepare_on_cluster(
        spec, session.storage, lambda line: session.say(f"images: {line}")
    )
    for label, now in sets.items():
        before = known.get(label) if known else None
        if before is not None and before.digest != now.digest:
            where = spec.datasets()[label].path or label
            several = len(sets) > 1  # which no earlier version had
            which = f"the data set {label} ({where})" if several else where
            earlier = (
                ". If an earlier version of raygan began it: that version read all published "
                "splits, as `dataset.split: all` does now, and did not turn photographs by their "
                "EXIF orientation; and `*` in the address of a glob also matched `/`, as `**/*` "
                "does now"
            )
            raise ConfigError(
                f"the images of {which} have changed since the sweep {spec.name!r} began: restore "
                "them, or start anew beside it (--fresh, or --set name=…)"
                + ("" if several else earlier)
            )
    return Prepared(id=known.id if known else uuid.uuid4().hex, sets=sets)


def _write_down(study: Study, prepared: Prepared, tags: dict[str, str]) -> list[registered.Entry]:
    """Store what the sweep is, and its plan: before its first trial, or with the time of a change;
    returns the plan and its changes."""
    code = registered.code_of(tags)
    with usable(study.storage):
        planned = registered.register(
            study.storage, study.spec, prepared.digest, code, len(study.records)
        )
        stored_sweep.store(study.storage, study.spec, prepared)
    return planned


def _untested(study: Study) -> list[final_tests.PlannedTest]:
    """The final tests that are still to be made."""
    return final_tests.due(study.storage, final_tests.tested(study), study.spec.final_config())


def _test(session: Session, study: Study, prepared: Prepared, at_once: int) -> str:
    """Make the final tests that are due, as Ray tasks; returns, in words, which could not
    be made."""
    spec, sweep = session.spec, session.sweep
    try:
        tests = _untested(study)
    except OSError as error:
        return f"The final tests that are due are not known ({error})"
    if tests:
        session.say(f"Final tests of {len(tests)} generators{final_tests.steps_of(tests)}")
    jobs = [
        final_tests.FinalJob(test, job_of(plan.of_record(record), spec, sweep, prepared))
        for test in tests
        for record in [study.records[test.generator.trial]]
    ]
    records = list(study.records.values())
    with FinalProgress(spec, sweep, records, tests, session.console):
        failed = final_tests.run(
            jobs,
            Tasks(make_test),
            # each on one worker's resources; Ray lets those wait that do not fit
            at_once * max(scale.most for scale in scales.of(spec)),
            session.say,
            lambda: session.signals.first is not None,
        )
    return f"{failed} final tests could not be made" if failed else ""


def _journal(sweep: Storage, ledger: Ledger) -> JournalStorage | None:
    """Where Optuna's studies are kept for optuna-dashboard; only in a local folder."""
    return JournalStorage(Journal(sweep.local / JOURNAL_FILE, ledger)) if sweep.is_local else None


def _copy(study: Study, tracker: Tracker, event: Event, record: TrialRecord) -> None:
    ended = event in ("ended", "paused")
    if ended:
        summary, spent = publish.summary(record), spent_metrics(study)
        tracker.update(record, ended=True, spent=spent, summary=summary)
    else:
        tracker.update(record)


def _open_storage(spec: SweepSpec) -> Storage:
    relative = not is_address(spec.storage) and not spec.storage.startswith(("/", "~"))
    if relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"`storage` (={spec.storage!r}) is relative, and a Ray job runs in a temporary copy "
            "of the working directory: give an absolute path or an address such as s3://…"
        )
    storage = Storage(spec.storage)
    with usable(storage):
        storage.probe()
    return storage


def _announce(study: Study, grown: list[str], session: Session) -> None:
    text = f"{study.spec.name}: {study.trial_count} trials in {len(study.cells)} cells"
    if study.records:
        text += f"; resumed, {study.done} of its trials done"
    session.say(text, "bold")
    for words in grown:
        session.say(f"The sweep is extended: {words}.")
    if (limited := plan.all_settings(study.spec)) is not None:
        session.say(limited)


def _tracker(session: Session) -> Tracker | None:
    """What copies the sweep to MLflow; None if it is offline."""
    spec, offline = session.spec, session.options.offline
    uri = spec.tracking.uri
    if uri is None and not offline:
        with _or_offline():
            uri = default_uri(session.storage)
    for name in (MLFLOW_DATABASE, MLFLOW_ARTIFACTS):  # MLflow would write through a link
        session.storage.refuse_link(name)
    if uri is None:
        return None
    tracker = Tracker(uri, spec.tracking.experiment, spec.name, session.sweep)
    return None if offline else tracker  # made all the same: it checks the address


@contextmanager
def _or_offline() -> Iterator[None]:
    """Within the block, an error of MLflow says how to run the sweep without it."""
    try:
        yield
    except TrackingError as error:
        raise TrackingError(
            f"{error}; or add --offline: the sweep is recorded in its storage, and `raygan sync` "
            "copies it to MLflow later"
        ) from error


def _start(session: Session, tracking: str | None) -> int:
    """Start or join Ray; returns how many trials it holds at once. ``tracking``: MLflow's address,
    if the sweep is copied there."""
    scale, options = session.spec.scale, session.options
    ours = tune.connect(
        options.address, verbose=options.verbose, last=lambda: cluster_lost(session)
    )
    session.signals.install()
    nodes_there = len(tune.alive())
    if tracking and is_file(tracking) and (nodes_there > 1 or (scale.autoscaling and not ours)):
        has = f"has {nodes_there} nodes" if nodes_there > 1 else "may get other nodes"
        raise TrackingError(
            f"the cluster {has}, but MLflow's store {tracking} is a file that only this one can "
            "see, and that is lost with it; set `tracking.uri` or MLFLOW_TRACKING_URI to an MLflow "
            "server"
        )
    if not ours:
        free_leftovers()
    return nodes.room(scales.of(session.spec), ours=ours, say=session.say)
