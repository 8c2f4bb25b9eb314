"""Contrasts of two norms by hand and by scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from raygan.report.evidence import CellResults
from raygan.report.family import of_losses
from raygan.report.multiple import holm
from raygan.report.norm_contrasts import adjusted, differences, interactions, norms, strata
from raygan.report.norm_measures import measures
from tests.report.builders import cell, evidence
from tests.report.measured import measured, measured_cell

BN, VANILLA = [0.010, 0.0104, 0.0098, 0.0101], [0.011, 0.0118, 0.0112, 0.0109]


def at(values, ends, **more):
    return measured_cell(values, ends, **more)


def by_key(found, **alike):
    return {
        one.measure.key: one
        for one in found
        if all(getattr(one, name) == value for name, value in alike.items())
    }


def of(found, first="bn", second="vanilla"):
    return differences(found, first, second, measures(found))


def test_a_difference_of_losses_is_welchs_in_per_cent():
    found = measured(at({"norm": "bn"}, BN), at({"norm": "vanilla"}, VANILLA))
    one = by_key(of(found))["loss"]
    a, b = np.log(BN), np.log(VANILLA)
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert one.p == pytest.approx(welch.pvalue)
    assert one.value == pytest.approx(100 * math.expm1(a.mean() - b.mean()))
    expected = [100 * math.expm1(end) for end in welch.confidence_interval()]
    assert [one.interval.low, one.interval.high] == pytest.approx(expected)
    assert (one.n, one.others, one.whole, one.better) == (4, 4, True, True)


def test_the_loss_counts_few_images_as_the_verdict_does():
    cells = [at({"norm": "bn"}, BN), at({"norm": "vanilla"}, VANILLA)]
    generator = np.random.default_rng(0)
    known = measured(*cells)
    images = {id: generator.uniform(0.5, 1.5, size=50) for id in known.finals}
    found = measured(*cells, images=images)
    one = by_key(of(found))["loss"]
    verdict = of_losses(found).of("bn", "vanilla").contrast
    assert one.contrast.error == verdict.error > by_key(of(known))["loss"].contrast.error


def test_images_of_different_data_sets_are_independent_and_those_of_one_are_not():
    generator = np.random.default_rng(0)
    errors = {}
    for axis in ("architecture", "dataset"):
        cells = [at({axis: place, "norm": norm}, ends) for place in ("a", "b")
                 for norm, ends in (("bn", BN), ("vanilla", VANILLA))]  # fmt: skip
        known = measured(*cells)
        one_set = generator.uniform(0.5, 1.5, size=(8, 50))
        images = dict(zip(known.finals, [*one_set, *one_set], strict=True))
        one = by_key(of(measured(*cells, images=images)), whole=True)["loss"]
        errors[axis] = one.contrast.image_error
    assert errors["architecture"] > 1.2 * errors["dataset"]


def test_what_was_not_measured_is_no_row():
    found = evidence(cell("bn", BN), cell("vanilla", VANILLA))
    assert by_key(of(found)).keys() == {"log_area", "loss", "failed"}


def test_a_share_differs_in_points_and_higher_is_better():
    cells = [at({"norm": "bn"}, BN), at({"norm": "vanilla"}, VANILLA)]
    found = measured(*cells)
    for number, record in enumerate(cells[0].replicates):
        found.qualities[record.id]["best"] = {"recall": 0.5 + number / 100, "images": 1000}
    for number, record in enumerate(cells[1].replicates):
        # 0 has no logarithm
        found.qualities[record.id]["best"] = {"recall": number / 100, "images": 1000}
    one = by_key(of(found))["recall"]
    assert one.value == pytest.approx(50)
    assert one.better
    assert one.measure.points


def test_runs_without_a_result_are_the_worst_also_where_higher_is_better():
    cells = [at({"norm": "bn"}, [*BN, "diverged", "diverged", "diverged"]),
             at({"norm": "vanilla"}, VANILLA)]  # fmt: skip
    found = measured(*cells)
    for number, record in enumerate(cells[0].replicates[:4]):
        found.qualities[record.id]["best"] = {"coverage": 0.9 + number / 1000, "images": 1000}
    one = by_key(of(found))["coverage"]
    assert one.better
    assert one.p > 0.05 > one.contrast.p  # survivors differ, all runs do not
    assert one.failed == (3, 0)


def test_failures_differ_by_boschloo_with_newcombes_interval():
    lost = ["diverged"] * 56
    cells = [cell("bn", [*lost, *[0.01] * 14]), cell("vanilla", [*lost[:48], *[0.01] * 32])]
    one = by_key(of(evidence(*cells)))["failed"]
    assert one.value == pytest.approx(20)
    # Newcombe 1998, table II, method 10: 56/70 and 48/80
    assert [one.interval.low, one.interval.high] == pytest.approx([5.24, 33.39], abs=0.005)
    table = [[56, 48], [14, 32]]
    assert one.p == pytest.approx(stats.boschloo_exact(table).pvalue)


def test_failures_over_strata_are_tested_exactly_in_each():
    counts = {"dcgan": (4, 5, 1, 5), "resnet": (3, 5, 0, 5)}
    cells = []
    for size, (lost, n, others_lost, m) in counts.items():
        for norm, failed, every in (("bn", lost, n), ("vanilla", others_lost, m)):
            ends = ["failed"] * failed + [0.01] * (every - failed)
            cells.append(at({"norm": norm, "architecture": size}, ends))
    one = by_key(of(evidence(*cells)), whole=True)["failed"]
    assert one.value == pytest.approx(100 * (0.6 + 0.6) / 2)
    # the sum of failures of bn, given all margins: two hypergeometric distributions
    sums = np.convolve(
        *(stats.hypergeom.pmf(range(n + 1), n + m, lost + others, n)
          for lost, n, others, m in counts.values())
    )  # fmt: skip
    assert one.p == pytest.approx(2 * sums[7:].sum())
    wilson = [stats.binomtest(k, n).proportion_ci(method="wilson")
              for k, n in ((4, 5), (1, 5), (3, 5), (0, 5))]  # fmt: skip
    below = (0.8 - wilson[0].low) ** 2 + (wilson[1].high - 0.2) ** 2
    below += (0.6 - wilson[2].low) ** 2 + wilson[3].high ** 2
    assert one.interval.low == pytest.approx(60 - 100 * math.sqrt(below) / 2)


def test_where_nothing_failed_there_is_no_p():
    one = by_key(of(evidence(cell("bn", BN), cell("vanilla", VANILLA))))["failed"]
    assert (one.value, one.p) == (0, None)
    assert one.interval.low < 0 < one.interval.high


def grid(bn=(1.0, 1.0, 1.0, 1.0)):
    """bn, vanilla and wn in two architectures on two data sets, of which one has losses ten times
    as high; ``bn``: factor of bn's loss in each stratum."""
    cells = []
    places = [(d, a) for d in ("cifar10", "celeba") for a in ("dcgan", "resnet")]
    for (dataset, architecture), factor in zip(places, bn, strict=True):
        size = 10 if dataset == "celeba" else 1
        for norm, level in (("vanilla", 1.2), ("bn", factor), ("wn", 0.9)):
            ends = [size * level * loss for loss in BN]
            cells.append(at({"dataset": dataset, "norm": norm, "architecture": architecture}, ends))
    return cells


def test_strata_are_data_sets_and_architectures_and_are_never_mixed():
    found = measured(*grid())
    assert norms(found) == ["vanilla", "bn", "wn"]
    places = [(s.dataset, s.within) for s in strata(found, "bn", "vanilla")]
    assert places == [(d, a) for d in ("cifar10", "celeba") for a in ("dcgan", "resnet")]
    every = [one for one in of(found) if one.measure.key == "loss"]
    assert [(one.dataset, one.within, one.strata) for one in every] == [
        ("", "", 4), ("cifar10", "", 2), ("celeba", "", 2),
        *[(d, a, 1) for d in ("cifar10", "celeba") for a in ("dcgan", "resnet")],
    ]  # fmt: skip
    # ten-fold losses of a data set change nothing: each stratum has the same ratio
    assert [one.value for one in every] == pytest.approx([100 * (1 / 1.2 - 1)] * 7)
    assert [one.whole for one in every] == [True, *[False] * 6]


def test_a_cell_without_its_partner_is_in_no_stratum():
    cells = [c for c in grid() if c.values["norm"] != "bn" or c.dataset == "cifar10"]
    assert {s.dataset for s in strata(measured(*cells), "bn", "vanilla")} == {"cifar10"}


def is_secondary(one):
    return one.measure.key not in ("failed", "loss", "log_area", "worsening")


def test_the_loss_is_adjusted_as_in_the_verdict():
    known = measured(*grid(bn=(1.17, 1.18, 1.16, 1.19)))
    family = of_losses(known)
    found = [one for one in adjusted(of(known)) if one.measure.key == "loss"]
    whole = next(one for one in found if one.whole)
    pooled = next(c for c in family.pooled if {c.cell, c.other} == {"bn", "vanilla"})
    assert (whole.adjusted, whole.claimed) == (pooled.adjusted, pooled.claimed)
    for stratum in strata(known, "bn", "vanilla"):
        verdict = family.of(stratum.first.name, stratum.second.name)
        (one,) = [d for d in found if (d.dataset, d.within) == (stratum.dataset, stratum.within)
                  and not d.whole]  # fmt: skip
        assert (one.adjusted, one.claimed) == (verdict.adjusted, verdict.claimed)


def test_p_over_all_strata_and_those_of_strata_are_corrected_apart():
    found = of(measured(*grid(bn=(1.17, 1.18, 1.16, 1.19))))
    after = adjusted(found)
    for whole in (True, False):
        for mine in (lambda one: one.measure.key == "failed", is_secondary):
            places = [i for i, one in enumerate(found) if one.whole is whole and mine(one)]
            places = [i for i in places if found[i].p is not None]
            expected = holm([found[i].p for i in places])
            assert [after[i].adjusted for i in places] == pytest.approx(expected)
    assert any(one.adjusted > one.p for one in after if one.adjusted is not None)


def test_differences_that_are_not_the_same_have_a_small_p_of_equal():
    assert by_key(of(measured(*grid())), whole=True)["loss"].heterogeneity == pytest.approx(1)
    unlike = measured(*grid(bn=(1.0, 1.4, 1.0, 1.4)))
    assert by_key(of(unlike), whole=True)["loss"].heterogeneity < 0.001


def test_an_interaction_is_a_ratio_of_ratios_with_its_interval():
    found = measured(*grid(bn=(1.0, 1.4, 1.0, 1.4)))
    axes = ["architecture", "dataset"]
    first, second = interactions(found, [("bn", "vanilla")], axes)
    assert (first.axis, first.level, first.base) == ("architecture", "resnet", "dcgan")
    assert (second.axis, second.level, second.base) == ("dataset", "celeba", "cifar10")
    assert first.contrast.percent == pytest.approx(40)
    assert second.contrast.percent == pytest.approx(0, abs=1e-9)
    # eight cells of four runs with the same spread: se² = 4 · (s²/4 + s²/4) / 4, of the two means
    s2 = np.var(np.log(BN), ddof=1)
    assert first.contrast.error == pytest.approx(math.sqrt(s2 / 2))
    assert first.contrast.freedom == pytest.approx(8 * 3)
    interval = first.contrast.interval()
    reach = stats.t.ppf(0.975, 24) * math.sqrt(s2 / 2)
    assert interval.low == pytest.approx(100 * math.expm1(math.log(1.4) - reach))
    assert first.claimed
    assert not second.claimed


def test_repeats_of_the_search_are_the_units():
    ends = [loss * factor for loss in BN for factor in (0.99, 1.01)]
    cells = []
    for norm, level in (("bn", 1.0), ("vanilla", 1.1)):
        made = at({"norm": norm}, [level * end for end in ends])
        repeats = {record.id: 1 + i // 2 for i, record in enumerate(made.replicates)}
        cells.append(
            CellResults(norm, made.values, made.records, made.replicates, made.best, repeats)
        )
    known = by_key(of(measured(*cells)))
    assert {key: one.n for key, one in known.items()} == dict.fromkeys(known, 4)
    assert known["recall"].value == pytest.approx(0)


@pytest.mark.parametrize(("runs", "least"), [(3, 0.1), (5, 2 / 252)])
def test_without_any_spread_the_ranks_decide_and_there_is_no_interval(runs, least):
    cells = [
        at({"norm": norm}, [0.01 + 1e-4 * n for n in range(runs)]) for norm in ("bn", "vanilla")
    ]
    found = measured(*cells)
    first = {run.id for run in cells[0].runs.values()}
    for id, both in found.qualities.items():
        for known in both.values():
            known["coverage"] = 0.01 if id in first else 0.0
    one = by_key(of(found))["coverage"]
    assert one.p == pytest.approx(least)
    assert one.value == pytest.approx(1.0)
    assert (one.interval, one.known) == (None, True)
