"""The figures of the paper's four questions: forest plots, and loss against a second measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from raygan.records import DATASET
from raygan.report import monitoring, words
from raygan.report.cell_figures import FRAME, MOST_ROWS, WIDTH, signed
from raygan.report.drawing import COLORS, INK, MARKERS, MOST_TICKS, label, legend
from raygan.report.evidence import CellResults, Evidence
from raygan.report.monitoring import DISTANCES
from raygan.report.norm_contrasts import Difference
from raygan.report.questions import first, fourth, second, varied

Plot = Callable[[Figure, Evidence, list[CellResults]], bool]
_BETTER, _WORSE = COLORS[2], COLORS[1]
_LEAST_REACH = 5.0
"""Per cent that the axis of a forest plot shows at least on the side of the values."""
_MOST_REACH = 100.0
"""Per cent that the axis of a forest plot shows at most on a side; larger values are written."""
_MOST_SETS = 3
"""Most data sets of which runs are drawn."""


@dataclass(frozen=True)
class _Row:
    """A heading, or a difference for each column; that of one stratum or data set of several is
    drawn light."""

    name: str
    differences: tuple[Difference | None, ...] = ()
    light: bool = False


def parts(evidence: Evidence) -> list[tuple[str, str, str, Plot, tuple[float, float]]]:
    """Key, title, caption, plot and size of each figure."""
    reading = (
        "Left of 0 the first norm's value is lower, which is better unless the row says that "
        "higher is. Line: 95% CI; filled: can be claimed (green better, orange worse)."
    )
    return [
        ("rq1", "RQ1: BN against no normalisation", reading, *_forest(first(evidence), _measures)),
        ("rq2", "RQ2: WN against the others", reading, *_forest(second(evidence), _measures)),
        ("rq3", "RQ3: the loss and a second measure", "Left: each line is a run, its end marked; "
         "down and left is better. Right: correlations in each run; given the iteration, those "
         "whose interval is above 0 are better. Line: mean, 95% CI.", _monitoring, (WIDTH, 3.6)),
        ("rq4", "RQ4: WN's loss against the others, by stratum", reading,
         *_forest(fourth(evidence) if varied(evidence) else [], _strata)),
    ]  # fmt: skip


def _forest(
    found: Sequence[Difference], make: Callable[[Sequence[Difference]], list[_Row]]
) -> tuple[Plot, tuple[float, float]]:
    """The plot of ``found``, with a column for each pair of norms, and its size."""
    rows = make(found)[:MOST_ROWS]
    pairs = list(dict.fromkeys((one.first, one.second) for one in found))

    def plot(figure: Figure, *_: object) -> bool:
        return _draw(figure, rows, [f"{a} against {b}" for a, b in pairs])

    return plot, (WIDTH, FRAME + 0.23 * max(3, len(rows)))


def _measures(found: Sequence[Difference]) -> list[_Row]:
    """By group of measures, a row for each; below it, its data sets or strata if there are
    several."""
    rows: list[_Row] = []
    group = ""
    several_sets = len({one.dataset for one in found if not one.whole}) > 1
    means = {one.dataset for one in found if not one.whole and not one.within}
    for (_, whole, dataset, within), mine in _alike(found).items():
        measure = next(one.measure for one in mine if one is not None)
        if whole:
            if measure.group != group:
                group = measure.group
                rows.append(_Row(group))
            rows.append(_Row(f"{measure.title}{', higher is better' if measure.higher else ''}",
                             mine))  # fmt: skip
        elif not (several_sets and within and dataset in means):
            # of a data set with several strata, their mean stands for them
            rows.append(_Row(_where(dataset, within), mine, light=True))
    return rows


def _strata(found: Sequence[Difference]) -> list[_Row]:
    """A row for the mean over all strata, and one for each data set and stratum."""
    return [
        _Row("mean of all" if whole else _where(dataset, within), mine, light=not whole)
        for (_, whole, dataset, within), mine in _alike(found).items()
    ]


_Key = tuple[str, bool, str, str]


def _alike(found: Sequence[Difference]) -> dict[_Key, tuple[Difference | None, ...]]:
    """By measure and stratum, the differences of each pair of norms."""
    pairs = list(dict.fromkeys((one.first, one.second) for one in found))
    by_key: dict[_Key, dict[tuple[str, str], Difference]] = {}
    for one in found:
        key = (one.measure.key, one.whole, one.dataset, one.within)
        by_key.setdefault(key, {})[one.first, one.second] = one
    return {key: tuple(mine.get(pair) for pair in pairs) for key, mine in by_key.items()}


def _where(dataset: str, within: str) -> str:
    return " ".join(filter(None, [dataset, within])) or "this sweep"


def _draw(figure: Figure, rows: Sequence[_Row], columns: Sequence[str]) -> bool:
    every = [one for row in rows for one in row.differences if one is not None]
    if not any(one.interval for one in every):
        return False
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    low, high = _reach(every)
    room = 0.04 * (high - low)
    for column, (axis, title) in enumerate(zip(axes, columns, strict=True)):
        for number, row in enumerate(rows):
            if row.differences and (one := row.differences[column]) is not None:
                _mark(axis, one, number, low, high, light=row.light)
        axis.axvline(0, color=INK, lw=1)
        axis.set_title(title, fontsize="small")
        axis.set(xlim=(low - room, high + room), xlabel="difference")
        axis.xaxis.set_major_locator(MaxNLocator(7 if len(columns) == 1 else 4))
        axis.xaxis.set_major_formatter(FuncFormatter(signed))
        axis.grid(visible=True, axis="x")
    axes[0].set_yticks(range(len(rows)), [label(row.name) for row in rows], fontsize="small")
    for text, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if row.differences else "bold")
        text.set_alpha(0.75 if row.light else 1)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    if any(one.measure.points for one in every):
        note = "runs without a result, recall and coverage: percentage points; all others: per cent"
        figure.supxlabel(note, fontsize="small")
    return True


def _reach(shown: Sequence[Difference]) -> tuple[float, float]:
    """Ends of an axis that shows 0 and, as far as they are not too far away, values and
    intervals."""
    values = [one.value for one in shown]
    most = min(_MOST_REACH, 2 * max(_LEAST_REACH, *map(abs, values)))
    ends = [end for one in shown if one.interval for end in (one.interval.low, one.interval.high)]
    kept = [max(-most, min(most, value)) for value in (*values, *ends)]
    return min(0.0, *kept), max(0.0, *kept)


def _mark(
    axis: Axes, one: Difference, number: int, low: float, high: float, *, light: bool
) -> None:
    color = (_BETTER if one.better else _WORSE) if one.claimed else INK
    alpha = 0.7 if light else 1.0
    if not low <= one.value <= high:
        at, marker, side = (low, "<", "left") if one.value < low else (high, ">", "right")
        axis.plot([at], [number], marker, color=color, ms=5, alpha=alpha,
                  mfc=color if one.claimed else "none")  # fmt: skip
        text = f"  {words.percent(one.value, signed=True)}  "
        axis.text(at, number, text, color=color, alpha=alpha,
                  fontsize="x-small", va="center",
                  ha="left" if side == "left" else "right")  # fmt: skip
        return
    if one.interval is not None:
        ends = [max(one.interval.low, low), min(one.interval.high, high)]
        axis.plot(ends, [number, number], color=color, lw=1 if light else 1.6, alpha=alpha)
        cut = ((low, "<", one.interval.low < low), (high, ">", one.interval.high > high))
        for at, marker, is_cut in cut:
            if is_cut:
                axis.plot([at], [number], marker, color=color, ms=5, alpha=alpha)
    axis.plot([one.value], [number], "D" if one.strata > 1 else "o", color=color, alpha=alpha,
              ms=4.5 if light else 6.5, mfc=color if one.claimed else "none")  # fmt: skip


def _monitoring(figure: Figure, evidence: Evidence, _: object) -> bool:
    name = monitoring.distance(evidence)
    courses = monitoring.courses(evidence, name) if name else []
    if name is None or not courses:
        return False
    labels = list(dict.fromkeys(course.dataset for course in courses))
    groups = _groups(evidence, courses)
    drawn = labels[:_MOST_SETS]
    axes = figure.subplots(1, len(drawn) + 1, squeeze=False)[0]
    for axis, dataset in zip(axes, drawn, strict=False):
        mine = [course for course in courses if course.dataset == dataset]
        _runs(axis, mine, groups)
        axis.set_xlabel("loss (running test)")
        if dataset:
            axis.set_title(label(dataset), fontsize="small")
    axes[0].set_ylabel(DISTANCES[name], fontsize="small")
    _rhos(axes[-1], courses)
    for group, number in dict.fromkeys(groups.values()):
        if number < len(COLORS):
            axes[0].plot([], [], MARKERS[number], color=COLORS[number], label=label(group))
    legend(figure, axes[0])
    return True


def _groups(evidence: Evidence, courses: Sequence[monitoring.Course]) -> dict[str, tuple[str, int]]:
    """By cell, its name without the data set, and its number among these names."""
    drawn = {course.cell for course in courses}
    several = len({cell.dataset for cell in evidence.cells}) > 1
    names = {
        cell.name: " ".join(str(v) for axis, v in cell.values.items() if axis != DATASET)
        if several
        else cell.name
        for cell in evidence.cells
    }
    order = list(dict.fromkeys(names.values()))
    return {cell: (name, order.index(name)) for cell, name in names.items() if cell in drawn}


def _runs(
    axis: Axes, courses: Sequence[monitoring.Course], groups: Mapping[str, tuple[str, int]]
) -> None:
    for course in courses:
        _, number = groups[course.cell]
        known = number < len(COLORS)
        color, marker = (COLORS[number], MARKERS[number]) if known else (INK, "o")
        axis.plot(course.losses, course.distances, color=color, lw=0.9, alpha=0.5)
        axis.plot(course.losses[-1:], course.distances[-1:], marker, color=color, ms=6, mew=0)
    low, high = axis.dataLim.intervalx
    if high > 3 * low > 0:
        axis.set_xscale("log")
    if min(min(course.distances) for course in courses) > 0:
        axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(MOST_TICKS - 1))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        one.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axis.grid(visible=True)


def _rhos(axis: Axes, courses: Sequence[monitoring.Course]) -> None:
    rows = {
        "in a run": [monitoring.spearman(c.losses, c.distances) for c in courses],
        "given the\niteration": monitoring.given_iteration(courses),
    }
    means = [
        monitoring.over_runs(rows["in a run"]),
        monitoring.over_cells(courses, rows["given the\niteration"]),
    ]
    for number, (rhos, mean) in enumerate(zip(rows.values(), means, strict=True)):
        known = [rho for rho in rhos if rho is not None and math.isfinite(rho)]
        shifts = [number + 0.22 * (((7 * i) % 10) / 10 - 0.45) for i in range(len(known))]
        axis.plot(known, shifts, "o", color=INK, ms=4, mew=0, alpha=0.35)
        if mean is None:
            continue
        axis.plot([mean.rho], [number + 0.3], "|", color=INK, ms=11, mew=2)
        if mean.interval is not None:
            axis.plot([mean.interval.low, mean.interval.high], [number + 0.3] * 2, color=INK, lw=2)
    axis.axvline(0, color=INK, lw=1)
    axis.set_yticks(range(len(rows)), list(rows), fontsize="small")
    axis.set(xlim=(-1.05, 1.05), ylim=(len(rows) - 0.45, -0.5), xlabel="rank correlation ρ")
    axis.grid(visible=True, axis="x")
