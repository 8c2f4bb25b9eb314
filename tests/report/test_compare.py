import math

import numpy as np
import pytest

from raygan.report import compare
from raygan.report.compare import mean_interval, paired, wilson


def seeds(values):
    return dict(enumerate(values))


def test_difference_is_that_of_the_geometric_means():
    found = paired(seeds([1.0, 4.0, 2.0]), seeds([2.0, 8.0, 4.0]))
    assert found.percent == pytest.approx(-50)
    assert found.n == 3


def test_interval_is_students_on_the_log_ratios():
    ratios = [-0.1, -0.2, -0.3]  # mean −0.2, sd 0.1; t(0.975, 2) = 4.3027
    found = paired(seeds(map(math.exp, ratios)), seeds([1.0] * 3))
    reach = 4.30265 * 0.1 / math.sqrt(3)
    assert found.interval.low == pytest.approx(100 * math.expm1(-0.2 - reach), rel=1e-4)
    assert found.interval.high == pytest.approx(100 * math.expm1(-0.2 + reach), rel=1e-4)
    assert found.effect == pytest.approx(-2)
    assert not found.claimed


def test_permutation_test_is_exact_and_knows_its_floor():
    # all of one sign: only that and its mirror image are as extreme
    found = paired(seeds([1.1, 1.2, 1.3, 1.4, 1.5]), seeds([1.0] * 5))
    assert found.p == found.least_p == 2 / 2**5
    # log ratios 3, 2, −1: |sum| is 4 or more for ±(3 2 −1) and ±(3 2 1)
    found = paired(seeds(map(math.exp, [0.3, 0.2, -0.1])), seeds([1.0] * 3))
    assert found.p == pytest.approx(4 / 8)


def test_permutation_test_of_many_seeds_is_drawn():
    same = np.exp(np.linspace(-1, 1, 20))
    assert paired(seeds(same), seeds([1.0] * 20)).p > 0.9
    assert 0 < paired(seeds(same + 3), seeds([1.0] * 20)).p < 0.001


@pytest.mark.parametrize("n", [1, 2])
def test_nothing_is_claimed_from_one_or_two_seeds(n):
    found = paired(seeds([1.0] * n), seeds([2.0] * n))
    assert (found.n, found.interval, found.p, found.claimed) == (n, None, None, False)
    assert mean_interval([1.0] * n) is None


def test_only_common_seeds_are_paired():
    found = paired({1: 1.0, 2: 1.0, 3: 1.0}, {2: 2.0, 3: 2.0, 4: 9.0})
    assert found.n == 2
    assert found.percent == pytest.approx(-50)
    assert paired({1: 1.0}, {2: 1.0}) is None


def test_equal_values_are_no_difference_and_have_no_effect_size():
    found = paired(seeds([0.3] * 4), seeds([0.3] * 4))
    assert not found.claimed
    assert found.effect is None
    assert found.p == 1
    rounded = paired(seeds([0.1 + 0.2] * 4), seeds([0.3] * 4))
    assert rounded.percent != 0
    assert not rounded.claimed


def test_wilson_by_hand():
    # p̂ = 0.4, n = 5, z = 1.96: centre (p̂ + z²/2n) / (1 + z²/n)
    z2 = 1.959964**2
    centre = (0.4 + z2 / 10) / (1 + z2 / 5)
    reach = math.sqrt(z2 * (0.4 * 0.6 / 5 + z2 / 100)) / (1 + z2 / 5)
    found = wilson(2, 5)
    assert (found.low, found.high) == pytest.approx((centre - reach, centre + reach), rel=1e-4)
    assert wilson(0, 5).low == 0
    assert wilson(0, 0) is None


def test_bootstrap_interval_holds_the_mean_and_is_the_same_again():
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    found = mean_interval(values)
    assert found == mean_interval(values)
    assert 1 < found.low < 4 < found.high < 10
    assert mean_interval(values[:3]) is None


def test_bootstrap_interval_of_five_values_is_not_far_too_narrow(monkeypatch):
    monkeypatch.setattr(compare, "RESAMPLES", 999)
    draws = np.random.default_rng(0).normal(size=(500, 5))
    held = [i.low <= 0 <= i.high for i in map(mean_interval, draws)]
    assert np.mean(held) == pytest.approx(0.93, abs=0.03)


def test_one_of_many_pairs_takes_a_wider_interval_to_be_claimed():
    ratios = [0.9 * f for f in (1, 1.06, 0.94, 1.05, 0.95)]
    alone, among = (paired(seeds(ratios), seeds([1.0] * 5), pairs) for pairs in (1, 15))
    assert alone.claimed
    assert alone.interval == alone.corrected == among.interval
    assert not among.claimed
    assert among.corrected.low < among.interval.low < among.interval.high < 0


def test_the_lowest_of_many_equal_cells_is_rarely_claimed_to_be_lower():
    random, claims = np.random.default_rng(0), 0
    for _ in range(200):
        losses = np.exp(random.normal(0, 0.1, (6, 5)))
        best = min(losses, key=np.mean)
        found = [paired(seeds(best), seeds(other), 15) for other in losses if other is not best]
        claims += any(difference.claimed for difference in found)
    assert claims <= 0.05 * 200


def test_seeds_that_one_of_two_lacks_are_said():
    assert not paired(seeds([1.0, 2.0]), seeds([1.0, 2.0])).partial
    assert paired(seeds([1.0, 2.0]), seeds([1.0])).partial
    assert paired(seeds([1.0]), seeds([1.0, 2.0])).partial
