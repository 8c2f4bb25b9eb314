"""The main figures of docs/method/statistics.md, by fewer sweeps with fixed seeds."""

import math

import pytest

from tests.bench.claims import EQUAL, LOOKS, SEEN, Scenario, judge_claims, judge_losses, simulate

STEPS = (0.0, math.log1p(0.05), math.log1p(0.10))


def highest(sweeps, level=0.05):
    """Two standard errors above the level."""
    return level + 2 * math.sqrt(level * (1 - level) / sweeps)


@pytest.mark.parametrize(
    ("scenario", "sweeps"),
    [
        (Scenario(3, 5, EQUAL), 200),
        (Scenario(3, 5, SEEN), 200),
        (Scenario(3, 3, SEEN), 200),
        (Scenario(3, 5, EQUAL, heavy=True), 200),
        (Scenario(3, 5, EQUAL, failing=0.5, related=True), 200),
        (Scenario(4, 5, SEEN, strata=2), 40),
        (Scenario(3, 5, SEEN, strata=3, sets=True), 40),
        (Scenario(2, 12, EQUAL, looks=LOOKS), 100),
    ],
    ids=lambda value: value.name if isinstance(value, Scenario) else "",
)
def test_of_equal_cells_hardly_any_is_claimed_to_be_better(scenario, sweeps):
    found = simulate(scenario, sweeps, judge=judge_losses)
    assert found["difference"][0] <= highest(sweeps)
    assert found["best"][0] <= highest(sweeps)
    if scenario.strata > 1:
        assert found["strata differ"][0] <= highest(sweeps)
    assert found["contrast"][0] >= 1 - highest(sweeps)


def test_declared_claims_at_their_edge_hardly_ever_hold():
    # the worst half of the runs of all cells fail, of the one with the widest spread the most
    found = simulate(
        Scenario(3, 10, SEEN, failing=0.5, related=True, all_fail=True), 100, judge=judge_claims
    )
    for name in ("lower", "not worse", "equivalent"):
        assert found[name][0] <= highest(100)


def test_a_difference_that_is_there_is_found_as_often_as_is_said():
    found = simulate(Scenario(3, 5, steps=STEPS), 300, judge=judge_losses)
    assert found["best against second"][0] >= 0.52
    assert found["difference"][0] <= highest(200)
