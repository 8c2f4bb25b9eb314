"""A sweep's decisions and memory, without Ray: what to try next, what to stop, what is known.

Ray Tune runs the trials and calls the three methods :meth:`Study.next_trial`,
:meth:`Study.heard` and :meth:`Study.ended`; anything else that can train could call them too.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, get_args

from optuna.storages import BaseStorage

from raygan import records
from raygan.gan.judge.collapse import find_collapse, find_untrained
from raygan.records import LOSS, STEP, Outcome, TrialRecord
from raygan.storage import Storage
from raygan.sweep.spec import plan
from raygan.sweep.spec.plan import TrialPlan
from raygan.sweep.spec.sections import Budget
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks
from raygan.sweep.study.cell import CellStudy
from raygan.sweep.study.meter import Clock, Spent

logger = logging.getLogger(__name__)

Event = Literal["waiting", "started", "noted", "evaluated", "ended", "paused"]
Listener = Callable[[Event, TrialRecord], None]
"""Told of every change of a record; must neither block nor raise."""

HISTORY, OUTCOME, REASON, NOTES = "history", "outcome", "reason", "notes"
"""Keys of a worker's report beside its metrics."""
SIZE = "checkpoint_bytes"

TICK_SECONDS = 60.0
LINGER_SECONDS = 60.0
"""How long a trial's processes may take to end after its last evaluation; usually some seconds."""
METRIC_GROUPS = ("train/", "val/", "perf/")


class Study:
    """One sweep: its cells, its trials' records, and what they have spent.

    All of it follows from the records: opened on the storage of an earlier run of the same sweep,
    a study goes on from there, and offers the trials that have not ended first.

    ``journal`` is an empty Optuna storage to keep the searches in, beside the records;
    ``retry_failed`` takes back the outcome ``failed``: these trials go on, too; ``baseline`` is the
    loss of the mean training image, as far as it is known: without it, it is not judged whether a
    trial has learned anything.
    """

    def __init__(
        self,
        spec: SweepSpec,
        storage: Storage,
        journal: BaseStorage | None = None,
        *,
        retry_failed: bool = False,
        baseline: float | None = None,
    ) -> None:
        self.spec, self.storage, self.baseline = spec, storage, baseline
        self.cells = {c.name: CellStudy(spec, c, journal) for c in plan.cells(spec)}
        self.records: dict[str, TrialRecord] = {}
        self.running: dict[str, float] = {}
        """Trials that have been started, with the monotonic time up to which that of their workers
        is counted; not a number until these have said their first word."""
        self.resumed: dict[str, int] = {}
        """Iteration of the checkpoint that the workers of each started trial began from; 0: none.
        """
        self.listeners: list[Listener] = []
        self.storage_error: str | None = None
        """Why the storage cannot be written at the moment, if it cannot: nothing is started then,
        and what is to be saved waits."""
        self.checkpoint_bytes = 0
        """Size of the largest checkpoint that a worker has told of."""
        self.look = looks.looks(spec)[0]
        """How many seeds of the best settings are trained, and the level of claims with so many."""
        self.clock = Clock(storage)
        self._unfinished: deque[TrialPlan] = deque()
        self._paused: set[str] = set()
        self._heard: dict[str, float] = {}
        self._unsaved: dict[str, TrialRecord] = {}
        self._ticked = time.monotonic()
        self._restore(retry_failed=retry_failed)

    @property
    def trial_count(self) -> int:
        """How many trials the sweep takes as far as is known: early failures add theirs."""
        return looks.expected(self.spec, list(self.records.values()))

    @property
    def complete(self) -> bool:
        """Whether all trials have ended, and no other is to come."""
        return all(cell.complete for cell in self.cells.values())

    @property
    def runnable(self) -> bool:
        """Whether there is something to run, and something left to run it with."""
        if self._unfinished:
            return not self._overspent
        return not (self.complete or self.exhausted)

    @property
    def waiting(self) -> bool:
        """Whether there may be trials later that are not known, or may not start, yet."""
        if self.storage_error is not None:
            return self.runnable or bool(self._unsaved)
        if self.exhausted:
            return False
        running = [record for record in self.records.values() if record.outcome is None]
        if self.spec.replicate.seeds and any(r.kind == "search" for r in running):
            return True
        if running and self.look[0] < self.spec.replicate.most:
            return True
        return self.spec.warmup is not None and not all(plan.is_retry(r.id) for r in running)

    @property
    def spent(self) -> Spent:
        """What the sweep has used."""
        # copies: asked from the thread that draws the table, too
        known, running = list(self.records.values()), dict(self.running)
        return Spent.of(known, running, self._gpus, self.clock.seconds)

    @property
    def exhausted(self) -> str | None:
        """The cap of the budget that lets no trial start any more, in words."""
        return self._reached(self.spec.budget)

    def next_trial(self) -> TrialPlan | None:
        """The next trial, or None if none is known now; a cell that has had fewer goes first."""
        self.clock.run()
        if self.storage_error is not None:
            return None
        if self._unfinished and not self._overspent:
            return self._unfinished.popleft()
        if self.exhausted:
            return None
        for cell in sorted(self.cells.values(), key=lambda cell: len(cell.records)):
            if (planned := cell.next_trial()) is not None:
                self._add(_record(planned))
                self._save(self.records[planned.id])
                if self.storage_error is None:
                    return planned
                self._unfinished.append(planned)  # starts when it can be written
                return None
        return None

    def started(self, trial: str) -> None:
        """``trial`` asks for its workers, perhaps again after a failure."""
        self._count_time(trial)
        self.running[trial] = math.nan
        self._tell("waiting", self.records[trial])

    def heard(self, trial: str, report: dict[str, Any]) -> bool:
        """Take in a worker's report; returns whether the trial is to stop now.

        A report that is not newer than what is known changes nothing: after a failure, a trial
        repeats itself from its last checkpoint.
        """
        record = self.records[trial]
        self._heard[trial] = time.monotonic()
        self._count_time(trial)
        if trial in self.running:
            first = math.isnan(self.running[trial])
            self.running[trial] = time.monotonic()
            if first:
                self.resumed[trial] = int(report.get(STEP, 0))
                self._tell("started", record)
        self.checkpoint_bytes = max(self.checkpoint_bytes, report.get(SIZE, 0))
        if report.get(OUTCOME) in get_args(Outcome):
            record.outcome, record.reason = report[OUTCOME], report.get(REASON)
        notes = [note for note in report.get(NOTES, []) if note not in record.notes]
        record.notes += notes
        points = [*report.get(HISTORY, []), *_point(report)]
        before = record.step
        added = record.merge([point for point in points if _finite(point)])
        stop = record.outcome is not None
        for point in added:
            stops = self.cells[record.cell].heard(record, int(point[STEP]), point[LOSS])
            if stops and not stop:
                stop = record.step < record.config["iterations"]
                if stop:
                    record.outcome = "stopped"
                    record.reason = f"{self.spec.stopping().rule} at iteration {record.step}"
        if added and not stop and self._pauses(record, before):
            stop = True
            self._paused.add(trial)
        self._save(record)
        if notes:
            self._tell("noted", record)
        if added:
            self._tell("evaluated", record)
        return stop

    def lingers(self, trial: str) -> bool:
        """Whether the processes of ``trial`` have not ended long after its last evaluation."""
        record = self.records[trial]
        if record.step < record.config["iterations"]:
            return False
        return time.monotonic() - self._heard.get(trial, math.inf) > LINGER_SECONDS

    def ended(self, trial: str, error: str | None = None) -> None:
        """``trial`` holds no resources any more and will not come back in this run."""
        record = self.records[trial]
        self._count_time(trial)
        self.running.pop(trial, None)
        if record.outcome is None and trial in self._paused:
            self._save(record)
            self._tell("paused", record)
            return
        if record.outcome is None:
            whole = record.step >= record.config["iterations"]
            record.outcome = "ok" if whole else "failed"
            if whole:
                self._judge(record)
            if not whole:
                record.reason = error or f"ended at iteration {record.step} without a reason"
        self._find_checkpoints(record)
        self._save(record)
        self.cells[record.cell].ended(record, self.baseline)
        self._look()
        self._tell("ended", record)

    def tick(self) -> None:
        """To be called often: what waits is saved, and now and then what the sweep has spent."""
        if self._unsaved and self.storage_error is None:
            self._save_waiting()
        if time.monotonic() - self._ticked >= TICK_SECONDS:
            self._ticked = time.monotonic()
            for trial, since in self.running.items():
                if not math.isnan(since):
                    self._count_time(trial)
                    self._save(self.records[trial])
            if self.storage_error is None:
                self._save_clock()

    def close(self) -> None:
        """No trial runs any more: note the time that the last ones have taken, save what waits."""
        for trial in list(self.running):
            self._count_time(trial)
            self._save(self.records[trial])
        self.running.clear()
        self._save_waiting()
        self._save_clock(now=True)

    def best(self, cell: str) -> TrialRecord | None:
        """The trial of ``cell`` that ended lowest, of the verdict if there are replicates."""
        return self.cells[cell].best()

    def _pauses(self, record: TrialRecord, before: int) -> bool:
        """Whether the budget is overspent and ``record`` has reached another rung since."""
        if record.step >= record.config["iterations"] or not self._overspent:
            return False
        cell = self.cells[record.cell]
        return cell.rung(record, record.step) > cell.rung(record, before)

    @property
    def _overspent(self) -> str | None:
        """The cap of the budget that running trials have to heed, too."""
        return self._reached(self.spec.budget.model_copy(update={"trials": None}))

    def _reached(self, budget: Budget) -> str | None:
        # asked at every evaluation: nothing is added up where nothing is capped
        return self.spent.reached(budget) if budget.caps else None

    @property
    def _gpus(self) -> float:
        """GPUs of one trial."""
        return self.spec.scale.workers * self.spec.scale.gpus_per_worker

    def _add(self, record: TrialRecord) -> None:
        self.records[record.id] = record
        self.cells[record.cell].records[record.id] = record

    def _restore(self, *, retry_failed: bool) -> None:
        known = records.load_all(self.storage, mend=True)
        for record in sorted(known.values(), key=lambda record: record.index):
            if record.cell not in self.cells:
                continue
            if record.outcome == "failed" and retry_failed:
                record.outcome = record.reason = None
            if record.outcome is not None and record.history and not record.checkpoints:
                self._find_checkpoints(record)  # killed before it was done
            self._add(record)
        for cell in self.cells.values():
            cell.restore(self.baseline)
        self._look()
        self._unfinished.extend(
            plan.of_record(record) for record in self.records.values() if record.outcome is None
        )

    def _look(self) -> None:
        """Train more seeds if those that have ended do not settle it."""
        self.look = looks.reached(self.spec, self.records)
        for cell in self.cells.values():
            cell.seeds = self.look[0]

    def _judge(self, record: TrialRecord) -> None:
        """Whether ``record``, which ran to its end, has learned nothing or collapsed.

        A generator that has never learned anything makes few different images, too: it is
        untrained, and the reason has both.
        """
        collapse = find_collapse(record.history, record.config["loss"])
        nothing = find_untrained(record.history, self.baseline) if self.baseline else None
        if nothing or collapse:
            record.outcome = "untrained" if nothing else "collapsed"
            record.reason = "; ".join(filter(None, [nothing, collapse]))

    def _find_checkpoints(self, record: TrialRecord) -> None:
        try:
            record.checkpoints = records.find_checkpoints(self.storage, record)
        except OSError as problem:
            logger.warning("checkpoints of %s cannot be listed: %s", record.id, problem)

    def _count_time(self, trial: str) -> None:
        if not math.isnan(since := self.running.get(trial, math.nan)):
            self.running[trial] = now = time.monotonic()
            self.records[trial].seconds += now - since
            self.records[trial].gpu_seconds += (now - since) * self._gpus

    def _save_clock(self, *, now: bool = False) -> None:
        try:
            self.clock.save(now=now)
        except OSError as error:
            logger.warning("the time spent cannot be written: %s", error)

    def _save(self, record: TrialRecord) -> None:
        # storage may be away for a while: what waits is saved with the next change
        self._unsaved[record.id] = record
        if self.storage_error is None:
            self._save_waiting()
            self._save_clock()

    def _save_waiting(self) -> None:
        for waiting in list(self._unsaved.values()):
            try:
                waiting.save(self.storage)
                del self._unsaved[waiting.id]
            except OSError as error:
                logger.warning("%s cannot be written, will be tried again: %s", waiting.id, error)
                self.storage_error = str(error)
                return

    def _tell(self, event: Event, record: TrialRecord) -> None:
        for listener in self.listeners:
            try:
                listener(event, record)
            except Exception:  # a table that cannot be drawn must not end a sweep
                logger.exception("%s of %s could not be shown", event, record.id)


def _record(planned: TrialPlan) -> TrialRecord:
    config = planned.config.to_dict()
    return TrialRecord(
        planned.id,
        planned.cell,
        planned.index,
        planned.title,
        planned.params,
        config,
        kind=planned.kind,
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
