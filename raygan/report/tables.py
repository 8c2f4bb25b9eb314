"""A sweep's results as tables: Parquet for pandas and DuckDB, JSON, and text for a terminal."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Container, Iterable, Mapping
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raygan.records import END_LOSS, LOSS, STEP, WHOLE, TrialRecord
from raygan.report import finals, stability
from raygan.report.tabular import parquet_bytes, table_of
from raygan.shown import cell as text_cell
from raygan.shown import say, shown
from raygan.storage import Storage

RESULTS, CURVES, SUMMARY = "results.parquet", "curves.parquet", "result.json"
OVERVIEW = "overview.png"
RETRY = "-warmup"
"""Ends the id of a trial with a warm-up that an early failure of its setting has called for."""
STABILITY = (
    "worsening", "worsening_flat", "worsening_flat_95",
    "log_drawup", "log_drawup_flat", "log_drawup_flat_95", "roughness", "log_area",
)  # fmt: skip
"""Measures of :mod:`raygan.report.stability` in a trial's row."""

REASON = 200
"""Characters of a trial's reason that tables for people show."""
WHOLE_REASONS = "A reason that ends in … is complete in trials/TRIAL/record.json, under `reason`."

STYLES = {
    "ok": "green",
    "stopped": "yellow",
    "collapsed": "red",
    "untrained": "red",
    "diverged": "red",
    "early-failure": "red",
    "failed": "bold red",
}


def trial_row(record: TrialRecord, tested: Mapping[str, Any]) -> dict[str, Any]:
    """One trial as a flat row: identity, configuration, outcome, losses, stability, cost.

    ``tested``: what :func:`raygan.report.finals.columns` says of its final tests.
    """
    best = record.best
    measures = stability.summary(record.curve)
    return {
        "trial": record.id,
        "cell": record.cell,
        "title": record.title,
        "kind": record.kind,
        **record.config,
        "outcome": record.outcome,
        "reason": record.reason,
        "step": record.step,
        "best_loss": best[1] if best else None,
        "best_step": best[0] if best else None,
        "last_loss": record.curve[-1][1] if record.history else None,
        "end_loss": record.end_loss,
        **{name: measures.get(name) for name in STABILITY},
        "worsening_fresh": stability.fresh_of(tested.get("final_best"), tested.get("final_last")),
        **tested,
        "seconds": record.seconds,
        "gpu_seconds": record.gpu_seconds,
        **{
            f"{which}_checkpoint": f"trials/{record.id}/{folder}" if folder else None
            for which in ("best", "last")
            for folder in [record.checkpoints.get(which)]
        },
    }


def write(storage: Storage, records: Iterable[TrialRecord], summary: dict[str, Any]) -> None:
    """Write ``results.parquet`` (a row per trial), ``curves.parquet`` (a row per evaluation) and
    ``result.json`` into a sweep's storage."""
    records = list(records)
    points = [
        {"trial": record.id, "cell": record.cell, **point, STEP: int(point[STEP])}
        for record in records
        for point in record.history
    ]
    results = results_table(storage, records)
    storage.write(RESULTS, parquet_bytes(results))
    curves = table_of(points) if points else _NO_CURVES.empty_table()
    storage.write(CURVES, parquet_bytes(curves))
    content = {**summary, "trials": results.to_pylist()}
    storage.write(SUMMARY, json.dumps(content, indent=1).encode())


def results_table(storage: Storage, records: Iterable[TrialRecord]) -> pa.Table:
    """A row per trial, with the final tests that lie in the sweep's ``storage``."""
    records = list(records)
    tests, fids = finals.read_finals(storage, records), finals.read_fids(storage, records)
    return table_of(
        [
            trial_row(record, finals.columns(tests.get(record.id, {}), fids.get(record.id, {})))
            for record in records
        ]
    )


_NO_CURVES = pa.schema(
    [("trial", pa.string()), ("cell", pa.string()), (STEP, pa.int64()), (LOSS, pa.float64())]
)
"""Columns of a table of curves without a row."""


def show(
    console: Console, records: Iterable[TrialRecord], cells: list[str], baseline: float | None
) -> None:
    """Print one table per cell, the trial that ended lowest first.

    ``baseline``: loss of the mean training image, if the images are known.
    """
    records = list(records)
    for cell in cells:
        mine = [record for record in records if record.cell == cell]
        names = ("trial", "end loss", "best loss", "at iteration", "outcome", "seconds")
        table = text_table(names, ("trial", "outcome"), cell)
        for record in sorted(mine, key=_rank):
            best = record.best
            outcome = outcome_cell(record.outcome or "unfinished")
            if record.reason:
                outcome.append(f": {shown(record.reason, REASON)}", style="dim")
            table.add_row(
                text_cell(record.title),
                f"{record.end_loss:.5f}" if record.end_loss is not None else "",
                f"{best[1]:.5f}" if best else "",
                str(best[0]) if best else "",
                outcome,
                f"{record.seconds:.0f}",
            )
        console.print(table)
        console.print()
    if any(len(record.reason or "") > REASON for record in records):
        say(console, WHOLE_REASONS, "dim")
    against = f"; the mean training image has {baseline:.5f}" if baseline else ""
    console.print(
        f"Reconstruction loss: mean squared error per pixel in [0, 1] on held-out images{against}. "
        f"End loss: {END_LOSS}; trials are compared by it.",
        style="dim",
    )


def show_replicates(console: Console, replicates: dict[str, list[TrialRecord]]) -> None:
    """Print, per cell, how its best settings did with fresh seeds; nothing without replicates."""
    if not any(replicates.values()):
        return
    names = ("cell", "setting", "seeds", "mean end loss", "sd", "lowest", "highest")
    table = text_table(
        (*names, "mean best loss", "failed"),
        ("cell", "setting"),
        "Replicates: fresh seeds, no early stopping; the verdict is based on them",
    )
    for cell, records in replicates.items():
        for chosen in dict.fromkeys(setting(record) for record in records):
            mine = [record for record in records if setting(record) == chosen]
            whole = [r for r in mine if r.outcome == "ok"]  # as in the verdict
            ends = [r.end_loss for r in whole if r.end_loss]
            numbers = [""] * 5
            if ends:
                logs = [math.log(end) for end in ends]
                spread = f"{statistics.stdev(logs):.1%}" if len(ends) > 1 else ""
                best = statistics.geometric_mean(r.best[1] for r in whole if r.best)
                numbers = [f"{statistics.geometric_mean(ends):.5f}", spread]
                numbers += [f"{value:.5f}" for value in (min(ends), max(ends), best)]
            failed = sum(r.outcome not in (None, "ok") for r in mine)
            table.add_row(text_cell(cell), text_cell(chosen), str(len(ends)), *numbers, str(failed))
    console.print(table)
    console.print()


def text_table(names: Iterable[str], words: Container[str], title: str = "") -> Table:
    """An empty table for a terminal; columns that are not among ``words`` hold numbers.

    What does not fit is broken into lines, not cut.
    """
    table = Table(
        title=text_cell(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for name in names:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    return table


def outcome_cell(outcome: str) -> Text:
    """A trial's outcome or state in its colour."""
    return text_cell(outcome, style=STYLES.get(outcome, ""))


def setting(record: TrialRecord) -> str:
    """A trial's searched values in words: ``lr=0.0001``; ``warmup=100`` among them if an early
    failure of the setting has called for it."""
    found = dict(record.params)
    if record.id.endswith(RETRY):
        found["warmup"] = record.config.get("warmup")
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in found.items()) or "as given"  # fmt: skip


def _rank(record: TrialRecord) -> tuple[bool, bool, bool, float]:
    usable = record.outcome in (*WHOLE, "stopped") and record.end_loss is not None
    return (
        not usable,
        record.outcome in ("collapsed", "untrained"),
        record.outcome == "stopped",
        record.end_loss or 0.0,
    )
