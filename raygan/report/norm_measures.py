"""The measures by which norms are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raygan.report import qualities
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import log_areas, worsening
from raygan.report.finals import GENERATORS, QUALITIES, positive
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
    """By run or repeat: the logarithm, the share if ``points``, or the value divided by a mean if
    ``relative``. None: the share of failed runs."""
    higher: bool = False
    """Whether higher is better."""
    points: bool = False
    """Whether differences are in percentage points, instead of per cent."""
    relative: bool = False
    """Whether differences are in per cent of a mean over all runs, instead of one value in per cent
    of the other."""

    def shown(self, difference: float) -> float:
        """A difference of two means of :attr:`values`, in per cent or percentage points."""
        plain = self.points or self.relative
        return 100 * (difference if plain else math.expm1(min(difference, 50.0)))


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
        Measure("failed", _STABILITY, "runs without a result", "share of runs without a result",
                points=True),
        *(_distance(evidence, name, which) for name in DISTANCES for which in GENERATORS),
        *(_share(evidence, name) for name in qualities.SHARES),
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


def _distance(evidence: Evidence, name: str, which: str) -> Measure:
    """The distance ``name`` of the samples of the ``which`` generators.

    A distance of 0 or below has no logarithm. If any run has one, differences are those of the
    values as they are, in per cent of the mean over all runs of the data set; where this mean is
    not above 0, there is none. :func:`raygan.report.qualities.quality_notes` says so.
    """
    key = name if which == "best" else f"{name}_{which}"
    title = QUALITIES[name] if which == "best" else f"{QUALITIES[name]}, {which} generator"
    words = QUALITIES[name] if which == "best" else f"{QUALITIES[name]} of the {which} generator"
    found = qualities.comparable(evidence, name, which)
    if not qualities.at_zero(evidence, name):
        return Measure(key, SAMPLES, title, words, lambda _, cell: _logs(cell, found[cell.name]))
    means = qualities.means(evidence, name, which)
    title, words = f"{title}, in % of its mean", f"{words} in % of its mean"

    def values(_: Evidence, cell: CellResults) -> dict[int, float]:
        mine = found[cell.name] if cell.dataset in means else {}
        return {
            unit: value / means[cell.dataset] for unit, value in qualities.units(cell, mine).items()
        }

    return Measure(key, SAMPLES, title, words, values, relative=True)


def _share(evidence: Evidence, name: str) -> Measure:
    """The share ``name`` of the samples of the best generators."""
    found = qualities.comparable(evidence, name, "best")
    return Measure(name, SAMPLES, QUALITIES[name], QUALITIES[name],
                   lambda _, cell: qualities.units(cell, found[cell.name]),
                   higher=True, points=True)  # fmt: skip


def _logs(cell: CellResults, values: Mapping[int, float]) -> dict[int, float]:
    return {unit: math.log(value) for unit, value in cell.units(values).items()}
