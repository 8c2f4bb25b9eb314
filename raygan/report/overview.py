"""One picture of a sweep: all curves, and what the best generator of each cell makes."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from raygan.folder import SAMPLES
from raygan.pictures import PictureError, read_evaluation
from raygan.records import TrialRecord
from raygan.report.drawing import finish, label, style
from raygan.storage import Storage

MOST_CELLS = 6
"""Cells whose samples are shown, the best ones."""


def overview_png(
    storage: Storage,
    title: str,
    records: Sequence[TrialRecord],
    best: dict[str, TrialRecord | None],
    baselines: Mapping[str, float],
) -> bytes:
    """Curves of all trials by cell on a log axis, beside samples of each cell's best trial.

    ``best`` names the best trial of each cell, or None; ``baselines`` is the loss of the mean
    training image of each data set, by label. Each data set has axes of its own.
    """
    with style({}):
        return _draw(storage, title, records, best, baselines)


def _draw(
    storage: Storage,
    title: str,
    records: Sequence[TrialRecord],
    best: dict[str, TrialRecord | None],
    baselines: Mapping[str, float],
) -> bytes:
    several = len(baselines) > 1
    ranked = sorted((r for r in best.values() if r is not None and r.best), key=_loss)
    groups = [[r for r in ranked if not several or r.dataset == name] for name in baselines]
    # losses on different images are not compared: the best of each data set in turn
    in_turn = [record for tier in zip_longest(*groups) for record in tier if record is not None]
    shown = in_turn[:MOST_CELLS]
    tiles = max(1, len(shown))
    columns = min(3, tiles)
    rows = math.ceil(tiles / columns)
    height = 3.3 * max(rows, len(baselines) if several else 0)
    figure = Figure(figsize=(6 + 3 * columns, max(3.6, height)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(6, 3 * columns))[0]
    figure.suptitle(label(title))
    panels = left.subplots(len(baselines), squeeze=False)[:, 0]
    for axis, (name, baseline) in zip(panels, baselines.items(), strict=True):
        mine = [record for record in records if not several or record.dataset == name]
        cells = {record.cell for record in mine} if several else best.keys()
        _draw_curves(axis, mine, [cell for cell in best if cell in cells], baseline)
        if several:
            axis.set_title(label(name), fontsize="small")
    axes = right.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, record in zip(axes, shown, strict=False):
        _draw_samples(axis, storage, record)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _loss(record: TrialRecord) -> float:
    """What trials are ranked by."""
    return math.inf if record.end_loss is None else record.end_loss


def _draw_curves(
    axis: Axes, records: Sequence[TrialRecord], cells: list[str], baseline: float
) -> None:
    for number, cell in enumerate(cells):
        mine = [record for record in records if record.cell == cell and record.history]
        # the curves that count last, and the others faint
        mine.sort(key=lambda record: record.kind == "replicate")
        for record in mine:
            steps, losses = zip(*record.curve, strict=True)
            color, faint = f"C{number % 10}", record.kind != mine[-1].kind
            axis.plot(steps, losses, "o-", markersize=2, color=color, alpha=0.3 if faint else 1)
            if record.outcome == "stopped":
                axis.plot(steps[-1], losses[-1], "x", color="black", markersize=6)
        if mine:
            axis.plot([], [], "o-", markersize=2, color=f"C{number % 10}", label=label(cell))
    axis.axhline(baseline, color="grey", linestyle="--", linewidth=1, label="mean image")
    axis.set(xlabel="iteration", ylabel="reconstruction loss (MSE per pixel)", yscale="log")
    notes = []
    if any(record.outcome == "stopped" for record in records):
        notes.append("× early-stopped")
    if any(record.kind == "replicate" for record in records):
        notes.append("faint: search;\nfull: replicates")
    axis.legend(fontsize="small", title="\n".join(notes) or None, title_fontsize="small")
    finish(axis)
    axis.grid(visible=True, which="both", alpha=0.25)


def _draw_samples(axis: Axes, storage: Storage, record: TrialRecord) -> None:
    step, loss = record.best or (0, math.nan)
    title = f"{label(record.title)}\nloss {loss:.4f} at iteration {step}"
    axis.set_title(title, fontsize="small")
    try:
        image = read_evaluation(storage, record.id, SAMPLES, step)
    except PictureError as error:
        problem = "\n".join(textwrap.wrap(f"picture damaged: {error}", 36))
        axis.text(0.5, 0.5, problem, ha="center", va="center", fontsize="small")
        return
    if image is not None:
        axis.imshow(image)
