"""What the figures draw, and the tables behind them, against results of which both are known."""

import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from raygan.report import cell_figures, course_figures, forest_figure
from raygan.report.assumptions import checks
from raygan.report.courses import budgets, course, crossings
from raygan.report.drawing import INK, legend
from raygan.report.evidence import CellResults
from raygan.report.family import of_losses
from raygan.report.section_sheets import budget, failures, other_comparisons
from raygan.report.sections import sections
from raygan.report.sheets import sheets
from raygan.report.verdict import verdict
from tests.report.builders import cell, evidence, final, finals, searched_cell, trial

BN = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
WN = [0.9 * loss * f for loss, f in zip(BN, [1, 1.01, 0.99, 1.005, 0.995], strict=True)]


def drawn(plot, found):
    """The axes of a figure; it must have something to draw."""
    figure = Figure()
    assert plot(figure, found, found.cells)
    return figure.axes


def lines(axis, marker=None, color=None):
    return [
        line
        for line in axis.lines
        if (marker is None or line.get_marker() == marker)
        and (color is None or line.get_color() == color)
    ]


def stratum(norm, size, ends):
    made = cell(f"{norm} {size}", ends)
    return CellResults(
        made.name, {"norm": norm, "size": size}, made.records, made.replicates, made.best
    )


# the figure of all cells


def test_each_run_is_a_dot_and_each_failure_a_cross_at_the_worst_end():
    found = evidence(cell("bn", [*BN, "diverged", "failed"]), cell("wn", WN), baseline=0.05)
    losses, failed, _ = drawn(cell_figures.losses, found)
    assert [label.get_text() for label in losses.get_yticklabels()] == ["wn", "bn"]
    assert losses.get_ylim()[0] > losses.get_ylim()[1]  # the best one on top
    dots = [sorted(line.get_xdata()) for line in lines(losses, "o")]
    assert dots == [pytest.approx(sorted(WN)), pytest.approx(sorted(BN))]
    (crosses,) = lines(failed, "x")
    assert list(crosses.get_ydata()) == [1, 1]
    assert failed.get_position().x0 > losses.get_position().x0
    interval = found.summary(found.cells[0]).interval
    assert [list(line.get_xdata()) for line in lines(losses, color=INK)][2] == pytest.approx(
        [interval.low, interval.high]
    )


def test_where_the_search_was_repeated_each_repeat_is_a_dot():
    made = cell("bn", [loss * f for loss in BN for f in (0.99, 1.01)])
    repeats = {record.id: 1 + i // 2 for i, record in enumerate(made.replicates)}
    found = evidence(
        CellResults("bn", {"norm": "bn"}, made.records, made.replicates, made.best, repeats)
    )
    losses, *_ = drawn(cell_figures.losses, found)
    (dots,) = lines(losses, "o")
    assert len(dots.get_xdata()) == 5
    interval = found.summary(found.cells[0]).interval
    assert any(list(line.get_xdata()) == pytest.approx([interval.low, interval.high])
               for line in losses.lines)  # fmt: skip


def test_what_can_be_claimed_has_a_bracket_and_nothing_else():
    alike = [loss * f for loss, f in zip(BN, [1.02, 0.98, 1, 0.99, 1.01], strict=True)]
    found = evidence(cell("bn", BN), cell("sn", alike), cell("wn", WN))
    *_, beside = drawn(cell_figures.losses, found)
    order = [c.name for c in found.ranked]
    spans = {tuple(line.get_ydata()[1:3]) for line in beside.lines}
    assert spans == {(0, order.index("bn")), (0, order.index("sn"))}
    assert not drawn(cell_figures.losses, evidence(cell("bn", BN), cell("sn", alike)))[2].lines


def test_brackets_of_one_column_do_not_touch():
    spans = [(0, 1), (1, 2), (2, 3), (0, 3), (4, 5)]
    assert cell_figures._levels(spans) == [0, 1, 0, 2, 0]


def test_what_can_be_claimed_over_all_strata_is_noted():
    halves = [0.5 * loss for loss in BN]
    found = evidence(*(stratum(norm, size, [f * loss for loss in ends])
                       for size, ends in ((4, BN), (8, halves))
                       for norm, f in (("bn", 1.0), ("wn", 0.9))))  # fmt: skip
    losses, *_ = drawn(cell_figures.losses, found)
    assert "over all strata: wn against bn −10.0%" in losses.get_xlabel()


def test_the_mean_image_is_a_line_unless_it_would_leave_no_room():
    near, far = (drawn(cell_figures.losses, evidence(cell("bn", BN), baseline=baseline))[0]
                 for baseline in (0.0125, 0.05))  # fmt: skip
    assert any(list(line.get_xdata()) == [0.0125, 0.0125] for line in near.lines)
    assert not any(0.05 in line.get_xdata() for line in far.lines)
    assert [text.get_text() for text in far.texts] == ["mean image: 0.05000 →"]
    assert far.get_xlim()[1] < 0.02


# the forest plot


def test_forest_is_in_the_order_of_the_grid_and_filled_where_claimed():
    alike = [loss * f for loss, f in zip(BN, [1.02, 0.98, 1, 0.99, 1.01], strict=True)]
    found = evidence(cell("bn", BN), cell("wn", WN), cell("sn", alike))
    forest, better = drawn(forest_figure.forest, found)
    names = [label.get_text() for label in forest.get_yticklabels()]
    assert names == ["wn against bn", "sn against bn", "sn against wn"]
    marks = lines(forest, "o")
    shown = [mark.get_xdata()[0] for mark in marks]
    assert shown[0] == pytest.approx(-10, abs=0.1)
    assert shown[2] == pytest.approx(100 * (1 / 0.9 - 1), abs=0.3)
    assert [mark.get_markerfacecolor() == INK for mark in marks] == [True, False, True]
    interval = of_losses(found).of("wn", "bn").contrast.interval()
    assert any(list(line.get_xdata()) == pytest.approx([interval.low, interval.high])
               for line in forest.lines)  # fmt: skip
    chances = [mark.get_xdata()[0] for mark in lines(better, "o")]
    assert chances[0] == 100
    assert chances[2] == 0


def test_forest_has_a_heading_per_stratum_and_pooled_diamonds():
    halves = [0.5 * loss for loss in BN]
    found = evidence(*(stratum(norm, size, [f * loss for loss in ends])
                       for size, ends in ((4, BN), (8, halves))
                       for norm, f in (("bn", 1.0), ("wn", 0.9))))  # fmt: skip
    forest, _ = drawn(forest_figure.forest, found)
    names = [label.get_text() for label in forest.get_yticklabels()]
    assert names == [
        "norm, over all strata", "wn against bn", "size, over all strata", "8 against 4",
        "norm within 4", "wn against bn", "norm within 8", "wn against bn",
        "size within bn", "8 against 4", "size within wn", "8 against 4",
    ]  # fmt: skip
    assert len(lines(forest, "D")) == 2


def test_an_interval_that_leaves_the_axis_ends_in_an_arrow():
    wild = [0.0120, 0.0500, 0.0030]
    found = evidence(cell("bn", BN), cell("wn", wild), cell("sn", [0.95 * x for x in BN]))
    forest, _ = drawn(forest_figure.forest, found)
    assert len(lines(forest, ">")) == 2
    assert forest.get_xlim()[1] < 200


def test_more_comparisons_than_rows_are_counted():
    cells = [cell(f"c{i:02}", [loss * (1 + i / 9) for loss in BN[:3]]) for i in range(10)]
    rows = forest_figure.rows(evidence(*cells))
    assert len(rows) == cell_figures.MOST_ROWS + 1
    assert rows[-1].name == f"{45 - cell_figures.MOST_ROWS} more in the table"


# curves


def with_curves(norm, *curves, outcome="ok"):
    runs = [trial(norm, curve, outcome, seed=s, kind="replicate") for s, curve in enumerate(curves)]
    return CellResults(norm, {"norm": norm}, runs, runs, runs[0])


def test_bands_hold_at_all_evaluations_together():
    runs = [[0.05, 0.03, 0.02], [0.06, 0.031, 0.021], [0.055, 0.03, 0.022]]
    found = course(with_curves("bn", *runs))
    low, high = found.band()
    logs = np.log([run[1] for run in runs])
    reach = stats.t.ppf(1 - 0.05 / 2 / 3, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert (low[1], high[1]) == pytest.approx(
        (math.exp(logs.mean() - reach), math.exp(logs.mean() + reach))
    )
    assert course(with_curves("bn", *runs[:2])).band() is None


def test_mean_curve_is_over_the_runs_that_have_not_failed():
    whole = with_curves("bn", [0.04, 0.02], [0.04, 0.02])
    lost = trial("bn", [0.9], "diverged", seed=7, kind="replicate")
    one = CellResults("bn", {}, [*whole.records, lost], [*whole.replicates, lost], whole.best)
    assert np.exp(course(one).mean) == pytest.approx([0.04, 0.02])
    assert course(with_curves("bn", [0.9], outcome="diverged")) is None
    (axis, *_) = drawn(course_figures.curves, evidence(one))
    assert [list(line.get_xdata()) for line in lines(axis, "x")] == [[10]]


def test_bands_do_not_set_the_axis():
    runs = [[0.05, 0.020 + s / 100] for s in range(3)]
    (axis, *_) = drawn(course_figures.curves, evidence(with_curves("bn", *runs)))
    assert axis.get_ylim()[1] < 0.06
    assert axis.get_ylim()[0] > 0.015


def steady(loss):
    return [[loss * f] * 3 for f in (1, 1.01, 0.99, 1.005)]


def test_curves_cross_where_their_means_do():
    falling = [[0.04 * f, 0.02 * f, 0.01 * f] for f in (1, 1.01, 0.99, 1.005)]
    found = evidence(with_curves("slow", *falling), with_curves("level", *steady(0.02 * 2**0.5)))
    (crossing,) = crossings(found)
    assert (crossing.cell, crossing.other, crossing.times) == ("slow", "level", 1)
    assert crossing.iteration == pytest.approx(15)
    assert math.exp(crossing.log) == pytest.approx(0.02 * 2**0.5, rel=0.01)
    assert (crossing.before, crossing.after, crossing.certain) == (10, 20, True)
    (axis, *_) = drawn(course_figures.curves, found)
    (mark,) = lines(axis, "D")
    assert mark.get_xdata()[0] == pytest.approx(15)
    assert mark.get_markerfacecolor() == INK


def test_a_crossing_of_the_runs_that_are_left_is_not_certain():
    falling = [[0.04 * f, 0.02 * f, 0.01 * f] for f in (1, 1.01, 0.99, 1.005)]
    slow = with_curves("slow", *falling)
    lost = trial("slow", [0.04, 0.03], "diverged", seed=9, kind="replicate")
    runs = [*slow.replicates, lost]
    slow = CellResults("slow", slow.values, runs, runs, slow.best)
    (crossing,) = crossings(evidence(slow, with_curves("level", *steady(0.02 * 2**0.5))))
    assert (crossing.before, crossing.after) == (None, None)


def test_the_more_pairs_cross_the_surer_each_has_to_be():
    rough = [[0.040 * f, 0.02 * f, 0.01 * f] for f in (1, 1.3, 0.75, 1.1)]
    pair = with_curves("a", *rough), with_curves("b", *steady(0.0195))
    (crossing,) = crossings(evidence(*pair))
    assert crossing.certain
    more = [with_curves(name, *rough) for name in ("c", "d", "e", "f", "g", "h")]
    found = {frozenset((c.cell, c.other)): c for c in crossings(evidence(*pair, *more))}
    assert not found[frozenset("ab")].certain


def test_a_crossing_within_the_noise_is_not_certain():
    rough = [[0.021 * f, 0.019 * f, 0.0195 * f] for f in (1, 1.3, 0.75, 1.1)]
    found = evidence(with_curves("a", *rough), with_curves("b", *steady(0.0205)))
    (crossing,) = crossings(found)
    assert not crossing.certain
    (axis, *_) = drawn(course_figures.curves, found)
    assert lines(axis, "D")[0].get_markerfacecolor() == "none"


def test_of_several_crossings_the_last_one_counts_and_touching_is_none():
    level = with_curves("level", [0.02] * 5)
    (crossing,) = crossings(evidence(with_curves("a", [0.03, 0.01, 0.03, 0.01, 0.01]), level))
    assert (crossing.cell, crossing.times) == ("a", 3)
    assert 30 < crossing.iteration < 40
    assert not crossing.certain
    assert crossings(evidence(with_curves("b", [0.03, 0.02, 0.03, 0.02, 0.03]), level)) == []


# budgets


def test_budget_curve_is_the_expected_lowest_loss_of_a_random_search():
    one = searched_cell("wn", {1e-5: 0.03, 1e-4: 0.01, 1e-3: "diverged"})
    found = evidence(one, search_method="random")
    assert budgets(found)["wn"] == [math.inf, pytest.approx(0.05 / 3), 0.01]
    assert [row["loss"] for row in budget(found).rows] == [None, pytest.approx(0.05 / 3), 0.01]
    one = searched_cell("wn", {1e-5: 0.03, 1e-4: 0.01, 1e-3: 0.02})
    found = evidence(one, search_method="random")
    assert budgets(found)["wn"] == pytest.approx([0.02, 0.04 / 3, 0.01])
    (axis, *_) = drawn(course_figures.budget, found)
    assert list(lines(axis, "o")[0].get_ydata()) == pytest.approx([0.02, 0.04 / 3, 0.01])


@pytest.mark.parametrize("method", ["", "grid", "tpe"])
def test_only_a_random_search_has_a_budget_curve(method):
    found = evidence(searched_cell("wn", {1e-5: 0.03, 1e-4: 0.01}), search_method=method)
    assert budgets(found) == {}
    assert not course_figures.budget(Figure(), found, found.cells)


def test_an_early_stopped_trial_counts_with_what_it_had_come_to():
    one = searched_cell("wn", {1e-4: 0.01, 1e-3: "stopped"})  # at 0.05
    assert budgets(evidence(one, search_method="random"))["wn"] == pytest.approx([0.03, 0.01])


# stability, failures, assumptions


def test_worsening_of_each_run_is_drawn_with_mean_and_interval():
    ratios = [1.10, 1.12, 1.11]
    one = cell("bn", BN[:3])
    tests = {
        run.id: {"best": final(0.01), "last": final(0.01 * ratio)}
        for run, ratio in zip(one.replicates, ratios, strict=True)
    }
    found = evidence(one, finals=tests)
    (axis,) = drawn(cell_figures.worsened, found)
    assert list(lines(axis, "o")[0].get_xdata()) == pytest.approx(ratios)
    assert lines(axis, "|")[0].get_xdata()[0] == pytest.approx(math.prod(ratios) ** (1 / 3))
    assert not cell_figures.worsened(Figure(), evidence(one), [one])


def test_failures_are_counted_by_phase_with_every_attempt():
    first = trial("wn", [], "early-failure", seed=1, kind="replicate")
    again = trial("wn", [0.01] * 6, seed=1, kind="replicate", suffix="-warmup")
    again.config["warmup"] = 100
    searched = [trial("wn", [0.05], "diverged", lr=1e-3), trial("wn", [0.05], "stopped", lr=1e-5)]
    one = CellResults("wn", {}, [first, again, *searched], [first, again], again)
    rows = {(row["kind"], row["warmup"]): row for row in failures(evidence(one)).rows}
    assert set(rows) == {("search", False), ("replicate", False), ("replicate", True)}
    assert (rows["replicate", False]["early-failure"], rows["replicate", False]["ended"]) == (1, 1)
    assert rows["replicate", True]["without_result"] == 0
    search = rows["search", False]
    assert (search["ended"], search["diverged"], search["without_result"]) == (2, 1, 1)


def seen(found):
    return {check.assumption: check for check in checks(found)}


def test_losses_that_are_not_normal_are_said_to_be_so():
    name = "ln(loss) of the runs of a cell is normal"
    assert seen(evidence(cell("bn", BN), cell("wn", WN)))[name].holds
    skewed = seen(evidence(cell("bn", [*[0.01, 0.0101, 0.0099] * 3, 0.1])))[name]
    assert not skewed.holds
    assert "(bn)" in skewed.seen
    assert float(re.search(r"lowest p (\S+)", skewed.seen)[1]) == pytest.approx(
        skewed.value, rel=0.05
    )


def test_the_permutation_test_is_said_to_agree_or_not_to_be_able_to():
    name = "the tests do not rest on the normal distribution"
    assert seen(evidence(cell("bn", BN), cell("wn", WN)))[name].holds
    few = seen(evidence(cell("bn", BN[:3]), cell("wn", WN[:3])))[name]
    assert few.holds is None
    assert "1 comparison: too few runs" in few.seen
    # one wild run hides the difference from Welch's test
    wild = evidence(cell("bn", [*BN, 0.1]), cell("wn", [*WN, 0.0108]))
    pair = of_losses(wild).comparisons[0].contrast
    assert pair.p > 0.05 > pair.p_permutation
    assert seen(wild)[name].holds is False


def test_spreads_images_seeds_and_restarts_are_said():
    cells = cell("bn", BN), cell("wn", [*WN, "failed"])
    found = seen(evidence(*cells, finals=finals({"bn": 0.8, "wn": 0.9}, *cells)))
    text = " ".join(check.seen for check in found.values())
    assert "Final test (2,000 images)" in text
    assert "do not add to the width of the intervals" in text
    assert "5 runs per cell with a result, each with a seed of its own" in text
    assert "1 run gave none" in text
    assert "With restarts from random codes, the cells are in another order" in text
    assert not found["the search finds the best code of each cell equally well"].holds
    without = seen(evidence(*cells))
    assert "Not checked" in without["the search finds the best code of each cell equally well"].seen
    assert without["the loss is measured on images that chose nothing"].holds is False
    assert checks(evidence(cell("bn", BN[:1]))) == []


def test_shares_of_failures_are_compared_in_a_table():
    found = evidence(cell("bn", BN), cell("wn", ["collapsed"] * 5))
    (row,) = (r for r in other_comparisons(found).rows if r["measure"] == "failed")
    assert (row["failed"], row["n"], row["others_failed"], row["others"]) == (0, 5, 5, 5)
    assert row["claimed"]
    assert f"(p = {row['adjusted_p']:.2g})" in sections(found)[2].answer


# numbers


def sweeps():
    """Sweeps whose words have most kinds of numbers."""
    alike = [loss * f for loss, f in zip(BN, [1.02, 0.98, 1, 0.99, 1.01], strict=True)]
    searched = [trial("bn", [0.03] * 6, lr=1e-3), trial("bn", [0.05], "stopped", lr=1e-5)]
    cells = (
        cell("vanilla", [0.014, 0.0151, 0.0133, "diverged", "collapsed"]),
        cell("bn", BN, searched),
        cell("wn", WN, [trial("wn", [0.02] * 6, lr=1e-3)]),
    )
    yield evidence(*cells, baseline=0.0135)
    yield evidence(*cells, finals=finals({"vanilla": 0.96, "bn": 0.7, "wn": 0.98}, *cells))
    yield evidence(cell("bn", BN), cell("sn", alike))
    yield evidence(searched_cell("bn", {1e-4: 0.012, 3e-4: 0.0123}),
                   searched_cell("wn", {1e-4: 0.010}))  # fmt: skip
    yield evidence(cell("bn", BN), cell("wn", ["collapsed"] * 5))
    yield evidence(*(stratum(norm, size, [f * g * loss for loss in BN])
                     for size, f in ((4, 1.0), (8, 0.5))
                     for norm, g in (("bn", 1.0), ("wn", 0.9 + size / 200))))  # fmt: skip


FIXED = {"95", "5", "10", "80", "0", "0.0", "2,000"}
"""Levels and limits that are always the same, and the protocol of the final test."""


def said_as(value):
    """All ways in which words say a number of a table."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return set(re.findall(r"\d[\d,.]*", str(value)))
    size, ways = abs(value), set()
    for number in (size, 100 * size):
        ways |= {f"{number:.{digits}f}" for digits in (0, 1, 2, 5)} | {f"{number:,.0f}"}
        ways |= {f"{number:.2g}", f"{number:g}"}
    return ways | {f"{size:.2f}", str(value)}


@pytest.mark.parametrize("found", list(sweeps()))
def test_every_number_of_a_sentence_is_in_a_table(found):
    known = set(FIXED)
    for sheet in sheets(found):
        for row in sheet.rows:
            known |= {way for value in row.values() for way in said_as(value)}
        known |= said_as(len(sheet.rows))
    text = " ".join([verdict(found), *(section.answer for section in sections(found))])
    names = sorted((cell.name for cell in found.cells), key=len, reverse=True)
    for name in names:
        text = text.replace(name, "")
    numbers = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
    numbers = [number.rstrip(",") for number in numbers]
    assert [number for number in numbers if number not in known] == []


def test_a_number_that_no_table_has_is_found():
    assert "12.3" not in said_as(0.45)
    assert {"0.01200", "1.2"} <= said_as(0.012)


def test_a_legend_of_many_lines_leaves_the_axes_their_height():
    heights = []
    for names in (["a"], [f"{'long name ' * 4}{i}" for i in range(8)]):
        figure = Figure(figsize=(4.7, 3.4))
        axis = figure.subplots()
        for name in names:
            axis.plot([1], [1], label=name)
        legend(figure, axis)
        heights.append(figure.get_figheight())
    assert heights[1] > heights[0] + 1
