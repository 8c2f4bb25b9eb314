"""The live table of a sweep, as its own terminal and ``raygan watch`` show it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from raygan.records import TrialRecord
from raygan.shown import duration, shown, text_cell
from raygan.sweep.session.final_tests import FinalStatus
from raygan.sweep.session.terminal import outcome_cell, text_table
from raygan.sweep.spec import plan
from raygan.sweep.spec.space import longest
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks
from raygan.sweep.study.estimate import STARTUP_SECONDS

MOST_TITLE = 80
"""Characters of a trial's title."""
ROWS = 30
"""Rows shown where the height of the terminal is not known."""
WIDE = 100
"""Columns of a terminal that holds all columns of the table."""
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS, _FEW_SPARKS = 16, 8
"""Evaluations that a sparkline shows at most, in a wide and in a narrow terminal."""
_ORDER = ("running", "pending", "interrupted")
_TEST_ORDER = ("running", "failed", "interrupted", "waiting", "done")


@dataclass(frozen=True)
class Picture:
    """A sweep at one moment; fits itself to the terminal that it is printed on."""

    spec: SweepSpec
    records: Sequence[TrialRecord]
    """All trials that are known; of those that have ended, the last ones are shown first."""
    states: Mapping[str, str]
    """What each trial without an outcome does, by its id: ``running``, ``pending`` (its
    workers wait for resources, or start) or ``interrupted``."""
    tests: Sequence[FinalStatus] = ()
    """The sweep's final tests, once they are known."""
    signs: Mapping[str, float] = field(default_factory=dict)
    """Seconds since the last report of each running trial, as far as they are known."""
    lines: Sequence[Text] = ()
    """Shown below the first line."""
    expected: int = 0
    """Trials of the whole sweep, as far as is known; with final tests, no further one is to
    come."""
    left: float | None = None
    """Seconds until all trials have ended, if that is known."""

    @property
    def head(self) -> str:
        """How far the sweep is, how much is running and waiting, and the time left."""
        # with the tests, no trial is to come: some cells may have fewer
        most = len(self.records) if self.tests else max(self.expected, len(self.records))
        ended = sum(record.outcome is not None for record in self.records)
        trials = f"{shown(self.spec.name)}: {ended} of {most} trials done"
        states = list(self.states.values())
        counts = {name: states.count(name) for name in _ORDER}
        counts["not started"] = most - ended - len(states)
        active = any(name in ("running", "pending") for name in states)
        left = self.left if active else None
        tests: list[str] = [test.state for test in self.tests]
        if tests:
            trials += f"; {tests.count('done')} of {len(tests)} final tests done"
            counts = {name: tests.count(name) for name in _TEST_ORDER if name != "done"}
            left = tests_left(self.tests)
        parts = [trials, *(f"{count} {name}" for name, count in counts.items() if count)]
        text = ", ".join(parts)
        if left is None:
            return text
        then = ", then the final tests" if not tests and has_final_tests(self.spec) else ""
        return f"{text}; about {duration(left)} left{then}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [Text(self.head, style="bold"), *self.lines]
        rows = ROWS
        if console.is_terminal:
            used = sum(len(line.wrap(console, options.max_width)) for line in head)
            rows = max(1, console.height - used - 2)  # the names of the columns, and what is left
        wide = options.max_width >= WIDE
        yield from head
        left_out = 0
        tests = sorted(self.tests, key=lambda test: _TEST_ORDER.index(test.state))
        tables: list[tuple[Callable[..., Table], Sequence[Any]]] = [
            (_tests_table, tests),
            (self._trials_table, self._trials()),
        ]
        for make, items in tables:
            count, lines = min(len(items), max(0, rows)), 0
            while count:
                table = make(items[:count], wide=wide)
                lines = len(console.render_lines(table, options)) - 1
                if lines <= rows:
                    yield table
                    rows -= lines + 1
                    break
                count -= 1  # a title takes several lines
            left_out += len(items) - count
        if left_out:
            yield Text(f"… and {left_out} more", style="dim")

    def _trials(self) -> list[TrialRecord]:
        """The trials that run first, then those that ended, the last one of the records first."""
        open_ones = [record for record in self.records if record.id in self.states]
        open_ones.sort(key=lambda record: _ORDER.index(self.states[record.id]))
        ended = [record for record in self.records if record.outcome is not None]
        return open_ones + ended[::-1]

    def _trials_table(self, records: Iterable[TrialRecord], *, wide: bool) -> Table:
        names = ["trial", "iteration", "loss", "best", "curve", "state", "left"]
        if wide:
            names.insert(names.index("state"), "images/s")
        if wide and self.signs:
            names.insert(names.index("left"), "last report")
        table = _table(names, ("trial", "curve", "state"), wide=wide)
        for record in records:
            curve = sparkline([loss for _, loss in record.curve], _SPARKS if wide else _FEW_SPARKS)
            state = record.outcome or self.states[record.id]
            left = trial_left(record) if state == "running" else None
            sign = self.signs.get(record.id) if state == "running" else None
            cells: dict[str, str | Text] = {
                "trial": text_cell(record.title, MOST_TITLE),
                "iteration": f"{record.step}/{record.config['iterations']}",
                "loss": f"{record.curve[-1][1]:.5f}" if record.history else "",
                "best": f"{record.best[1]:.5f}" if record.best else "",
                "curve": curve,
                "images/s": speed(record) if record.history else "",
                "state": outcome_cell(state),
                "last report": f"{duration(sign)} ago" if sign is not None else "",
                "left": "" if left is None else duration(left),
            }
            table.add_row(*(cells[name] for name in names))
        return table


class Ends:
    """The order in which trials have ended, as far as it was seen: records do not hold it."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def ordered(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """``records``, those that ended last at the end.

        Those that had ended at the first call, or between two calls, stay in the given order.
        """
        records = list(records)
        for record in records:
            if record.outcome is None:  # a failed trial may run again
                self._seen.pop(record.id, None)
            else:
                self._seen.setdefault(record.id)
        places = {trial: place for place, trial in enumerate(self._seen)}
        return sorted(records, key=lambda record: places.get(record.id, -1))


def _tests_table(tests: Iterable[FinalStatus], *, wide: bool) -> Table:
    names = ("final test of", "generator", "done", "state", "left", "final loss")
    table = _table(names, ("final test of", "generator", "state"), wide=wide)
    for test in tests:
        left = test.left if test.state == "running" else None
        table.add_row(
            text_cell(test.title, MOST_TITLE),
            " and ".join(test.which),
            "" if test.state in ("waiting", "failed") else f"{test.done:.0%}",
            outcome_cell("ok" if test.state == "done" else test.state),
            "" if left is None else duration(left),
            "" if test.loss is None else f"{test.loss:.5f}",
        )
    return table


def _table(names: Sequence[str], words: Sequence[str], *, wide: bool) -> Table:
    """A table whose first column alone is broken into lines."""
    table = text_table(names, words)
    table.collapse_padding = not wide
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def sparkline(losses: Sequence[float], most: int = _SPARKS) -> str:
    """The last ``most`` losses as bars; their height is that of log loss."""
    last = [math.log(max(loss, 1e-12)) for loss in losses[-most:]]
    if not last:
        return ""
    low, high = min(last), max(last)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in last)


def speed(record: TrialRecord) -> str:
    """Images per second at the last evaluation."""
    speed = record.history[-1].get("perf/images_per_second")
    return "?" if speed is None else f"{speed:.0f}"


def has_final_tests(spec: SweepSpec) -> bool:
    """Whether final tests follow the trials."""
    return bool(spec.final.steps and plan.replicates_per_cell(spec))


def trial_left(record: TrialRecord) -> float | None:
    """Seconds until a trial has ended, if it runs to its end; None before its first evaluation."""
    if not (record.step and record.seconds):
        return None
    iterations: int = record.config["iterations"]
    return (iterations - record.step) * record.seconds / record.step


def trials_left(spec: SweepSpec, known: Sequence[TrialRecord], seeds: int) -> float | None:
    """Seconds until all trials have ended; None while no trial is running or evaluated.

    ``seeds``: of the current look, which takes long to find anew in a sweep of many cells.
    As many run at once as now. The running ones run to their end; of those that start later, the
    search's end as early as those that have ended so far.
    """
    seconds = sum(record.seconds for record in known)
    steps = sum(record.step for record in known)
    running = [record for record in known if record.outcome is None]
    if not (steps and seconds and running):
        return None
    rate = seconds / steps
    ended = [r.step / r.config["iterations"] for r in known if r.outcome and r.kind == "search"]
    share = sum(ended) / len(ended) if ended else 1.0
    replicates = len(plan.cells(spec)) * plan.replicates_per_cell(spec, seeds)
    to_replicate = replicates - sum(r.kind == "replicate" for r in known)
    to_come = max(0, looks.expected(spec, known, seeds) - len(known))
    to_search = max(0, to_come - max(0, to_replicate))
    lengths = [longest(spec, cell.values) for cell in plan.cells(spec)]
    iterations = statistics.mean(lengths) * (to_search * share + to_come - to_search)
    lefts = [
        left if left is not None else record.config["iterations"] * rate + STARTUP_SECONDS
        for record in running
        for left in [trial_left(record)]
    ]
    return spread(lefts, iterations * rate + to_come * STARTUP_SECONDS)


def tests_left(tests: Sequence[FinalStatus]) -> float | None:
    """Seconds until all final tests are made, as many at once as now; None if that is unknown."""
    lefts = [test.left for test in tests if test.state == "running"]
    known = [left for left in lefts if left is not None]
    whole = [test.seconds / test.done for test in tests if test.done and test.seconds]
    if not known or not whole:
        return None
    mean = sum(whole) / len(whole)
    waiting = sum(test.state == "waiting" for test in tests) * mean
    return spread([mean if left is None else left for left in lefts], waiting)


def spread(running: Sequence[float], to_come: float) -> float:
    """Seconds until all work is done.

    ``running``: seconds left of each task that runs; ``to_come``: seconds of the tasks that start
    later, added up. As many tasks run at once as now.
    """
    return max([*running, (sum(running) + to_come) / len(running)])
