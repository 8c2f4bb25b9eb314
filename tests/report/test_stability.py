import math

import pytest

from raygan.report import stability

CURVE = [(10, 0.4), (20, 0.1), (30, 0.2), (40, 0.05), (50, 0.1)]


def test_last_over_best_and_drawups_by_hand():
    assert stability.best(CURVE) == 0.05
    assert stability.last_over_best(CURVE) == pytest.approx(2)
    assert [ratio for _, ratio in stability.drawups(CURVE)] == pytest.approx([1, 1, 2, 1, 2])
    assert stability.largest_drawup([(1, 0.1), (2, 0.3), (3, 0.05), (4, 0.1)]) == pytest.approx(3)


def test_a_falling_curve_is_at_its_best_in_the_end():
    falling = [(step, 1 / step) for step in range(1, 9)]
    assert stability.last_over_best(falling) == stability.largest_drawup(falling) == 1


def test_roughness_counts_rises_and_falls_after_the_first_tenth():
    # of 100 iterations the first 10 are left out: the fall from 1 to 0.1 is no roughness
    curve = [(5, 1.0), (10, 0.1), (50, 0.2), (100, 0.1)]
    assert stability.roughness(curve) == pytest.approx(math.log(2))
    assert stability.roughness(curve[:1]) is None


def test_area_under_log_loss_weighs_by_iterations():
    # log L is 0 → 0 over 10 iterations and 0 → −2 over 30
    curve = [(0, 1.0), (10, 1.0), (40, math.exp(-2))]
    assert stability.log_area(curve) == pytest.approx(-30 / 40)
    assert stability.log_area(curve[-1:]) == pytest.approx(-2)


def test_iterations_to_a_target():
    assert stability.iterations_to(CURVE, 0.1) == 20
    assert stability.iterations_to(CURVE, 0.0499) is None


def test_summary_of_any_curve_is_finite():
    assert stability.summary([]) == {}
    assert "roughness" not in stability.summary(CURVE[:1])
    assert all(map(math.isfinite, stability.summary([(1, 0.1), (2, 0.0), (3, 0.1)]).values()))
