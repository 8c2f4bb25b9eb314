"""Several claims at once: how often any of them is false, and which cell to choose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from scipy import special

from raygan.report.compare import Contrast, percent
from raygan.report.exact import shift_limit


def holm(ps: Sequence[float]) -> list[float]:
    """p of each claim, adjusted so that any false one is claimed with at most the level (Holm
    1979)."""
    return _step_down(ps, [len(ps) - number for number in range(len(ps))])


def shaffer(ps: Sequence[float], cells: int) -> list[float]:
    """The same, sharper, for all pairs of ``cells`` (Shaffer 1986): once a pair differs, not all
    others can be equal. For three cells p is held against α/3, then α, then α."""
    if len(ps) != math.comb(cells, 2):
        raise ValueError(f"{len(ps)} p are not those of all pairs of {cells} cells")
    possible = sorted(_equal_pairs(cells), reverse=True)
    pairs = len(ps)
    # with `number` pairs found to differ, the most of the others that can still all be equal
    return _step_down(ps, [next(c for c in possible if c <= pairs - n) for n in range(pairs)])


def _step_down(ps: Sequence[float], factors: Sequence[int]) -> list[float]:
    adjusted, highest = [0.0] * len(ps), 0.0
    for factor, index in zip(factors, sorted(range(len(ps)), key=ps.__getitem__), strict=True):
        highest = adjusted[index] = max(highest, min(1.0, max(1, factor) * ps[index]))
    return adjusted


@cache
def _equal_pairs(cells: int) -> frozenset[int]:
    """How many pairs of ``cells`` can be equal at once: those within groups of equal cells."""
    if cells < 2:
        return frozenset({0})
    return frozenset(
        math.comb(group, 2) + rest
        for group in range(1, cells + 1)
        for rest in _equal_pairs(cells - group)
    )


@dataclass(frozen=True)
class Choice:
    """What is given up at most by choosing one cell (multiple comparisons with the best, Hsu
    1984)."""

    cell: str
    regret: float | None
    """By how many per cent its mean loss lies above the lowest, at most; all bounds of a sweep
    hold together at the level of :func:`choices`. None if too many of its runs gave no result for
    any bound."""
    out: bool
    """Whether it is not the best one for certain, at that level: another one's mean is lower."""


def choices(
    contrasts: Mapping[tuple[str, str], Contrast],
    level: float,
    ranked: Mapping[tuple[str, str], tuple[Sequence[float], Sequence[float]]] = MappingProxyType(
        {}
    ),
) -> list[Choice]:
    """What each cell gives up at most, the least first.

    ``contrasts``: of each ordered pair of the k cells, by their names. With d the difference of two
    cells' means of ln(loss) and t = t_{1 − (1 − level) / (k − 1)}, c lies above j by at most
    u_cj = d_cj + t · se. The regret of c is at most exp(max(0, max over j of u_cj)) − 1, and c is
    out if u_jc < 0 for some j.

    ``ranked``: ln(loss) of all runs of those pairs of which some run gave no result, these as
    infinity. u is then the higher one of the above and of the limit by ranks.
    """
    names = list(dict.fromkeys(name for pair in contrasts for name in pair))
    if len(names) < 2:
        return []
    each = 1 - (1 - level) / (len(names) - 1)
    most = {
        pair: max(
            c.highest(each), shift_limit(*ranked[pair], each) if pair in ranked else -math.inf
        )
        for pair, c in contrasts.items()
    }
    found = []
    for name in names:
        others = [other for other in names if other != name]
        regret = max(0.0, *(most[name, other] for other in others))
        out = any(most[other, name] < 0 for other in others)
        found.append(Choice(name, percent(regret) if regret < math.inf else None, out))
    return sorted(found, key=lambda c: math.inf if c.regret is None else c.regret)


def expected_best(losses: Sequence[float]) -> list[float]:
    """The lowest of B ≤ N of these losses, drawn without replacement, on average, for B = 1 … N.

    The budget curve of a random search (Dodge et al. 2019) without its bias (Tang et al. 2020):
    E = Σᵢ C(N − i, B − 1) / C(N, B) · x₍ᵢ₎ over the ascending x₍₁₎ … x₍ₙ₎. A trial without a result
    counts as infinitely high; the value is then infinite while B does not exceed their number.
    """
    ordered, n = sorted(losses), len(losses)
    found = []
    for budget in range(1, n + 1):
        shares = [math.comb(n - 1 - i, budget - 1) / math.comb(n, budget) for i in range(n)]
        found.append(sum(s * x for s, x in zip(shares, ordered, strict=True) if s))
    return found


def simultaneous_t(level: float, claims: int, freedom: float) -> float:
    """Student's t for two-sided intervals of ``claims`` means that hold together (Bonferroni)."""
    return float(special.stdtrit(freedom, 1 - (1 - level) / (2 * claims)))
