"""The forest plot: all differences between cells with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from raygan.report.cell_figures import FRAME, MOST_ROWS, WIDTH, signed
from raygan.report.compare import percent
from raygan.report.drawing import INK, label
from raygan.report.evidence import Cell, Evidence
from raygan.report.family import Comparison, of_losses

_PAIR, _MOST_PAIR = 46, 170
"""Characters of a line, and of all lines, of the name of a pair."""


def size(evidence: Evidence) -> tuple[float, float]:
    """Inches of :func:`forest`."""
    lines = [row.name.count("\n") + 1 for row in rows(evidence)]
    return WIDTH, FRAME + 0.12 * len(lines) + 0.16 * sum(lines)


@dataclass(frozen=True)
class _Row:
    """One row of a forest plot: a heading, or a comparison in the order of the grid."""

    name: str
    found: Comparison | None = None
    turned: bool = False
    """Whether it is of the comparison's other cell against the first."""

    def percent(self, value: float) -> float:
        """A difference in per cent, as this row shows it."""
        return percent(-math.log1p(max(value / 100, -1 + 1e-15))) if self.turned else value


def rows(evidence: Evidence) -> list[_Row]:
    """Comparisons by stratum, with a heading for each where there are several."""
    family = of_losses(evidence)
    groups: dict[str, list[Comparison]] = {}
    for c in [*family.pooled, *family.within]:
        heading = f"{c.axis}, over all strata" if c.strata > 1 else ""
        groups.setdefault(f"{c.axis} within {c.within}" if c.within else heading, []).append(c)
    found: list[_Row] = []
    for heading, mine in groups.items():
        found += [_Row(label(heading))] if heading else []
        found += [_row(evidence, c) for c in mine]
    left = len(family.comparisons) - sum(row.found is not None for row in found[:MOST_ROWS])
    return found[:MOST_ROWS] + ([_Row(f"{left} more in the table")] if left else [])


def _row(evidence: Evidence, found: Comparison) -> _Row:
    values = {cell.name: cell.values.get(found.axis) for cell in evidence.cells}
    order = [str(value) for value in values.values()] if found.strata > 1 else list(values)
    turned = order.index(found.cell) < order.index(found.other)
    pair = [found.other, found.cell] if turned else [found.cell, found.other]
    # under a heading that names the stratum, what differs says enough
    names = [str(values[name]) for name in pair] if found.within else pair
    return _Row(label(" against ".join(names), _MOST_PAIR, _PAIR), found, turned)


def forest(figure: Figure, evidence: Evidence, _: Sequence[Cell]) -> bool:
    """Each difference with its interval, and the chance that a run of the first is better."""
    shown = rows(evidence)
    if not any(row.found is not None and row.found.contrast.testable for row in shown):
        return False
    axis, better = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    low, high = _reach(shown)
    for number, row in enumerate(shown):
        if (found := row.found) is None:
            continue
        marker: dict[str, Any] = {
            "marker": "D" if found.strata > 1 else "o",
            "color": INK,
            "ms": 6,
            "mfc": INK if found.claimed else "none",
        }
        _line(axis, row, number, low, high)
        axis.plot([row.percent(found.contrast.percent)], [number], **marker)
        if found.ranks is not None:
            share = found.ranks.improvement
            better.plot([100 * (1 - share if row.turned else share)], [number], **marker)
    axis.set_yticks(range(len(shown)), [row.name for row in shown], fontsize="small")
    axis.set_ylim(len(shown) - 0.4, -0.6)
    for text, row in zip(axis.get_yticklabels(), shown, strict=True):
        text.set_fontweight("bold" if row.found is None else "normal")
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
    """Ends of an axis with 0, all differences, and their intervals, unless these are far wider."""
    compared = [(row, row.found.contrast) for row in shown if row.found is not None]
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
    """The interval, with an arrow where it does not end within the axis."""
    if row.found is None or (interval := row.found.contrast.interval()) is None:
        return
    ends = [row.percent(end) if end > -100 else -math.inf for end in (interval.low, interval.high)]
    first, last = sorted(math.inf if row.turned and math.isinf(end) else end for end in ends)
    axis.plot([max(first, low), min(last, high)], [number, number], color=INK, lw=1.4)
    for at, marker, is_cut in ((low, "<", first < low), (high, ">", last > high)):
        if is_cut:
            axis.plot([at], [number], marker, color=INK, ms=5)
