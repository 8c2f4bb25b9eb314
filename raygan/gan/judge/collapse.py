"""Whether a run has collapsed, or has learned nothing.

A collapse is found in the samples and in D's losses, not in the reconstruction loss: a generator
that makes few different images may still lower that. Each metric is the median over the last
:data:`JUDGED` evaluations. A run has collapsed if

* D is **saturated**: G's loss says that D's logit of fake images is below −:data:`CERTAIN_LOGIT`.
  If G still learned, its updates would raise that logit again.
* G makes **few different images**: its variety (:mod:`raygan.gan.judge.variety`) is below
  :data:`LEAST_VARIETY`.

``tests/bench/collapse.py`` makes runs collapse on purpose; docs/method/collapse.md has its figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from raygan.gan.losses import LOSSES

VARIETY = "val/variety"
JUDGED, EARLIEST = 3, 500
"""Number of evaluations at the end of a run whose median is judged, and the least iterations of a
run that is judged."""
CERTAIN_LOGIT = 10.0
"""At a logit of −10, D says that a fake image is real with a probability of e⁻¹⁰, 1 in 20,000."""
LEAST_VARIETY = 0.2
MOST_LOSS = 0.95
"""A run has learned nothing if its lowest loss is above this share of the mean training image's."""

_LOSS_G, _LOSS = "train/loss_g", "val/reconstruction_loss"

History = Sequence[Mapping[str, float]]


def find_collapse(history: History, config: Mapping[str, Any]) -> str | None:
    """Why the run with the evaluations ``history``, in order, has collapsed; None if it has not.

    ``config``: its configuration, of which the ``loss`` and that loss's parameters are used. A
    metric that is missing is not judged, such as the variety of a run of an earlier version.
    """
    if len(history) < JUDGED or history[-1]["step"] < EARLIEST:
        return None
    loss = LOSSES.make(config["loss"], config)
    loss_g, most = _level(history, _LOSS_G), loss.saturated(CERTAIN_LOGIT)
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
    """Why the run with the evaluations ``history`` has learned nothing; None if it has learned.

    ``baseline``: reconstruction loss if the mean training image is the answer to every image.
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
    """Median of ``metric`` over the last :data:`JUDGED` evaluations, if all of them have it."""
    values = [point[metric] for point in history[-JUDGED:] if metric in point]
    return statistics.median(values) if len(values) == JUDGED else None
