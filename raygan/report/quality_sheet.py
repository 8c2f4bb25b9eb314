"""The table of the quality of samples at the end of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from raygan.report import words
from raygan.report.compare import Interval, arithmetic_mean, geometric_mean
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import GENERATORS, QUALITIES
from raygan.report.qualities import (
    KINDS,
    SHARES,
    at_zero,
    comparable,
    described,
    made,
    quality_gaps,
    quality_notes,
    units,
)
from raygan.report.tabular import Column, Sheet

_RUNS = ("runs", "wasserstein_runs")
"""By kind of measures, the column with the number of runs."""

_Found = Mapping[tuple[str, str], Mapping[str, Mapping[int, float]]]
"""By measure and generator, then by cell and seed."""


def final_quality(evidence: Evidence) -> Sheet:
    """The table of final sample quality, by cell and generator: the measures that were made."""
    found = {
        (name, which): comparable(evidence, name, which)
        for name in QUALITIES
        for which in GENERATORS
    }
    plain = {*SHARES, *(n for n in QUALITIES if n not in SHARES and at_zero(evidence, n))}
    rows = [
        {"cell": cell.name, "generator": which, **values}
        for cell in evidence.ordered
        for which in GENERATORS
        if (values := _row(cell, which, found, plain))
    ]
    unit = "repeats" if any(cell.repeats for cell in evidence.cells) else "runs"
    columns = [
        Column("cell", pa.string(), "cell"),
        Column("generator", pa.string(), "generator"),
        *(
            column
            for kind, runs in zip(KINDS, _RUNS, strict=True)
            for column in (Column(runs, pa.int64(), unit), *_columns(kind))
        ),
    ]
    reading = (
        "One row per cell and generator: the best one by the running test, and the last one. Lower "
        "distances are better; higher recall and coverage are better."
    )
    return Sheet("final_quality", "Final sample quality", columns, rows, reading,
                 _note(evidence, plain))  # fmt: skip


def _columns(kind: tuple[str, ...]) -> list[Column]:
    columns = []
    for name in kind:
        show = words.two_digits if name in SHARES else words.ratio
        columns += [
            Column(name, pa.float64(), QUALITIES[name], show),
            Column(f"{name}_low", pa.float64(), "CI from", show),
            Column(f"{name}_high", pa.float64(), "to", show),
        ]
    return columns


def _row(cell: CellResults, which: str, found: _Found, plain: set[str]) -> dict[str, Any]:
    """The means of one generator; empty if it has no value. Those of one kind are over the same
    runs."""
    row: dict[str, Any] = {}
    for kind, runs in zip(KINDS, _RUNS, strict=True):
        values = [found[name, which][cell.name] for name in kind]
        seeds = [seed for seed in values[0] if all(seed in other for other in values)]
        for name, mine in zip(kind, values, strict=True):
            known = {seed: mine[seed] for seed in seeds}
            compared = units(cell, known) if name in plain else cell.units(known)
            if compared:
                row[runs] = len(compared)
                row |= _summary(name, list(compared.values()), name in plain)
    return row


def _summary(name: str, values: list[float], plain: bool) -> dict[str, float | None]:
    if plain:
        summary = arithmetic_mean(values)
        assert summary is not None
        mean, interval = summary
    else:
        geometric = geometric_mean(values)
        assert geometric is not None
        mean, interval = geometric.value, geometric.interval
    if interval is not None and max(values) == min(values):
        interval = None  # such as a coverage of 0 in all runs: no spread is known
    if interval is not None and name in SHARES:
        interval = Interval(max(0.0, interval.low), min(1.0, interval.high))
    return {
        name: mean,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }


def _note(evidence: Evidence, plain: set[str]) -> str:
    geometric = [QUALITIES[name] for name in QUALITIES
                 if name not in plain and made(evidence, name)]  # fmt: skip
    kind = f" (of the {words.listed(geometric)} geometric)" if geometric else ""
    logs = " (of geometric means on the logarithm)" if geometric else ""
    parts = [
        f"Means over the runs that ended ok{kind}, of {described(evidence)} of the final test. CI: "
        f"95%, Student's t{logs}, not adjusted for the number of rows; none if all runs have the "
        "same value. The verdict is not based on these values, and none is an FID.",
        *quality_notes(evidence),
    ]
    if gaps := quality_gaps(evidence):
        parts.append(f"Lacking: {'. '.join(gaps)}.".replace("`", ""))
    return " ".join(parts)
