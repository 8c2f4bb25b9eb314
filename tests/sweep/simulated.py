"""Sweeps in virtual time: the real study, over loss curves that are known.

The curves have the shape that Xiang & Li 2017 (arXiv 1704.03971) describe: batch norm learns
fastest, then levels off and gets worse and rougher; weight norm learns slowly and ends 10 %
lower. The reconstruction loss of a trial with learning rate η after iteration i of T, a mean
squared error per pixel, is

    L(i) = (1 + x²/2) · [floor · (1 + worsening · l) + (START − floor) / (1 + 10^(x/2) · i / τ)]

    x = log10(η / best rate)    decades off the norm's best rate
    τ = learning · T            iterations after which half of what can be learned is learned
    l = max(0, 2i/T − 1)        how far the second half has come

A higher rate learns faster; one that is off costs its share of the loss from the start.
There are three families of curves:

    plain     as above
    late      rates above the best get worse in the second half: L(i) · (1 + 0.5 max(0, x) · l)
    cliff     as late, and a trial above the cliff, 0.3 decades above the best rate, diverges in
              the first half of its iterations with probability 1 / (1 + 10^((0.3 − x) / 0.1))

What is measured is L(i) · exp(s a + e bᵢ) with standard normal a, drawn once per trial (what its
seed does), and bᵢ, drawn for each evaluation; s is the norm's spread between seeds, as in an
early study on CIFAR-10, and e = 0.035 · (1 + roughening · l).
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from functools import cache, lru_cache

from raygan.records import LOSS, STEP, TrialRecord, end_loss
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.stopping.rules import is_exempt, make_stopper
from raygan.sweep.study.study import OUTCOME, Study
from tests.sweep.prepared import one_set

Stop = recipe_sections()["stop"]


@dataclass(frozen=True)
class Norm:
    """How one normalisation learns, at its best learning rate unless said otherwise."""

    floor: float
    """Loss that it comes close to."""
    learning: float
    """Share of all iterations after which half of what can be learned is learned."""
    best_rate: float
    worsening: float
    """By what share the floor has risen in the end."""
    roughening: float
    """By what share the evaluations' noise has grown in the end."""
    time: float
    """Time of an iteration; batch norm: 1."""
    spread: float
    """Standard deviation of the logarithm of the loss between seeds."""


NORMS = {
    "vanilla": Norm(0.0130, 1 / 150, 2.5e-5, worsening=0, roughening=0, time=0.95, spread=0.014),
    "bn": Norm(0.0110, 1 / 400, 2e-4, worsening=0.05, roughening=0.5, time=1, spread=0.014),
    "wn": Norm(0.00935, 1 / 40, 5e-5, worsening=0, roughening=0, time=1.05, spread=0.049),
}
START = 0.06
"""Loss of an untrained generator, about that of the mean image."""
IMAGES = one_set(digest="d", baseline=START)
NOISE = 0.035
"""Standard deviation of the logarithm of the loss between evaluations of one trial."""
FAMILIES = ("plain", "late", "cliff")
LATE, CLIFF, STEEP = 0.5, 0.3, 0.1
RATES = (1e-5, 1e-3)
FIRST_RATE = 1e-4
"""What a user would try first: off every norm's best rate by a factor of 2 or more."""

TRIALS = 16
"""Trials per norm."""
AT_ONCE = 8
ITERATIONS, EVERY = 54_000, 1_000

EARLY_ASHA = "{rule: asha, grace: 1080, reduction: 3}"
"""Its first rung after 2% of the iterations; a new YAML is refused this."""
ASHA = "{rule: asha, grace: 5400, reduction: 3}"
FULL = "{rule: none}"
"""The full grid: all trials to their end."""
FULL_ITERATIONS = len(NORMS) * TRIALS * ITERATIONS


def make_sweep(
    seed: int,
    stop: str = ASHA,
    *,
    shared: bool = False,
    method: str = "tpe",
    first_rate: float | None = FIRST_RATE,
) -> SweepSpec:
    """A sweep over norm and learning rate, with its search seeded by ``seed``.

    ``shared``: the norm is one more searched field, so that all trials compete in one cell;
    else each norm is a cell. Both take the same number of trials and try the same first:
    ``first_rate`` with each norm, unless it is None.
    """
    norms = f"norm: [{', '.join(NORMS)}]"
    rates = f"lr: {{min: {RATES[0]}, max: {RATES[1]}, scale: log}}"
    if shared:
        first = ", ".join(f"{{norm: {norm}, lr: {first_rate}}}" for norm in NORMS)
        grid, space, trials = "", f"{norms}, {rates}", TRIALS * len(NORMS)
    else:
        first = f"{{lr: {first_rate}}}"
        grid, space, trials = norms, rates, TRIALS
    if first_rate is None:
        first = ""
    text = f"""
name: simulated
grid: {{{grid}}}
search: {{method: {method}, seed: {seed}, trials: {trials}, {space}, try_first: [{first}]}}
stop: {stop}
train: {{iterations: {ITERATIONS}, evaluate_every: {EVERY}}}
"""
    return spec.validate(parse(text, "simulated.yaml"), known=True)


def expected(norm: str, rate: float, iteration: int, family: str = "plain") -> float:
    """L: the loss without noise."""
    n = NORMS[norm]
    x = math.log10(rate / n.best_rate)
    unlearned = (START - n.floor) / (1 + 10 ** (x / 2) * iteration / (n.learning * ITERATIONS))
    loss = (1 + x * x / 2) * (n.floor * (1 + n.worsening * _late(iteration)) + unlearned)
    return loss if family == "plain" else loss * (1 + LATE * max(0.0, x) * _late(iteration))


def failing(norm: str, rate: float) -> float:
    """The probability that a trial of the family ``cliff`` diverges."""
    x = math.log10(rate / NORMS[norm].best_rate)
    return 1 / (1 + 10 ** ((CLIFF - x) / STEEP))


def measured(
    norm: str, rate: float, seed: str, noise: float = 1.0, family: str = "plain"
) -> list[float]:
    """The losses of a trial's evaluations, fewer than all if it diverges; ``noise`` multiplies
    both kinds of noise."""
    draw = random.Random(seed)
    own = NORMS[norm].spread * draw.gauss(0, 1)
    last = ITERATIONS
    if family == "cliff" and draw.random() < failing(norm, rate):
        last = round(draw.uniform(EVERY, ITERATIONS / 2))
    losses = []
    for iteration in range(EVERY, last + 1, EVERY):
        spread = NOISE * (1 + NORMS[norm].roughening * _late(iteration))
        factor = math.exp(noise * (own + spread * draw.gauss(0, 1)))
        losses.append(expected(norm, rate, iteration, family) * factor)
    return losses


def _late(iteration: int) -> float:
    return max(0.0, 2 * iteration / ITERATIONS - 1)


def at_end(norm: str) -> float:
    """The loss in the end, without noise, at the learning rate for which it is lowest."""
    return min(expected(norm, rate, ITERATIONS) for rate in _rates())


def at_best(norm: str) -> float:
    """The lowest loss at any time, without noise, at the learning rate for which it is lowest."""
    iterations = range(EVERY, ITERATIONS + 1, EVERY)
    return min(expected(norm, rate, i) for rate in _rates() for i in iterations)


def regret(study: Study, norm: str, family: str = "plain") -> float:
    """By how much more than the least possible the loss ends at the rate that the cell ``norm``
    has chosen, without noise; not a number if the cell has no result."""
    best = study.best(norm)
    if best is None:
        return math.nan
    return expected(norm, best.config["lr"], ITERATIONS, family) / _least(norm, family) - 1


def _rates() -> list[float]:
    low, high = RATES
    return [low * (high / low) ** (k / 100) for k in range(101)]


class _Unsaved(Study):
    """Keeps no records in its storage: no simulated sweep is gone on with."""

    def _save(self, record: TrialRecord, *, ended: bool = False) -> None:
        pass


def run(sweep: SweepSpec, seed: int, noise: float = 1.0, family: str = "plain") -> Study:
    """Run all trials, :data:`AT_ONCE` at a time; the same seed gives the same curves."""
    study = _Unsaved(sweep, Storage("mock:///simulated"), prepared=IMAGES)
    losses: dict[str, list[float]] = {}
    durations: dict[str, float] = {}
    due: list[tuple[float, int, str]] = []  # time of the next evaluation, order of starts, trial
    now = 0.0
    while True:
        while len(due) < AT_ONCE and (planned := study.next_trial()) is not None:
            trial, config = planned.id, planned.config
            study.started(trial)
            losses[trial] = measured(config.norm, config.lr, f"{seed} {trial}", noise, family)
            durations[trial] = EVERY * NORMS[config.norm].time
            heapq.heappush(due, (now + durations[trial], len(losses), trial))
        if not due:
            return study
        now, order, trial = heapq.heappop(due)
        done = study.records[trial].step // EVERY
        if done == len(losses[trial]):
            stop = study.heard(trial, {OUTCOME: "diverged"})
        else:
            stop = study.heard(trial, {STEP: (done + 1) * EVERY, LOSS: losses[trial][done]})
        if stop or (done + 1) * EVERY == ITERATIONS:
            study.ended(trial)
        else:
            heapq.heappush(due, (now + durations[trial], order, trial))


def play(
    norm: str, stop: Stop, seed: int, family: str = "plain", noise: float = 1.0
) -> tuple[float, int]:
    """Search one cell at random, three trials at a time, by the real rule ``stop`` alone: much
    faster than :func:`run`. Returns the regret of the rate that it chooses and the iterations.

    The same seed offers each cell the same rates, and each rule the same curves.
    """
    rule, rates = make_stopper(stop, ITERATIONS), _drawn(seed)
    curves: dict[int, list[tuple[int, float]]] = {}
    ended: dict[int, str] = {}
    due: list[tuple[float, int]] = []  # time of the next evaluation, trial
    now = 0.0
    while len(ended) < TRIALS:
        while len(due) < 3 and len(curves) < TRIALS:
            heapq.heappush(due, (now + EVERY, len(curves)))
            curves[len(curves)] = []
        now, trial = heapq.heappop(due)
        losses = _kept(norm, rates[trial], f"{seed} {norm} {trial}", noise, family)
        curve = curves[trial]
        if len(curve) == len(losses):
            ended[trial] = "diverged"
            continue
        curve.append(((len(curve) + 1) * EVERY, losses[len(curve)]))
        stops = rule.stops(str(trial), *curve[-1]) and not is_exempt(trial)
        if curve[-1][0] == ITERATIONS:
            ended[trial] = "ok"
        elif stops:
            ended[trial] = "stopped"
        else:
            heapq.heappush(due, (now + EVERY, trial))
    ranked = [trial for trial in ended if ended[trial] == "ok"]
    best = min(ranked or ended, key=lambda trial: end_loss(curves[trial] or [(1, START)]))
    used = sum(curve[-1][0] for curve in curves.values() if curve)
    end = expected(norm, rates[best], ITERATIONS, family)
    return end / _least(norm, family) - 1, used


def _drawn(seed: int) -> list[float]:
    draw, (low, high) = random.Random(f"rates {seed}"), RATES
    return [FIRST_RATE, *(low * (high / low) ** draw.random() for _ in range(TRIALS - 1))]


_kept = lru_cache(maxsize=20_000)(measured)


@cache
def _least(norm: str, family: str) -> float:
    return min(expected(norm, rate, ITERATIONS, family) for rate in _rates())


def iterations(study: Study) -> int:
    """Iterations of all trials."""
    return sum(record.step for record in study.records.values())


def winner_at_end(study: Study) -> str:
    """The norm of the best of the cells' best trials, as the study itself tells it."""
    cells = [best for cell in study.cells if (best := study.best(cell)) is not None]
    return str(min(cells, key=lambda record: record.end_loss or 0).config["norm"])


def winner_by_lowest(study: Study) -> str:
    """The norm of the trial with the lowest loss of any evaluation."""
    lowest = min(study.records.values(), key=lambda r: r.best[1] if r.best else math.inf)
    return str(lowest.config["norm"])
