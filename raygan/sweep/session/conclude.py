"""The end of a run of a sweep: tables, picture, report, MLflow's parent run, and the exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from raygan.errors import TrackingError
from raygan.folder import (
    CURVES,
    HTML,
    MARKDOWN,
    OVERVIEW,
    RECORD_FILE,
    REPORT_FOLDER,
    RESULTS,
    SPEC_FILE,
    SUMMARY,
    UNSYNCED_FILE,
    report_file,
    trial_folder,
)
from raygan.records import STEP, WHOLE
from raygan.report import tables
from raygan.report.make import Report
from raygan.report.overview import overview_png
from raygan.shown import shown
from raygan.storage import Storage
from raygan.sweep.cluster.head import EXIT_LOST
from raygan.sweep.session import final_tests, publish, terminal
from raygan.sweep.session.progress import Behind, describe_spent
from raygan.sweep.session.session import Session
from raygan.sweep.session.signals import EXIT_SIGINT, EXIT_SIGTERM
from raygan.sweep.session.terminal import command_of
from raygan.sweep.study import registered, stored_sweep
from raygan.sweep.study.gather import make_report
from raygan.sweep.study.prepared import Prepared
from raygan.sweep.study.study import FLUSH_SECONDS, Study, outcomes
from raygan.tracking.context import Status, data_tags, is_file, run_tags
from raygan.tracking.mlflow_tracker import Tracker
from raygan.tracking.runs import Ending

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_BROKEN, EXIT_FAILED, EXIT_BUDGET = 0, 1, 3, 4
GRACE_SECONDS = 1.0
"""How long an end at once waits until the records are saved, or until MLflow has what is being
copied: `ray job stop` kills after 3 s, and MLflow needs the rest."""
MOST_CAUSES = 20
"""Reasons of failures that are listed, the most frequent ones."""


def spent_metrics(study: Study) -> dict[str, float]:
    """Metrics of the parent run: what the sweep had used when so many trials had ended."""
    spent = study.spent
    metrics = {
        STEP: float(study.done),
        "spent/gpu_hours": spent.gpu_hours,
        "spent/trial_hours": spent.trial_hours,
        "spent/wall_clock_hours": spent.wall_clock / 3600,
    }
    usd = spent.usd(study.spec.budget)
    return metrics if usd is None else {**metrics, "spent/usd": usd}


def tell_interrupted(study: Study, tracker: Tracker) -> None:
    """Let MLflow know of the trials that have not ended: nothing runs any more."""
    for record in list(study.records.values()):
        if record.outcome is None:
            tracker.update(record, ended=True)


def close_interrupted(
    study: Study, tracker: Tracker | None, seconds: float = GRACE_SECONDS
) -> bool:
    """Save what is known, within ``seconds``, and close all of the sweep's runs in MLflow.

    Returns whether MLflow has everything. Both at the same time: neither waits for the other.
    """
    if tracker is None:
        study.flush(seconds)
        return False
    tell_interrupted(study, tracker)
    study.flush(seconds)
    return tracker.close("KILLED")


def cluster_lost(session: Session) -> None:
    """Save what is known when the cluster's head node is lost: this process is about to end."""
    if session.signals.at_once is not None:
        session.signals.at_once(FLUSH_SECONDS)
    if SPEC_FILE in session.sweep.files():  # else the sweep has not begun
        before = stored_sweep.summary(session.sweep)
        content = {**before, "exit_code": EXIT_LOST, "finished": False}
        session.sweep.write(SUMMARY, json.dumps(content, indent=1).encode())
    session.lock.__exit__(None, None, None)


def finish(
    session: Session,
    study: Study,
    tracker: Tracker | None,
    prepared: Prepared,
    untested: str = "",
) -> int:
    """Write and show what there is; returns the exit code. ``untested``: which final tests could
    not be made, in words."""
    signals = session.signals
    signals.conclude()
    study.close()
    # Tune also returns on a SIGUSR1 that is not ours: some schedulers of clusters send it
    stopped = signals.first is not None or not (study.complete or study.exhausted)
    code = signals.exit_code if stopped else _exit_code(study)
    if untested and code == EXIT_OK:
        code = EXIT_BROKEN
    if stopped:  # time is short: MLflow first, and no picture
        copied = close_interrupted(study, tracker)
    elif tracker is not None:
        tell_interrupted(study, tracker)
    report = None
    try:
        report = _write(
            study,
            prepared,
            code,
            run_tags(prepared.digest),
            pictures=not stopped,
            is_tested=not untested,
        )
    except OSError as error:
        session.warn(f"The tables cannot be written ({error}); {session.again} writes them.")
    _show(session, study, prepared)
    if code == EXIT_FAILED:
        _explain_failures(session, study)
    if not stopped:
        copied = tracker is not None and _close(study, tracker, code, report)
    _note_synced(study.storage, synced=copied)
    _say_where(session, study, tracker)
    if tracker is not None and not copied:
        _say_behind(session, tracker)
    if untested and not stopped:
        session.warn(f"{untested}: the verdict rests on the running test; {session.again} makes "
                     "them.")  # fmt: skip
    _say_what_is_left(session, study, code)
    return code


def show_again(session: Session, study: Study, tracker: Tracker | None, prepared: Prepared) -> int:
    """A sweep with nothing left to run: show what there is, and bring MLflow what it lacks.

    Returns the exit code of the run that ended it.
    """
    code, report = _write_again(study, prepared, session.warn)
    _show(session, study, prepared)
    if code == EXIT_FAILED:
        _explain_failures(session, study)
    try:
        if tracker is not None:
            tracker.connect()
            there = _is_in_mlflow(tracker.ended(prepared.id), code, report)
            if stored_sweep.is_unsynced(study.storage) or not there:
                Behind(tracker, session.console).start()
                if not _copy(study, tracker, prepared, code, report):
                    _say_behind(session, tracker)
    except TrackingError as error:
        session.warn(error)
    _say_where(session, study, tracker)
    _say_what_is_left(session, study, code)
    return code


def sync(
    study: Study, tracker: Tracker, prepared: Prepared, warn: Callable[[str], None]
) -> tuple[bool, bool]:
    """Bring MLflow what it lacks of a sweep that no process runs.

    Returns whether MLflow has everything, and whether nothing of the sweep is left to run. Raises
    :class:`~raygan.errors.TrackingError`.
    """
    study.flush()
    tests = final_tests.due(study.storage, final_tests.tested(study), study.spec.final_config())
    if study.runnable or tests:
        return _copy(study, tracker, prepared, None, None), False
    code, report = _write_again(study, prepared, warn)
    return _copy(study, tracker, prepared, code, report), True


def _write_again(
    study: Study, prepared: Prepared, warn: Callable[[str], None]
) -> tuple[int, Report | None]:
    """The exit code of the run that ended a sweep, and its report, which is written again."""
    study.flush()
    code = _exit_code(study)
    versions = stored_sweep.summary(study.storage).get(stored_sweep.VERSIONS, {})
    try:
        return code, _write(study, prepared, code, versions, pictures=True)
    except OSError as error:
        warn(f"The tables cannot be written ({error}).")
        return code, None


def _copy(
    study: Study, tracker: Tracker, prepared: Prepared, code: int | None, report: Report | None
) -> bool:
    """Bring MLflow what it lacks of a sweep that does not run; returns whether it has everything.

    ``code``: exit code of the run that ended the sweep; None if something is left to run.
    """
    # what trained, not what copies
    versions = stored_sweep.summary(study.storage).get(stored_sweep.VERSIONS)
    tags = {**versions, "data_digest": prepared.digest} if versions else run_tags(prepared.digest)
    tags |= data_tags(prepared.digests)
    plans = [entry.sha256 for entry in registered.entries(study.storage)]
    tracker.open(prepared.id, stored_sweep.dump(study.spec), tags, plans, running=False)
    _note_synced(study.storage, synced=False)  # whatever ends this process
    try:
        catch_up(study, tracker)
        tell_interrupted(study, tracker)
        if code is None:
            copied = tracker.close("KILLED", Ending())
        else:
            copied = _close(study, tracker, code, report)
    except BaseException:  # KeyboardInterrupt, for one
        tracker.give_up(GRACE_SECONDS)
        raise
    if copied:
        _note_synced(study.storage, synced=True)
    return copied


def _note_synced(sweep: Storage, *, synced: bool) -> None:
    try:
        stored_sweep.note_synced(sweep, synced=synced)
    except OSError as error:  # it only serves `raygan status`
        logger.warning("%s cannot be written: %s", UNSYNCED_FILE, error)


def _is_in_mlflow(ended: tuple[str, str] | None, code: int, report: Report | None) -> bool:
    """Whether the parent run has ended so, and with this verdict: tests may have come later."""
    if ended is None or report is None:
        return ended is not None and ended[0] == _status(code)
    # with a model or without: whether it could be saved then is no matter now
    notes = [publish.note(report.verdict, report.evidence, has_model=has) for has in (True, False)]
    return ended[0] == _status(code) and ended[1] in notes


def _say_behind(session: Session, tracker: Tracker) -> None:
    problem = tracker.last_error or f"too slow: behind by {tracker.behind}"
    command = command_of("sync", session.sweep)
    session.warn(f"MLflow lacks the latest results ({problem}). To copy them: {command}")


def catch_up(study: Study, tracker: Tracker) -> None:
    """What MLflow may have missed of earlier runs."""
    for record in study.records.values():
        if record.outcome is not None:
            tracker.catch_up(record, publish.summary)


def _show(session: Session, study: Study, prepared: Prepared) -> None:
    cells = study.cells
    terminal.show_trials(session.console, study.records.values(), list(cells), prepared.baselines)
    verdicts = {name: cell.verdict_records() for name, cell in cells.items()}
    terminal.show_replicates(session.console, verdicts)


def _say_what_is_left(session: Session, study: Study, code: int) -> None:
    if code in (EXIT_SIGINT, EXIT_SIGTERM):
        session.warn(f"Interrupted; {session.again} resumes the sweep.")
    elif code == EXIT_BUDGET:
        session.warn(
            f"The budget is reached ({study.exhausted}): no further trial is started. "
            f"Raise it under `budget`; then {session.again} resumes the sweep."
        )


def _write(
    study: Study,
    prepared: Prepared,
    code: int,
    versions: dict[str, str],
    *,
    pictures: bool,
    is_tested: bool = True,
) -> Report | None:
    best = {name: study.best(name) for name in study.cells}
    records = list(study.records.values())
    spent = spent_metrics(study)
    summary = {
        "sweep": study.spec.name,
        "exit_code": code,
        "finished": study.complete and is_tested and code not in (EXIT_SIGINT, EXIT_SIGTERM),
        "data": prepared.to_plain(),
        stored_sweep.VERSIONS: versions,
        "outcomes": outcomes(study),
        "best": {cell: record.id if record else None for cell, record in best.items()},
        "replicates": {
            n: [r.id for r in cell.verdict_records()] for n, cell in study.cells.items()
        },
        "spent": {key.removeprefix("spent/"): spent[key] for key in spent if key != STEP},
    }
    tables.write(study.storage, records, summary)
    if not pictures:
        return None
    title = f"{study.spec.name}: reconstruction loss on held-out images"
    drawn = overview_png(study.storage, title, records, best, prepared.baselines)
    study.storage.write(OVERVIEW, drawn)
    return _report(study, prepared)


def _report(study: Study, prepared: Prepared) -> Report | None:
    try:
        report = make_report(study.storage, study.spec, study.records, prepared)
        report.write(study.storage)
    except Exception as error:  # a report that cannot be made must not lose a sweep its end
        reason = shown(f"{type(error).__name__}: {error}")
        command = f"raygan report {study.spec.name} --storage {study.storage.parent}"
        logger.error(
            "the report cannot be written (%s); run `%s` to see the error", reason, shown(command)
        )
        return None
    return report


def _status(code: int) -> Status:
    return {EXIT_OK: "FINISHED", EXIT_FAILED: "FAILED"}.get(code, "KILLED")  # type: ignore[return-value]


def _close(study: Study, tracker: Tracker, code: int, report: Report | None) -> bool:
    """Bring MLflow everything that stands at the end of a sweep."""
    spent = spent_metrics(study)
    metrics = {f"trials/{outcome}": float(n) for outcome, n in outcomes(study).items()}
    metrics |= {key: value for key, value in spent.items() if key != STEP}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            files = _artifacts(study.storage, folder)
        except OSError as error:  # left open, so that the same command makes up for it
            tracker.close("KILLED")
            tracker.last_error = f"{error}"
            return False
        ending = Ending(metrics, int(spent[STEP]), files)
        if report is not None:
            evidence = report.evidence
            for record in study.records.values():
                if record.outcome is not None:
                    summary = publish.summary(record, evidence)
                    tracker.update(record, ended=True, summary=summary)
            models = publish.models_of(study.storage, evidence, folder)
            every = bool(models) and len(models) == len(publish.champions(evidence))
            ending = replace(
                ending,
                metrics=metrics | publish.aggregates(evidence),
                note=publish.note(report.verdict, evidence, has_model=every),
                models=models,
            )
        return tracker.close(_status(code), ending)


def _artifacts(sweep: Storage, folder: Path) -> tuple[Path, ...]:
    """Copies of the sweep's tables and report in ``folder``."""
    written = (RESULTS, CURVES, SUMMARY, OVERVIEW, HTML, MARKDOWN)
    names = [name for name in written if name in sweep.files()]
    names += [report_file(name) for name in sweep.files(REPORT_FOLDER)]
    (folder / REPORT_FOLDER).mkdir()
    for name in names:
        (folder / name).write_bytes(sweep.read(name) or b"")
    return (*(folder / name for name in names if name in written), folder / REPORT_FOLDER)


def _exit_code(study: Study) -> int:
    if not study.complete and study.exhausted:
        return EXIT_BUDGET
    failed = outcomes(study).get("failed", 0)
    replicates = study.spec.replicate.seeds
    results = WHOLE if replicates else (*WHOLE, "stopped")
    without = []
    for name, cell in study.cells.items():
        carries = cell.verdict_records() if replicates else cell.records.values()
        if not any(record.outcome in results for record in carries):
            without.append(name)
    # a cell without any result, or a sweep that lost half of its trials, carries no verdict
    return EXIT_FAILED if without or failed * 2 > len(study.records) else EXIT_OK


def _explain_failures(session: Session, study: Study) -> None:
    causes = Counter(
        shown(f"{record.outcome}: {record.reason}")
        for record in study.records.values()
        if record.outcome in ("failed", "diverged", "early-failure")
    )
    session.say("Too many trials have no result:", "bold red")
    for cause, count in causes.most_common(MOST_CAUSES):
        session.say(f"  {count} × {cause}")
    if (left := len(causes) - MOST_CAUSES) > 0:
        session.say(f"  and {left} more reasons")
    session.say(
        f"Full text: {study.storage.uri}/{trial_folder('TRIAL')}/{RECORD_FILE}, under `reason`"
    )


def _say_where(session: Session, study: Study, tracker: Tracker | None) -> None:
    session.say(f"Spent:   {describe_spent(study)}")
    session.say(f"Results: {study.storage.uri}/{RESULTS}")
    names: list[str] = []
    lacks = True
    with contextlib.suppress(OSError):  # it may be away now
        names = study.storage.files()
        lacks = stored_sweep.is_unsynced(study.storage)
    if OVERVIEW in names:
        session.say(f"Picture: {study.storage.uri}/{OVERVIEW}")
    if HTML in names:
        session.say(f"Report:  {study.storage.uri}/{HTML}")
    if tracker is not None:
        at = "" if is_file(tracker.uri) else f"  # {tracker.uri}, experiment {tracker.experiment!r}"
        session.say(f"MLflow:  {command_of('ui', study.storage)}{at}")
    elif lacks:
        session.warn(f"MLflow:  not copied (--offline); run: {command_of('sync', study.storage)}")
    else:
        session.say("MLflow:  not asked (--offline)")
