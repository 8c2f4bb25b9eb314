"""Which cells are compared with each other, and what may be claimed of them together.

Only comparisons that mean something are made: one axis of the grid at a time, within the strata
that the other axes make (norm within each architecture), and pooled over the strata. All
comparisons of one measure are one family: any false claim among them has at most the chance
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
from raygan.report.evidence import Cell, Evidence
from raygan.report.exact import Ranks, stratified_ranks
from raygan.report.multiple import Choice, choices, holm, shaffer

NOT_COMPARED = ("lr",)
"""Axes that are searched rather than compared, as long as there is another axis."""


@dataclass(frozen=True)
class Values:
    """What one cell brings to a comparison."""

    name: str
    logs: Sequence[float]
    """Logarithms of the measure of its runs that gave a result."""
    failed: int = 0
    """Runs without a result."""
    images: np.ndarray | None = None
    """Loss of each run on each image, floats [runs, images], if the images are to count."""

    @property
    def ranked(self) -> list[float]:
        """All runs, those without a result as the worst."""
        return [*self.logs, *[math.inf] * self.failed]


@dataclass(frozen=True)
class Comparison:
    """Two cells, or two values of an axis over all strata, and what may be claimed of them."""

    cell: str
    """The one with the lower mean."""
    other: str
    contrast: Contrast
    """``cell`` against ``other``."""
    axis: str = ""
    """What differs between them."""
    within: str = ""
    """The values of the other axes, in words; empty if there are none, or if they are pooled."""
    failed: tuple[int, int] = (0, 0)
    """Runs of each that gave no result."""
    ranks: Ranks | None = None
    """The same by ranks, runs without a result as the worst."""
    strata: int = 1
    """How many strata the grid has for a pooled difference; 1 if it is not pooled."""
    ranked: Sequence[tuple[Sequence[float], Sequence[float]]] = ()
    """ln(loss) of all runs of both by stratum, infinity without a result."""
    heterogeneity: float | None = None
    """p of equal differences in all strata."""
    claims: int = 1
    """Comparisons of the family."""
    adjusted: float | None = None
    """p, adjusted for all comparisons of the family; None with too few runs."""
    alpha: float = 0.05
    unit: str = "run"
    """What is counted, in a word: runs, or repeats of the search."""

    @property
    def compared(self) -> int:
        """In how many strata both have a run that gave a result."""
        return sum(min(map(_results, pair)) > 0 for pair in self.ranked)

    @property
    def n(self) -> int:
        """Runs of ``cell`` that the difference stands on: those that gave a result, over the
        strata that are compared."""
        return sum(_results(first) for first, second in self.ranked if _results(second))

    @property
    def others(self) -> int:
        """The same of ``other``."""
        return sum(_results(second) for first, second in self.ranked if _results(first))

    @property
    def p(self) -> float | None:
        """Two-sided p: Welch's of the runs that gave a result and, if any run did not, also that of
        the ranks in the same direction, whichever is larger."""
        p = self.contrast.p
        if p is None or self.ranks is None or not sum(self.failed):
            return p
        lower = self.contrast.log < 0
        return max(p, min(1.0, 2 * (self.ranks.p_lower if lower else self.ranks.p_higher)))

    def ranks_at(self, log: float, cell: str) -> Ranks:
        """The same by ranks for a true difference of ``log`` instead of none; the runs without a
        result of ``cell``, one of the two, as worse than those of the other."""
        return stratified_ranks(
            [
                ([x - log for x in a], _before_the_worst(b)) if cell == self.cell
                else ([x - log for x in _before_the_worst(a)], b)
                for a, b in self.ranked
            ]
        )  # fmt: skip

    @property
    def ended(self) -> tuple[int, int]:
        """Runs of each that have ended, with a result or without, over all strata."""
        return sum(len(first) for first, _ in self.ranked), sum(len(b) for _, b in self.ranked)

    @property
    def claimed(self) -> bool:
        """Whether a difference can be claimed."""
        return self.adjusted is not None and self.adjusted <= self.alpha

    @property
    def failures_forbid(self) -> bool:
        """Whether the runs that gave a result differ, but their ranks with the others do not."""
        p = self.contrast.p
        return not self.claimed and p is not None and self.p is not None and p < self.p and (
            p * self.claims <= self.alpha)  # fmt: skip

    @property
    def detectable(self) -> float | None:
        """The difference, in per cent, that would be claimed in 80% of such sweeps."""
        return self.contrast.detectable(1 - self.alpha / max(1, self.claims))


@dataclass(frozen=True)
class Family:
    """All comparisons of one measure."""

    comparisons: list[Comparison]
    correction: str = ""
    """How p is adjusted, in words."""
    choices: list[Choice] = field(default_factory=list)
    """What each cell gives up at most."""

    alpha: float = 0.05
    too_few: tuple[str, ...] = ()
    """Cells with too few results for a claim, or none yet."""

    @property
    def heterogeneous(self) -> list[tuple[Comparison, float]]:
        """The pooled comparisons with p of equal differences in all strata, adjusted by Holm, the
        lowest first."""
        tested = [c for c in self.comparisons if c.heterogeneity is not None]
        adjusted = holm([c.heterogeneity or 0.0 for c in tested])
        return sorted(zip(tested, adjusted, strict=True), key=lambda found: found[1])

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
    """Compare ``values``, whose ``cells`` say where each lies on the grid's axes.

    Cells without a run that gave a result are left out, except by the ranks of a pooled difference:
    a cell that failed altogether in a stratum is the worst there.
    """
    usable = {one.name: one for one in values if len(one.logs)}
    ended = {one.name: one for one in values if one.ranked}
    found: list[Comparison] = []
    for axis in axes(cells):
        found += _along(axis, cells, ended)
    tested = [c for c in found if c.p is not None]
    whole = len(found) == len(tested) == math.comb(len(usable), 2) and not any(
        c.strata > 1 for c in found)  # fmt: skip
    ps = [c.p or 0.0 for c in tested]
    adjusted = shaffer(ps, len(usable)) if whole and len(usable) > 1 else holm(ps)
    by_index = dict(zip(map(id, tested), adjusted, strict=True))
    found = [
        replace(c, adjusted=by_index.get(id(c)), claims=len(tested), alpha=alpha) for c in found
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
    # a cell that failed altogether is the worst: all others are better
    too_few = tuple(
        one.name for one in values if one.name not in by_name and (len(one.logs) or not one.failed)
    )
    return Family(found, correction, choices(against, 1 - alpha, ranked), alpha, too_few)


def related(cells: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The pairs of ``cells`` that are compared: those that differ along one axis alone."""
    found: dict[tuple[str, str], None] = {}
    for axis in axes(cells):
        strata: dict[str, list[str]] = {}
        for name, values in cells.items():
            rest = {key: value for key, value in values.items() if key != axis}
            strata.setdefault(repr(rest), []).append(name)
        for names in strata.values():
            found |= dict.fromkeys(itertools.combinations(names, 2))
    return list(found)


def axes(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The grid's axes along which the cells differ and are compared."""
    values = [dict(found) for found in cells.values()]
    names = list(dict.fromkeys(name for found in values for name in found))
    varied = [n for n in names if len({repr(found.get(n)) for found in values}) > 1]
    return [name for name in varied if name not in NOT_COMPARED] or varied


def _along(
    axis: str, cells: Mapping[str, Mapping[str, Any]], ended: Mapping[str, Values]
) -> list[Comparison]:
    """The comparisons along one axis: within each stratum, and pooled over several."""
    strata: dict[str, dict[Any, Values]] = {}
    for name, one in ended.items():
        rest = {key: value for key, value in cells[name].items() if key != axis}
        words = " ".join(str(value) for value in rest.values())
        strata.setdefault(words, {})[cells[name][axis]] = one
    number = len({repr({k: v for k, v in found.items() if k != axis}) for found in cells.values()})
    found = []
    for words, by_value in strata.items():
        for a, b in itertools.combinations(by_value.values(), 2):
            found.append(_pair([(a, b)], a.name, b.name, axis, "" if number == 1 else words))
    if number == 1:
        return [c for c in found if c is not None]
    names = list(dict.fromkeys(value for by_value in strata.values() for value in by_value))
    for first, second in itertools.combinations(names, 2):
        pairs = [(by[first], by[second]) for by in strata.values() if first in by and second in by]
        if len(pairs) > 1:
            found.append(_pair(pairs, str(first), str(second), axis, "", number))
    return [c for c in found if c is not None]


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
    """The comparisons of the loss that the verdict stands on."""
    return _of(evidence, partial(_losses, evidence))


def of_worsening(evidence: Evidence) -> Family:
    """The comparisons of g = ln(last / best loss), both in the final test."""
    return _of(evidence, lambda c: Values(c.name, list(worsening(evidence, c).values()), c.lost))


def of_speed(evidence: Evidence) -> Family:
    """The comparisons of the mean log loss over the run (running test)."""
    return _of(evidence, lambda cell: Values(cell.name, list(log_areas(cell).values()), cell.lost))


def worsening(evidence: Evidence, cell: Cell) -> dict[int, float]:
    """g by seed (or by repeat) of the cell's runs that ended ok and whose two generators took the
    final test."""
    best, last = (evidence.final_losses(cell, which, "loss") for which in ("best", "last"))
    ratios = {seed: last[seed] / best[seed] for seed in sorted(best.keys() & last.keys())}
    return {unit: math.log(ratio) for unit, ratio in cell.units(ratios).items()}


def log_areas(cell: Cell) -> dict[int, float]:
    """The mean log loss over the iterations, by seed (or by repeat), of the runs that ended ok."""
    areas = {
        seed: math.exp(stability.log_area(record.curve))
        for seed, record in cell.runs.items()
        if record.outcome == "ok" and record.history
    }
    return {unit: math.log(area) for unit, area in cell.units(areas).items()}


def _losses(evidence: Evidence, cell: Cell) -> Values:
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
