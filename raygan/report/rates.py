"""Robustness to the learning rate: over how many decades a recipe stays ok and near its best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raygan.records import TrialRecord
from raygan.report.compare import geometric_mean
from raygan.report.evidence import Cell

NEAR = 1.1
"""Times its lowest loss at any rate: up to here, a recipe is near its best."""
LEAST = 1e-12
"""A loss below this counts as this: the logarithm of 0 is no number."""


@dataclass(frozen=True)
class Rate:
    """What a recipe did at one learning rate."""

    lr: float
    trials: int
    """Trials that have ended."""
    ok: int
    stopped: int
    """Trials that were stopped early: where they would have ended is not known."""
    loss: float | None
    """Median end loss of those that ended ok."""

    @property
    def bad(self) -> int:
        """Trials without a result."""
        return self.trials - self.ok - self.stopped


@dataclass(frozen=True)
class Width:
    """The rates around its best at which all of a recipe's trials ended ok, and their median near
    its best."""

    low: float
    high: float
    open_below: bool
    """No lower rate was tried: the true width may be larger."""
    open_above: bool
    holds: bool
    """Whether all trials ended ok at the best rate itself; if not, no rate is good."""

    @property
    def decades(self) -> float:
        """log10(high / low); 0 if only the best rate itself is good, or not even that."""
        return math.log10(self.high / self.low)

    def __contains__(self, lr: float) -> bool:
        return self.holds and self.low <= lr <= self.high


def recipes(cells: Iterable[Cell]) -> dict[str, list[TrialRecord]]:
    """Trials by what the cells are besides the learning rate, which may be an axis of the grid."""
    found: dict[str, list[TrialRecord]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell.values.items() if name != "lr"}
        name = cell.name
        if "lr" in cell.values:
            name = " ".join(str(value) for value in rest.values()) or "all"
        found.setdefault(name, []).extend(cell.records)
    return {name: _held_alike(records) for name, records in found.items()}


def _held_alike(records: list[TrialRecord]) -> list[TrialRecord]:
    """Without replicates, unless every rate that was searched has some: the rate that was chosen
    must not be held to more trials than the others."""
    searched, replicated = (
        {float(record.config["lr"]) for record in records if record.kind == kind}
        for kind in ("search", "replicate")
    )
    if searched <= replicated or not searched:
        return records
    return [record for record in records if record.kind == "search"]


def by_rate(records: Iterable[TrialRecord]) -> list[Rate]:
    """Ended trials by learning rate, ascending."""
    ended: dict[float, list[TrialRecord]] = {}
    for record in records:
        if record.outcome is not None:
            ended.setdefault(float(record.config["lr"]), []).append(record)
    return [_rate(lr, ended[lr]) for lr in sorted(ended)]


def _rate(lr: float, records: list[TrialRecord]) -> Rate:
    outcomes = [record.outcome for record in records]
    ends = [r.end_loss for r in records if r.outcome == "ok" and r.end_loss is not None]
    loss = statistics.median(ends) if ends else None
    return Rate(lr, len(records), outcomes.count("ok"), outcomes.count("stopped"), loss)


def width(rates: list[Rate]) -> Width | None:
    """The stretch of neighbouring good rates around the best one; None if no trial ended ok.

    A rate is good if all trials there ended ok, with a median end loss up to :data:`NEAR` times
    the lowest. Only rates that were tried count, so the width is a lower bound; a rate at which
    trials were stopped early counts as not good.
    """
    losses = [math.inf if rate.loss is None else rate.loss for rate in rates]
    if not any(map(math.isfinite, losses)):
        return None
    best = losses.index(min(losses))
    limit = NEAR * losses[best]
    low = high = best
    if rates[best].ok < rates[best].trials:
        return Width(rates[best].lr, rates[best].lr, False, False, holds=False)
    while low > 0 and _is_good(rates[low - 1], limit):
        low -= 1
    while high < len(rates) - 1 and _is_good(rates[high + 1], limit):
        high += 1
    return Width(rates[low].lr, rates[high].lr, low == 0, high == len(rates) - 1, holds=True)


def _is_good(rate: Rate, limit: float) -> bool:
    return rate.ok == rate.trials and rate.loss is not None and rate.loss <= limit


def same_choices(cells: Iterable[Cell]) -> dict[str, float]:
    """:func:`same_choice` of each cell that has searched the learning rate and has several runs."""
    found = {}
    for cell in cells:
        searched = [record for record in cell.records if "lr" in record.params]
        ends = [r.end_loss for r in cell.runs.values() if r.outcome == "ok" and r.end_loss]
        mean = geometric_mean(ends)
        if searched and cell.replicates and mean is not None and mean.sd is not None:
            share = same_choice(searched, mean.sd)
            if share is not None:
                found[cell.name] = share
    return found


def same_choice(
    records: Iterable[TrialRecord], spread: float, *, within: float = 0.2, draws: int = 2000
) -> float | None:
    """Share of draws of the noise in which the search chooses about the same learning rate.

    ``records``: a cell's search trials, of which those count that ended ok; ``spread``: standard
    deviation of the logarithm of the end loss between runs of one setting, as replicates show it.
    In each draw, normal noise of this size is added to the logarithm of each trial's end loss; the
    lowest is chosen. About the same is within ``within`` decades of the rate that was chosen. None
    if no trial ended ok. The draws are the same each time.
    """
    found = [
        (math.log10(float(r.config["lr"])), math.log(max(r.end_loss, LEAST)))
        for r in records
        if r.kind == "search" and r.outcome == "ok" and r.end_loss is not None
    ]
    if not found:
        return None
    rates, losses = np.array(found).T
    noise = np.random.default_rng(0).normal(0.0, spread, (draws, len(found)))
    drawn = rates[np.argmin(losses + noise, axis=1)]
    chosen = rates[np.argmin(losses)]
    return float(np.mean(np.abs(drawn - chosen) <= within + 1e-9))
