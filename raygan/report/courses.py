"""Comparisons during training: mean curves, their crossings, and budget curves of the search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raygan.report.compare import LEAST, LEVEL
from raygan.report.evidence import CellResults, Evidence, once
from raygan.report.family import of_losses
from raygan.report.multiple import expected_best, simultaneous_t

_LEAST_LOSS = 1e-12
"""Lower losses are set to this, since the logarithm of 0 is not defined."""


@dataclass(frozen=True)
class Course:
    """Mean curve of a cell, over its runs that have not failed, at their common evaluations."""

    steps: np.ndarray
    """Iterations, ints [evaluations]."""
    logs: np.ndarray
    """ln(loss), floats [runs, evaluations]."""

    @property
    def mean(self) -> np.ndarray:
        """Mean of ln(loss) over the runs."""
        return np.asarray(self.logs.mean(axis=0))

    @property
    def variance(self) -> np.ndarray:
        """Variance of :attr:`mean`: s² / n; 0 for a single run."""
        n = len(self.logs)
        return np.asarray(self.logs.var(axis=0, ddof=1) / n if n > 1 else np.zeros(len(self.steps)))

    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Limits of the geometric mean loss that hold at all evaluations together (Bonferroni);
        None below :data:`~raygan.report.compare.LEAST` runs."""
        n, evaluations = self.logs.shape
        if n < LEAST:
            return None
        reach = simultaneous_t(LEVEL, evaluations, n - 1) * np.sqrt(self.variance)
        return np.exp(self.mean - reach), np.exp(self.mean + reach)


def course(cell: CellResults) -> Course | None:
    """The mean curve of a cell; None if its runs have no common evaluation."""
    curves = [dict(r.curve) for r in cell.runs.values() if r.outcome in (None, "ok") and r.history]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    if not steps:
        return None
    losses = [[max(one[step], _LEAST_LOSS) for step in steps] for one in curves]
    return Course(np.array(steps), np.log(losses))


@dataclass(frozen=True)
class Crossing:
    """The last crossing of the mean curves of two cells."""

    cell: str
    """The cell that is lower after the crossing."""
    other: str
    iteration: float
    """Interpolated between two evaluations."""
    log: float
    """ln(loss) of both curves at the crossing."""
    times: int
    """Number of all crossings."""
    before: int | None
    """The last iteration before the crossing at which ``other`` is lower for certain: at the level
    :data:`~raygan.report.compare.LEVEL`, for all evaluations of all pairs together. None if there
    is none, or if runs of either cell failed.
    """
    after: int | None
    """The first iteration after the crossing at which ``cell`` is lower for certain, or None."""

    @property
    def certain(self) -> bool:
        """Whether each cell is lower for certain somewhere on its side of the crossing."""
        return self.before is not None and self.after is not None


@once
def crossings(evidence: Evidence) -> list[Crossing]:
    """The last crossing of each pair of compared cells whose mean curves cross."""
    courses = {cell.name: course(cell) for cell in evidence.cells}
    failed = {cell.name for cell in evidence.cells if cell.failed}
    # certain for the pairs of all data sets together
    last, pairs = [], of_losses(evidence.whole or evidence).within
    for pair in pairs:
        one, other = courses.get(pair.cell), courses.get(pair.other)
        if one is not None and other is not None:
            # if runs failed, the mean of the others is not that of all runs: nothing is certain
            claims = 0 if {pair.cell, pair.other} & failed else len(pairs)
            last.append(_crossing(pair.cell, one, pair.other, other, claims))
    return [crossing for crossing in last if crossing is not None]


def _crossing(
    name: str, one: Course, other_name: str, other: Course, claims: int
) -> Crossing | None:
    """``claims``: number of pairs that are compared together; 0 if nothing may be certain."""
    steps, mine, others = np.intersect1d(one.steps, other.steps, return_indices=True)
    apart = one.mean[mine] - other.mean[others]
    # where the curves only touch, they do not cross
    signs = np.sign(apart)
    known = np.flatnonzero(signs)
    changes = [(a, b) for a, b in pairwise(known) if signs[a] != signs[b]]
    if not changes:
        return None
    if apart[changes[-1][1]] > 0:
        return _crossing(other_name, other, name, one, claims)
    a, b = changes[-1]
    share = apart[a] / (apart[a] - apart[b])
    reach = _reach(one, mine, other, others, claims)
    before = [int(s) for s in steps[: a + 1][(apart - reach > 0)[: a + 1]]]
    after = [int(s) for s in steps[b:][(apart + reach < 0)[b:]]]
    mean = one.mean[mine]
    return Crossing(
        name,
        other_name,
        float(steps[a] + share * (steps[b] - steps[a])),
        float(mean[a] + share * (mean[b] - mean[a])),
        len(changes),
        before[-1] if before else None,
        after[0] if after else None,
    )


def _reach(
    one: Course, mine: np.ndarray, other: Course, others: np.ndarray, claims: int
) -> np.ndarray:
    """Half the width of Welch's intervals of the difference, which hold at all evaluations of
    ``claims`` pairs together."""
    n, m = len(one.logs), len(other.logs)
    if min(n, m) < LEAST or not claims:
        return np.full(len(mine), np.inf)
    first, second = one.variance[mine], other.variance[others]
    used = first**2 / (n - 1) + second**2 / (m - 1)
    freedom = np.divide((first + second) ** 2, used, out=np.ones_like(used), where=used > 0)
    ts = [simultaneous_t(LEVEL, claims * len(mine), max(1.0, float(df))) for df in freedom]
    return np.asarray(ts) * np.sqrt(first + second)


@once
def budgets(evidence: Evidence) -> dict[str, list[float]]:
    """The lowest loss that 1, 2, … trials of each cell's search find on average, infinite where
    they may all be without a result.

    Empty unless the settings were drawn at random: only then is any trial like any other. A trial
    that was stopped early counts with the loss that it had come to.
    """
    if evidence.search_method != "random":
        return {}
    lowest = {}
    for cell in evidence.cells:
        ended = [r for r in cell.records if r.kind == "search" and r.outcome is not None]
        losses = [
            r.end_loss if r.outcome in ("ok", "stopped") and r.end_loss is not None else math.inf
            for r in ended
        ]
        if len(losses) > 1 and min(losses) < math.inf:
            lowest[cell.name] = expected_best(losses)
    return lowest
