"""Which settings a cell tries: one Optuna study per cell, so that cells never compete."""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from raygan.gan.sampling import derive_seed
from raygan.sweep.plan import trials_per_cell
from raygan.sweep.sections import Range, Scalar
from raygan.sweep.spec import SweepSpec, integer_fields, search_method

logger = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

Curve = list[tuple[int, float]]
"""Iteration and reconstruction loss of each evaluation."""


class CellSearch:
    """The search within one cell: ask for settings, tell how they did.

    What is drawn for trial ``index`` depends on the search's seed, on ``index`` and, for tpe,
    on the trials told before, not on the cell: every cell is offered the same random points,
    and a resumed search goes on as it would have.
    """

    def __init__(
        self, spec: SweepSpec, cell: str = "all", storage: BaseStorage | None = None
    ) -> None:
        self._spec = spec
        self._count = trials_per_cell(spec)
        self._space = spec.space()
        self._distributions = {name: _distribution(name, v) for name, v in self._space.items()}
        self._study = optuna.create_study(study_name=cell, storage=storage, direction="minimize")
        self._asked: dict[int, optuna.Trial] = {}
        self._given: set[int] = set()
        self._planned = list(itertools.islice(self._planned_points(), self._count))

    @property
    def left(self) -> int:
        """How many trials are yet to be asked for."""
        return self._count - sum(index < self._count for index in self._given)

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial's index and settings, or None when the cell has had all its trials."""
        if not self.left:
            return None
        index = next(i for i in range(self._count) if i not in self._given)
        planned = self._planned[index] if index < len(self._planned) else None
        return index, self._ask(index, planned)

    def report(self, index: int, step: int, loss: float) -> None:
        """An evaluation of trial ``index``, which is running."""
        if (asked := self._asked.get(index)) is not None:
            asked.report(loss, step)

    def tell(self, index: int, curve: Curve, *, outcome: str) -> None:
        """The result of trial ``index``: complete, stopped early, or without a usable loss."""
        if (asked := self._asked.pop(index, None)) is not None:
            state, value = _result(curve, outcome)
            self._study.tell(asked, value, state=state)

    def restore(
        self, index: int, params: dict[str, Any], curve: Curve, *, outcome: str | None
    ) -> None:
        """Trial ``index`` of an earlier run of the same sweep; without an outcome, it goes on."""
        if outcome is None:
            self._ask(index, params)
            for step, loss in curve:
                self.report(index, step, loss)
            return
        self._given.add(index)
        state, value = _result(curve, outcome)
        trial = optuna.trial.create_trial(
            state=state,
            value=value,
            params=params,
            distributions=self._distributions,
            intermediate_values=dict(curve),
        )
        self._study.add_trial(trial)

    def _ask(self, index: int, point: dict[str, Any] | None) -> dict[str, Any]:
        self._given.add(index)
        if point is not None:
            self._study.enqueue_trial(point)
        self._study.sampler = self._sampler(index)
        asked = self._asked[index] = self._study.ask(self._distributions)
        return dict(asked.params)

    def _planned_points(self) -> Iterable[dict[str, Scalar]]:
        first = list(self._spec.search.try_first)
        yield from first
        if search_method(self._spec) == "grid":
            lists = {n: v for n, v in self._space.items() if not isinstance(v, Range)}
            for values in itertools.product(*lists.values()):
                point = dict(zip(lists, values, strict=True))
                if point not in first:
                    yield point

    def _sampler(self, index: int) -> optuna.samplers.BaseSampler:
        seed = derive_seed(self._spec.search.seed, index, 0) % 2**32
        if search_method(self._spec) == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                # constant_liar: trials that run at once are kept apart
                return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)


def _result(curve: Curve, outcome: str) -> tuple[TrialState, float | None]:
    losses = [loss for _, loss in curve]
    if not losses or outcome not in ("ok", "stopped"):
        return TrialState.FAIL, None
    if outcome == "stopped":
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, min(losses)


class Journal(BaseJournalBackend):
    """Optuna's operations in memory, written to ``path`` for optuna-dashboard as long as it can be.

    What an earlier run left there is replaced: its trials come back from their records. Nothing
    depends on the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logs: list[dict[str, Any]] = []
        self._readable = True
        self._append(b"", mode="wb")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from number ``log_number_from`` on."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """More operations."""
        self._logs += logs
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        self._append("".join(lines).encode(), mode="ab")

    def _append(self, data: bytes, *, mode: str) -> None:
        if not self._readable:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                file.write(data)
        except OSError as error:  # with a hole in it, it would be of no use any more
            self._readable = False
            logger.warning("%s is no longer kept for optuna-dashboard: %s", self.path, error)


def _distribution(name: str, values: list[Scalar] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    log = values.scale == "log"
    if name in integer_fields():
        return IntDistribution(int(values.min), int(values.max), log=log)
    return FloatDistribution(values.min, values.max, log=log)
