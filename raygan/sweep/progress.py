"""Live progress: a table in a terminal, plain lines elsewhere (logs of ``ray job submit``)."""

from __future__ import annotations

import math
import threading
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raygan.records import TrialRecord
from raygan.report.tables import REASON, outcome_cell, text_table
from raygan.shown import MOST_MESSAGE, cell, say, shown
from raygan.sweep.study import Event, Study
from raygan.tracking.mlflow_tracker import Tracker

MOST_TITLE = 80
"""Characters of a trial's title."""
ROWS = 30
"""Trials shown at once in the live table: the running ones first, then the latest."""


class Progress:
    """Shows a study while it runs; to be used as a context manager."""

    def __init__(self, study: Study, console: Console, tracker: Tracker | None = None) -> None:
        self._study, self._console, self._tracker = study, console, tracker
        self._since: dict[str, tuple[float, int]] = {}
        self._live = (
            Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=1,
                transient=True,
            )
            if console.is_terminal
            else None
        )
        self._last_warning: str | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        self._study.listeners.append(self._heard)
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def _heard(self, event: Event, record: TrialRecord) -> None:
        if event == "started":
            self._since[record.id] = (time.monotonic(), self._study.resumed.get(record.id, 0))
        if event == "noted" or self._live is None:
            with self._lock:
                self._line(event, record)

    def _line(self, event: Event, record: TrialRecord) -> None:
        head = f"{time.strftime('%H:%M:%S')} {shown(record.title, MOST_TITLE):<24}"
        if event == "waiting":
            text = f"waiting for resources (trial {record.id})"
        elif event == "started":
            ended = sum(r.outcome is not None for r in self._study.records.values())
            step = self._study.resumed.get(record.id)
            resumed = f", resumed after iteration {step}" if step else ""
            done = f"{ended}/{self._study.trial_count} done, {describe_spent(self._study)}"
            text = f"started (trial {record.id}; {done}){resumed}"
        elif event == "noted":
            text = "; ".join(shown(note, REASON) for note in record.notes)
        elif event == "evaluated" and record.history:
            text = (
                f"{record.step}/{record.config['iterations']}  "
                f"reconstruction loss {record.curve[-1][1]:.5f}  "
                f"{_speed(record)} images/s  "
                f"{self._left(record)} left"
            )
        elif event == "paused":
            text = f"paused at iteration {record.step}: the budget is reached"
        elif event == "ended":
            best = f", best {record.best[1]:.5f} at {record.best[0]}" if record.best else ""
            why = f" ({shown(record.reason, REASON)})" if record.reason else ""
            text = f"{record.outcome}{why}{best}"
        else:
            return
        say(self._console, f"{head} {text}")
        warning = self._tracker.last_error if self._tracker else None
        if warning != self._last_warning:
            self._last_warning = warning
            self._console.print(_tracking_state(warning), soft_wrap=True)

    def _left(self, record: TrialRecord) -> str:
        since, first = self._since.get(record.id, (0.0, 0))
        if record.step <= first or record.id not in self._since:
            return "?"
        rate = (time.monotonic() - since) / (record.step - first)
        return duration(rate * (record.config["iterations"] - record.step))

    def _render(self) -> Group:
        study = self._study
        # the study changes meanwhile on another thread: copies
        everything = list(study.records.values())
        since = dict(study.running)
        running = [r for r in everything if r.id in since]
        waiting = {trial for trial, start in since.items() if math.isnan(start)}
        ended = [r for r in everything if r.outcome is not None]
        names = ("trial", "iteration", "reconstruction loss", "best", "images/s", "state", "left")
        table = text_table(names, ("trial", "state"))
        for record in (running + ended[::-1])[:ROWS]:
            state = record.outcome or ("waiting" if record.id in waiting else "running")
            table.add_row(
                cell(record.title, MOST_TITLE),
                f"{record.step}/{record.config['iterations']}",
                f"{record.curve[-1][1]:.5f}" if record.history else "",
                f"{record.best[1]:.5f}" if record.best else "",
                _speed(record) if record.history else "",
                outcome_cell(state),
                self._left(record) if record.id in study.running else "",
            )
        head = (
            f"{study.spec.name}: {len(ended)}/{study.trial_count} trials done, "
            f"{len(running) - len(waiting)} running, {len(waiting)} waiting for resources, "
            f"{describe_spent(study)}"
        )
        parts: list[Text | Table] = [Text(head, style="bold"), table]
        if self._tracker is not None and self._tracker.last_error:
            parts.append(_tracking_state(self._tracker.last_error))
        return Group(*parts)


def _speed(record: TrialRecord) -> str:
    found = record.history[-1].get("perf/images_per_second")
    return "?" if found is None else f"{found:.0f}"


def describe_spent(study: Study) -> str:
    """What a sweep has used, and of how much: 12m, 3.20 of 400 GPU-hours, $8.00."""
    spent, budget = study.spent, study.spec.budget

    def of(cap: float | None, form: str = "") -> str:
        return "" if cap is None else f" of {cap:{form}}"

    limit = "" if budget.wall_clock is None else f" of {budget.wall_clock}"
    words = [f"{duration(spent.wall_clock)}{limit}"]
    if study.spec.scale.gpus_per_worker:
        words.append(f"{spent.gpu_hours:.2f}{of(budget.gpu_hours, 'g')} GPU-hours")
    else:
        words.append(f"{spent.trial_hours:.2f} trial-hours")
    if (usd := spent.usd(budget)) is not None:
        words.append(f"${usd:.2f}{of(budget.usd, '.2f')}")
    if budget.trials is not None:
        words.append(f"{spent.trials} of {budget.trials} trials started")
    return ", ".join(words)


def _tracking_state(error: str | None) -> Text:
    if error is None:
        return Text("MLflow is caught up again; nothing was lost", style="green")
    return cell(f"MLflow is behind and will be caught up: {error}", MOST_MESSAGE, "yellow")


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 12m, 3h05m."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 90 else f"{minutes // 60}h{minutes % 60:02d}m"
