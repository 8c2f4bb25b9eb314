"""Whether a run has collapsed: from its samples and from D, never from the reconstruction loss,
which a generator that makes few different images may still lower.

What counts is the median over the last :data:`LAST` evaluations. A run has collapsed if

* D is **saturated**: by G's loss, D gives fake images a logit below −:data:`CERTAIN`. G's updates
  would not let that last; it lasts where they lead nowhere any more.
* G makes **few different images**: diversity below :data:`LEAST_DIVERSITY`, or more near-duplicates
  than :data:`MOST_DUPLICATES` (:mod:`raygan.gan.variety`). A fresh G makes few different ones, too,
  and may learn slowly: low diversity counts if D takes most such images for real (it tells less
  than :data:`TOLD` of them), or if diversity has been twice as high before.

``tests/bench/collapse.py`` makes runs collapse on purpose. On digits, G's loss came to 12.7 … 10⁵
where rates were 100 times too high and to 18.8 … 19.9 where G stood still, to at most 4.5 in healthy
and slow runs; diversity to 0.14 … 0.17 where G outran D, which took most fakes for real, and to 0.12
in the slowest runs, whose fakes D told all, and 0.23 … 1.4 in the others. A run whose learning rate is so low that even D has not begun to learn may be
taken for one that has collapsed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

DIVERSITY, DUPLICATES = "val/diversity", "val/duplicates"
LAST, EARLIEST = 3, 500
"""Evaluations at the end that are judged, and iterations; fewer say nothing."""
CERTAIN = 10.0
"""D takes fake images for real with a probability of e⁻¹⁰ or less, 1 in 20,000."""
LEAST_DIVERSITY, MOST_DUPLICATES = 0.2, 0.5
TOLD = 0.5

_LOSS_G, _ACCURACY = "train/loss_g", "train/accuracy_fake"
_SATURATED = {"log": CERTAIN, "least-squares": (CERTAIN + 1) ** 2 / 2, "hinge": CERTAIN}
"""G's loss where D's logit is −CERTAIN, by ``loss``; a critic without a scale is not judged."""


def find_collapse(history: Sequence[Mapping[str, float]], loss: str = "log") -> str | None:
    """Why the run with these evaluations (``history``, ascending) has collapsed; None if not.

    ``loss`` is that of its configuration. Metrics that are missing are not judged.
    """
    if len(history) < LAST or history[-1]["step"] < EARLIEST:
        return None
    loss_g, most = _level(history, _LOSS_G), _SATURATED.get(loss)
    if loss_g is not None and most is not None and loss_g > most:
        return f"D is saturated: G's loss is {loss_g:.3g}, above {most:g}"
    diversity, duplicates = _level(history, DIVERSITY), _level(history, DUPLICATES)
    if diversity is not None and diversity < LEAST_DIVERSITY:
        highest = max(point.get(DIVERSITY, 0.0) for point in history)
        told = _level(history, _ACCURACY)
        if 2 * diversity > highest and (told is None or told >= TOLD):
            return None  # young
        return (
            f"few different images: samples are {diversity:.0%} as far apart as training images, "
            f"less than {LEAST_DIVERSITY:.0%}"
        )
    if duplicates is not None and duplicates > MOST_DUPLICATES:
        return (
            f"few different images: {duplicates:.0%} of the samples have a near-duplicate, above "
            f"{MOST_DUPLICATES:.0%}"
        )
    return None


def _level(history: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """Median of ``metric`` over the last :data:`LAST` evaluations, if all of them have it."""
    values = [point[metric] for point in history[-LAST:] if metric in point]
    return statistics.median(values) if len(values) == LAST else None
