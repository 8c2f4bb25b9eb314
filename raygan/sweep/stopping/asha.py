"""Asynchronous successive halving."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from raygan.errors import ConfigError
from raygan.sweep.stopping.rule import GRACE, Stopper, StopRule

LEAST_GRACE = 0.05
"""Share of the iterations; a smaller ``grace`` is refused (docs/method/search.md)."""


class Asha(StopRule):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2).

    Rungs lie at grace · reductionᵏ iterations. A trial that reaches a rung continues if it is
    among the best 1/reduction, at least one, of those that have reached it so far, by the
    lowest loss that each had by then.
    """

    name = "asha"
    reduction: int = 3
    """One in so many trials passes each rung (grace · reductionᵏ)."""

    def check_parameters(self) -> None:
        if self.reduction < 2:
            raise ConfigError(f"`reduction` (={self.reduction}) must be at least 2")

    def start(self, grace: int) -> Stopper:
        return _Rungs(grace, self.reduction)

    def check_grace(self, grace: int, iterations: int) -> None:
        if grace < LEAST_GRACE * iterations:
            raise ConfigError(
                f"`stop.grace` (={grace}) is below {LEAST_GRACE:.0%} of `iterations` "
                f"(={iterations}): so early, `asha` keeps what learns fast at first: by the "
                "learning rate that it chooses, one cell ends up to 7 percentage points further "
                "from its best than another (docs/method/search.md); raise it to "
                f"{math.ceil(GRACE * iterations)} or more, or remove it"
            )


class _Rungs(Stopper):
    def __init__(self, grace: int, reduction: int) -> None:
        self._grace, self._reduction = grace, reduction
        self._reached: set[tuple[int, str]] = set()
        self._losses: dict[int, list[float]] = {}  # by rung, of those that reached it, ascending
        self._best: dict[str, float] = {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` fails at the highest rung that it has reached."""
        best = self._best[trial] = min(loss, self._best.get(trial, math.inf))
        rung = self.rung(step)
        if rung == 0 or (rung, trial) in self._reached:
            return False
        self._reached.add((rung, trial))
        losses = self._losses.setdefault(rung, [])
        insort(losses, best)
        passing = max(1, len(losses) // self._reduction)
        return bisect_left(losses, best) >= passing

    def rung(self, step: int) -> int:
        """The highest rung at or below ``step``; 0 below the first."""
        if step < self._grace:
            return 0
        rung = self._grace
        while rung * self._reduction <= step:
            rung *= self._reduction
        return rung
