"""The median rule."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from itertools import accumulate

from raygan.sweep.stopping.rule import Curves, Stopper, StopRule

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
    """Most trials of a cell are evaluated at the same iterations. For these, the means of all
    trials that have come as far are kept in order, so that no evaluation walks all trials."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self._steps: dict[str, list[int]] = {}
        self._sums: dict[str, list[float]] = {}
        self._lowest: dict[str, float] = {}
        self._judged: set[int] = set()  # iterations at which one trial has been judged
        self._means: dict[int, array[float]] = {}  # by iteration at which several were, ascending
        self._kept: list[int] = []  # these iterations, ascending

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` is worse than the usual trial at iteration ``step``."""
        steps, sums = self._steps.setdefault(trial, []), self._sums.setdefault(trial, [])
        before = steps[-1] if steps else 0
        steps.append(step)
        sums.append(loss + (sums[-1] if sums else 0.0))
        for passed in self._kept[bisect_right(self._kept, before) : bisect_right(self._kept, step)]:
            if (mean := self._mean(trial, passed)) is not None:
                insort(self._means[passed], mean)
        lowest = self._lowest[trial] = min(loss, self._lowest.get(trial, math.inf))
        if step < self._grace:
            return False
        means = self._means_at(step)
        own = bisect_left(means, sums[-1] / len(sums))
        return len(means) > LEAST and lowest > _median_without(means, own)

    def resume(self, curves: Curves) -> None:
        """Take in all evaluations of an earlier run, in any order: each mean is of one trial."""
        for trial, curve in curves.items():
            if curve:
                steps, losses = zip(*curve, strict=True)
                self._steps[trial], self._sums[trial] = list(steps), list(accumulate(losses))
                self._lowest[trial] = min(losses)

    def _mean(self, trial: str, step: int) -> float | None:
        """The mean loss of ``trial`` up to ``step``; None if it has not come as far, or had no
        evaluation until then."""
        known = self._steps[trial]
        count = bisect_right(known, step)
        return self._sums[trial][count - 1] / count if count and known[-1] >= step else None

    def _means_at(self, step: int) -> array[float]:
        """The means of all trials up to ``step``, ascending; kept from the second time on."""
        if step in self._means:
            return self._means[step]
        means = (self._mean(trial, step) for trial in self._steps)
        found = array("d", sorted(mean for mean in means if mean is not None))
        if step in self._judged:
            self._means[step] = found
            insort(self._kept, step)
        self._judged.add(step)
        return found


def _median_without(values: array[float], place: int) -> float:
    """The median of ``values``, which ascend, without the one at ``place``."""
    middle, odd = divmod(len(values) - 1, 2)
    upper = values[middle + (middle >= place)]
    if odd:
        return upper
    below = middle - 1
    return (values[below + (below >= place)] + upper) / 2
