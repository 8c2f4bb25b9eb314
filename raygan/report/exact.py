"""Exact tests of two cells: of ranks, by permutation, and of failure rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from scipy import stats

MOST_EXACT = 200_000
"""A permutation test with at most this many permutations uses all of them."""
RESAMPLES = 9_999
"""Number of random permutations that it uses otherwise."""


@dataclass(frozen=True)
class Ranks:
    """Two cells compared by the ranks of all their runs; runs without a result rank last."""

    improvement: float
    """Probability that a run of the first cell is better than one of the second, where a tie counts
    one half: U / (n · n′) (Mann & Whitney 1947)."""
    p_lower: float
    """Exact one-sided p for the claim that the runs of the first cell rank better."""
    p_higher: float
    """Exact one-sided p for the claim that the runs of the second cell rank better."""


def stratified_ranks(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Ranks:
    """The ranks over several strata, each ranked separately (van Elteren 1960, equal weights).

    ``strata``: by stratum, the losses of the first and of the second cell; infinity for a run
    without a result.
    """
    doubled_sum, improved, pairs = 0, 0.0, 0
    counts = np.ones(1)
    for first, second in strata:
        # twice the mean rank of tied values is an integer
        together = np.array([*first, *second])
        ordered = np.sort(together)
        doubled = np.searchsorted(ordered, together) + 1
        doubled += np.searchsorted(ordered, together, side="right")
        doubled_sum += (rank_sum := int(doubled[: len(first)].sum()))
        n, m = len(first), len(second)
        improved += n * m - (rank_sum / 2 - n * (n + 1) / 2)
        pairs += n * m
        counts = np.convolve(counts, _rank_sums(tuple(sorted(doubled.tolist())), n))
    total = counts.sum()
    return Ranks(
        improved / pairs,
        float(counts[: doubled_sum + 1].sum() / total),
        float(counts[doubled_sum:].sum() / total),
    )


def shift_limit(values: Sequence[float], others: Sequence[float], level: float) -> float:
    """One-sided upper limit, by ranks, of the shift of ``values`` against ``others``.

    It is the largest shift that the exact test of Mann and Whitney does not reject, an order
    statistic of all differences (Hodges and Lehmann 1963). A run without a result is infinity. The
    limit is infinity if too many of ``values`` are, or if there are too few values for ``level``.
    """
    pairs = len(values) * len(others)
    # the difference of two infinities is unknown
    apart = sorted(math.inf if a == math.inf else a - b for a in values for b in others)
    doubled = tuple(range(2, 2 * (len(values) + len(others)) + 1, 2))
    counts = _rank_sums(doubled, len(values))[len(values) * (len(values) + 1) :: 2]
    chances = np.cumsum(counts / counts.sum())
    left_out = int((chances <= 1 - level).sum())
    return apart[pairs - left_out] if left_out else math.inf


@lru_cache(maxsize=256)
def _rank_sums(doubled: tuple[int, ...], size: int) -> np.ndarray:
    """By sum, the number of subsets of ``size`` of these ranks."""
    sums = np.zeros((size + 1, sum(doubled) + 1))
    sums[0, 0] = 1
    for rank in doubled:
        sums[1:, rank:] += sums[:-1, : sums.shape[1] - rank].copy()
    return np.asarray(sums[size])


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
