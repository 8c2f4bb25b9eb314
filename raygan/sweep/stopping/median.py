"""The median rule."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right

from raygan.sweep.stopping.rule import Stopper, StopRule

LEAST = 3
"""Other trials that must have come as far."""


class Median(StopRule):
    """The median rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    A trial stops if its lowest loss so far is above the median, over the trials that have come
    as far, of the mean loss that each had up to there; at least three others must have.
    """

    name = "median"

    def start(self, grace: int) -> Stopper:
        return _Medians(grace)


class _Medians(Stopper):
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
        return len(means) >= LEAST and lowest > statistics.median(means)
