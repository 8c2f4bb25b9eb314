"""A sweep's decisions and memory, without Ray: what to try next, what to stop, what is known.

Ray Tune runs the trials and calls the three methods :meth:`Study.next_trial`,
:meth:`Study.heard` and :meth:`Study.ended`; anything else that can train could call them too.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from raygan import records
from raygan.records import LOSS, STEP, Outcome, TrialRecord
from raygan.storage import Storage
from raygan.sweep import plan
from raygan.sweep.plan import Cell, TrialPlan
from raygan.sweep.search import CellSearch
from raygan.sweep.spec import SweepSpec
from raygan.sweep.stopping import make_rule

logger = logging.getLogger(__name__)

Event = Literal["started", "evaluated", "ended"]
Listener = Callable[[Event, TrialRecord], None]
"""Told of every change of a record; must neither block nor raise."""

HISTORY, OUTCOME, REASON = "history", "outcome", "reason"
"""Keys of a worker's report beside its metrics."""

METRIC_GROUPS = ("train/", "val/", "perf/")


class Study:
    """One sweep: its cells, their searches and stopping rules, and the trials' records.

    Opened on the storage of an earlier run of the same sweep, it goes on from there: trials
    that have ended are told to the searches and rules again, the others are offered first.
    """

    def __init__(self, spec: SweepSpec, storage: Storage) -> None:
        self.spec, self.storage = spec, storage
        self.cells: list[Cell] = plan.cells(spec)
        self.records: dict[str, TrialRecord] = {}
        self.running: dict[str, float] = {}
        """Trials that hold resources, with the monotonic time since when."""
        self.listeners: list[Listener] = []
        self._searches = {cell.name: CellSearch(spec) for cell in self.cells}
        self._rules = {cell.name: make_rule(spec.stop) for cell in self.cells}
        self._unfinished: deque[TrialPlan] = deque()
        self._turn = deque(self.cells)
        self._unsaved: dict[str, TrialRecord] = {}
        self._lock = threading.RLock()
        self._restore()

    @property
    def trial_count(self) -> int:
        """How many trials the whole search takes."""
        return len(self.cells) * plan.trials_per_cell(self.spec)

    @property
    def complete(self) -> bool:
        """Whether all trials have ended."""
        ended = sum(record.outcome is not None for record in self.records.values())
        return ended >= self.trial_count

    def next_trial(self) -> TrialPlan | None:
        """The next trial to run, or None when all have been given out; cells take turns."""
        with self._lock:
            if self._unfinished:
                return self._unfinished.popleft()
            for _ in range(len(self._turn)):
                cell = self._turn[0]
                self._turn.rotate(-1)
                asked = self._searches[cell.name].ask()
                if asked is not None:
                    planned = plan.trial(self.spec, cell, *asked)
                    self.records[planned.id] = record = _record(planned)
                    self._save(record)
                    return planned
            return None

    def started(self, trial: str) -> None:
        """``trial`` has got its resources, perhaps again after a failure."""
        with self._lock:
            self._count_time(trial)
            self.running[trial] = time.monotonic()
            self._tell("started", self.records[trial])

    def heard(self, trial: str, report: dict[str, Any]) -> bool:
        """Take in a worker's report; returns whether the trial is to stop now.

        A report that is not newer than what is known changes nothing: after a failure, a trial
        repeats itself from its last checkpoint.
        """
        with self._lock:
            record = self.records[trial]
            if report.get(OUTCOME) in ("failed", "diverged"):
                record.outcome, record.reason = report[OUTCOME], report.get(REASON)
            points = [*report.get(HISTORY, []), *_point(report)]
            added = record.merge([point for point in points if _finite(point)])
            rule = self._rules[record.cell]
            stop = record.outcome is not None
            for point in added:
                if not stop and rule.stops(trial, int(point[STEP]), point[LOSS]):
                    stop = record.step < record.config["iterations"]
                    if stop:
                        record.outcome = "stopped"
                        record.reason = f"{self.spec.stop.rule} at iteration {record.step}"
            self._save(record)
            if added:
                self._tell("evaluated", record)
            return stop

    def ended(self, trial: str, error: str | None = None) -> None:
        """``trial`` holds no resources any more and will not come back."""
        with self._lock:
            record = self.records[trial]
            self._count_time(trial)
            if record.outcome is None:
                whole = record.step >= record.config["iterations"]
                record.outcome = "ok" if whole else "failed"
                if not whole:
                    record.reason = error or f"ended at iteration {record.step} without a reason"
            try:
                record.checkpoints = records.find_checkpoints(self.storage, record)
            except OSError as problem:
                logger.warning("checkpoints of %s cannot be listed: %s", trial, problem)
            self._save(record)
            self._searches[record.cell].tell(record.index, record.curve, outcome=record.outcome)
            self._tell("ended", record)

    def interrupted(self) -> None:
        """No trial runs any more: note the time that the last ones have taken, save what waits."""
        with self._lock:
            for trial in list(self.running):
                self._count_time(trial)
                self._save(self.records[trial])
            for record in list(self._unsaved.values()):
                self._save(record)

    def best(self, cell: str) -> TrialRecord | None:
        """The trial of ``cell`` with the lowest reconstruction loss; never one that diverged."""
        usable = [
            record
            for record in self.records.values()
            if record.cell == cell and record.outcome in ("ok", "stopped") and record.best
        ]
        return min(
            usable, key=lambda record: record.best[1] if record.best else math.inf, default=None
        )

    def _restore(self) -> None:
        by_name = {cell.name: cell for cell in self.cells}
        known = records.load_all(self.storage)
        for record in sorted(known.values(), key=lambda record: record.index):
            if record.cell not in by_name:
                continue
            self.records[record.id] = record
            self._searches[record.cell].restore(record.index, record.params)
        finished = [record for record in self.records.values() if record.outcome is not None]
        for record in finished:
            self._searches[record.cell].tell(
                record.index, record.curve, outcome=record.outcome or ""
            )
        # rungs are rebuilt in the order of the iterations, so that no trial is judged by later ones
        points = [(point, record) for record in self.records.values() for point in record.curve]
        for (step, loss), record in sorted(points, key=lambda item: item[0][0]):
            self._rules[record.cell].stops(record.id, step, loss)
        for record in self.records.values():
            if record.outcome is None:
                cell = by_name[record.cell]
                self._unfinished.append(plan.trial(self.spec, cell, record.index, record.params))

    def _count_time(self, trial: str) -> None:
        if (since := self.running.pop(trial, None)) is not None:
            self.records[trial].seconds += time.monotonic() - since

    def _save(self, record: TrialRecord) -> None:
        # storage may be away for a while: what waits is saved with the next change
        self._unsaved[record.id] = record
        try:
            for waiting in list(self._unsaved.values()):
                waiting.save(self.storage)
                del self._unsaved[waiting.id]
        except OSError as error:
            logger.warning("%s cannot be written, will be tried again: %s", waiting.id, error)

    def _tell(self, event: Event, record: TrialRecord) -> None:
        for listener in self.listeners:
            try:
                listener(event, record)
            except Exception:  # a table that cannot be drawn must not end a sweep
                logger.exception("%s of %s could not be shown", event, record.id)


def _record(planned: TrialPlan) -> TrialRecord:
    config = planned.config.to_dict()
    return TrialRecord(
        planned.id, planned.cell, planned.index, planned.title, planned.params, config
    )


def _point(report: dict[str, Any]) -> list[dict[str, float]]:
    if LOSS not in report:
        return []
    # Tune adds keys of its own to what was reported
    metrics = {key: float(report[key]) for key in report if key.startswith(METRIC_GROUPS)}
    return [{STEP: float(report[STEP]), **metrics}]


def _finite(point: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in point.values())


def outcomes(study: Study) -> dict[Outcome, int]:
    """How many trials ended how."""
    counts: dict[Outcome, int] = {}
    for record in study.records.values():
        if record.outcome is not None:
            counts[record.outcome] = counts.get(record.outcome, 0) + 1
    return counts
