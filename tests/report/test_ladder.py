"""How well the first rung told where trials ended."""

from __future__ import annotations

import pytest

from raygan.records import LOSS, STEP, TrialRecord
from raygan.report.ladder import Agreement, agreement


def record(early: float, end: float, outcome: str = "ok") -> TrialRecord:
    """Its loss is ``early`` up to the first rung, at iteration 10, and ``end`` after that."""
    history = [{STEP: float(s), LOSS: early if s <= 10 else end} for s in range(5, 80, 5)]
    return TrialRecord("a", "a", 4, "", {}, {}, outcome=outcome, history=history)


def ranked(*pairs: tuple[float, float]) -> list[TrialRecord]:
    return [record(*pair) for pair in pairs]


SAME = ranked((0.1, 0.01), (0.2, 0.02), (0.3, 0.03))
TURNED = ranked((0.1, 0.03), (0.2, 0.02), (0.3, 0.01))


def test_same_ranks_agree_and_turned_ranks_do_not():
    assert agreement([SAME], lambda _: 10) == Agreement(pytest.approx(1), 3)
    turned = agreement([TURNED], lambda _: 10)
    assert turned == Agreement(pytest.approx(-1), 3)
    assert turned.low
    assert not agreement([SAME], lambda _: 10).low


def test_cells_of_different_levels_do_not_agree_by_their_levels():
    higher = ranked((1.1, 0.33), (1.2, 0.32), (1.3, 0.31))
    assert agreement([SAME, higher], lambda _: 10) == Agreement(pytest.approx(0), 6)


def test_one_trial_per_cell_says_nothing():
    assert agreement([SAME[:1], TURNED[:1]], lambda _: 10) == Agreement(None, 0)
    assert not agreement([], lambda _: 10).low


def test_failures_rank_last_and_stopped_or_lost_trials_do_not_count():
    failed = record(0.4, 0.001, "collapsed")
    others = [record(0.05, 0.5, outcome) for outcome in ("stopped", "failed")]
    assert agreement([[*SAME, failed, *others]], lambda _: 10) == Agreement(pytest.approx(1), 4)
    assert agreement([SAME], lambda _: 100) == Agreement(None, 0)  # none got so far


def test_it_is_judged_at_the_first_evaluation_at_or_after_the_grace():
    assert agreement([TURNED], lambda _: 11).rho == pytest.approx(1)  # at 15, its lowest so far
