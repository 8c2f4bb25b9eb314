"""Whether early stopping is reliable: whether trials rank early as they rank at their end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from raygan.records import TrialRecord

LOW = 0.7
"""A rank correlation below this causes a warning."""


@dataclass(frozen=True)
class Agreement:
    """How well the ranks of trials at the first rung agree with those at their end."""

    rho: float | None
    """Spearman's ρ within cells, pooled over them; None if no cell has two trials that differ."""
    n: int
    """Number of these trials."""

    @property
    def low(self) -> bool:
        """Whether the stop rule may have stopped trials that would have ended among the best."""
        return self.rho is not None and self.rho < LOW


def agreement(
    cells: Iterable[Sequence[TrialRecord]], first: Callable[[TrialRecord], int]
) -> Agreement:
    """The agreement over ``cells``: by cell, the trials that were exempt from early stopping.

    ``first``: iteration of the first rung of a trial. The early rank is by the lowest loss up to
    the first evaluation at or after it; a trial without such an evaluation is left out. The late
    rank is by the end loss; a trial without a result ranks last.
    """
    early: list[float] = []
    late: list[float] = []
    n = 0
    for records in cells:
        pairs = [pair for record in records if (pair := _losses(record, first(record)))]
        if len(pairs) < 2:
            continue
        n += len(pairs)
        for ranks, losses in zip((early, late), zip(*pairs, strict=True), strict=True):
            ranks += [float(rank) - (len(pairs) + 1) / 2 for rank in stats.rankdata(losses)]
    spread = math.sqrt(sum(rank**2 for rank in early) * sum(rank**2 for rank in late))
    if not spread:
        return Agreement(None, n)
    return Agreement(sum(a * b for a, b in zip(early, late, strict=True)) / spread, n)


def _losses(record: TrialRecord, first: int) -> tuple[float, float] | None:
    judged = next((step for step, _ in record.curve if step >= first), None)
    if judged is None or record.outcome in (None, "stopped", "failed"):
        return None
    early = min(loss for step, loss in record.curve if step <= judged)
    end = record.end_loss if record.outcome == "ok" else math.inf
    return early, math.inf if end is None else end
