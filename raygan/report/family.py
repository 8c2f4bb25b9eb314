"""Which cells are compared, and which differences can be claimed together.

Two cells are compared if they differ along one axis of the grid. The values of the other axes are
the strata: norms are compared within each architecture, and pooled over the architectures. All
comparisons of one measure are a family: the chance of any false claim in a family is at most
:attr:`~raygan.report.evidence.Evidence.alpha`.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from raygan.report import stability
from raygan.report.compare import (
    LEAST,
    Contrast,
    contrast,
    heterogeneity_p,
    image_variance,
    pooled,
)
from raygan.report.evidence import CellResults, Evidence
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
    strata: int = 1
    """Number of strata of the grid, if the difference is pooled over them; else 1."""
    ranked: Sequence[tuple[Sequence[float], Sequence[float]]] = ()
    """By stratum, ln(loss) of all runs of both; infinity for a run without a result."""
    heterogeneity: float | None = None
    """p of equal differences in all strata."""
    claims: int = 1
    """Number of comparisons in the family."""
    adjusted: float | None = None
    """p, adjusted for all comparisons of the family; None with too few runs."""
    alpha: float = 0.05
    unit: str = "run"
    """The word for what is counted: run, or repeat of the search."""

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
        """The difference, in per cent, that is claimed in 80% of such sweeps."""
        return self.contrast.detectable(1 - self.alpha / max(1, self.claims))


@dataclass(frozen=True)
class Family:
    """All comparisons of one measure."""

    comparisons: list[Comparison]
    correction: str = ""
    """The name of the correction of p; empty for a single comparison."""
    choices: list[Choice] = field(default_factory=list)
    """By cell, what its choice gives up at most."""

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
        return next((c for c in self.comparisons if {c.cell, c.other} == {cell, other}), None)

    @property
    def pooled(self) -> list[Comparison]:
        """The comparisons over several strata."""
        return [c for c in self.comparisons if c.strata > 1]

    @property
    def within(self) -> list[Comparison]:
        """The comparisons of two cells."""
        return [c for c in self.comparisons if c.strata == 1]


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
    best = [one for one in usable.values() if len(one.logs) >= LEAST]
    against = {}
    for a, b in itertools.combinations(best, 2):
        if (c := _contrast(a, b)) is not None:
            against[a.name, b.name], against[b.name, a.name] = c, c.turned
    by_name = {one.name: one for one in best}
    ranked = {
        (a, b): (by_name[a].ranked, by_name[b].ranked)
        for a, b in against
        if by_name[a].failed or by_name[b].failed
    }
    # a cell whose runs all failed is the worst: it needs no further results
    too_few = tuple(
        one.name for one in values if one.name not in by_name and (len(one.logs) or not one.failed)
    )
    return Family(comparisons, correction, choices(against, 1 - alpha, ranked), alpha, too_few)


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
    """The axes of the grid along which the cells differ and are compared."""
    points = [dict(values) for values in cells.values()]
    names = list(dict.fromkeys(name for point in points for name in point))
    varied = [n for n in names if len({repr(point.get(n)) for point in points}) > 1]
    return [name for name in varied if name not in NOT_COMPARED] or varied


def _along(
    axis: str, cells: Mapping[str, Mapping[str, Any]], ended: Mapping[str, Values]
) -> list[Comparison]:
    """The comparisons along one axis: within each stratum, and pooled over the strata."""
    strata: dict[str, dict[Any, Values]] = {}
    for name, one in ended.items():
        rest = {key: value for key, value in cells[name].items() if key != axis}
        words = " ".join(str(value) for value in rest.values())
        strata.setdefault(words, {})[cells[name][axis]] = one
    number = len({repr({k: v for k, v in point.items() if k != axis}) for point in cells.values()})
    comparisons = []
    for words, by_value in strata.items():
        for a, b in itertools.combinations(by_value.values(), 2):
            comparisons.append(_pair([(a, b)], a.name, b.name, axis, "" if number == 1 else words))
    if number == 1:
        return [c for c in comparisons if c is not None]
    names = list(dict.fromkeys(value for by_value in strata.values() for value in by_value))
    for first, second in itertools.combinations(names, 2):
        pairs = [(by[first], by[second]) for by in strata.values() if first in by and second in by]
        if len(pairs) > 1:
            comparisons.append(_pair(pairs, str(first), str(second), axis, "", number))
    return [c for c in comparisons if c is not None]


def _pair(
    pairs: Sequence[tuple[Values, Values]],
    first: str,
    second: str,
    axis: str,
    within: str,
    strata: int = 1,
) -> Comparison | None:
    parts = [part for a, b in pairs if (part := _contrast(a, b)) is not None]
    if not parts:
        return None
    joined = parts[0] if len(pairs) == 1 else pooled(parts)
    if joined.log > 0:
        return _pair([(b, a) for a, b in pairs], second, first, axis, within, strata)
    ranked = [(a.ranked, b.ranked) for a, b in pairs]
    return Comparison(
        first,
        second,
        joined,
        axis,
        within,
        (sum(a.failed for a, _ in pairs), sum(b.failed for _, b in pairs)),
        stratified_ranks(ranked),
        strata,
        ranked,
        heterogeneity_p(parts),
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
    return _of(evidence, partial(_losses, evidence))


def of_worsening(evidence: Evidence) -> Family:
    """The comparisons of g = ln(last / best loss), both losses of the final test."""
    return _of(evidence, lambda c: Values(c.name, list(worsening(evidence, c).values()), c.lost))


def of_speed(evidence: Evidence) -> Family:
    """The comparisons of the mean log loss over the iterations (running test)."""
    return _of(evidence, lambda cell: Values(cell.name, list(log_areas(cell).values()), cell.lost))


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
    losses = evidence.losses(cell)
    return Values(
        cell.name,
        [math.log(loss) for loss in evidence.units(cell).values()],
        cell.lost,
        np.stack([evidence.images[cell.runs[seed].id] for seed in losses])
        if losses and evidence.counts_images
        else None,
    )


def _of(evidence: Evidence, values: Any) -> Family:
    cells = {cell.name: cell.values for cell in evidence.cells}
    family = compare(cells, [values(cell) for cell in evidence.cells], evidence.alpha)
    unit = evidence.cells[0].unit if evidence.cells else "run"
    return replace(family, comparisons=[replace(c, unit=unit) for c in family.comparisons])
