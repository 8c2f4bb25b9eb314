"""What is computed for each cell, pair or trial of a large sweep is not computed anew for all."""

import itertools
import math
import random

import pytest

from raygan.records import TrialRecord
from raygan.report import (
    comparison_sheets,
    question_figures,
    question_sheets,
    questions,
    sections,
)
from raygan.report.family import of_losses
from raygan.report.multiple import shaffer
from raygan.sweep.session import publish
from tests.report.builders import cell, evidence, finals
from tests.report.measured import measured, measured_cell


def many(count: int):
    draw = random.Random(count)
    cells = [cell(f"n{i}", [0.01 * draw.uniform(1, 1.2) for _ in range(3)]) for i in range(count)]
    return evidence(*cells, finals=finals({one.name: 0.9 for one in cells}, *cells))


class Counted(list):
    """A list that counts how often it is gone through."""

    def __init__(self, values):
        super().__init__(values)
        self.times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()

    def __reversed__(self):
        self.times += 1
        return super().__reversed__()


def test_comparisons_are_found_without_going_through_all_of_them():
    found = of_losses(many(12))
    object.__setattr__(found, "comparisons", Counted(found.comparisons))
    names = [f"n{i}" for i in range(12)]
    for a, b in itertools.product(names, repeat=2):
        one = found.of(a, b)
        assert one is found.of(b, a)
        assert (one is None) is (a == b)
        assert one is None or {one.cell, one.other} == {a, b}
    assert found.of("n0", "other") is None
    assert found.comparisons.times == 1


def test_curves_are_read_as_often_however_many_cells_there_are(monkeypatch):
    reads = []
    curve = TrialRecord.curve.fget
    monkeypatch.setattr(TrialRecord, "curve", property(lambda r: reads.append(r.id) or curve(r)))
    per_run = []
    for count in (3, 9):
        made = many(count)
        comparison_sheets.cells(made)
        sections.sections(made)
        per_run.append(len(reads) / len(made.records))
        reads.clear()
    assert per_run[0] == pytest.approx(per_run[1])


def test_the_target_is_computed_once_for_all_cells_and_trials(monkeypatch):
    means = []
    mean = sections.geometric_mean
    monkeypatch.setattr(sections, "geometric_mean", lambda values: means.append(1) or mean(values))
    made = many(5)
    for record in made.records:
        assert "stability/iterations_to_target" in publish.summary(record, made)
    comparison_sheets.cells(made)
    assert len(means) == 5


def test_the_papers_differences_are_computed_once_for_answers_tables_and_figures(monkeypatch):
    asked = []
    computed = questions.differences
    monkeypatch.setattr(
        questions, "differences", lambda *given: asked.append(given[1:3]) or computed(*given)
    )
    grid = itertools.product(("vanilla", "bn", "wn"), ("dcgan", "resnet"))
    made = measured(
        *(
            measured_cell({"norm": norm, "architecture": network}, [0.01, 0.011, 0.012])
            for norm, network in grid
        )
    )
    questions.questions(made)
    question_sheets.question_sheets(made)
    question_figures.parts(made)
    against = [("wn", "bn"), ("wn", "vanilla")]
    assert sorted(asked) == sorted([("bn", "vanilla"), *against, *against])


def equal_pairs(cells: int) -> set[int]:
    """By Shaffer's recursion."""
    if cells < 2:
        return {0}
    return {
        math.comb(group, 2) + rest
        for group in range(1, cells + 1)
        for rest in equal_pairs(cells - group)
    }


@pytest.mark.parametrize("cells", [2, 3, 4, 7, 11])
def test_shaffers_factors_are_those_of_his_recursion(cells):
    pairs = math.comb(cells, 2)
    ps = sorted(random.Random(cells).random() ** 9 for _ in range(pairs))
    factors = [max(c for c in equal_pairs(cells) if c <= pairs - n) for n in range(pairs)]
    raw = [min(1.0, max(1, factor) * p) for factor, p in zip(factors, ps, strict=True)]
    assert shaffer(ps, cells) == list(itertools.accumulate(raw, max))


def test_shaffers_correction_of_hundreds_of_cells_needs_no_deep_recursion():
    assert shaffer([0.5] * math.comb(400, 2), 400)[0] == 1
