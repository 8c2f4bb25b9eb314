"""Figures with a row for each cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from raygan.report import words
from raygan.report.compare import geometric_mean
from raygan.report.drawing import COLORS, INK, MOST_TICKS, label
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Family, of_losses, worsening
from raygan.shown import shown

WIDTH = 8.6
"""Inches of the width of figures outside of sections."""
MOST_ROWS, MOST_BRACKETS, MOST_CROSSES = 40, 12, 8
"""Most rows of a figure, most brackets beside them, and most marks of failed runs in a row."""
_NOTE, _MOST_NOTE = 72, 500
"""Most characters of a line, and of all lines, of a note below an axis."""
_ROW, FRAME = 0.42, 1.25
"""Inches of a row, and of the space above and below all rows together."""


def rows_size(rows: int) -> tuple[float, float]:
    """Inches of a figure in a section, with this number of rows."""
    return 4.7, max(1.9, FRAME + _ROW * min(rows, MOST_ROWS))


def losses_size(evidence: Evidence) -> tuple[float, float]:
    """Inches of :func:`losses`."""
    rows = min(len(evidence.cells), MOST_ROWS)
    return WIDTH, FRAME + _ROW * rows + 0.17 * len(_pooled_words(of_losses(evidence)))


def losses(figure: FigureBase, evidence: Evidence, cells: Sequence[CellResults]) -> bool:
    """By cell, runs, mean and interval; failed runs on the right; claims as brackets."""
    if not evidence.ranked:
        return False
    others = [cell for cell in evidence.cells if cell not in evidence.ranked]
    rows = [*evidence.ranked, *others][:MOST_ROWS]
    family = of_losses(evidence)
    number = {cell.name: row for row, cell in enumerate(rows)}
    claimed = [c for c in family.within if c.claimed and {c.cell, c.other} <= number.keys()]
    claimed.sort(key=lambda c: abs(number[c.cell] - number[c.other]))
    most = min(MOST_CROSSES, max((len(cell.failed) for cell in rows), default=0))
    levels = _levels([sorted((number[c.cell], number[c.other])) for c in claimed[:MOST_BRACKETS]])
    brackets = max(levels, default=-1) + 1
    widths = [6.0, 0.35 + 0.17 * most if most else 0.01, 0.22 * brackets + 0.06]
    axis, failed, beside = figure.subplots(1, 3, sharey=True, width_ratios=widths)
    values = [list(evidence.units(cell).values()) for cell in rows]
    _dots(axis, [_color(cell, cells) for cell in rows], values)
    for row, cell in enumerate(rows):
        if cell in others:
            text = "no result" if evidence.finished else "no result yet"
            axis.text(0.01, row, text, transform=axis.get_yaxis_transform(), va="center",
                      fontsize="small", alpha=0.7)  # fmt: skip
    _name_rows(axis, [cell.name for cell in rows])
    _plain_losses(axis)
    _mean_image(axis, evidence)
    _crosses(failed, rows, cells, most)
    beside.set_axis_off()
    beside.set_xlim(-0.3, max(1, brackets) - 0.3)
    for level, c in zip(levels, claimed, strict=False):
        ends = sorted((number[c.cell], number[c.other]))
        beside.plot([level - 0.25, level, level, level - 0.25],
                    [ends[0], ends[0], ends[1], ends[1]], color=INK, lw=1.3)  # fmt: skip
    notes = ["loss (MSE per pixel)"]
    if len(claimed) > MOST_BRACKETS:
        notes.append(f"{len(claimed) - MOST_BRACKETS} more differences that can be claimed: table")
    axis.set_xlabel("\n".join([*notes, *_pooled_words(family)]))
    return True


def _pooled_words(family: Family) -> list[str]:
    """The claims over all strata, in lines."""
    claimed = [
        f"{c.cell} against {c.other} {words.signed(c.contrast.percent)}"
        for c in family.pooled
        if c.claimed
    ]
    text = f"Can be claimed over all strata: {words.listed(claimed)}" if claimed else ""
    return textwrap.wrap(shown(text, _MOST_NOTE), _NOTE)


def _color(cell: CellResults, cells: Sequence[CellResults]) -> str:
    """The cell's colour in all figures; the colour of the text for a cell without a curve."""
    return COLORS[cells.index(cell)] if cell in cells else INK


def _dots(axis: Axes, colors: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """By row, the runs as dots, their geometric mean as a tick, its interval as a line."""
    for row, (color, losses) in enumerate(zip(colors, values, strict=True)):
        if (mean := geometric_mean(losses)) is None:
            continue
        shifts = [0.13 * (1 - 2 * (index % 2)) if mean.n > 1 else 0.0 for index in range(mean.n)]
        axis.plot(losses, [row + shift for shift in shifts], "o", color=color, ms=6, mew=0,
                  alpha=0.85)  # fmt: skip
        if mean.interval is not None:
            axis.plot([mean.interval.low, mean.interval.high], [row, row], color=INK, lw=1.6)
        if mean.n > 1:
            axis.plot([mean.value], [row], "|", color=INK, ms=17, mew=2)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [label(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=True, axis="x")


def _plain_losses(axis: Axes) -> None:
    low, high = axis.dataLim.intervalx
    if low > 0 and high > 5 * low:
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _mean_image(axis: Axes, evidence: Evidence) -> None:
    """The loss of the mean image as a line, or as a text if it is far from the cells."""
    if not evidence.baseline:
        return
    (low, high), text = axis.get_xlim(), f"mean image: {words.loss(evidence.baseline)}"
    if low - (high - low) / 2 <= evidence.baseline <= high + (high - low) / 2:
        axis.axvline(evidence.baseline, color=INK, ls=":", lw=1.2)
        at, where = evidence.baseline, "center"
        place = axis.get_xaxis_transform()
    else:
        is_above = evidence.baseline > high
        at, where = (1.0, "right") if is_above else (0.0, "left")
        text = f"{text} →" if is_above else f"← {text}"
        place = axis.transAxes
    axis.text(at, 1.01, text, transform=place, ha=where, va="bottom", fontsize="small")


def _crosses(
    axis: Axes, rows: Sequence[CellResults], cells: Sequence[CellResults], most: int
) -> None:
    """A mark for each run without a result."""
    if not most:
        axis.set_axis_off()
        return
    for row, cell in enumerate(rows):
        if not (count := len(cell.failed)):
            continue
        color = _color(cell, cells)
        drawn = count if count <= MOST_CROSSES else 1
        axis.plot(range(drawn), [row] * drawn, "x", color=color, ms=7, mew=1.8)
        if drawn < count:
            axis.text(0.6, row, f"{count} runs", va="center", fontsize="small")
    axis.set(xlim=(-0.7, max(most, 2) - 0.3), xticks=[], xlabel="no result")
    axis.tick_params(left=False)
    axis.grid(visible=False)
    axis.spines["left"].set(linestyle=":", alpha=0.6)


def _levels(spans: Sequence[Sequence[int]]) -> list[int]:
    """For each bracket, the nearest column in which it does not touch another bracket."""
    levels: list[int] = []
    for index, (start, end) in enumerate(spans):
        taken = {
            levels[i] for i in range(index) if spans[i][0] <= end and start <= spans[i][1]
        }  # fmt: skip
        levels.append(next(level for level in range(len(spans)) if level not in taken))
    return levels


def signed(value: float, _: int = 0) -> str:
    """The label of a tick at ``value`` per cent."""
    return f"{value:+.4g}%".replace("-", "−") if abs(value) > 1e-9 else "0"


def worsened(figure: FigureBase, evidence: Evidence, cells: Sequence[CellResults]) -> bool:
    """By cell, the ratio of last to best loss on the final images of each run, in per cent."""
    rows = [
        (cell, [math.exp(g) for g in ratios.values()])
        for cell in [*evidence.ranked, *(c for c in evidence.cells if c not in evidence.ranked)]
        if (ratios := worsening(evidence, cell))
    ][:MOST_ROWS]
    if not rows:
        return False
    axis = figure.subplots()
    _dots(axis, [_color(cell, cells) for cell, _ in rows], [ends for _, ends in rows])
    _name_rows(axis, [cell.name for cell, _ in rows])
    axis.axvline(1.0, color=INK, lw=1)
    ticks = MaxNLocator(4).tick_values(*(100 * (end - 1) for end in axis.dataLim.intervalx))
    axis.set_xlim(axis.get_xlim())  # otherwise ticks outside of the limits would widen them
    axis.xaxis.set_major_locator(FixedLocator([1 + tick / 100 for tick in ticks]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ratio, at: signed(100 * (ratio - 1), at)))
    axis.set_xlabel("last against best loss")
    return True
