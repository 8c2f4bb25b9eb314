"""A sweep's trials as tables for a terminal."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Container, Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raygan.records import END_LOSS, WHOLE, TrialRecord
from raygan.report.tables import REASON, WHOLE_REASONS, setting
from raygan.shown import say, shown, text_cell
from raygan.storage import Storage
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import stored_sweep

STYLES = {
    "ok": "green",
    "stopped": "yellow",
    "collapsed": "red",
    "untrained": "red",
    "diverged": "red",
    "early-failure": "red",
    "failed": "bold red",
}


def command_of(verb: str, sweep: Storage) -> str:
    """``raygan VERB`` for a sweep, as one types it into a shell."""
    usual = Storage(SweepSpec.model_fields["storage"].default).uri
    where = "" if sweep.parent == usual else f" --storage {shlex.quote(sweep.parent)}"
    return f"raygan {verb} {sweep.name}{where}"


def not_in_mlflow(sweep: Storage, *, running: bool) -> str | None:
    """That MLflow lacks results of a sweep, and what copies them; None if it has them."""
    if not stored_sweep.is_unsynced(sweep):
        return None
    then = "when it has ended: " if running else ""
    return f"MLflow lacks results of this sweep. To copy them, {then}{command_of('sync', sweep)}"


def show_trials(
    console: Console,
    records: Iterable[TrialRecord],
    cells: list[str],
    baselines: Mapping[str, float],
) -> None:
    """Print one table per cell, the trial that ended lowest first.

    ``baselines``: loss of the mean training image of each data set, by label; empty if the images
    are not known.
    """
    records = list(records)
    for cell in cells:
        mine = [record for record in records if record.cell == cell]
        names = ("trial", "end loss", "best loss", "at iteration", "outcome", "seconds")
        table = text_table(names, ("trial", "outcome"), cell)
        for record in sorted(mine, key=_rank):
            best = record.best
            outcome = outcome_cell(record.outcome or "unfinished")
            if record.reason:
                outcome.append(f": {shown(record.reason, REASON)}", style="dim")
            table.add_row(
                text_cell(record.title),
                f"{record.end_loss:.5f}" if record.end_loss is not None else "",
                f"{best[1]:.5f}" if best else "",
                str(best[0]) if best else "",
                outcome,
                f"{record.seconds:.0f}",
            )
        console.print(table)
        console.print()
    if any(len(record.reason or "") > REASON for record in records):
        say(console, WHOLE_REASONS, "dim")
    several = len(baselines) > 1
    losses = [f"{value:.5f}{f' ({label})' * several}" for label, value in baselines.items()]
    against = f"; the mean training image has {', '.join(losses)}" if losses else ""
    console.print(
        f"Reconstruction loss: mean squared error per pixel in [0, 1] on held-out images{against}. "
        f"End loss: {END_LOSS}; trials are compared by it.",
        style="dim",
    )


def show_replicates(console: Console, replicates: dict[str, list[TrialRecord]]) -> None:
    """Print, per cell, how its best settings did with fresh seeds; nothing without replicates."""
    if not any(replicates.values()):
        return
    names = ("cell", "setting", "seeds", "mean end loss", "sd", "lowest", "highest")
    table = text_table(
        (*names, "mean best loss", "no result"),
        ("cell", "setting"),
        "Replicates: fresh seeds, no early stopping; the verdict is based on them",
    )
    for cell, records in replicates.items():
        for chosen in dict.fromkeys(setting(record) for record in records):
            mine = [record for record in records if setting(record) == chosen]
            whole = [r for r in mine if r.outcome == "ok"]  # as in the verdict
            ends = [r.end_loss for r in whole if r.end_loss]
            numbers = [""] * 5
            if ends:
                logs = [math.log(end) for end in ends]
                spread = f"{statistics.stdev(logs):.1%}" if len(ends) > 1 else ""
                best = statistics.geometric_mean(r.best[1] for r in whole if r.best)
                numbers = [f"{statistics.geometric_mean(ends):.5f}", spread]
                numbers += [f"{value:.5f}" for value in (min(ends), max(ends), best)]
            failed = sum(r.outcome not in (None, "ok") for r in mine)
            table.add_row(text_cell(cell), text_cell(chosen), str(len(ends)), *numbers, str(failed))
    console.print(table)
    console.print()


def text_table(names: Iterable[str], words: Container[str], title: str = "") -> Table:
    """An empty table for a terminal; columns that are not among ``words`` hold numbers.

    What does not fit is broken into lines, not cut.
    """
    table = Table(
        title=text_cell(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for name in names:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    return table


def outcome_cell(outcome: str) -> Text:
    """A trial's outcome or state in its colour."""
    return text_cell(outcome, style=STYLES.get(outcome, ""))


def _rank(record: TrialRecord) -> tuple[bool, bool, bool, float]:
    usable = record.outcome in (*WHOLE, "stopped") and record.end_loss is not None
    return (
        not usable,
        record.outcome in ("collapsed", "untrained"),
        record.outcome == "stopped",
        record.end_loss or 0.0,
    )
