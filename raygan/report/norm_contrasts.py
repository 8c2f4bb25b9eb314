"""Two norms compared by several measures: in each stratum, within each data set, and over all.

A stratum is a data set with one value of every other axis of the grid. Differences are contrasts
of the first norm against the second, by the tests of :mod:`raygan.report.family`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import special

from raygan.records import DATASET
from raygan.report.compare import (
    LEAST,
    LEVEL,
    Contrast,
    Interval,
    contrast,
    heterogeneity_p,
    pooled,
    wilson,
)
from raygan.report.evidence import CellResults, Evidence, dataset_of
from raygan.report.exact import failures_p, stratified_ranks
from raygan.report.family import (
    Comparison,
    Family,
    of_losses,
    of_speed,
    of_worsening,
    value_names,
)
from raygan.report.multiple import holm
from raygan.report.norm_measures import Measure, loss

NORM = "norm"
FAMILIES: dict[str, Callable[[Evidence], Family]] = {
    "loss": of_losses,
    "log_area": of_speed,
    "worsening": of_worsening,
}
"""By measure, the comparisons in the verdict and its sections."""


@dataclass(frozen=True)
class Stratum:
    """Two cells that differ in their norm only."""

    dataset: str
    within: str
    """The values of the other axes, in words; empty without one."""
    first: CellResults
    second: CellResults

    @property
    def rest(self) -> dict[str, Any]:
        """The values of all axes but the norm."""
        return _rest(self.first)


_NO_SPREAD = 1e-12
"""Standard error of a difference up to which the runs do not differ but for rounding."""


@dataclass(frozen=True)
class Difference:
    """The first norm against the second, by one measure."""

    measure: Measure
    first: str
    second: str
    value: float
    """In per cent, or in percentage points."""
    interval: Interval | None
    """At the level :data:`raygan.report.compare.LEVEL`; None with too few runs, and without any
    spread between runs."""
    p: float | None
    """Two-sided; without any spread, that of the ranks."""
    n: int
    """Runs of the first norm: those with a result, or for failures those that ended."""
    others: int
    failed: tuple[int, int]
    dataset: str = ""
    within: str = ""
    strata: int = 1
    """Number of strata that it is the mean of."""
    of: int = 1
    """Number of strata that it is about: more than ``strata``, if some have no result of both."""
    whole: bool = True
    """Whether it is about all strata of the sweep."""
    heterogeneity: float | None = None
    """p of equal differences in all strata; None if runs gave no result."""
    unequal: float | None = None
    """``heterogeneity``, adjusted as in the verdict or its section; None if it is not there."""
    contrast: Contrast | None = None
    """The difference of the means of the values; None for failures."""
    comparison: Comparison | None = None
    adjusted: float | None = None
    """p, adjusted as :func:`adjusted` says."""
    tests: int = 1
    """Number of tests for which ``adjusted`` is corrected."""
    alpha: float = 0.05
    unit: str = "run"
    """The word for what is counted: run, or repeat of the search."""

    @property
    def detectable(self) -> float | None:
        """The size of a difference that would be claimed in 80% of such sweeps, in per cent or
        percentage points; None for failures, with too few runs, without any spread, and if runs
        gave no result, since then the ranks decide, too."""
        if self.contrast is None or self.interval is None or max(self.failed) > 0:
            return None
        found = self.contrast.detectable(1 - self.alpha / max(1, self.tests))
        return None if found is None else self.measure.shown(math.log1p(found / 100))

    @property
    def failures_forbid(self) -> bool:
        """Whether the runs with a result differ, but the ranks with the failed runs do not."""
        welch = None if self.contrast is None else self.contrast.p
        return (
            not self.claimed and welch is not None and self.p is not None and welch < self.p
            and welch * self.tests <= self.alpha
        )  # fmt: skip

    @property
    def known(self) -> bool:
        """Whether there are enough runs to say something."""
        return self.interval is not None or self.p is not None

    @property
    def claimed(self) -> bool:
        """Whether the difference can be claimed."""
        return self.adjusted is not None and self.adjusted <= self.alpha

    @property
    def better(self) -> bool:
        """Whether the first norm has the better value."""
        return (self.value > 0) is self.measure.higher and self.value != 0


def norms(evidence: Evidence) -> list[str]:
    """The norms that are compared, in the order of the grid; empty if the norm is no axis."""
    return list(dict.fromkeys(str(c.values[NORM]) for c in evidence.cells if NORM in c.values))


def strata(evidence: Evidence, first: str, second: str) -> list[Stratum]:
    """The strata in which the grid has both norms."""
    by_rest: dict[str, dict[str, CellResults]] = {}
    for cell in evidence.cells:
        if NORM in cell.values:
            by_rest.setdefault(repr(_rest(cell)), {})[str(cell.values[NORM])] = cell
    return [
        Stratum(cells[first].dataset, _words(cells[first]), cells[first], cells[second])
        for cells in by_rest.values()
        if first in cells and second in cells
    ]


def _rest(cell: CellResults) -> dict[str, Any]:
    return {name: value for name, value in cell.values.items() if name != NORM}


def _words(cell: CellResults) -> str:
    return " ".join(str(value) for name, value in _rest(cell).items() if name != DATASET)


def differences(
    evidence: Evidence, first: str, second: str, chosen: Sequence[Measure]
) -> list[Difference]:
    """By measure, the differences that are known: over all strata first, then within each data
    set, then in each stratum. p is not adjusted: see :func:`adjusted`."""
    every = strata(evidence, first, second)
    labels = list(dict.fromkeys(stratum.dataset for stratum in every))
    found = []
    for measure in chosen:
        groups = [(every, "", "", True)] if every else []
        if len(every) > 1:
            by_set = [[s for s in every if s.dataset == label] for label in labels]
            if len(labels) > 1:
                groups += [(m, m[0].dataset, "", False) for m in by_set if len(m) > 1]
            groups += [([s], s.dataset, s.within, False) for m in by_set for s in m]
        for group, dataset, within, whole in groups:
            one = (
                _failures(measure, group)
                if measure.values is None
                else _values(evidence, measure, group)
            )
            if one is not None:
                one = replace(one, first=first, second=second, alpha=evidence.alpha)
                one = replace(one, unit=group[0].first.unit)
                one = replace(one, dataset=dataset, within=within, whole=whole)
                found.append(replace(one, of=len(group)))
    return found


def adjusted(found: Sequence[Difference]) -> list[Difference]:
    """p adjusted by Holm, where it is not adjusted yet.

    The loss, the loss over the whole run, and last against best loss are adjusted as in the verdict
    and its sections, so that no answer claims what these do not. What these do not test, the means
    within a data set, is a family of its own by measure. Failed runs are a family of their own, and
    so are the other measures; of each, those over all strata, and all others.
    """
    after = list(found)
    for whole in (True, False):
        kinds: dict[str, list[int]] = {}
        for i, one in enumerate(found):
            if one.whole is whole and one.p is not None and one.adjusted is None:
                kinds.setdefault(_kind(one.measure), []).append(i)
        for tested in kinds.values():
            for i, p in zip(tested, holm([found[i].p or 0.0 for i in tested]), strict=True):
                after[i] = replace(found[i], adjusted=p, tests=len(tested))
    return after


def _kind(measure: Measure) -> str:
    """The family in which a measure is tested, if it is in none yet."""
    if measure.values is None or measure.key in FAMILIES:
        return measure.key
    return ""


def _primary(
    evidence: Evidence, measure: Measure, group: Sequence[Stratum], compared: Sequence[Stratum]
) -> Comparison | None:
    """The same difference in the verdict or its sections; None if it is not there.

    ``compared``: the strata of ``group`` in which both have a result; of a single one, it is the
    difference there.
    """
    if measure.key not in FAMILIES:
        return None
    losses = FAMILIES[measure.key](evidence)
    if len(compared) == 1:
        return losses.of(compared[0].first.name, compared[0].second.name)
    called = value_names(NORM, {cell.name: cell.values for cell in evidence.cells})
    pair = {called[cell.values[NORM]] for cell in (group[0].first, group[0].second)}
    return next(
        (
            c
            for c in losses.pooled
            if c.axis == NORM and {c.cell, c.other} == pair and c.strata == len(group)
        ),
        None,
    )


def _values(evidence: Evidence, measure: Measure, group: Sequence[Stratum]) -> Difference | None:
    assert measure.values is not None
    losses = of_losses(evidence)
    sign = -1 if measure.higher else 1
    parts, compared, ranked = [], [], []
    for stratum in group:
        a, b = (
            list(measure.values(evidence, cell).values())
            for cell in (stratum.first, stratum.second)
        )
        part = _contrast(measure, stratum, a, b, losses)
        if part is not None:
            parts.append(part)
            compared.append(stratum)
        first, second = (
            [*(sign * value for value in values), *[math.inf] * cell.lost]
            for values, cell in ((a, stratum.first), (b, stratum.second))
        )
        if first and second:
            ranked.append((first, second))
    if not parts:
        return None
    joined = (
        parts[0] if len(parts) == 1 else pooled(parts, [stratum.dataset for stratum in compared])
    )
    comparison = Comparison(
        cell=str(group[0].first.values[NORM]),
        other=str(group[0].second.values[NORM]),
        contrast=joined if sign == 1 else joined.turned,
        failed=(sum(s.first.lost for s in group), sum(s.second.lost for s in group)),
        ranks=stratified_ranks(ranked),
        ranked=ranked,
        strata=len(group),
        alpha=evidence.alpha,
    )
    interval, p = joined.interval(), comparison.p
    if interval is not None and joined.error <= _NO_SPREAD and comparison.ranks is not None:
        # all runs of each cell have the same value, such as a coverage of 0: no spread is known,
        # and Welch's test would claim any difference
        interval = None
        p = min(1.0, 2 * min(comparison.ranks.p_lower, comparison.ranks.p_higher))
    if interval is not None:
        reach = float(special.stdtrit(joined.freedom, (1 + LEVEL) / 2)) * joined.error
        interval = Interval(measure.shown(joined.log - reach), measure.shown(joined.log + reach))
    primary = _primary(evidence, measure, group, compared)
    unequal = FAMILIES[measure.key](evidence).heterogeneous if primary is not None else []
    return Difference(
        measure=measure,
        first="",
        second="",
        value=measure.shown(joined.log),
        interval=interval,
        p=p,
        n=comparison.n,
        others=comparison.others,
        failed=comparison.failed,
        strata=len(parts),
        heterogeneity=None if sum(comparison.failed) else heterogeneity_p(parts),
        unequal=next((p for one, p in unequal if one is primary), None),
        contrast=joined,
        comparison=comparison,
        adjusted=None if primary is None else primary.adjusted,
        tests=1 if primary is None else primary.claims,
    )


def _contrast(
    measure: Measure, stratum: Stratum, a: list[float], b: list[float], losses: Family
) -> Contrast | None:
    if measure.key != "loss":
        return contrast(a, b)
    # that of the verdict counts the choice of few images, too
    found = losses.of(stratum.first.name, stratum.second.name)
    if found is None:
        return contrast(a, b)
    return found.contrast if found.cell == stratum.first.name else found.contrast.turned


def _failures(measure: Measure, group: Sequence[Stratum]) -> Difference | None:
    """The difference of the shares of failed runs: the mean of those of the strata.

    The interval is Newcombe's (1998) from Wilson's; over strata, as Zou & Donner (2008) combine
    them. p: Boschloo's; over strata, the exact conditional test, that of the ranks of 0 and 1.
    """
    known = [
        s for s in group if s.first.replicates and s.second.replicates and s.first.tried
        and s.second.tried
    ]  # fmt: skip
    if not known:
        return None
    gaps, below, above = [], 0.0, 0.0
    for stratum in known:
        (a, first), (b, second) = (_share(cell) for cell in (stratum.first, stratum.second))
        gaps.append(a - b)
        below += (a - first.low) ** 2 + (second.high - b) ** 2
        above += (first.high - a) ** 2 + (b - second.low) ** 2
    k, mean = len(known), math.fsum(gaps) / len(known)
    counts = [(s.first.lost, s.first.tried, s.second.lost, s.second.tried) for s in known]
    failed = sum(c[0] for c in counts), sum(c[2] for c in counts)
    p, interval = None, None
    if min(min(n, m) for _, n, _, m in counts) >= LEAST:
        p = _failures_p(counts)
        low, high = mean - math.sqrt(below) / k, mean + math.sqrt(above) / k
        interval = Interval(100 * max(-1.0, low), 100 * min(1.0, high))
    return Difference(
        measure=measure,
        first="",
        second="",
        value=100 * mean,
        interval=interval,
        p=p,
        n=sum(c[1] for c in counts),
        others=sum(c[3] for c in counts),
        failed=failed,
        strata=k,
    )


def _failures_p(counts: Sequence[tuple[int, int, int, int]]) -> float | None:
    """``counts``: by stratum, the failed and all runs of the first norm, and of the second."""
    if len(counts) == 1:
        return failures_p(*counts[0])
    if not any(a or b for a, _, b, _ in counts):
        return None
    ranks = stratified_ranks([(_zero_one(a, n), _zero_one(b, m)) for a, n, b, m in counts])
    return min(1.0, 2 * min(ranks.p_lower, ranks.p_higher))


def _share(cell: CellResults) -> tuple[float, Interval]:
    interval = wilson(cell.lost, cell.tried)
    assert interval is not None
    return cell.lost / cell.tried, interval


def _zero_one(count: int, n: int) -> list[float]:
    return [1.0] * count + [0.0] * (n - count)


@dataclass(frozen=True)
class Interaction:
    """How much the difference of two norms depends on another axis."""

    first: str
    second: str
    axis: str
    level: str
    base: str
    """The difference at ``level`` against that at ``base``, two values of ``axis``."""
    contrast: Contrast
    whole: bool = True
    """Whether every run gave a result; if not, it is not tested."""
    adjusted: float | None = None
    """p, adjusted for all interactions (Holm)."""
    alpha: float = 0.05

    @property
    def claimed(self) -> bool:
        """Whether it can be claimed that the difference depends on the axis."""
        return self.adjusted is not None and self.adjusted <= self.alpha


def interactions(
    evidence: Evidence, pairs: Sequence[tuple[str, str]], axes: Sequence[str]
) -> list[Interaction]:
    """The interactions of the loss with each axis: its values against the first one.

    With d the contrast of a stratum, it is the mean of d at the level minus that at the base, over
    the strata that are alike in all other axes. So it is a ratio of ratios of losses.
    """
    found = []
    for first, second in pairs:
        every = strata(evidence, first, second)
        by_stratum = [(s.rest, _values(evidence, loss(evidence), [s])) for s in every]
        parts = [(rest, one.contrast) for rest, one in by_stratum if one and one.contrast]
        for axis in axes:
            levels = list(dict.fromkeys(str(rest[axis]) for rest, _ in parts if axis in rest))
            for level in levels[1:]:
                sides = _matched(parts, axis, level, levels[0])
                if sides is not None:
                    joined = _minus(*sides)
                    whole = not any(cell.lost for s in every for cell in (s.first, s.second))
                    found.append(Interaction(first, second, axis, level, levels[0], joined, whole))
    tested = [one for one in found if one.whole and one.contrast.p is not None]
    after = dict(zip(map(id, tested), holm([one.contrast.p or 0.0 for one in tested]), strict=True))
    return [replace(one, adjusted=after.get(id(one)), alpha=evidence.alpha) for one in found]


def _matched(
    parts: Sequence[tuple[dict[str, Any], Contrast]], axis: str, level: str, base: str
) -> tuple[Contrast, Contrast] | None:
    """The mean contrasts at the level and at the base, over the strata that have both."""
    by_rest: dict[str, dict[str, tuple[Contrast, str]]] = {}
    for rest, one in parts:
        others = repr({name: value for name, value in rest.items() if name != axis})
        known = one, dataset_of(rest)
        by_rest.setdefault(others, {})[str(rest.get(axis))] = known
    both = [by for by in by_rest.values() if level in by and base in by]
    if not both:
        return None
    first, second = (
        pooled([by[which][0] for by in both], [by[which][1] for by in both])
        for which in (level, base)
    )
    return first, second


def _minus(first: Contrast, second: Contrast) -> Contrast:
    variances = first.error**2, second.error**2
    used = variances[0] ** 2 / first.freedom + variances[1] ** 2 / second.freedom
    total = sum(variances)
    return Contrast(
        first.log - second.log,
        math.sqrt(total),
        total**2 / used if used else first.freedom + second.freedom,
        min(first.n, second.n),
        min(first.others, second.others),
    )
