"""An estimate of what a sweep takes, from counts and speeds: iterations, hours and money.

It does not cover what cannot be known beforehand: trials that diverge, are killed or are retried,
and a cluster that grows, shrinks or is shared with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from raygan.sweep.spec.yaml_sections import Stop
from raygan.sweep.stopping.asha import Asha
from raygan.sweep.stopping.never import Never
from raygan.sweep.stopping.rules import grace, is_exempt, rule_of

if TYPE_CHECKING:
    from raygan.gan.speed import Speed

STARTUP_SECONDS = 8.0
"""Seconds until a trial's processes have started and loaded PyTorch; measured on 2 CPU cores."""


@dataclass(frozen=True)
class Work:
    """What one cell trains."""

    trials: int
    """Trials of the search, which the stop rule may end early."""
    replicates: int
    """Trials after the search; each runs to its end."""
    iterations: int
    """Iterations of a trial that runs to its end."""
    evaluate_every: int
    """Iterations between evaluations. The last iteration is evaluated, too."""
    speed: Speed | None
    """Speed of a trial, all its workers together; None if it is not known."""
    gpus: float = 0.0
    """GPUs of a trial, all its workers together."""
    weight: float = 1.0
    """How much of the cluster a trial takes, in trials of the cell that takes the least."""


@dataclass(frozen=True)
class Cost:
    """What one or several cells take. All but ``iterations`` is None if a speed is not known."""

    iterations: float
    """Of all trials together."""
    trial_hours: float | None
    """Hours of all trials together, start-up and evaluations included."""
    wall_hours: float | None
    """Hours until these cells are complete, if nothing else runs."""
    gpu_hours: float | None
    """GPUs times the hours that trials hold them."""
    usd: float | None
    """US dollars; None also if there is no price."""


def estimate(
    cells: Sequence[Work],
    stop: Stop,
    *,
    at_once: int,
    usd_per_gpu_hour: float | None = None,
) -> tuple[Cost, Cost | None]:
    """What ``cells`` take together: at most, and as expected with early stopping.

    ``at_once``: trials of the cell that takes the least that run at the same time, at least 1.

    At most: no trial is stopped. Expected, by stop rule:

    ============  ===================================================================
    ``asha``      trials pass each rung as :func:`passing` says, exempt trials always
    ``none``      the same as at most
    other rules   None: they depend on the losses
    ============  ===================================================================

    Wall-clock time is that of all trials, by their weights, spread evenly over ``at_once``. It is
    at least that of the longest trial, and of two trials in a row in a cell whose replicates follow
    a search.
    """

    def cost(stop: Stop) -> Cost:
        efforts = [_effort(cell, stop) for cell in cells]
        iterations = sum(effort[0] for effort in efforts)
        speeds = [cell.speed for cell in cells if cell.speed is not None]
        if len(speeds) < len(cells):
            return Cost(iterations, None, None, None, None)
        seconds = weighted = gpu_seconds = longest = 0.0
        for cell, speed, effort in zip(cells, speeds, efforts, strict=True):
            taken = _seconds(speed, cell.trials + cell.replicates, *effort)
            seconds += taken
            weighted += taken * cell.weight
            gpu_seconds += taken * cell.gpus
            one = _seconds(speed, 1, cell.iterations, _evaluations(cell, cell.iterations))
            longest = max(longest, one * ((cell.trials > 0) + (cell.replicates > 0)))
        gpu_hours = gpu_seconds / 3600
        price = None if usd_per_gpu_hour is None else gpu_hours * usd_per_gpu_hour
        wall = max(weighted / at_once, longest) / 3600
        return Cost(iterations, seconds / 3600, wall, gpu_hours, price)

    at_most = cost(stop.model_copy(update={"rule": "none"}))
    known = isinstance(rule_of(stop), Asha | Never)
    return at_most, cost(stop) if known else None


def passing(arrivals: float, reduction: int) -> float:
    """How many of ``arrivals`` trials are expected to pass a rung of ASHA.

    They arrive one after another, in random order. Of the first i, the best k = max(1, i //
    ``reduction``) pass, so the i-th passes with probability k / i. The result is the sum of these
    probabilities; it is linear between whole numbers of arrivals.

    Assumption: the ranks at one rung are independent of those at the next. If the ranks stay the
    same, more trials pass the later rungs. Simulated searches of 10 to 100 trials with the same
    ranks at all rungs took 1.2 to 1.5 times the iterations that follow from this function.
    """
    whole = int(arrivals)
    return _sums(reduction, 1 << whole.bit_length())[whole] + (arrivals - whole) * max(
        1, (whole + 1) // reduction
    ) / (whole + 1)


@cache
def _sums(reduction: int, most: int) -> list[float]:
    """:func:`passing` of 0, 1, …, ``most`` arrivals."""
    shares = (max(1, i // reduction) / i for i in range(1, most + 1))
    return list(accumulate(shares, initial=0.0))


def _effort(cell: Work, stop: Stop) -> tuple[float, float]:
    """Iterations and evaluations of all trials of ``cell``, of which only ASHA stops any."""
    iterations: float = cell.replicates * cell.iterations
    evaluations: float = cell.replicates * _evaluations(cell, cell.iterations)
    reached = [1.0] * cell.trials
    start, rule = 0, rule_of(stop)
    for end in [*_judgements(cell, stop), cell.iterations]:
        left = sum(reached)
        iterations += left * (end - start)
        evaluations += left * (_evaluations(cell, end) - _evaluations(cell, start))
        if isinstance(rule, Asha):
            reached = _pass(reached, rule.reduction)
        start = end
    return iterations, evaluations


def _pass(reached: Sequence[float], reduction: int) -> list[float]:
    """The probability of each trial to pass a rung, in the order of their starts.

    ``reached``: the probability of each trial to reach that rung. An exempt trial always passes.
    """
    probabilities, arrivals, passed = [], 0.0, 0.0
    for index, share in enumerate(reached):
        arrivals += share
        up_to = passing(arrivals, reduction)
        probabilities.append(share if is_exempt(index) else up_to - passed)
        passed = up_to
    return probabilities


def _judgements(cell: Work, stop: Stop) -> list[int]:
    """Iterations, before the last, at which ASHA judges a trial: the first evaluation at or after
    each rung. Two rungs with the same first evaluation give one iteration."""
    steps = set()
    rung, rule = grace(stop, cell.iterations), rule_of(stop)
    while isinstance(rule, Asha) and rung < cell.iterations:
        steps.add(_evaluations(cell, rung) * cell.evaluate_every)
        rung *= rule.reduction
    return sorted(step for step in steps if step < cell.iterations)


def _evaluations(cell: Work, step: int) -> int:
    """Evaluations of a trial that ends at ``step``, the one at ``step`` included."""
    return -(-step // cell.evaluate_every)


def _seconds(speed: Speed, trials: int, iterations: float, evaluations: float) -> float:
    training = iterations / speed.iterations_per_second
    return trials * STARTUP_SECONDS + training + evaluations * speed.evaluation_seconds
