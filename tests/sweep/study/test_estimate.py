"""Iterations, hours and money, from counts and speeds."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from raygan.gan.speed import Speed
from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.stopping.asha import Asha
from raygan.sweep.stopping.rule import Stopper
from raygan.sweep.stopping.rules import is_exempt
from raygan.sweep.study.estimate import STARTUP_SECONDS, Work, estimate, passing

Stop = recipe_sections()["stop"]

NONE = Stop(rule="none")
CELL = Work(trials=6, replicates=2, iterations=1000, evaluate_every=300, speed=Speed(10.0, 3.0))
TRIAL = STARTUP_SECONDS + 1000 / 10 + 4 * 3  # 120 s; evaluations at 300, 600, 900 and 1000


def test_without_a_stop_rule_every_trial_runs_to_its_end():
    at_most, expected = estimate([replace(CELL, gpus=0.5)], NONE, at_once=4, usd_per_gpu_hour=3.0)
    assert expected == at_most
    assert at_most.iterations == 8 * 1000
    assert at_most.trial_hours == pytest.approx(8 * TRIAL / 3600)
    assert at_most.wall_hours == pytest.approx(2 * TRIAL / 3600)
    assert at_most.gpu_hours == pytest.approx(4 * TRIAL / 3600)
    assert at_most.usd == pytest.approx(12 * TRIAL / 3600)


@pytest.mark.parametrize(
    ("trials", "replicates", "trials_in_a_row"), [(6, 0, 1), (0, 6, 1), (6, 2, 2), (0, 0, 0)]
)
def test_no_sweep_is_faster_than_its_longest_trials(trials, replicates, trials_in_a_row):
    cell = replace(CELL, trials=trials, replicates=replicates)
    at_most, _ = estimate([cell], NONE, at_once=1000)
    assert at_most.wall_hours == pytest.approx(trials_in_a_row * TRIAL / 3600)


def test_cells_add_up_and_share_the_cluster():
    slow = replace(CELL, speed=Speed(1.0, 3.0), gpus=1.0)
    apart = [estimate([cell], NONE, at_once=2)[0] for cell in (CELL, slow)]
    together, _ = estimate([CELL, slow], NONE, at_once=2)
    for name in ("iterations", "trial_hours", "wall_hours", "gpu_hours"):
        assert getattr(together, name) == pytest.approx(sum(getattr(c, name) for c in apart))
    wide, _ = estimate([CELL, slow], NONE, at_once=1000)
    assert wide.wall_hours == pytest.approx(2 * (STARTUP_SECONDS + 1000 + 4 * 3) / 3600)


def test_trials_that_take_more_count_for_more():
    heavy = replace(CELL, gpus=2.0, weight=4.0)
    light = replace(CELL, gpus=0.5)
    together, _ = estimate([heavy, light], NONE, at_once=4, usd_per_gpu_hour=2.0)
    assert together.trial_hours == pytest.approx(16 * TRIAL / 3600)
    assert together.gpu_hours == pytest.approx((2 + 0.5) * 8 * TRIAL / 3600)
    assert together.usd == pytest.approx(2 * together.gpu_hours)
    # one heavy trial at a time, then four light ones
    assert together.wall_hours == pytest.approx((8 + 8 / 4) * TRIAL / 3600)


def test_nothing_takes_nothing():
    at_most, expected = estimate([], Stop(rule="asha"), at_once=1, usd_per_gpu_hour=1.0)
    assert at_most == expected
    assert (at_most.iterations, at_most.wall_hours, at_most.usd) == (0, 0, 0)


def test_without_all_rates_only_iterations_are_known():
    unknown = replace(CELL, speed=None)
    at_most, expected = estimate(
        [CELL, unknown], Stop(rule="asha", grace=100), at_once=1, usd_per_gpu_hour=1.0
    )
    assert at_most.iterations == 16 * 1000
    for cost in (at_most, expected):
        assert (cost.trial_hours, cost.wall_hours, cost.gpu_hours, cost.usd) == (None,) * 4


def test_without_a_price_there_are_gpu_hours_but_no_money():
    at_most, _ = estimate([replace(CELL, gpus=1.0)], NONE, at_once=1)
    assert at_most.gpu_hours == at_most.trial_hours
    assert at_most.usd is None


@pytest.mark.parametrize("rule", ["median", "patience"])
def test_rules_that_depend_on_the_losses_have_no_expectation(rule):
    at_most, expected = estimate([CELL], Stop(rule=rule), at_once=1)
    assert at_most == estimate([CELL], NONE, at_once=1)[0]
    assert expected is None


def test_how_many_pass_a_rung():
    assert passing(0, 3) == 0
    assert passing(1, 3) == 1
    # 1, 1/2, …, 1/5, then 2 of 6
    exact = sum(Fraction(1, i) for i in range(1, 6)) + Fraction(2, 6)
    assert passing(6, 3) == pytest.approx(float(exact))
    assert passing(5.25, 3) == pytest.approx(0.75 * passing(5, 3) + 0.25 * passing(6, 3))
    assert passing(10_000, 4) == pytest.approx(2500, rel=0.01)


def test_asha_stops_search_trials_only():
    stop = Stop(rule="asha", grace=300, reduction=3)
    at_most, expected = estimate([CELL], stop, at_once=1)
    # the fifth of the six is exempt
    second = passing(4, 3) + 1 + passing(6, 3) - passing(5, 3)
    at = passing(4, 3)
    third = passing(at, 3) + 1 + passing(second, 3) - passing(at + 1, 3)
    assert at_most.iterations == 8 * 1000
    # judged at 300 and 900; evaluated once, twice more, once more
    iterations = 2000 + 6 * 300 + second * 600 + third * 100
    evaluations = 2 * 4 + 6 + second * 2 + third
    assert expected.iterations == pytest.approx(iterations)
    seconds = 8 * STARTUP_SECONDS + iterations / 10 + evaluations * 3
    assert expected.trial_hours == pytest.approx(seconds / 3600)


def test_a_lone_trial_passes_every_rung():
    at_most, expected = estimate([replace(CELL, trials=1)], Stop(rule="asha", grace=1), at_once=1)
    assert expected == at_most


def test_a_rung_at_or_after_the_end_stops_nothing():
    for grace in (901, 1000, 5000):  # the first evaluation after 901 is the last
        at_most, expected = estimate([CELL], Stop(rule="asha", grace=grace), at_once=1)
        assert expected == at_most


@pytest.mark.parametrize(
    ("trials", "iterations", "every", "grace", "reduction"),
    [
        (27, 20_000, 500, 1000, 3),
        (9, 20_000, 1000, 1000, 3),
        (40, 5_000, 300, 500, 4),  # rungs between evaluations
        (30, 4_000, 1000, 100, 2),  # several rungs before one evaluation
    ],
)
def test_the_rule_itself_stops_as_many_as_expected(trials, iterations, every, grace, reduction):
    rng = random.Random(7)
    repeats = 10_000 // trials

    def train(rule: Stopper, trial: str) -> int:
        for step in [*range(every, iterations, every), iterations]:
            loss = rng.random() - step  # a new low each time, and a new rank at each rung
            if rule.stops(trial, step, loss) and not is_exempt(int(trial)):
                return step
        return iterations

    total = 0
    for _ in range(repeats):
        rule = Asha(reduction=reduction).start(grace)
        total += sum(train(rule, str(trial)) for trial in range(trials))
    cell = Work(trials, 0, iterations, every, None)
    stop = Stop(rule="asha", grace=grace, reduction=reduction)
    _, expected = estimate([cell], stop, at_once=1)
    assert total / repeats == pytest.approx(expected.iterations, rel=0.03)
