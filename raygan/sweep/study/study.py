"""A sweep's decisions and records, without Ray: what to try next, what to stop, what is known.

Whatever runs the trials, such as :mod:`raygan.sweep.cluster.tune`, asks for the next one
(:meth:`Study.next_trial`) and says when it starts (:meth:`Study.started`), reports
(:meth:`Study.heard`), loses its workers (:meth:`Study.lost`) and ends (:meth:`Study.ended`). It
calls :meth:`Study.tick` often and :meth:`Study.close` at the end.
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
from raygan.errors import RayganError
from raygan.folder import CLOCK_FILE, trial_folder
from raygan.gan.judge.collapse import find_collapse, find_untrained
from raygan.records import LOSS, STEP, Outcome, TrialRecord
from raygan.shown import shown
from raygan.storage import Storage
from raygan.sweep.spec import plan
from raygan.sweep.spec.plan import TrialPlan
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_sections import Budget
from raygan.sweep.study import looks
from raygan.sweep.study.cell import CellStudy
from raygan.sweep.study.ledger import Ledger
from raygan.sweep.study.meter import SAVE_SECONDS, Clock, Spent
from raygan.sweep.study.prepared import Prepared

logger = logging.getLogger(__name__)

Event = Literal["waiting", "started", "noted", "evaluated", "ended", "paused"]
Listener = Callable[[Event, TrialRecord], None]
"""Called at every change of a record. A listener must neither block nor raise."""

HISTORY, OUTCOME, REASON, NOTES = "history", "outcome", "reason", "notes"
"""Keys of a worker's report beside its metrics."""
SIZE = "checkpoint_bytes"
WORKERS = "workers"
"""Key of a worker's first report: how many workers the trial has now."""
LOST = "lost"
"""Key of a driver's report: true if the workers of the trial are gone."""

TICK_SECONDS = 60.0
LINGER_SECONDS = 60.0
"""How long a trial's processes may take to end after its last evaluation. Usually they take some
seconds."""
FLUSH_SECONDS = 30.0
"""How long the end of a run waits for storage that does not answer."""
METRIC_GROUPS = ("train/", "val/", "perf/")


class Study:
    """One sweep: its cells, the records of its trials, and what they have spent.

    Everything follows from the records. A study that is opened on the storage of an earlier run
    resumes that run: :meth:`next_trial` first returns the trials that have not ended.

    ``journal``: empty Optuna storage that the searches are kept in, besides the records.
    ``retry_failed``: trials with the outcome ``failed`` are resumed, too. ``prepared``: the images;
    as long as they are not known, no trial is judged ``untrained``. ``ledger``: writes behind
    what lies in ``storage``. ``now``: seconds on a clock that never goes back; by default the
    monotonic one.
    """

    def __init__(
        self,
        spec: SweepSpec,
        storage: Storage,
        journal: BaseStorage | None = None,
        *,
        retry_failed: bool = False,
        prepared: Prepared | None = None,
        ledger: Ledger | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.spec, self.storage, self.prepared = spec, storage, prepared
        self.now = now or time.monotonic
        self.cells = {c.name: CellStudy(spec, c, journal) for c in plan.cells(spec)}
        self.records: dict[str, TrialRecord] = {}
        self.counted_until: dict[str, float | None] = {}
        """By started trial, the time (:attr:`now`) up to which its time is counted; None until its
        workers report, and again when they are lost."""
        self.resumed: dict[str, int] = {}
        """By started trial, the iteration of the checkpoint that its workers loaded; 0: none."""
        self.workers: dict[str, int] = {}
        """By trial, how many workers it has or had last."""
        self.done = 0
        """How many trials have ended."""
        self.listeners: list[Listener] = []
        self.checkpoint_bytes = 0
        """Size of the largest checkpoint that a worker has reported."""
        self._scales = {c.name: spec.scale.of(c.values) for c in plan.cells(spec)}
        self.look = looks.looks(spec)[0]
        """The current look: seeds of each of the best settings, and the level of its claims."""
        self.clock = Clock(storage, self.now)
        self._unfinished: deque[TrialPlan] = deque()
        self._paused: set[str] = set()
        self._heard: dict[str, float] = {}
        self.ledger = ledger or Ledger(storage)
        self._clock_saved = 0.0
        self._settled: dict[int, tuple[tuple[int, ...], bool]] = {}
        self._ticked = self.now()
        self._seconds = self._gpu_seconds = 0.0  # of all records: sums, so that nothing walks them
        self._restore(retry_failed=retry_failed)

    @property
    def storage_error(self) -> str | None:
        """Why the storage cannot be written now, or None. Meanwhile no trial is started, and
        records wait to be saved."""
        return self.ledger.error

    @storage_error.setter
    def storage_error(self, error: str | None) -> None:
        self.ledger.error = error

    @property
    def trial_count(self) -> int:
        """How many trials the sweep takes as far as is known: early failures add theirs."""
        each = plan.replicates_per_cell(self.spec, self.look[0])
        twice = sum(cell.trained_twice for cell in self.cells.values())
        return looks.expected_of(self.spec, each, twice, len(self.records))

    @property
    def complete(self) -> bool:
        """Whether all trials have ended and no further one is due."""
        return all(cell.complete for cell in self.cells.values())

    @property
    def runnable(self) -> bool:
        """Whether a trial is left to run and the budget lets it run."""
        if self._unfinished:
            return not self._overspent
        return not (self.complete or self.exhausted)

    @property
    def waiting(self) -> bool:
        """Whether there may be trials later that are not known yet, or cannot start yet.

        If no trial was due because the storage was away, this is true even if the storage is back.
        """
        if self.ledger.left > len(self.ledger.given_up):  # who ends the sweep needs the storage
            return True
        return self.runnable

    @property
    def spent(self) -> Spent:
        """What the sweep has used."""
        # a copy: the thread that draws the table reads this, too
        now, counted = self.now(), dict(self.counted_until)
        since = {trial: now - until for trial, until in counted.items() if until is not None}
        held = sum(seconds * self._gpus(trial) for trial, seconds in since.items())
        return Spent(
            trials=len(self.records),
            trial_hours=(self._seconds + sum(since.values())) / 3600,
            gpu_hours=(self._gpu_seconds + held) / 3600,
            wall_clock=self.clock.seconds,
        )

    @property
    def exhausted(self) -> str | None:
        """The cap of the budget that is reached, in words: no new trial starts. None if none is."""
        return self._reached(self.spec.budget)

    def next_trial(self) -> TrialPlan | None:
        """The next trial, or None if none is due.

        Its cell is the one that will take longest, by the measured speeds: so that it does not run
        alone in the end. Until all speeds are known, and if the budget may end the sweep before all
        trials have ended, the cell with the fewest trials is first.
        """
        self.clock.run()
        if self.storage_error is not None:
            return None
        if self._unfinished and not self._overspent:
            return self._unfinished.popleft()
        if self.exhausted:
            return None
        for cell in self._in_turn():
            if (planned := cell.next_trial()) is not None:
                self._add(_record(planned))
                self._save(self.records[planned.id])
                return planned
        return None

    def started(self, trial: str) -> None:
        """``trial`` waits for its workers, for the first time or again after a failure."""
        self.lost(trial)
        if trial not in self.counted_until:
            self.counted_until[trial] = None
            self._tell("waiting", self.records[trial])

    def lost(self, trial: str) -> None:
        """The workers of ``trial`` are gone: it holds nothing, and its time counts again once
        others report. Does nothing if it has none."""
        if self.counted_until.get(trial) is not None:
            self._count_time(trial)
            self.counted_until[trial] = None
            self._save(self.records[trial])
            self._tell("waiting", self.records[trial])

    def heard(self, trial: str, report: dict[str, Any]) -> bool:
        """Take in a worker's report; returns whether the trial must stop now.

        Evaluations that the record already has are ignored: a trial that is resumed from its last
        checkpoint reports some of them again. A report that the workers are lost tells nothing
        else.
        """
        record = self.records[trial]
        if report.get(LOST):
            self.lost(trial)
            return record.outcome is not None
        self._heard[trial] = self.now()
        self._count_time(trial)
        if WORKERS in report:
            self.workers[trial] = int(report[WORKERS])
        if trial in self.counted_until:
            first = self.counted_until[trial] is None
            self.counted_until[trial] = self.now()
            if first:
                self.resumed[trial] = int(report.get(STEP, 0))
                self._tell("started", record)
        self.checkpoint_bytes = max(self.checkpoint_bytes, report.get(SIZE, 0))
        if report.get(OUTCOME) in get_args(Outcome):
            record.outcome, record.reason = report[OUTCOME], report.get(REASON)
            self.cells[record.cell].decided(record)
        notes = [note for note in report.get(NOTES, []) if note not in record.notes]
        record.notes += notes
        before = record.step
        points = [*report.get(HISTORY, []), *_point(report)]
        # a trial that is resumed tells all of its history again
        added = record.merge([p for p in points if p[STEP] > before and _finite(p)])
        self.cells[record.cell].took(0.0, record.step - before)
        stop = record.outcome is not None
        for point in added:
            stops = self.cells[record.cell].heard(record, int(point[STEP]), point[LOSS])
            if stops and not stop:
                stop = record.step < record.config["iterations"]
                if stop:
                    record.outcome = "stopped"
                    record.reason = f"{self.spec.stopping().rule} at iteration {record.step}"
                    self.cells[record.cell].decided(record)
        if added and not stop and self._pauses(record, before):
            stop = True
            self._paused.add(trial)
        self._save(record)
        if notes:
            self._tell("noted", record)
        if added:
            self._tell("evaluated", record)
        return stop

    def signs(self) -> dict[str, float]:
        """Seconds since the last report of each trial whose workers have reported since it was
        started last. May be called on any thread."""
        now, heard, counted = self.now(), dict(self._heard), dict(self.counted_until)
        return {
            trial: max(0.0, now - heard[trial])
            for trial, until in counted.items()
            if until is not None and trial in heard
        }

    def lingers(self, trial: str) -> bool:
        """Whether the processes of ``trial`` still run :data:`LINGER_SECONDS` after its last
        evaluation."""
        record = self.records[trial]
        if record.step < record.config["iterations"]:
            return False
        return self.now() - self._heard.get(trial, math.inf) > LINGER_SECONDS

    def ended(self, trial: str, error: str | None = None) -> None:
        """``trial`` holds no resources any more and is not resumed in this run.

        ``error``: why it ended before its last iteration, if that is known.
        """
        record = self.records[trial]
        self._count_time(trial)
        self.counted_until.pop(trial, None)
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
        self.done += 1
        self._save(record, ended=True)
        self.cells[record.cell].ended(record, self._baseline(record.dataset))
        self._look()
        self._tell("ended", record)

    def tick(self) -> None:
        """Save, every :data:`TICK_SECONDS`, the time spent; to be called often."""
        if self.now() - self._ticked >= TICK_SECONDS:
            self._ticked = self.now()
            for trial, counted_until in self.counted_until.items():
                if counted_until is not None:
                    self._count_time(trial)
                    self._save(self.records[trial])
            self._save_clock()

    def close(self) -> None:
        """Count the time of the last trials and save what waits. No trial may run any more."""
        for trial in list(self.counted_until):
            self._count_time(trial)
            self._save(self.records[trial])
        self.counted_until.clear()
        self.ledger.write(CLOCK_FILE, self.clock.save)
        self.flush()

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait until what is known is saved, for ``timeout`` seconds at most; returns whether it
        is. May be called on any thread."""
        saved = self.ledger.flush(timeout)
        if not saved:
            alone = "; ".join(f"{key}: {why}" for key, why in self.ledger.given_up.items())
            logger.warning(
                "%d files in %s are not up to date (%s); trials that resume report what is missing",
                self.ledger.left,
                self.storage.uri,
                shown(alone or self.storage_error or "the storage is slow"),
            )
        return saved

    def best(self, cell: str) -> TrialRecord | None:
        """The trial of ``cell`` with the lowest end loss; a replicate if there is one."""
        return self.cells[cell].best()

    def _in_turn(self) -> list[CellStudy]:
        """The cells of which a trial may be due, in the order in which they are asked."""
        cells = [cell for cell in self.cells.values() if not cell.idle]
        if self._may_run_out:  # no cell may have more trials because it is slow
            return sorted(cells, key=lambda cell: len(cell.records))
        at_once = max(1, len(self.counted_until)) / max(1, len(cells))
        left: list[tuple[float, CellStudy]] = []
        for cell in cells:
            if (seconds := cell.seconds_left(at_once)) is None:
                return sorted(cells, key=lambda cell: len(cell.records))
            left.append((seconds, cell))
        left.sort(key=lambda item: item[0], reverse=True)
        return [cell for _, cell in left]

    @property
    def _may_run_out(self) -> bool:
        """Whether a cap of the budget may be reached before all trials have ended, if no further
        one is stopped early; so it is, too, while the speed of a cell is not known."""
        budget = self.spec.budget
        if not budget.caps:
            return False
        at_once = max(1, len(self.counted_until))
        seconds = gpu_seconds = longest = 0.0
        for name, cell in self.cells.items():
            if (left := cell.most_seconds_left) is None:
                return True
            scale = self._scales[name]
            seconds += left
            gpu_seconds += left * scale.most * scale.gpus_per_worker
            longest = max(longest, cell.seconds_left(at_once) or 0.0)
        spent = self.spent
        at_the_end = Spent(
            # when the last one is to start
            trials=0 if budget.trials is None else self.trial_count - 1,
            trial_hours=spent.trial_hours + seconds / 3600,
            gpu_hours=spent.gpu_hours + gpu_seconds / 3600,
            wall_clock=spent.wall_clock + max(seconds / at_once, longest),
        )
        return at_the_end.reached(budget) is not None

    def _pauses(self, record: TrialRecord, before: int) -> bool:
        """Whether the budget is overspent and ``record`` has reached a rung since ``before``."""
        if record.step >= record.config["iterations"] or not self._overspent:
            return False
        cell = self.cells[record.cell]
        return cell.rung(record, record.step) > cell.rung(record, before)

    @property
    def _overspent(self) -> str | None:
        """The cap of the budget that ends running trials, too: any but the number of trials."""
        return self._reached(self.spec.budget.model_copy(update={"trials": None}))

    def _reached(self, budget: Budget) -> str | None:
        # called at every evaluation: add nothing up if nothing is capped
        return self.spent.reached(budget) if budget.caps else None

    def _gpus(self, trial: str) -> float:
        """GPUs that ``trial`` holds."""
        scale = self._scales[self.records[trial].cell]
        return self.workers.get(trial, scale.most) * scale.gpus_per_worker

    def _add(self, record: TrialRecord) -> None:
        self._seconds += record.seconds
        self._gpu_seconds += record.gpu_seconds
        self.done += record.outcome is not None
        self.records[record.id] = record
        self.cells[record.cell].add(record)

    def _restore(self, *, retry_failed: bool) -> None:
        known = records.load_all(self.storage, mend=True, only=self.spec.only_label)
        for record in sorted(known.values(), key=lambda record: record.index):
            if record.cell not in self.cells:
                continue
            if record.dataset != self.cells[record.cell].dataset:
                raise RayganError(
                    f"{self.storage.uri}/{trial_folder(record.id)} does not belong to the sweep "
                    f"{self.spec.name!r}: its data set is {record.dataset}; restore it, or delete "
                    "this folder"
                )
            if record.outcome == "failed" and retry_failed:
                record.outcome = record.reason = None
            self._add(record)
            if record.outcome is not None and record.history and not record.checkpoints:
                self.ledger.look_up(record)  # killed before it was done
        for cell in self.cells.values():
            cell.restore(self._baseline(cell.dataset))
        self._look()
        self._unfinished.extend(
            plan.of_record(record) for record in self.records.values() if record.outcome is None
        )

    def _look(self) -> None:
        """Go to the next look if the comparisons of this one are not settled."""
        cells = self.cells.values()
        self.look = looks.current(
            self.spec, lambda seeds: all(cell.is_over(seeds) for cell in cells), self._is_settled
        )
        for cell in cells:
            if cell.seeds != self.look[0]:
                cell.seeds, cell.idle = self.look[0], False

    def _is_settled(self, seeds: int, level: float) -> bool:
        # of a look that is over, nothing changes unless a cell replicates something else
        now = tuple(cell.version for cell in self.cells.values())
        known = self._settled.get(seeds)
        if known is None or known[0] != now:
            settled = looks.is_settled(self.spec, self.records, seeds, level)
            known = self._settled[seeds] = (now, settled)
        return known[1]

    def _judge(self, record: TrialRecord) -> None:
        """Set the outcome of ``record``, which ran to its end, if it collapsed or learned nothing.

        A generator that has learned nothing makes few different images, too. Its outcome is
        ``untrained``, and its reason names both.
        """
        collapse = find_collapse(record.history, record.config)
        baseline = self._baseline(record.dataset)
        nothing = find_untrained(record.history, baseline) if baseline else None
        if nothing or collapse:
            record.outcome = "untrained" if nothing else "collapsed"
            record.reason = "; ".join(filter(None, [nothing, collapse]))

    def _baseline(self, dataset: str) -> float | None:
        """Loss of the mean training image of the data set; None if the images are not known."""
        known = None if self.prepared is None else self.prepared.get(dataset)
        return None if known is None else known.baseline

    def _count_time(self, trial: str) -> None:
        if (counted_until := self.counted_until.get(trial)) is not None:
            self.counted_until[trial] = now = self.now()
            record, seconds = self.records[trial], now - counted_until
            gpu_seconds = seconds * self._gpus(trial)
            record.seconds += seconds
            record.gpu_seconds += gpu_seconds
            self.cells[record.cell].took(seconds)
            self._seconds += seconds
            self._gpu_seconds += gpu_seconds

    def _save(self, record: TrialRecord, *, ended: bool = False) -> None:
        self.ledger.save(record, ended=ended)
        self._save_clock()

    def _save_clock(self) -> None:
        if self.clock.seconds - self._clock_saved >= SAVE_SECONDS:
            self._clock_saved = self.clock.seconds
            self.ledger.write(CLOCK_FILE, self.clock.save)

    def _tell(self, event: Event, record: TrialRecord) -> None:
        for listener in self.listeners:
            try:
                listener(event, record)
            except Exception:  # a listener that fails must not end a sweep
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
        dataset=planned.dataset,
    )


def _point(report: dict[str, Any]) -> list[dict[str, float]]:
    if LOSS not in report:
        return []
    # Ray Tune adds keys of its own to the report
    metrics = {key: float(report[key]) for key in report if key.startswith(METRIC_GROUPS)}
    return [{STEP: float(report[STEP]), **metrics}]


def _finite(point: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in point.values())


def outcomes(study: Study) -> dict[Outcome, int]:
    """How many trials ended with each outcome."""
    counts: dict[Outcome, int] = {}
    for record in study.records.values():
        if record.outcome is not None:
            counts[record.outcome] = counts.get(record.outcome, 0) + 1
    return counts
