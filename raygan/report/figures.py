"""The report's figures: drawn once, as SVG for light and dark pages and as PNG for Markdown."""

from __future__ import annotations

import io
import re
import statistics
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from raygan.records import TrialRecord
from raygan.report import rates, stability
from raygan.report.compare import LEAST, geometric_mean
from raygan.report.evidence import Cell, Evidence
from raygan.shown import shown

COLORS = (
    "#2f7fd6", "#d9690f", "#1f9d57", "#d6457f", "#8a63d2", "#0f95a5", "#a8743a", "#7d8590",
)  # fmt: skip
"""One per cell; each has a contrast of 3:1 or more with a white and with a black page."""
INK = "#010203"
"""Stands for the page's own text colour until the SVG is written."""
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none",
    "svg.hashsalt": "raygan", "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.15,
    "axes.spines.top": False, "axes.spines.right": False, "legend.framealpha": 0,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
_SIZE = (4.7, 3.4)
_LEGEND = 66
"""Characters that fit side by side in a legend."""
MOST_TICKS = 5
"""Of an axis whose numbers are long."""
_MARKERS = "osD^vPX*"
MOST_LABEL, LABEL_WIDTH = 80, 36
"""Characters of a name in a figure, and of a line of it."""


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    key: str
    title: str
    caption: str
    """How to read it, in one line: what its marks are, and which way is better."""
    svg: str
    """An ``svg`` element whose lines and words have the page's text colour."""
    png: bytes
    """On white."""


def drawings(evidence: Evidence) -> list[Drawing]:
    """All figures for which there are data."""
    shown = [*evidence.ranked, *(c for c in evidence.cells if c not in evidence.ranked)]
    shown = sorted(shown[: len(COLORS)], key=evidence.cells.index)
    left_out = len(evidence.cells) - len(shown)
    tail = f" The {len(shown)} best of {len(evidence.cells)} cells." if left_out else ""
    band = "Thick line: median over seeds; band: lowest to highest; thin lines: single seeds."
    parts: list[tuple[str, str, str, Callable[[Axes, Evidence, list[Cell]], bool]]] = [
        ("curves", "Loss of the running test over the iterations", f"Lower is better. {band}",
         _curves),
        ("losses", "Loss by cell", f"Further left is better. Dots: {evidence.measure}, one "
         f"per seed; bar: mean; line: 95% CI of the mean (from {LEAST} runs on).", _losses),
        ("drawup", "Loss divided by the run's lowest loss so far",
         f"Lower is better; 1: the loss has not risen. {band}", _drawups),
        ("rates", "End loss against learning rate", "Low over a wide range is better. Point: a "
         "trial that ended ok; line: median; thick: all trials ok, median within "
         f"{rates.NEAR - 1:.0%} of the best. On top, without such a loss: + early-stopped, "
         "× no result.", _rates),
    ]  # fmt: skip
    found = (_draw(k, t, f"{c}{tail}", plot, evidence, shown) for k, t, c, plot in parts)
    return [drawing for drawing in found if drawing is not None]


def _draw(
    key: str,
    title: str,
    caption: str,
    plot: Callable[[Axes, Evidence, list[Cell]], bool],
    evidence: Evidence,
    cells: list[Cell],
) -> Drawing | None:
    with style(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        if not plot(axis, evidence, cells):
            return None
        if names := axis.get_legend_handles_labels()[1]:
            columns = max(1, _LEGEND // (max(map(len, names)) + 8))  # 8: the line before a name
            figure.legend(loc="outside upper left", ncols=columns, fontsize="small")
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=130, facecolor="white")
    return Drawing(key, title, caption, _inline(svg.getvalue(), key, title), png.getvalue())


@contextmanager
def style(settings: Mapping[Any, Any]) -> Iterator[None]:
    """Draw with these settings of matplotlib; a ``$`` in a name is a dollar sign."""
    with mpl.rc_context({**settings, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # many long names
        yield


def label(name: str) -> str:
    """A name in lines that are short enough for a figure."""
    return "\n".join(textwrap.wrap(shown(name, MOST_LABEL), LABEL_WIDTH))


def _inline(document: str, key: str, title: str) -> str:
    """The ``svg`` element alone, in the page's colours, its ids told from other figures'."""
    element = document[document.index("<svg") :].replace(INK, "currentColor")
    # a style sheet in it would hold for the whole page
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{key}-', element)
    element = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{key}-", element)
    # the viewBox says the proportions, the page the size
    element = re.sub(r'\b(width|height)="[\d.]+pt"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _curves(axis: Axes, evidence: Evidence, cells: list[Cell]) -> bool:
    if not _bands(axis, cells, lambda record: record.curve):
        return False
    if evidence.baseline:
        axis.axhline(evidence.baseline, color=INK, ls=":", lw=1, label="mean image")
    axis.set(xlabel="iteration", ylabel="reconstruction loss (MSE per pixel)", yscale="log")
    finish(axis)
    return True


def _drawups(axis: Axes, _: Evidence, cells: list[Cell]) -> bool:
    if not _bands(axis, cells, lambda record: stability.drawups(record.curve)):
        return False
    axis.set(xlabel="iteration", ylabel="loss / lowest loss so far", yscale="log")
    finish(axis)
    return True


def _bands(
    axis: Axes, cells: list[Cell], curve: Callable[[TrialRecord], list[tuple[int, float]]]
) -> bool:
    drawn = False
    for number, cell in enumerate(cells):
        found = [dict(curve(record)) for record in cell.runs.values() if record.history]
        if not found:
            continue
        axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
        drawn, color = True, COLORS[number]
        for one in found:
            axis.plot(list(one), list(one.values()), color=color, lw=0.7, alpha=0.45)
        # where a seed has ended early, the median is over the others
        steps = sorted(set().union(*found))
        at = [[one[step] for one in found if step in one] for step in steps]
        axis.plot(
            steps, [statistics.median(v) for v in at], color=color, lw=2.2, label=label(cell.name)
        )
        axis.fill_between(
            steps, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.15, lw=0
        )
    return drawn


def _losses(axis: Axes, evidence: Evidence, cells: list[Cell]) -> bool:
    ranked = [cell for cell in reversed(evidence.ranked) if cell in cells]
    for row, cell in enumerate(ranked):
        values = list(evidence.losses(cell).values())
        color = COLORS[cells.index(cell)]
        axis.plot(values, [row] * len(values), "o", color=color, alpha=0.85, ms=7, mew=0)
        axis.plot([evidence.mean(cell)], [row], "|", color=INK, ms=18, mew=2)
        mean = geometric_mean(values)
        if mean is not None and (interval := mean.interval) is not None:
            axis.plot([interval.low, interval.high], [row, row], color=INK, lw=1.6)
    axis.set_yticks(range(len(ranked)), [label(cell.name) for cell in ranked])
    axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    axis.set(xlabel="loss (MSE per pixel)", ylim=(-0.6, len(ranked) - 0.4))
    axis.grid(visible=True, axis="x")
    return bool(ranked)


def _rates(axis: Axes, evidence: Evidence, cells: list[Cell]) -> bool:
    drawn = False
    lost: list[tuple[float, str, str]] = []
    # cells that differ in their learning rate alone are one line
    recipes = rates.recipes(evidence.cells)
    names = (
        list(recipes)[: len(COLORS)]
        if len(recipes) < len(evidence.cells)
        else [c.name for c in cells]
    )
    for color, marker, name in zip(COLORS, _MARKERS, names, strict=False):
        records = recipes[name]
        found = rates.by_rate(records)
        medians = [(rate.lr, rate.loss) for rate in found if rate.loss is not None]
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
        if (width := rates.width(found)) is not None and width.holds:
            good = [point for point in medians if point[0] in width]
            axis.plot(*zip(*good, strict=True), color=color, lw=6, alpha=0.3, marker=marker, ms=0)
    for index, (lr, marker, color) in enumerate(lost):
        level = 1.03 + 0.04 * (index % 4)  # above the axes, where no loss can be read from them
        axis.plot(
            lr, level, marker, color=color, ms=6, clip_on=False,
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip
    if not drawn:
        return False
    axis.set(xlabel="learning rate", ylabel="end loss (MSE per pixel)", xscale="log", yscale="log")
    tried = sorted({float(record.config["lr"]) for record in evidence.records})
    if len(tried) <= MOST_TICKS:
        axis.xaxis.set_major_locator(FixedLocator(tried))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    finish(axis)
    return True


def finish(axis: Axes) -> None:
    """Give a log axis of losses plain numbers: :func:`style` takes ``$`` for text."""
    axis.yaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    low, high = axis.dataLim.intervaly
    if high < 2 * low:  # fewer than two of them would be seen
        axis.set_yscale("linear")
        axis.yaxis.set_major_locator(MaxNLocator(MOST_TICKS))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.grid(visible=True)
