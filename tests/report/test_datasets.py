"""A sweep over several data sets: cells are compared within each, and differences are pooled."""

import io
import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from raygan.folder import HTML, MARKDOWN, REPORT_FOLDER
from raygan.report import (
    course_figures,
    courses,
    declared,
    figures,
    forest_figure,
    make,
    picture_rows,
    sheets,
)
from raygan.report.audit import audit, by_restarts
from raygan.report.claim import Claim, PlanEntry
from raygan.report.compare import contrast, pooled
from raygan.report.comparison_sheets import compared_row
from raygan.report.courses import crossings
from raygan.report.drawing import SIZE, draw
from raygan.report.evidence import CellResults, DataSet
from raygan.report.family import Values, compare, of_losses, of_worsening, related
from raygan.report.make import Report
from raygan.report.multiple import choices
from raygan.report.sections import (
    failure_rates,
    iterations_to_target,
    sections,
    target,
    worse_again,
)
from raygan.report.sheets import by_set
from raygan.report.tabular import Column, Sheet, csv_bytes, parquet_bytes
from raygan.report.verdict import over, verdict
from raygan.storage import Storage
from tests.report.builders import cell, evidence, finals, on, trial
from tests.report.hostile import EVIL

SMALL_BN = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
SMALL_WN = [0.0108, 0.0112, 0.0107, 0.0109, 0.0110]
LARGE_BN = [0.130, 0.128, 0.131, 0.127, 0.129]
LARGE_WN = [0.122, 0.124, 0.121, 0.123, 0.125]
SETS = {
    "digits": DataSet({"images": "digits", "digest": "aa11", "shape": "1×32×32"}, 0.05),
    "faces": DataSet({"images": "celeba", "digest": "bb22", "shape": "3×64×64"}, 0.5),
}
NAMES = {"digits": {"digits_bn", "digits_wn"}, "faces": {"faces_bn", "faces_wn"}}


def two_cells(**more):
    """Losses of faces are ten times those of digits."""
    return (
        on("digits", "bn", more.get("digits_bn", SMALL_BN)),
        on("digits", "wn", more.get("digits_wn", SMALL_WN)),
        on("faces", "bn", more.get("faces_bn", LARGE_BN)),
        on("faces", "wn", more.get("faces_wn", LARGE_WN)),
    )


def two_sets(*cells, **more):
    return evidence(*(cells or two_cells()), sets=SETS, **more)


# which cells are compared


def test_cells_that_differ_in_their_data_set_alone_are_not_compared():
    found = two_sets(on("digits", "bn", SMALL_BN), on("faces", "bn", LARGE_BN))
    family = of_losses(found)
    assert (family.comparisons, family.choices, family.overall) == ([], [], [])
    text = verdict(found)
    assert "Choosing" not in text
    assert "choosing" not in text
    assert "claimed" not in text
    assert not any(section.answered for section in sections(found) if section.key == "quality")


@pytest.mark.parametrize("axes", [("dataset",), ("dataset", "lr"), ("dataset", "norm", "lr")])
def test_a_data_set_is_never_an_axis_of_comparison(axes):
    options = {"dataset": ["a", "b"], "lr": [1e-4, 1e-3], "norm": ["bn", "wn"]}
    points = [dict(zip(axes, values, strict=True))
              for values in itertools.product(*(options[axis] for axis in axes))]  # fmt: skip
    cells = {"_".join(map(str, point.values())): point for point in points}
    for one, other in related(cells):
        assert cells[one]["dataset"] == cells[other]["dataset"]
    family = compare(cells, [Values(name, [0.0, 0.1, 0.2]) for name in cells], 0.05)
    assert "dataset" not in {c.axis for c in family.comparisons}
    assert bool(family.comparisons) == (len(axes) > 1)


def test_no_comparison_is_across_data_sets():
    family = of_losses(two_sets())
    assert [{c.cell, c.other} for c in family.within] == list(NAMES.values())
    assert [c.dataset for c in family.within] == ["digits", "faces"]
    assert [{c.cell, c.other} for c in family.pooled] == [{"bn", "wn"}]
    assert family.correction == "Holm's correction"


def test_strata_whose_values_read_alike_are_not_one_stratum():
    made = [
        on("a", "bn", SMALL_BN, size="b c"), on("a", "wn", SMALL_WN, size="b c"),
        on("a b", "bn", LARGE_BN, size="c"), on("a b", "wn", LARGE_WN, size="c"),
    ]  # fmt: skip
    for one, name in zip(made, "pqrs", strict=True):
        object.__setattr__(one, "name", name)
    pairs = [{c.cell, c.other} for c in of_losses(evidence(*made)).within]
    assert pairs == [{"p", "q"}, {"r", "s"}]


# what is pooled


def welch(values, others):
    """d and se², by hand."""
    a, b = np.log(values), np.log(others)
    return a.mean() - b.mean(), a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)


def test_the_pooled_difference_is_the_mean_of_those_of_the_data_sets():
    (one, v), (two, w) = welch(SMALL_WN, SMALL_BN), welch(LARGE_WN, LARGE_BN)
    (found,) = of_losses(two_sets()).pooled
    assert (found.cell, found.other, found.strata, found.strata_are) == ("wn", "bn", 2, "data sets")
    assert found.contrast.log == pytest.approx((one + two) / 2)
    assert found.contrast.error == pytest.approx(math.sqrt(v + w) / 2)
    assert found.contrast.percent == pytest.approx(100 * math.expm1((one + two) / 2))


def test_a_difference_that_depends_on_the_data_set_is_told():
    parts = [welch(SMALL_WN, SMALL_BN), welch(LARGE_WN, LARGE_BN)]
    (found,) = of_losses(two_sets()).pooled
    # of two strata, it is Welch's test of the difference of their differences
    t = abs(parts[0][0] - parts[1][0]) / math.sqrt(parts[0][1] + parts[1][1])
    contrasts = [contrast(np.log(a), np.log(b)) for a, b in ((SMALL_WN, SMALL_BN),
                                                             (LARGE_WN, LARGE_BN))]  # fmt: skip
    freedom = (parts[0][1] + parts[1][1]) ** 2 / sum(c.error**4 / c.freedom for c in contrasts)
    assert found.heterogeneity == pytest.approx(2 * stats.t.sf(t, freedom))
    assert found.heterogeneity < 0.05
    text = verdict(two_sets())
    assert "The difference between wn and bn is not the same in all data sets (p = " in text


def test_images_of_different_data_sets_are_independent_and_those_of_one_are_not():
    part = contrast(np.log(SMALL_WN), np.log(SMALL_BN), 1e-3)
    runs = part.error**2 - 1e-3
    same, different = (pooled([part, part], labels) for labels in (["a", "a"], ["a", "b"]))
    assert same.error == pytest.approx(math.sqrt(runs / 2 + 1e-3))
    assert different.error == pytest.approx(math.sqrt(runs / 2 + 1e-3 / 2))
    assert different.image_error == pytest.approx(math.sqrt(1e-3 / 2))
    assert pooled([part, part]) == same


def test_images_are_counted_by_data_set():
    cells = two_cells()
    generator = np.random.default_rng(0)
    images = {
        run.id: run.end_loss * generator.lognormal(0, 0.5, 200 if c.dataset == "digits" else 300)
        for c in cells
        for run in c.runs.values()
    }
    tested = finals({c.name: 1.0 for c in cells}, *cells)
    found = two_sets(*cells, finals=tested, images=images)
    assert found.counts_images
    family = of_losses(found)
    assert all(c.contrast.image_error > 0 for c in family.comparisons)
    one, two = (c.contrast.image_error for c in family.within)
    assert family.pooled[0].contrast.image_error == pytest.approx(math.hypot(one, two) / 2)
    alone = {trial: losses for trial, losses in images.items() if trial.startswith("digits")}
    found = two_sets(*cells, finals=tested, images=alone)
    assert not found.counts_images
    errors = {c.dataset: c.contrast.image_error for c in of_losses(found).within}
    assert errors["digits"] > 0
    assert errors["faces"] == 0
    assert over(found).startswith("digits: The intervals of differences are over seeds and held-")
    assert "faces: The intervals are over seeds;" in over(found)


def test_a_declared_claim_over_all_strata_is_tested_over_the_data_sets():
    claim = Claim("lower", "wn", "bn")
    found = two_sets(claims=(claim,))
    (result,) = declared.results(found, of_losses(found))
    assert result.holds
    assert result.comparison.strata == 2
    few = two_sets(*two_cells(faces_wn=LARGE_WN[:2]), claims=(claim,))
    (result,) = declared.results(few, of_losses(few))
    assert not result.holds
    assert result.reason.endswith("of each cell that gave a result in each data set")


@pytest.mark.parametrize("lacking", [[], [None] * 5, ["collapsed"] * 5])
def test_a_claim_over_all_data_sets_is_not_tested_on_one_of_them(lacking):
    claim = Claim("lower", "wn", "bn")
    found = two_sets(*two_cells(faces_bn=lacking, faces_wn=lacking), claims=(claim,))
    (result,) = declared.results(found, of_losses(found))
    assert (result.holds, result.p) == (False, None)
    assert result.reason == "not tested: no result of bn and wn on faces"
    assert (
        "Declared and not confirmed: wn's loss is lower than bn's (not tested: no result of bn and "
        "wn on faces)."
    ) in verdict(found)
    assert "confirmed: wn" not in verdict(found).replace("not confirmed", "")
    assert sheets.claims(found).rows[0]["why"] == result.reason
    of_one = two_sets(*two_cells(faces_bn=lacking), claims=(claim,))
    (result,) = declared.results(of_one, of_losses(of_one))
    assert result.reason == "not tested: no result of bn on faces"


def test_a_claim_that_a_later_data_set_was_added_to_is_marked():
    claims = [Claim("lower", "wn", "bn"), Claim("lower", "digits_wn", "digits_bn"),
              Claim("not_worse", "wn", "bn", 0.05, declared=False)]  # fmt: skip
    first, changed, grown = (
        PlanEntry("", "", trials=trials, sets=sets)
        for trials, sets in ((0, ("digits",)), (0, ("digits", "moons")), (9, tuple(SETS)))
    )
    found = two_sets(claims=claims, plans=(first, changed, grown))
    sheet = sheets.claims(found)
    assert [row["added"] for row in sheet.rows] == ["faces", None, None]
    assert "data sets added later" in [column.heading for column in sheet.shown]
    assert "when results may have been known" in sheet.note
    assert (
        "Declared and confirmed: wn's loss is lower than bn's (declared before faces was added); "
        "digits_wn's loss is lower than digits_bn's."
    ) in verdict(found)
    for plans in ((), (grown,), (replace(first, sets=tuple(SETS)), grown)):
        same = sheets.claims(two_sets(claims=claims, plans=plans))
        assert [row["added"] for row in same.rows] == [None] * 3
        assert "added later" not in same.note


def test_a_difference_in_one_data_set_is_not_pooled():
    family = of_losses(two_sets(*two_cells(faces_bn=["collapsed"] * 5, faces_wn=["failed"] * 5)))
    assert [c.within for c in family.comparisons] == ["digits"]
    assert family.comparisons[0].claims == 1
    three = [on("third", norm, ["failed"] * 5) for norm in ("bn", "wn")]
    found = two_sets(*two_cells(), *three, claims=(Claim("lower", "wn", "bn"),))
    assert not declared.results(found, of_losses(found))[0].holds
    rows = {row["cell"]: row for row in sheets.compared(found).rows}
    assert (rows["wn"]["strata"], rows["wn"]["of_strata"]) == (2, 3)
    shown = [column.heading for column in sheets.compared(found).shown]
    assert shown[shown.index("over strata") + 1] == "of"
    assert "of" not in [column.heading for column in sheets.compared(two_sets()).shown]
    assert "On average over 2 of 3 data sets" in verdict(found)


# what a choice gives up


def against(values):
    return {(a, b): contrast(np.log(values[a]), np.log(values[b]))
            for a, b in itertools.permutations(values, 2)}  # fmt: skip


def test_choices_are_among_the_cells_of_one_data_set_at_a_level_for_all():
    family = of_losses(two_sets())
    level = 1 - 0.05 / 3  # two data sets, and the mean over both
    expected = [
        *choices(against({"digits_bn": SMALL_BN, "digits_wn": SMALL_WN}), level),
        *choices(against({"faces_bn": LARGE_BN, "faces_wn": LARGE_WN}), level),
    ]
    assert [c.cell for c in family.choices] == ["digits_wn", "digits_bn", "faces_wn", "faces_bn"]
    assert [c.regret for c in family.choices] == pytest.approx([c.regret for c in expected])
    parts = [contrast(np.log(a), np.log(b)) for a, b in ((SMALL_BN, SMALL_WN),
                                                         (LARGE_BN, LARGE_WN))]  # fmt: skip
    assert [c.cell for c in family.overall] == ["wn", "bn"]
    highest = 100 * math.expm1(pooled(parts, ["a", "b"]).highest(level))
    assert family.overall[1].regret == pytest.approx(highest)
    assert family.overall[0].regret == 0


def test_on_average_only_what_has_enough_results_on_every_data_set_is_chosen():
    more = on("digits", "sn", SMALL_BN), on("faces", "sn", LARGE_BN[:2])
    family = of_losses(two_sets(*two_cells(), *more))
    assert {c.cell for c in family.overall} == {"wn", "bn"}
    assert "digits_sn" in {c.cell for c in family.choices}
    assert family.too_few == ("faces_sn",)
    text = verdict(two_sets(*two_cells(), *more))
    assert text.startswith(
        "On average over 2 data sets, the mean loss of wn is not above that of any other choice "
        "with 3 or more results on each data set (95%); that of bn at most "
    )


def test_runs_without_a_result_are_the_worst_of_their_data_set_in_what_a_choice_gives_up():
    wn = [*SMALL_WN[:3], "collapsed", "collapsed"]
    found = two_sets(*two_cells(digits_wn=wn))
    regrets = {c.cell: c.regret for c in of_losses(found).overall}
    assert regrets["wn"] is None
    assert regrets["bn"] > 0
    alone = {c.cell: c.regret for c in of_losses(found).choices}
    assert alone["digits_wn"] is None
    assert alone["faces_wn"] == 0
    text = verdict(found)
    assert text.startswith("On average over 2 data sets, the mean loss of bn is at most ")
    assert (
        "(95%; runs without a result are the worst). On average over 2 data sets, how far" in text
    )
    assert "On digits, the mean loss of digits_bn is at most " in text
    assert "On faces, the mean loss of faces_wn is not above that of any other cell; that" in text


# the order of the cells


def test_cells_are_ranked_within_their_data_set():
    found = two_sets(
        on("faces", "bn", LARGE_BN), on("digits", "bn", SMALL_BN), on("faces", "wn", LARGE_WN),
        on("digits", "wn", SMALL_WN), on("digits", "sn", ["failed"] * 5),
    )  # fmt: skip
    order = ["faces_wn", "faces_bn", "digits_wn", "digits_bn"]
    assert [c.name for c in found.ranked] == order
    assert [c.name for c in found.comparable] == order
    assert [c.name for c in found.ordered] == [*order, "digits_sn"]
    assert {name: part.ranked[0].name for name, part in found.parts.items()} == {
        "faces": "faces_wn", "digits": "digits_wn"
    }  # fmt: skip


def test_with_one_data_set_its_evidence_is_the_whole():
    found = evidence(cell("bn", SMALL_BN), cell("wn", SMALL_WN), baseline=0.05)
    assert found.parts == {"": found}
    assert found.part("digits") is found
    assert not found.several
    assert found.baseline == found.baseline_of(found.cells[0]) == 0.05


def test_each_cell_has_the_mean_image_of_its_data_set():
    found = two_sets()
    assert found.baseline is None
    assert [found.baseline_of(c) for c in found.cells] == [0.05, 0.05, 0.5, 0.5]
    assert [part.baseline for part in found.parts.values()] == [0.05, 0.5]
    assert evidence(on("a", "bn", SMALL_BN), sets={}).baseline_of(found.cells[0]) is None


def test_the_final_test_counts_once_all_data_sets_have_taken_it():
    cells = two_cells()
    tested = finals({c.name: 1.0 for c in cells}, *cells)
    whole = two_sets(*cells, finals=tested)
    assert all(part.by_final_test for part in whole.parts.values())
    tested["faces_bn-lr0.0001-replicate1"].pop("best")
    some = two_sets(*cells, finals=tested)
    assert not any(part.by_final_test for part in some.parts.values())
    assert "by the end loss of the running test" in verdict(some)
    for test in tested.values():
        test["best"] = {**test["last"], "images": 100}
    sizes = two_sets(*cells, finals=finals({c.name: 1.0 for c in cells}, *cells) | {
        run.id: tested[run.id] for c in cells[2:] for run in c.runs.values()
    })  # fmt: skip
    assert sizes.measure == "final test's loss of the best generator"
    assert sizes.part("faces").measure.endswith("(100 images, 2,000 steps)")


# words


def test_the_verdict_answers_for_all_data_sets_and_then_for_each():
    text = verdict(two_sets())
    assert text.startswith(
        "On average over 2 data sets, the mean loss of wn is not above that of any other choice "
        "here (95%); that of bn at most 9.6% above. On digits, the mean loss of digits_wn is not "
        "above that of any other cell; that of digits_bn at most 14.1% above. On faces, the mean "
        "loss of faces_wn is not above that of any other cell; that of faces_bn at most 7.0% above. "
        "All of these limits hold together (95%). Lowest mean loss, by the end loss of the running "
        "test: on digits digits_wn with 0.01092 (95% CI"
    )
    assert "; on faces faces_wn with 0.12299 (95% CI " in text
    assert "Nothing is compared" not in text
    assert "On average over 2 data sets, wn's loss is 7.2% lower than bn's (95% CI " in text
    assert "2 more comparisons are in the table of differences." in text


def test_nothing_that_is_said_compares_losses_of_two_data_sets():
    cells = two_cells(digits_bn=[*SMALL_BN[:4], "diverged"])
    found = two_sets(*cells, finals=finals({c.name: 0.9 for c in cells}, *cells))
    said = [verdict(found)]
    for section in sections(found):
        said.append(section.answer)
        said += [answer for _, answer in section.by_set]
    for sentence in re.split(r"(?<=[.;]) (?=[A-Zo])", "; one: ".join(said)):
        assert not ("digits_" in sentence and "faces_" in sentence), sentence


def test_each_part_of_a_section_is_about_one_data_set():
    searched = {
        c.name: [
            trial(c.name, [0.1] * 5 + [0.02 * f], lr=lr) for lr, f in ((1e-4, 1), (1e-3, 1.05))
        ]
        for c in two_cells()
    }
    cells = [on(c.dataset, c.values["norm"], [r.end_loss for r in c.replicates], searched[c.name])
             for c in two_cells()]  # fmt: skip
    found = two_sets(*cells, finals=finals({c.name: 0.9 for c in cells}, *cells))
    for section in sections(found):
        assert section.answered
        assert [name for name, _ in section.by_set] == ["digits", "faces"]
        for name, answer in section.by_set:
            other = "faces" if name == "digits" else "digits"
            assert f"{name}_wn" in answer
            assert other not in answer
    (speed, quality, _, rates) = sections(found)
    assert speed.answer.startswith("On average over 2 data sets, wn's loss over the whole run")
    assert quality.answer.startswith("On average over 2 data sets, wn's loss is 7.2% lower")
    assert "digits_wn has the lowest mean loss, 0.00546. This is lower" in quality.by_set[0][1]
    assert rates.answer.startswith("Learning rates at which all trials end ok")
    assert "Learning rates" not in rates.by_set[0][1]


def test_a_section_that_no_data_set_answers_is_said_once():
    found = two_sets(on("digits", "bn", SMALL_BN[:1]), on("faces", "bn", LARGE_BN[:1]))
    quality = next(section for section in sections(found) if section.key == "quality")
    assert quality.answer == (
        "Not answered by this sweep: fewer than two cells have a result on the same data set."
    )
    assert quality.by_set == ()


def test_a_sweep_of_data_sets_alone_says_why_nothing_is_compared():
    cells = [cell(label, ends) for label, ends in (("digits", SMALL_BN), ("faces", LARGE_BN))]
    found = two_sets(*[CellResults(c.name, {"dataset": c.name}, c.records, c.replicates, c.best)
                       for c in cells])  # fmt: skip
    text = verdict(found)
    assert text.startswith(
        "Mean loss, by the end loss of the running test: on digits 0.01210 (95% "
    )
    assert "; on faces 0.12899 (95% CI " in text
    assert (
        "lr=0.0001). Nothing is compared: there is one cell on each data set, and losses "
        "of different data sets cannot be compared."
    ) in text
    for section in sections(found)[:2]:
        assert section.answer.endswith("fewer than two cells have a result on the same data set.")


def test_stability_says_that_nothing_can_be_claimed_over_the_data_sets():
    found = two_sets(finals=finals({c.name: 1.0 for c in two_cells()}, *two_cells()))
    stability = next(section for section in sections(found) if section.key == "stability")
    assert stability.answer.startswith(
        "On average over 2 data sets, no difference between bn and wn can be claimed: bn's ratio of "
        "last to best loss is the same"
    )


def test_many_choices_on_average_are_counted_as_choices():
    more = [on(label, f"n{i}", [loss * (1 + i / 50) for loss in ends]) for i in range(6)
            for label, ends in (("digits", SMALL_BN), ("faces", LARGE_BN))]  # fmt: skip
    text = verdict(two_sets(*two_cells(), *more)).partition(" On digits")[0]
    assert "any other choice here" in text
    assert re.search(r"the other \d choices at most", text)
    assert "cell" not in text


def test_each_data_set_has_a_target_that_its_cells_reach():
    found = two_sets()
    assert target(found) is None
    highest = [math.exp(np.log(losses).mean()) for losses in (SMALL_BN, LARGE_BN)]
    assert [target(part) for part in found.parts.values()] == pytest.approx(
        [1.05 * loss for loss in highest]
    )
    for one in found.cells:
        assert list(iterations_to_target(found, one).values()) == [30] * 5


def test_what_has_learned_nothing_is_told_by_the_mean_image_of_its_data_set():
    text = verdict(two_sets())
    assert "learned" not in text  # though faces' losses are above the mean image of digits
    text = verdict(two_sets(*two_cells(digits_bn=[0.06, 0.061, 0.062])))
    assert (
        "By digits_bn, nothing has been learned: the mean training image of digits has a loss of "
        "0.05000"
    ) in text
    text = verdict(two_sets(*two_cells(faces_bn=[0.6, 0.61, 0.62], faces_wn=[0.7, 0.71, 0.72])))
    assert "Nothing has been learned on faces: the mean training image of faces has" in text


def test_a_data_set_without_results_yet_is_waited_for(tmp_path, monkeypatch):
    found = two_sets(*two_cells(faces_bn=[None] * 5, faces_wn=[None] * 5), finished=False)
    text = verdict(found)
    assert text.startswith(
        "On digits, the mean loss of digits_wn is not above that of any other cell; that of "
    )
    assert "On faces" not in text
    assert "faces_wn has no result" in text
    monkeypatch.setattr(make, "drawings", lambda _: [])
    report = Report.of(Storage(str(tmp_path)), found)
    assert report.lead.startswith("On digits, the mean loss of digits_wn is not")
    assert report.lead.endswith("All of these limits hold together (95%).")
    assert report.paragraphs[0].startswith("Lowest mean loss")


def test_single_runs_on_each_data_set_claim_nothing():
    cells = [on(c.dataset, c.values["norm"], [c.best.end_loss]) for c in two_cells()]
    text = verdict(two_sets(*cells))
    assert "No difference between cells can be claimed: each cell has one run only." in text
    assert "below" not in text


def test_claims_of_one_data_set_are_corrected_for_all():
    failing = {
        "digits_bn": [*SMALL_BN, *["failed"] * 4], "digits_wn": [*SMALL_WN, *SMALL_WN[:4]],
        "faces_bn": [*LARGE_BN, *["failed"] * 3], "faces_wn": [*LARGE_WN, *LARGE_WN[:3]],
    }  # fmt: skip
    cells = two_cells(**failing)
    found = two_sets(*cells, finals=finals({c.name: 0.9 for c in cells}, *cells))
    part = found.part("digits")
    assert [rates[:2] for rates in failure_rates(found)] == [
        ("digits_bn", "digits_wn"), ("faces_bn", "faces_wn")
    ]  # fmt: skip
    (alone,) = failure_rates(part)
    assert alone == failure_rates(found)[0]
    assert alone[5] > alone[4]  # adjusted for the pair of the other data set, too
    for family in (of_losses, of_worsening):
        whole, mine = family(found), family(part)
        assert mine.comparisons == [c for c in whole.within if c.dataset == "digits"]
        assert mine.overall == []
    assert {name: worse_again(found)[name] for name in worse_again(part)} == worse_again(found)


def test_the_audit_is_of_the_order_within_each_data_set():
    cells = two_cells()
    same = two_sets(*cells, finals=finals({c.name: 0.9 for c in cells}, *cells))
    assert audit(same) == (
        False, "Restarts from random codes do not change the order of the cells."
    )  # fmt: skip
    turned = {"digits_bn": 0.5, "digits_wn": 1.0, "faces_bn": 1.0, "faces_wn": 1.0}
    changed, text = audit(two_sets(*cells, finals=finals(turned, *cells)))
    assert changed
    assert text.startswith(
        "digits: With restarts from random codes, the cells are in another order"
    )
    assert "faces" not in text
    reversed_cells = two_sets(*cells[::-1], finals=finals(turned, *cells))
    order = ["faces_wn", "faces_bn", "digits_bn", "digits_wn"]
    assert [one.name for one in by_restarts(reversed_cells)] == order


def test_curves_cross_within_a_data_set_and_are_certain_for_all_together(monkeypatch):
    cells = []
    for label, scale in (("digits", 1.0), ("faces", 10.0)):
        for norm, curve in (("bn", [0.05, 0.02, 0.02]), ("wn", [0.03, 0.03, 0.03])):
            made = on(label, norm, [])
            for seed in range(3):
                losses = [scale * loss * (1 + seed / 50) for loss in curve]
                record = trial(made.name, losses, seed=seed, kind="replicate")
                made.records.append(record)
                made.replicates.append(record)
            cells.append(made)
    found = two_sets(*cells)
    both = crossings(found)
    assert [(c.cell, c.other) for c in both] == [("digits_bn", "digits_wn"),
                                                ("faces_bn", "faces_wn")]  # fmt: skip
    together = []
    monkeypatch.setattr(courses, "_crossing", lambda *given: together.append(given[-1]))
    for part in found.parts.values():
        crossings(part)
    assert together == [2, 2]


# tables


def test_rows_carry_their_data_set_and_stand_in_its_order():
    cells = two_cells(digits_bn=[*SMALL_BN, "failed"])
    found = two_sets(*reversed(cells), finals=finals({c.name: 0.9 for c in cells}, *cells))
    by_key = {sheet.key: sheet for sheet in sheets.sheets(found)}
    for key in ("cells", "comparisons", "final_test", "failures", "runs", "learning_rates",
                "outcomes", "other_comparisons", "compute", "ended_early"):  # fmt: skip
        sheet = by_key[key]
        assert sheet.columns[0].name == "dataset", key
        labels = [row["dataset"] for row in sheet.rows]
        assert labels, key
        assert labels == sorted(labels, key=[None, "faces", "digits"].index), key
        for row in sheet.rows:
            if row["dataset"] is not None:
                assert row.get("cell", row.get("trial")).startswith(row["dataset"])
    assert [row["cell"] for row in by_key["cells"].rows] == [
        "faces_wn", "faces_bn", "digits_wn", "digits_bn"
    ]  # fmt: skip
    assert [(row["dataset"], row["cell"]) for row in by_key["comparisons"].rows] == [
        (None, "wn"), ("faces", "faces_wn"), ("digits", "digits_wn")
    ]  # fmt: skip
    pooled_row, of_digits, _ = (compared_row(one) for one in of_losses(found).comparisons[::-1])
    assert (pooled_row["dataset"], of_digits["dataset"]) == (None, "digits")
    assert {row["mean_image"] for row in by_key["cells"].rows[:2]} == {0.5}
    assert {row["mean_image"] for row in by_key["cells"].rows[2:]} == {0.05}
    assert by_key["cells"].rows[0]["target"] > 5 * by_key["cells"].rows[2]["target"]
    for key in ("claims", "plans", "recipes", "assumptions"):
        assert by_key[key].columns[0].name != "dataset"


def test_files_of_tables_have_the_data_set():
    sheet = by_set(two_sets(), sheets.cells(two_sets()))
    table = pq.read_table(io.BytesIO(parquet_bytes(sheet.arrow())))
    assert table["dataset"].to_pylist() == ["digits", "digits", "faces", "faces"]
    read = pyarrow.csv.read_csv(io.BytesIO(csv_bytes(sheet.arrow())))
    assert read["dataset"].to_pylist() == ["digits", "digits", "faces", "faces"]


def test_tables_of_one_data_set_are_as_they_were():
    found = evidence(cell("bn", SMALL_BN), cell("wn", SMALL_WN))
    made = {sheet.key: sheet for sheet in sheets.sheets(found)}
    for key in ("cells", "comparisons", "final_test", "runs", "compute", "ended_early"):
        assert "dataset" not in {column.name for column in made[key].columns}
    given = Sheet("a", "A", [Column("cell", None)], [{"cell": "bn"}], "")
    assert by_set(found, given) is given
    own = Sheet("a", "A", [Column("cell", None), Column("dataset", None)], [{"cell": "bn"}], "")
    assert by_set(two_sets(), own) is own


def test_a_pooled_row_is_of_no_data_set_even_if_a_cell_has_its_name():
    given = Sheet("a", "A", [Column("cell", None)],
                  [{"cell": "digits_bn"}, {"cell": "digits_wn", "dataset": None}], "")  # fmt: skip
    assert [row["dataset"] for row in by_set(two_sets(), given).rows] == [None, "digits"]


# figures and pages


def losses_drawn(axis):
    return [y for line in axis.lines for y in line.get_ydata() if 0 < y < 1]


@pytest.fixture(scope="module")
def searched():
    """Two data sets with all that a figure may show."""
    cells = [
        on(c.dataset, c.values["norm"], [r.end_loss for r in c.replicates], [
            trial(c.name, [c.best.end_loss * f] * 6, lr=lr)
            for lr, f in ((1e-4, 1.0), (1e-3, 1.2))
        ])
        for c in two_cells()
    ]  # fmt: skip
    tested = finals({c.name: 0.9 for c in cells}, *cells)
    return two_sets(*cells, finals=tested, search_method="random")


def test_losses_of_two_data_sets_never_share_an_axis(searched):
    for plot in (course_figures.curves, course_figures.budget, course_figures.rates_tried):
        figure = Figure()
        assert figures._by_set(plot)(figure, searched, searched.cells)
        small, large = figure.axes
        assert max(losses_drawn(small)) < 0.11
        assert min(losses_drawn(large)) > 0.11
        assert [part.get_suptitle() for part in figure.subfigs] == ["", ""]  # beside the legend
        assert [part.legends[0].get_title().get_text() for part in figure.subfigs] == list(SETS)
    figure = Figure()
    figures._by_set(course_figures.curves)(figure, searched, searched.cells)
    for axis, baseline in zip(figure.axes, (0.05, 0.5), strict=True):
        dotted = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"]
        assert dotted == [baseline]


def test_a_norm_has_one_colour_on_all_data_sets(searched):
    figure = Figure()
    figures._by_set(course_figures.budget)(figure, searched, searched.cells)
    colors = [[line.get_color() for line in axis.lines] for axis in figure.axes]
    assert colors[0] == colors[1]


def test_a_data_set_without_anything_to_draw_takes_no_room(searched):
    found = two_sets(*searched.cells[:2], on("faces", "bn", []), search_method="random")
    figure = Figure()
    assert figures._by_set(course_figures.curves)(figure, found, found.cells)
    assert len(figure.axes) == 1
    nothing = two_sets(on("digits", "bn", []), on("faces", "bn", []))
    assert not figures._by_set(course_figures.curves)(Figure(), nothing, nothing.cells)


def test_the_forest_has_pooled_rows_first_and_then_each_data_set():
    cells = [
        on(label, norm, ends, size=size)
        for size in (4, 8)
        for label, both in (("digits", (SMALL_BN, SMALL_WN)), ("faces", (LARGE_BN, LARGE_WN)))
        for norm, ends in zip(("bn", "wn"), both, strict=True)
    ]
    headings = [row.name for row in forest_figure.rows(two_sets(*cells)) if row.comparison is None]
    assert headings == [
        "norm, over all strata", "size, over all strata",
        "norm within digits 4", "norm within digits 8",
        "size within digits bn", "size within digits wn",
        "norm within faces 4", "norm within faces 8",
        "size within faces bn", "size within faces wn",
    ]  # fmt: skip
    alone = [row.name for row in forest_figure.rows(two_sets()) if row.comparison is None]
    assert alone == ["norm, over all data sets", "norm within digits", "norm within faces"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory, searched):
    home = Storage(str(tmp_path_factory.mktemp("sweep")))
    sink = io.BytesIO()
    Image.new("RGB", (16, 16)).save(sink, format="PNG")
    for record in searched.records:
        home.write(f"trials/{record.id}/images/samples-000000010.png", sink.getvalue())
        home.write(f"trials/{record.id}/final/best-hardest.png", sink.getvalue())
    return home


def test_every_data_set_has_its_pictures(stored, searched):
    many = [on("digits", f"n{i}", SMALL_BN) for i in range(7)]
    found = two_sets(*many, *searched.cells[2:])
    for record in found.records:
        data = stored.read(f"trials/{searched.records[0].id}/images/samples-000000010.png")
        stored.write(f"trials/{record.id}/images/samples-000000010.png", data)
        stored.write(f"trials/{record.id}/final/best-hardest.png", data)
    for rows in (picture_rows.samples, picture_rows.extremes):
        names = [strip.cell.split(",")[0] for strip in rows(stored, found)]
        assert len([name for name in names if name.startswith("digits")]) == 3
        assert names[3:] == ["faces_wn", "faces_bn"]


@pytest.fixture(scope="module")
def report(stored, searched):
    made = Report.of(stored, searched)
    made.write(stored)
    return made


def test_every_figure_is_drawn_with_room_for_each_data_set(report):
    whole = {drawing.key: drawing for drawing in report.drawings}
    assert {"cells", "comparisons", "curves", "budget", "worsening", "rates"} <= whole.keys()
    for key in ("curves", "budget", "rates"):
        assert Image.open(io.BytesIO(whole[key].png)).height > 2 * 130 * SIZE[1]


def test_the_report_describes_each_data_set(stored, report):
    page, markdown = (stored.read(name).decode() for name in (HTML, MARKDOWN))
    assert "4 cells on 2 data sets, " in page
    for label, digest, shape, baseline in (
        ("digits", "aa11", "1×32×32", "0.05000"), ("faces", "bb22", "3×64×64", "0.50000")
    ):  # fmt: skip
        for name, value in (("digest", digest), ("shape", shape),
                            ("loss of the mean training image", baseline)):  # fmt: skip
            assert f"<dt>{label}: {name}</dt><dd>{value}</dd>" in page
            assert f"- {label}: {name}: {value}" in markdown
    assert "images of the same digests" in page
    assert page.count('<p class="lead">On average over 2 data sets, the mean loss of') == 1
    assert "<p>On digits, the mean loss of digits_wn is not" in page
    assert "<p><b>faces:</b> faces_wn" in page
    assert "\n**faces:** faces\\_wn" in markdown
    assert {"cells.png", "comparisons.parquet"} <= set(stored.files(REPORT_FOLDER))


def test_labels_that_mean_harm_do_none(tmp_path, monkeypatch):
    labels = EVIL, f"<script>{EVIL}"
    cells = [
        on(label, norm, ends)
        for label, both in zip(labels, ((SMALL_BN, SMALL_WN), (LARGE_BN, LARGE_WN)), strict=True)
        for norm, ends in zip(("bn", "wn"), both, strict=True)
    ]
    for number, record in enumerate(record for c in cells for record in c.records):
        record.id = f"trial-{number}"
    found = evidence(
        *cells, sets={label: DataSet({"images": label}, 0.05) for label in labels},
        finals={r.id: {"best": {"loss": r.end_loss}} for c in cells for r in c.records},
    )  # fmt: skip
    plot = figures._by_set(course_figures.curves)
    drawn = draw("curves", "a", "b", lambda figure: plot(figure, found, found.cells), SIZE)
    table = by_set(found, sheets.cells(found))
    monkeypatch.setattr(make, "drawings", lambda _: [drawn])
    made = Report.of(Storage(str(tmp_path)), found)
    page, markdown = made.html(), made.markdown()
    assert "<script" not in page
    assert "\x1b" not in page + markdown
    assert not re.search(r"(?<!\\)\]\(http", markdown)
    assert "[p]" not in markdown.replace("\\[p\\]", "")
    assert csv_bytes(table.arrow()).decode().splitlines()[1].startswith("\"'=HYPERLINK")
