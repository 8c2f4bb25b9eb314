"""The end of a run of a sweep: tables, picture, MLflow's parent run, and the exit code."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from raygan.records import STEP
from raygan.report import tables
from raygan.report.overview import overview_png
from raygan.sweep.progress import describe_spent
from raygan.sweep.signals import StopSignals
from raygan.sweep.study import Study, outcomes
from raygan.tracking.context import is_file
from raygan.tracking.mlflow_tracker import Status, Tracker

EXIT_OK, EXIT_FAILED, EXIT_BUDGET = 0, 3, 4


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


def finish(
    study: Study,
    tracker: Tracker,
    signals: StopSignals,
    data: dict[str, Any],
    console: Console,
    again: str,
) -> int:
    """Write and show what there is; returns the exit code. ``again``: what goes on with it."""
    study.interrupted()
    stopped = signals.first is not None
    code = signals.exit_code if stopped else _exit_code(study)
    for record in study.records.values():
        if record.outcome is None:
            tracker.update(record, ended=True)
    copied = True
    if stopped:  # `ray job stop` kills 3 seconds after its SIGTERM: pictures can wait
        copied = tracker.close("KILLED", [], {})
    best = {name: study.best(name) for name in study.cells}
    _write(study, data, code)
    tables.show(console, study.records.values(), list(study.cells), data["baseline"])
    tables.show_replicates(console, {n: cell.replicates() for n, cell in study.cells.items()})
    if code == EXIT_FAILED:
        _explain_failures(study, console)
    _shut_ray_down()
    if not stopped:
        metrics = {f"best/{c}": r.best[1] for c, r in best.items() if r is not None and r.best}
        metrics |= {f"trials/{outcome}": float(n) for outcome, n in outcomes(study).items()}
        copied = _close(study, tracker, code, metrics)
    _say_where(study, tracker, console)
    if not copied:
        problem = tracker.last_error or "too slow"
        _warn(console, f"MLflow lacks the newest results ({problem}); {again} brings them there")
    if stopped:
        _warn(console, f"Interrupted; {again} goes on from here.")
    elif code == EXIT_BUDGET:
        _warn(
            console,
            f"The budget is reached ({study.exhausted}): no trial was started any more. Raise it "
            f"under `budget`, and {again} goes on from here.",
        )
    return code


def _warn(console: Console, text: str) -> None:
    console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)


def _write(study: Study, data: dict[str, Any], code: int) -> None:
    best = {name: study.best(name) for name in study.cells}
    records = list(study.records.values())
    spent = spent_metrics(study)
    summary = {
        "sweep": study.spec.name,
        "exit_code": code,
        "finished": study.complete,
        "data": data,
        "outcomes": outcomes(study),
        "best": {cell: record.id if record else None for cell, record in best.items()},
        "replicates": {n: [r.id for r in cell.replicates()] for n, cell in study.cells.items()},
        "spent": {key.removeprefix("spent/"): spent[key] for key in spent if key != STEP},
    }
    tables.write(study.storage, records, summary)
    title = f"{study.spec.name}: reconstruction loss on held-out images"
    picture = overview_png(study.storage, title, records, best, data["baseline"])
    study.storage.write(tables.OVERVIEW, picture)


def _shut_ray_down() -> None:
    import ray

    ray.shutdown()


def _close(study: Study, tracker: Tracker, code: int, metrics: dict[str, float]) -> bool:
    status: Status = "FINISHED" if code == EXIT_OK else "FAILED"
    if code == EXIT_BUDGET:
        status = "KILLED"
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in (tables.RESULTS, tables.CURVES, tables.SUMMARY, tables.OVERVIEW):
            (Path(folder) / name).write_bytes(study.storage.read(name) or b"")
            files.append(Path(folder) / name)
        spent = spent_metrics(study)
        final = {key: value for key, value in spent.items() if key != STEP}
        return tracker.close(status, files, metrics | final, step=int(spent[STEP]))


def _exit_code(study: Study) -> int:
    if not study.complete and study.exhausted:
        return EXIT_BUDGET
    failed = outcomes(study).get("failed", 0)
    without = [name for name in study.cells if study.best(name) is None]
    if study.spec.replicate.seeds:
        without += [n for n, cell in study.cells.items() if not cell.ranked("replicate")]
    # a cell without any result, or a sweep that lost half of its trials, carries no verdict
    return EXIT_FAILED if without or failed * 2 > len(study.records) else EXIT_OK


def _explain_failures(study: Study, console: Console) -> None:
    causes = Counter(
        f"{record.outcome}: {record.reason}"
        for record in study.records.values()
        if record.outcome in ("failed", "diverged", "early-failure")
    )
    console.print("Too many trials gave no result:", style="bold red")
    for cause, count in causes.most_common():
        console.print(f"  {count} × {cause}", highlight=False, markup=False)


def _say_where(study: Study, tracker: Tracker, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    say(f"Spent:   {describe_spent(study)}")
    say(f"Results: {study.storage.uri}/{tables.RESULTS}")
    say(f"Picture: {study.storage.uri}/{tables.OVERVIEW}")
    if not is_file(tracker.uri):
        say(f"MLflow:  {tracker.uri}, experiment {tracker.experiment!r}")
    else:
        say(f"MLflow:  mlflow ui --backend-store-uri {tracker.uri}")
