"""The words against data of which is known what can be said."""

import pytest

from raygan.report.evidence import Cell
from raygan.report.pairs import comparisons
from raygan.report.questions import questions
from raygan.report.verdict import verdict
from tests.report.builders import cell, evidence, searched_cell, trial

BN = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
LOWER = [0.9 * loss * f for loss, f in zip(BN, [1, 1.01, 0.99, 1.005, 0.995], strict=True)]
SAME = [loss * f for loss, f in zip(BN, [0.95, 1.06, 0.97, 1.04, 0.96], strict=True)]


def answers(found):
    return {q.key: q for q in questions(found)}


def test_a_difference_is_named_with_its_interval_and_seeds():
    found = evidence(cell("bn", BN), cell("wn", LOWER))
    text = verdict(found)
    assert "wn has the lowest mean loss, 0.01089" in text
    assert "wn's loss is 10.0% lower than bn's, 95% CI 9.1–10.9%, n = 5 seeds." in text
    assert "cannot give a p below 0.0625 with n = 5" in text
    assert "This is lower than the loss of bn." in answers(found)["RQ2"].answer


def test_no_difference_is_claimed_where_the_interval_holds_0():
    found = evidence(cell("bn", BN), cell("wn", SAME))
    text = verdict(found)
    assert "No difference between wn and bn can be claimed" in text
    assert "lower to" in text
    assert "higher, n = 5 seeds" in text
    assert "than bn's" not in text
    assert "No difference from bn can be claimed." in answers(found)["RQ2"].answer


def test_one_seed_or_two_claim_nothing():
    for n in (1, 2):
        text = verdict(evidence(cell("bn", BN[:n]), cell("wn", LOWER[:n])))
        assert "than bn's" not in text
        assert "can be claimed" in text
    assert "cannot be told from chance with n = 2 seeds; at least 3 are needed." in text


def test_a_collapsed_cell_has_no_loss_but_is_named():
    found = evidence(cell("vanilla", ["collapsed"] * 5), cell("bn", BN), cell("wn", LOWER))
    text = verdict(found)
    assert (
        "5 of 5 (100%, 95% CI 57–100%) of vanilla's replicates gave no result: 5 collapsed." in text
    )
    assert "lower than vanilla" not in text
    stable = answers(found)["RQ3"].answer
    assert "vanilla: 5 of 5 (100%, 95% CI 57–100%) of the runs gave no result" in stable
    speed = answers(found)["RQ1"]
    assert not speed.answered
    assert speed.answer.startswith("Not answered by this sweep:")


def test_survivors_of_a_failing_cell_are_said_to_be_survivors():
    text = verdict(evidence(cell("bn", BN), cell("wn", [*LOWER[:3], "diverged", "failed"])))
    assert "n = 3 seeds" in text
    assert (
        "2 of 5 (40%, 95% CI 12–77%) of wn's replicates gave no result: 1 diverged, 1 failed; "
        in text
    )
    assert "its mean is over the other runs" in text


def test_searched_trials_alone_claim_nothing():
    found = evidence(searched_cell("bn", {1e-4: 0.012}), searched_cell("wn", {1e-4: 0.010}))
    text = verdict(found)
    assert "no difference between cells can be claimed" in text
    assert "replicate.seeds" in text
    assert not answers(found)["RQ2"].answered
    assert not answers(found)["RQ3"].answered


def test_a_single_cell_has_nothing_to_be_compared_with():
    assert "no other cell has a result" in verdict(evidence(cell("bn", BN)))


def test_without_any_result_there_is_no_verdict():
    found = evidence(cell("bn", ["failed"]), searched_cell("wn", {}))
    text = verdict(found)
    assert text.startswith("There is no verdict")
    assert "wn has no result." in text
    assert not any(q.answered for q in questions(found) if q.key != "RQ3")


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
    assert "bn's loss is the same as wn's with each seed, n = 5 seeds." in text
    assert "Nothing" not in text


def test_of_cells_without_any_result_no_run_is_said_to_end_well():
    stable = answers(evidence(cell("bn", ["failed"] * 3)))["RQ3"].answer
    assert stable == "bn: 3 of 3 (100%, 95% CI 44–100%) of the runs gave no result (3 failed)."


def test_the_final_test_carries_the_verdict_once_all_have_taken_it():
    cells = cell("bn", BN), cell("wn", LOWER)
    finals = {r.id: {"best": {"loss": 0.5, "images": 2000, "steps": 2000}}
              for c in cells for r in c.replicates}  # fmt: skip
    text = verdict(evidence(*cells, finals=finals))
    assert "By the final test's loss of the best generator (2,000 images, 2,000 steps)" in text
    assert "0.50000" in text
    finals.popitem()
    assert "By the end loss of the running test" in verdict(evidence(*cells, finals=finals))


def test_a_retry_replaces_the_early_failure_of_its_seed():
    failed = trial("wn", [], "early-failure", seed=3, kind="replicate")
    again = trial("wn", [0.01] * 6, seed=3, kind="replicate", suffix="-warmup")
    one = Cell("wn", {}, [again, failed], [again, failed], again)
    assert one.runs == {3: again}
    assert one.failed == []


def test_of_two_replicated_settings_the_better_one_counts():
    low = [trial("wn", [0.01] * 6, seed=s, lr=1e-4, kind="replicate") for s in (1, 2)]
    high = [trial("wn", [0.02] * 6, seed=s, lr=1e-3, kind="replicate") for s in (1, 2)]
    one = Cell("wn", {}, low + high, high + low, low[0])
    assert {r.config["lr"] for r in one.runs.values()} == {1e-4}
    assert "best of its replicated settings (up to 2)" in verdict(evidence(one))
    alone = Cell("wn", {}, low, low, low[0])
    assert "replicated settings" not in verdict(evidence(alone))


def test_each_cell_is_held_against_its_own_vanilla_twin_and_no_pair_stands_twice():
    def at(norm, size, ends):
        made = cell(f"{norm}_{size}", ends)
        return Cell(made.name, {"norm": norm, "features": size}, made.records, made.replicates,
                    made.best)  # fmt: skip

    found = evidence(at("vanilla", 4, BN), at("vanilla", 8, SAME), at("bn", 8, LOWER))
    pairs = [(a.name, b.name) for a, b, _ in comparisons(found)]
    assert set(pairs[:2]) == {("bn_8", "vanilla_4"), ("bn_8", "vanilla_8")}
    assert len(pairs) == len({frozenset(pair) for pair in pairs})


def test_speed_is_measured_against_vanillas_best():
    slow = [0.4, 0.3, 0.2, 0.1, 0.1, 0.1]
    fast = [0.1, 0.1, 0.1, 0.1, 0.1, 0.09]
    never = [0.4] * 6
    cells = []
    for norm, losses in (("vanilla", slow), ("bn", fast), ("wn", never)):
        runs = [trial(norm, losses, seed=s, kind="replicate") for s in range(3)]
        cells.append(Cell(norm, {"norm": norm}, runs, runs, runs[0]))
    speed = answers(evidence(*cells))["RQ1"].answer
    assert (
        "The target is a loss of 0.10500 in the running test, 5% above the best of vanilla" in speed
    )
    assert "bn after 10 and vanilla after 40" in speed
    assert "Not all seeds reach it: wn (0 of 3)." in speed
    assert "bn's number of iterations is 75.0% lower than vanilla's with each seed, n = 3" in speed
    assert "Evaluations are 10 iterations apart" in speed


def test_getting_worse_again_is_stability():
    runs = [
        trial("bn", [0.3, 0.1, 0.1, 0.1, 0.1, 0.13], seed=s, kind="replicate") for s in (1, 2, 3)
    ]
    found = evidence(Cell("bn", {"norm": "bn"}, runs, runs, runs[0]), cell("wn", LOWER[:3]))
    stable = answers(found)["RQ3"].answer
    assert "Every run gave a result." in stable
    assert "wn 0.0% and bn 30.0%" in stable
    assert "Runs that end more than 10% above their lowest loss: bn (3 of 3)." in stable


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
    assert says in answers(evidence(searched_cell("wn", losses)))["RQ4"].answer


def test_a_best_rate_at_which_a_trial_failed_is_not_good():
    found = searched_cell("wn", {1e-4: 0.01, 1e-3: 0.0105})
    found.records.append(trial("wn", [0.01], "diverged", seed=1, lr=1e-4))
    robust = answers(evidence(found))["RQ4"].answer
    assert "wn none: not all trials end ok even at its best, 0.0001" in robust
    assert "with 2 trials per rate (median)" in robust


def test_many_cells_are_not_all_listed():
    cells = [cell(f"c{i:02}", [loss * (1 + i / 3) for loss in BN],
                  [trial(f"c{i:02}", [0.02] * 6, lr=1e-3)]) for i in range(12)]  # fmt: skip
    found = answers(evidence(*cells))
    assert "c06, c07 and 4 others." in found["RQ2"].answer
    assert "5 others are in the table" in found["RQ4"].answer


def test_what_else_was_searched_is_said_where_rates_are_compared():
    found = searched_cell("wn", {1e-4: 0.01, 1e-3: 0.0105})
    for number, record in enumerate(found.records):
        record.params = {"lr": record.config["lr"], "code_size": 8 + number, "ema": 0.9}
    robust = answers(evidence(found))["RQ4"].answer
    assert robust.endswith("Trials at one rate also differ in code_size and ema.")


def test_one_learning_rate_answers_nothing():
    assert not answers(evidence(searched_cell("wn", {1e-4: 0.01})))["RQ4"].answered


def test_learning_rate_as_an_axis_of_the_grid_is_one_recipe():
    cells = []
    for lr, loss in ((1e-4, 0.01), (1e-3, 0.0105)):
        one = searched_cell("bn", {lr: loss})
        cells.append(Cell(f"bn_lr={lr:g}", {"norm": "bn", "lr": lr}, one.records, [], one.best))
    assert "bn 1 decade (0.0001 to 0.001" in answers(evidence(*cells))["RQ4"].answer


def test_a_lowest_mean_of_other_seeds_claims_nothing_against_the_common_ones():
    # wn has a lower mean because bn alone has the two hard seeds
    found = evidence(cell("wn", [0.0105, 0.0106, 0.0104, "failed", "failed"]),
                     cell("bn", [0.0100, 0.0101, 0.0099, 0.02, 0.02]))  # fmt: skip
    text, answer = verdict(found), answers(found)["RQ2"].answer
    assert "wn has the lowest mean loss" in text
    assert "wn's loss is 5.0% higher than bn's" in text
    assert "n = 3 seeds that both have." in text
    assert "On the seeds that both have, the loss of bn is lower (mean ratio)." in text
    assert "This is lower than" not in answer
    assert "On the seeds that both have, the loss of bn is lower." in answer


def test_an_interval_that_is_too_little_for_so_many_pairs_claims_nothing():
    others = [cell(f"c{i}", [loss * (1.5 + i) for loss in BN]) for i in range(4)]
    lower = [0.95 * loss * f for loss, f in zip(BN, [1, 1.03, 0.97, 1.02, 0.98], strict=True)]
    found = evidence(cell("bn", BN), cell("wn", lower), *others)
    text = verdict(found)
    assert "No difference between wn and bn can be claimed: wn's loss is 5.0% lower" in text
    assert "that is not enough after Bonferroni's correction for 15 pairs." in text
    assert "wn's loss is 36.7% lower than c0's" in text


def test_runs_without_a_result_have_not_reached_the_target():
    found = evidence(cell("vanilla", BN), cell("wn", [*LOWER[:3], "diverged", "collapsed"]))
    answer = answers(found)["RQ1"].answer
    assert "Not all seeds reach it: wn (3 of 5, median 30)." in answer
    assert "Median iterations until it is reached: vanilla after" in answer


def test_a_cell_that_is_still_searched_is_said_to_be_lucky():
    found = evidence(cell("bn", BN), searched_cell("wn", {1e-4: 0.01}), finished=False)
    text = verdict(found)
    assert "The loss of wn is that of the best trial of the search" in text
    assert "cannot be compared: no seed gave a result with both" in text
