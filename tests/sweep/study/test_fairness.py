"""A ladder per cell finds the norm that is best in the end; a ladder shared by all does not. And
which rule is fair to the cells: what tests/bench/fairness.py finds with more seeds."""

import statistics
from collections import Counter

import pytest

from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.stopping.rules import is_exempt
from raygan.sweep.study.study import Study
from tests.sweep import simulated
from tests.sweep.simulated import (
    EARLY_ASHA,
    EVERY,
    FULL_ITERATIONS,
    ITERATIONS,
    NORMS,
    make_sweep,
    run,
)

Stop = recipe_sections()["stop"]
SEEDS = range(5)
FULL = Stop(rule="none")
EARLY = Stop(rule="asha", grace=ITERATIONS // 50)
DEFAULT = Stop(rule="median")


@pytest.fixture(scope="module")
def cells() -> list[Study]:
    return [run(make_sweep(seed, EARLY_ASHA), seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def shared() -> list[Study]:
    return [run(make_sweep(seed, EARLY_ASHA, shared=True), seed) for seed in SEEDS]


def test_curves_are_those_of_the_paper():
    end = {norm: simulated.at_end(norm) for norm in NORMS}
    best = {norm: simulated.at_best(norm) for norm in NORMS}
    assert end["wn"] == pytest.approx(0.9 * end["bn"], rel=0.005)
    assert best["wn"] < best["bn"] < end["bn"]  # batch norm gets worse, but never was better
    early = {norm: simulated.expected(norm, NORMS[norm].best_rate, EVERY) for norm in NORMS}
    assert early["bn"] < early["vanilla"] < early["wn"]
    assert all(0.005 < loss < 0.06 for loss in (*end.values(), *early.values()))


def test_noise_is_a_few_percent():
    curves = [simulated.measured("wn", 5e-5, str(seed)) for seed in range(200)]
    last = [curve[-1] / simulated.expected("wn", 5e-5, ITERATIONS) for curve in curves]
    within = sum(abs(ratio - 1) < 0.06 for ratio in last) / len(last)  # √(0.049² + 0.035²)
    assert within == pytest.approx(0.68, abs=0.1)


def test_ladder_per_cell_finds_the_right_winner(cells):
    winners = Counter(simulated.winner_at_end(study) for study in cells)
    assert winners["wn"] >= 4, winners


def test_shared_ladder_stops_what_is_best_in_the_end(shared):
    # those that are exempt may still win
    for study in shared:
        wn = [record for record in study.records.values() if record.config["norm"] == "wn"]
        assert wn
        stopped = [record.step for record in wn if not is_exempt(record.index)]
        assert max(stopped) < ITERATIONS / 2


def test_budgets_are_the_same_and_less_than_half_of_the_full_grid(cells, shared):
    for one, other in zip(cells, shared, strict=True):
        assert len(one.records) == len(other.records)
        assert simulated.iterations(one) <= FULL_ITERATIONS / 2
    ratio = sum(map(simulated.iterations, shared)) / sum(map(simulated.iterations, cells))
    assert 0.8 < ratio < 1.25


def test_full_grid_trains_everything_to_the_end():
    study = run(make_sweep(0, simulated.FULL), 0)
    assert simulated.iterations(study) == FULL_ITERATIONS
    assert {record.outcome for record in study.records.values()} == {"ok"}
    assert simulated.winner_at_end(study) == "wn"


def test_same_seed_gives_the_same_sweep(cells):
    again = run(make_sweep(SEEDS[0], EARLY_ASHA), SEEDS[0])
    assert {id: (record.params, record.curve) for id, record in again.records.items()} == {
        id: (record.params, record.curve) for id, record in cells[0].records.items()
    }


def added(stop: Stop, family: str) -> list[float]:
    """By how many percentage points the rule raises the regret of each norm's chosen rate."""
    more = []
    for norm in NORMS:
        played = [
            (simulated.play(norm, stop, seed, family), simulated.play(norm, FULL, seed, family))
            for seed in range(12)
        ]
        more.append(statistics.fmean(100 * (a[0] - b[0]) for a, b in played))
    return more


@pytest.mark.parametrize("family", ["late", "cliff"])
def test_default_rule_adds_no_difference_between_cells_where_an_early_ladder_does(family):
    early, default = added(EARLY, family), added(DEFAULT, family)
    assert max(early) - min(early) > 3
    assert max(default) - min(default) < 0.5


def test_default_rule_saves_iterations():
    used = [simulated.play(norm, DEFAULT, seed)[1] for norm in NORMS for seed in range(5)]
    assert 0.7 < sum(used) / 5 / FULL_ITERATIONS < 0.95


def test_trials_diverge_above_the_cliff():
    best = NORMS["bn"].best_rate
    assert simulated.failing("bn", best) < 0.01 < 0.99 < simulated.failing("bn", 5 * best)
    whole = ITERATIONS // EVERY
    lengths = [len(simulated.measured("bn", 5 * best, str(i), family="cliff")) for i in range(20)]
    assert max(lengths) <= whole / 2
    study = run(make_sweep(0, "{rule: median}"), 0, family="cliff")
    assert "diverged" in {record.outcome for record in study.records.values()}
