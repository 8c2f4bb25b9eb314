"""Seeds until it is settled: a sweep looks at its replicates, and trains more seeds if it must.

``replicate: {seeds: 5, until: 12}`` looks at 5, 8 and 12 seeds. Each look may claim a difference at
its own level; the levels add up to 5%, so that any false claim of the sweep has at most that
chance, whichever look the verdict stands on and whatever decided to look on (union bound). The
first look takes little of it: what is clear with few seeds needs no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from raygan.records import TrialRecord
from raygan.sweep.spec import plan
from raygan.sweep.study.cell import is_to_retry, replicates, trained_twice

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

LEVELS = (0.01, 0.015, 0.025)
"""Chance of any false claim at each look, the last one at ``until`` seeds."""
LEVEL = 0.05
"""The same where there is one look."""


def looks(spec: SweepSpec) -> list[tuple[int, float]]:
    """Seeds and level of each look, ascending: at ``seeds``, halfway, and ``until``."""
    seeds, until = spec.replicate.seeds, spec.replicate.until
    if until is None:
        return [(seeds, LEVEL)]
    numbers = [seeds, (seeds + until) // 2, until]
    found: list[tuple[int, float]] = []
    for number, level in zip(numbers, LEVELS, strict=True):
        if found and found[-1][0] == number:  # two looks at the same seeds are one
            level += found.pop()[1]
        found.append((number, level))
    return found


def reached(spec: SweepSpec, records: Mapping[str, TrialRecord]) -> tuple[int, float]:
    """The look that the sweep has come to: how many seeds it trains, and its level.

    It follows from the records alone: the next look is due once all replicates of this one have
    ended and not every comparison of it is settled.
    """
    steps = looks(spec)
    for seeds, level in steps[:-1]:
        if not _is_over(spec, records, seeds) or _is_settled(spec, records, seeds, level):
            return seeds, level
    return steps[-1]


def replicates_per_cell(spec: SweepSpec, known: Iterable[TrialRecord]) -> int:
    """How many replicates each cell takes, as far as the sweep has looked."""
    if spec.replicate.until is None:
        return plan.replicates_per_cell(spec)
    seeds, _ = reached(spec, {record.id: record for record in known})
    return plan.replicates_per_cell(spec, seeds)


def expected(spec: SweepSpec, records: Iterable[TrialRecord]) -> int:
    """Trials of the whole sweep, as far as is known from its ``records``: early failures add those
    that are trained once more."""
    records = list(records)
    each = plan.trials_per_cell(spec) + replicates_per_cell(spec, records)
    whole = len(plan.cells(spec)) * each + len(trained_twice(spec, records))
    # an earlier version may have tried some settings twice
    return max(whole, len(records))


def _is_over(spec: SweepSpec, records: Mapping[str, TrialRecord], seeds: int) -> bool:
    """Whether all replicates of a look have ended."""
    for cell in plan.cells(spec):
        mine = [record for record in records.values() if record.cell == cell.name]
        planned = [one.id for one in replicates(spec, cell, mine, seeds)]
        searched = [record for record in mine if record.kind == "search"]
        if len(searched) < plan.trials_per_cell(spec):
            return False
        if any(record.outcome is None or is_to_retry(spec, record, records) for record in searched):
            return False
        # none is planned where no trial of the search gave a result: other cells do not wait
        if any(id not in records or records[id].outcome is None for id in planned):
            return False
    return True


def _is_settled(
    spec: SweepSpec, records: Mapping[str, TrialRecord], seeds: int, level: float
) -> bool:
    """Whether every comparison can be claimed by the end losses of the first ``seeds`` seeds, or
    there are no two cells to compare; of declared claims, whether all of them hold."""
    from raygan.report.declared import results
    from raygan.report.evidence import Evidence
    from raygan.report.family import of_losses
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
    if sum(bool(cell.runs) for cell in evidence.cells) < 2:
        return True  # a cell whose search gave no result has no replicates
    family = of_losses(evidence)
    if evidence.claims:
        return all(result.holds for result in results(evidence, family))
    return bool(family.comparisons) and all(found.claimed for found in family.comparisons)
