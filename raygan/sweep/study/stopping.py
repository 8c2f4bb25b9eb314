"""When a trial is stopped early; a rule sees the trials of one cell only."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from typing import Protocol

from raygan.sweep.spec.sections import Stop

GRACE = 0.1
"""Share of the iterations before which no trial is stopped, unless the YAML says otherwise."""
LEAST_GRACE = 0.05
"""With a smaller share, ``asha`` is refused (docs/method/search.md)."""
EXEMPT = 5
"""One in so many search trials of a cell is never stopped."""


class StopRule(Protocol):
    """Decides on each evaluation, in the order in which they arrive."""

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` is to stop after iteration ``step`` with this reconstruction loss."""
        ...

    def rung(self, step: int) -> int:
        """The last iteration up to ``step`` at which the rule compares trials."""
        ...


class Never:
    """Every trial runs to its end."""

    def stops(self, trial: str, step: int, loss: float) -> bool:  # noqa: ARG002
        """No."""
        return False

    def rung(self, step: int) -> int:
        """Each evaluation is as good as another."""
        return step


class Asha:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2).

    Rungs lie at grace · reductionᵏ iterations. A trial that reaches a rung goes on if it is
    among the best 1/reduction, at least one, of those that have reached it so far, by the
    lowest loss that each had by then.
    """

    def __init__(self, grace: int, reduction: int) -> None:
        self._grace, self._reduction = grace, reduction
        self._rungs: dict[int, dict[str, float]] = {}
        self._best: dict[str, float] = {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` fails at the highest rung that it has reached."""
        best = self._best[trial] = min(loss, self._best.get(trial, math.inf))
        rung = self.rung(step)
        if rung == 0:
            return False
        reached = self._rungs.setdefault(rung, {})
        if trial in reached:
            return False
        reached[trial] = best
        passing = max(1, len(reached) // self._reduction)
        return sum(other < best for other in reached.values()) >= passing

    def rung(self, step: int) -> int:
        """The highest rung at or below ``step``; 0 below the first."""
        if step < self._grace:
            return 0
        rung = self._grace
        while rung * self._reduction <= step:
            rung *= self._reduction
        return rung


class Median(Never):
    """The median rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    A trial stops if its lowest loss so far is above the median, over the trials that have come
    as far, of the mean loss that each had up to there; at least ``LEAST`` others must have.
    """

    LEAST = 3

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self._steps: dict[str, list[int]] = {}
        self._sums: dict[str, list[float]] = {}
        self._lowest: dict[str, float] = {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` is worse than the usual trial at iteration ``step``."""
        steps, sums = self._steps.setdefault(trial, []), self._sums.setdefault(trial, [])
        steps.append(step)
        sums.append(loss + (sums[-1] if sums else 0.0))
        lowest = self._lowest[trial] = min(loss, self._lowest.get(trial, math.inf))
        if step < self._grace:
            return False
        means = [
            self._sums[other][count - 1] / count
            for other, known in self._steps.items()
            if other != trial and known[-1] >= step and (count := bisect_right(known, step))
        ]
        return len(means) >= self.LEAST and lowest > statistics.median(means)


class Patience(Never):
    """A trial stops when its loss has reached no new low for ``patience`` iterations."""

    def __init__(self, grace: int, patience: int) -> None:
        self._grace, self._patience = grace, patience
        self._best: dict[str, tuple[float, int]] = {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether the last new low of ``trial`` is too long ago."""
        best, at = self._best.get(trial, (math.inf, 0))
        if loss < best:
            self._best[trial] = (loss, step)
            return False
        return step >= self._grace and step - at >= self._patience


def make_rule(stop: Stop, iterations: int) -> StopRule:
    """The rule ``stop``; one per cell, whose longest trial has so many ``iterations``."""
    first = grace(stop, iterations)
    if stop.rule == "asha":
        return Asha(first, stop.reduction)
    if stop.rule == "median":
        return Median(first)
    if stop.rule == "patience":
        return Patience(first, stop.patience)
    return Never()


def grace(stop: Stop, iterations: int) -> int:
    """Iterations before any trial of a cell is stopped, whose longest has ``iterations``."""
    return stop.grace or math.ceil(iterations * GRACE)


def is_exempt(index: int) -> bool:
    """Whether search trial ``index`` of a cell is never stopped, so that the rule can be checked:
    one of every :data:`EXEMPT`.

    It is the last of each five, not the first: what is tried first is often what people think
    best, which a rule would not stop in any case.
    """
    return index % EXEMPT == EXEMPT - 1


def first_stop(stop: Stop, every: int, iterations: int) -> int:
    """The first iteration after which the rule, which is not ``none``, could stop a trial that is
    evaluated ``every`` so many iterations, in a cell whose longest trial has ``iterations``."""
    first = grace(stop, iterations)
    if stop.rule == "patience":  # the first evaluation always is a new low
        first = max(first, every + stop.patience)
    return -(-first // every) * every
