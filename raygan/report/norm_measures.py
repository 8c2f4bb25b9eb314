"""The measures by which norms are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import log_areas, worsening
from raygan.report.finals import number, positive
from raygan.report.monitoring import DISTANCES
from raygan.report.own_metrics import COLLAPSE

_LOSS, _STABILITY, SAMPLES = "Reconstruction loss", "Stability", "Samples"
"""The groups of measures."""


@dataclass(frozen=True)
class Measure:
    """What two cells are compared by."""

    key: str
    group: str
    """Heading of its rows."""
    title: str
    """Its name below that heading."""
    words: str
    """Its name in a sentence."""
    values: Callable[[Evidence, CellResults], Mapping[int, float]] | None = None
    """By run or repeat: the logarithm, or the share if ``points``. None: the share of failed
    runs."""
    higher: bool = False
    """Whether higher is better."""
    points: bool = False
    """Whether differences are in percentage points, instead of per cent."""

    def shown(self, difference: float) -> float:
        """A difference of two means of :attr:`values`, in per cent or percentage points."""
        return 100 * (difference if self.points else math.expm1(min(difference, 50.0)))


def loss(evidence: Evidence) -> Measure:
    """The loss on which the verdict rests."""
    if evidence.by_final_test:
        return Measure("loss", _LOSS, "best generator", "loss of the best generator", _log_units)
    return Measure("loss", _LOSS, "end of the running test", "end loss of the running test",
                   _log_units)  # fmt: skip


def measures(evidence: Evidence) -> list[Measure]:
    """All measures, those that were not measured, too."""
    return [
        Measure("log_area", _LOSS, "whole run (speed)", "loss over the whole run",
                lambda _, cell: log_areas(cell)),
        loss(evidence),
        Measure("last", _LOSS, "last generator", "loss of the last generator", _last_losses),
        Measure("worsening", _STABILITY, "last / best", "last against best loss", worsening),
        Measure("failed", _STABILITY, "failed runs", "share of failed runs", points=True),
        *(Measure(key, SAMPLES, what, what, _quality(key)) for key, what in DISTANCES.items()),
        *(Measure(key, SAMPLES, key, key, _quality(key), higher=True, points=True)
          for key in ("recall", "coverage")),
        Measure("variety", SAMPLES, "variety at the end", "variety at the end", _variety,
                higher=True),
    ]  # fmt: skip


def _log_units(evidence: Evidence, cell: CellResults) -> dict[int, float]:
    return {unit: math.log(value) for unit, value in evidence.units(cell).items()}


def _last_losses(evidence: Evidence, cell: CellResults) -> dict[int, float]:
    return _logs(cell, evidence.final_losses(cell, "last", "loss"))


def _variety(_: Evidence, cell: CellResults) -> dict[int, float]:
    values = {
        seed: positive(record.history[-1], COLLAPSE[0])
        for seed, record in cell.runs.items()
        if record.outcome == "ok" and record.history
    }
    return _logs(cell, {seed: value for seed, value in values.items() if value is not None})


def _quality(key: str) -> Callable[[Evidence, CellResults], dict[int, float]]:
    def values(evidence: Evidence, cell: CellResults) -> dict[int, float]:
        found = {
            seed: number(evidence.qualities.get(record.id, {}).get("best", {}), key)
            for seed, record in cell.runs.items()
            if record.outcome == "ok"
        }
        known = {seed: value for seed, value in found.items() if value is not None}
        if key in DISTANCES:
            return _logs(cell, {seed: value for seed, value in known.items() if value > 0})
        # the mean of each repeat of the search: cell.units takes logarithms, and a share may be 0
        shares = cell.units({seed: math.exp(value) for seed, value in known.items()})
        return {unit: math.log(value) for unit, value in shares.items()}

    return values


def _logs(cell: CellResults, values: Mapping[int, float]) -> dict[int, float]:
    return {unit: math.log(value) for unit, value in cell.units(values).items()}
