"""Whether early stopping could tell: do trials rank early as they rank in the end?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from raygan.records import TrialRecord

LOW = 0.7
"""A rank correlation below this is warned of."""


@dataclass(frozen=True)
class Agreement:
    """How the ranks of trials at the first rung agree with those in the end."""

    rho: float | None
    """Spearman's ρ within cells, pooled over them; None if no cell has two trials that differ."""
    n: int
    """Trials that it stands on."""

    @property
    def low(self) -> bool:
        """Whether the rule may have stopped trials that would have ended among the best."""
        return self.rho is not None and self.rho < LOW


def agreement(
    cells: Iterable[Sequence[TrialRecord]], first: Callable[[TrialRecord], int]
) -> Agreement:
    """Of the trials of each cell that no rule could stop, and that have ended.

    ``first``: the iterations after which a trial would first have been judged. It is judged by its
    lowest loss up to the first evaluation at or after these; a trial that did not get there is
    left out. In the end it is ranked by its end loss; one without a result comes last.
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
