"""A sweep's results as tables: Parquet for pandas and DuckDB, JSON, and text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from raygan.folder import CURVES, RECORD_FILE, RESULTS, SUMMARY, trial_folder
from raygan.records import LOSS, STEP, WARMUP_SUFFIX, TrialRecord
from raygan.report import finals, stability
from raygan.report.tabular import parquet_bytes, table_of
from raygan.storage import Storage

STABILITY = (
    "worsening", "worsening_flat", "worsening_flat_95",
    "log_drawup", "log_drawup_flat", "log_drawup_flat_95", "roughness", "log_area",
)  # fmt: skip
"""Measures of :mod:`raygan.report.stability` in a trial's row."""

REASON = 200
"""Characters of a trial's reason that tables for people show."""
WHOLE_REASONS = (
    f"A reason that ends in … is complete in {trial_folder('TRIAL')}/{RECORD_FILE}, under `reason`."
)


def trial_row(record: TrialRecord, tested: Mapping[str, Any]) -> dict[str, Any]:
    """One trial as a flat row: identity, configuration, outcome, losses, stability, cost.

    ``tested``: what :func:`raygan.report.finals.columns` says of its final tests.
    """
    best = record.best
    measures = stability.summary(record.curve)
    return {
        "trial": record.id,
        "cell": record.cell,
        "dataset": record.dataset,
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
        **last_metrics(record),
        **tested,
        "seconds": record.seconds,
        "gpu_seconds": record.gpu_seconds,
        **{
            f"{which}_checkpoint": f"{trial_folder(record.id)}/{folder}" if folder else None
            for which in ("best", "last")
            for folder in [record.checkpoints.get(which)]
        },
    }


def last_metrics(record: TrialRecord) -> dict[str, float]:
    """The metrics of the last evaluation beside the reconstruction loss: ``val/…``."""
    last = record.history[-1] if record.history else {}
    return {name: last[name] for name in last if name.startswith("val/") and name != LOSS}


def write(storage: Storage, records: Iterable[TrialRecord], summary: dict[str, Any]) -> None:
    """Write ``results.parquet`` (a row per trial), ``curves.parquet`` (a row per evaluation) and
    ``result.json`` into a sweep's storage."""
    records = list(records)
    points = [
        {
            "trial": record.id,
            "cell": record.cell,
            "dataset": record.dataset,
            **point,
            STEP: int(point[STEP]),
        }
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
    read = finals.read_all(storage, records)
    return table_of(
        [
            trial_row(record, finals.columns(*(results.get(record.id, {}) for results in read)))
            for record in records
        ]
    )


_NO_CURVES = pa.schema(
    [
        ("trial", pa.string()),
        ("cell", pa.string()),
        ("dataset", pa.string()),
        (STEP, pa.int64()),
        (LOSS, pa.float64()),
    ]
)
"""Columns of a table of curves without a row."""


def setting(record: TrialRecord) -> str:
    """A trial's searched values in words, such as ``lr=0.0001``; also ``warmup=100`` for a
    retry."""
    values = dict(record.params)
    if record.id.endswith(WARMUP_SUFFIX):
        values["warmup"] = record.config.get("warmup")
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in values.items()) or "as given"  # fmt: skip
