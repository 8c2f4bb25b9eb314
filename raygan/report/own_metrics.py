"""The table of the metrics that users have brought."""

from __future__ import annotations

import statistics
from typing import Any

import pyarrow as pa

from raygan.records import TrialRecord
from raygan.report.compare import arithmetic_mean
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import QUALITIES
from raygan.report.tables import last_metrics
from raygan.report.tabular import Column, Sheet

COLLAPSE = ("val/variety", "val/diversity", "val/duplicates")
"""Metrics of an evaluation that tell a collapse; the last two are those of earlier versions."""

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int64()


def _digits(value: float) -> str:
    return f"{value:.4g}"


def own_metrics(evidence: Evidence) -> Sheet:
    """A row per metric of the user's own and cell."""
    names = {
        name: None
        for cell in evidence.cells
        for record in cell.runs.values()
        for name in last_metrics(record)
        if name not in COLLAPSE and not _is_quality(name, record)
    }
    rows = [
        row for name in names for cell in evidence.cells if (row := _row(name, cell)) is not None
    ]
    columns = [
        Column("metric", _TEXT, "metric"),
        Column("cell", _TEXT, "cell"),
        Column("n", _COUNT, "runs" if not any(c.repeats for c in evidence.cells) else "repeats"),
        Column("mean", _NUMBER, "mean", _digits),
        Column("low", _NUMBER, "CI from", _digits),
        Column("high", _NUMBER, "to", _digits),
    ]
    reading = (
        "One row per metric and cell. Exploratory: nothing is claimed. Which way is better depends "
        "on the metric."
    )
    note = (
        "Value at the last evaluation, mean over the runs that the verdict is based on and that "
        "ended ok, with its 95% interval (Student's t), which is not adjusted for the number of "
        "metrics and cells. A run whose last evaluation has no such value is left out."
    )
    return Sheet("own_metrics", "Your own metrics (exploratory)", columns, rows, reading, note)


def _is_quality(name: str, record: TrialRecord) -> bool:
    """Whether a metric is a measure of sample quality; in a sweep without them, the user may have a
    metric of this name."""
    measured = record.config.get("quality", "none") != "none"
    return measured and name.removeprefix("val/") in QUALITIES


def _row(name: str, cell: CellResults) -> dict[str, Any] | None:
    groups: dict[str | int, list[float]] = {}
    for record in cell.runs.values():
        value = last_metrics(record).get(name)
        if record.outcome == "ok" and value is not None:
            groups.setdefault(cell.repeats.get(record.id, record.id), []).append(value)
    summary = arithmetic_mean([statistics.fmean(values) for values in groups.values()])
    if summary is None:
        return None
    mean, interval = summary
    return {
        "metric": name,
        "cell": cell.name,
        "n": len(groups),
        "mean": mean,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }
