"""What a trial has come to, from its curve."""

import math
import random

import pytest

from raygan.records import LEAST_LOSS, end_loss


def exponential(rate: float, evaluations: int) -> list[tuple[int, float]]:
    return [(10 * i, 0.1 * math.exp(rate * i / evaluations)) for i in range(1, evaluations + 1)]


# the median of the last 5 of 12 evaluations is 12.8% above the first one's end, 4.4% below the other
@pytest.mark.parametrize("rate", [-6 * math.log(1.128), 6 * -math.log(1 - 0.044)])
@pytest.mark.parametrize("evaluations", [2, 3, 12, 200, 3000])
def test_the_end_loss_is_that_of_the_end_whichever_way_the_curve_goes(rate, evaluations):
    curve = exponential(rate, evaluations)
    assert end_loss(curve) == pytest.approx(curve[-1][1], rel=1e-6)


def test_a_curve_that_bends_is_followed_to_its_end():
    curve = [(i, 0.02 + 0.1 * math.exp(-5 * i / 12)) for i in range(1, 13)]
    assert end_loss(curve) == pytest.approx(curve[-1][1], rel=0.02)


def test_one_wild_evaluation_of_five_changes_little():
    flat = [(i, 0.1) for i in range(1, 13)]
    for wild in range(7, 12):
        curve = [*flat[:wild], (wild + 1, 9.0), *flat[wild + 1 :]]
        assert end_loss(curve) == pytest.approx(0.1)


def test_the_last_tenth_of_the_run_counts_where_it_has_more_evaluations():
    draw = random.Random(1)
    curve = [(i, 0.1 * math.exp(draw.gauss(0, 0.035))) for i in range(1, 1001)]
    assert end_loss(curve) == pytest.approx(0.1, rel=0.02)
    curve[:895] = [(i, 5.0) for i in range(1, 896)]  # before the last tenth
    assert end_loss(curve) == pytest.approx(0.1, rel=0.02)


def test_uneven_iterations_are_weighed_by_where_they_are():
    curve = [(i, math.exp(-i / 100)) for i in (1, 2, 4, 8, 60, 99, 100)]
    assert end_loss(curve) == pytest.approx(math.exp(-1))


def test_flat_and_single_curves_are_exact():
    assert end_loss([(7, 0.4)]) == 0.4
    assert end_loss([(i, 0.4) for i in range(1, 9)]) == 0.4


def test_losses_that_have_no_logarithm():
    assert end_loss([(i, 0.0) for i in range(1, 9)]) == LEAST_LOSS
    zeros = [(i, 0.0 if i == 7 else 0.1) for i in range(1, 9)]
    assert end_loss(zeros) == pytest.approx(0.1)
    lost = [*((i, 0.1) for i in range(1, 9)), (9, math.inf), (10, math.nan)]
    assert end_loss(lost) == pytest.approx(0.1)
    assert math.isnan(end_loss([(1, math.nan)]))
