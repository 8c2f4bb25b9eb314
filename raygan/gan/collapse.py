"""Whether a run has collapsed: from its samples and from D, never from the reconstruction loss,
which a generator that makes few different images may still lower.

What counts is the median over the last :data:`LAST` evaluations. A run has collapsed if

* D is **saturated**: by G's loss, D gives fake images a logit below −:data:`CERTAIN`. G's updates
  would not let that last; it lasts where they lead nowhere any more.
* G makes **few different images**: diversity below :data:`LEAST_DIVERSITY`, or more near-duplicates
  than :data:`MOST_DUPLICATES` (:mod:`raygan.gan.variety`). A fresh G makes few different ones, too,
  and may learn slowly, so that one of these must also be true: D takes most of them for real (it
  tells less than :data:`TOLD` of them); they have been twice as varied before; or they are few by
  both measures, and their diversity has come down to :data:`FADING` of its highest or less.

``tests/bench/collapse.py`` makes runs collapse on purpose. On digits, 2 seeds, three norms:

* G's loss came to 12.7 … 10⁵ where learning rates 100 times as high did harm (vanilla, bn), and to
  18.8 … 19.9 where D was trained and G was not; to at most 4.5 in healthy and in slow runs.
* Diversity came to 0.14 … 0.17 (0.33 once, which is not told) where G was trained 100 times as fast
  as D, which took most fakes for real; to 0.81 … 1.2 in healthy runs. In the slowest it was 0.12,
  and D told all fakes.

The last of these came from a run on CIFAR-10 (vanilla, lr 1e-4: docs/cifar10-rates), whose samples
were never varied (0.22 at most) and ended all alike, 0.57 of that, while its loss rose to 2.8 times
its lowest. No other of the 45 runs there has both signs at its end.

A run whose learning rate is so low that even D has not begun to learn may be taken for one that has
collapsed.
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
TOLD, FADING = 0.5, 0.75

_LOSS_G, _ACCURACY = "train/loss_g", "train/accuracy_fake"
_SATURATED = {"log": CERTAIN, "least-squares": (CERTAIN + 1) ** 2 / 2, "hinge": CERTAIN}
"""G's loss where D's logit is −CERTAIN, by ``loss``; a critic without a scale is not judged."""

History = Sequence[Mapping[str, float]]


def find_collapse(history: History, loss: str = "log") -> str | None:
    """Why the run with these evaluations (``history``, ascending) has collapsed; None if not.

    ``loss`` is that of its configuration. Metrics that are missing are not judged.
    """
    if len(history) < LAST or history[-1]["step"] < EARLIEST:
        return None
    loss_g, most = _level(history, _LOSS_G), _SATURATED.get(loss)
    if loss_g is not None and most is not None and loss_g > most:
        return f"D is saturated: G's loss is {loss_g:.3g}, above {most:g}"
    diversity, duplicates = _level(history, DIVERSITY), _level(history, DUPLICATES)
    if diversity is None or duplicates is None:
        return None
    told = _level(history, _ACCURACY)
    fooled = told is not None and told < TOLD
    before = history[:-LAST]
    most_varied = max((point.get(DIVERSITY, 0.0) for point in before), default=0.0)
    fading = duplicates > MOST_DUPLICATES and diversity <= FADING * most_varied
    if diversity < LEAST_DIVERSITY and (fooled or fading or 2 * diversity <= most_varied):
        return (
            f"few different images: samples are {diversity:.0%} as far apart as training images, "
            f"less than {LEAST_DIVERSITY:.0%}"
        )
    fewest = min((point.get(DUPLICATES, 1.0) for point in before), default=1.0)
    if duplicates > MOST_DUPLICATES and (fooled or 2 * fewest <= duplicates):
        return (
            f"few different images: {duplicates:.0%} of the samples have a near-duplicate, above "
            f"{MOST_DUPLICATES:.0%}"
        )
    return None


def _level(history: History, metric: str) -> float | None:
    """Median of ``metric`` over the last :data:`LAST` evaluations, if all of them have it."""
    values = [point[metric] for point in history[-LAST:] if metric in point]
    return statistics.median(values) if len(values) == LAST else None
