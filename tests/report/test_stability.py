import math
import random
import statistics

import pytest

from raygan.report import stability

CURVE = [(10, 0.4), (20, 0.1), (30, 0.2), (40, 0.05), (50, 0.1)]


def flat(evaluations: int, seed: int, sd: float = 0.035) -> list[tuple[int, float]]:
    draw = random.Random(seed)
    return [(10 * i, 0.02 * math.exp(draw.gauss(0, sd))) for i in range(1, evaluations + 1)]


@pytest.mark.parametrize("evaluations", [15, 20, 200])
def test_a_flat_curve_does_not_get_worse(evaluations):
    # raw, flat curves "end above their best" by 5.6% at 12 and by 10% at 200 evaluations
    curves = [flat(evaluations, seed) for seed in range(200)]
    raw = [math.log(curve[-1][1] / stability.best(curve)) for curve in curves]
    found = [stability.worsening(curve) for curve in curves]
    expected = [stability.flat_worsening(curve) for curve in curves]
    assert statistics.fmean(found) < 0.55 * statistics.fmean(raw)
    assert statistics.fmean(found) == pytest.approx(
        statistics.fmean(one.mean for one in expected), abs=0.004
    )
    above = [w > one.high for w, one in zip(found, expected, strict=True)]
    assert statistics.fmean(above) < 0.15
    rises = [stability.drawup(curve) for curve in curves]
    expected = [stability.flat_drawup(curve) for curve in curves]
    assert statistics.fmean(rises) == pytest.approx(
        statistics.fmean(one.mean for one in expected), abs=0.006
    )


def test_a_curve_that_gets_worse_is_told_from_a_flat_one():
    curve = [(step, loss * math.exp(0.3 * max(step - 100, 0) / 100)) for step, loss in flat(20, 1)]
    assert stability.worsening(curve) > stability.flat_worsening(curve).high
    assert stability.drawup(curve) > stability.flat_drawup(curve).high
    assert stability.worsening(curve) == pytest.approx(0.3, abs=0.1)


def test_a_falling_curve_is_at_its_best_in_the_end():
    falling = [(step, 1 / step) for step in range(1, 21)]
    assert stability.worsening(falling) == stability.drawup(falling) == 0


def test_worsening_and_drawup_of_the_running_median_by_hand():
    losses = [4, 3, 2, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2]
    curve = list(enumerate(map(float, losses), start=1))
    assert stability.drawup(curve) == pytest.approx(math.log(4))
    assert stability.worsening(curve) == pytest.approx(math.log(2))
    one_spike = [(step, 9.0 if step == 8 else 1.0) for step in range(1, 21)]
    assert stability.drawup(one_spike) == stability.worsening(one_spike) == 0


def test_noise_is_that_of_the_log_loss_whatever_the_trend_and_jumps():
    curve = [(s, x * math.exp(-s / 500) * (9 if s == 700 else 1)) for s, x in flat(200, 2)]
    assert stability.noise(curve) == pytest.approx(0.035, rel=0.15)


def test_too_few_evaluations_say_nothing_of_worsening():
    short = flat(stability.ENOUGH - 1, 1)
    for measure in (stability.worsening, stability.drawup, stability.flat_worsening):
        assert measure(short) is None
        assert measure(flat(stability.ENOUGH, 1)) is not None
    assert "worsening" not in stability.summary(short)


def test_worsening_on_fresh_images():
    assert stability.fresh_worsening(0.02, 0.022) == pytest.approx(math.log(1.1))
    assert stability.fresh_worsening(0.02, 0.019) < 0  # the best of the running test was luck
    assert stability.fresh_of(0.02, None) is None


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
    zeros = [(step, 0.0) for step in range(1, 30)]
    assert all(map(math.isfinite, stability.summary(zeros).values()))
