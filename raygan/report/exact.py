"""Exact tests of two cells: of ranks, by permutation, and of failure rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from scipy import special, stats

MOST_EXACT = 200_000
"""A permutation test with at most this many permutations uses all of them."""
MOST_PAIRS = 40_000
"""A test by ranks is exact for at most this many pairs of runs: 200 runs of each cell."""
RESAMPLES = 9_999
"""Number of random permutations that it uses otherwise."""


@dataclass(frozen=True)
class Ranks:
    """Two cells compared by the ranks of all their runs; runs without a result rank last."""

    improvement: float
    """Probability that a run of the first cell is better than one of the second, where a tie counts
    one half: U / (n · n′) (Mann & Whitney 1947)."""
    p_lower: float
    """One-sided p for the claim that the runs of the first cell rank better."""
    p_higher: float
    """One-sided p for the claim that the runs of the second cell rank better."""
    exact: bool = True
    """Whether p is exact, and not that of the normal distribution."""


def stratified_ranks(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Ranks:
    """The ranks over several strata, each ranked separately (van Elteren 1960, equal weights).

    ``strata``: by stratum, the losses of the first and of the second cell; infinity for a run
    without a result. With more than :data:`MOST_PAIRS` pairs of runs, n · n′ summed over the
    strata, p is that of the normal distribution, with the variance of tied ranks and a correction
    for continuity.
    """
    every = [(_doubled_ranks([*first, *second]), len(first)) for first, second in strata]
    # without half ranks, whole ones are enough
    step = 2 if all((doubled % 2 == 0).all() for doubled, _ in every) else 1
    exact = sum(n * (len(doubled) - n) for doubled, n in every) <= MOST_PAIRS
    improved, pairs, beyond, counts = 0.0, 0, 0, np.ones(1)
    above, variance = 0.0, 0.0  # of the sum of ranks: how far above its mean, and its variance
    for doubled, n in every:
        m, rank_sum = len(doubled) - n, int(doubled[:n].sum())
        improved += n * m - (rank_sum / 2 - n * (n + 1) / 2)
        pairs += n * m
        if exact:
            ranks = np.sort(doubled) // step
            beyond += rank_sum // step - int(ranks[:n].sum())
            counts = _scaled(np.convolve(counts, _rank_sums(tuple(ranks.tolist()), n)))
        else:
            above += (rank_sum - n * float(doubled.mean())) / 2
            variance += n * m / (n + m) * float(np.var(doubled / 2, ddof=1))
    if exact:
        total = counts.sum()
        p_lower, p_higher = counts[: beyond + 1].sum() / total, counts[beyond:].sum() / total
    else:
        p_lower, p_higher = _normal(above, variance), _normal(-above, variance)
    return Ranks(improved / pairs, float(p_lower), float(p_higher), exact)


def shift_limit(values: Sequence[float], others: Sequence[float], level: float) -> float:
    """One-sided upper limit, by ranks, of the shift of ``values`` against ``others``.

    It is the largest shift that the test of Mann and Whitney does not reject, an order statistic of
    all differences (Hodges and Lehmann 1963). The test is exact up to :data:`MOST_PAIRS` pairs of
    runs, as in :func:`stratified_ranks`. A run without a result is infinity. The limit is infinity
    if too many of ``values`` are, or if there are too few values for ``level``.
    """
    n, m = len(values), len(others)
    if n * m <= MOST_PAIRS:
        counts = _rank_sums(tuple(range(1, n + m + 1)), n)
        chances = np.cumsum(counts / counts.sum())
    else:
        chances = _normal(np.arange(n * m) - n * m / 2, n * m * (n + m + 1) / 12)
    if not (left_out := int((chances <= 1 - level).sum())):
        return math.inf
    first, second = np.asarray(values, dtype=float)[:, None], np.asarray(others, dtype=float)
    lost = np.broadcast_to(first == math.inf, (n, m))
    # the difference of two infinities is unknown
    apart = np.subtract(first, second, out=np.full((n, m), math.inf), where=~lost)
    return float(np.sort(apart, axis=None)[n * m - left_out])


def _doubled_ranks(values: Sequence[float]) -> np.ndarray:
    """Twice the rank of each; twice the mean rank of tied values is an integer."""
    ordered = np.sort(values)
    doubled = np.searchsorted(ordered, values) + 1
    return np.asarray(doubled + np.searchsorted(ordered, values, side="right"))


def _normal(above: Any, variance: float) -> Any:
    """The chance that a sum of ranks is at most ``above`` over its mean, by the normal distribution
    with a correction for continuity."""
    return special.ndtr((above + 0.5) / math.sqrt(variance)) if variance else 1.0


@lru_cache(maxsize=256)
def _rank_sums(ranks: tuple[int, ...], size: int) -> np.ndarray:
    """By sum, from the least one on, the number of subsets of ``size`` of these ascending ranks, in
    the unit of :func:`_scaled`."""
    others = len(ranks) - size
    if size > others:
        return _rank_sums(ranks, others)[::-1]
    up_to = [0, *itertools.accumulate(ranks)]

    def width(taken: int, of: int) -> int:
        """How far the highest sum of ``taken`` of the first ranks is above the least one."""
        return up_to[of] - up_to[of - taken] - up_to[taken]

    # by number of ranks that are taken, each from its own least sum on
    sums = [np.zeros(width(taken, others + taken) + 1) for taken in range(size + 1)]
    sums[0][0] = 1
    for before, rank in enumerate(ranks):
        # the last ones are all taken by what is smaller
        for taken in range(min(before + 1, size), max(0, before - others), -1):
            shift, end = rank - ranks[taken - 1], width(taken - 1, before) + 1
            sums[taken][shift : shift + end] += sums[taken - 1][:end]
    return _scaled(sums[size])


def _scaled(counts: np.ndarray) -> np.ndarray:
    """``counts`` in a unit, a power of 2, in which their sum is at least ½ and below 1: those of
    many runs overflow."""
    return np.asarray(np.ldexp(counts, -math.frexp(counts.sum())[1]))


def permutation_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the difference of means, by permutation of the values between the two cells.

    Exact if there are at most :data:`MOST_EXACT` permutations, otherwise from :data:`RESAMPLES`
    random ones.
    """
    together = np.array([*first, *second])
    n, total = len(first), len(together)
    observed = abs(np.mean(first) - np.mean(second)) * (1 - 1e-9)
    if math.comb(total, n) <= MOST_EXACT:
        dealt = np.array(list(itertools.combinations(range(total), n)))
        extra = 0
    else:
        generator = np.random.default_rng(0)
        dealt = np.argsort(generator.random((RESAMPLES, total)), axis=1)[:, :n]
        extra = 1  # the observed permutation
    sums = together[dealt].sum(axis=1)
    apart = np.abs(sums / n - (together.sum() - sums) / (total - n))
    return float(((apart >= observed).sum() + extra) / (len(dealt) + extra))


@cache
def failures_p(failed: int, n: int, others_failed: int, others: int) -> float | None:
    """Two-sided p of equal failure rates (Boschloo 1970); None if there is nothing to compare."""
    if not n or not others or not failed + others_failed or failed + others_failed == n + others:
        return None
    if (n, failed) > (others, others_failed):
        return failures_p(
            others_failed, others, failed, n
        )  # the same p, cached, since the test is slow
    table = [[failed, others_failed], [n - failed, others - others_failed]]
    return float(stats.boschloo_exact(table).pvalue)
