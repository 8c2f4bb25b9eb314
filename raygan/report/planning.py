"""The power of a comparison before it is made: how many seeds a difference takes.

Let two cells have n seeds each and the same standard deviation s of ln(loss). There are m
comparisons, the first of which must pass α / m (Holm). A difference of δ on the log scale is
claimed in 80% of sweeps if a noncentral t, with 2n − 2 degrees of freedom and noncentrality
δ / (s · √(2 / n)), exceeds t_{1 − α / 2m} with a probability of 80%. An approximation is
n = 2s² (t_{1 − α / 2m} + t_{0.8})² / δ². Welch's test has slightly fewer degrees of freedom: with
six seeds, it claims the difference in 77% of sweeps.
"""

from __future__ import annotations

import math

from raygan.report.compare import LEAST, noncentrality, percent

POWER = 0.8
MOST = 1000
"""Most seeds that are considered."""


def detectable(
    sd: float,
    seeds: int,
    comparisons: int = 1,
    power: float = POWER,
    level: float = 0.05,
    strata: int = 1,
) -> float | None:
    """The difference, in per cent, that is claimed with the probability ``power``.

    ``sd``: standard deviation of ln(loss) between seeds. ``strata``: over how many the difference
    is averaged, each with so many seeds. None for fewer than three seeds.
    """
    if seeds < LEAST:
        return None
    freedom = strata * (2 * seeds - 2)
    reach = noncentrality(1 - level / comparisons, freedom, power)
    return percent(sd * math.sqrt(2 / (seeds * strata)) * reach)


def seeds_needed(
    sd: float,
    difference: float,
    comparisons: int = 1,
    power: float = POWER,
    level: float = 0.05,
    strata: int = 1,
) -> int | None:
    """The smallest number of seeds per cell with which ``difference``, in per cent, is claimed with
    the probability ``power``; None if it is more than :data:`MOST`."""
    low, high = LEAST, MOST
    if (detectable(sd, high, comparisons, power, level, strata) or math.inf) > difference:
        return None
    while low < high:
        middle = (low + high) // 2
        if (detectable(sd, middle, comparisons, power, level, strata) or math.inf) <= difference:
            high = middle
        else:
            low = middle + 1
    return low
