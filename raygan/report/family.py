"""Which cells are compared, and which differences can be claimed together.

Two cells are compared if they differ along one axis of the grid. The values of the other axes are
the strata: norms are compared within each architecture, and pooled over the architectures. Data
sets are strata only: cells of different data sets are never compared. All comparisons of one
measure are a family: the chance of any false claim in a family is at most
:attr:`~raygan.report.evidence.Evidence.alpha`.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from raygan.records import DATASET
from raygan.report import stability
from raygan.report.compare import (
    LEAST,
    Contrast,
    contrast,
    heterogeneity_p,
    image_variance,
    pooled,
)
from raygan.report.evidence import CellResults, Evidence, dataset_of
from raygan.report.exact import Ranks, stratified_ranks
from raygan.report.multiple import Choice, choices, holm, shaffer

NOT_COMPARED = ("lr",)
"""Axes that are not compared if there is another axis."""


@dataclass(frozen=True)
class Values:
    """The values of one cell in a comparison."""

    name: str
    logs: Sequence[float]
    """Logarithm of the measure of each run with a result."""
    failed: int = 0
    """Number of runs without a result."""
    images: np.ndarray | None = None
    """Loss of each run on each image, floats [runs, images]; None if images are not counted."""

    @property
    def ranked(self) -> list[float]:
        """The values of all runs; infinity, the worst, for a run without a result."""
        return [*self.logs, *[math.inf] * self.failed]


@dataclass(frozen=True)
class Comparison:
    """The comparison of two cells, or of two values of an axis over all strata."""

    cell: str
    """The cell with the lower mean."""
    other: str
    contrast: Contrast
    """``cell`` against ``other``."""
    axis: str = ""
    """The axis along which they differ."""
    within: str = ""
    """The stratum: values of the other axes, in words; empty without one, or if pooled."""
    failed: tuple[int, int] = (0, 0)
    """Number of runs without a result, of each."""
    ranks: Ranks | None = None
    """The comparison by ranks, with runs without a result as the worst."""
    dataset: str = ""
    """The data set of both cells; empty if the sweep has one, or if pooled."""
    strata: int = 1
    """Number of strata of the grid, if the difference is pooled over them; else 1."""
    stratum: str = "stratum"
    """The word for a stratum: data set, if they differ in nothing else."""
    ranked: Sequence[tuple[Sequence[float], Sequence[float]]] = ()
    """By stratum, ln(loss) of all runs of both; infinity for a run without a result."""
    heterogeneity: float | None = None
    """p of equal differences in all strata; None if runs gave no result."""
    claims: int = 1
    """Number of comparisons in the family."""
    adjusted: float | None = None
    """p, adjusted for all comparisons of the family; None with too few runs."""
    alpha: float = 0.05
    unit: str = "run"
    """The word for what is counted: run, or repeat of the search."""

    @property
    def strata_are(self) -> str:
        """The word for several strata."""
        return "strata" if self.stratum == "stratum" else f"{self.stratum}s"

    @property
    def compared(self) -> int:
        """Number of strata in which both have a run with a result."""
        return sum(min(map(_results, pair)) > 0 for pair in self.ranked)

    @property
    def n(self) -> int:
        """Number of runs of ``cell`` with a result, over the strata in which ``other`` has one."""
        return sum(_results(first) for first, second in self.ranked if _results(second))

    @property
    def others(self) -> int:
        """Number of runs of ``other`` with a result, over the strata in which ``cell`` has one."""
        return sum(_results(second) for first, second in self.ranked if _results(first))

    @property
    def p(self) -> float | None:
        """Two-sided p of Welch's test of the runs with a result.

        If any run gave no result, the two-sided p by ranks, in the same direction, is computed,
        too. The larger p counts.
        """
        p = self.contrast.p
        if p is None or self.ranks is None or not sum(self.failed):
            return p
        lower = self.contrast.log < 0
        return max(p, min(1.0, 2 * (self.ranks.p_lower if lower else self.ranks.p_higher)))

    def ranks_at(self, log: float, cell: str) -> Ranks:
        """The ranks under a true difference of ``log`` instead of 0.

        Runs without a result of ``cell``, one of the two cells, rank below those of the other.
        """
        return stratified_ranks(
            [
                ([x - log for x in a], _before_the_worst(b)) if cell == self.cell
                else ([x - log for x in _before_the_worst(a)], b)
                for a, b in self.ranked
            ]
        )  # fmt: skip

    @property
    def ended(self) -> tuple[int, int]:
        """Number of ended runs of each, with a result or without, over all strata."""
        return sum(len(first) for first, _ in self.ranked), sum(len(b) for _, b in self.ranked)

    @property
    def claimed(self) -> bool:
        """Whether the difference can be claimed."""
        return self.adjusted is not None and self.adjusted <= self.alpha

    @property
    def failures_forbid(self) -> bool:
        """Whether the runs with a result differ, but the ranks with the failed runs do not."""
        p = self.contrast.p
        return not self.claimed and p is not None and self.p is not None and p < self.p and (
            p * self.claims <= self.alpha)  # fmt: skip

    @property
    def detectable(self) -> float | None:
        """The difference, in per cent, that is claimed in 80% of such sweeps; None if runs gave no
        result, since then the ranks decide, too."""
        if sum(self.failed):
            return None
        return self.contrast.detectable(1 - self.alpha / max(1, self.claims))


@dataclass(frozen=True)
class Family:
    """All comparisons of one measure."""

    comparisons: list[Comparison]
    correction: str = ""
    """The name of the correction of p; empty for a single comparison."""
    choices: list[Choice] = field(default_factory=list)
    """By cell, how far its loss may be above those of its data set. All of these
    limits hold together at the level 1 − ``alpha``, and so do those of ``overall``."""
    overall: list[Choice] = field(default_factory=list)
    """By choice of the values of the other axes, the same on average over all data sets; empty
    with one data set."""
    alpha: float = 0.05
    too_few: tuple[str, ...] = ()
    """Cells with too few results for a claim."""

    @property
    def heterogeneous(self) -> list[tuple[Comparison, float]]:
        """The pooled comparisons, each with p of equal differences in all strata, adjusted by Holm;
        the lowest p first."""
        tested = [c for c in self.comparisons if c.heterogeneity is not None]
        adjusted = holm([c.heterogeneity or 0.0 for c in tested])
        return sorted(zip(tested, adjusted, strict=True), key=lambda pair: pair[1])

    def of(self, cell: str, other: str) -> Comparison | None:
        """The comparison of two cells, in either order."""
        return self._by_pair.get(frozenset((cell, other)))

    @cached_property
    def _by_pair(self) -> dict[frozenset[str], Comparison]:
        """By both cells; of several comparisons of the same two, the first."""
        return {frozenset((c.cell, c.other)): c for c in reversed(self.comparisons)}

    @property
    def pooled(self) -> list[Comparison]:
        """The comparisons over several strata."""
        return [c for c in self.comparisons if c.strata > 1]

    @property
    def lacking(self) -> bool:
        """Whether any pooled comparison is over fewer strata than there are."""
        return any(c.compared < c.strata for c in self.pooled)

    @property
    def within(self) -> list[Comparison]:
        """The comparisons of two cells."""
        return [c for c in self.comparisons if c.strata == 1]

    def among(self, cells: Collection[str]) -> Family:
        """What is said of these ``cells`` of one data set, corrected for the whole family."""
        return replace(
            self,
            comparisons=[c for c in self.within if c.cell in cells and c.other in cells],
            choices=[choice for choice in self.choices if choice.cell in cells],
            overall=[],
            too_few=tuple(name for name in self.too_few if name in cells),
        )


def compare(cells: Mapping[str, Mapping[str, Any]], values: Sequence[Values], alpha: float
            ) -> Family:  # fmt: skip
    """Compare ``values`` of cells. ``cells``: by name, the cell's values on the axes of the grid.

    A cell without any result is left out. But it counts in the ranks of a pooled difference: if all
    of its runs failed, it is the worst in its stratum.
    """
    usable = {one.name: one for one in values if len(one.logs)}
    ended = {one.name: one for one in values if one.ranked}
    comparisons: list[Comparison] = []
    for axis in axes(cells):
        comparisons += _along(axis, cells, ended)
    tested = [c for c in comparisons if c.p is not None]
    whole = len(comparisons) == len(tested) == math.comb(len(usable), 2) and not any(
        c.strata > 1 for c in comparisons)  # fmt: skip
    ps = [c.p or 0.0 for c in tested]
    adjusted = shaffer(ps, len(usable)) if whole and len(usable) > 1 else holm(ps)
    by_index = dict(zip(map(id, tested), adjusted, strict=True))
    comparisons = [
        replace(c, adjusted=by_index.get(id(c)), claims=len(tested), alpha=alpha)
        for c in comparisons
    ]
    many = len(tested) > 1
    correction = "Shaffer's correction" if whole and many else "Holm's correction" if many else ""
    best = {one.name: one for one in usable.values() if len(one.logs) >= LEAST}
    # a cell whose runs all failed is the worst: it needs no further results
    too_few = tuple(
        one.name for one in values if one.name not in best and (len(one.logs) or not one.failed)
    )
    return Family(comparisons, correction, *_choices(cells, best, alpha), alpha, too_few)


def _choices(
    cells: Mapping[str, Mapping[str, Any]], best: Mapping[str, Values], alpha: float
) -> tuple[list[Choice], list[Choice]]:
    """How far choices may be above the others: on each data set, and on average over all of them.

    Each of these groups has an equal share of ``alpha``, so that all limits hold together.
    """
    within: dict[str, dict[str, dict[str, Values]]] = {}
    over: dict[str, dict[str, Values]] = {}
    labels = {dataset_of(values): None for values in cells.values()}
    for name, one in best.items():
        label = dataset_of(cells[name])
        within.setdefault(label, {})[name] = {label: one}
        point = " ".join(str(v) for axis, v in cells[name].items() if axis != DATASET)
        over.setdefault(point, {})[label] = one
    whole = {point: by_set for point, by_set in over.items() if by_set.keys() == labels.keys()}
    groups = [within[label] for label in labels if len(within.get(label, ())) > 1]
    pooled_too = len(labels) > 1 and len(whole) > 1
    level = 1 - alpha / max(1, len(groups) + pooled_too)
    chosen = [choice for group in groups for choice in _choose(group, level)]
    return chosen, _choose(whole, level) if pooled_too else []


def _choose(group: Mapping[str, Mapping[str, Values]], level: float) -> list[Choice]:
    """``group``: by name of what is chosen, the values in each data set."""
    against, ranked = {}, {}
    for a, b in itertools.combinations(group, 2):
        pairs = [(group[a][label], group[b][label]) for label in group[a]]
        parts = [part for pair in pairs if (part := _contrast(*pair)) is not None]
        c = parts[0] if len(parts) == 1 else pooled(parts, list(group[a]))
        against[a, b], against[b, a] = c, c.turned
        if any(x.failed or y.failed for x, y in pairs):
            ranked[a, b] = [(x.ranked, y.ranked) for x, y in pairs]
            ranked[b, a] = [(y.ranked, x.ranked) for x, y in pairs]
    return choices(against, level, ranked)


def related(cells: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The pairs of ``cells`` that are compared: they differ along exactly one axis."""
    pairs: dict[tuple[str, str], None] = {}
    for axis in axes(cells):
        strata: dict[str, list[str]] = {}
        for name, values in cells.items():
            rest = {key: value for key, value in values.items() if key != axis}
            strata.setdefault(repr(rest), []).append(name)
        for names in strata.values():
            pairs |= dict.fromkeys(itertools.combinations(names, 2))
    return list(pairs)


def axes(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The axes of the grid along which the cells differ and are compared: never the data sets."""
    points = [dict(values) for values in cells.values()]
    names = list(dict.fromkeys(name for point in points for name in point if name != DATASET))
    varied = [n for n in names if len({repr(point.get(n)) for point in points}) > 1]
    return [name for name in varied if name not in NOT_COMPARED] or varied


def value_names(axis: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[Any, str]:
    """What the values of an axis are called: with its name, such as features=16, if a value of
    another axis is called the same."""
    others = {
        str(value) for values in cells.values() for name, value in values.items() if name != axis
    }
    own = {values[axis]: str(values[axis]) for values in cells.values() if axis in values}
    return {v: f"{axis}={text}" if text in others else text for v, text in own.items()}


def _along(
    axis: str, cells: Mapping[str, Mapping[str, Any]], ended: Mapping[str, Values]
) -> list[Comparison]:
    """The comparisons along one axis: within each stratum, and pooled over the strata."""
    points = [{k: v for k, v in point.items() if k != axis} for point in cells.values()]
    number = len({repr(point) for point in points})
    by_set = len({repr({k: v for k, v in p.items() if k != DATASET}) for p in points}) == 1
    strata: dict[str, dict[Any, Values]] = {}
    for name, one in ended.items():
        rest = {key: value for key, value in cells[name].items() if key != axis}
        strata.setdefault(repr(rest), {})[cells[name][axis]] = one
    comparisons = []
    for by_value in strata.values():
        for a, b in itertools.combinations(by_value.values(), 2):
            rest = {key: value for key, value in cells[a.name].items() if key != axis}
            words = " ".join(str(value) for value in rest.values())
            label = dataset_of(rest)
            found = _pair([(a, b, label)], a.name, b.name, axis)
            within = "" if number == 1 else words
            comparisons.append(found and replace(found, within=within, dataset=label))
    if number == 1:
        return [c for c in comparisons if c is not None]
    names = list(dict.fromkeys(value for by_value in strata.values() for value in by_value))
    called = value_names(axis, cells)
    for first, second in itertools.combinations(names, 2):
        pairs = [
            (by[first], by[second], dataset_of(cells[by[first].name]))
            for by in strata.values()
            if first in by and second in by
        ]
        found = _pair(pairs, called[first], called[second], axis)
        if found is not None and found.compared > 1:  # one alone is that within its stratum
            stratum = "data set" if by_set else "stratum"
            comparisons.append(replace(found, strata=number, stratum=stratum))
    return [c for c in comparisons if c is not None]


def _pair(
    pairs: Sequence[tuple[Values, Values, str]], first: str, second: str, axis: str
) -> Comparison | None:
    """``pairs``: by stratum, the values of both, and the label of the data set."""
    parts = [(part, label) for a, b, label in pairs if (part := _contrast(a, b)) is not None]
    if not parts:
        return None
    contrasts, labels = [part for part, _ in parts], [label for _, label in parts]
    joined = contrasts[0] if len(pairs) == 1 else pooled(contrasts, labels)
    if joined.log > 0:
        return _pair([(b, a, label) for a, b, label in pairs], second, first, axis)
    ranked = [(a.ranked, b.ranked) for a, b, _ in pairs]
    failed = sum(a.failed for a, _, _ in pairs), sum(b.failed for _, b, _ in pairs)
    return Comparison(
        first,
        second,
        joined,
        axis,
        failed=failed,
        ranks=stratified_ranks(ranked),
        ranked=ranked,
        heterogeneity=None if sum(failed) else heterogeneity_p(contrasts),
    )


def _results(values: Sequence[float]) -> int:
    return sum(x < math.inf for x in values)


def _before_the_worst(values: Sequence[float]) -> list[float]:
    return [min(x, sys.float_info.max) for x in values]


def _contrast(a: Values, b: Values) -> Contrast | None:
    both = a.images is not None and b.images is not None
    over_images = image_variance(a.images, b.images) if both else 0.0  # type: ignore[arg-type]
    return contrast(a.logs, b.logs, over_images)


def of_losses(evidence: Evidence) -> Family:
    """The comparisons of the loss, on which the verdict rests."""
    return family(evidence, _losses)


def of_worsening(evidence: Evidence) -> Family:
    """The comparisons of g = ln(last / best loss), both losses of the final test."""
    return family(evidence, _worsening)


def of_speed(evidence: Evidence) -> Family:
    """The comparisons of the mean log loss over the iterations (running test)."""
    return family(evidence, _speed)


def worsening(evidence: Evidence, cell: CellResults) -> dict[int, float]:
    """g = ln(last / best loss), by seed or by repeat.

    Of the cell's runs that ended ok and whose two generators have taken the final test.
    """
    best, last = (evidence.final_losses(cell, which, "loss") for which in ("best", "last"))
    ratios = {seed: last[seed] / best[seed] for seed in sorted(best.keys() & last.keys())}
    return {unit: math.log(ratio) for unit, ratio in cell.units(ratios).items()}


def log_areas(cell: CellResults) -> dict[int, float]:
    """Mean log loss over the iterations, by seed or by repeat, of the runs that ended ok."""
    areas = {
        seed: math.exp(stability.log_area(record.curve))
        for seed, record in cell.runs.items()
        if record.outcome == "ok" and record.history
    }
    return {unit: math.log(area) for unit, area in cell.units(areas).items()}


def _losses(evidence: Evidence, cell: CellResults) -> Values:
    losses = cell.kept(evidence.losses(cell))
    return Values(
        cell.name,
        [math.log(loss) for loss in evidence.units(cell).values()],
        cell.lost,
        np.stack([evidence.images[cell.runs[seed].id] for seed in losses])
        if losses and evidence.part(cell.dataset).counts_images
        else None,
    )


def _worsening(evidence: Evidence, cell: CellResults) -> Values:
    return Values(cell.name, list(worsening(evidence, cell).values()), cell.lost)


def _speed(_: Evidence, cell: CellResults) -> Values:
    return Values(cell.name, list(log_areas(cell).values()), cell.lost)


def family(evidence: Evidence, values: Callable[[Evidence, CellResults], Values]) -> Family:
    """The comparisons of all cells of the sweep by their ``values``.

    If ``evidence`` is that of one data set, only what concerns its cells; but it is corrected for
    the comparisons of all data sets.
    """
    whole = evidence.whole or evidence
    if values not in whole.families:
        whole.families[values] = _compared(whole, values)
    found: Family = whole.families[values]
    return found.among({cell.name for cell in evidence.cells}) if evidence.whole else found


def _compared(evidence: Evidence, values: Callable[[Evidence, CellResults], Values]) -> Family:
    cells = {cell.name: cell.values for cell in evidence.cells}
    found = compare(cells, [values(evidence, cell) for cell in evidence.cells], evidence.alpha)
    unit = evidence.cells[0].unit if evidence.cells else "run"
    return replace(found, comparisons=[replace(c, unit=unit) for c in found.comparisons])
