"""Figures over the iterations, over the trials of a search, and over the learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from raygan.report import rates
from raygan.report.courses import budgets, course, crossings
from raygan.report.drawing import COLORS, INK, MARKERS, MOST_TICKS, finish, label, legend
from raygan.report.evidence import CellResults, Evidence

_MOST_OPEN = 3
"""Uncertain crossings are marked only if there are at most so many crossings in all."""


def curves(figure: FigureBase, evidence: Evidence, cells: Sequence[CellResults]) -> bool:
    """Mean curves with their bands, each run as a thin line, and the crossings of two means."""
    axis, drawn = figure.subplots(), False
    lowest, highest = math.inf, 0.0
    for color, cell in zip(COLORS, cells, strict=False):
        for record in cell.runs.values():
            if not record.history:
                continue
            drawn = True
            steps, losses = zip(*record.curve, strict=True)
            lowest, highest = min(lowest, *losses), max(highest, *losses)
            axis.plot(steps, losses, color=color, lw=0.7, alpha=0.45)
            if record.outcome not in (None, "ok", "stopped"):
                axis.plot(steps[-1], losses[-1], "x", color=color, ms=6, mew=1.6)
        if (mean := course(cell)) is None:
            axis.plot([], [], color=color, lw=0.7, label=label(cell.name))
            continue
        values = np.exp(mean.mean)
        if len(values) == 1:
            axis.plot(mean.steps, values, "o", color=color, ms=4)
        axis.plot(mean.steps, values, color=color, lw=2.2, label=label(cell.name))
        if (band := mean.band()) is not None:
            axis.fill_between(mean.steps, *band, color=color, alpha=0.15, lw=0)
    if not drawn:
        return False
    _mark_crossings(axis, evidence, cells)
    if evidence.baseline:
        axis.axhline(evidence.baseline, color=INK, ls=":", lw=1, label="mean image")
        lowest, highest = min(lowest, evidence.baseline), max(highest, evidence.baseline)
    axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    axis.set(xlabel="iteration", ylabel="reconstruction loss (MSE per pixel)", yscale="log")
    if lowest > 0:  # limits by the curves, since bands may be far wider
        axis.dataLim.intervaly = (lowest, highest)
        room = (highest / lowest) ** 0.05 * 1.001
        axis.set_ylim(lowest / room, highest * room)
    finish(axis)
    legend(figure, axis)
    return True


def _mark_crossings(axis: Axes, evidence: Evidence, cells: Sequence[CellResults]) -> None:
    names = {cell.name for cell in cells}
    drawn = [c for c in crossings(evidence) if {c.cell, c.other} <= names]
    for crossing in drawn:
        if crossing.certain or len(drawn) <= _MOST_OPEN:
            axis.plot(crossing.iteration, math.exp(crossing.log), "D", color=INK, ms=6, zorder=5,
                      mfc=INK if crossing.certain else "none")  # fmt: skip


def budget(figure: FigureBase, evidence: Evidence, cells: Sequence[CellResults]) -> bool:
    """The mean lowest loss over the number of trials of a random search."""
    lowest = budgets(evidence)
    axis = figure.subplots()
    for color, marker, cell in zip(COLORS, MARKERS, cells, strict=False):
        points = [
            (trials, loss)
            for trials, loss in enumerate(lowest.get(cell.name, []), start=1)
            if loss < math.inf
        ]
        if points:
            axis.plot(*zip(*points, strict=True), color=color, lw=1.6, marker=marker, ms=4,
                      label=label(cell.name))  # fmt: skip
    if not axis.lines:
        return False
    axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    axis.set(xlabel="trials of the search", ylabel="lowest end loss, on average", yscale="log")
    finish(axis)
    legend(figure, axis)
    return True


def rates_tried(figure: FigureBase, evidence: Evidence, cells: Sequence[CellResults]) -> bool:
    """End loss of each trial by its learning rate."""
    axis, drawn = figure.subplots(), False
    lost: list[tuple[float, str, str]] = []
    # cells that differ only in their learning rate are one line
    grouped = rates.by_rate_alone(evidence.cells)
    names = (
        list(grouped)[: len(COLORS)]
        if len(grouped) < len(evidence.cells)
        else [c.name for c in cells]
    )
    for color, marker, name in zip(COLORS, MARKERS, names, strict=False):
        records = grouped[name]
        tried_rates = rates.by_rate(records)
        medians = [(rate.lr, rate.loss) for rate in tried_rates if rate.loss is not None]
        for record in records:
            lr = float(record.config["lr"])
            if record.outcome == "ok" and record.end_loss is not None:
                axis.plot(lr, record.end_loss, marker, color=color, ms=5, alpha=0.85, mew=0)
            elif record.outcome is not None:
                lost.append((lr, "+" if record.outcome == "stopped" else "x", color))
        if medians:
            drawn = True
            axis.plot(*zip(*medians, strict=True), color=color, lw=1.2, marker=marker, ms=0)
            axis.plot([], [], marker=marker, color=color, lw=1.2, ms=5, label=label(name))
        if (width := rates.width(tried_rates)) is not None and width.holds:
            good = [point for point in medians if point[0] in width]
            axis.plot(*zip(*good, strict=True), color=color, lw=6, alpha=0.3, marker=marker, ms=0)
    for index, (lr, marker, color) in enumerate(lost):
        level = 1.03 + 0.04 * (index % 4)  # above the axes, so that they are not read as losses
        axis.plot(
            lr, level, marker, color=color, ms=6, clip_on=False,
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip
    tried = sorted({float(record.config["lr"]) for record in evidence.records})
    if not drawn or len(tried) < 2:
        return False
    axis.set(xlabel="learning rate", ylabel="end loss (MSE per pixel)", xscale="log", yscale="log")
    if len(tried) <= MOST_TICKS:
        axis.xaxis.set_major_locator(FixedLocator(tried))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    finish(axis)
    legend(figure, axis)
    return True
