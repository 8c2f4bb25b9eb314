"""Whether the claims that were declared hold: they alone are tested, all else is exploratory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raygan.report import words
from raygan.report.claims import Claim
from raygan.report.evidence import Evidence
from raygan.report.family import Comparison, Family
from raygan.report.multiple import holm


@dataclass(frozen=True)
class Result:
    """A declared claim and what the runs say to it."""

    claim: Claim
    comparison: Comparison | None
    """None if either cell has no run that gave a result."""
    p: float | None
    """Two-sided p: twice that of the claim's direction. A claim holds at 2.5% on its side, as a
    95% interval does."""
    adjusted: float | None
    """p, adjusted for all declared claims (Holm)."""
    holds: bool
    reason: str
    """Why it holds or not, in words."""


def results(evidence: Evidence, family: Family) -> list[Result]:
    """All of the sweep's claims; those that were added later are tested by themselves."""
    found = []
    for declared in (True, False):
        claims = [claim for claim in evidence.claims if claim.declared is declared]
        comparisons = [family.of(claim.cell, claim.other) for claim in claims]
        ps = [_p(claim, c) for claim, c in zip(claims, comparisons, strict=True)]
        # a claim that cannot be tested is one of those that were declared
        adjusted = holm([1.0 if p is None else p for p in ps])
        found += [
            _result(claim, c, p, a if p is not None else None, evidence.alpha)
            for claim, c, p, a in zip(claims, comparisons, ps, adjusted, strict=True)
        ]
    return found


def _p(claim: Claim, found: Comparison | None) -> float | None:
    if found is None or not found.contrast.testable or len(found.ranked) < found.strata:
        return None
    margin = math.log1p(claim.margin)
    shares = [count / ended for count, ended in zip(found.failed, found.ended, strict=True)]
    failed, others = shares if found.cell == claim.cell else shares[::-1]
    if claim.kind == "lower":
        p = _p_below(claim.cell, found, 0.0)
    elif failed > others or (claim.kind == "equivalent" and failed != others):
        p = 1.0  # no margin says how much more often it may fail
    elif claim.kind == "not_worse":
        p = _p_below(claim.cell, found, margin)
    else:
        p = max(_p_below(cell, found, margin) for cell in (claim.cell, claim.other))
    return min(1.0, 2 * p)


def _p_below(cell: str, found: Comparison, log: float) -> float:
    """One-sided p for the claim that ``cell``, one of the two, lies above the other by less than
    ``log``; if any run failed, also by the ranks with these as the worst.

    How much worse a failed run is, is not known: beside a margin, one of ``cell`` counts as worse
    than one of the other.
    """
    turned = found.cell != cell
    p = found.contrast.p_above(-log) if turned else found.contrast.p_below(log)
    assert p is not None
    if found.ranks is not None and any(found.failed):
        ranks = found.ranks_at(-log if turned else log, cell) if log else found.ranks
        p = max(p, ranks.p_higher if turned else ranks.p_lower)
    return p


def _result(
    claim: Claim, found: Comparison | None, p: float | None, adjusted: float | None, alpha: float
) -> Result:
    if found is None or p is None:
        strata = " in each stratum" if found is not None and found.strata > 1 else ""
        return Result(claim, found, p, adjusted, False, "not tested: it takes 3 runs of each cell "
                      f"that gave a result{strata}")  # fmt: skip
    interval = found.contrast.interval()
    assert interval is not None
    percent, low, high = found.contrast.percent, interval.low, interval.high
    if found.cell != claim.cell:
        percent, low, high = (_turned(value) for value in (percent, high, low))
    seen = (
        f"{claim.cell}'s loss is {words.percent(percent, signed=True)} from {claim.other}'s, 95% "
        f"CI {words.percent(low, signed=True)} to {words.percent(high, signed=True)}"
    )
    if sum(found.failed):
        seen += f"; {found.failed[0]} and {found.failed[1]} runs of {found.cell} and "
        seen += f"{found.other} gave no result"
    return Result(claim, found, p, adjusted, bool(adjusted is not None and adjusted <= alpha), seen)


def _turned(percent: float) -> float:
    return 100 * math.expm1(-math.log1p(percent / 100))


def sentence(found: Sequence[Result]) -> str:
    """All declared claims in one or two sentences; empty without any."""
    declared = [result for result in found if result.claim.declared]
    if not declared:
        return ""
    holds = [result.claim.text for result in declared if result.holds]
    fails = [result.claim.text for result in declared if not result.holds]
    parts = []
    if holds:
        parts.append(f"Declared and confirmed: {'; '.join(holds)}.")
    if fails:
        parts.append(f"Declared and not confirmed: {'; '.join(fails)}.")
    return " ".join(parts)
