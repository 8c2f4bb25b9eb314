"""Whether the reconstruction loss monitors training: its relation to a second measure.

The second measure is a distance between samples and images (lower is better) that the evaluations
measured beside the loss. All correlations are rank correlations (Spearman 1904).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from raygan.records import LOSS, STEP, TrialRecord
from raygan.report import stability
from raygan.report.compare import LEAST, LEVEL, Interval, geometric_mean
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import QUALITIES, number, positive
from raygan.report.qualities import SHARES, comparable, units

DISTANCES = {name: title for name, title in QUALITIES.items() if name not in SHARES}
"""By name, the second measures, the first one that was measured being used."""
LEAST_WITHIN, LEAST_GIVEN = 5, 12
"""Least evaluations of a run for a correlation within it, and for one given the iteration."""
DRAWS = 500
"""Draws of the cluster bootstrap."""
_MOST_RHO = 0.999
"""A stronger correlation counts as this one, since Fisher's z of 1 is infinite."""
_NOTHING = 1e-12
"""A smaller range of logarithms is rounding."""
_ROUNDING = 1e-9
"""Values whose relative difference is not above this rank as ties."""

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """The evaluations of one run at which both the loss and the second measure are known."""

    cell: str
    dataset: str
    trial: str
    steps: Sequence[int]
    losses: Sequence[float]
    distances: Sequence[float]


@dataclass(frozen=True)
class Correlation:
    """A mean correlation over runs, with its interval over them (Fisher's z, Student's t)."""

    n: int
    rho: float
    interval: Interval | None
    """None below three runs or cells."""
    unit: str = "run"
    """The word for what is counted: run or cell."""


@dataclass(frozen=True)
class Use:
    """ln Q(lowest loss) − ln Q(last): what choosing an evaluation by the loss does to the second
    measure Q; below 0, the choice is better than the last evaluation."""

    n: int
    percent: float
    interval: Interval | None
    """None below three runs."""
    left_out: int = 0
    """The other runs: their measure is 0 or less at one of both evaluations."""


@dataclass(frozen=True)
class Alarms:
    """How often the loss rises again in runs in which the second measure does, and in others."""

    worse: int
    """Runs in which the second measure got worse again after its best."""
    told: int
    """Those of them in which the loss did, too."""
    steady: int
    """The other runs."""
    false: int
    """Those of them in which the loss got worse again."""
    left_out: int = 0
    """Runs with enough evaluations whose measure is 0 or less at one of them."""


@dataclass(frozen=True)
class Between:
    """A correlation between runs or cells of one data set, at their end."""

    kind: str
    """``runs``: over all runs; ``within``: of runs within their cells; ``cells``: between means of
    cells."""
    n: int
    """Runs or cells."""
    rho: float
    interval: Interval | None
    """By a cluster bootstrap over cells and the runs in them; None below three cells."""


Groups = tuple[tuple[str, ...], ...]
"""Cells in their order, the best first; those whose means are tied stand in one group."""


@dataclass(frozen=True)
class Order:
    """The order of the cells of a data set by two measures: that of their observed means."""

    by_loss: Groups
    by_other: Groups
    tau: float | None
    """Kendall's τ-b: 1 if both orders are the same, −1 if one is the reverse of the other. It is
    Kendall's τ without ties; None if all cells are tied by a measure."""
    interval: Interval | None = None
    """That of ``tau``, by a bootstrap over the runs in each cell; None without runs or ``tau``."""

    @property
    def n(self) -> int:
        """Number of cells."""
        return sum(map(len, self.by_loss))

    @property
    def same(self) -> bool:
        """Whether both orders are the same, ties included."""
        return self.by_loss == self.by_other

    @property
    def tied(self) -> bool:
        """Whether any cells are tied."""
        return min(len(self.by_loss), len(self.by_other)) < self.n


def distance(evidence: Evidence) -> str | None:
    """The name of the second measure; None if no run of the verdict has one."""
    runs = [record for cell in evidence.cells for record in cell.runs.values()]
    known = {name for record in runs for point in record.history for name in point}
    return next((name for name in DISTANCES if f"val/{name}" in known), None)


def courses(evidence: Evidence, name: str) -> list[Course]:
    """The courses of the ended runs, whatever their outcome, with at least
    :data:`LEAST_WITHIN` evaluations."""
    found = [_course(cell, record, name) for cell in evidence.cells for record in cell.ended]
    return [course for course in found if len(course.steps) >= LEAST_WITHIN]


def _course(cell: CellResults, record: TrialRecord, name: str) -> Course:
    points = [
        (int(point[STEP]), loss, value)
        for point in record.history
        if (loss := positive(point, LOSS)) is not None
        and (value := number(point, f"val/{name}")) is not None
    ]
    steps, losses, values = zip(*points, strict=True) if points else ((), (), ())
    return Course(cell.name, cell.dataset, record.id, steps, losses, values)


def spearman(first: Sequence[float] | _Array, second: Sequence[float] | _Array) -> float | None:
    """Spearman's ρ; None if either is constant or there are fewer than two values."""
    if len(first) < 2:
        return None
    return _pearson(stats.rankdata(first), stats.rankdata(second))


def given_iteration(found: Sequence[Course]) -> list[float | None]:
    """By run, the rank correlation of loss and measure that is left once the iteration is known.

    What the other runs of its cell have on average at the same iteration is taken from the
    logarithms of both, and Spearman's ρ of the rest is computed. So nothing is assumed of the
    curve: all runs of a cell may fall in steps, or collapse at the same iteration. 0 if nothing is
    left of either. None unless, at :data:`LEAST_GIVEN` of its evaluations, :data:`LEAST` runs of
    the cell have both. A measure that is not above 0 everywhere is used as it is.
    """
    cells: dict[str, list[Course]] = {}
    for course in found:
        cells.setdefault(course.cell, []).append(course)
    together = {
        name: (_together([c.steps for c in mine], [c.losses for c in mine]),
               _together([c.steps for c in mine], [c.distances for c in mine]))
        for name, mine in cells.items()
    }  # fmt: skip
    return [_given_others(course, *together[course.cell]) for course in found]


@dataclass(frozen=True)
class _Together:
    """What the runs of a cell have together of one measure."""

    above: bool
    """Whether all values are above 0, so that their logarithms are used."""
    sums: Mapping[int, tuple[float, int]]
    """By iteration at which at least :data:`LEAST` runs have a value, the sum and the number of
    these."""

    def used(self, values: Sequence[float]) -> _Array:
        """The values, or their logarithms."""
        return np.log(values) if self.above else np.asarray(values)

    def rest(self, steps: Sequence[int], values: Sequence[float]) -> _Array:
        """What is left of the values of a run, less the mean of the others: its own value is taken
        out of the sum."""
        return np.asarray([
            own - (self.sums[step][0] - own) / (self.sums[step][1] - 1)
            for step, own in zip(steps, self.used(values), strict=True)
            if step in self.sums
        ])  # fmt: skip


def _together(steps: Sequence[Sequence[int]], values: Sequence[Sequence[float]]) -> _Together:
    """``steps`` and ``values``: of each run of a cell."""
    by_step: dict[int, list[float]] = {}
    for mine, own in zip(steps, values, strict=True):
        for step, value in zip(mine, own, strict=True):
            by_step.setdefault(step, []).append(value)
    found = _Together(all(value > 0 for own in values for value in own), {})
    sums = {
        step: (float(found.used(there).sum()), len(there))
        for step, there in by_step.items()
        if len(there) >= LEAST
    }
    return replace(found, sums=sums)


def _given_others(course: Course, losses: _Together, distances: _Together) -> float | None:
    rests = [losses.rest(course.steps, course.losses),
             distances.rest(course.steps, course.distances)]  # fmt: skip
    if len(rests[0]) < LEAST_GIVEN:
        return None
    if any(np.ptp(rest) <= _NOTHING for rest in rests):
        return 0.0
    return spearman(*rests) or 0.0


def over_cells(found: Sequence[Course], rhos: Sequence[float | None]) -> Correlation | None:
    """The mean over cells of the mean of their runs, by Fisher's z; None if none is known.

    What is left of a run depends on the other runs of its cell, so that cells are counted.
    """
    cells: dict[str, list[float]] = {}
    for course, rho in zip(found, rhos, strict=True):
        if rho is not None:
            cells.setdefault(course.cell, []).append(rho)
    means = [over_runs(mine) for mine in cells.values()]
    known = over_runs([mean.rho for mean in means if mean is not None])
    return None if known is None else replace(known, unit="cell")


def over_runs(rhos: Sequence[float | None]) -> Correlation | None:
    """The mean of the known correlations of runs by Fisher's z; None if there are none."""
    known = [max(-_MOST_RHO, min(_MOST_RHO, rho)) for rho in rhos if rho is not None]
    if not known:
        return None
    mean, interval = _mean([math.atanh(rho) for rho in known])
    if interval is not None:
        interval = Interval(math.tanh(interval.low), math.tanh(interval.high))
    return Correlation(len(known), math.tanh(mean), interval)


def _mean(values: Sequence[float]) -> tuple[float, Interval | None]:
    n, mean = len(values), math.fsum(values) / len(values)
    if n < LEAST:
        return mean, None
    reach = float(special.stdtrit(n - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, Interval(mean - reach, mean + reach)


def use(found: Sequence[Course]) -> Use | None:
    """The mean over the runs whose measure is above 0; None without any."""
    gains = []
    for course in found:
        chosen, last = course.distances[int(np.argmin(course.losses))], course.distances[-1]
        if chosen > 0 and last > 0:
            gains.append(math.log(chosen / last))
    if not gains:
        return None
    mean, interval = _mean(gains)
    if interval is not None:
        interval = Interval(*(100 * math.expm1(end) for end in (interval.low, interval.high)))
    return Use(len(gains), 100 * math.expm1(mean), interval, len(found) - len(gains))


def alarms(found: Sequence[Course]) -> Alarms | None:
    """The alarms of the runs with enough evaluations whose measure is above 0; None without any
    run with enough.

    A curve gets worse again if it ends above its best, both smoothed, by more than 95% of flat
    curves with its noise do (:func:`raygan.report.stability.flat_worsening`).
    """
    enough = [course for course in found if len(course.steps) >= stability.ENOUGH]
    if not enough:
        return None
    pairs = [
        (_worsens(course.steps, course.distances), _worsens(course.steps, course.losses))
        for course in enough
        if min(course.distances) > 0
    ]
    worse = [told for is_worse, told in pairs if is_worse]
    steady = [told for is_worse, told in pairs if not is_worse]
    left_out = len(enough) - len(pairs)
    return Alarms(len(worse), sum(worse), len(steady), sum(steady), left_out)


def _worsens(steps: Sequence[int], values: Sequence[float]) -> bool:
    curve = list(zip(steps, values, strict=True))
    rise, flat = stability.worsening(curve), stability.flat_worsening(curve)
    return rise is not None and flat is not None and rise > flat.high


Ends = dict[str, list[tuple[float, float]]]
"""By cell of one data set, ln(loss) and the second measure of each run at its end or, if the search
was repeated, their means in each repeat; empty for a cell of which no run is known. Of the second
measure, it is the logarithm if all are above 0."""


def ends(evidence: Evidence, name: str, dataset: str) -> Ends:
    """The loss of the verdict and the second measure of the runs that ended ok.

    The measure is that of the best generator at the end, or that of the last evaluation
    (:func:`of_final_tests`).
    """
    cells = [c for c in evidence.cells if c.dataset == dataset]
    tested = _tested(evidence, name, cells)
    values = tested or {
        c.name: {
            seed: value
            for seed in evidence.losses(c)
            if (value := _last(c.runs[seed], name)) is not None
        }
        for c in cells
    }
    above = all(value > 0 for mine in values.values() for value in mine.values())
    found: Ends = {}
    for cell in cells:
        losses, mine = evidence.units(cell), values[cell.name]
        if above:
            others = {unit: math.log(value) for unit, value in cell.units(mine).items()}
        else:
            others = units(cell, mine)
        found[cell.name] = [
            (math.log(loss), others[unit]) for unit, loss in losses.items() if unit in others
        ]
    return found


def of_final_tests(evidence: Evidence, name: str, dataset: str) -> bool:
    """Whether the second measure was measured alike at the end of all runs of a data set."""
    return bool(_tested(evidence, name, [c for c in evidence.cells if c.dataset == dataset]))


def _tested(
    evidence: Evidence, name: str, cells: Sequence[CellResults]
) -> dict[str, dict[int, float]]:
    """By cell and seed, the measure of the best generator at the end; empty if it was not measured
    alike for all runs with a loss."""
    known = comparable(evidence, name, "best")
    if any(seed not in known[c.name] for c in cells for seed in evidence.losses(c)):
        return {}
    return {c.name: {s: known[c.name][s] for s in evidence.losses(c)} for c in cells}


def _last(record: TrialRecord, name: str) -> float | None:
    return number(record.history[-1], f"val/{name}") if record.history else None


def between(found: Ends) -> list[Between]:
    """The three correlations of the ends of the runs of one data set, those that are known."""
    cells = [np.asarray(runs, dtype=float) for runs in found.values() if runs]
    sizes = {
        "runs": sum(map(len, cells)),
        "within": sum(len(runs) for runs in cells if len(runs) > 1),
        "cells": len(cells),
    }
    seen = _three(cells)
    if len(cells) < LEAST:
        drawn = np.empty((0, 3))
    else:
        generator = np.random.default_rng(0)
        drawn = np.array([_three(_redrawn(cells, generator)) for _ in range(DRAWS)])
    return [
        Between(kind, sizes[kind], float(seen[i]), _quantiles(drawn[:, i]))
        for i, kind in enumerate(sizes)
        if not math.isnan(seen[i]) and sizes[kind] >= LEAST
    ]


def _redrawn(cells: Sequence[_Array], generator: np.random.Generator) -> list[_Array]:
    """Cells drawn with replacement, and in each its runs."""
    chosen = generator.integers(len(cells), size=len(cells))
    return _runs_redrawn([cells[i] for i in chosen], generator)


def _runs_redrawn(cells: Sequence[_Array], generator: np.random.Generator) -> list[_Array]:
    """The same cells, and in each its runs drawn with replacement."""
    return [rows[generator.integers(len(rows), size=len(rows))] for rows in cells]


def _three(cells: Sequence[_Array]) -> tuple[float, float, float]:
    """The correlations over all runs, within cells, and between means of cells; NaN if unknown."""
    several = [rows for rows in cells if len(rows) > 1]
    rests = _joined([rows - rows.mean(axis=0) for rows in several])
    sizes = np.abs(_joined(several))
    sizes[:, 0] = 1  # a difference of ln(loss) is relative to the loss already
    pairs = (
        _joined(cells).T,
        [_levels(rest, size) for rest, size in zip(rests.T, sizes.T, strict=True)],
        _mean_levels(cells),
    )
    rhos = (spearman(*pair) for pair in pairs)
    first, second, third = (math.nan if rho is None else rho for rho in rhos)
    return first, second, third


def _joined(parts: Sequence[_Array]) -> _Array:
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _levels(values: _Array, sizes: _Array) -> _Array:
    """Whole numbers from 0 that rank as ``values``.

    Neighbours that differ by at most :data:`_ROUNDING` of their ``sizes`` have the same number.
    """
    ascending = np.argsort(values)
    steps = np.diff(values[ascending], prepend=values[ascending][:1])
    levels = np.empty(len(values))
    levels[ascending] = np.cumsum(steps > _ROUNDING * sizes[ascending])
    return levels


def _mean_levels(cells: Sequence[_Array]) -> list[_Array]:
    """The levels of the cells by their mean loss (geometric) and by the mean second measure."""
    means = _joined([rows.mean(axis=0, keepdims=True) for rows in cells])
    return [_levels(mean, np.maximum(1, np.abs(mean))) for mean in means.T]


def _quantiles(drawn: _Array) -> Interval | None:
    """The interval of what was drawn; None if most draws have no correlation."""
    known = drawn[~np.isnan(drawn)]
    if len(known) < max(1, len(drawn)) / 2:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _pearson(first: _Array, second: _Array) -> float | None:
    a, b = first - first.mean(), second - second.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / size)) if size > 1e-9 else None


def order(found: Ends) -> Order | None:
    """The order of the cells by their mean loss (geometric) and by the mean second measure.

    None below two cells, and if a cell has fewer than :data:`LEAST` runs. For the interval of τ,
    the runs in each cell are drawn again, but not the cells: the order is that of these cells.
    """
    if any(len(runs) < LEAST for runs in found.values()):
        return None
    cells = [np.asarray(runs, dtype=float) for runs in found.values()]
    seen = _order(list(found), *_mean_levels(cells))
    if seen is None or seen.tau is None:
        return seen
    generator = np.random.default_rng(0)
    drawn = [kendall(*_mean_levels(_runs_redrawn(cells, generator))) for _ in range(DRAWS)]
    return replace(seen, interval=_quantiles(np.array(drawn, dtype=float)))  # None becomes NaN


def ordered(means: dict[str, tuple[float, float]]) -> Order | None:
    """The order of cells by two measures, the lower the better; None below two cells."""
    columns = np.array(list(means.values()), dtype=float).reshape(-1, 2).T
    return _order(list(means), *(_levels(column, np.abs(column)) for column in columns))


def _order(cells: Sequence[str], by_loss: _Array, by_other: _Array) -> Order | None:
    if len(cells) < 2:
        return None
    first, second = (_grouped(cells, levels) for levels in (by_loss, by_other))
    return Order(first, second, kendall(by_loss, by_other))


def _grouped(cells: Sequence[str], levels: _Array) -> Groups:
    return tuple(
        tuple(cell for cell, own in zip(cells, levels, strict=True) if own == level)
        for level in np.unique(levels)
    )


def kendall(first: _Array, second: _Array) -> float | None:
    """Kendall's τ-b; None if either is constant.

    It is the correlation of the signs of the differences between all pairs (Daniels 1944).
    """
    signs = (np.sign(np.subtract.outer(values, values)).ravel() for values in (first, second))
    return _pearson(*signs)


@dataclass(frozen=True)
class Ball:
    """Where the codes found in the final test lie, of one cell.

    Each value is a mean over its runs that ended ok, None unless it is known of all of them.
    """

    cell: str
    dataset: str
    loss: float | None
    """Geometric mean of the loss with free codes, of the images of ``ball_loss``."""
    ball_loss: float | None
    """The same with codes kept within the prior's ball."""
    code_norm: float | None
    """Mean of |z| / √d."""
    outside: float | None
    """Share of the images whose code lies outside of the ball."""


def balls(evidence: Evidence) -> list[Ball]:
    """What is known of the codes, by cell; empty if nothing is."""
    found = []
    for cell in evidence.cells:
        runs = [r for r in cell.kept(cell.runs).values() if r.outcome == "ok"]
        tests = [evidence.finals.get(record.id, {}).get("best", {}) for record in runs]
        # the ball's loss may be of fewer images than the final test's: then that of these is known
        free = [positive(t, "ball_free_loss") or positive(t, "loss") for t in tests]
        within = [positive(test, "ball_loss") for test in tests]
        norms = [positive(test, "code_norm") for test in tests]
        shares = [number(test, "outside") for test in tests]
        means = (_geometric(within), _plain(norms), _plain(shares))
        if any(mean is not None for mean in means):
            found.append(Ball(cell.name, cell.dataset, _geometric(free), *means))
    return found


def _geometric(values: Sequence[float | None]) -> float | None:
    mean = geometric_mean(_all(values))
    return None if mean is None else mean.value


def _plain(values: Sequence[float | None]) -> float | None:
    known = _all(values)
    return math.fsum(known) / len(known) if known else None


def _all(values: Sequence[float | None]) -> list[float]:
    """The values if all are known, else none."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []
