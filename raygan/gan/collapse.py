"""Whether a run has collapsed: from its samples and from D, never from the reconstruction loss,
which a generator that makes few different images may still lower.

What counts is the median over the last :data:`LAST` evaluations. A run has collapsed if

* D is **saturated**: by G's loss, D gives fake images a logit below −:data:`CERTAIN`. G's updates
  would not let that last; it lasts where they lead nowhere any more.
* G makes **few different images**: diversity below :data:`LEAST_DIVERSITY`, or more near-duplicates
  than :data:`MOST_DUPLICATES` (:mod:`raygan.gan.variety`). A fresh G makes few different ones, too:
  as long as low diversity is more than half of the highest so far, G has not lost but not yet
  gained it.

``tests/bench/collapse.py`` makes runs collapse on purpose and shows the thresholds between what
those reach and what healthy runs do.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

DIVERSITY, DUPLICATES = "val/diversity", "val/duplicates"
LAST = 3
"""Evaluations at the end that are judged; fewer say nothing."""
CERTAIN = 10.0
"""D takes fake images for real with a probability of e⁻¹⁰ or less, 1 in 20,000."""
LEAST_DIVERSITY, MOST_DUPLICATES = 0.2, 0.5

_LOSS_G = "train/loss_g"
_SATURATED = {"log": CERTAIN, "least-squares": (CERTAIN + 1) ** 2 / 2, "hinge": CERTAIN}
"""G's loss where D's logit is −CERTAIN, by ``loss``; a critic without a scale is not judged."""


def find_collapse(history: Sequence[Mapping[str, float]], loss: str = "log") -> str | None:
    """Why the run with these evaluations (``history``, ascending) has collapsed; None if not.

    ``loss`` is that of its configuration. Metrics that are missing are not judged.
    """
    if (loss_g := _level(history, _LOSS_G)) is not None:
        most = _SATURATED.get(loss)
        if most is not None and loss_g > most:
            return f"D is saturated: G's loss is {loss_g:.3g}, above {most:g}"
    duplicates = _level(history, DUPLICATES)
    diversity = _level(history, DIVERSITY)
    if diversity is not None and diversity < LEAST_DIVERSITY:
        highest = max(point.get(DIVERSITY, 0.0) for point in history)
        if 2 * diversity > highest:
            return None  # young
        return (
            f"samples are {diversity:.1%} as far apart as training images, less than "
            f"{LEAST_DIVERSITY:.0%}; it has been {highest:.1%}"
        )
    if duplicates is not None and duplicates > MOST_DUPLICATES:
        return f"{duplicates:.0%} of the samples have a near-duplicate, above {MOST_DUPLICATES:.0%}"
    return None


def _level(history: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """Median of ``metric`` over the last :data:`LAST` evaluations, if all of them have it."""
    values = [point[metric] for point in history[-LAST:] if metric in point]
    return statistics.median(values) if len(values) == LAST else None
