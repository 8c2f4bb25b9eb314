"""Copies a sweep to MLflow: a parent run for the sweep, and a child run for each trial.

One background thread copies what MLflow does not have yet from the trials' records. So training
does not wait for MLflow, an outage of MLflow loses nothing, and each metric is logged once even if
a trial was retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

from raygan.addresses import check_address, is_address
from raygan.errors import TrackingError
from raygan.folder import MLFLOW_ARTIFACTS
from raygan.records import STEP, TrialRecord
from raygan.shown import shown
from raygan.storage import Storage
from raygan.tracking import view
from raygan.tracking.context import EXPERIMENT_NOTE, Status, is_file, quiet, set_defaults
from raygan.tracking.database import check, is_database
from raygan.tracking.problems import explain
from raygan.tracking.runs import NOTE, Ending, Runs

RETRY_SECONDS, RETRY_SECONDS_MOST = 1.0, 15.0
CLOSE_SECONDS = 60.0
"""How long :meth:`Tracker.close` waits for MLflow."""
# with this kind, the UI shows the runs of the experiment first, not traces of language models
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE}


@dataclass(frozen=True)
class _Change:
    """A trial whose record has changed since it was copied."""

    record: TrialRecord
    ended: bool
    summary: Mapping[str, float]


@dataclass
class _Pending:
    changes: dict[str, _Change] = field(default_factory=dict)
    """By trial, the change that is copied next."""
    busy: bool = False
    done: int = 0
    """Number of changes that were copied."""


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
        """Raises :class:`~raygan.errors.ConfigError` for a ``uri`` that holds a password."""
        check_address(uri, "tracking.uri")
        self.uri, self.experiment, self._sweep, self._storage = uri, experiment, sweep, storage
        self._spent: dict[str, float] | None = None
        self._pending = _Pending()
        self._changed = threading.Condition()
        self._closing = False
        self._closed: bool | None = None
        self._ended_trials: set[str] = set()
        self._thread: threading.Thread | None = None
        self.last_error: str | None = None
        """Why MLflow is behind the records now; None if it is not."""

    def connect(self) -> None:
        """Connect to MLflow and create the experiment if needed; raises TrackingError."""
        if self.uri.startswith("file:") or not (
            is_address(self.uri) or is_database(self.uri) or self.uri.startswith("databricks")
        ):
            raise TrackingError(
                f"tracking.uri (={shown(self.uri)!r}): MLflow keeps runs in a database or on a "
                "server; give sqlite:///path or http://host:port"
            )
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
        self, sweep_id: str, spec_yaml: str, tags: dict[str, str], plans: Sequence[str] = ()
    ) -> None:
        """Find or create the parent run and start copying; raises TrackingError.

        ``sweep_id`` identifies the sweep: another one may have the same name and folder. ``tags``:
        of the parent run and of all trials' runs. ``plans``: SHA-256 of the sweep's plan and of its
        changes; the first and the last become tags of the parent run.
        """
        with self._named_errors():
            self._runs = self._runs_of(sweep_id)
            self._runs.open(spec_yaml, tags, plans)
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

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
        with self._changed:
            if ended:
                self._ended_trials.add(record.id)
            ended = record.id in self._ended_trials
            self._spent = spent or self._spent
            self._add(_Change(deepcopy(record), ended, dict(summary or {})))
            self._changed.notify_all()

    def _add(self, change: _Change) -> None:
        before = self._pending.changes.get(change.record.id)
        if before is not None:
            ended, summary = before.ended or change.ended, {**before.summary, **change.summary}
            change = _Change(change.record, ended, summary)
        self._pending.changes[change.record.id] = change

    def close(self, status: Status, ending: Ending | None = None) -> bool:
        """Copy the rest and end the parent run. Returns whether everything was copied.

        It waits :data:`CLOSE_SECONDS`. With an ``ending``, the time starts again with each change
        that is copied. A second call changes nothing.
        """
        if self._closed is None:
            self._closed = self._close(status, ending)
        return self._closed

    def _close(self, status: Status, ending: Ending | None) -> bool:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            deadline = time.monotonic() + CLOSE_SECONDS
            while not self._idle():
                more = self._has_copied(self._pending.done)
                if not self._changed.wait_for(more, timeout=deadline - time.monotonic()):
                    return False
                if ending is not None:
                    deadline = time.monotonic() + CLOSE_SECONDS
        while True:
            try:
                with quiet():
                    self._runs.close(status, ending or Ending())
                return True
            except Exception as error:
                self.last_error = explain(error, self.uri)
                if time.monotonic() > deadline:
                    return False
                time.sleep(RETRY_SECONDS)

    def _has_copied(self, before: int) -> Callable[[], bool]:
        return lambda: self._idle() or self._pending.done > before

    def _idle(self) -> bool:
        return not self._pending.changes and not self._pending.busy

    def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending.changes or self._closing)
                if not self._pending.changes:
                    return
                change = self._pending.changes.pop(next(iter(self._pending.changes)))
                self._pending.busy = True
            try:
                with quiet():
                    self._copy(change)
                pause, failed = RETRY_SECONDS, False
            except Exception as error:  # no error of MLflow may stop the training
                self.last_error, failed = explain(error, self.uri), True
            with self._changed:
                if failed:
                    # merge with a newer change; ask MLflow again what it has
                    newer = self._pending.changes.pop(change.record.id, None)
                    for one in (change, newer):
                        if one is not None:
                            self._add(one)
                    self._runs.forget(change.record.id)
                else:
                    self._pending.done += 1
                    if not self._pending.changes:
                        self.last_error = None
                self._pending.busy = False
                self._changed.notify_all()
            if failed:
                time.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS_MOST)

    def _copy(self, change: _Change) -> None:
        if is_file(self.uri):  # finds a lock sooner than MLflow does
            check(self.uri)
        if not self._runs.copy(change.record, change.ended, change.summary):
            return
        with self._changed:
            spent, self._spent = self._spent, None
        if spent is not None:
            step = int(spent[STEP])
            self._runs.log_parent({key: spent[key] for key in spent if key != STEP}, step)

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
