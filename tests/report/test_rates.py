"""How sure the choice of a learning rate is."""

from __future__ import annotations

import pytest

from raygan.report.rates import same_choice
from tests.report.builders import trial


def searched(*ends: tuple[float, float]) -> list:
    return [trial("bn", [end] * 6, lr=lr) for lr, end in ends]


def test_without_noise_the_choice_is_always_the_same():
    assert same_choice(searched((1e-4, 0.010), (1e-3, 0.011)), 0.0) == 1


def test_share_is_the_probability_that_noise_does_not_turn_the_order():
    # the difference of two draws has √2 times their spread: P(N(0, 1) < 0.1 / (0.1 √2)) = 0.760
    trials = searched((1e-4, 0.010), (1e-3, 0.010 * 2.718281828**0.1))
    assert same_choice(trials, 0.1) == pytest.approx(0.760, abs=0.03)
    assert same_choice(trials, 0.1) == same_choice(trials, 0.1)
    assert same_choice(trials, 1e-6) == 1


def test_neighbouring_rates_within_a_fifth_of_a_decade_are_the_same_choice():
    trials = searched((1e-4, 0.010), (1.58e-4, 0.010), (0.64e-4, 0.010))
    assert same_choice(trials, 1.0) == 1
    far = searched((1e-4, 0.010), (1.7e-4, 0.010))
    assert same_choice(far, 1.0) == pytest.approx(0.5, abs=0.05)


def test_trials_without_a_result_and_replicates_are_never_chosen():
    trials = [
        *searched((1e-4, 0.010)),
        trial("bn", [0.001] * 6, "collapsed", lr=1e-2),
        trial("bn", [0.001] * 6, "stopped", lr=1e-2),
        trial("bn", [0.001] * 6, lr=1e-2, kind="replicate"),
    ]
    assert same_choice(trials, 0.5) == 1
    assert same_choice(trials[1:], 0.5) is None
