"""Copies a sweep to MLflow: a parent run for the sweep, and a child run for each trial.

A few background threads copy what MLflow does not have yet from the trials' records. So training
does not wait for MLflow, an outage of MLflow loses nothing, and each metric is logged once even if
a trial was retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace

from raygan.addresses import check_address, is_address
from raygan.errors import TrackingError
from raygan.folder import MLFLOW_ARTIFACTS
from raygan.records import STEP, TrialRecord
from raygan.shown import duration, shown
from raygan.storage import Storage
from raygan.tracking import view
from raygan.tracking.context import EXPERIMENT_NOTE, Status, is_file, quiet, set_defaults
from raygan.tracking.copying import RETRY_SECONDS, Copying
from raygan.tracking.database import check, is_database
from raygan.tracking.problems import explain
from raygan.tracking.runs import NOTE, Ending, Runs
from raygan.tracking.trial_run import Point, evaluations_after, now

CLOSE_SECONDS, LATE_SECONDS = 60.0, 10.0
"""How long :meth:`Tracker.close` waits for MLflow, and for what is told after it."""
THREADS = 8
"""Threads that copy to a server. A database in a file takes one writer at a time, so it has one."""
_PARENT = ""
"""Key of the parent run's metrics among the changes; trials have longer ones."""
# with this kind, the UI shows the runs of the experiment first, not traces of language models
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE}


@dataclass(frozen=True)
class Lag:
    """How far MLflow is behind the records."""

    evaluations: int = 0
    """Evaluations that are not copied yet."""
    seconds: float = 0.0
    """Since the oldest change that is not copied yet."""

    def __str__(self) -> str:
        return f"{duration(self.seconds)} (evaluations that it lacks: {self.evaluations:,})"


@dataclass(frozen=True)
class _Change:
    """What is to be copied: a trial whose record has changed, or metrics of the parent run."""

    since: float
    """When it was told first, on the monotonic clock."""
    record: TrialRecord | None = None
    ended: bool = False
    points: list[Point] = field(default_factory=list)
    """Metrics of the whole trial, or of the parent run, in the order in which they were told."""
    if_lacking: Callable[[], Point] | None = None
    times: dict[int, int] = field(default_factory=dict)
    """By step, when an evaluation was told, in milliseconds since 1970."""

    def joined(self, later: _Change) -> _Change:
        """This change and a ``later`` one, as one; this one is not used again."""
        times, points = self.times, self.points  # no copies: there may be many
        # of one step, MLflow takes the value with the latest time as last
        for point in later.points:
            made = max(point.made, points[-1].made + 1) if points else point.made
            points.append(replace(point, made=made))
        for step, told in later.times.items():
            times.setdefault(step, told)
        return replace(
            later,
            since=self.since,
            ended=self.ended or later.ended,
            points=points,
            if_lacking=later.if_lacking or self.if_lacking,
            times=times,
        )


class Tracker:
    """Copies a sweep's records to MLflow.

    :meth:`update` returns at once. All other methods wait for MLflow.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        sweep: str,
        storage: Storage,
    ) -> None:
        """Does not contact MLflow.

        Raises :class:`~raygan.errors.ConfigError` for a ``uri`` that holds a password, and
        :class:`~raygan.errors.TrackingError` for one that MLflow cannot keep runs at.
        """
        check_address(uri, "tracking.uri")
        if uri.startswith("file:") or not (
            is_address(uri) or is_database(uri) or uri.startswith("databricks")
        ):
            raise TrackingError(
                f"tracking.uri (={shown(uri)!r}): MLflow keeps runs in a database or on a "
                "server; give sqlite:///path or http://host:port"
            )
        self.uri, self.experiment, self._sweep, self._storage = uri, experiment, sweep, storage
        threads = 1 if is_file(uri) else THREADS
        self._copying: Copying[_Change] = Copying(self._copy, self._told, threads)
        self._runs: Runs | None = None
        self._closed: bool | None = None
        self._is_open = False
        self._closing = threading.Lock()
        self.closed = threading.Event()
        """Set once :meth:`close` has returned."""
        self._ended_trials: set[str] = set()
        self.last_error: str | None = None
        """The error of MLflow that keeps it behind the records now; None if there is none."""

    def connect(self) -> None:
        """Connect to MLflow and create the experiment if needed; raises TrackingError."""
        set_defaults()  # before the client is made
        with self._named_errors():
            self._connect()

    def ended(self, sweep_id: str) -> tuple[str, str] | None:
        """Status and description of the sweep's parent run; None if there is no run.

        Raises TrackingError.
        """
        with self._named_errors():
            return self._runs_of(sweep_id).ended()

    def link(self, sweep_id: str) -> str | None:
        """Path in MLflow's UI to the sweep's trials; None if the sweep has no run.

        Raises TrackingError.
        """
        with self._named_errors():
            parent = self._runs_of(sweep_id).find_parent()
            return parent and view.link(self._client, self._experiment_id, parent, self._sweep)

    def open(
        self,
        sweep_id: str,
        spec_yaml: str,
        tags: dict[str, str],
        plans: Sequence[str] = (),
        *,
        running: bool = True,
    ) -> None:
        """Find or create the parent run and start copying; raises TrackingError.

        ``sweep_id`` identifies the sweep: another one may have the same name and folder. ``tags``:
        of the parent run and of all trials' runs. ``plans``: SHA-256 of the sweep's plan and of its
        changes; the first and the last become tags of the parent run. ``running``: whether the
        sweep runs now; if not, no run in MLflow does, either.
        """
        with self._named_errors():
            self._runs = self._runs_of(sweep_id)
            self._runs.open(spec_yaml, tags, plans, running=running)
        self._is_open = True
        self._copying.start()

    @property
    def behind(self) -> Lag:
        """How far MLflow is behind now.

        An evaluation counts once MLflow was asked what it has of the trial.
        """
        pending = self._copying.pending()
        if not pending:
            return Lag()
        evaluations = 0
        # a trial that is being copied may have changed again meanwhile
        for record in {r.id: r for change in pending if (r := change.record)}.values():
            logged = self._opened().logged(record.id)
            if logged is not None:
                evaluations += len(evaluations_after(record, logged))
        return Lag(evaluations, _age(pending))

    @property
    def seconds_behind(self) -> float:
        """:attr:`Lag.seconds` now; cheap enough to be asked at each evaluation."""
        return _age(self._copying.pending())

    def update(
        self,
        record: TrialRecord,
        *,
        ended: bool = False,
        spent: dict[str, float] | None = None,
        summary: Mapping[str, float] | None = None,
    ) -> None:
        """Copy ``record`` to MLflow soon.

        ``spent``: metrics of the parent run, and the ``step`` that they belong to. ``summary``:
        metrics of the whole trial, logged when it has ended. A trial stays ended: a late report,
        such as its last one while the sweep is stopped, does not start its run again.
        """
        if ended:
            self._ended_trials.add(record.id)
        since = time.monotonic()
        ended = record.id in self._ended_trials
        # the record's evaluations are not copied: there are many, and they do not change
        points = [Point(dict(summary))] if summary else []
        change = _Change(since, copy(record), ended, points, times=_times(record))
        self._copying.put(record.id, change)
        if spent is not None:
            metrics = {key: spent[key] for key in spent if key != STEP}
            point = Point(metrics, int(spent[STEP]))
            self._copying.put(_PARENT, _Change(since, points=[point]))

    def catch_up(
        self, record: TrialRecord, summary: Callable[[TrialRecord], Mapping[str, float]]
    ) -> None:
        """Copy ``record``, of a trial that has ended, if MLflow does not have its end.

        ``summary`` makes its metrics as a whole; it is called only then, on another thread.
        """
        self._ended_trials.add(record.id)
        told = now()
        change = _Change(
            time.monotonic(),
            record,
            True,
            if_lacking=lambda: Point(dict(summary(record)), made=told),
            times=_times(record),
        )
        self._copying.put(record.id, change)

    def close(self, status: Status, ending: Ending | None = None) -> bool:
        """Copy the rest and end the parent run. Returns whether everything was copied.

        It waits :data:`CLOSE_SECONDS`. With an ``ending``, the time starts again with each change
        that is copied. A later call copies what was told since, and changes nothing else. One
        on another thread waits for the first, at most twice :data:`CLOSE_SECONDS`.
        """
        if not self._closing.acquire(timeout=2 * CLOSE_SECONDS):  # changes, then the parent run
            return False
        try:
            if self._closed is None:
                self._closed = self._close(status, ending)
            elif self._closed:
                seconds = min(CLOSE_SECONDS, LATE_SECONDS)
                self._closed = self._copying.close(seconds, extended=False)
            return self._closed
        finally:
            self._closing.release()
            self.closed.set()

    def give_up(self, seconds: float) -> None:
        """Copy nothing more, and wait at most ``seconds`` for what is being copied. Changes no
        status."""
        self._copying.give_up(seconds)
        self.closed.set()

    def _close(self, status: Status, ending: Ending | None) -> bool:
        if self._runs is None or not self._runs.parent:  # it could not be opened
            return False
        if not self._copying.close(CLOSE_SECONDS, extended=ending is not None):
            return False
        # if open() failed, one attempt: its error is to be told
        deadline = time.monotonic() + (CLOSE_SECONDS if self._is_open else 0.0)
        while True:
            try:
                with quiet():
                    if is_file(self.uri):  # finds a lock sooner than MLflow does
                        check(self.uri)
                    self._opened().close(status, ending or Ending())
                self.last_error = None
                return True
            except Exception as error:
                self.last_error = explain(error, self.uri)
                if time.monotonic() > deadline:
                    return False
                time.sleep(RETRY_SECONDS)

    def _opened(self) -> Runs:
        assert self._runs is not None, "open() comes first"
        return self._runs

    def _copy(self, _: str, change: _Change) -> None:
        with quiet():
            if is_file(self.uri):  # finds a lock sooner than MLflow does
                check(self.uri)
            if change.record is None:
                self._copy_spent(change.points)
            else:
                self._opened().copy(
                    change.record,
                    ended=change.ended,
                    summary=change.points,
                    if_lacking=change.if_lacking,
                    times=change.times,
                )

    def _copy_spent(self, points: list[Point]) -> None:
        behind = self.behind
        for point in points:  # those of a repeated request have it from the first
            point.values.setdefault("mlflow/evaluations_behind", float(behind.evaluations))
            point.values.setdefault("mlflow/seconds_behind", behind.seconds)
        self._opened().log_parent(points)

    def _told(self, error: Exception | None) -> None:
        self.last_error = None if error is None else explain(error, self.uri)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            with quiet():
                check(self.uri)
                yield
        except TrackingError:
            raise
        except Exception as error:
            raise TrackingError(
                f"MLflow at {self.uri} cannot be used: {explain(error, self.uri)}"
            ) from error

    def _connect(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(tracking_uri=self.uri)
        experiment = self._client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            if experiment.lifecycle_stage != "active":
                raise TrackingError(
                    f"the experiment {shown(self.experiment)!r} of MLflow at {self.uri} is "
                    "deleted: restore it (`mlflow experiments restore --experiment-id "
                    f"{experiment.experiment_id}`), or give another name in `tracking.experiment`"
                )
            self._experiment_id = experiment.experiment_id
            return
        location = None
        if is_file(self.uri) and self._storage.is_local:
            location = (self._storage.local.parent / MLFLOW_ARTIFACTS).as_uri()
        try:
            self._experiment_id = self._client.create_experiment(
                self.experiment, artifact_location=location, tags=_EXPERIMENT_TAGS
            )
        except MlflowException:  # perhaps another sweep has created it meanwhile
            experiment = self._client.get_experiment_by_name(self.experiment)
            if experiment is None:
                raise
            self._experiment_id = experiment.experiment_id

    def _runs_of(self, sweep_id: str) -> Runs:
        return Runs(self._client, self._experiment_id, self._sweep, sweep_id, self._storage)


def _times(record: TrialRecord) -> dict[int, int]:
    """Now, in milliseconds since 1970, as the time of the record's last evaluation.

    A request that is repeated has the same time, so that MLflow takes its metrics once.
    """
    return {record.step: now()} if record.history else {}


def _age(pending: Sequence[_Change]) -> float:
    """Seconds since the oldest of these changes was told; 0 if there is none."""
    return max((time.monotonic() - change.since for change in pending), default=0.0)
