"""How stable one trial was, from its curve of reconstruction losses alone.

A curve is the iteration t and the loss L(t) of each evaluation, ascending in t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from raygan.records import LEAST_LOSS

Curve = Sequence[tuple[int, float]]
"""Iteration and reconstruction loss (mean squared error per pixel) of each evaluation."""

SETTLING = 0.1
"""Share of the iterations at the start in which a steep fall is no roughness."""


def summary(curve: Curve) -> dict[str, float]:
    """All measures of a curve that do not need a target, by name; empty for an empty curve."""
    if not curve:
        return {}
    found = {
        "best": best(curve),
        "last": curve[-1][1],
        "last_over_best": last_over_best(curve),
        "drawup": largest_drawup(curve),
        "roughness": roughness(curve),
        "log_area": log_area(curve),
    }
    return {name: value for name, value in found.items() if value is not None}


def best(curve: Curve) -> float:
    """min over t of L(t)."""
    return min(loss for _, loss in curve)


def last_over_best(curve: Curve) -> float:
    """L(T) / min over t of L(t): 1 if the trial ended at its lowest loss, above if it got worse."""
    return _kept_off_0(curve[-1][1]) / _kept_off_0(best(curve))


def drawups(curve: Curve) -> list[tuple[int, float]]:
    """L(t) / min over s ≤ t of L(s) at each evaluation: how far above its lowest so far."""
    found, lowest = [], math.inf
    for step, loss in curve:
        lowest = min(lowest, _kept_off_0(loss))
        found.append((step, _kept_off_0(loss) / lowest))
    return found


def largest_drawup(curve: Curve) -> float:
    """max over t of L(t) / min over s ≤ t of L(s): 1 if the loss never rose."""
    return max(ratio for _, ratio in drawups(curve))


def roughness(curve: Curve) -> float | None:
    """mean of |log L(t′) − log L(t)| over consecutive evaluations t < t′ with t ≥ T / 10.

    None if there are no two such evaluations. It depends on how often is evaluated: compare only
    trials of the same sweep.
    """
    settled = [(step, loss) for step, loss in curve if step >= SETTLING * curve[-1][0]]
    changes = [abs(_log(after) - _log(before)) for (_, before), (_, after) in pairwise(settled)]
    return sum(changes) / len(changes) if changes else None


def log_area(curve: Curve) -> float:
    """Area under log L(t) by the trapezoidal rule, divided by the iterations that it spans.

    It is the mean of log L over the run: low for a trial that gets low early and stays there.
    """
    span = curve[-1][0] - curve[0][0]
    if not span:
        return _log(curve[0][1])
    pieces = (
        (end - start) * (_log(before) + _log(after)) / 2
        for (start, before), (end, after) in pairwise(curve)
    )
    return sum(pieces) / span


def iterations_to(curve: Curve, target: float) -> int | None:
    """The first evaluated iteration t with L(t) ≤ ``target``; None if there is none."""
    return next((step for step, loss in curve if loss <= target), None)


def _log(loss: float) -> float:
    return math.log(_kept_off_0(loss))


def _kept_off_0(loss: float) -> float:
    return max(loss, LEAST_LOSS)
