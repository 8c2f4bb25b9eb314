"""Tests of the declared claims. All other comparisons are exploratory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raygan.records import DATASET
from raygan.report import words
from raygan.report.claim import Claim
from raygan.report.compare import LEAST
from raygan.report.evidence import Evidence
from raygan.report.family import Comparison, Family, axes, value_names
from raygan.report.multiple import holm


@dataclass(frozen=True)
class Result:
    """A claim and the result of its test."""

    claim: Claim
    comparison: Comparison | None
    """None if either cell has no run with a result, or over strata: if fewer than two have one of
    both."""
    p: float | None
    """Two-sided p: twice the one-sided p. So a claim is tested at 2.5% on its side, like the limit
    of a 95% interval."""
    adjusted: float | None
    """p, adjusted for all declared claims (Holm). None if the claim cannot be tested."""
    holds: bool
    reason: str
    """Why the claim holds or not, in words."""
    added: tuple[str, ...] = ()
    """Data sets that it is about, too, but that were added after the first trial."""

    @property
    def text(self) -> str:
        """The claim, and in brackets why it was not tested, and what was added to it."""
        said = [self.reason] if self.p is None else []
        if self.added:
            said.append(f"declared before {words.listed(self.added)} was added")
        remark = f" ({'; '.join(said)})" if said else ""
        return f"{self.claim.text}{remark}"


def results(evidence: Evidence, family: Family) -> list[Result]:
    """The results of all claims. Claims that were added later are a family of their own."""
    tested = []
    for declared in (True, False):
        claims = [claim for claim in evidence.claims if claim.declared is declared]
        comparisons = [family.of(claim.cell, claim.other) for claim in claims]
        ps = [_p(claim, c) for claim, c in zip(claims, comparisons, strict=True)]
        # a claim that cannot be tested counts in the correction, too
        adjusted = holm([1.0 if p is None else p for p in ps])
        tested += [
            _result(evidence, claim, c, p, a if p is not None else None)
            for claim, c, p, a in zip(claims, comparisons, ps, adjusted, strict=True)
        ]
    names = {cell.name for cell in evidence.cells}
    added = _added(evidence)
    return [
        replace(one, added=added) if one.claim.declared and one.claim.cell not in names else one
        for one in tested
    ]


def _added(evidence: Evidence) -> tuple[str, ...]:
    """The data sets that were added after the first trial."""
    before = [entry.sets for entry in evidence.plans if not entry.trials]
    if not before:
        return ()
    return tuple(label for label in evidence.plans[-1].sets if label not in before[-1])


def _p(claim: Claim, comparison: Comparison | None) -> float | None:
    if (
        comparison is None
        or not comparison.contrast.testable
        or comparison.compared < comparison.strata
    ):
        return None
    margin = math.log1p(claim.margin)
    shares = [
        count / ended for count, ended in zip(comparison.failed, comparison.ended, strict=True)
    ]
    failed, others = shares if comparison.cell == claim.cell else shares[::-1]
    if claim.kind == "lower":
        p = _p_below(claim.cell, comparison, 0.0)
    elif failed > others or (claim.kind == "equivalent" and failed != others):
        p = 1.0  # the margin does not cover more frequent failures
    elif claim.kind == "not_worse":
        p = _p_below(claim.cell, comparison, margin)
    else:
        p = max(_p_below(cell, comparison, margin) for cell in (claim.cell, claim.other))
    return min(1.0, 2 * p)


def _p_below(cell: str, comparison: Comparison, log: float) -> float:
    """One-sided p for the claim that ln(loss) of ``cell`` is less than ``log`` above the other's.

    If any run failed, the p by ranks is computed, too, with the failed runs as the worst; the
    larger p counts. It is not known how much worse a failed run is. So with a margin, a failed run
    of ``cell`` counts as worse than one of the other cell.
    """
    turned = comparison.cell != cell
    p = comparison.contrast.p_above(-log) if turned else comparison.contrast.p_below(log)
    assert p is not None
    if comparison.ranks is not None and any(comparison.failed):
        ranks = comparison.ranks_at(-log if turned else log, cell) if log else comparison.ranks
        p = max(p, ranks.p_higher if turned else ranks.p_lower)
    return p


def _result(
    evidence: Evidence,
    claim: Claim,
    comparison: Comparison | None,
    p: float | None,
    adjusted: float | None,
) -> Result:
    if comparison is None or p is None:
        pooled = comparison is not None and comparison.strata > 1
        strata = f" in each {comparison.stratum}" if comparison and pooled else ""
        unit = evidence.cells[0].unit
        why = f"it takes {LEAST} {unit}s of each cell that gave a result{strata}"
        if lacking := _lacking(evidence, claim):
            why = f"no result of {words.listed(lacking)}"
        if unknown := [n for n in (claim.cell, claim.other) if n not in _names(evidence)]:
            why = f"no cell and no value is called {words.listed(unknown, 'or')}"
        return Result(claim, comparison, p, adjusted, False, f"not tested: {why}")
    interval = comparison.contrast.interval()
    assert interval is not None
    percent, low, high = comparison.contrast.percent, interval.low, interval.high
    if comparison.cell != claim.cell:
        percent, low, high = (_turned(value) for value in (percent, high, low))
    seen = (
        f"{claim.cell}'s loss is {words.against(percent)} {claim.other}'s, 95% CI from "
        f"{words.gap(low)} to {words.gap(high)}"
    )
    if sum(comparison.failed):
        seen += (
            f"; {comparison.failed[0]} and {comparison.failed[1]} {comparison.unit}s of "
            f"{comparison.cell} and "
        )
        seen += f"{comparison.other} gave no result"
    holds = adjusted is not None and adjusted <= evidence.alpha
    return Result(claim, comparison, p, adjusted, holds, seen)


def _lacking(evidence: Evidence, claim: Claim) -> list[str]:
    """What of a claim over several strata has no result, such as "bn and wn on b"; else empty."""
    both = (claim.cell, claim.other)
    strata: dict[str, list[str]] = {}
    cells = {cell.name: cell.values for cell in evidence.cells}
    called = {axis: value_names(axis, cells) for axis in axes(cells)}
    for axis in called:
        for cell in evidence.cells:
            if (value := called[axis].get(cell.values.get(axis))) in both:
                rest = {name: other for name, other in cell.values.items() if name != axis}
                without = strata.setdefault(_place(rest), [])
                if not evidence.units(cell):
                    without.append(value)
    if len(strata) < 2:
        return []
    return [f"{words.listed(names)} {place}" for place, names in strata.items() if names]


def _names(evidence: Evidence) -> set[str]:
    """What a claim may name: the cells, and the values of the axes."""
    cells = {cell.name: cell.values for cell in evidence.cells}
    return {*cells, *(name for axis in axes(cells) for name in value_names(axis, cells).values())}


def _place(values: Mapping[str, Any]) -> str:
    """A stratum in words: on faces, with features 8."""
    given = [f"{name} {value}" for name, value in values.items() if name != DATASET]
    on = [f"on {values[DATASET]}"] if DATASET in values else []
    return " ".join([*on, *([f"with {words.listed(given)}"] if given else [])])


def _turned(percent: float) -> float:
    return 100 * math.expm1(-math.log1p(percent / 100))


def sentence(tested: Sequence[Result]) -> str:
    """The declared claims in at most two sentences; empty without any."""
    declared = [result for result in tested if result.claim.declared]
    if not declared:
        return ""
    holds = [result.text for result in declared if result.holds]
    fails = [result.text for result in declared if not result.holds]
    parts = []
    if holds:
        parts.append(f"Declared and confirmed: {'; '.join(holds)}.")
    if fails:
        parts.append(f"Declared and not confirmed: {'; '.join(fails)}.")
    return " ".join(parts)
