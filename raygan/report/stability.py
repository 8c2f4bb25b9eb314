"""Measures of the stability of one trial, from its losses or from its final tests.

A curve is the iteration t and the loss L(t) of each evaluation, ascending in t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from raygan.records import LEAST_LOSS

Curve = Sequence[tuple[int, float]]
"""Iteration and reconstruction loss (mean squared error per pixel) of each evaluation."""

_Array = npt.NDArray[np.float64]

SETTLING = 0.1
"""Share of the iterations, at the start, that does not count as roughness."""


SMOOTH, ENOUGH = 5, 15
"""Evaluations of the running median that smooths a curve, and the least evaluations of a curve that
is smoothed."""
_DRAWS, _FEWEST_DRAWS, _MOST_VALUES = 400, 50, 200_000
"""Flat curves that are simulated to measure the effect of noise alone: usually, at least, and the
most values together, so that fewer long curves are simulated."""
_SD_OF_SECOND_DIFFERENCE = math.sqrt(6)
_SD_OF_MEDIAN_DISTANCE = 1.4826
"""Standard deviation of a normal variable divided by its median distance from 0."""


@dataclass(frozen=True)
class Flat:
    """The distribution of a measure over flat curves with the noise of a run."""

    mean: float
    high: float
    """95th percentile."""


def summary(curve: Curve) -> dict[str, float]:
    """All measures of a curve that do not need a target, by name; empty for an empty curve.

    Measures of the smoothed curve are missing if the curve is too short.
    """
    if not curve:
        return {}
    flat, flat_rise = flat_worsening(curve), flat_drawup(curve)
    measures = {
        "best": best(curve),
        "last": curve[-1][1],
        "worsening": worsening(curve),
        "worsening_flat": flat.mean if flat else None,
        "worsening_flat_95": flat.high if flat else None,
        "log_drawup": drawup(curve),
        "log_drawup_flat": flat_rise.mean if flat_rise else None,
        "log_drawup_flat_95": flat_rise.high if flat_rise else None,
        "roughness": roughness(curve),
        "log_area": log_area(curve),
    }
    return {name: value for name, value in measures.items() if value is not None}


def fresh_worsening(final_best_loss: float, final_last_loss: float) -> float:
    """g = ln(loss of the last generator / loss of the best one), both of the final test.

    0 if the run ended at its best, above 0 if it got worse again. The best generator was chosen by
    other images, so that g does not include the noise of that choice: over flat runs, g has a mean
    of 0, and it may be negative.
    """
    return _log(final_last_loss) - _log(final_best_loss)


def fresh_of(final_best_loss: float | None, final_last_loss: float | None) -> float | None:
    """:func:`fresh_worsening`; None unless both losses are known."""
    if final_best_loss is None or final_last_loss is None:
        return None
    return fresh_worsening(final_best_loss, final_last_loss)


def worsening(curve: Curve) -> float | None:
    """ln(last / lowest loss) of the smoothed curve, ≥ 0: how far the run ends above its best.

    The curve is smoothed by a running median of :data:`SMOOTH` evaluations. None for fewer than
    :data:`ENOUGH` evaluations. Noise alone gives a value above 0: see :func:`flat_worsening`.
    """
    return None if len(curve) < ENOUGH else float(_worsening(_smooth(_logs(curve))))


def drawup(curve: Curve) -> float | None:
    """Largest rise of ln L of the smoothed curve above its lowest value so far, ≥ 0.

    Smoothed as in :func:`worsening`; None for fewer than :data:`ENOUGH` evaluations.
    """
    return None if len(curve) < ENOUGH else float(_drawup(_smooth(_logs(curve))))


def flat_worsening(curve: Curve) -> Flat | None:
    """:func:`worsening` of flat curves with as many evaluations as ``curve`` and with its noise.

    The noise of log L is assumed to be normal and independent. Its standard deviation is the median
    of |second difference of log L| · 1.4826 / √6, on which a trend or a few jumps have little
    effect. The flat curves are simulated with a fixed seed.
    """
    return _flat(curve, _FLAT_WORSENING)


def flat_drawup(curve: Curve) -> Flat | None:
    """:func:`drawup` of the flat curves of :func:`flat_worsening`."""
    return _flat(curve, _FLAT_DRAWUP)


def noise(curve: Curve) -> float:
    """Standard deviation of the noise of log L, as in :func:`flat_worsening`; from 3 evaluations
    on."""
    second = np.abs(np.diff(_logs(curve), 2))
    return float(np.median(second)) * _SD_OF_MEDIAN_DISTANCE / _SD_OF_SECOND_DIFFERENCE


def _flat(curve: Curve, which: int) -> Flat | None:
    if len(curve) < ENOUGH:
        return None
    unit, sd = _flat_unit(len(curve))[which], noise(curve)
    return Flat(sd * unit.mean, sd * unit.high)


_FLAT_WORSENING, _FLAT_DRAWUP = 0, 1


@lru_cache(maxsize=256)
def _flat_unit(evaluations: int) -> tuple[Flat, Flat]:
    """Worsening and drawup of flat curves with a noise of 1; both are proportional to the noise."""
    draws = max(min(_DRAWS, _MOST_VALUES // evaluations), _FEWEST_DRAWS)
    smooth = _smooth(np.random.default_rng(0).standard_normal((draws, evaluations)))
    worse, drawn = (
        Flat(float(values.mean()), float(np.quantile(values, 0.95)))
        for values in (_worsening(smooth), _drawup(smooth))
    )
    return worse, drawn


def _logs(curve: Curve) -> _Array:
    return np.log(np.maximum([loss for _, loss in curve], LEAST_LOSS))


def _smooth(logs: _Array) -> _Array:
    """Running median over the last axis."""
    return np.median(np.lib.stride_tricks.sliding_window_view(logs, SMOOTH, axis=-1), axis=-1)


def _worsening(smooth: _Array) -> _Array:
    return np.asarray(smooth[..., -1] - smooth.min(-1))


def _drawup(smooth: _Array) -> _Array:
    return np.asarray((smooth - np.minimum.accumulate(smooth, axis=-1)).max(-1))


def best(curve: Curve) -> float:
    """min over t of L(t)."""
    return min(loss for _, loss in curve)


def roughness(curve: Curve) -> float | None:
    """mean of |log L(t′) − log L(t)| over consecutive evaluations t < t′ with t ≥ T / 10.

    None if there are fewer than two such evaluations. It depends on the number of evaluations, so
    only trials of the same sweep can be compared.
    """
    settled = [(step, loss) for step, loss in curve if step >= SETTLING * curve[-1][0]]
    changes = [abs(_log(after) - _log(before)) for (_, before), (_, after) in pairwise(settled)]
    return sum(changes) / len(changes) if changes else None


def log_area(curve: Curve) -> float:
    """Area under log L(t) by the trapezoidal rule, divided by the iterations that it spans.

    It is the mean of log L over the run: low for a trial whose loss falls early and stays low.
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
