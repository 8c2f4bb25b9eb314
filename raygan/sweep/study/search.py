"""Which settings a cell tries. Each cell has an Optuna study of its own, so cells never compete."""

from __future__ import annotations

import itertools
import json
import logging
import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from raygan.gan.sampling import derive_seed
from raygan.records import end_loss
from raygan.sweep.spec import space
from raygan.sweep.spec.space import search_method
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_sections import Range, Scalar
from raygan.sweep.study.ledger import Ledger

logger = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

Curve = list[tuple[int, float]]
"""Iteration and reconstruction loss of each evaluation."""

Distributions = dict[str, BaseDistribution]
PENALTY = 10.0
"""Optuna is told this many times the loss of the mean image for a trial without a result."""
FAILURES = ("diverged", "collapsed", "early-failure", "untrained")
"""Outcomes without a result whose cause is the settings."""
REDRAWS = 30
"""How often a point that was tried is drawn again, before the first untried one is taken."""
TOLD = 10
"""Most losses of a trial that Optuna is told, evenly spaced; it needs the last one only, the others
are for optuna-dashboard."""


class CellSearch:
    """The search within one cell: ask for settings, tell their results.

    The point of trial ``index`` depends on the search's seed, on ``index``, on the points drawn
    before and, for tpe, on the results told before. It does not depend on the cell: a random search
    draws the same points in every cell, and a resumed search draws the points that it would have
    drawn. If the space is finite, no point is drawn twice. Each ``repeat`` draws other points.

    What Optuna is told, by outcome:

    ====================  ======================================================================
    ``ok``                complete, with the end loss
    ``stopped``           pruned, with its last end loss
    :data:`FAILURES`      pruned, with :data:`PENALTY` times the ``baseline`` (the loss of the
                          mean training image; infinity if it is not known). As failed, Optuna
                          would ignore the trial and draw settings that fail again.
    ``failed``            failed: the process ended, such as with its node. That says nothing
                          about the settings.
    ====================  ======================================================================
    """

    def __init__(
        self,
        spec: SweepSpec,
        cell: str = "all",
        storage: BaseStorage | None = None,
        *,
        repeat: int = 0,
    ) -> None:
        self._spec, self._repeat = spec, repeat
        self._count = space.trials_per_cell(spec)
        self._space = spec.space()
        self._tried: set[tuple[Scalar, ...]] = set()
        self._distributions = {name: _distribution(name, v) for name, v in self._space.items()}
        self._study = optuna.create_study(study_name=cell, storage=storage, direction="minimize")
        self._asked: dict[int, optuna.Trial] = {}
        self._given: set[int] = set()
        self._next = 0  # all trials before this one have been asked for
        self._left = self._count
        self._planned = list(itertools.islice(self._planned_points(), self._count))

    @property
    def left(self) -> int:
        """How many trials have not been asked for yet."""
        return self._left

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Index and settings of the next trial, or None if all trials have been asked for."""
        if not self.left:
            return None
        while self._next in self._given:
            self._next += 1
        index = self._next
        planned = self._planned[index] if index < len(self._planned) else None
        return index, self._ask(index, planned)

    def tell(
        self, index: int, curve: Curve, *, outcome: str, baseline: float | None = None
    ) -> None:
        """Tell the result of trial ``index``; see the class for what each ``outcome`` means."""
        if (asked := self._asked.pop(index, None)) is not None:
            state, value, losses = _result(curve, outcome, baseline)
            for step, loss in losses.items():
                asked.report(loss, step)
            self._study.tell(asked, value, state=state)

    def restore(
        self,
        index: int,
        params: dict[str, Any],
        curve: Curve,
        *,
        outcome: str | None,
        baseline: float | None = None,
    ) -> None:
        """Add trial ``index`` of an earlier run. ``outcome``: None if the trial will be resumed."""
        if outcome is None:
            self._ask(index, params)
            return
        self._give(index)
        self._tried.add(tuple(params[name] for name in self._space if name in params))
        state, value, losses = _result(curve, outcome, baseline)
        trial = optuna.trial.create_trial(
            state=state,
            value=value,
            params=params,
            distributions=self._distributions,
            intermediate_values=losses,
        )
        self._study.add_trial(trial)

    def _ask(self, index: int, point: dict[str, Any] | None) -> dict[str, Any]:
        self._give(index)
        if point is not None:
            self._study.enqueue_trial(point)
        self._study.sampler = self._sampler(index)
        asked = self._asked[index] = self._study.ask(self._distributions)
        self._tried.add(tuple(asked.params[name] for name in self._space))
        return dict(asked.params)

    def _give(self, index: int) -> None:
        if index not in self._given:
            self._given.add(index)
            self._left -= index < self._count

    def _planned_points(self) -> Iterable[dict[str, Scalar]]:
        first = list(self._spec.search.try_first)
        yield from first
        values = space.finite(self._space)
        if search_method(self._spec) == "grid" and values is not None:
            points = (space.setting(values, k) for k in range(space.size(self._space) or 0))
            yield from (point for point in points if point not in first)

    def _sampler(self, index: int) -> BaseSampler:
        seed = derive_seed(self._spec.search.seed, index, self._repeat) % 2**32
        sampler: BaseSampler = RandomSampler(seed=seed)
        if search_method(self._spec) == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                # constant_liar: trials that run at the same time get different points
                sampler = TPESampler(seed=seed, constant_liar=True)
        if (values := space.finite(self._space)) is None:
            return sampler
        return _Untried(sampler, self._distributions, values, self._tried)


class _Untried(BaseSampler):
    """Draws points of a finite space by another sampler, until one has not been tried.

    After :data:`REDRAWS` draws, it takes the first untried point in the order of the product.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        distributions: Distributions,
        values: Mapping[str, Sequence[Scalar]],
        tried: set[tuple[Scalar, ...]],
    ) -> None:
        self._sampler, self._distributions = sampler, distributions
        self._values, self._tried = values, tried

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:  # noqa: ARG002
        """All fields: they are drawn together."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """A point that has not been tried, if there is one."""
        for _ in range(REDRAWS):
            point = self._draw(study, trial, search_space)
            if tuple(point.values()) not in self._tried:
                return point
        numbers = range(math.prod(map(len, self._values.values())))
        points = (space.setting(self._values, number) for number in numbers)
        return next((p for p in points if tuple(p.values()) not in self._tried), point)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Required by Optuna, but not called: :meth:`sample_relative` draws all fields."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def _draw(self, study: Study, trial: FrozenTrial, fields: Distributions) -> dict[str, Any]:
        related = self._sampler.infer_relative_search_space(study, trial)
        drawn = self._sampler.sample_relative(study, trial, related)
        for name, field in fields.items():
            if field.single():
                drawn[name] = self._values[name][0]
            elif name not in drawn:
                drawn[name] = self._sampler.sample_independent(study, trial, name, field)
        return {name: drawn[name] for name in fields}


def _told(curve: Curve) -> dict[int, float]:
    """By iteration, what Optuna is told of a trial: some of its losses, and last its end loss, by
    which tpe compares trials that were stopped early."""
    if not curve:
        return {}
    some = curve[:: -(-len(curve) // TOLD)]
    return {**dict(some), curve[-1][0]: end_loss(curve)}


def _result(
    curve: Curve, outcome: str, baseline: float | None
) -> tuple[TrialState, float | None, dict[int, float]]:
    """State, value and intermediate values of a trial, as Optuna is told."""
    if outcome in FAILURES:
        # tpe ranks pruned trials below complete ones, and those pruned first below the others
        penalty = math.inf if baseline is None else PENALTY * baseline
        return TrialState.PRUNED, None, {0: penalty}
    losses = _told(curve)
    if not curve or outcome not in ("ok", "stopped"):
        return TrialState.FAIL, None, losses
    if outcome == "stopped":
        return TrialState.PRUNED, None, losses
    return TrialState.COMPLETE, losses[curve[-1][0]], losses


class Journal(BaseJournalBackend):
    """Optuna's operations: for the one Optuna storage that reads them, and, written behind by
    ``ledger``, in the file ``path`` for optuna-dashboard.

    A file of an earlier run is replaced, since its trials are restored from their records. If the
    file cannot be written, the sweep goes on without it: nothing reads it but optuna-dashboard.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path, self._ledger = path, ledger
        self._logs: deque[dict[str, Any]] = deque()
        self._first = 0
        """Number of the first operation in ``_logs``: those before have been read."""
        self._unwritten: deque[dict[str, Any]] = deque()
        self._mode = "wb"
        self._readable = True
        self._ledger.write(path.name, self._write)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from number ``log_number_from`` on; those before are forgotten."""
        while self._logs and self._first < log_number_from:
            self._logs.popleft()
            self._first += 1
        return iter(list(self._logs))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """More operations."""
        self._logs += logs
        self._unwritten += logs
        self._ledger.write(self.path.name, self._write)

    def _write(self) -> None:
        """Append what is new; called by one thread at a time."""
        lines = []
        while self._unwritten:
            lines.append(json.dumps(self._unwritten.popleft(), separators=(",", ":")) + "\n")
        if not self._readable:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(self._mode) as file:
                file.write("".join(lines).encode())
            self._mode = "ab"
        except OSError as error:  # a file with missing operations cannot be read
            self._readable = False
            logger.warning(
                "%s cannot be written any more, so optuna-dashboard does not show the rest: %s",
                self.path,
                error,
            )


def _distribution(name: str, values: list[Scalar] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    log = values.scale == "log"
    if name in space.integer_fields():
        return IntDistribution(int(values.min), int(values.max), log=log)
    return FloatDistribution(values.min, values.max, log=log)
