"""The statistics of loss and second measure, by hand, by scipy, and on runs of known truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from raygan.records import LOSS
from raygan.report import monitoring, monitoring_words
from raygan.report.monitoring import Course
from tests.report.builders import evidence
from tests.report.measured import DISTANCE, measured, measured_cell


def course(losses, distances, steps=None) -> Course:
    at = range(10, 10 * len(losses) + 1, 10) if steps is None else steps
    return Course("bn", "", "bn-1", list(at), losses, distances)


def driven(generator, evaluations: int, shared: float, curve) -> Course:
    """A run whose loss and distance follow ``curve`` of the iteration, with noise of their own and
    a noise that both share."""
    at = np.arange(1, evaluations + 1) / evaluations
    both = shared * generator.normal(size=evaluations)
    losses, distances = (
        curve(at) * np.exp(both + 0.05 * generator.normal(size=evaluations)) for _ in range(2)
    )
    return course(list(losses), list(distances))


def falling(at):
    return 0.4 + np.exp(-6 * at)


def rising_again(at):
    return 0.4 + np.exp(-at / 0.07) + 0.5 * at


def test_spearman_is_scipys_with_ties_and_none_of_a_constant():
    first, second = [3, 1, 2, 2, 5], [2.0, 1.0, 4.0, 4.0, 3.0]
    assert monitoring.spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0])
    assert monitoring.spearman([1, 1, 1], [1, 2, 3]) is None
    assert monitoring.spearman([1], [1]) is None


def test_correlations_of_runs_are_averaged_by_fishers_z():
    rhos = [0.2, 0.5, 0.8]
    found = monitoring.over_runs([*rhos, None])
    z = np.arctanh(rhos)
    low, high = np.tanh(stats.t.interval(0.95, 2, z.mean(), stats.sem(z)))
    assert (found.n, found.rho) == (3, pytest.approx(math.tanh(z.mean())))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert monitoring.over_runs([0.2, 0.5]).interval is None
    assert monitoring.over_runs([None]) is None
    assert monitoring.over_runs([1.0, 1.0, 1.0]).rho < 1  # z would be infinite


def test_given_the_iteration_is_the_rank_correlation_of_what_the_other_runs_do_not_have():
    draws = np.random.default_rng(0).uniform(1, 2, size=(3, 2, 20))
    runs = [course(list(losses), list(distances)) for losses, distances in draws]
    logs = np.log(draws)
    for number, rho in enumerate(monitoring.given_iteration(runs)):
        rest = logs[number] - np.delete(logs, number, axis=0).mean(axis=0)
        assert rho == pytest.approx(stats.spearmanr(*rest)[0])


def test_runs_are_compared_where_three_of_their_cell_have_an_evaluation():
    draws = np.random.default_rng(0).uniform(1, 2, size=(3, 2, 20))
    runs = [course(list(losses), list(distances)) for losses, distances in draws]
    assert monitoring.given_iteration(runs[:2]) == [None, None]
    short = replace(runs[2], steps=runs[2].steps[:11], losses=runs[2].losses[:11],
                    distances=runs[2].distances[:11])  # fmt: skip
    assert monitoring.given_iteration([*runs[:2], short]) == [None] * 3
    others = [replace(run, cell="wn") for run in runs]
    both = monitoring.given_iteration([*runs, *others])
    assert both[:3] == both[3:] == monitoring.given_iteration(runs)


@pytest.mark.parametrize("runs", [4, 30])
def test_each_run_of_a_cell_is_read_as_often_however_many_there_are(runs):
    reads = []

    class Read(list):
        def __iter__(self):
            reads.append(1)
            return super().__iter__()

    generator = np.random.default_rng(runs)
    ends = generator.integers(15, 25, size=runs)
    draws = [generator.uniform(1, 2, size=(2, end)) for end in ends]
    rhos = monitoring.given_iteration([course(Read(a), Read(b)) for a, b in draws])
    assert len(reads) <= 6 * runs
    for number, rho in enumerate(rhos):
        rests = []
        for measure in (0, 1):
            rest = []
            for place, own in enumerate(np.log(draws[number][measure])):
                there = [np.log(d[measure][place]) for n, d in enumerate(draws)
                         if n != number and place < ends[n]]  # fmt: skip
                if len(there) >= 2:
                    rest.append(own - np.mean(there))
            rests.append(rest)
        assert rho == pytest.approx(stats.spearmanr(*rests)[0], rel=1e-12)


def test_nothing_is_left_of_a_loss_that_the_iteration_determines():
    falls = [math.exp(-math.sqrt(step)) for step in range(1, 21)]
    noisy = np.random.default_rng(0).normal(size=(3, 20))  # not above 0
    runs = [course(falls, list(values)) for values in noisy]
    assert monitoring.given_iteration(runs) == [0, 0, 0]


CURVES = {
    "falls": falling,
    "rises again": rising_again,
    "step": lambda at: np.where(at < 0.5, 1.0, 0.5),
    "collapses": lambda at: np.where(at < 0.6, np.exp(-2 * at), 1.0),
    "waves": lambda at: 1 + 0.3 * np.sin(20 * at),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_runs_driven_by_the_iteration_alone_leave_no_correlation(curve):
    generator = np.random.default_rng(1)
    runs = [
        replace(driven(generator, 20, 0.0, curve), cell=f"cell {n // 4}") for n in range(60)
    ]  # fmt: skip
    within = monitoring.over_runs([monitoring.spearman(c.losses, c.distances) for c in runs])
    given = monitoring.over_cells(runs, monitoring.given_iteration(runs))
    assert within.interval.low > 0.3
    assert given.interval.low < 0 < given.interval.high
    assert abs(given.rho) < 0.1
    assert (given.n, given.unit) == (15, "cell")


def test_noise_that_both_share_is_seen_given_the_iteration():
    generator = np.random.default_rng(2)
    runs = [replace(driven(generator, 20, 0.1, falling), cell=f"cell {n % 3}") for n in range(12)]
    given = monitoring.over_cells(runs, monitoring.given_iteration(runs))
    assert given.interval.low > 0.3
    assert monitoring.over_cells(runs[:2], [0.5, None]).interval is None


def test_use_is_the_measure_at_the_lowest_loss_against_the_last():
    runs = [course([3, 1, 2, 4, 5], [9, last / 2, 1, 1, last]) for last in (1.0, 2.0, 4.0)]
    runs.append(course([3, 1, 2, 4, 5], [9, -1, 1, 1, 1]))  # no logarithm of its measure
    found = monitoring.use(runs)
    assert (found.n, found.percent) == (3, pytest.approx(-50))
    assert (found.interval.low, found.interval.high) == pytest.approx((-50, -50))
    assert monitoring.use(runs[:2]).interval is None
    assert monitoring.use([]) is None


def test_alarms_count_runs_in_which_the_loss_rises_with_the_measure():
    wave = 1 + 0.02 * np.array([(-1) ** i for i in range(20)])
    falls, rises = np.linspace(2, 1, 20) * wave, np.abs(np.linspace(-1, 1, 20)) * wave + 1
    runs = [course(list(loss), list(distance)) for loss, distance in (
        (rises, rises), (falls, rises), (falls, falls), (falls, falls), (rises, falls))]  # fmt: skip
    found = monitoring.alarms(runs)
    assert (found.worse, found.told, found.steady, found.false) == (2, 1, 3, 1)
    assert monitoring.alarms([course([1] * 14, [1] * 14)]) is None


def test_correlations_between_runs_within_cells_and_between_cells():
    generator = np.random.default_rng(0)
    ends = {
        cell: [(mean + x, -mean + x) for x in generator.normal(size=4) / 10]
        for cell, mean in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    }
    found = {one.kind: one for one in monitoring.between(ends)}
    every = np.concatenate([np.array(runs) for runs in ends.values()])
    assert found["runs"].rho == pytest.approx(stats.spearmanr(*every.T)[0])
    assert (found["within"].rho, found["cells"].rho) == (pytest.approx(1), pytest.approx(-1))
    assert [one.n for one in found.values()] == [12, 12, 3]
    assert found["runs"].interval.low <= found["runs"].rho <= found["runs"].interval.high
    assert monitoring.between(ends) == list(found.values())  # a fixed seed


def test_two_cells_have_no_interval_and_no_correlation_of_means():
    ends = {"a": [(1.0, 2.0), (2.0, 3.0)], "b": [(3.0, 5.0), (4.0, 4.0)]}
    found = monitoring.between(ends)
    assert [one.kind for one in found] == ["runs", "within"]
    assert {one.interval for one in found} == {None}
    assert monitoring.between({}) == []


def test_order_of_cells_is_compared_by_kendalls_tau():
    means = {"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (3.0, 3.0), "d": (4.0, 4.0)}
    found = monitoring.ordered(means)
    assert found.by_loss == (("a",), ("b",), ("c",), ("d",))
    assert found.by_other == (("b",), ("a",), ("c",), ("d",))
    assert found.tau == pytest.approx(stats.kendalltau(*zip(*means.values(), strict=True))[0])
    assert not found.same
    assert monitoring.ordered({"a": (1.0, 1.0)}) is None
    assert monitoring.ordered({}) is None


def test_kendalls_tau_is_scipys_with_ties_and_none_of_a_constant():
    first, second = np.array([3.0, 1, 2, 2, 5]), np.array([2.0, 1, 4, 4, 3])
    found = monitoring.kendall(first, second)
    assert found == pytest.approx(stats.kendalltau(first, second).statistic)
    assert monitoring.kendall(first, np.ones(5)) is None


def spread(means, runs=3, spread=0.1):
    """By cell, ends whose mean loss and mean measure are ``means``, ``spread`` apart."""
    off = spread * (np.arange(runs) - (runs - 1) / 2)
    return {
        cell: [(math.log(loss) + x, other + y) for x, y in zip(off, np.roll(off, 1), strict=True)]
        for cell, (loss, other) in means.items()
    }


def test_the_interval_of_tau_is_by_runs_drawn_again_in_the_same_cells():
    far = {"a": (1.0, 1.0), "b": (10.0, 2.0), "c": (100.0, 3.0)}
    found = monitoring.order(spread(far))
    assert (found.tau, found.interval.low, found.interval.high) == pytest.approx((1, 1, 1))
    near = {cell: (1 + loss / 1e3, other / 1e3) for cell, (loss, other) in far.items()}
    unsure = monitoring.order(spread(near))
    assert unsure.tau == pytest.approx(1)
    assert unsure.interval.low < 0 < unsure.interval.high
    assert monitoring.order(spread(near)) == unsure  # a fixed seed


def test_no_order_unless_every_cell_has_three_runs():
    ends = spread({"a": (1.0, 1.0), "b": (10.0, 2.0)})
    assert monitoring.order(ends).n == 2
    assert monitoring.order({**ends, "b": ends["b"][:2]}) is None
    assert monitoring.order({**ends, "c": []}) is None
    cells = [
        measured_cell({"norm": "bn"}, [0.01, 0.011, 0.012]),
        measured_cell({"norm": "wn"}, ["diverged"]),
    ]
    ends = monitoring.ends(measured(*cells), "feature_energy_distance", "")
    assert {cell: len(runs) for cell, runs in ends.items()} == {"bn": 3, "wn": 0}
    assert monitoring.between(ends)[0].n == 3


def test_means_that_differ_by_rounding_only_are_tied():
    assert 0.1 + 0.2 != 0.3
    found = monitoring.ordered({"a": (0.1 + 0.2, 1.0), "b": (0.3, 2.0), "c": (0.4, 2 + 1e-12)})
    assert found.by_loss == (("a", "b"), ("c",))
    assert found.by_other == (("a",), ("b", "c"))
    assert monitoring.ordered({"a": (0.3, 1.0), "b": (0.3000001, 2.0)}).tau == 1
    values = [0.1, 0.2, 0.3]
    ends = {
        cell: [(math.log(one), other) for one in mine]
        for cell, mine, other in (("a", values, 3.0), ("b", values[::-1], 1.0), ("c", [1.0] * 3, 2.0))
    }  # fmt: skip
    assert monitoring.order(ends).by_loss == (("a", "b"), ("c",))
    means = {one.kind: one for one in monitoring.between(ends)}["cells"]
    assert means.rho == pytest.approx(stats.spearmanr([1, 1, 2], [3, 1, 2])[0])


def test_rests_within_cells_that_differ_by_rounding_only_are_tied():
    x, y = [0.0, 0.1, 0.4], [0.3, 0.1, 0.2]
    first = list(zip(x, y, strict=True))
    near = {"a": [(a + 0.7, b + 0.7) for a, b in first], "b": first}
    found = {one.kind: one for one in monitoring.between(near)}["within"]
    assert found.rho == pytest.approx(stats.spearmanr(2 * x, 2 * y)[0])


def told(order, label=""):
    (sentence,) = monitoring_words.ordered({label: order}, "distance")
    return sentence


def test_an_order_is_told_of_the_observed_means_with_its_interval():
    far = {"a": (1.0, 1.0), "b": (10.0, 2.0), "c": (100.0, 3.0)}
    assert told(monitoring.order(spread(far)), "mine") == (
        "On mine, the observed means of loss and distance order the cells alike: a, b and c, the "
        "best first (Kendall's τ = 1.00, 3 cells; 1.00 to 1.00 if the runs are drawn again)."
    )
    near = {cell: (1 + loss / 1e3, other / 1e3) for cell, (loss, other) in far.items()}
    text = told(monitoring.order(spread(near)))
    assert text.startswith(
        "The observed means of loss and distance order the cells alike: a, b and"
    )
    assert text.endswith("; −1.00 to 1.00 if the runs are drawn again).")


def test_ties_are_named():
    tied = {"a": (1.0, 1.0), "b": (10.0, 2.0), "c": (10.0, 3.0)}
    found = monitoring.order(spread(tied))
    assert found.tau == pytest.approx(stats.kendalltau([1, 10, 10], [1, 2, 3]).statistic)
    text = told(found)
    assert text.startswith(
        "The observed mean loss orders the cells a, then b and c alike, the best first; the observed "
        "mean distance orders them a, b and c (Kendall's τ-b = 0.82, 3 cells; "
    )
    many = {**tied, "d": (0.1, 4.0), "e": (0.01, 5.0)}
    text = told(monitoring.order(spread(many)))
    assert "do not order the cells alike (Kendall's τ-b = " in text
    assert text.endswith("): by loss, e is the best and b and c alike; by distance, a is the best.")
    constant = {cell: (1.0, other) for cell, (_, other) in tied.items()}
    assert told(monitoring.order(spread(constant))) == (
        "The orders of the cells by loss and by distance cannot be compared: all 3 cells have the "
        "same mean loss."
    )


def test_runs_whose_measure_is_not_above_0_are_counted_where_they_are_left_out():
    wave = 1 + 0.02 * np.array([(-1) ** i for i in range(20)])
    falls = list(np.linspace(2, 1, 20) * wave)
    good, short = course(falls, falls), course(falls[:5], [*falls[:4], 0.0])
    below = course(falls, [*falls[:19], -0.1])
    between = course(falls, [*falls[:9], 0.0, *falls[10:]])
    runs = [good, good, good, short, below, between]
    assert (monitoring.use(runs).n, monitoring.use(runs).left_out) == (4, 2)
    assert monitoring.alarms(runs).left_out == 2
    (use,) = monitoring_words.use(runs, "distance")
    (alarms,) = monitoring_words.alarms(runs, "distance")
    for text in (use, alarms):
        assert text.endswith("; 2 runs whose distance is not above 0 are left out.")
    (use,) = monitoring_words.use([below], "distance")
    (alarms,) = monitoring_words.alarms([below], "distance")
    for text in (use, alarms):
        assert text.endswith("; 1 run whose distance is not above 0 is left out.")
    for words in (monitoring_words.use, monitoring_words.alarms):
        assert "left out" not in words([good] * 3, "distance")[0]
        assert words([], "distance") == []


def test_the_first_known_measure_is_used_and_older_sweeps_have_none():
    cells = measured_cell({"norm": "bn"}, [0.01, 0.011])
    assert monitoring.distance(evidence(cells)) == "feature_energy_distance"
    for record in cells.replicates:
        for point in record.history:
            point["val/sliced_wasserstein"] = point.pop(DISTANCE)
    found = evidence(cells)
    assert monitoring.distance(found) == "sliced_wasserstein"
    assert len(monitoring.courses(found, "sliced_wasserstein")) == 2
    for record in cells.replicates:
        for point in record.history:
            del point["val/sliced_wasserstein"]
    assert monitoring.distance(evidence(cells)) is None


def test_evaluations_without_both_are_left_out():
    cells = measured_cell({"norm": "bn"}, [0.01])
    history = cells.replicates[0].history
    history[0][LOSS] = math.nan
    del history[1][DISTANCE]
    (found,) = monitoring.courses(evidence(cells), "feature_energy_distance")
    assert found.steps[0] == 30
    assert len(found.steps) == 18


def test_ends_take_the_final_quality_of_all_runs_or_of_none():
    cells = [measured_cell({"norm": norm}, [0.01, 0.012]) for norm in ("bn", "wn")]
    found = measured(*cells)
    name = "feature_energy_distance"
    first = cells[0].replicates[0]
    assert monitoring.ends(found, name, "")["bn"][0] == (
        pytest.approx(math.log(0.9 * 0.01)),
        pytest.approx(math.log(20 * first.curve[-1][1])))  # fmt: skip
    del found.qualities[cells[1].replicates[0].id]
    last = math.log(first.history[-1][DISTANCE])
    assert monitoring.ends(found, name, "")["bn"][0][1] == pytest.approx(last)


def test_qualities_that_were_not_measured_alike_give_way_to_the_last_evaluation():
    cells = [measured_cell({"norm": norm}, [0.01, 0.011, 0.012]) for norm in ("bn", "wn")]
    found = measured(*cells)
    first = cells[0].replicates[0]
    found.qualities[first.id]["best"]["images"] = 7
    for cell in cells:
        ends = monitoring.ends(found, "feature_energy_distance", "")[cell.name]
        last = [math.log(record.history[-1][DISTANCE]) for record in cell.replicates]
        assert [end[1] for end in ends] == pytest.approx(last)
    (text,) = monitoring_words.taken(found, "feature_energy_distance", "distance")
    assert text.startswith("The distance between runs is that of the last evaluation")
    assert monitoring_words.taken(measured(*cells), "feature_energy_distance", "distance") == []


def test_repeats_of_a_search_are_what_is_counted():
    cells = [measured_cell({"norm": norm}, [0.01, 0.012, 0.014, 0.016]) for norm in ("bn", "wn")]
    repeats = {r.id: number // 2 for cell in cells for number, r in enumerate(cell.replicates)}
    found = measured(*(replace(cell, repeats=repeats) for cell in cells))
    ends = monitoring.ends(found, "feature_energy_distance", "")["bn"]
    single = monitoring.ends(measured(*cells), "feature_energy_distance", "")["bn"]
    for repeat in range(2):
        both = single[2 * repeat : 2 * repeat + 2]
        assert ends[repeat] == pytest.approx(np.mean(both, axis=0))
    assert monitoring.order(monitoring.ends(found, "feature_energy_distance", "")) is None


def test_codes_are_averaged_over_the_runs_of_a_cell():
    cells = measured_cell({"norm": "bn"}, [0.01, 0.0121, "diverged"])
    found = measured(cells)
    (ball,) = monitoring.balls(found)
    assert ball.loss == pytest.approx(0.9 * 0.011)
    assert ball.ball_loss == pytest.approx(1.05 * 0.9 * 0.011)
    assert (ball.code_norm, ball.outside) == (pytest.approx(1.1), pytest.approx(0.4))
    # of fewer images than the loss of the final test
    for record in cells.replicates[:2]:
        found.finals[record.id]["best"]["ball_free_loss"] = 0.01
    assert monitoring.balls(found)[0].loss == pytest.approx(0.01)
    # known of one run only, so not comparable with the loss of both
    for key in ("ball_loss", "outside"):
        found.finals[cells.replicates[0].id]["best"][key] = None
    (ball,) = monitoring.balls(found)
    assert (ball.ball_loss, ball.outside) == (None, None)
    assert ball.code_norm == pytest.approx(1.1)
    del found.finals[cells.replicates[0].id]["best"]["code_norm"]
    assert monitoring.balls(found) == []
    assert monitoring.balls(evidence(cells)) == []
