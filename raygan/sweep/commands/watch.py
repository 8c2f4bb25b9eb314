"""``raygan watch``: the live table of a running sweep, from another shell or machine."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console
from rich.live import Live

from raygan.records import WHOLE, TrialRecord
from raygan.shown import MOST_MESSAGE, text_cell
from raygan.storage import Storage
from raygan.sweep.commands.look import copied_by, of_a_sweep, state_of
from raygan.sweep.session import final_tests, lock
from raygan.sweep.session.live import Ends, Picture, trials_left
from raygan.sweep.session.terminal import not_in_mlflow
from raygan.sweep.spec import plan
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks, stored_sweep
from raygan.sweep.study.cell import replicate_ids, settings, verdict_records

REFRESH_SECONDS, REFRESH_SECONDS_REMOTE = 2.0, 10.0
"""Seconds between two updates of the table, on a file system and on object storage."""


@click.command()
@of_a_sweep
@click.option("--once", is_flag=True, help="Print the table once instead of following the sweep.")
def watch(sweep: Storage, spec: SweepSpec, once: bool) -> None:
    """Follow the sweep NAME, wherever it runs: a live table of its trials and final tests."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    look, ends = looks.Reached(spec), Ends()
    if once or not console.is_terminal:
        console.print(picture(sweep, spec, look, ends))
        return
    every = REFRESH_SECONDS if sweep.is_local else REFRESH_SECONDS_REMOTE
    with Live(
        picture(sweep, spec, look, ends), console=console, auto_refresh=False, screen=True
    ) as live:
        try:
            while True:
                time.sleep(every)
                live.update(picture(sweep, spec, look, ends), refresh=True)
        except KeyboardInterrupt:
            pass


def picture(sweep: Storage, spec: SweepSpec, look: looks.Reached, ends: Ends) -> Picture:
    """The sweep as it is stored now; ``look`` and ``ends``: what is known of it from before."""
    known = ends.ordered(stored_sweep.stored_records(sweep, spec).values())
    seeds, _ = look(known)
    holder = lock.read(sweep)
    # whether a process of another host is alive takes seconds to tell; only `raygan status` waits
    alive = holder is not None and (
        not lock.is_of_this_host(holder) or lock.is_alive(sweep, holder)
    )
    who = f"Run by {holder}"
    copied = holder if holder is not None and alive and holder.copies else None
    alive = alive and copied is None
    signs = holder.signs if holder is not None and alive else None
    states = {
        record.id: state_of(record, signs) if alive else "interrupted"
        for record in known
        if record.outcome is None
    }
    tests = final_tests.statuses(sweep, _tests(sweep, spec, known, seeds), running=alive)
    if not alive:
        tested = all(test.state == "done" for test in tests)
        is_done = tested and not states and bool(stored_sweep.summary(sweep).get("finished"))
        who = "Done" if is_done else "Not running; the same command resumes the sweep"
        if copied is not None:
            who = copied_by(copied, done=is_done)
    lines = [text_cell(who, style="dim")]
    if copied is None and (lacks := not_in_mlflow(sweep, running=alive)) is not None:
        lines.append(text_cell(lacks, MOST_MESSAGE, "yellow"))
    expected, left = looks.expected(spec, known, seeds), trials_left(spec, known, seeds)
    return Picture(spec, known, states, tests, signs or {}, lines, expected, left)


def _tests(
    sweep: Storage, spec: SweepSpec, known: list[TrialRecord], seeds: int
) -> list[final_tests.PlannedTest]:
    """The final tests of the sweep, once all of its trials have ended; ``seeds``: of the current
    look."""
    if any(record.outcome is None for record in known):
        return []
    ids, tested = {record.id for record in known}, []
    for point in plan.cells(spec):
        mine = [record for record in known if record.cell == point.name]
        searched = sum(r.kind == "search" and not plan.is_retry(r.id) for r in mine)
        planned = set(replicate_ids(spec, point, settings(spec, point, mine), seeds))
        if searched < plan.trials_per_cell(spec) or not planned <= ids:
            return []  # more trials will follow
        tested += [
            record for record in verdict_records(spec, point, mine) if record.outcome in WHOLE
        ]
    return final_tests.asked(sweep, tested, spec.final_config())
