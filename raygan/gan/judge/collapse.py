"""Whether a run has collapsed, from its samples and from D, or has learned nothing.

A collapse is never told from the reconstruction loss, which a generator that makes few different
images may still lower. What counts is the median over the last :data:`LAST` evaluations. A run has
collapsed if

* D is **saturated**: by G's loss, D gives fake images a logit below −:data:`CERTAIN`. G's updates
  would not let that last; it lasts where they lead nowhere any more.
* G makes **few different images**: variety (:mod:`raygan.gan.judge.variety`) below
  :data:`LEAST_VARIETY`.

``tests/bench/collapse.py`` makes runs collapse on purpose; docs/method/collapse.md has its figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from raygan.gan.losses import LOSSES

VARIETY = "val/variety"
LAST, EARLIEST = 3, 500
"""Evaluations at the end that are judged, and iterations; fewer say nothing."""
CERTAIN = 10.0
"""D takes fake images for real with a probability of e⁻¹⁰ or less, 1 in 20,000."""
LEAST_VARIETY = 0.2
MOST_LOSS = 0.95
"""Share of the mean training image's loss that the lowest loss of a run must not exceed."""

_LOSS_G, _LOSS = "train/loss_g", "val/reconstruction_loss"

History = Sequence[Mapping[str, float]]


def find_collapse(history: History, loss: str = "log") -> str | None:
    """Why the run with these evaluations (``history``, ascending) has collapsed; None if not.

    ``loss`` is that of its configuration. Metrics that are missing are not judged: whether a run
    of an earlier version, which has no variety, makes few different images cannot be known.
    """
    if len(history) < LAST or history[-1]["step"] < EARLIEST:
        return None
    loss_g, most = _level(history, _LOSS_G), LOSSES[loss]().saturated(CERTAIN)
    if loss_g is not None and most is not None and loss_g > most:
        return f"D is saturated: G's loss is {loss_g:.3g}, above {most:g}"
    variety = _level(history, VARIETY)
    if variety is not None and variety < LEAST_VARIETY:
        return (
            "few different images: the effective number of different samples is "
            f"{variety:.1%} of that of training images, below {LEAST_VARIETY:.0%}"
        )
    return None


def find_untrained(history: History, baseline: float) -> str | None:
    """Why the run with these evaluations has learned nothing; None if it has learned something.

    ``baseline``: reconstruction loss of answering every image with the mean training image.
    """
    if not history or history[-1]["step"] < EARLIEST:
        return None
    best = min(point[_LOSS] for point in history)
    if best <= MOST_LOSS * baseline:
        return None
    return (
        f"nothing was learned: the lowest reconstruction loss, {best:.5f}, is above "
        f"{MOST_LOSS:.0%} of the mean training image's, {baseline:.5f}"
    )


def _level(history: History, metric: str) -> float | None:
    """Median of ``metric`` over the last :data:`LAST` evaluations, if all of them have it."""
    values = [point[metric] for point in history[-LAST:] if metric in point]
    return statistics.median(values) if len(values) == LAST else None
