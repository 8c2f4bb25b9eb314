"""One cell of a sweep: its search, its stopping rule, its replicates.

Cells never compete: the trials of one cell have no effect on those of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optuna.storages import BaseStorage

from raygan import recipe
from raygan.errors import RayganError
from raygan.records import WARMUP_SUFFIX, WHOLE, TrialRecord
from raygan.sweep.spec import plan
from raygan.sweep.spec.plan import Cell, TrialPlan
from raygan.sweep.spec.space import longest
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.stopping.rule import Stopper
from raygan.sweep.stopping.rules import is_exempt, make_stopper
from raygan.sweep.study.search import CellSearch

_TO_THE_END = Stopper()


def verdict_records(
    spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]
) -> list[TrialRecord]:
    """The replicates of a cell's best settings, whatever their outcome: what the verdict rests on.

    ``records``: all records of the cell. If a setting needs a warm-up, only the replicates with a
    warm-up are returned; :func:`attempts` returns the others, too.
    """
    records = list(records)
    planned = {planned.id for planned in replicates(spec, cell, records, spec.replicate.most)}
    return [record for record in records if record.id in planned]


def attempts(spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """:func:`verdict_records`, and the replicates of the same settings without a warm-up."""
    records = list(records)
    most = spec.replicate.most
    plain = {p.id.removesuffix(WARMUP_SUFFIX) for p in replicates(spec, cell, records, most)}
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


def replicates(
    spec: SweepSpec, cell: Cell, records: Iterable[TrialRecord], seeds: int
) -> Iterator[TrialPlan]:
    """The trials that replicate the settings that are best now, each with ``seeds`` seeds.

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
    settings = list(top.values())[: spec.replicate.top]
    for index in range(seeds):
        for source, params in settings:
            planned = plan.replicate(spec, cell, index, params, source)
            warmup = spec.warmup if source in warm else None
            yield planned if warmup is None else plan.with_warmup(planned, warmup)


class CellStudy:
    """What one cell has tried, and what it tries next.

    First the cell is searched. If the spec has a warm-up, an early failure is retried with it.
    When the search is complete, the best settings are replicated. ``journal``: Optuna storage that
    the search is kept in.
    """

    def __init__(self, spec: SweepSpec, cell: Cell, journal: BaseStorage | None) -> None:
        self.name = cell.name
        self.records: dict[str, TrialRecord] = {}
        self.seeds = spec.replicate.seeds
        """Seeds of each of the best settings at the current look (:mod:`.looks`)."""
        self._spec, self._cell = spec, cell
        self._search = CellSearch(spec, cell.name, journal, repeat=cell.repeat)
        self._stopper = make_stopper(spec.stopping(), longest(spec, cell.values))

    @property
    def complete(self) -> bool:
        """Whether all trials have ended and no further one is due."""
        ended = all(record.outcome for record in self.records.values())
        return ended and not self._search.left and next(self._due(), None) is None

    def next_trial(self) -> TrialPlan | None:
        """The next trial, or None if there is none now; later results may call for more."""
        if (planned := next(self._due(), None)) is not None:
            return planned
        asked = self._search.ask()
        return None if asked is None else plan.trial(self._spec, self._cell, *asked)

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
        if record.kind == "search" and not is_to_retry(self._spec, record, self.records):
            outcome = record.outcome or ""
            self._search.tell(record.index, record.curve, outcome=outcome, baseline=baseline)

    def restore(self, baseline: float | None = None) -> None:
        """Rebuild the search and the stop rule from the records of an earlier run."""
        searched = [record for record in self.records.values() if record.kind == "search"]
        for record in searched:
            if not plan.is_retry(record.id):
                self._restore_search(record, baseline)
        # in the order of the iterations, so that no trial is compared with losses of later ones
        points = [(point, record) for record in searched for point in record.curve]
        with recipe.blamed():
            for (step, loss), record in sorted(points, key=lambda item: item[0][0]):
                self._stopper.stops(record.id, step, loss)

    def verdict_records(self) -> list[TrialRecord]:
        """The replicates of the settings that are best now: what the verdict rests on."""
        return verdict_records(self._spec, self._cell, self.records.values())

    def best(self) -> TrialRecord | None:
        """The replicate with the lowest end loss, or the search trial if there is no replicate."""
        return best(self._spec, self._cell, self.records.values())

    def _due(self) -> Iterator[TrialPlan]:
        """Trials that follow from ended ones: retries, and replicates after the search."""
        if self._spec.warmup is not None:
            for record in self.records.values():
                if is_to_retry(self._spec, record, self.records):
                    yield plan.with_warmup(plan.of_record(record), self._spec.warmup)
        if self._search.left or any(
            record.outcome is None for record in self.records.values() if record.kind == "search"
        ):
            return
        for planned in replicates(self._spec, self._cell, self.records.values(), self.seeds):
            if planned.id not in self.records:
                yield planned

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
