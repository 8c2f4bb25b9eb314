"""The words against data of which is known what can be said."""

import math
from dataclasses import replace

import numpy as np
import pytest

from raygan.report import forest_figure
from raygan.report.claim import Claim
from raygan.report.declared import results
from raygan.report.evidence import CellResults
from raygan.report.family import of_losses, of_speed, of_worsening
from raygan.report.ladder import Agreement
from raygan.report.sections import sections
from raygan.report.verdict import verdict
from tests.report.builders import cell, evidence, final, finals, searched_cell, trial

BN = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
LOWER = [0.9 * loss * f for loss, f in zip(BN, [1, 1.01, 0.99, 1.005, 0.995], strict=True)]
SAME = [loss * f for loss, f in zip(BN, [0.95, 1.06, 0.97, 1.04, 0.96], strict=True)]


def answers(found):
    return {section.key: section for section in sections(found)}


def test_the_first_sentence_says_what_choosing_each_cell_gives_up():
    text = verdict(evidence(cell("bn", BN), cell("wn", LOWER)))
    assert text.startswith(
        "The mean loss of wn is not above that of any other cell here (95%); that of bn at most "
        "14.1% above."
    )


def test_a_difference_is_named_with_its_interval_and_runs():
    found = evidence(cell("bn", BN), cell("wn", LOWER))
    text = verdict(found)
    assert "wn has the lowest mean loss, 0.01089" in text
    assert "wn's loss is 10.0% lower than bn's (95% CI 6.9–13.0%, n = 5 runs each)." in text
    assert "The intervals are over seeds; the images, their split and the training set" in text
    assert "This is lower than the loss of bn." in answers(found)["quality"].answer


def test_a_claim_that_stands_after_the_stronger_ones_is_made():
    # final losses of an early study on CIFAR-10: after a correction for three at once, wn would not be
    # claimed to be lower than vanilla
    found = evidence(
        cell("bn", [0.009327, 0.009572, 0.009526, 0.009628]),
        cell("wn", [0.010833, 0.011014, 0.010635, 0.010792]),
        cell("vanilla", [0.011836, 0.012742, 0.011966, 0.011301]),
    )
    text = verdict(found)
    assert text.startswith(
        "The mean loss of bn is not above that of any other cell here (95%); that of wn at most "
        "16.5% and of vanilla at most 35.5% above."
    )
    pair = of_losses(found).of("wn", "vanilla")
    assert 0.05 / 3 < pair.p < 0.05
    assert "wn's loss is 9.5% lower than vanilla's (95% CI 2.4–16.1%" in text


def test_what_could_have_been_found_stands_beside_no_difference():
    found = evidence(cell("bn", BN), cell("wn", SAME))
    text = verdict(found)
    assert "No difference between wn and bn can be claimed: wn's loss is" in text
    assert "lower to" in text
    assert "higher, n = 5 runs each. With so many runs and this spread, a difference of " in text
    assert "than bn's" not in text
    assert "No difference from bn can be claimed." in answers(found)["quality"].answer


def test_the_first_sentence_is_not_about_cells_with_too_few_results():
    for few in ([0.008, 0.0081], [0.008, *["diverged"] * 4], [None] * 5):
        text = verdict(evidence(cell("bn", BN), cell("wn", LOWER), cell("sn", few)))
        assert text.startswith("The mean loss of wn is ")
        assert " above that of any other cell with 3 or more results (95%" in text
        assert "any other cell here" not in text


def test_a_cell_without_a_result_leaves_no_declared_claim_unsaid():
    claim = Claim("lower", "wn", "bn")
    found = evidence(cell("bn", BN), cell("wn", ["failed"] * 5), claims=(claim,))
    assert (
        "Declared and not confirmed: wn's loss is lower than bn's (not tested: it takes 3 runs of "
        "each cell that gave a result)."
    ) in verdict(found)


def test_the_level_of_an_early_look_is_the_reason_that_is_given():
    lower = [0.955 * loss * f for loss, f in zip(BN, [1, 1.02, 0.98, 1.02, 0.98], strict=True)]
    cells = cell("bn", BN), cell("wn", lower)
    assert "wn's loss is 4.5% lower than bn's" in verdict(evidence(*cells))
    assert "; differences are claimed at 1.0% with so many seeds." in verdict(
        evidence(*cells, alpha=0.01)
    )


def test_one_run_or_two_claim_nothing():
    assert "best of its search" not in verdict(evidence(cell("bn", BN[:1]), cell("wn", LOWER[:1])))
    for n in (1, 2):
        text = verdict(evidence(cell("bn", BN[:n]), cell("wn", LOWER[:n])))
        assert "than bn's" not in text
        assert "Choosing" not in text
        assert "can be claimed" in text
    assert "cannot be told from chance with n = 2 runs each; at least 3 are needed." in text


def test_a_collapsed_cell_has_no_loss_but_is_named():
    found = evidence(cell("vanilla", ["collapsed"] * 5), cell("bn", BN), cell("wn", LOWER))
    text = verdict(found)
    assert "5 of 5 (100%, 95% CI 57–100%) of vanilla's runs gave no result: 5 collapsed." in text
    assert "lower than vanilla" not in text
    stable = answers(found)["stability"].answer
    assert "vanilla: 5 of 5 (100%, 95% CI 57–100%) of the runs gave no result" in stable
    assert "The shares of runs without a result differ between vanilla and bn (p = " in stable


def test_survivors_of_a_failing_cell_are_said_to_be_survivors():
    text = verdict(evidence(cell("bn", BN), cell("wn", [*LOWER[:3], "diverged", "failed"])))
    assert "n = 3 runs" in text
    assert "2 of 5 (40%, 95% CI 12–77%) of wn's runs gave no result: 1 diverged, 1 failed; " in text
    assert "its mean is over the other runs" in text


def test_survivors_are_not_claimed_to_be_better_where_the_others_failed():
    # equal cells, but the worse runs of wn collapse: its survivors look better
    low = [0.0114, 0.0115, 0.0116]
    found = evidence(cell("bn", BN), cell("wn", [*low, "collapsed", "collapsed"]))
    assert of_losses(found).comparisons[0].contrast.p < 0.05
    text = verdict(found)
    assert (
        "wn's loss is 4.9% lower over the runs that gave a result, but 2 of 5 runs of wn gave"
        in text
    )
    assert "lower than bn's" not in text
    assert text.startswith("The mean loss of bn is at most ")
    assert "any other cell here (95%; runs without a result are the worst). How far" in text
    assert "mean loss of wn may be above the others has no limit: too many runs gave no r" in text
    # whole, the same three and two like them are
    assert "lower than bn's" in verdict(evidence(cell("bn", BN), cell("wn", [*low, *low[:2]])))


def test_searched_trials_alone_claim_nothing():
    found = evidence(searched_cell("bn", {1e-4: 0.012}), searched_cell("wn", {1e-4: 0.010}))
    text = verdict(found)
    assert "no difference between cells can be claimed" in text
    assert "replicate.seeds" in text
    assert not answers(found)["quality"].answered
    assert not answers(found)["stability"].answered


def test_a_single_cell_has_nothing_to_be_compared_with():
    assert "no other cell has a result" in verdict(evidence(cell("bn", BN)))


def test_without_any_result_there_is_no_verdict():
    found = evidence(cell("bn", ["failed"]), searched_cell("wn", {}))
    text = verdict(found)
    assert text.startswith("There is no verdict")
    assert "wn has no result." in text
    assert not any(s.answered for s in sections(found) if s.key != "stability")
    assert "has not finished" not in text
    running = verdict(evidence(cell("bn", [None]), finished=False))
    assert running.endswith("The sweep has not finished: these results may change.")


def test_running_sweep_and_useless_generators_are_said():
    text = verdict(evidence(cell("bn", [*BN[:4], None]), finished=False, baseline=0.01))
    assert "The sweep has not finished" in text
    assert "Nothing has been learned" in text
    assert "gave no result" not in text


def test_cells_that_have_learned_nothing_are_named():
    text = verdict(evidence(cell("bn", BN), cell("wn", [0.06, 0.061, 0.062]), baseline=0.05))
    assert "By wn, nothing has been learned: the mean training image has a loss of 0.05000" in text


def test_equal_losses_are_said_to_be_the_same():
    text = verdict(evidence(cell("bn", BN), cell("wn", BN)))
    assert "No difference between bn and wn can be claimed: bn's loss is the same" in text
    assert "Nothing" not in text


def test_of_cells_without_any_result_no_run_is_said_to_end_well():
    stable = answers(evidence(cell("bn", ["failed"] * 3)))["stability"].answer
    assert "bn: 3 of 3 (100%, 95% CI 44–100%) of the runs gave no result (3 failed)." in stable
    assert "Whether runs get worse again is not known" in stable


def test_the_final_test_carries_the_verdict_once_all_have_taken_it():
    cells = cell("bn", BN), cell("wn", LOWER)
    finals = {r.id: {"best": {"loss": 0.5, "images": 2000, "steps": 2000}}
              for c in cells for r in c.replicates}  # fmt: skip
    text = verdict(evidence(*cells, finals=finals))
    assert "By the final test's loss of the best generator (2,000 images, 2,000 steps)" in text
    assert "0.50000" in text
    assert "protocol" not in text
    for test in finals.values():
        test["best"]["asked"] = {"protocol": "authors"}
    text = verdict(evidence(*cells, finals=finals))
    assert "(2,000 images, 2,000 steps, the authors' protocol)" in text
    finals.popitem()
    assert "By the end loss of the running test" in verdict(evidence(*cells, finals=finals))


def test_a_retry_replaces_the_early_failure_of_its_seed():
    failed = trial("wn", [], "early-failure", seed=3, kind="replicate")
    again = trial("wn", [0.01] * 6, seed=3, kind="replicate", suffix="-warmup")
    one = CellResults("wn", {}, [again, failed], [again, failed], again)
    assert one.runs == {3: again}
    assert one.failed == []


def test_seeds_that_failed_without_a_warm_up_stay_in_what_is_said_of_stability():
    failed = [trial("wn", [], "early-failure", seed=s, kind="replicate") for s in range(1, 6)]
    again = [trial("wn", [x] * 6, seed=s, kind="replicate", suffix="-warmup")
             for s, x in enumerate(LOWER, 1)]  # fmt: skip
    for record in again:
        record.config["warmup"] = 100
    runs = [*failed, *again]
    found = evidence(cell("bn", BN), CellResults("wn", {"norm": "wn"}, runs, runs, again[0]))
    said = "5 of 5 seeds of wn failed without a warm-up; all of its runs shown have one of 100"
    assert said in verdict(found)
    stable = answers(found)["stability"].answer
    assert stable.startswith(said)
    assert "Every run gave a result" not in stable


def test_of_two_replicated_settings_the_one_that_the_search_ranked_first_counts():
    low = [trial("wn", [0.01] * 6, seed=s, lr=1e-4, kind="replicate") for s in (1, 2)]
    high = [trial("wn", [0.02] * 6, seed=s, lr=1e-3, kind="replicate") for s in (1, 2)]
    search = [trial("wn", [0.03] * 6, lr=1e-4), trial("wn", [0.02] * 6, lr=1e-3)]
    one = CellResults("wn", {"norm": "wn"}, search + low + high, high + low, low[0])
    # by the runs that are compared, the other one would be
    assert {r.config["lr"] for r in one.runs.values()} == {1e-3}
    said = "Several settings of wn have replicates: compared are those of the one that the search"
    assert said in verdict(evidence(one, cell("bn", BN)))
    assert "have replicates" not in verdict(evidence(cell("bn", BN), cell("wn", LOWER)))


def test_the_repeat_of_the_search_is_what_is_compared():
    ends = [0.010, 0.012, 0.020, 0.022, 0.015, 0.017, 0.001, "diverged"]
    made = cell("wn", ends)
    repeats = {record.id: 1 + i // 2 for i, record in enumerate(made.replicates)}
    one = CellResults("wn", {"norm": "wn"}, made.records, made.replicates, made.best, repeats)
    found = evidence(one, cell("bn", BN))
    assert list(found.units(one).values()) == pytest.approx(
        [math.sqrt(0.010 * 0.012), math.sqrt(0.020 * 0.022), math.sqrt(0.015 * 0.017)]
    )
    assert one.lost == 1  # a run of the fourth failed: the other one alone would flatter it
    assert of_losses(found).comparisons[0].contrast.others == 3
    text = verdict(found)
    assert "over repeats of the whole search" in text
    assert "n = 5 and 3 repeats" in text


def test_runs_of_one_repeat_of_the_search_are_not_counted_as_independent():
    cells = []
    for name, ends in (("wn", ["diverged"] * 5 + LOWER * 3), ("bn", BN * 4)):
        made = cell(name, ends)
        repeats = {record.id: 1 + i // 5 for i, record in enumerate(made.replicates)}
        cells.append(
            CellResults(name, {"norm": name}, made.records, made.replicates, made.best, repeats)
        )
    found = evidence(*cells)
    assert [(c.lost, c.tried) for c in cells] == [(1, 4), (0, 4)]
    stable = answers(found)["stability"].answer
    assert stable.startswith("wn: 5 of 20 (25%) of the runs gave no result (5 diverged).")
    assert "No difference between the shares of repeats without a result can be claimed" in stable
    assert "5 of 20 (25%) of wn's runs gave no result" in verdict(found)


def at(norm, size, ends):
    made = cell(f"{norm}_{size}", ends)
    return CellResults(made.name, {"norm": norm, "features": size}, made.records, made.replicates,
                made.best)  # fmt: skip


def test_cells_are_compared_along_one_axis_at_a_time_and_pooled():
    small, large = BN, [0.5 * loss for loss in BN]
    found = evidence(
        at("bn", 4, small), at("wn", 4, [0.9 * x for x in small]), at("sn", 4, SAME),
        at("bn", 8, large), at("wn", 8, [0.9 * x for x in large]), at("sn", 8, large),
    )  # fmt: skip
    family = of_losses(found)
    assert len(family.within) == 2 * 3 + 3 * 1
    assert ("wn_4", "bn_8") not in {(c.cell, c.other) for c in family.within}
    pooled = {(c.cell, c.other): c for c in family.pooled}
    assert set(pooled) >= {("wn", "bn"), ("8", "4")}
    assert pooled["wn", "bn"].contrast.percent == pytest.approx(-10)
    assert pooled["wn", "bn"].contrast.error < family.of("wn_4", "bn_4").contrast.error
    assert family.correction == "Holm's correction"
    text = verdict(found)
    assert "On average over 2 strata, wn's loss is 10.0% lower than bn's (95% CI" in text
    assert "n = 10 runs each)" in text
    assert "in the table of differences." in text
    assert answers(found)["speed"].answer.startswith("On average over 3 strata, 8's loss")


def test_a_stratum_in_which_a_cell_failed_altogether_is_not_left_out():
    strata = {size: [scale * loss for loss in BN] for size, scale in ((4, 1), (8, 0.5), (16, 0.3))}
    found = evidence(
        *(at("bn", size, losses) for size, losses in strata.items()),
        at("wn", 4, [0.9 * loss for loss in strata[4]]),
        at("wn", 8, ["collapsed"] * 5),
        at("wn", 16, [0.9 * loss for loss in strata[16]]),
        claims=(Claim("lower", "wn", "bn"),),
    )
    pooled = of_losses(found).of("wn", "bn")
    assert (pooled.compared, pooled.strata) == (2, 3)
    assert (pooled.n, pooled.failed, pooled.ended) == (10, (5, 0), (15, 15))
    assert not pooled.claimed
    text = verdict(found)
    assert "but 5 of 15 runs of wn gave none, and with these as the worst" in text
    assert "wn's loss is lower than bn's (not tested: no result of wn with features 8)." in text


def test_a_claim_over_all_strata_waits_for_all_of_them():
    cells = [at(n, s, [f * x for x in BN]) for s in (4, 8) for n, f in (("bn", 1), ("wn", 0.9))]
    claim = Claim("lower", "wn", "bn")
    whole = evidence(*cells, claims=(claim,))
    assert results(whole, of_losses(whole))[0].holds
    running = evidence(*cells, at("bn", 16, BN), at("wn", 16, [None] * 5), claims=(claim,))
    (result,) = results(running, of_losses(running))
    assert not result.holds
    assert result.reason == "not tested: no result of wn with features 16"
    assert "On average over 2 of 3 strata, wn's loss is 10.0% lower" in verdict(running)


def test_a_difference_that_changes_with_the_stratum_is_said_to():
    found = evidence(at("bn", 4, BN), at("wn", 4, LOWER), at("bn", 8, LOWER), at("wn", 8, BN))
    assert "between wn and bn is not the same in all strata" in verdict(found).replace(
        "between bn and wn", "between wn and bn"
    )


def test_runs_that_are_each_the_best_of_a_search_are_said_to_be_lucky():
    found = []
    for trials in (1, 2):
        cells = []
        for norm, losses in (("bn", BN), ("wn", LOWER)):
            records = [
                trial(norm, [loss * (1 + 0.1 * i)] * 6, seed=seed, lr=1e-4 * (1 + i))
                for seed, loss in enumerate(losses)
                for i in range(trials)
            ]
            best = records[::trials]
            cells.append(CellResults(norm, {"norm": norm}, records, best, best[0]))
        found.append("looks better than it is" in verdict(evidence(*cells)))
    assert found == [False, True]
    assert "looks better" not in verdict(evidence(cell("bn", BN), cell("wn", LOWER)))


def test_learning_rates_of_the_grid_are_not_compared_beside_another_axis():
    cells = []
    for norm in ("bn", "wn"):
        for lr in (1e-4, 1e-3):
            made = cell(f"{norm}_lr={lr:g}", BN)
            cells.append(CellResults(made.name, {"norm": norm, "lr": lr}, made.records, made.replicates,
                              made.best))  # fmt: skip
    assert {c.axis for c in of_losses(evidence(*cells)).comparisons} == {"norm"}


CLAIMS = (
    Claim("lower", "wn", "bn"),
    Claim("not_worse", "sn", "bn", 0.05),
    Claim("not_worse", "sn", "bn", 0.01),
    Claim("equivalent", "sn", "bn", 0.06),
    Claim("lower", "bn", "wn"),
)


def test_declared_claims_alone_are_tested():
    sn = [loss * f for loss, f in zip(BN, [0.99, 1.01, 1, 1.02, 0.98], strict=True)]
    found = evidence(cell("bn", BN), cell("wn", LOWER), cell("sn", sn), claims=CLAIMS)
    held = results(found, of_losses(found))
    assert [result.holds for result in held] == [True, True, False, True, False]
    assert held[0].adjusted > held[0].p
    assert held[0].reason.startswith(
        "wn's loss is 10.0% lower than bn's, 95% CI from 13.0% lower to"
    )
    assert held[4].reason.startswith("bn's loss is 11.1% higher than wn's")
    text = verdict(found)
    assert "Declared and confirmed: wn's loss is lower than bn's; " in text
    assert "Declared and not confirmed: " in text
    assert "All differences that were not declared are exploratory." in text


def test_a_cell_that_fails_more_often_is_not_said_to_be_no_worse():
    wn = [*LOWER[:4], "diverged"]
    found = evidence(cell("bn", BN), cell("wn", wn), claims=(Claim("not_worse", "wn", "bn", 0.5),))
    (result,) = results(found, of_losses(found))
    assert not result.holds
    assert "1 and 0 runs of wn and bn gave no result" in result.reason


def test_a_cell_whose_share_of_failures_is_higher_is_not_said_to_be_no_worse():
    bn, wn = [*BN, *BN, *BN, "failed"], [*LOWER[:3], *LOWER[:3], "failed"]
    found = evidence(cell("bn", bn), cell("wn", wn), claims=(Claim("not_worse", "wn", "bn", 0.5),))
    assert not results(found, of_losses(found))[0].holds  # 1 of 7 against 1 of 16


def test_survivors_are_not_said_to_be_no_worse_where_the_others_failed():
    # the worst runs of both fail; wn varies more, so that its survivors look better
    bn, wn = [0.0119, 0.0120, 0.0121], [0.0104, 0.0106, 0.0110]
    claim = Claim("not_worse", "wn", "bn", 0.05)
    both = evidence(*(cell(name, [*runs, "failed", "failed"])
                      for name, runs in (("bn", bn), ("wn", wn))), claims=(claim,))  # fmt: skip
    (result,) = results(both, of_losses(both))
    assert both.cells[0].failed
    assert result.comparison.contrast.percent < -5
    assert not result.holds
    whole = evidence(cell("bn", bn), cell("wn", wn), claims=(claim,))
    assert results(whole, of_losses(whole))[0].holds


def test_runs_that_failed_are_the_worst_in_speed_and_worsening():
    cells = cell("bn", BN), cell("wn", [*LOWER[:3], "failed", "failed"])
    found = evidence(*cells, finals=finals({"bn": 1.0, "wn": 1.0}, *cells))
    for family in (of_speed(found), of_worsening(found)):
        assert sum(family.comparisons[0].failed) == 2


def test_speed_is_measured_against_what_every_cell_reaches():
    slow = [0.4, 0.3, 0.2, 0.1, 0.1, 0.1]
    fast = [0.1, 0.1, 0.1, 0.1, 0.1, 0.09]
    rising = [0.101, 0.4, 0.4, 0.4, 0.4, 0.4]
    cells = []
    for norm, losses in (("vanilla", slow), ("bn", fast)):
        runs = [trial(norm, losses, seed=s, kind="replicate") for s in range(3)]
        cells.append(CellResults(norm, {"norm": norm}, runs, runs, runs[0]))
    speed = answers(evidence(*cells))["speed"].answer
    assert "5% above the mean end loss of the cell that ends highest" in speed
    assert "bn after 10 and vanilla after 40" in speed
    assert (
        "bn's loss over the whole run (geometric mean over the iterations, running test)" in speed
    )
    assert "Evaluations are 10 iterations apart" in speed
    lost = [*cells[1].replicates[:2], trial("bn", rising, "diverged", seed=2, kind="replicate")]
    cells[1] = CellResults("bn", {"norm": "bn"}, lost, lost, lost[0])
    assert (
        "Not all runs reach it: bn (2 of 3, median 10)."
        in answers(evidence(*cells))["speed"].answer
    )


def test_getting_worse_again_is_measured_on_fresh_images():
    cells = cell("bn", BN), cell("wn", LOWER)
    factor = {"bn": 1.2, "wn": 1.0}
    finals = {
        r.id: {"best": final(0.01), "last": final(0.01 * factor[c.name] * (1 + 0.001 * i))}
        for c in cells
        for i, r in enumerate(c.replicates)
    }
    stable = answers(evidence(*cells, finals=finals))["stability"].answer
    assert (
        "Every run gave a result: of the runs of the cell with the fewest, 0 of 5 (at most 45%"
        in stable
    )
    assert "wn +0.2% and bn +20.2%" in stable
    assert "The runs of bn and wn get worse again" in stable or "of wn and bn get worse" in stable
    assert "wn's ratio of last to best loss is 16.7% lower than bn's" in stable


def test_a_rough_curve_is_not_taken_for_one_that_gets_worse():
    # the last of the running evaluations lies above the lowest of any curve with noise
    runs = [
        trial("bn", [0.1, 0.1, 0.09, 0.1, 0.1, 0.11], seed=s, kind="replicate") for s in range(4)
    ]
    finals = {r.id: {"best": final(0.1), "last": final(0.1 + 0.001 * (-1) ** s)}
              for s, r in enumerate(runs)}  # fmt: skip
    stable = answers(
        evidence(CellResults("bn", {"norm": "bn"}, runs, runs, runs[0]), finals=finals)
    )
    assert "That any cell's runs get worse again after their best cannot be claimed." in (
        stable["stability"].answer)  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (
            {1e-5: 0.0105, 1e-4: 0.01, 1e-3: 0.0109},
            "wn 2 decades (1e-05 to 0.001, no lower or higher",
        ),
        ({1e-5: 0.02, 1e-4: 0.01, 1e-3: "diverged"}, "wn 0 decades (only 0.0001)"),
        ({1e-5: "stopped", 1e-4: 0.01, 1e-3: 0.0109}, "wn 1 decade (0.0001 to 0.001, no higher"),
        # a gap ends the stretch
        ({1e-6: 0.01, 1e-5: 0.02, 1e-4: 0.0101, 1e-3: 0.02}, "wn 0 decades (only 1e-06, no lower"),
    ],
)
def test_width_of_good_learning_rates(losses, says):
    assert says in answers(evidence(searched_cell("wn", losses)))["rates"].answer


def test_a_best_rate_at_which_a_trial_failed_is_not_good():
    found = searched_cell("wn", {1e-4: 0.01, 1e-3: 0.0105})
    found.records.append(trial("wn", [0.01], "diverged", seed=1, lr=1e-4))
    robust = answers(evidence(found))["rates"].answer
    assert "wn none: not all trials end ok even at its best, 0.0001" in robust
    assert "with 2 trials per rate (median)" in robust


def test_many_cells_are_not_all_listed():
    cells = [cell(f"c{i:02}", [loss * (1 + i / 3) for loss in BN],
                  [trial(f"c{i:02}", [0.02] * 6, lr=lr) for lr in (1e-4, 1e-3)])
             for i in range(12)]  # fmt: skip
    found = answers(evidence(*cells))
    assert "c06, c07 and 4 others." in found["quality"].answer
    assert "5 others are in the table" in found["rates"].answer


def test_the_chosen_rate_is_not_held_to_more_trials_than_the_others():
    search = [trial("wn", [0.01] * 6, lr=lr) for lr in (1e-4, 1e-3)]
    chosen = [trial("wn", [0.01] * 6, "diverged", seed=1, lr=1e-4, kind="replicate")]
    alone = CellResults("wn", {"norm": "wn"}, search + chosen, chosen, search[0])
    assert "wn 1 decade (0.0001 to 0.001" in answers(evidence(alone))["rates"].answer
    every = [*chosen, trial("wn", [0.01] * 6, seed=1, lr=1e-3, kind="replicate")]
    both = CellResults("wn", {"norm": "wn"}, search + every, every, search[0])
    assert (
        "wn none: not all trials end ok even at its best" in answers(evidence(both))["rates"].answer
    )


def test_what_else_was_searched_is_said_where_rates_are_compared():
    found = searched_cell("wn", {1e-4: 0.01, 1e-3: 0.0105})
    for number, record in enumerate(found.records):
        record.params = {"lr": record.config["lr"], "code_size": 8 + number, "ema": 0.9}
    robust = answers(evidence(found))["rates"].answer
    assert robust.endswith("Trials at one rate also differ in code_size and ema.")


def test_one_learning_rate_answers_nothing():
    assert not answers(evidence(searched_cell("wn", {1e-4: 0.01})))["rates"].answered


def test_learning_rate_as_an_axis_of_the_grid_is_one_recipe():
    cells = []
    for lr, loss in ((1e-4, 0.01), (1e-3, 0.0105)):
        one = searched_cell("bn", {lr: loss})
        cells.append(
            CellResults(f"bn_lr={lr:g}", {"norm": "bn", "lr": lr}, one.records, [], one.best)
        )
    assert "bn 1 decade (0.0001 to 0.001" in answers(evidence(*cells))["rates"].answer


def test_an_interval_that_is_too_little_for_so_many_comparisons_claims_nothing():
    lower = [0.95 * loss * f for loss, f in zip(BN, [1, 1.02, 0.98, 1.02, 0.98], strict=True)]
    found = evidence(cell("bn", BN), cell("wn", lower), cell("sn", SAME))
    pair = of_losses(found).of("bn", "wn")
    assert pair.p < 0.05 < pair.adjusted
    text = verdict(found)
    assert "; that is not enough after Shaffer's correction for 3 comparisons. With so" in text
    assert "wn's loss is 5.0% lower" in text


def test_a_cell_that_is_still_searched_is_said_to_be_lucky():
    found = evidence(cell("bn", BN), searched_cell("wn", {1e-4: 0.01}), finished=False)
    text = verdict(found)
    assert "The loss of wn is that of the best trial of the search" in text
    assert "but this cannot be told from chance with n = 1 and 5 runs" in text


def test_a_rule_that_could_not_tell_is_warned_of():
    text = verdict(evidence(cell("bn", BN), cell("wn", LOWER), rule=Agreement(0.42, 6)))
    assert "Early stopping may have chosen the wrong settings: over 6 trials" in text
    assert "correlation of early and end losses is 0.42" in text
    for fine in (Agreement(0.9, 6), Agreement(None, 1), None):
        assert "Early stopping" not in verdict(
            evidence(cell("bn", BN), cell("wn", LOWER), rule=fine)
        )


def test_how_sure_the_choice_of_the_rate_is_stands_with_the_rates():
    close = [trial("wn", [0.0120] * 6, lr=1e-4), trial("wn", [0.0121] * 6, lr=1e-3)]
    clear = [trial("bn", [0.0120] * 6, lr=1e-4), trial("bn", [0.05] * 6, lr=1e-3)]
    made = cell("wn", LOWER, close), cell("bn", BN, clear)
    answer = answers(evidence(*made))["rates"].answer
    assert "the search would choose about the same rate again" in answer
    assert "bn 100%" in answer
    assert "wn 100%" not in answer


def test_a_repeat_of_which_a_run_failed_counts_as_one_without_a_result():
    """Two equal cells; the worst half of one's runs fail: no difference may be seen by that."""
    rng = np.random.default_rng(1)
    claims = 0
    for _ in range(20):
        cells = []
        for name in ("bn", "wn"):
            ends = [float(x) for x in 0.02 * np.exp(0.03 * rng.standard_normal(15))]
            cut = float(np.median(ends)) if name == "bn" else 1.0
            made = cell(name, [x if x < cut else "collapsed" for x in ends])
            repeats = {record.id: 1 + i // 3 for i, record in enumerate(made.replicates)}
            cells.append(replace(made, repeats=repeats))
        (one,) = of_losses(evidence(*cells)).comparisons or [None]
        claims += one is not None and one.claimed
    assert claims == 0


def test_values_that_two_axes_share_are_named_with_their_axis():
    cells = [
        CellResults(made.name, values, made.records, made.replicates, made.best)
        for features in (16, 32)
        for batch_size in (16, 32)
        for values in [{"features": features, "batch_size": batch_size}]
        for made in [cell(f"{features}_{batch_size}", [batch_size * end for end in BN])]
    ]
    found = evidence(*cells, claims=(Claim("lower", "batch_size=16", "batch_size=32"),))
    names = {(c.cell, c.other) for c in of_losses(found).pooled}
    assert names == {("batch_size=16", "batch_size=32"), ("features=16", "features=32")}
    text = verdict(found)
    assert "Declared and confirmed: batch_size=16's loss is lower than batch_size=32's." in text
    assert len(forest_figure.rows(found)) == 6 + 6  # it can be drawn: headings and comparisons


def test_nothing_is_said_to_be_detectable_where_runs_failed():
    found = evidence(cell("bn", BN), cell("wn", [*SAME[:3], "collapsed", "collapsed"]))
    (one,) = of_losses(found).comparisons
    assert one.detectable is None
    assert "would be claimed in 80%" not in verdict(found)


def test_survivors_say_nothing_of_equal_differences():
    cells = [at("bn", 4, BN), at("wn", 4, [0.5 * x for x in BN]), at("bn", 8, BN)]
    whole = evidence(*cells, at("wn", 8, [2 * x for x in BN]))
    assert any(p < 0.05 for _, p in of_losses(whole).heterogeneous)
    lost = evidence(*cells, at("wn", 8, [*(2 * x for x in BN[:4]), "diverged"]))
    assert of_losses(lost).heterogeneous == []
    assert "is not the same" not in verdict(lost)


def test_what_the_verdict_may_not_lack_comes_before_a_long_list_of_losses():
    many = [cell(f"norm-{i}", [*BN[:4], "collapsed"]) for i in range(36)]
    text = verdict(evidence(*many, finished=False, baseline=0.001))
    assert "more characters" not in text
    for said in ("has not finished", "has been learned", "intervals are over",
                 "31 more sentences like these: see the table of cells."):  # fmt: skip
        assert said in text


def test_a_claim_about_a_name_that_an_earlier_version_took_for_another_is_not_tested():
    found = evidence(cell("bn", BN), cell("wn", LOWER), claims=(Claim("lower", "16", "wn"),))
    (result,) = results(found, of_losses(found))
    assert (result.holds, result.reason) == (False, "not tested: no cell and no value is called 16")


def test_equal_means_are_the_same_as_each_other():
    found = evidence(cell("bn", BN), cell("wn", BN), claims=(Claim("lower", "wn", "bn"),))
    (result,) = results(found, of_losses(found))
    assert result.reason.startswith("wn's loss is the same as bn's, 95% CI from ")


def repeated(name, ends, each=3):
    made = cell(name, ends)
    repeats = {record.id: 1 + i // each for i, record in enumerate(made.replicates)}
    return replace(made, repeats=repeats)


def test_the_words_about_repeats_with_failed_runs_are_about_repeats():
    one = [0.012, 0.0121, "diverged"]
    text = verdict(evidence(repeated("bn", one * 5), repeated("wn", one * 5)))
    assert text.startswith(
        "There is no verdict: no cell has a repeat of which every run gave a res"
    )
    assert "5 of 15 (33%) of wn's runs gave no result: 5 diverged; there is no repeat of" in text
    some = [*BN[:3], *BN[:3], *one, *one, *one]
    text = verdict(evidence(repeated("bn", BN * 3), repeated("wn", some)))
    assert "; its mean is over the 2 repeats of which every run gave one." in text
    assert "Fewer than 3 repeats of wn gave a result: nothing is claimed of them." in text


def test_without_a_limit_it_is_said_of_what():
    few = [0.012, 0.0121, 0.0119, *["diverged"] * 7]
    text = verdict(evidence(cell("bn", few), cell("wn", few)))
    assert text.startswith(
        "How far the mean loss of bn or wn may be above the others has no limit: too many runs "
    )
