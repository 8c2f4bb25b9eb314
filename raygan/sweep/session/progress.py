"""Live progress: a table in a terminal, plain lines elsewhere (logs of ``ray job submit``)."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from raygan.errors import RayganError
from raygan.records import TrialRecord
from raygan.report.tables import REASON
from raygan.shown import MOST_MESSAGE, duration, say, shown, text_cell
from raygan.storage import Storage
from raygan.sweep.session import final_tests
from raygan.sweep.session.live import (
    MOST_TITLE,
    Ends,
    Picture,
    speed,
    tests_left,
    trial_left,
    trials_left,
)
from raygan.sweep.spec import scales
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks
from raygan.sweep.study.study import Event, Study
from raygan.tracking.mlflow_tracker import Lag, Tracker

logger = logging.getLogger(__name__)

SAY_SECONDS = 60.0
"""Between two lines on the final tests that run, where there is no terminal."""
LOOK_SECONDS, LOOK_SECONDS_REMOTE = 1.0, 10.0
"""Between two looks at the final tests that run, on a file system and on object storage."""
LEFT_SECONDS = 10.0
"""Between two estimates of the time left for lines that tell of single trials."""
BEHIND_LOOK_SECONDS = 2.0
BEHIND_SECONDS = 15.0
"""Age of the oldest change that MLflow lacks from which on the sweep says that MLflow is behind."""


class Progress:
    """Shows a study while it runs; to be used as a context manager."""

    def __init__(self, study: Study, console: Console, tracker: Tracker | None = None) -> None:
        self._study, self._console, self._tracker = study, console, tracker
        self._ends = Ends()
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
        self._left: tuple[float, float | None] | None = None
        self._noted = {record.id: len(record.notes) for record in study.records.values()}
        """How many notes of each trial have been told, in earlier runs or in this one."""
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        self._study.listeners.append(self._heard)
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _heard(self, event: Event, record: TrialRecord) -> None:
        if event == "noted" or self._live is None:
            with self._lock:
                self._line(event, record)

    def _line(self, event: Event, record: TrialRecord) -> None:
        head = f"{time.strftime('%H:%M:%S')} {shown(record.title, MOST_TITLE):<24}"
        if event == "waiting":
            text = f"waiting for resources (trial {record.id})"
        elif event == "started":
            left = self._trials_left()
            step = self._study.resumed.get(record.id)
            resumed = f", resumed after iteration {step}" if step else ""
            done = f"{self._study.done} of {self._study.trial_count} done, "
            done += describe_spent(self._study)
            if left is not None:
                done += f", about {duration(left)} left"
            count = self._study.workers.get(record.id, 1)
            workers = f" with {count} workers" if count > 1 else ""
            text = f"started{workers} (trial {record.id}; {done}){resumed}"
        elif event == "noted":
            told, self._noted[record.id] = self._noted.get(record.id, 0), len(record.notes)
            text = "; ".join(shown(note, REASON) for note in record.notes[told:])
        elif event == "evaluated" and record.history:
            text = (
                f"{record.step}/{record.config['iterations']}  "
                f"reconstruction loss {record.curve[-1][1]:.5f}  "
                f"{speed(record)} images/s"
            )
            if left := trial_left(record):
                text += f"  {duration(left)} left"
        elif event == "paused":
            text = f"paused at iteration {record.step}: the sweep's budget is reached"
        elif event == "ended":
            best = f", best {record.best[1]:.5f} at {record.best[0]}" if record.best else ""
            why = f" ({shown(record.reason, REASON)})" if record.reason else ""
            text = f"{record.outcome}{why}{best}"
        else:
            return
        say(self._console, f"{head} {text}")

    def _trials_left(self) -> float | None:
        """:func:`trials_left`, which walks all records, some seconds ago."""
        now = self._study.now()
        if self._left is None or now - self._left[0] >= LEFT_SECONDS:
            records = list(self._study.records.values())
            self._left = (now, trials_left(self._study.spec, records, self._study.look[0]))
        return self._left[1]

    def _render(self) -> Picture:
        study = self._study
        # the study changes meanwhile on another thread: copies
        records, counted = list(study.records.values()), dict(study.counted_until)
        states = {
            trial: "pending" if until is None else "running" for trial, until in counted.items()
        }
        open_ones = {record.id for record in records if record.outcome is None}
        lines = [Text(f"Spent: {describe_spent(study)}", style="dim")]
        if self._tracker is not None and (why := _why_behind(self._tracker)) is not None:
            lines.append(_tracking_state(why, self._tracker.behind))
        states = {trial: state for trial, state in states.items() if trial in open_ones}
        seeds = study.look[0]
        return Picture(
            study.spec,
            self._ends.ordered(records),
            states,
            signs=study.signs(),
            lines=lines,
            expected=looks.expected(study.spec, records, seeds),
            left=trials_left(study.spec, records, seeds),
        )


class Behind:
    """Says, on a thread of its own, why MLflow is behind, and when it is not any more."""

    def __init__(self, tracker: Tracker, console: Console) -> None:
        self._tracker, self._console = tracker, console
        self._said: str | None = None

    def start(self) -> None:
        """Begin; it ends with the tracker."""
        threading.Thread(target=self._run, name="behind", daemon=True).start()

    def _run(self) -> None:
        while not self._tracker.closed.wait(BEHIND_LOOK_SECONDS):
            self.look()
        self.look()

    def look(self) -> None:
        """Say it if it has changed."""
        why = _why_behind(self._tracker)
        if why != self._said:
            self._said = why
            state = _tracking_state(why, self._tracker.behind)
            with contextlib.suppress(OSError):  # the output may lie on a full disk
                self._console.print(state, soft_wrap=True)


class FinalProgress:
    """Shows final tests while they run; to be used as a context manager."""

    def __init__(
        self,
        spec: SweepSpec,
        sweep: Storage,
        records: Sequence[TrialRecord],
        tests: Sequence[final_tests.PlannedTest],
        console: Console,
    ) -> None:
        self._spec, self._sweep, self._records = spec, sweep, records
        self._tests, self._console = tests, console
        self._every = LOOK_SECONDS if sweep.is_local else LOOK_SECONDS_REMOTE
        self._said = time.monotonic()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="final tests", daemon=True)

    def __enter__(self) -> FinalProgress:
        if self._live is not None:
            self._live.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                self.look()
            except (OSError, RayganError) as problem:  # the storage is away: tests may still run
                logger.info("the final tests' progress cannot be read: %s", problem)

    def look(self) -> None:
        """Show how far they are now; without a terminal, that is a line now and then."""
        if self._live is None and time.monotonic() - self._said < SAY_SECONDS:
            return
        tests = final_tests.statuses(self._sweep, self._tests)
        if self._live is not None:
            self._live.update(Picture(self._spec, self._records, {}, tests), refresh=True)
            return
        self._said = time.monotonic()
        states = [test.state for test in tests]
        left = tests_left(tests)
        running = ", ".join(f"{test.done:.0%}" for test in tests if test.state == "running")
        say(
            self._console,
            f"{time.strftime('%H:%M:%S')} final tests: {states.count('done')} of {len(tests)} done"
            + (f", {states.count('running')} running ({running})" if running else "")
            + ("" if left is None else f", about {duration(left)} left"),
        )


def describe_spent(study: Study) -> str:
    """What a sweep has used, and of how much: 12m, 3.20 of 400 GPU-hours, $8.00."""
    spent, budget = study.spent, study.spec.budget

    def of(cap: float | None, form: str = "") -> str:
        return "" if cap is None else f" of {cap:{form}}"

    limit = "" if budget.wall_clock is None else f" of {budget.wall_clock}"
    words = [f"{duration(spent.wall_clock)}{limit}"]
    if any(scale.gpus for scale in scales.of(study.spec)):
        words.append(f"{spent.gpu_hours:.2f}{of(budget.gpu_hours, 'g')} GPU-hours")
    else:
        words.append(f"{spent.trial_hours:.2f} trial-hours")
    if (usd := spent.usd(budget)) is not None:
        words.append(f"${usd:.2f}{of(budget.usd, '.2f')}")
    if budget.trials is not None:
        words.append(f"{spent.trials} of {budget.trials} trials started")
    return ", ".join(words)


def _why_behind(tracker: Tracker) -> str | None:
    """Why MLflow is behind; None if it is not, or only by a few seconds."""
    if tracker.last_error is not None:
        return tracker.last_error
    return "it has not taken them all yet" if tracker.seconds_behind > BEHIND_SECONDS else None


def _tracking_state(why: str | None, behind: Lag) -> Text:
    if why is None:
        return Text("MLflow is caught up again; nothing was lost", style="green")
    text = f"MLflow is behind by {behind} and will be caught up: {why}"
    return text_cell(text, MOST_MESSAGE, "yellow")
