"""When a trial is stopped early; a rule sees the trials of one cell only."""

from __future__ import annotations

import math
from typing import Protocol

from raygan.sweep.sections import Stop


class StopRule(Protocol):
    """Decides on each evaluation, in the order in which they arrive."""

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether ``trial`` is to stop after iteration ``step`` with this reconstruction loss."""
        ...


class Never:
    """Every trial runs to its end."""

    def stops(self, trial: str, step: int, loss: float) -> bool:  # noqa: ARG002
        """No."""
        return False


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
        rung = self._grace
        if step < rung:
            return False
        while rung * self._reduction <= step:
            rung *= self._reduction
        reached = self._rungs.setdefault(rung, {})
        if trial in reached:
            return False
        reached[trial] = best
        passing = max(1, len(reached) // self._reduction)
        return sum(other < best for other in reached.values()) >= passing


class Patience:
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


def make_rule(stop: Stop) -> StopRule:
    """The rule that the YAML asks for; one per cell."""
    if stop.rule == "asha":
        return Asha(stop.grace, stop.reduction)
    if stop.rule == "patience":
        return Patience(stop.grace, stop.patience)
    return Never()
