"""Robustness to the learning rate: over how many decades a way to train is near its best loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raygan.records import TrialRecord
from raygan.report.compare import geometric_mean
from raygan.report.evidence import CellResults

NEAR = 1.1
"""A cell is near its best up to this many times its lowest loss at any rate."""
LEAST = 1e-12
"""Lower losses are set to this, since the logarithm of 0 is not defined."""


@dataclass(frozen=True)
class Rate:
    """The trials of cells that differ only in `lr`, at one learning rate."""

    lr: float
    trials: int
    """Number of ended trials."""
    ok: int
    stopped: int
    """Number of early-stopped trials, whose end loss is not known."""
    loss: float | None
    """Median end loss of the trials that ended ok."""

    @property
    def bad(self) -> int:
        """Trials without a result."""
        return self.trials - self.ok - self.stopped


@dataclass(frozen=True)
class Width:
    """The range of good rates around the best one: all trials ended ok, with a median near the
    best."""

    low: float
    high: float
    open_below: bool
    """Whether no lower rate was tried, so that the true range may be wider."""
    open_above: bool
    holds: bool
    """Whether all trials at the best rate ended ok. If not, no rate is good."""

    @property
    def decades(self) -> float:
        """log10(high / low); 0 if at most the best rate is good."""
        return math.log10(self.high / self.low)

    def __contains__(self, lr: float) -> bool:
        return self.holds and self.low <= lr <= self.high


def by_rate_alone(cells: Iterable[CellResults]) -> dict[str, list[TrialRecord]]:
    """Trials by cell; cells that differ only in ``lr`` are one here."""
    grouped: dict[str, list[TrialRecord]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell.values.items() if name != "lr"}
        name = cell.name
        if "lr" in cell.values:
            name = " ".join(str(value) for value in rest.values()) or "all"
        grouped.setdefault(name, []).extend(cell.records)
    return {name: _held_alike(records) for name, records in grouped.items()}


def _held_alike(records: list[TrialRecord]) -> list[TrialRecord]:
    """``records`` without the replicates, unless every searched rate has replicates.

    Otherwise the chosen rate would have more trials than the others, and so more chances to fail.
    """
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
    """The range of good rates around the best one; None if no trial ended ok.

    A rate is good if all its trials ended ok, with a median end loss of at most :data:`NEAR` times
    the lowest. So a rate with early-stopped trials is not good. Only rates that were tried count,
    so the width is a lower bound.
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


def same_choices(cells: Iterable[CellResults]) -> dict[str, float]:
    """By cell, :func:`same_choice`, if it has searched the learning rate once and has several
    runs."""
    shares = {}
    for cell in cells:
        if cell.repeats:
            continue  # several searches: their own choices show it
        searched = [record for record in cell.records if "lr" in record.params]
        ends = [r.end_loss for r in cell.runs.values() if r.outcome == "ok" and r.end_loss]
        mean = geometric_mean(ends)
        if searched and cell.replicates and mean is not None and mean.sd is not None:
            share = same_choice(searched, mean.sd)
            if share is not None:
                shares[cell.name] = share
    return shares


def same_choice(
    records: Iterable[TrialRecord], spread: float, *, within: float = 0.2, draws: int = 2000
) -> float | None:
    """Share of draws of the noise in which the search chooses about the same learning rate.

    ``records``: search trials of a cell; those that ended ok count. ``spread``: standard deviation
    of ln(end loss) between runs of one setting, from the replicates. Each draw adds normal noise of
    this size to ln(end loss) of each trial and chooses the lowest. "About the same" is within
    ``within`` decades of the rate that was chosen. None if no trial ended ok. The draws have a
    fixed seed.
    """
    trials = [
        (math.log10(float(r.config["lr"])), math.log(max(r.end_loss, LEAST)))
        for r in records
        if r.kind == "search" and r.outcome == "ok" and r.end_loss is not None
    ]
    if not trials:
        return None
    rates, losses = np.array(trials).T
    noise = np.random.default_rng(0).normal(0.0, spread, (draws, len(trials)))
    drawn = rates[np.argmin(losses + noise, axis=1)]
    chosen = rates[np.argmin(losses)]
    return float(np.mean(np.abs(drawn - chosen) <= within + 1e-9))
