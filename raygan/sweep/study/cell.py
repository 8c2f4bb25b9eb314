"""One cell of a sweep: its search, its stopping rule, its replicates.

Cells never compete: the trials of one cell have no effect on those of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import Any

from optuna.storages import BaseStorage

from raygan import recipe
from raygan.errors import RayganError
from raygan.records import WARMUP_SUFFIX, WHOLE, Kind, TrialRecord
from raygan.sweep.spec import plan
from raygan.sweep.spec.plan import Cell, TrialPlan
from raygan.sweep.spec.space import longest
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.stopping.rule import Stopper
from raygan.sweep.stopping.rules import is_exempt, make_stopper
from raygan.sweep.study.search import CellSearch

_TO_THE_END = Stopper()
MEASURED_SECONDS = 60.0
"""The speed of a cell is known once its trials have run for so long, all together."""


def verdict_records(
    spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]
) -> list[TrialRecord]:
    """The replicates of a cell's best settings, whatever their outcome: what the verdict rests on.

    ``records``: all records of the cell. If a setting needs a warm-up, only the replicates with a
    warm-up are returned; :func:`attempts` returns the others, too.
    """
    records = list(records)
    planned = set(replicate_ids(spec, cell, settings(spec, cell, records), spec.replicate.most))
    return [record for record in records if record.id in planned]


def attempts(spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """:func:`verdict_records`, and the replicates of the same settings without a warm-up."""
    records = list(records)
    planned = replicate_ids(spec, cell, settings(spec, cell, records), spec.replicate.most)
    plain = {id.removesuffix(WARMUP_SUFFIX) for id in planned}
    return [record for record in records if record.id.removesuffix(WARMUP_SUFFIX) in plain]


def trained_twice(spec: SweepSpec, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records whose trial is trained a second time, with a warm-up, now or later.

    These are the early failures of the search, and all replicates of a setting of which one
    replicate has failed early.
    """
    known = {record.id: record for record in records}
    warm = _warm_sources(known.values()) if spec.warmup is not None else set()
    return [
        record
        for record in known.values()
        if not plan.is_retry(record.id)
        and (
            f"{record.id}{WARMUP_SUFFIX}" in known
            or (record.kind == "search" and spec.warmup and record.outcome == "early-failure")
            or (record.kind == "replicate" and _source(record) in warm)
        )
    ]


def is_to_retry(spec: SweepSpec, record: TrialRecord, records: Mapping[str, TrialRecord]) -> bool:
    """Whether ``record`` is an early failure of a search whose retry with a warm-up is not among
    ``records`` yet."""
    return (
        spec.warmup is not None
        and record.kind == "search"
        and record.outcome == "early-failure"
        and not plan.is_retry(record.id)
        and f"{record.id}{WARMUP_SUFFIX}" not in records
    )


def _source(replicate: TrialRecord) -> str:
    """Id of the search trial whose setting is replicated."""
    return replicate.id.removesuffix(WARMUP_SUFFIX).rpartition("-seed")[0]


def _warm_sources(records: Iterable[TrialRecord]) -> set[str]:
    """Ids of the search trials whose setting needs a warm-up: a replicate of it has failed early
    without one."""
    return {
        _source(record)
        for record in records
        if record.kind == "replicate"
        and record.outcome == "early-failure"
        and not plan.is_retry(record.id)
    }


def best(spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The record with the lowest end loss: of the replicates, or of the search without replicates.

    Trials that have collapsed or learned nothing do not count. None if no other trial is left.
    """
    records = list(records)
    searched = [record for record in records if record.kind == "search"]
    for group in (verdict_records(spec, cell, records), searched):
        ranked = [record for record in _ranked(group) if record.outcome in ("ok", "stopped")]
        if ranked:
            return ranked[0]
    return None


def _ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials with a result, ordered by outcome (ok, stopped, collapsed, untrained), then end loss.

    Collapsed and untrained trials are kept: if a cell has no others, the best of them is
    replicated, which shows how often the setting fails.
    """
    usable = [r for r in records if r.outcome in (*WHOLE, "stopped") and r.history]
    order = ("ok", "stopped", "collapsed", "untrained")
    return sorted(usable, key=lambda r: (order.index(r.outcome or ""), r.end_loss or 0.0))


@dataclass(frozen=True)
class Setting:
    """One of the best settings of a cell, which is replicated."""

    source: str
    """Id of the search trial that has found it."""
    params: dict[str, Any]
    warm: bool
    """Whether it is trained with a warm-up."""

    def plan(self, spec: SweepSpec, cell: Cell, index: int) -> TrialPlan:
        """Its replicate ``index``."""
        planned = plan.replicate(spec, cell, index, self.params, self.source)
        warmup = spec.warmup if self.warm else None
        return planned if warmup is None else plan.with_warmup(planned, warmup)


def replicate_ids(spec: SweepSpec, cell: Cell, best: Iterable[Setting], seeds: int) -> list[str]:
    """Ids of the replicates of the settings ``best``, in the order in which they are trained."""
    best = list(best)
    return [
        plan.replicate_id(spec, cell, index, one.source) + WARMUP_SUFFIX * one.warm
        for index in range(seeds)
        for one in best
    ]


def settings(spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]) -> list[Setting]:
    """The settings that are best now, and so are replicated.

    All seeds of a setting are trained alike: with a warm-up if its search trial needed one, or if
    any seed has failed early without one.
    """
    records = list(records)
    warm = _warm_sources(records)
    top: dict[str, tuple[str, dict[str, Any]]] = {}
    if not plan.trials_per_cell(spec):
        top[""] = (cell.name, {})
    for record in _ranked(record for record in records if record.kind == "search"):
        # a setting that was drawn twice counts once
        source = record.id.removesuffix(WARMUP_SUFFIX)
        if top.setdefault(repr(sorted(record.params.items())), (source, record.params))[0] == (
            source) and plan.is_retry(record.id):  # fmt: skip
            warm.add(source)
    return [
        Setting(source, params, spec.warmup is not None and source in warm)
        for source, params in list(top.values())[: spec.replicate.top]
    ]


class CellStudy:
    """What one cell has tried, and what it tries next.

    First the cell is searched. If the spec has a warm-up, an early failure is retried with it.
    When the search is complete, the best settings are replicated. ``journal``: Optuna storage that
    the search is kept in.

    It is told of every record (:meth:`add`) and outcome (:meth:`decided`), and keeps what follows
    from them, so that no decision walks all records.
    """

    def __init__(self, spec: SweepSpec, cell: Cell, journal: BaseStorage | None) -> None:
        self.name, self.dataset = cell.name, spec.label_of(cell.values)
        self.records: dict[str, TrialRecord] = {}
        self.seeds = spec.replicate.seeds
        """Seeds of each of the best settings at the current look (:mod:`.looks`)."""
        self.version = 0
        """Grows with each change of what is replicated."""
        self.idle = False
        """Whether no trial is due until one that runs has an outcome, or the look changes."""
        self._spec, self._cell = spec, cell
        self._search = CellSearch(spec, cell.name, journal, repeat=cell.repeat)
        self._iterations = longest(spec, cell.values)
        self._stopper = make_stopper(spec.stopping(), self._iterations)
        self._open: dict[Kind, set[str]] = {"search": set(), "replicate": set()}
        self._failed_early: list[tuple[int, str]] = []  # a heap, by their place in the records
        self._places: dict[str, int] = {}
        self._settings: list[Setting] | None = None
        self._ids: dict[int, list[str]] = {}
        self._begun = 0
        self._seconds, self._steps = 0.0, 0
        self._twice: tuple[tuple[int, int], int] | None = None

    @property
    def complete(self) -> bool:
        """Whether all trials have ended and no further one is due."""
        return not self.busy and not self._search.left and self._due() is None

    @property
    def open(self) -> Iterator[str]:
        """Ids of the trials that have no outcome yet."""
        return chain(*self._open.values())

    @property
    def busy(self) -> bool:
        """Whether a trial has no outcome yet."""
        return any(self._open.values())

    @property
    def searches(self) -> bool:
        """Whether a trial of the search has no outcome yet."""
        return bool(self._open["search"])

    @property
    def trained_twice(self) -> int:
        """How many records :func:`trained_twice` names."""
        now = (self.version, len(self.records))
        if self._twice is None or self._twice[0] != now:
            self._twice = (now, len(trained_twice(self._spec, self.records.values())))
        return self._twice[1]

    def took(self, seconds: float, iterations: int = 0) -> None:
        """A trial has taken so many seconds more, or has so many iterations more."""
        self._seconds += seconds
        self._steps += iterations

    def seconds_left(self, at_once: float) -> float | None:
        """Seconds until the cell can be complete if ``at_once`` of its trials run at the same time:
        its trials that have not begun, and then the time that cannot be shortened by more GPUs, of
        one trial of the search and one replicate. None if its speed is not known yet."""
        if (trial := self._trial_seconds) is None:
            return None
        searches = self._search.left > 0 or self.searches
        replicates = self._replicates_left
        in_a_row = searches + (replicates > 0)
        return trial * ((self._search.left + replicates) / at_once + in_a_row)

    @property
    def most_seconds_left(self) -> float | None:
        """Seconds that its trials still take at most, added up: those that run, and those that have
        not begun. None if its speed is not known yet."""
        running = sum(1 - self.records[id].step / self._iterations for id in self.open)
        if not (trials := running + self._search.left + self._replicates_left):
            return 0.0
        return None if self._trial_seconds is None else trials * self._trial_seconds

    @property
    def _trial_seconds(self) -> float | None:
        """Seconds of a trial that runs to its end; None if the speed is not known yet."""
        if self._seconds < MEASURED_SECONDS or not self._steps:
            return None
        return self._iterations * self._seconds / self._steps

    @property
    def _replicates_left(self) -> int:
        """Replicates that have not begun."""
        if self._search.left or self.searches:
            return plan.replicates_per_cell(self._spec, self.seeds)
        return len(self._planned(self.seeds)) - self._begun

    def add(self, record: TrialRecord) -> None:
        """One more record of the cell."""
        self.took(record.seconds, record.step)
        self._places.setdefault(record.id, len(self.records))
        self.records[record.id] = record
        if record.kind == "search":
            self._change()
        if record.outcome is None:
            self._open[record.kind].add(record.id)
        else:
            self.decided(record)

    def decided(self, record: TrialRecord) -> None:
        """``record`` has an outcome now."""
        self.idle = False
        self._open[record.kind].discard(record.id)
        if not self._is_usual(record):
            self._change()
        if is_to_retry(self._spec, record, self.records):
            heappush(self._failed_early, (self._places[record.id], record.id))

    def next_trial(self) -> TrialPlan | None:
        """The next trial, or None if there is none now; later results may call for more."""
        if (planned := self._due()) is not None:
            return planned
        asked = self._search.ask()
        self.idle = asked is None
        return None if asked is None else plan.trial(self._spec, self._cell, *asked)

    def is_over(self, seeds: int) -> bool:
        """Whether the search has ended, and so have the replicates with ``seeds`` seeds of each of
        the best settings. A cell whose search gave no result has no replicates."""
        if self._search.left or self.searches or self._to_retry() is not None:
            return False
        known = self.records
        return all(id in known and known[id].outcome is not None for id in self._planned(seeds))

    def heard(self, record: TrialRecord, step: int, loss: float) -> bool:
        """An evaluation of ``record``; returns whether the rule stops it."""
        with recipe.blamed():
            stops = self._stopper_of(record).stops(record.id, step, loss)
        return stops and not is_exempt(record.index)

    def rung(self, record: TrialRecord, step: int) -> int:
        """The last iteration up to ``step`` at which ``record`` is compared with others."""
        return self._stopper_of(record).rung(step)

    def ended(self, record: TrialRecord, baseline: float | None = None) -> None:
        """Tell the search how ``record`` ended; ``baseline``: loss of the mean training image."""
        self.decided(record)
        if record.kind == "search" and not is_to_retry(self._spec, record, self.records):
            outcome = record.outcome or ""
            self._search.tell(record.index, record.curve, outcome=outcome, baseline=baseline)

    def restore(self, baseline: float | None = None) -> None:
        """Rebuild the search and the stop rule from the records of an earlier run."""
        searched = [record for record in self.records.values() if record.kind == "search"]
        for record in searched:
            if not plan.is_retry(record.id):
                self._restore_search(record, baseline)
        with recipe.blamed():
            self._stopper.resume({record.id: record.curve for record in searched})

    def verdict_records(self) -> list[TrialRecord]:
        """The replicates of the settings that are best now: what the verdict rests on."""
        return verdict_records(self._spec, self._cell, self.records.values())

    def best(self) -> TrialRecord | None:
        """The replicate with the lowest end loss, or the search trial if there is no replicate."""
        return best(self._spec, self._cell, self.records.values())

    def _due(self) -> TrialPlan | None:
        """The next trial that follows from ended ones: a retry, or a replicate after the search."""
        if (failed := self._to_retry()) is not None and self._spec.warmup is not None:
            return plan.with_warmup(plan.of_record(failed), self._spec.warmup)
        if self._search.left or self.searches:
            return None
        ids = self._planned(self.seeds)
        while self._begun < len(ids) and ids[self._begun] in self.records:
            self._begun += 1
        if self._begun >= len(ids):
            return None
        best = self._best_settings()
        index, place = divmod(self._begun, len(best))
        return best[place].plan(self._spec, self._cell, index)

    def _to_retry(self) -> TrialRecord | None:
        """The first early failure whose retry with a warm-up has not begun."""
        while self._failed_early:
            record = self.records[self._failed_early[0][1]]
            if is_to_retry(self._spec, record, self.records):
                return record
            heappop(self._failed_early)
        return None

    def _is_usual(self, record: TrialRecord) -> bool:
        """Whether the outcome of ``record`` changes nothing of what is replicated."""
        return (
            record.kind == "replicate"
            and record.outcome != "early-failure"
            and any(
                (one.source, one.warm) == (_source(record), plan.is_retry(record.id))
                for one in self._settings or ()
            )
        )

    def _change(self) -> None:
        self.version += 1
        self._settings, self._ids, self._begun = None, {}, 0

    def _best_settings(self) -> list[Setting]:
        if self._settings is None:
            self._settings = settings(self._spec, self._cell, self.records.values())
        return self._settings

    def _planned(self, seeds: int) -> list[str]:
        """Ids of the replicates with ``seeds`` seeds of each of the best settings."""
        if seeds not in self._ids:
            best = self._best_settings()
            self._ids[seeds] = replicate_ids(self._spec, self._cell, best, seeds)
        return self._ids[seeds]

    def _stopper_of(self, record: TrialRecord) -> Stopper:
        return self._stopper if record.kind == "search" else _TO_THE_END

    def _restore_search(self, record: TrialRecord, baseline: float | None) -> None:
        last = self.records.get(f"{record.id}{WARMUP_SUFFIX}", record)
        outcome = None if is_to_retry(self._spec, record, self.records) else last.outcome
        try:
            self._search.restore(
                record.index, record.params, last.curve, outcome=outcome, baseline=baseline
            )
        except ValueError as error:
            raise RayganError(
                f"trial {record.id}: its settings {record.params} do not belong to this search "
                f"space ({error}); delete its folder to run it again"
            ) from error
