"""The forest plot: all differences between cells with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, MaxNLocator

from raygan.report.cell_figures import FRAME, MOST_ROWS, WIDTH, signed
from raygan.report.compare import percent
from raygan.report.drawing import INK, label
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Comparison, of_losses, value_names

_PAIR, _MOST_PAIR = 46, 170
"""Most characters of a line, and of all lines, of the name of a pair."""


def size(evidence: Evidence) -> tuple[float, float]:
    """Inches of :func:`forest`."""
    lines = [row.name.count("\n") + 1 for row in rows(evidence)]
    return WIDTH, FRAME + 0.12 * len(lines) + 0.16 * sum(lines)


@dataclass(frozen=True)
class _Row:
    """One row of a forest plot: a heading, or a comparison with its cells in the grid's order."""

    name: str
    comparison: Comparison | None = None
    turned: bool = False
    """Whether the row shows the second cell of the comparison against the first."""

    def percent(self, value: float) -> float:
        """A difference in per cent, as this row shows it."""
        return percent(-math.log1p(max(value / 100, -1 + 1e-15))) if self.turned else value


def rows(evidence: Evidence) -> list[_Row]:
    """The rows by stratum, with a heading for each stratum if there are several; the strata of each
    data set stand together."""
    family, labels = of_losses(evidence), list(evidence.parts)
    groups: dict[str, list[Comparison]] = {}
    within = sorted(family.within, key=lambda c: labels.index(c.dataset))
    for c in [*family.pooled, *within]:
        heading = f"{c.axis}, over all {c.strata_are}" if c.strata > 1 else ""
        groups.setdefault(f"{c.axis} within {c.within}" if c.within else heading, []).append(c)
    every: list[_Row] = []
    for heading, mine in groups.items():
        every += [_Row(label(heading))] if heading else []
        every += [_row(evidence, c) for c in mine]
    left = len(family.comparisons) - sum(row.comparison is not None for row in every[:MOST_ROWS])
    return every[:MOST_ROWS] + ([_Row(f"{left} more in the table")] if left else [])


def _row(evidence: Evidence, comparison: Comparison) -> _Row:
    values = {cell.name: cell.values.get(comparison.axis) for cell in evidence.cells}
    called = value_names(comparison.axis, {cell.name: cell.values for cell in evidence.cells})
    order = list(called.values()) if comparison.strata > 1 else list(values)
    turned = order.index(comparison.cell) < order.index(comparison.other)
    pair = [comparison.other, comparison.cell] if turned else [comparison.cell, comparison.other]
    # the heading names the stratum, so the values that differ are enough
    names = [str(values[name]) for name in pair] if comparison.within else pair
    return _Row(label(" against ".join(names), _MOST_PAIR, _PAIR), comparison, turned)


def forest(figure: FigureBase, evidence: Evidence, _: Sequence[CellResults]) -> bool:
    """Each difference with its interval, and the chance that a run of the first cell is better."""
    shown = rows(evidence)
    if not any(row.comparison is not None and row.comparison.contrast.testable for row in shown):
        return False
    axis, better = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    low, high = _reach(shown)
    for number, row in enumerate(shown):
        if (comparison := row.comparison) is None:
            continue
        marker: dict[str, Any] = {
            "marker": "D" if comparison.strata > 1 else "o",
            "color": INK,
            "ms": 6,
            "mfc": INK if comparison.claimed else "none",
        }
        _line(axis, row, number, low, high)
        axis.plot([row.percent(comparison.contrast.percent)], [number], **marker)
        if comparison.ranks is not None:
            share = comparison.ranks.improvement
            better.plot([100 * (1 - share if row.turned else share)], [number], **marker)
    axis.set_yticks(range(len(shown)), [row.name for row in shown], fontsize="small")
    axis.set_ylim(len(shown) - 0.4, -0.6)
    for text, row in zip(axis.get_yticklabels(), shown, strict=True):
        text.set_fontweight("bold" if row.comparison is None else "normal")
    axis.axvline(0, color=INK, lw=1)
    room = 0.04 * (high - low)
    axis.set(xlim=(low - room, high + room), xlabel="difference of the mean loss")
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(FuncFormatter(signed))
    better.axvline(50, color=INK, lw=1, ls=":")
    better.set(xlim=(-6, 106), xticks=(0, 50, 100), xlabel="chance of the\nbetter run")
    better.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
    better.tick_params(left=False)
    for one in (axis, better):
        one.grid(visible=True, axis="x")
    return True


def _reach(shown: Sequence[_Row]) -> tuple[float, float]:
    """Ends of an axis that shows 0, all differences and, if they are not too wide, their
    intervals."""
    compared = [(row, row.comparison.contrast) for row in shown if row.comparison is not None]
    values = [row.percent(contrast.percent) for row, contrast in compared]
    most = 3 * max(1.0, *map(abs, values))
    ends = [
        row.percent(end)
        for row, contrast in compared
        if (interval := contrast.interval()) is not None
        for end in (interval.low, interval.high)
        if end > -100
    ]
    kept = [max(-most, min(most, value)) for value in (*values, *ends)]
    return min(0.0, *kept), max(0.0, *kept)


def _line(axis: Axes, row: _Row, number: int, low: float, high: float) -> None:
    """Draw the interval, with an arrow at an end that is outside of the axis."""
    if row.comparison is None or (interval := row.comparison.contrast.interval()) is None:
        return
    ends = [row.percent(end) if end > -100 else -math.inf for end in (interval.low, interval.high)]
    first, last = sorted(math.inf if row.turned and math.isinf(end) else end for end in ends)
    axis.plot([max(first, low), min(last, high)], [number, number], color=INK, lw=1.4)
    for at, marker, is_cut in ((low, "<", first < low), (high, ">", last > high)):
        if is_cut:
            axis.plot([at], [number], marker, color=INK, ms=5)
