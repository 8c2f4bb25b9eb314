"""What a sweep will take, from counts and rates: iterations, hours and money.

Left out is what cannot be known beforehand: trials that diverge, are killed or tried again, and
a cluster that grows, shrinks or is shared with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from raygan.sweep.spec.sections import Stop
from raygan.sweep.study.stopping import grace, is_exempt

if TYPE_CHECKING:
    from raygan.gan.rate import Rate

STARTUP_SECONDS = 8.0
"""What a trial takes besides iterations and evaluations: until its processes have started and
loaded PyTorch; measured on 2 CPU cores."""


@dataclass(frozen=True)
class Work:
    """What one cell trains."""

    trials: int
    """Trials of the search, which the stop rule may end early."""
    replicates: int
    """Trials that follow the search; each runs to its end."""
    iterations: int
    """Iterations of a trial that runs to its end."""
    evaluate_every: int
    """Iterations between evaluations; there is one at the end, too."""
    rate: Rate | None
    """How fast a trial is, all its workers together; None: not known."""


@dataclass(frozen=True)
class Cost:
    """What one or several cells take; all but ``iterations`` is None if a rate is not known."""

    iterations: float
    """Of all trials together."""
    trial_hours: float | None
    """Hours of all trials together, start-up and evaluations included."""
    wall_hours: float | None
    """Hours until these cells are done, if nothing else runs."""
    gpu_hours: float | None
    """GPUs times the hours that trials hold them."""
    usd: float | None
    """None if there is no price, too."""


def estimate(
    cells: Sequence[Work],
    stop: Stop,
    *,
    at_once: int,
    gpus: float,
    usd_per_gpu_hour: float | None = None,
) -> tuple[Cost, Cost | None]:
    """What ``cells`` take together: at most, and what is expected.

    ``at_once``: trials that run at the same time, at least 1; ``gpus``: GPUs of one trial, all
    its workers together, at least 0. At most: no trial is stopped. Expected: what is left by
    asynchronous successive halving (:func:`passing`) and of trials that are exempt; the same as at
    most without a stop rule; None for ``median`` and ``patience``, which depend on the course of
    the losses.

    Wall-clock time is that of all trials spread evenly over ``at_once``, and no less than that of
    the longest trial, or of two in a row in a cell whose replicates follow a search.
    """

    def cost(stop: Stop) -> Cost:
        efforts = [_effort(cell, stop) for cell in cells]
        iterations = sum(effort[0] for effort in efforts)
        rates = [cell.rate for cell in cells if cell.rate is not None]
        if len(rates) < len(cells):
            return Cost(iterations, None, None, None, None)
        seconds, longest = 0.0, 0.0
        for cell, rate, effort in zip(cells, rates, efforts, strict=True):
            seconds += _seconds(rate, cell.trials + cell.replicates, *effort)
            one = _seconds(rate, 1, cell.iterations, _evaluations(cell, cell.iterations))
            longest = max(longest, one * ((cell.trials > 0) + (cell.replicates > 0)))
        hours = seconds / 3600
        price = None if usd_per_gpu_hour is None else hours * gpus * usd_per_gpu_hour
        wall = max(seconds / at_once, longest) / 3600
        return Cost(iterations, hours, wall, hours * gpus, price)

    at_most = cost(Stop(rule="none"))
    return at_most, cost(stop) if stop.rule in ("asha", "none") else None


def passing(arrivals: float, reduction: int) -> float:
    """How many of ``arrivals`` trials are expected to pass a rung of ASHA.

    They arrive one after another, in random order: the i-th is among the best max(1, i //
    ``reduction``) of the i so far with probability max(1, i // ``reduction``) / i, and the
    expectation is the sum of these. Linear between whole numbers of arrivals.

    This takes the ranks at one rung to say nothing about those at the next. If they do, more
    trials pass the later rungs, since those that pass a rung late are the best of more: simulated
    with the same ranks at all rungs, searches of 10 to 100 trials took 1.2 to 1.5 times the
    iterations.
    """
    whole = int(arrivals)
    return _sums(reduction, 1 << whole.bit_length())[whole] + (arrivals - whole) * max(
        1, (whole + 1) // reduction
    ) / (whole + 1)


@cache
def _sums(reduction: int, most: int) -> list[float]:
    """The expectation for each whole number of arrivals up to ``most``."""
    shares = (max(1, i // reduction) / i for i in range(1, most + 1))
    return list(accumulate(shares, initial=0.0))


def _effort(cell: Work, stop: Stop) -> tuple[float, float]:
    """Iterations and evaluations of all trials of ``cell``; at most, unless by ASHA."""
    iterations: float = cell.replicates * cell.iterations
    evaluations: float = cell.replicates * _evaluations(cell, cell.iterations)
    reached = [1.0] * cell.trials
    start = 0
    for end in [*_judgements(cell, stop), cell.iterations]:
        left = sum(reached)
        iterations += left * (end - start)
        evaluations += left * (_evaluations(cell, end) - _evaluations(cell, start))
        reached, start = _pass(reached, stop.reduction), end
    return iterations, evaluations


def _pass(reached: Sequence[float], reduction: int) -> list[float]:
    """With which probability each trial passes a rung that it has reached with the probability
    ``reached``, in the order of their starts; one that is exempt always does."""
    found, before, passed = [], 0.0, 0.0
    for index, share in enumerate(reached):
        before += share
        up_to = passing(before, reduction)
        found.append(share if is_exempt(index) else up_to - passed)
        passed = up_to
    return found


def _judgements(cell: Work, stop: Stop) -> list[int]:
    """Iterations before the last after which ASHA judges a trial: the first evaluation at or
    after each rung; one that is the first after several rungs judges once."""
    steps = set()
    rung = grace(stop, cell.iterations)
    while stop.rule == "asha" and rung < cell.iterations:
        steps.add(_evaluations(cell, rung) * cell.evaluate_every)
        rung *= stop.reduction
    return sorted(step for step in steps if step < cell.iterations)


def _evaluations(cell: Work, step: int) -> int:
    """Evaluations of a trial that ends at ``step``, where there is one."""
    return -(-step // cell.evaluate_every)


def _seconds(rate: Rate, trials: int, iterations: float, evaluations: float) -> float:
    training = iterations / rate.iterations_per_second
    return trials * STARTUP_SECONDS + training + evaluations * rate.evaluation_seconds
