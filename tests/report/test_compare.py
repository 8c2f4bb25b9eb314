"""The statistics against textbook values, against scipy, and by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from raygan.report import exact
from raygan.report.compare import (
    contrast,
    geometric_mean,
    heterogeneity_p,
    image_variance,
    never_bound,
    pooled,
    wilson,
    worsening_p,
)
from raygan.report.exact import failures_p, permutation_p, shift_limit, stratified_ranks
from raygan.report.multiple import choices, expected_best, holm, shaffer


def welch(values, others, image_variance=0.0):
    return contrast(np.log(values), np.log(others), image_variance)


def ranks(values, others, failed=0, others_failed=0):
    return stratified_ranks([([*values, *[math.inf] * failed],
                              [*others, *[math.inf] * others_failed])])  # fmt: skip


A = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
B = [0.0108, 0.0115, 0.0106, 0.0109]


def test_welch_is_that_of_scipy_on_the_logs():
    found = welch(A, B)
    expected = stats.ttest_ind(np.log(A), np.log(B), equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)
    assert found.interval().low == pytest.approx(100 * math.expm1(low))
    assert found.interval().high == pytest.approx(100 * math.expm1(high))
    less = stats.ttest_ind(np.log(B), np.log(A), equal_var=False, alternative="less").pvalue
    assert welch(B, A).p_below() == pytest.approx(less)
    assert found.p_above() == pytest.approx(less)


def test_fewer_than_three_runs_say_nothing():
    found = welch(A, B[:2])
    assert (found.interval(), found.p, found.p_permutation, found.detectable(0.95)) == (None,) * 4
    assert geometric_mean(B[:2]).interval is None
    assert welch(A, []) is None


def test_runs_that_do_not_vary_differ_for_certain_or_not_at_all():
    assert welch([1.0] * 3, [2.0] * 3).p == 0
    assert welch([1.0] * 3, [1.0] * 3).p == 1


def test_interval_of_a_mean_of_four_runs_covers_it_as_often_as_it_says():
    # a percentile bootstrap, widened for few runs, covers 88.5% of these
    generator = np.random.default_rng(1)
    covered = 0
    for logs in generator.normal(0, 0.05, (2000, 4)):
        interval = geometric_mean(np.exp(logs).tolist()).interval
        covered += interval.low <= 1 <= interval.high
    assert 0.94 <= covered / 2000 <= 0.96


def test_ranks_are_those_of_scipy_and_failures_are_the_worst():
    found, expected = ranks(A, B), stats.mannwhitneyu(A, B, method="exact", alternative="less")
    assert found.p_lower == pytest.approx(expected.pvalue)
    assert found.improvement == 1 - expected.statistic / 20
    lost = ranks([1.0, 1.1], [2.0, 2.1], failed=3, others_failed=3)
    assert lost.improvement == pytest.approx((2 * 5 + 3 * 3 / 2) / 25)
    # with ties, against all ways to deal the runs out
    first, second = [1.0, 1.1, math.inf], [2.0, math.inf, math.inf]
    scores = stats.rankdata(first + second)
    sums = [sum(scores[list(c)]) for c in itertools.combinations(range(6), 3)]
    expected_p = np.mean([s <= scores[:3].sum() for s in sums])
    assert ranks([1.0, 1.1], [2.0], 1, 2).p_lower == pytest.approx(expected_p)


def test_strata_are_ranked_each_by_itself():
    one = stratified_ranks([(A, B)])
    two = stratified_ranks([(A, B), ([10 * x for x in A], [10 * x for x in B])])
    assert two.improvement == pytest.approx(one.improvement)
    assert two.p_higher < one.p_higher


def test_permutation_test_looks_at_all_ways_to_deal_the_runs_out():
    assert permutation_p([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(2 / 20)
    many = np.random.default_rng(0).normal(size=40)
    assert permutation_p(many[:20], many[20:] + 3) == pytest.approx(1e-4)


def test_failure_rates_are_compared_and_none_is_not_never():
    assert failures_p(0, 5, 0, 5) is None
    assert failures_p(0, 5, 3, 5) == pytest.approx(stats.boschloo_exact([[0, 3], [5, 2]]).pvalue)
    assert never_bound(5) == pytest.approx(0.4507, abs=1e-4)
    assert wilson(0, 0) is None


def test_worsening_is_tested_on_one_side():
    g = [0.02, 0.05, 0.03, 0.01]
    assert worsening_p(g) == pytest.approx(stats.ttest_1samp(g, 0).pvalue / 2)
    assert worsening_p([-x for x in g]) > 0.5
    assert worsening_p(g[:2]) is None
    assert worsening_p([0.0] * 3) == 1


def test_images_add_what_a_bootstrap_over_them_shows():
    generator = np.random.default_rng(2)
    easy = generator.lognormal(0, 0.5, 200)
    runs = easy * generator.lognormal(0, 0.1, (3, 200))
    others = easy * generator.lognormal(0, 0.1, (4, 200))
    drawn = [
        np.log(runs[:, i].mean(1)).mean() - np.log(others[:, i].mean(1)).mean()
        for i in generator.integers(0, 200, (2000, 200))
    ]
    assert math.sqrt(image_variance(runs, others)) == pytest.approx(np.std(drawn), rel=0.1)
    alone, whole = (
        welch(runs.mean(1).tolist(), others.mean(1).tolist(), variance)
        for variance in (0.0, image_variance(runs, others))
    )
    assert whole.error > alone.error


def test_pooled_strata_are_surer_and_unequal_ones_are_told():
    parts = [welch(A, B), welch([2 * x for x in A], [2 * x for x in B])]
    assert pooled(parts).log == pytest.approx(parts[0].log)
    assert pooled(parts).error == pytest.approx(parts[0].error / math.sqrt(2))
    assert heterogeneity_p(parts) == pytest.approx(1)
    # the same images in both strata: their part stays
    few = [welch(A, B, 1e-3)] * 2
    runs = parts[0].error ** 2 / 2
    assert pooled(few).error == pytest.approx(math.sqrt(runs + 1e-3))
    assert heterogeneity_p([welch(A, B), welch(B, A)]) < 0.001
    assert heterogeneity_p(parts[:1]) is None


def test_equal_differences_are_seldom_told_to_change_with_the_stratum():
    # against chi-square, 22% of these are
    generator, spreads = np.random.default_rng(3), ((0.014, 0.049),) * 4
    ps = [
        heterogeneity_p([contrast(*(generator.normal(0, s, 3) for s in pair)) for pair in spreads])
        for _ in range(400)
    ]
    assert np.mean([p < 0.05 for p in ps]) <= 0.07
    # of two strata, it is Welch's test of the difference of their differences
    parts = [welch(A, B), welch([1.05 * x for x in A[:4]], B)]
    variances = [part.error**2 for part in parts]
    freedom = sum(variances) ** 2 / sum(
        v**2 / part.freedom for v, part in zip(variances, parts, strict=True)
    )
    t = (parts[0].log - parts[1].log) / math.sqrt(sum(variances))
    assert heterogeneity_p(parts) == pytest.approx(2 * stats.t.sf(abs(t), freedom))


def test_holm_and_shaffer_on_three_cells():
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert shaffer([0.04, 0.01, 0.02], 3) == pytest.approx([0.04, 0.03, 0.03])
    # four cells: six pairs; once one differs, at most three others can be equal
    assert shaffer([0.01] + [0.012] * 5, 4) == pytest.approx([0.06] * 6)
    assert shaffer([0.001] + [0.012] * 5, 4) == pytest.approx([0.006] + [0.036] * 5)
    with pytest.raises(ValueError, match="all pairs of 4 cells"):
        shaffer([0.1] * 3, 4)


def test_choosing_the_best_cell_gives_up_least():
    names = {"a": B, "b": A, "c": [2 * x for x in A]}
    against = {(x, y): welch(names[x], names[y]) for x, y in itertools.permutations(names, 2)}
    best, second, third = choices(against, 0.95)
    assert (best.cell, second.cell, third.cell) == ("a", "b", "c")
    assert best.regret == 0
    assert not best.out
    assert second.out
    assert third.regret > 100
    assert choices({}, 0.95) == []


def test_a_cell_whose_worst_runs_failed_is_not_chosen_by_its_survivors():
    low = np.log([0.0100, 0.0101, 0.0102])
    whole = {"a": list(np.log(B)), "b": [*low, math.inf, math.inf]}
    pairs = list(itertools.permutations(whole, 2))
    against = {(x, y): contrast(whole[x], whole[y][:3] if y == "b" else whole[y]) for x, y in pairs}
    against["b", "a"] = contrast(low, whole["a"])
    assert choices(against, 0.95)[0].regret == 0
    ranked = {(x, y): [(whole[x], whole[y])] for x, y in pairs}
    found = {choice.cell: choice for choice in choices(against, 0.95, ranked)}
    assert found["b"].regret is None
    assert found["a"].regret > 0
    assert not found["a"].out


def test_limit_of_a_shift_is_what_the_rank_test_does_not_reject():
    first, second = np.log(A), np.log(B)
    limit = shift_limit(first, second, 0.95)
    for shift, rejected in ((limit - 1e-9, False), (limit + 1e-9, True)):
        p = ranks(list(first - shift), list(second)).p_lower
        assert (p <= 0.05) is rejected
    assert shift_limit([0.0, math.inf, math.inf], [0.0] * 3, 0.95) == math.inf
    assert shift_limit([0.0] * 3, [1.0] * 3, 0.99) == math.inf


def of_all_deals(strata):
    """One-sided p of the sum of ranks, from all ways to deal the values to the two cells."""
    dealt = []
    for first, second in strata:
        ranked = stats.rankdata([*first, *second])
        seen = ranked[: len(first)].sum()
        sums = [sum(c) - seen for c in itertools.combinations(ranked, len(first))]
        dealt.append(sums)
    sums = np.array([sum(parts) for parts in itertools.product(*dealt)])
    return np.mean(sums <= 1e-9), np.mean(sums >= -1e-9)


INF = math.inf


@pytest.mark.parametrize(
    "strata",
    [
        [([1.0, 2.0, 4.0], [3.0, 5.0, 6.0, 7.0])],
        [([1.0, 2.0, 4.0, 9.0, 10.0], [3.0, 5.0])],
        [([1.0, INF, INF], [0.5, 2.0, INF, INF])],
        [([1.0, 2.0, INF], [0.5, 2.0, INF, INF, INF])],
        [([1.0, 3.0], [2.0, 4.0]), ([1.0, INF], [0.5, 2.0, INF]), ([3.0], [1.0, 2.0])],
        [([1.0, 3.0, 5.0], [2.0, 4.0]), ([1.0, 2.0], [3.0, 4.0, 5.0])],
        [([1.0] * 3, [1.0] * 4)],
    ],
)
def test_ranks_are_those_of_all_deals_with_ties_and_over_strata(strata):
    found = stratified_ranks(strata)
    assert (found.p_lower, found.p_higher) == pytest.approx(of_all_deals(strata), rel=1e-12)
    assert found.exact


@pytest.mark.parametrize(("n", "m"), [(100, 100), (3, 300), (60, 20)])
def test_ranks_of_many_runs_are_those_of_scipys_exact_test(n, m):
    generator = np.random.default_rng(n)
    first, second = generator.normal(size=n), generator.normal(0.3, size=m)
    found = stratified_ranks([(list(first), list(second))])
    for p, side in ((found.p_lower, "less"), (found.p_higher, "greater")):
        expected = stats.mannwhitneyu(first, second, alternative=side, method="exact").pvalue
        assert p == pytest.approx(expected, rel=1e-9)


def test_ranks_over_many_strata_do_not_overflow():
    generator = np.random.default_rng(0)
    strata = [(list(generator.random(20)), list(generator.random(20))) for _ in range(50)]
    found = stratified_ranks(strata)
    assert found.exact
    assert found.p_lower + found.p_higher > 1
    us = sum(stats.mannwhitneyu(*pair).statistic for pair in strata)
    z = (us - 50 * 200) / math.sqrt(50 * 400 * 41 / 12)
    assert found.p_lower == pytest.approx(stats.norm.cdf(z), abs=1e-3)


@pytest.mark.parametrize("lost", [0, 3, 20])
def test_ranks_beyond_exact_numbers_are_those_of_the_normal_distribution(monkeypatch, lost):
    def never(*_):
        raise AssertionError("counted")

    generator = np.random.default_rng(lost)
    first, second = generator.normal(size=60), generator.normal(0.2, size=50)
    first[:lost] = second[: lost // 2] = INF
    strata = [(list(first), list(second)), (list(second), list(second - 0.1))]
    counted, limit = stratified_ranks(strata), shift_limit(*strata[0], 0.975)
    monkeypatch.setattr(exact, "MOST_PAIRS", 50 * 110 - 1)
    found = stratified_ranks(strata)
    assert not found.exact
    assert found.improvement == counted.improvement
    assert found.p_lower == pytest.approx(counted.p_lower, rel=0.01, abs=1e-4)
    assert found.p_higher == pytest.approx(counted.p_higher, rel=0.01, abs=1e-4)
    monkeypatch.setattr(exact, "MOST_PAIRS", 50 * 60 - 1)
    monkeypatch.setattr(exact, "_rank_sums", never)
    one = stratified_ranks(strata[:1])
    for p, side in ((one.p_lower, "less"), (one.p_higher, "greater")):
        scipys = stats.mannwhitneyu(first, second, alternative=side, method="asymptotic").pvalue
        assert p == pytest.approx(scipys, rel=1e-9)
    near = shift_limit(*strata[0], 0.975)
    apart = sorted(INF if a == INF else a - b for a in first for b in second)
    assert near == limit == INF or abs(apart.index(near) - apart.index(limit)) <= 3


def test_a_thousand_runs_are_compared_by_the_normal_distribution():
    many = [float(value) for value in range(1000)]
    assert not stratified_ranks([(many, many)]).exact
    assert shift_limit(many, many, 0.95) == pytest.approx(-stats.norm.ppf(0.05) * 12.9, abs=1)
    assert stratified_ranks([([1.0] * 1000, [1.0] * 1000)]).p_lower == 1


def test_budget_curve_is_the_mean_over_all_draws():
    losses = [3.0, 1.0, 2.0, math.inf]
    draws = [min(c) for c in itertools.combinations(losses, 2)]
    assert expected_best(losses)[1] == pytest.approx(np.mean(draws))
    assert expected_best(losses)[3] == 1
    assert expected_best(losses)[0] == math.inf


@pytest.mark.parametrize("lost", [0, 1, 13])
def test_budget_curve_of_many_trials_is_that_of_the_formula(lost):
    generator, n = np.random.default_rng(lost), 60
    ordered = [*sorted(np.exp(generator.normal(size=n - lost))), *[math.inf] * lost]
    found = expected_best(list(generator.permutation(ordered)))
    for budget in range(1, n + 1):
        chances = [math.comb(n - i, budget - 1) / math.comb(n, budget) for i in range(1, n + 1)]
        terms = [c * x for c, x in zip(chances, ordered, strict=True) if c]
        assert found[budget - 1] == pytest.approx(math.fsum(terms), rel=1e-12)
    many = list(generator.random(2000))
    assert expected_best(many)[-1] == pytest.approx(min(many), rel=1e-12)
    assert expected_best([math.inf, math.inf]) == [math.inf, math.inf]
