"""Several claims together: corrections of p, and how far a cell may be above the best."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from scipy import special

from raygan.report.compare import Contrast, percent
from raygan.report.exact import shift_limit

Strata = Sequence[tuple[Sequence[float], Sequence[float]]]
"""By stratum, the values of the runs of both cells."""


def holm(ps: Sequence[float]) -> list[float]:
    """The adjusted p of each claim (Holm 1979).

    If claims with an adjusted p up to α are made, the chance of any false claim is at most α.
    """
    return _step_down(ps, [len(ps) - number for number in range(len(ps))])


def shaffer(ps: Sequence[float], cells: int) -> list[float]:
    """The adjusted p of all pairs of ``cells`` (Shaffer 1986).

    It is at most that of :func:`holm`, since once one pair differs, not all others can be equal.
    For three cells, the ordered p are compared with α/3, α and α.
    """
    if len(ps) != math.comb(cells, 2):
        raise ValueError(f"{len(ps)} p are not those of all pairs of {cells} cells")
    possible = _equal_pairs(cells)
    pairs = len(ps)
    # the most pairs that can all be equal if n other pairs differ
    return _step_down(ps, [_highest(possible, pairs - n) for n in range(pairs)])


def _step_down(ps: Sequence[float], factors: Sequence[int]) -> list[float]:
    adjusted, highest = [0.0] * len(ps), 0.0
    for factor, index in zip(factors, sorted(range(len(ps)), key=ps.__getitem__), strict=True):
        highest = adjusted[index] = max(highest, min(1.0, max(1, factor) * ps[index]))
    return adjusted


@cache
def _equal_pairs(cells: int) -> int:
    """The possible numbers of equal pairs of ``cells``, which are the pairs in groups of equal
    cells: bit c is set if c pairs can be."""
    possible = [1]
    for count in range(1, cells + 1):
        of_rest = (possible[count - g] << math.comb(g, 2) for g in range(1, count + 1))
        possible.append(functools.reduce(operator.or_, of_rest))
    return possible[cells]


def _highest(bits: int, most: int) -> int:
    """The highest set bit up to ``most``."""
    return (bits & ((2 << most) - 1)).bit_length() - 1


@dataclass(frozen=True)
class Choice:
    """How far a cell may be above the best (multiple comparisons with the best, Hsu 1984)."""

    cell: str
    regret: float | None
    """Upper limit, in per cent, of how much its mean loss is above the lowest one. All limits of a
    sweep hold together at the level of :func:`choices`. None if too many runs gave no result for a
    limit."""
    out: bool
    """Whether it is not the best cell, at the same level: another mean is lower."""


def choices(
    contrasts: Mapping[tuple[str, str], Contrast],
    level: float,
    ranked: Mapping[tuple[str, str], Strata] = MappingProxyType({}),
) -> list[Choice]:
    """How far each cell is above the best at most, the smallest limit first.

    ``contrasts``: by the names of each ordered pair of the k cells. Let d_cj be the difference of
    the means of ln(loss) of c and j, and t = t_{1 − (1 − level) / (k − 1)}. Then c is above j by at
    most u_cj = d_cj + t · se. The regret of c is at most exp(max(0, max over j of u_cj)) − 1, and c
    is out if u_jc < 0 for some j.

    ``ranked``: for pairs in which some run gave no result, ln(loss) of all runs by stratum, with
    infinity for these. For such a pair, u is the larger of the limit above and the limit by ranks:
    over K strata, the mean of the limits of each, at the level 1 − (1 − level) / (k − 1) / K.
    """
    names = list(dict.fromkeys(name for pair in contrasts for name in pair))
    if len(names) < 2:
        return []
    each = 1 - (1 - level) / (len(names) - 1)
    most = {
        pair: max(c.highest(each), _by_ranks(ranked[pair], each) if pair in ranked else -math.inf)
        for pair, c in contrasts.items()
    }
    ordered = []
    for name in names:
        others = [other for other in names if other != name]
        regret = max(0.0, *(most[name, other] for other in others))
        out = any(most[other, name] < 0 for other in others)
        ordered.append(Choice(name, percent(regret) if regret < math.inf else None, out))
    return sorted(ordered, key=lambda c: math.inf if c.regret is None else c.regret)


def _by_ranks(strata: Strata, level: float) -> float:
    each = level if len(strata) == 1 else 1 - (1 - level) / len(strata)
    limits = [shift_limit(*pair, each) for pair in strata]
    return math.inf if math.inf in limits else sum(limits) / len(limits)


def expected_best(losses: Sequence[float]) -> list[float]:
    """For B = 1 … N, the mean of the lowest of B of the N ``losses``, drawn without replacement.

    This is the budget curve of a random search (Dodge et al. 2019) without its bias (Tang et al.
    2020): E = Σᵢ C(N − i, B − 1) / C(N, B) · x₍ᵢ₎ over the ascending x₍₁₎ … x₍ₙ₎. The loss of a
    trial without a result is infinity. So E is infinite if B is at most the number of such trials.
    """
    n, known = len(losses), sorted(loss for loss in losses if loss < math.inf)
    budgets = np.arange(1, n + 1)
    # of each B, the share of draws whose lowest is x₍ᵢ₎, from that of x₍ᵢ₋₁₎
    shares, means = budgets / n, np.zeros(n)
    for i, loss in enumerate(known):
        means += shares * loss
        shares *= np.maximum(n - budgets - i, 0) / max(n - 1 - i, 1)
    means[: n - len(known)] = math.inf
    return [float(mean) for mean in means]


def simultaneous_t(level: float, claims: int, freedom: float) -> float:
    """Student's t for two-sided intervals of ``claims`` means that hold together, by Bonferroni."""
    return float(special.stdtrit(freedom, 1 - (1 - level) / (2 * claims)))
