"""The end of a run of a sweep: tables, picture, report, MLflow's parent run, and the exit code."""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raygan.errors import TrackingError
from raygan.records import STEP, WHOLE
from raygan.report import tables
from raygan.report.make import FOLDER, HTML, MARKDOWN, Report
from raygan.report.overview import overview_png
from raygan.shown import say, shown
from raygan.storage import Storage
from raygan.sweep.session import publish
from raygan.sweep.session.progress import describe_spent
from raygan.sweep.session.signals import EXIT_SIGINT, EXIT_SIGTERM, StopSignals
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import registered
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.gather import make_report
from raygan.sweep.study.study import Study, outcomes
from raygan.tracking.context import Status, is_file, run_tags
from raygan.tracking.mlflow_tracker import Tracker
from raygan.tracking.runs import Ending

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_BUDGET = 0, 3, 4
MOST_CAUSES = 20
"""Reasons of failures that are listed, the most frequent ones."""


def spent_metrics(study: Study) -> dict[str, float]:
    """Metrics of the parent run: what the sweep had used when so many trials had ended."""
    spent = study.spent
    done = sum(record.outcome is not None for record in study.records.values())
    metrics = {
        STEP: float(done),
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


def close_interrupted(study: Study, tracker: Tracker) -> bool:
    """Close all of the sweep's runs in MLflow; returns whether it has everything."""
    tell_interrupted(study, tracker)
    return tracker.close("KILLED")


def finish(
    study: Study,
    tracker: Tracker,
    signals: StopSignals,
    data: dict[str, Any],
    console: Console,
    again: str,
) -> int:
    """Write and show what there is; returns the exit code. ``again``: what resumes it."""
    signals.wait()
    study.close()
    # Tune also returns on a SIGUSR1 that is not ours: some schedulers of clusters send it
    stopped = signals.first is not None or not (study.complete or study.exhausted)
    code = signals.exit_code if stopped else _exit_code(study)
    if stopped:  # time is short: MLflow first, and no picture
        copied = close_interrupted(study, tracker)
    else:
        tell_interrupted(study, tracker)
    report = None
    try:
        report = _write(study, data, code, run_tags(data["digest"]), pictures=not stopped)
    except OSError as error:
        _warn(console, f"The tables cannot be written ({error}); {again} writes them.")
    _show(study, data, console)
    if code == EXIT_FAILED:
        _explain_failures(study, console)
    if not stopped:
        copied = _close(study, tracker, code, report)
    _say_where(study, tracker, console)
    if not copied:
        _say_behind(tracker, console, again)
    _say_what_is_left(study, code, again, console)
    return code


def show_again(
    study: Study, tracker: Tracker, data: dict[str, Any], console: Console, again: str
) -> int:
    """A sweep with nothing left to run: show what there is, and bring MLflow what it lacks.

    Returns the exit code of the run that ended it.
    """
    code = _exit_code(study)
    before = state.summary(study.storage)
    report = None
    try:
        report = _write(study, data, code, before.get(state.VERSIONS, {}), pictures=True)
    except OSError as error:
        _warn(console, f"The tables cannot be written ({error}).")
    _show(study, data, console)
    if code == EXIT_FAILED:
        _explain_failures(study, console)
    try:
        tracker.connect()
        if not _is_in_mlflow(tracker.ended(data["id"]), code, report):
            plans = [entry.sha256 for entry in registered.entries(study.storage)]
            tracker.open(data["id"], state.dump(study.spec), run_tags(data["digest"]), plans)
            catch_up(study, tracker)
            if not _close(study, tracker, code, report):
                _say_behind(tracker, console, again)
    except TrackingError as error:
        _warn(console, f"{error}")
    _say_where(study, tracker, console)
    _say_what_is_left(study, code, again, console)
    return code


def _is_in_mlflow(ended: tuple[str, str] | None, code: int, report: Report | None) -> bool:
    """Whether the parent run has ended so, and with this verdict: tests may have come later."""
    if ended is None or report is None:
        return ended is not None and ended[0] == _status(code)
    return ended == (_status(code), publish.note(report.verdict, report.evidence))


def _say_behind(tracker: Tracker, console: Console, again: str) -> None:
    problem = tracker.last_error or "too slow"
    _warn(console, f"MLflow lacks the latest results ({problem}); {again} sends them")


def catch_up(study: Study, tracker: Tracker) -> None:
    """What MLflow may have missed of earlier runs."""
    for record in study.records.values():
        if record.outcome is not None:
            tracker.update(record, ended=True, summary=publish.summary(record))


def _show(study: Study, data: dict[str, Any], console: Console) -> None:
    tables.show(console, study.records.values(), list(study.cells), data["baseline"])
    tables.show_replicates(console, {n: cell.verdict_records() for n, cell in study.cells.items()})


def _say_what_is_left(study: Study, code: int, again: str, console: Console) -> None:
    if code in (EXIT_SIGINT, EXIT_SIGTERM):
        _warn(console, f"Interrupted; {again} resumes the sweep.")
    elif code == EXIT_BUDGET:
        _warn(
            console,
            f"The budget is reached ({study.exhausted}): no further trial is started. "
            f"Raise it under `budget`; then {again} resumes the sweep.",
        )


def _warn(console: Console, text: str) -> None:
    say(console, text, "yellow")


def _write(
    study: Study, data: dict[str, Any], code: int, versions: dict[str, str], *, pictures: bool
) -> Report | None:
    best = {name: study.best(name) for name in study.cells}
    records = list(study.records.values())
    spent = spent_metrics(study)
    summary = {
        "sweep": study.spec.name,
        "exit_code": code,
        "finished": study.complete and code not in (EXIT_SIGINT, EXIT_SIGTERM),
        "data": data,
        state.VERSIONS: versions,
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
    drawn = overview_png(study.storage, title, records, best, data["baseline"])
    study.storage.write(tables.OVERVIEW, drawn)
    return _report(study, data)


def _report(study: Study, data: dict[str, Any]) -> Report | None:
    try:
        report = make_report(study.storage, study.spec, study.records, data)
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
            ending = replace(
                ending,
                metrics=metrics | publish.aggregates(evidence),
                note=publish.note(report.verdict, evidence),
                champion=publish.champion(study.storage, evidence, folder),
            )
        return tracker.close(_status(code), ending)


def _artifacts(sweep: Storage, folder: Path) -> tuple[Path, ...]:
    """Copies of the sweep's tables and report in ``folder``."""
    written = (tables.RESULTS, tables.CURVES, tables.SUMMARY, tables.OVERVIEW, HTML, MARKDOWN)
    names = [name for name in written if name in sweep.files()]
    names += [f"{FOLDER}/{name}" for name in sweep.files(FOLDER)]
    (folder / FOLDER).mkdir()
    for name in names:
        (folder / name).write_bytes(sweep.read(name) or b"")
    return (*(folder / name for name in names if name in written), folder / FOLDER)


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


def _explain_failures(study: Study, console: Console) -> None:
    causes = Counter(
        shown(f"{record.outcome}: {record.reason}")
        for record in study.records.values()
        if record.outcome in ("failed", "diverged", "early-failure")
    )
    say(console, "Too many trials have no result:", "bold red")
    for cause, count in causes.most_common(MOST_CAUSES):
        say(console, f"  {count} × {cause}")
    if (left := len(causes) - MOST_CAUSES) > 0:
        say(console, f"  and {left} more reasons")
    say(console, f"Full text: {study.storage.uri}/trials/TRIAL/record.json, under `reason`")


def _say_where(study: Study, tracker: Tracker, console: Console) -> None:
    say(console, f"Spent:   {describe_spent(study)}")
    say(console, f"Results: {study.storage.uri}/{tables.RESULTS}")
    if tables.OVERVIEW in study.storage.files():
        say(console, f"Picture: {study.storage.uri}/{tables.OVERVIEW}")
    if HTML in study.storage.files():
        say(console, f"Report:  {study.storage.uri}/{HTML}")
    home = study.storage.parent
    usual = Storage(SweepSpec.model_fields["storage"].default).uri
    where = "" if home == usual else f" --storage {shlex.quote(home)}"
    server = "" if is_file(tracker.uri) else f"  # {tracker.uri}, experiment {tracker.experiment!r}"
    say(console, f"MLflow:  raygan ui {study.spec.name}{where}{server}")
