"""The report's figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from raygan.report import cell_figures, course_figures, forest_figure, rates
from raygan.report.compare import LEAST
from raygan.report.drawing import COLORS, SIZE, Drawing, draw
from raygan.report.evidence import CellResults, Evidence

Plot = Callable[[Figure, Evidence, list[CellResults]], bool]


def drawings(evidence: Evidence) -> list[Drawing]:
    """The figures for which there are data."""
    shown = [*evidence.ranked, *(c for c in evidence.cells if c not in evidence.ranked)]
    shown = sorted(shown[: len(COLORS)], key=evidence.cells.index)
    left_out = len(evidence.cells) - len(shown)
    tail = f" The {len(shown)} best of {len(evidence.cells)} cells." if left_out else ""
    parts: list[tuple[str, str, str, Plot, tuple[float, float]]] = [
        ("cells", "Loss by cell", "Further left is better. Line: geometric mean and 95% CI "
         f"(from {LEAST} runs on); dots: runs; ×: runs without a result; bracket: a difference "
         "that can be claimed.", cell_figures.losses, cell_figures.losses_size(evidence)),
        ("comparisons", "Differences between cells", "Loss of the first cell against the second, "
         "with 95% CI; left of 0 the first is better. Filled: can be claimed; diamond: mean over "
         "all strata. Right: the first's chance of the better run.",
         forest_figure.forest, forest_figure.size(evidence)),
        ("curves", "Loss of the running test over the iterations", "Lower is better. Thick: "
         "geometric mean; band: 95% CI at all evaluations together; thin: runs, × where one ends "
         f"without a result; ◆ crossing, ◇ uncertain one.{tail}", course_figures.curves, SIZE),
        ("budget", "Loss that a search finds", "Lower is better. Mean of the lowest end loss of so "
         f"many trials, had the search stopped there; no line where all may fail.{tail}",
         course_figures.budget, SIZE),
        ("worsening", "Loss of the last generator against the best", "Further left is better; "
         "right of 0 the loss has risen again. Final test; dots: runs; line: mean and 95% CI (from "
         f"{LEAST} runs on).", cell_figures.worsened, cell_figures.rows_size(len(evidence.cells))),
        ("rates", "End loss against learning rate", "Low over a wide range is better. Point: a "
         "trial that ended ok; line: median; thick: all trials ok, median within "
         f"{rates.NEAR - 1:.0%} of the best. On top, without such a loss: + early-stopped, "
         f"× no result.{tail}", course_figures.rates_tried, SIZE),
    ]  # fmt: skip
    drawn = (
        draw(key, title, caption, lambda figure, plot=plot: plot(figure, evidence, shown), size)  # type: ignore[misc]
        for key, title, caption, plot, size in parts
    )
    return [drawing for drawing in drawn if drawing is not None]
