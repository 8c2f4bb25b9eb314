"""The report's figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure, FigureBase

from raygan.report import cell_figures, course_figures, forest_figure, question_figures, rates
from raygan.report.compare import LEAST
from raygan.report.drawing import BOLD, COLORS, SIZE, Drawing, draw, label
from raygan.report.evidence import CellResults, Evidence

Plot = Callable[[Figure, Evidence, list[CellResults]], bool]
PartPlot = Callable[[FigureBase, Evidence, list[CellResults]], bool]
"""A plot that can be drawn into a part of a figure, too."""
_TITLE = 0.25
"""Inches of the height of the name of a data set above its axes."""


def drawings(evidence: Evidence) -> list[Drawing]:
    """The figures for which there are data.

    Losses of different data sets share no axis: each data set has axes of its own.
    """
    most = max(len(part.cells) for part in evidence.parts.values())
    where = " of each data set" if evidence.several else ""
    tail = f" The {len(COLORS)} best of {most} cells{where}." if most > len(COLORS) else ""
    parts: list[tuple[str, str, str, Plot, tuple[float, float]]] = [
        ("cells", "Loss by cell", "Lower (left) is better. Line: geometric mean and 95% CI "
         f"(from {LEAST} runs on); dots: runs; ×: runs without a result; bracket: a difference "
         "that can be claimed.", _by_set(cell_figures.losses),
         _stacked(cell_figures.losses_size, evidence)),
        ("comparisons", "Differences between cells", "Loss of the first cell against the second, "
         "with 95% CI; left of 0 the first is better. Filled: can be claimed; diamond: mean over "
         "all strata. Right: the first's chance of the better run.",
         forest_figure.forest, forest_figure.size(evidence)),
        *question_figures.parts(evidence),
        ("curves", "Loss of the running test over the iterations", "Lower is better. Thick: "
         "geometric mean; band: 95% CI at all evaluations together; thin: runs, × where one ends "
         f"without a result; ◆ crossing, ◇ one that cannot be claimed.{tail}",
         _by_set(course_figures.curves),
         _stacked(lambda _: SIZE, evidence)),
        ("budget", "Loss that a search finds", "Lower is better. Mean of the lowest end loss of so "
         f"many trials, had the search stopped there; no line where all may fail.{tail}",
         _by_set(course_figures.budget), _stacked(lambda _: SIZE, evidence)),
        ("worsening", "Loss of the last generator against the best", "Lower (left) is better; "
         "right of 0 the loss has risen again. Final test; dots: runs; line: mean and 95% CI (from "
         f"{LEAST} runs on).", _by_set(cell_figures.worsened),
         _stacked(lambda part: cell_figures.rows_size(len(part.cells)), evidence)),
        ("rates", "End loss against learning rate", "Low over a wide range is better. Point: a "
         "trial that ended ok; line: median; thick: all trials ok, median within "
         f"{rates.NEAR - 1:.0%} of the best. On top, without such a loss: + early-stopped, "
         f"× no result.{tail}", _by_set(course_figures.rates_tried),
         _stacked(lambda _: SIZE, evidence)),
    ]  # fmt: skip
    cells = shown(evidence)
    drawn = (
        draw(key, title, caption, lambda figure, plot=plot: plot(figure, evidence, cells), size)  # type: ignore[misc]
        for key, title, caption, plot, size in parts
    )
    return [drawing for drawing in drawn if drawing is not None]


def shown(evidence: Evidence) -> list[CellResults]:
    """The cells that have a colour: the best ones of a data set, in the order of the grid."""
    return sorted(evidence.ordered[: len(COLORS)], key=evidence.cells.index)


def _by_set(plot: PartPlot) -> PartPlot:
    """``plot`` in a row of its own for each data set that it can draw; with one data set,
    unchanged."""

    def plot_all(figure: FigureBase, evidence: Evidence, cells: list[CellResults]) -> bool:
        if not evidence.several:
            return plot(figure, evidence, cells)
        parts = {
            name: part for name, part in evidence.parts.items() if plot(Figure(), part, shown(part))
        }
        if not parts:
            return False
        rows = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
        for row, (name, part) in zip(rows, parts.items(), strict=True):
            row.suptitle(label(name), fontproperties=BOLD)
            plot(row, part, shown(part))
        return True

    return plot_all


def _stacked(
    size: Callable[[Evidence], tuple[float, float]], evidence: Evidence
) -> tuple[float, float]:
    """The size of a figure with a row for each data set."""
    if not evidence.several:
        return size(evidence)
    sizes = [size(part) for part in evidence.parts.values()]
    return max(width for width, _ in sizes), sum(height + _TITLE for _, height in sizes)
