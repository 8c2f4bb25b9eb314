"""``raygan watch``: the live table of a running sweep, from another shell or machine."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raygan.records import TrialRecord
from raygan.report.tables import outcome_cell, text_table
from raygan.shown import cell, shown
from raygan.storage import Storage
from raygan.sweep import lock, plan, state
from raygan.sweep.commands import of_a_sweep
from raygan.sweep.estimate import STARTUP_SECONDS
from raygan.sweep.progress import MOST_TITLE, duration
from raygan.sweep.spec import SweepSpec

ROWS = 30
"""Trials shown at once: the running ones first, then the latest."""
REFRESH_SECONDS = 2.0
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 16
"""Evaluations that a sparkline shows at most."""


@click.command()
@of_a_sweep
@click.option("--once", is_flag=True, help="Print the table once instead of following it.")
def watch(sweep: Storage, spec: SweepSpec, once: bool) -> None:
    """Follow the sweep NAME, wherever it runs: a live table of its trials."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if once or not console.is_terminal:
        console.print(picture(sweep, spec))
        return
    with Live(picture(sweep, spec), console=console, auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(picture(sweep, spec), refresh=True)
        except KeyboardInterrupt:
            pass


def picture(sweep: Storage, spec: SweepSpec) -> Group:
    """What is stored of the sweep now, as a table."""
    known = list(state.stored_records(sweep, spec).values())
    holder = lock.read(sweep)
    who = "not running" if holder is None else f"run by {shown(str(holder))}"
    ended = [record for record in known if record.outcome is not None]
    running = [record for record in known if record.outcome is None]
    left = time_left(spec, known)
    head = (
        f"{spec.name}: {len(ended)}/{max(expected(spec, known), len(known))} trials done, "
        f"{len(running)} not finished; {who}"
        + ("" if left is None else f"; about {duration(left)} left")
    )
    return Group(Text(head, style="bold"), table(running, ended[::-1]))


def table(running: Sequence[TrialRecord], ended: Sequence[TrialRecord]) -> Table:
    """The first :data:`ROWS` of these trials, a row each."""
    names = ("trial", "iteration", "reconstruction loss", "best", "curve", "state")
    found = text_table(names, ("trial", "curve", "state"))
    for record in [*running, *ended][:ROWS]:
        state_of = record.outcome or ("running" if record.history else "starting")
        found.add_row(
            cell(record.title, MOST_TITLE),
            f"{record.step}/{record.config['iterations']}",
            f"{record.curve[-1][1]:.5f}" if record.history else "",
            f"{record.best[1]:.5f}" if record.best else "",
            sparkline([loss for _, loss in record.curve]),
            outcome_cell(state_of),
        )
    return found


def sparkline(losses: Sequence[float]) -> str:
    """The last :data:`_SPARKS` losses as bars; their height is that of log loss."""
    last = [math.log(max(loss, 1e-12)) for loss in losses[-_SPARKS:]]
    if not last:
        return ""
    low, high = min(last), max(last)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in last)


def expected(spec: SweepSpec, known: Sequence[TrialRecord]) -> int:
    """Trials of the whole sweep, as far as is known: early failures add their retries."""
    each = plan.trials_per_cell(spec) + plan.replicates_per_cell(spec)
    return len(plan.cells(spec)) * each + sum(plan.is_retry(record.id) for record in known)


def time_left(spec: SweepSpec, known: Sequence[TrialRecord]) -> float | None:
    """Seconds until all trials have ended, if as many run at once as now and none is
    early-stopped; None while no trial has been evaluated."""
    seconds = sum(record.seconds for record in known)
    steps = sum(record.step for record in known)
    running = sum(record.outcome is None for record in known)
    if not (steps and seconds and running):
        return None
    unknown = max(0, expected(spec, known) - len(known))
    to_train = unknown * spec.train.iterations + sum(
        record.config["iterations"] - record.step for record in known if record.outcome is None
    )
    return (to_train * seconds / steps + unknown * STARTUP_SECONDS) / running
