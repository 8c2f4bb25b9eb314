"""Looks: a sweep compares its replicates, and trains more seeds if the comparisons are not settled.

``replicate: {seeds: 5, until: 12}`` looks at 5, 8 and 12 seeds. Each look claims differences at its
own level, and the levels add up to 5%. By the union bound, the chance of any false claim of the
sweep is at most 5%, whichever look is the last and for whatever reason. The first look has a low
level: a difference that is clear with few seeds does not need a higher one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from raygan.records import TrialRecord
from raygan.sweep.spec import plan
from raygan.sweep.study.cell import is_to_retry, replicate_ids, settings, trained_twice

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

LEVELS = (0.01, 0.015, 0.025)
"""Chance of any false claim at each look; the last look is at ``until`` seeds."""
LEVEL = 0.05
"""Chance of any false claim if there is only one look."""


def looks(spec: SweepSpec) -> list[tuple[int, float]]:
    """Seeds and level of each look, ascending: at ``seeds``, halfway, and ``until``."""
    seeds, until = spec.replicate.seeds, spec.replicate.until
    if until is None:
        return [(seeds, LEVEL)]
    numbers = [seeds, (seeds + until) // 2, until]
    steps: list[tuple[int, float]] = []
    for number, level in zip(numbers, LEVELS, strict=True):
        if steps and steps[-1][0] == number:  # two looks at the same seeds are one
            level += steps.pop()[1]
        steps.append((number, level))
    return steps


def reached(spec: SweepSpec, records: Mapping[str, TrialRecord]) -> tuple[int, float]:
    """The current look of the sweep: how many seeds it trains, and the level of its claims.

    It follows from the records alone: the next look is due when all replicates of the look have
    ended and not every comparison is settled.
    """
    by_cell: dict[str, dict[str, TrialRecord]] = {cell.name: {} for cell in plan.cells(spec)}
    for record in records.values():
        if record.cell in by_cell:
            by_cell[record.cell][record.id] = record
    return current(
        spec,
        lambda seeds: all(
            _is_over(spec, cell, by_cell[cell.name], seeds) for cell in plan.cells(spec)
        ),
        lambda seeds, level: is_settled(spec, records, seeds, level),
    )


def current(
    spec: SweepSpec, is_over: Callable[[int], bool], is_settled: Callable[[int, float], bool]
) -> tuple[int, float]:
    """The current look. ``is_over``: whether all replicates with so many seeds have ended;
    ``is_settled``: whether they settle the comparisons at a level."""
    steps = looks(spec)
    for seeds, level in steps[:-1]:
        if not is_over(seeds) or is_settled(seeds, level):
            return seeds, level
    return steps[-1]


class Reached:
    """:func:`reached` of records that change: it is found anew only if other trials have ended.

    Whether a look is settled takes seconds to tell in a sweep of many cells.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._known: tuple[set[tuple[str, str, int]], tuple[int, float]] | None = None

    def __call__(self, records: Iterable[TrialRecord]) -> tuple[int, float]:
        """The current look of the sweep, whose records are ``records`` now."""
        known = {record.id: record for record in records}
        ended: set[tuple[str, str, int]] = {
            (record.id, record.outcome, record.step)
            for record in known.values()
            if record.outcome is not None
        }
        if self._known is None or self._known[0] != ended:
            self._known = ended, reached(self._spec, known)
        return self._known[1]


def expected(spec: SweepSpec, records: Iterable[TrialRecord], seeds: int) -> int:
    """Trials of the whole sweep, as far as is known from its ``records``: early failures add those
    that are trained once more. ``seeds``: of the current look."""
    records = list(records)
    replicates = plan.replicates_per_cell(spec, seeds)
    return expected_of(spec, replicates, len(trained_twice(spec, records)), len(records))


def expected_of(spec: SweepSpec, replicates: int, twice: int, known: int) -> int:
    """Trials of the whole sweep, with so many ``replicates`` per cell, trials that are trained
    ``twice``, and ``known`` trials."""
    each = plan.trials_per_cell(spec) + replicates
    # an earlier version may have tried some settings twice
    return max(len(plan.cells(spec)) * each + twice, known)


def _is_over(
    spec: SweepSpec, cell: plan.Cell, records: Mapping[str, TrialRecord], seeds: int
) -> bool:
    """Whether all replicates of a look have ended in ``cell``, which has these ``records``."""
    searched = [record for record in records.values() if record.kind == "search"]
    if len(searched) < plan.trials_per_cell(spec):
        return False
    if any(record.outcome is None or is_to_retry(spec, record, records) for record in searched):
        return False
    # a cell whose search gave no result has no replicates: the other cells do not wait for it
    planned = replicate_ids(spec, cell, settings(spec, cell, records.values()), seeds)
    return all(id in records and records[id].outcome is not None for id in planned)


def is_settled(
    spec: SweepSpec, records: Mapping[str, TrialRecord], seeds: int, level: float
) -> bool:
    """Whether the end losses of the first ``seeds`` seeds settle the sweep.

    If claims were declared, all of them must hold; otherwise every comparison must be claimed.
    Without two cells to compare, a sweep is settled.
    """
    from raygan.report.declared import results
    from raygan.report.evidence import Evidence
    from raygan.report.family import of_losses, related
    from raygan.sweep.spec import claims
    from raygan.sweep.study.compared import cells

    first = {
        id: record
        for id, record in records.items()
        if record.kind != "replicate" or record.index < seeds
    }
    evidence = Evidence(
        spec.name, cells(spec, first), claims=tuple(claims.of_spec(spec)), alpha=level
    )
    # a cell whose search gave no result has no replicates
    tried = {cell.name for cell in evidence.cells if cell.runs}
    if not any(
        tried.issuperset(pair)
        for pair in related({cell.name: cell.values for cell in evidence.cells})
    ):
        return True
    family = of_losses(evidence)
    if evidence.claims:
        return all(result.holds for result in results(evidence, family))
    return bool(family.comparisons) and all(one.claimed for one in family.comparisons)
